#include "cuda/card.h"
#include "base/memory.h"
#include "cuda/staging.h"

#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Of the toolkit that compiled the kernels: code for cards runs on drivers of the same major version and of
 * newer ones. */
#ifndef GPTVQ_CUDA_TOOLKIT
#define GPTVQ_CUDA_TOOLKIT 11000
#endif

typedef struct card {
  gptvq_device device;
  gptvq_nvidia nvidia;
  gptvq_card_info info;
  CUdevice number;
  CUcontext context;
  CUmodule module;
  CUfunction kernels[GPTVQ_KERNEL_COUNT]; /* NULL: not asked for yet */
  cublasHandle_t blas;
  cusolverDnHandle_t solver;
  gptvq_staging staging;
  struct {
    const char *begin, *end; /* NULL: none */
  } pinned[16];              /* by the caller; of more some go by way of the staging */
} card;

static card *card_of(gptvq_device *device) { return device->state; }

static CUdeviceptr address(const void *pointer) { return (CUdeviceptr)(uintptr_t)pointer; }

/* A context belongs to a thread, and calls may come from another one than the last. */
static gptvq_status enter(card *c, gptvq_error *err) {
  return gptvq_nvidia_check(&c->nvidia, c->nvidia.context_set(c->context), "entering its context", err);
}

/* ---- memory ---- */

static gptvq_status get_memory(gptvq_device *device, size_t *free_bytes, size_t *total_bytes,
                               gptvq_error *err) {
  card *c = card_of(device);
  GPTVQ_TRY(enter(c, err));
  return gptvq_nvidia_check(&c->nvidia, c->nvidia.memory_info(free_bytes, total_bytes),
                            "asking for its memory", err);
}

static gptvq_status alloc(gptvq_device *device, size_t bytes, void **out, gptvq_error *err) {
  card *c = card_of(device);
  CUdeviceptr pointer = 0;
  *out = NULL;
  GPTVQ_TRY(enter(c, err));
  const CUresult result = c->nvidia.memory_alloc(&pointer, gptvq_max_size(1, bytes));
  if (result == CUDA_ERROR_OUT_OF_MEMORY) {
    size_t available = 0, total = 0;
    (void)c->nvidia.memory_info(&available, &total);
    return gptvq_fail(
        err, GPTVQ_ERROR_MEMORY,
        "%s is out of memory: %.1f MB are asked for, %.1f of %.1f MB are free; take `device` cpu, "
        "or free some of it",
        c->info.name, (double)bytes * 1e-6, (double)available * 1e-6, (double)total * 1e-6);
  }
  GPTVQ_TRY(gptvq_nvidia_check(&c->nvidia, result, "allocating memory", err));
  *out = (void *)(uintptr_t)pointer;
  return GPTVQ_OK;
}

static void release(gptvq_device *device, void *memory) {
  card *c = card_of(device);
  if (memory == NULL || c->nvidia.context_set(c->context) != CUDA_SUCCESS) return;
  (void)c->nvidia.memory_free(address(memory)); /* waits for the work that uses it */
}

/* Does a copy to or from there go by way of the staging? */
static bool is_staged(const card *c, const gptvq_device_rows *shape, const void *host) {
  const uintptr_t at = (uintptr_t)host;
  for (size_t i = 0; i < sizeof c->pinned / sizeof *c->pinned; i++)
    if (at >= (uintptr_t)c->pinned[i].begin && at < (uintptr_t)c->pinned[i].end) return false;
  return gptvq_staging_takes(&c->staging, shape);
}

