/* What stands for NVIDIA's libraries where there is no card: libcuda.so.1, libcublas and libcusolver, in the
 * sense of their manuals. FAKE_… (CMakeLists.txt) says what is wrong with the driver; without any it works,
 * on the shim: kernels run on the host, products and factorisations are column-major BLAS's and LAPACK's. It
 * is strict: a call without a context on its thread, a launch that a card would refuse, are errors. Copies
 * that do not wait arrive when an event after them is waited for, or when the card is; memory of the host
 * that was changed till then is an error. With FAKE_LOST_BY=FILE in the environment the card is lost some
 * launches after that file is there: it fails in all that it is asked for, as cards do. */
#include "base/half.h"
#include "cuda/device.h"
#include "cuda/nvidia.h"

#include <cblas.h>
#include <lapacke.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef FAKE_VERSION
#define FAKE_VERSION 13000
#endif
#ifndef FAKE_INIT
#define FAKE_INIT CUDA_SUCCESS
#endif
#ifndef FAKE_CARDS
#define FAKE_CARDS 2
#endif
#ifndef FAKE_CAPABILITY
#define FAKE_CAPABILITY 90
#endif
#ifndef FAKE_FREE
#define FAKE_FREE ((size_t)24 << 30)
#endif
#ifndef FAKE_IMAGE
#define FAKE_IMAGE CUDA_SUCCESS
#endif

#define FAKE __attribute__((visibility("default")))
enum {
  INVALID_VALUE = 1,
  NOT_INITIALIZED = 3,
  INVALID_DEVICE = 101,
  INVALID_CONTEXT = 201,
  NOT_FOUND = 500,
  OUT_OF_RESOURCES = 701,
  LAUNCH_FAILED = 719,
  LAST_LAUNCHES = 50, /* of a card that will be lost */
  PLAIN_SHARED = 48 << 10
};

struct CUctx_st {
  int retained;
};
struct CUfunc_st {
  gptvq_kernel kernel;
  int fixed;  /* bytes of static shared memory: kernel em has arrays */
  int shared; /* dynamic bytes that it may ask for */
};

static gptvq_device *shim;
static int initialized;
static struct CUctx_st contexts[FAKE_CARDS > 0 ? FAKE_CARDS : 1];
static _Thread_local CUcontext current;
static struct CUfunc_st functions[GPTVQ_KERNEL_COUNT];
static const char *const names[] = {
#define NAME(name) "gptvq_kernel_" #name,
    GPTVQ_CUDA_KERNELS(NAME)
#undef NAME
};

static int launches_left = LAST_LAUNCHES;

static CUresult ready(void) {
  if (!initialized) return NOT_INITIALIZED;
  if (launches_left <= 0) return LAUNCH_FAILED;
  return current != NULL && current->retained > 0 ? CUDA_SUCCESS : INVALID_CONTEXT;
}
#define READY() \
  do { \
    const CUresult ready_ = ready(); \
    if (ready_ != CUDA_SUCCESS) return ready_; \
  } while (0)

FAKE CUresult cuDriverGetVersion(int *version);
FAKE CUresult cuDriverGetVersion(int *version) {
  *version = FAKE_VERSION;
  return CUDA_SUCCESS;
}

FAKE CUresult cuInit(unsigned flags);
FAKE CUresult cuInit(unsigned flags) {
  if (flags != 0) return INVALID_VALUE;
  if (FAKE_INIT == CUDA_SUCCESS && shim == NULL && gptvq_device_open_shim(&shim, NULL) != GPTVQ_OK)
    return CUDA_ERROR_OUT_OF_MEMORY;
  initialized = FAKE_INIT == CUDA_SUCCESS;
  return FAKE_INIT;
}

FAKE CUresult cuGetErrorName(CUresult error, const char **text);
FAKE CUresult cuGetErrorName(CUresult error, const char **text) {
  *text = error == OUT_OF_RESOURCES ? "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"
          : error == LAUNCH_FAILED  ? "CUDA_ERROR_LAUNCH_FAILED"
                                    : "CUDA_ERROR_FAKE";
  return CUDA_SUCCESS;
}

FAKE CUresult cuDeviceGetCount(int *count);
FAKE CUresult cuDeviceGetCount(int *count) {
  *count = FAKE_CARDS;
  return initialized ? CUDA_SUCCESS : NOT_INITIALIZED;
}

