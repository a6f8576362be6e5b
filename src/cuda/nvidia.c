#define _GNU_SOURCE /* RTLD_NODELETE: the driver has threads of its own, which outlive a dlclose */
#include "cuda/nvidia.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* Major versions whose functions above are alike. */
enum { BLAS_NEWEST = 13, BLAS_OLDEST = 11, SOLVER_NEWEST = 12, SOLVER_OLDEST = 11 };

static gptvq_status no_symbol(const char *library, const char *symbol, gptvq_error *err) {
  return gptvq_fail(
      err, GPTVQ_ERROR_UNSUPPORTED,
      "%s has no %s: it is too old, or not NVIDIA's; update the driver and CUDA's libraries, or "
      "take `device` cpu",
      library, symbol);
}

/* A pointer to data becomes one to a function, which POSIX allows and ISO C does not. */
static gptvq_status find(void *library, const char *library_name, const char *symbol, void *member,
                         gptvq_error *err) {
  void *found = dlsym(library, symbol);
  if (found == NULL) return no_symbol(library_name, symbol, err);
  memcpy(member, &found, sizeof found);
  return GPTVQ_OK;
}

gptvq_status gptvq_nvidia_check(const gptvq_nvidia *n, CUresult result, const char *what, gptvq_error *err) {
  const char *name = NULL;
  if (result == CUDA_SUCCESS) return GPTVQ_OK;
  if (result == CUDA_ERROR_OUT_OF_MEMORY)
    return gptvq_fail(err, GPTVQ_ERROR_MEMORY,
                      "the card is out of memory (%s): free some, or take `device` cpu", what);
  if (n->error_name == NULL || n->error_name(result, &name) != CUDA_SUCCESS || name == NULL) name = "unknown";
  return gptvq_fail(
      err, GPTVQ_ERROR_INTERNAL,
      "the card failed (%s): CUDA error %d, %s; `resume` goes on after the last finished block, "
      "with `device` cpu too",
      what, result, name);
}

static gptvq_status check_library(const char *library, int out_of_memory, int result, const char *what,
                                  gptvq_error *err) {
  if (result == 0) return GPTVQ_OK;
  return gptvq_fail(
      err, result == out_of_memory ? GPTVQ_ERROR_MEMORY : GPTVQ_ERROR_INTERNAL,
      "the card failed (%s): %s status %d; `resume` goes on after the last finished block, with "
      "`device` cpu too",
      what, library, result);
}

gptvq_status gptvq_nvidia_check_blas(int result, const char *what, gptvq_error *err) {
  return check_library("cuBLAS", CUBLAS_STATUS_ALLOC_FAILED, result, what, err);
}

gptvq_status gptvq_nvidia_check_solver(int result, const char *what, gptvq_error *err) {
  return check_library("cuSOLVER", CUSOLVER_STATUS_ALLOC_FAILED, result, what, err);
}

static gptvq_status start(const gptvq_nvidia *n, gptvq_error *err) {
  const CUresult result = n->init(0);
  const char *name = NULL;
  switch (result) {
  case CUDA_SUCCESS: return GPTVQ_OK;
  case CUDA_ERROR_NO_DEVICE:
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED, "no CUDA card: the driver finds none");
  case CUDA_ERROR_STUB_LIBRARY:
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "no CUDA driver: libcuda.so.1 is the toolkit's stub for linking; take it out of "
                      "LD_LIBRARY_PATH");
  case CUDA_ERROR_SYSTEM_DRIVER_MISMATCH:
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "libcuda.so.1 and the driver in the kernel are of different versions: restart the "
                      "machine after an update");
  default: break;
  }
  if (n->error_name(result, &name) != CUDA_SUCCESS || name == NULL) name = "unknown";
  return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED, "the CUDA driver does not start: error %d, %s", result,
                    name);
}

gptvq_status gptvq_nvidia_load_driver(gptvq_nvidia *n, int least, gptvq_error *err) {
  static const char name[] = "libcuda.so.1";
  memset(n, 0, sizeof *n);
  n->driver = dlopen(name, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (n->driver == NULL) {
    const char *why = dlerror();
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "no CUDA driver: %s; install NVIDIA's driver, or take `device` cpu",
                      why != NULL ? why : name);
  }
  /* the version comes first: what an old driver lacks is less of a help than how old it is */
  GPTVQ_TRY(find(n->driver, name, "cuDriverGetVersion", &n->driver_version, err));
  if (n->driver_version(&n->version) != CUDA_SUCCESS) n->version = 0;
  if (n->version < least)
    return gptvq_fail(
        err, GPTVQ_ERROR_UNSUPPORTED,
        "the CUDA driver is too old: it is for CUDA %d.%d, and this program needs %d.%d; update "
        "NVIDIA's driver, or take `device` cpu",
        n->version / 1000, n->version % 1000 / 10, least / 1000, least % 1000 / 10);
#define FIND(member, symbol, result, parameters) GPTVQ_TRY(find(n->driver, name, symbol, &n->member, err));
  GPTVQ_CUDA_DRIVER(FIND)
#undef FIND
  return start(n, err);
}

/* "libcublas.so.13" and older ones, down to `oldest`. */
static gptvq_status open_newest(const char *stem, int newest, int oldest, char *name, size_t size, void **out,
                                gptvq_error *err) {
  for (int major = newest; major >= oldest; major--) {
    (void)snprintf(name, size, "%s.so.%d", stem, major);
    *out = dlopen(name, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (*out != NULL) return GPTVQ_OK;
  }
  return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                    "%s.so.%d (down to %d) cannot be loaded: install CUDA's libraries or put their folder "
                    "into LD_LIBRARY_PATH, or take `device` cpu",
                    stem, newest, oldest);
}

gptvq_status gptvq_nvidia_load_libraries(gptvq_nvidia *n, gptvq_error *err) {
  char name[32];
  const int driver = n->version / 1000; /* a library of a newer CUDA does not run on it */
  const int blas = driver < BLAS_NEWEST ? driver : BLAS_NEWEST;
  const int solver = driver < 13 ? SOLVER_OLDEST : SOLVER_NEWEST; /* CUDA 11 and 12 have cuSOLVER 11 */
  GPTVQ_TRY(open_newest("libcublas", blas, BLAS_OLDEST, name, sizeof name, &n->blas, err));
#define FIND(member, symbol, result, parameters) GPTVQ_TRY(find(n->blas, name, symbol, &n->member, err));
  GPTVQ_CUDA_BLAS(FIND)
#undef FIND
  GPTVQ_TRY(open_newest("libcusolver", solver, SOLVER_OLDEST, name, sizeof name, &n->solver, err));
#define FIND(member, symbol, result, parameters) GPTVQ_TRY(find(n->solver, name, symbol, &n->member, err));
  GPTVQ_CUDA_SOLVER(FIND)
#undef FIND
  return GPTVQ_OK;
}

void gptvq_nvidia_unload(gptvq_nvidia *n) {
  if (n->solver != NULL) (void)dlclose(n->solver);
  if (n->blas != NULL) (void)dlclose(n->blas);
  if (n->driver != NULL) (void)dlclose(n->driver);
  memset(n, 0, sizeof *n);
}