static gptvq_status upload(gptvq_device *device, const gptvq_device_rows *shape, void *to, const void *from,
                           gptvq_error *err) {
  card *c = card_of(device);
  if (shape->rows == 0 || shape->row_bytes == 0) return GPTVQ_OK;
  GPTVQ_TRY(enter(c, err));
  if (is_staged(c, shape, from)) return gptvq_staging_upload(&c->staging, shape, address(to), from, err);
  const CUDA_MEMCPY2D copy = {.srcMemoryType = CU_MEMORYTYPE_HOST,
                              .srcHost = from,
                              .srcPitch = shape->host_pitch,
                              .dstMemoryType = CU_MEMORYTYPE_DEVICE,
                              .dstDevice = address(to),
                              .dstPitch = shape->device_pitch,
                              .WidthInBytes = shape->row_bytes,
                              .Height = shape->rows};
  const bool whole =
      shape->rows == 1 || (shape->host_pitch == shape->row_bytes && shape->device_pitch == shape->row_bytes);
  return gptvq_nvidia_check(&c->nvidia,
                            whole ? c->nvidia.upload(address(to), from, shape->rows * shape->row_bytes)
                                  : c->nvidia.copy_rows(&copy),
                            "copying to it", err);
}

static gptvq_status download(gptvq_device *device, const gptvq_device_rows *shape, void *to, const void *from,
                             gptvq_error *err) {
  card *c = card_of(device);
  if (shape->rows == 0 || shape->row_bytes == 0) return GPTVQ_OK;
  GPTVQ_TRY(enter(c, err));
  if (is_staged(c, shape, to)) return gptvq_staging_download(&c->staging, shape, to, address(from), err);
  const CUDA_MEMCPY2D copy = {.srcMemoryType = CU_MEMORYTYPE_DEVICE,
                              .srcDevice = address(from),
                              .srcPitch = shape->device_pitch,
                              .dstMemoryType = CU_MEMORYTYPE_HOST,
                              .dstHost = to,
                              .dstPitch = shape->host_pitch,
                              .WidthInBytes = shape->row_bytes,
                              .Height = shape->rows};
  const bool whole =
      shape->rows == 1 || (shape->host_pitch == shape->row_bytes && shape->device_pitch == shape->row_bytes);
  return gptvq_nvidia_check(&c->nvidia,
                            whole ? c->nvidia.download(to, address(from), shape->rows * shape->row_bytes)
                                  : c->nvidia.copy_rows(&copy),
                            "copying from it", err);
}

static bool pin(gptvq_device *device, void *memory, size_t bytes) {
  card *c = card_of(device);
  if (bytes == 0 || c->nvidia.context_set(c->context) != CUDA_SUCCESS ||
      c->nvidia.host_register(memory, bytes, 0) != CUDA_SUCCESS)
    return false;
  size_t place = 0;
  while (place < sizeof c->pinned / sizeof *c->pinned && c->pinned[place].begin != NULL) place++;
  if (place < sizeof c->pinned / sizeof *c->pinned) {
    c->pinned[place].begin = memory;
    c->pinned[place].end = (const char *)memory + bytes;
  }
  return true;
}

static void unpin(gptvq_device *device, void *memory) {
  card *c = card_of(device);
  if (c->nvidia.context_set(c->context) == CUDA_SUCCESS) (void)c->nvidia.host_unregister(memory);
  for (size_t i = 0; i < sizeof c->pinned / sizeof *c->pinned; i++)
    if (c->pinned[i].begin == memory) c->pinned[i].begin = c->pinned[i].end = NULL;
}

static gptvq_status set(gptvq_device *device, void *to, unsigned char value, size_t bytes, gptvq_error *err) {
  card *c = card_of(device);
  if (bytes == 0) return GPTVQ_OK;
  GPTVQ_TRY(enter(c, err));
  return gptvq_nvidia_check(&c->nvidia, c->nvidia.memory_set(address(to), value, bytes), "filling its memory",
                            err);
}

/* ---- work ---- */