FAKE CUresult cuDeviceGet(CUdevice *device, int number);
FAKE CUresult cuDeviceGet(CUdevice *device, int number) {
  *device = number;
  return number >= 0 && number < FAKE_CARDS ? CUDA_SUCCESS : INVALID_DEVICE;
}

FAKE CUresult cuDeviceGetName(char *name, int size, CUdevice device);
FAKE CUresult cuDeviceGetName(char *name, int size, CUdevice device) {
  (void)snprintf(name, (size_t)size, "Fake %d", device);
  return CUDA_SUCCESS;
}

FAKE CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device);
FAKE CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device) {
  (void)device;
  switch (attribute) {
  case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = FAKE_CAPABILITY / 10; break;
  case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = FAKE_CAPABILITY % 10; break;
  case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = (int)shim->shared_bytes; break;
  case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = (int)shim->processors; break;
  default: return INVALID_VALUE;
  }
  return CUDA_SUCCESS;
}

FAKE CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device);
FAKE CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
  if (device < 0 || device >= FAKE_CARDS) return INVALID_DEVICE;
  *context = &contexts[device];
  (*context)->retained++;
  return CUDA_SUCCESS;
}

FAKE CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device);
FAKE CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  if (contexts[device].retained == 0) return INVALID_CONTEXT;
  contexts[device].retained--;
  return CUDA_SUCCESS;
}

FAKE CUresult cuCtxSetCurrent(CUcontext context);
FAKE CUresult cuCtxSetCurrent(CUcontext context) {
  current = context;
  return CUDA_SUCCESS;
}

/* Of host memory: each once, and its ends are touched. */
enum { REGISTERED = 24 };
static char *registered[REGISTERED];
static size_t registered_bytes[REGISTERED];

/* ---- copies on their way ---- */

typedef struct flight {  /* rows of host memory, `pitch` apart */
  char *host, *arriving; /* what they will hold; NULL: they are read */
  size_t width, pitch, height;
  uint64_t sum;
  unsigned number;
} flight;
struct CUevent_st {
  unsigned after; /* copies of up to that number */
};
static flight flights[64];
static size_t flying;
static unsigned issued;

static uint64_t sum_of(const flight *f) {
  uint64_t sum = 14695981039346656037u;
  for (size_t r = 0; r < f->height; r++)
    for (size_t i = 0; i < f->width; i++)
      sum = (sum ^ (unsigned char)f->host[r * f->pitch + i]) * 1099511628211u;
  return sum;
}

static CUresult land(unsigned after) {
  CUresult result = CUDA_SUCCESS;
  size_t left = 0;
  for (size_t i = 0; i < flying; i++) {
    flight *f = &flights[i];
    if (f->number > after) {
      flights[left++] = *f;
      continue;
    }
    if (sum_of(f) != f->sum) result = INVALID_VALUE;
    for (size_t r = 0; r < f->height && f->arriving != NULL; r++)
      memcpy(f->host + r * f->pitch, f->arriving + r * f->width, f->width);
    free(f->arriving);
  }
  flying = left;
  return result;
}

static int is_registered(const char *host, size_t bytes) {
  for (size_t i = 0; i < REGISTERED; i++)
    if (registered[i] != NULL && host >= registered[i] && host + bytes <= registered[i] + registered_bytes[i])
      return 1;
  return 0;
}

/* What goes up is read at once, what comes down too, but it is not there yet. */
static CUresult fly(char *host, size_t host_pitch, char *card, size_t card_pitch, size_t width, size_t height,
                    int down) {
  flight f = {.host = host, .width = width, .pitch = host_pitch, .height = height, .number = ++issued};
  if (!is_registered(host, (height - 1) * host_pitch + width) || flying == sizeof flights / sizeof *flights)
    return INVALID_VALUE;
  if (down && (f.arriving = malloc(width * height)) == NULL) return CUDA_ERROR_OUT_OF_MEMORY;
  for (size_t r = 0; r < height; r++) {
    if (down) memcpy(f.arriving + r * width, card + r * card_pitch, width);
    if (down) memset(host + r * host_pitch, 0xa5, width);
    else memcpy(card + r * card_pitch, host + r * host_pitch, width);
  }
  f.sum = sum_of(&f);
  flights[flying++] = f;
  return CUDA_SUCCESS;
}