static gptvq_status find_kernel(card *c, gptvq_kernel kernel, gptvq_error *err) {
#define NAME(name) "gptvq_kernel_" #name,
  static const char *const names[] = {GPTVQ_CUDA_KERNELS(NAME)};
#undef NAME
  CUfunction function = NULL;
  char what[96];
  (void)snprintf(what, sizeof what, "preparing %s", names[kernel]);
  GPTVQ_TRY(gptvq_nvidia_check(&c->nvidia, c->nvidia.module_function(&function, c->module, names[kernel]),
                               what, err));
  /* more than 48 KiB of dynamic shared memory have to be asked for, and no more can be than static arrays
   * leave
   */
  int fixed = 0;
  GPTVQ_TRY(gptvq_nvidia_check(
      &c->nvidia, c->nvidia.function_get(&fixed, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, function), what, err));
  GPTVQ_TRY(
      gptvq_nvidia_check(&c->nvidia,
                         c->nvidia.function_set(function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                                (int)c->device.shared_bytes - fixed),
                         what, err));
  c->kernels[kernel] = function;
  return GPTVQ_OK;
}

static gptvq_status launch(gptvq_device *device, gptvq_kernel kernel, const gptvq_device_grid *grid,
                           const void *arguments, gptvq_error *err) {
  card *c = card_of(device);
  if (grid->x == 0 || grid->y == 0) return GPTVQ_OK;
  GPTVQ_TRY(enter(c, err));
  if (c->kernels[kernel] == NULL) GPTVQ_TRY(find_kernel(c, kernel, err));
  void *parameters[1] = {(void *)(uintptr_t)arguments};
  return gptvq_nvidia_check(&c->nvidia,
                            c->nvidia.launch(c->kernels[kernel], grid->x, grid->y, 1, grid->threads, 1, 1,
                                             (unsigned)grid->shared_bytes, NULL, parameters, NULL),
                            "starting a kernel", err);
}

/* cuBLAS has columns where we have rows: a row-major matrix is to it the transpose with the same leading
 * dimension, and Cᵀ = op(B)ᵀ op(A)ᵀ. */
static gptvq_status product(gptvq_device *device, const gptvq_device_product *p, gptvq_error *err) {
  card *c = card_of(device);
  if (p->m == 0 || p->n == 0) return GPTVQ_OK;
  if (p->m > INT_MAX || p->n > INT_MAX || p->k > INT_MAX || p->lda > INT_MAX || p->ldb > INT_MAX ||
      p->ldc > INT_MAX)
    return gptvq_fail(err, GPTVQ_ERROR_INTERNAL, "a product of %zu x %zu x %zu is too large for cuBLAS", p->m,
                      p->n, p->k);
  GPTVQ_TRY(enter(c, err));
  const int compute = p->precision == GPTVQ_PRODUCT_TF32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  const int type = p->precision == GPTVQ_PRODUCT_BF16 ? CUDA_R_16BF : CUDA_R_32F;
  return gptvq_nvidia_check_blas(c->nvidia.blas_gemm(c->blas, p->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N,
                                                     p->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N, (int)p->n,
                                                     (int)p->m, (int)p->k, &p->alpha, p->b, type, (int)p->ldb,
                                                     p->a, type, (int)p->lda, &p->beta, p->c, CUDA_R_32F,
                                                     (int)p->ldc, compute, CUBLAS_GEMM_DEFAULT),
                                 "a product", err);
}

typedef struct workspace {
  int doubles;        /* of the factorisation */
  size_t bytes, host; /* of both steps on the card; of the inversion in host memory */
} workspace;