FAKE CUresult cuMemGetInfo_v2(size_t *available, size_t *total);
FAKE CUresult cuMemGetInfo_v2(size_t *available, size_t *total) {
  READY();
  *available = FAKE_FREE;
  *total = (size_t)24 << 30;
  return CUDA_SUCCESS;
}

FAKE CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes);
FAKE CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes) {
  void *memory;
  READY();
  if (bytes == 0) return INVALID_VALUE;
  if (shim->alloc(shim, bytes, &memory, NULL) != GPTVQ_OK) return CUDA_ERROR_OUT_OF_MEMORY;
  *pointer = (CUdeviceptr)(uintptr_t)memory;
  return CUDA_SUCCESS;
}

FAKE CUresult cuMemFree_v2(CUdeviceptr pointer);
FAKE CUresult cuMemFree_v2(CUdeviceptr pointer) {
  READY();
  if (land(issued) != CUDA_SUCCESS) return INVALID_VALUE;
  shim->free(shim, (void *)(uintptr_t)pointer);
  return CUDA_SUCCESS;
}

FAKE CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream);
FAKE CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream) {
  READY();
  if (stream != NULL || bytes == 0) return INVALID_VALUE;
  return fly((char *)(uintptr_t)from, bytes, (char *)(uintptr_t)to, bytes, bytes, 1, 0);
}

FAKE CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream);
FAKE CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
  READY();
  if (stream != NULL || bytes == 0) return INVALID_VALUE;
  return fly(to, bytes, (char *)(uintptr_t)from, bytes, bytes, 1, 1);
}

FAKE CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *c, CUstream stream);
FAKE CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *c, CUstream stream) {
  READY();
  const int down = c->srcMemoryType == CU_MEMORYTYPE_DEVICE;
  if (stream != NULL || c->srcMemoryType == c->dstMemoryType || c->WidthInBytes == 0 || c->Height == 0 ||
      c->WidthInBytes > c->srcPitch || c->WidthInBytes > c->dstPitch ||
      c->srcXInBytes + c->srcY + c->dstXInBytes + c->dstY != 0)
    return INVALID_VALUE;
  return down ? fly(c->dstHost, c->dstPitch, (char *)(uintptr_t)c->srcDevice, c->srcPitch, c->WidthInBytes,
                    c->Height, 1)
              : fly((char *)(uintptr_t)c->srcHost, c->srcPitch, (char *)(uintptr_t)c->dstDevice, c->dstPitch,
                    c->WidthInBytes, c->Height, 0);
}

FAKE CUresult cuEventCreate(CUevent *event, unsigned flags);
FAKE CUresult cuEventCreate(CUevent *event, unsigned flags) {
  READY();
  if (flags != CU_EVENT_DISABLE_TIMING) return INVALID_VALUE;
  *event = calloc(1, sizeof **event);
  return *event != NULL ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

FAKE CUresult cuEventDestroy_v2(CUevent event);
FAKE CUresult cuEventDestroy_v2(CUevent event) {
  free(event);
  return ready();
}

FAKE CUresult cuEventRecord(CUevent event, CUstream stream);
FAKE CUresult cuEventRecord(CUevent event, CUstream stream) {
  READY();
  event->after = issued;
  return stream == NULL ? CUDA_SUCCESS : INVALID_VALUE;
}

FAKE CUresult cuEventSynchronize(CUevent event);
FAKE CUresult cuEventSynchronize(CUevent event) {
  READY();
  return land(event->after);
}

FAKE CUresult cuCtxSynchronize(void);
FAKE CUresult cuCtxSynchronize(void) {
  READY();
  return land(issued);
}

FAKE CUresult cuMemHostRegister_v2(void *memory, size_t bytes, unsigned flags);
FAKE CUresult cuMemHostRegister_v2(void *memory, size_t bytes, unsigned flags) {
  size_t place = REGISTERED;
  READY();
  for (size_t i = 0; i < REGISTERED; i++) {
    if (registered[i] == memory) return INVALID_VALUE;
    if (registered[i] == NULL) place = i;
  }
  if (flags != 0 || bytes == 0 || place == REGISTERED) return INVALID_VALUE;
  registered_bytes[place] = bytes;
  volatile char *ends = memory;
  ends[0] = ends[0];
  ends[bytes - 1] = ends[bytes - 1];
  registered[place] = memory;
  return CUDA_SUCCESS;
}

FAKE CUresult cuMemHostUnregister(void *memory);
FAKE CUresult cuMemHostUnregister(void *memory) {
  READY();
  for (size_t i = 0; i < REGISTERED; i++) {
    if (registered[i] != memory) continue;
    for (size_t f = 0; f < flying; f++) /* what is on its way must not move */
      if (flights[f].host >= registered[i] && flights[f].host < registered[i] + registered_bytes[i])
        return INVALID_VALUE;
    registered[i] = NULL;
    return CUDA_SUCCESS;
  }
  return INVALID_VALUE;
}

FAKE CUresult cuMemsetD8_v2(CUdeviceptr pointer, unsigned char value, size_t bytes);
FAKE CUresult cuMemsetD8_v2(CUdeviceptr pointer, unsigned char value, size_t bytes) {
  READY();
  memset((void *)(uintptr_t)pointer, value, bytes);
  return CUDA_SUCCESS;
}

FAKE CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes);
FAKE CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes) {
  READY();
  memcpy((void *)(uintptr_t)to, from, bytes);
  return CUDA_SUCCESS;
}