static gptvq_status measure(card *c, size_t n, double *a, workspace *w, gptvq_error *err) {
  size_t inversion = 0;
  w->doubles = 0;
  w->host = 0;
  GPTVQ_TRY(gptvq_nvidia_check_solver(
      c->nvidia.cholesky_size(c->solver, CUBLAS_FILL_MODE_UPPER, (int)n, a, (int)n, &w->doubles),
      "preparing a factorisation", err));
  GPTVQ_TRY(gptvq_nvidia_check_solver(c->nvidia.invert_size(c->solver, CUBLAS_FILL_MODE_UPPER,
                                                            CUBLAS_DIAG_NON_UNIT, (int64_t)n, CUDA_R_64F, a,
                                                            (int64_t)n, &inversion, &w->host),
                                      "preparing an inversion", err));
  if (w->doubles < 0)
    return gptvq_fail(err, GPTVQ_ERROR_INTERNAL, "cuSOLVER asks for %d numbers to factorise", w->doubles);
  w->bytes = gptvq_max_size((size_t)w->doubles * sizeof(double), inversion);
  return GPTVQ_OK;
}

static gptvq_status read_info(card *c, const void *from, int *info, gptvq_error *err) {
  return gptvq_nvidia_check(&c->nvidia, c->nvidia.download(info, address(from), sizeof *info),
                            "a factorisation", err);
}

/* Row-major lower is column-major upper: A = Uᵀ U there with U = Lᵀ, whose inverse is in turn our L⁻¹. */
static gptvq_status factorise(card *c, size_t n, double *a, const workspace *w, void *memory, void *host,
                              bool *done, gptvq_error *err) {
  int *device_info = (int *)(void *)((char *)memory + gptvq_round_up(w->bytes, 256)), info = 0;
  GPTVQ_TRY(gptvq_nvidia_check_solver(c->nvidia.cholesky(c->solver, CUBLAS_FILL_MODE_UPPER, (int)n, a, (int)n,
                                                         memory, w->doubles, device_info),
                                      "a factorisation", err));
  GPTVQ_TRY(read_info(c, device_info, &info, err));
  if (info < 0)
    return gptvq_fail(err, GPTVQ_ERROR_INTERNAL, "cuSOLVER refuses parameter %d of a factorisation", -info);
  if (info > 0) return GPTVQ_OK;
  GPTVQ_TRY(gptvq_nvidia_check_solver(
      c->nvidia.invert(c->solver, CUBLAS_FILL_MODE_UPPER, CUBLAS_DIAG_NON_UNIT, (int64_t)n, CUDA_R_64F, a,
                       (int64_t)n, memory, w->bytes, host, w->host, device_info),
      "an inversion", err));
  GPTVQ_TRY(read_info(c, device_info, &info, err));
  *done = info == 0;
  return GPTVQ_OK;
}

static gptvq_status inverse_factor(gptvq_device *device, size_t n, double *a, bool *done, gptvq_error *err) {
  card *c = card_of(device);
  workspace w;
  void *memory = NULL, *host = NULL;
  *done = n == 0;
  if (n == 0) return GPTVQ_OK;
  if (n > INT_MAX)
    return gptvq_fail(err, GPTVQ_ERROR_INTERNAL, "a matrix of %zu rows is too large for cuSOLVER", n);
  GPTVQ_TRY(enter(c, err));
  GPTVQ_TRY(measure(c, n, a, &w, err));
  GPTVQ_TRY(alloc(device, gptvq_round_up(w.bytes, 256) + sizeof(int), &memory, err));
  host = gptvq_alloc(gptvq_max_size(1, w.host), 1);
  gptvq_status status = host != NULL ? factorise(c, n, a, &w, memory, host, done, err)
                                     : gptvq_fail_memory(err, "the Hessian factorisation", w.host);
  free(host);
  release(device, memory);
  return status;
}

static gptvq_status synchronize(gptvq_device *device, gptvq_error *err) {
  card *c = card_of(device);
  GPTVQ_TRY(enter(c, err));
  return gptvq_nvidia_check(&c->nvidia, c->nvidia.synchronize(), "waiting for it", err);
}

/* ---- opening ---- */

static gptvq_status attribute(card *c, int which, int *value, gptvq_error *err) {
  return gptvq_nvidia_check(&c->nvidia, c->nvidia.device_attribute(value, which, c->number),
                            "asking for its properties", err);
}

static gptvq_status find_card(card *c, unsigned number, gptvq_error *err) {
  int major = 0, minor = 0, shared = 0, processors = 0;
  GPTVQ_TRY(
      gptvq_nvidia_check(&c->nvidia, c->nvidia.device_get(&c->number, (int)number), "finding the card", err));
  if (c->nvidia.device_name(c->info.name, sizeof c->info.name, c->number) != CUDA_SUCCESS)
    (void)snprintf(c->info.name, sizeof c->info.name, "card %u", number);
  c->info.name[sizeof c->info.name - 1] = '\0';
  GPTVQ_TRY(attribute(c, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, &major, err));
  GPTVQ_TRY(attribute(c, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, &minor, err));
  GPTVQ_TRY(attribute(c, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, &shared, err));
  GPTVQ_TRY(attribute(c, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, &processors, err));
  if (10 * major + minor < GPTVQ_CARD_CAPABILITY)
    return gptvq_fail(
        err, GPTVQ_ERROR_UNSUPPORTED,
        "card %u, %s, is too old: its compute capability is %d.%d, and %d.%d is needed (Ampere or "
        "newer); take another one by `device` cuda:N, or cpu",
        number, c->info.name, major, minor, GPTVQ_CARD_CAPABILITY / 10, GPTVQ_CARD_CAPABILITY % 10);
  c->info.major = (unsigned)major;
  c->info.minor = (unsigned)minor;
  c->info.driver = c->nvidia.version;
  c->info.number = number;
  c->device.shared_bytes = shared > 0 ? (size_t)shared : 0;
  c->device.processors = processors > 0 ? (unsigned)processors : 1;
  return GPTVQ_OK;
}

static gptvq_status open_context(card *c, const gptvq_card_need *need, gptvq_error *err) {
  size_t available = 0;
  const gptvq_nvidia *n = &c->nvidia;
  CUresult result = n->context_retain(&c->context, c->number);
  if (result != CUDA_SUCCESS) c->context = NULL;
  if (result == CUDA_ERROR_DEVICE_UNAVAILABLE)
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED, "%s is taken by another program that does not share it",
                      c->info.name);
  GPTVQ_TRY(gptvq_nvidia_check(n, result, "starting on it", err));
  GPTVQ_TRY(get_memory(&c->device, &available, &c->info.memory, err));
  if (available < need->bytes)
    return gptvq_fail(
        err, GPTVQ_ERROR_MEMORY,
        "%s has too little memory: %.1f of %.1f GB are free, and this model takes at least %.1f; "
        "free some, or take `device` cpu",
        c->info.name, (double)available * 1e-9, (double)c->info.memory * 1e-9, (double)need->bytes * 1e-9);
  return GPTVQ_OK;
}

static gptvq_status load_kernels(card *c, const void *image, gptvq_error *err) {
  if (image == NULL && gptvq_cuda_image_bytes == 0)
    return gptvq_fail(
        err, GPTVQ_ERROR_UNSUPPORTED,
        "this program has no kernels for cards: it was built without nvcc (GPTVQ_CUDA=ON); take "
        "`device` cpu");
  const CUresult result = c->nvidia.module_load(&c->module, image != NULL ? image : gptvq_cuda_image);
  if (result == CUDA_SUCCESS) return GPTVQ_OK;
  c->module = NULL;
  if (result == CUDA_ERROR_NO_BINARY_FOR_GPU || result == CUDA_ERROR_UNSUPPORTED_PTX_VERSION)
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "this program's kernels do not run on %s with this driver (CUDA error %d): update "
                      "NVIDIA's driver, or take `device` cpu",
                      c->info.name, result);
  return gptvq_nvidia_check(&c->nvidia, result, "loading kernels", err);
}