FAKE CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes);
FAKE CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes) {
  READY();
  if (land(issued) != CUDA_SUCCESS) return INVALID_VALUE;
  memcpy(to, (const void *)(uintptr_t)from, bytes);
  return CUDA_SUCCESS;
}

FAKE CUresult cuMemcpy2D_v2(const CUDA_MEMCPY2D *c);
FAKE CUresult cuMemcpy2D_v2(const CUDA_MEMCPY2D *c) {
  READY();
  if (land(issued) != CUDA_SUCCESS) return INVALID_VALUE;
  const int down = c->srcMemoryType == CU_MEMORYTYPE_DEVICE;
  if (c->srcMemoryType == c->dstMemoryType || c->WidthInBytes > c->srcPitch ||
      c->WidthInBytes > c->dstPitch || c->srcXInBytes + c->srcY + c->dstXInBytes + c->dstY != 0)
    return INVALID_VALUE;
  const char *from = down ? (const char *)(uintptr_t)c->srcDevice : c->srcHost;
  char *to = down ? c->dstHost : (char *)(uintptr_t)c->dstDevice;
  for (size_t r = 0; r < c->Height; r++)
    memcpy(to + r * c->dstPitch, from + r * c->srcPitch, c->WidthInBytes);
  return CUDA_SUCCESS;
}

FAKE CUresult cuModuleLoadData(CUmodule *module, const void *image);
FAKE CUresult cuModuleLoadData(CUmodule *module, const void *image) {
  READY();
  if (image == NULL) return INVALID_VALUE;
  *module = (CUmodule)(uintptr_t)image;
  return FAKE_IMAGE;
}

FAKE CUresult cuModuleUnload(CUmodule module);
FAKE CUresult cuModuleUnload(CUmodule module) {
  (void)module;
  return ready();
}

FAKE CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name);
FAKE CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
  READY();
  if (module == NULL) return INVALID_VALUE;
  for (size_t i = 0; i < GPTVQ_KERNEL_COUNT; i++)
    if (strcmp(name, names[i]) == 0) {
      functions[i] = (struct CUfunc_st){(gptvq_kernel)i, i == GPTVQ_KERNEL_em ? 512 : 0, PLAIN_SHARED};
      *function = &functions[i];
      return CUDA_SUCCESS;
    }
  return NOT_FOUND;
}

FAKE CUresult cuFuncGetAttribute(int *value, int attribute, CUfunction function);
FAKE CUresult cuFuncGetAttribute(int *value, int attribute, CUfunction function) {
  *value = function->fixed;
  return attribute == CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES ? CUDA_SUCCESS : INVALID_VALUE;
}

FAKE CUresult cuFuncSetAttribute(CUfunction function, int attribute, int value);
FAKE CUresult cuFuncSetAttribute(CUfunction function, int attribute, int value) {
  if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES || value < 0 ||
      (size_t)value + (size_t)function->fixed > shim->shared_bytes)
    return INVALID_VALUE;
  function->shared = value;
  return CUDA_SUCCESS;
}

#ifndef FAKE_NO_LAUNCH
static void near_the_end(void) {
  const char *file = getenv("FAKE_LOST_BY");
  if (file != NULL && access(file, F_OK) == 0) launches_left--;
}

FAKE CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                             unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                             CUstream stream, void **arguments, void **extra);
FAKE CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                             unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                             CUstream stream, void **arguments, void **extra) {
  near_the_end();
  READY();
  if (grid_x == 0 || grid_y == 0 || grid_y > 65535 || grid_z != 1 || block_x == 0 || block_x > 1024 ||
      block_y != 1 || block_z != 1 || stream != NULL || arguments == NULL || extra != NULL)
    return INVALID_VALUE;
  if (shared_bytes > (unsigned)function->shared) return OUT_OF_RESOURCES;
  const gptvq_device_grid grid = {grid_x, grid_y, block_x, shared_bytes};
  return shim->launch(shim, function->kernel, &grid, arguments[0], NULL) == GPTVQ_OK ? CUDA_SUCCESS
                                                                                     : LAUNCH_FAILED;
}
#endif

/* ---- cuBLAS: column-major ---- */

FAKE cublasStatus_t cublasCreate_v2(cublasHandle_t *handle);
FAKE cublasStatus_t cublasCreate_v2(cublasHandle_t *handle) {
  *handle = (cublasHandle_t)(uintptr_t)&initialized;
  return ready() == CUDA_SUCCESS ? 0 : 1;
}

FAKE cublasStatus_t cublasDestroy_v2(cublasHandle_t handle);
FAKE cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) { return handle != NULL ? 0 : 1; }

#ifndef FAKE_NO_PRODUCT
/* bf16 columns[count × ld] of so many rows as fp32 */
static float *widen(int rows, int count, int ld, const void *from) {
  const uint16_t *bits = from;
  float *to = malloc((size_t)count * (size_t)ld * sizeof *to + 1);
  for (size_t c = 0; to != NULL && c < (size_t)count; c++)
    for (size_t r = c * (size_t)ld; r < c * (size_t)ld + (size_t)rows; r++)
      to[r] = gptvq_bf16_to_float(bits[r]);
  return to;
}

FAKE cublasStatus_t cublasGemmEx(cublasHandle_t handle, int op_a, int op_b, int m, int n, int k,
                                 const void *alpha, const void *a, int type_a, int lda, const void *b,
                                 int type_b, int ldb, const void *beta, void *c, int type_c, int ldc,
                                 int compute, int algorithm);
FAKE cublasStatus_t cublasGemmEx(cublasHandle_t handle, int op_a, int op_b, int m, int n, int k,
                                 const void *alpha, const void *a, int type_a, int lda, const void *b,
                                 int type_b, int ldb, const void *beta, void *c, int type_c, int ldc,
                                 int compute, int algorithm) {
  if (handle == NULL || ready() != CUDA_SUCCESS) return 1;
  if ((type_a != CUDA_R_32F && type_a != CUDA_R_16BF) || type_b != type_a || type_c != CUDA_R_32F ||
      algorithm != CUBLAS_GEMM_DEFAULT ||
      (compute != CUBLAS_COMPUTE_32F && compute != CUBLAS_COMPUTE_32F_FAST_TF32) || m < 0 || n < 0 || k < 0 ||
      lda < (op_a == CUBLAS_OP_N ? m : k) || ldb < (op_b == CUBLAS_OP_N ? k : n) || ldc < m)
    return 7;
  if (type_a == CUDA_R_16BF) {
    if (compute != CUBLAS_COMPUTE_32F) return 15;
    float *wide_a = widen(op_a == CUBLAS_OP_N ? m : k, op_a == CUBLAS_OP_N ? k : m, lda, a),
          *wide_b = widen(op_b == CUBLAS_OP_N ? k : n, op_b == CUBLAS_OP_N ? n : k, ldb, b);
    const int result = wide_a == NULL || wide_b == NULL
                           ? 3
                           : cublasGemmEx(handle, op_a, op_b, m, n, k, alpha, wide_a, CUDA_R_32F, lda, wide_b,
                                          CUDA_R_32F, ldb, beta, c, type_c, ldc, compute, algorithm);
    free(wide_a);
    free(wide_b);
    return result;
  }
  cblas_sgemm(CblasColMajor, op_a == CUBLAS_OP_N ? CblasNoTrans : CblasTrans,
              op_b == CUBLAS_OP_N ? CblasNoTrans : CblasTrans, m, n, k, *(const float *)alpha, a, lda, b, ldb,
              *(const float *)beta, c, ldc);
  return 0;
}
#endif