/* Undoes what follows. */
static void leave(card *c) {
  if (c->context == NULL) return;
  (void)c->nvidia.context_set(c->context);
  gptvq_staging_close(&c->staging);
  if (c->solver != NULL) (void)c->nvidia.solver_destroy(c->solver);
  if (c->blas != NULL) (void)c->nvidia.blas_destroy(c->blas);
  if (c->module != NULL) (void)c->nvidia.module_unload(c->module);
  (void)c->nvidia.context_set(NULL);
  (void)c->nvidia.context_release(c->number); /* with all its memory */
  c->solver = NULL;
  c->blas = NULL;
  c->module = NULL;
  c->context = NULL;
}

static gptvq_status start_on(card *c, unsigned number, const gptvq_card_need *need, gptvq_error *err) {
  GPTVQ_TRY(find_card(c, number, err));
  GPTVQ_TRY(open_context(c, need, err));
  GPTVQ_TRY(load_kernels(c, need->image, err));
  int result = c->nvidia.blas_create(&c->blas);
  if (result != 0) c->blas = NULL;
  GPTVQ_TRY(gptvq_nvidia_check_blas(result, "starting cuBLAS", err));
  result = c->nvidia.solver_create(&c->solver);
  if (result != 0) c->solver = NULL;
  GPTVQ_TRY(gptvq_nvidia_check_solver(result, "starting cuSOLVER", err));
  gptvq_staging_open(&c->staging, &c->nvidia);
  return GPTVQ_OK;
}

static gptvq_status open_card(card *c, unsigned number, const gptvq_card_need *need, gptvq_error *err) {
  int count = 0;
  GPTVQ_TRY(gptvq_nvidia_load_driver(&c->nvidia, GPTVQ_CUDA_TOOLKIT, err));
  GPTVQ_TRY(gptvq_nvidia_check(&c->nvidia, c->nvidia.device_count(&count), "counting cards", err));
  if (count <= 0) return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED, "no CUDA card: the driver finds none");
  GPTVQ_TRY(gptvq_nvidia_load_libraries(&c->nvidia, err));
  if (number != GPTVQ_CARD_ANY) {
    if (number >= (unsigned)count)
      return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED, "no CUDA card %u: the driver finds %d, counted from 0",
                        number, count);
    return start_on(c, number, need, err);
  }
  gptvq_status first = GPTVQ_OK;
  for (unsigned i = 0; i < (unsigned)count; i++) { /* of several that will not do, the first one's reason */
    gptvq_error why;
    const gptvq_status status = start_on(c, (need->first + i) % (unsigned)count, need, &why);
    if (status == GPTVQ_OK) return GPTVQ_OK;
    leave(c);
    if (first == GPTVQ_OK && err != NULL) *err = why;
    if (first == GPTVQ_OK) first = status;
  }
  return first;
}

static void close_card(gptvq_device *device) {
  if (device == NULL) return;
  card *c = card_of(device);
  leave(c);
  gptvq_nvidia_unload(&c->nvidia);
  free(c);
}

gptvq_status gptvq_card_open(unsigned number, const gptvq_card_need *need, gptvq_device **out,
                             gptvq_error *err) {
  card *c = gptvq_alloc_zero(1, sizeof *c);
  *out = NULL;
  if (c == NULL) return gptvq_fail_memory(err, "a card", sizeof *c);
  c->device = (gptvq_device){.name = c->info.name,
                             .state = c,
                             .alloc = alloc,
                             .free = release,
                             .upload = upload,
                             .download = download,
                             .pin = pin,
                             .unpin = unpin,
                             .set = set,
                             .launch = launch,
                             .product = product,
                             .inverse_factor = inverse_factor,
                             .synchronize = synchronize,
                             .memory = get_memory,
                             .close = close_card};
  gptvq_status status = open_card(c, number, need, err);
  if (status != GPTVQ_OK) close_card(&c->device);
  else *out = &c->device;
  return status;
}

void gptvq_card_describe(const gptvq_device *device, gptvq_card_info *info) {
  *info = ((const card *)device->state)->info;
}