/* ---- cuSOLVER: column-major ---- */

FAKE cusolverStatus_t cusolverDnCreate(cusolverDnHandle_t *handle);
FAKE cusolverStatus_t cusolverDnCreate(cusolverDnHandle_t *handle) {
  *handle = (cusolverDnHandle_t)(uintptr_t)&initialized;
  return ready() == CUDA_SUCCESS ? 0 : 1;
}

FAKE cusolverStatus_t cusolverDnDestroy(cusolverDnHandle_t handle);
FAKE cusolverStatus_t cusolverDnDestroy(cusolverDnHandle_t handle) { return handle != NULL ? 0 : 1; }

static char triangle(int uplo) { return uplo == CUBLAS_FILL_MODE_UPPER ? 'U' : 'L'; }

FAKE cusolverStatus_t cusolverDnDpotrf_bufferSize(cusolverDnHandle_t handle, int uplo, int n, double *a,
                                                  int lda, int *doubles);
FAKE cusolverStatus_t cusolverDnDpotrf_bufferSize(cusolverDnHandle_t handle, int uplo, int n, double *a,
                                                  int lda, int *doubles) {
  (void)uplo;
  (void)a;
  *doubles = n;
  return handle != NULL && lda >= n ? 0 : 3;
}

FAKE cusolverStatus_t cusolverDnDpotrf(cusolverDnHandle_t handle, int uplo, int n, double *a, int lda,
                                       double *work, int doubles, int *info);
FAKE cusolverStatus_t cusolverDnDpotrf(cusolverDnHandle_t handle, int uplo, int n, double *a, int lda,
                                       double *work, int doubles, int *info) {
  if (handle == NULL || doubles < n || ready() != CUDA_SUCCESS) return 3;
  for (int i = 0; i < n; i++) work[i] = 0; /* it is there */
  *info = LAPACKE_dpotrf(LAPACK_COL_MAJOR, triangle(uplo), n, a, lda);
  return 0;
}

FAKE cusolverStatus_t cusolverDnXtrtri_bufferSize(cusolverDnHandle_t handle, int uplo, int diagonal,
                                                  int64_t n, int type, void *a, int64_t lda,
                                                  size_t *device_bytes, size_t *host_bytes);
FAKE cusolverStatus_t cusolverDnXtrtri_bufferSize(cusolverDnHandle_t handle, int uplo, int diagonal,
                                                  int64_t n, int type, void *a, int64_t lda,
                                                  size_t *device_bytes, size_t *host_bytes) {
  (void)uplo;
  (void)a;
  *device_bytes = (size_t)n * 16;
  *host_bytes = (size_t)n;
  return handle != NULL && diagonal == CUBLAS_DIAG_NON_UNIT && type == CUDA_R_64F && lda >= n ? 0 : 3;
}

#ifndef FAKE_NO_INVERSION
FAKE cusolverStatus_t cusolverDnXtrtri(cusolverDnHandle_t handle, int uplo, int diagonal, int64_t n, int type,
                                       void *a, int64_t lda, void *device_work, size_t device_bytes,
                                       void *host_work, size_t host_bytes, int *info);
FAKE cusolverStatus_t cusolverDnXtrtri(cusolverDnHandle_t handle, int uplo, int diagonal, int64_t n, int type,
                                       void *a, int64_t lda, void *device_work, size_t device_bytes,
                                       void *host_work, size_t host_bytes, int *info) {
  if (handle == NULL || diagonal != CUBLAS_DIAG_NON_UNIT || type != CUDA_R_64F ||
      device_bytes < (size_t)n * 16 || host_bytes < (size_t)n || ready() != CUDA_SUCCESS)
    return 3;
  memset(device_work, 0xff, (size_t)n * 16);
  memset(host_work, 0xff, (size_t)n);
  *info = LAPACKE_dtrtri(LAPACK_COL_MAJOR, triangle(uplo), 'N', (lapack_int)n, a, (lapack_int)lda);
  return 0;
}
#endif
