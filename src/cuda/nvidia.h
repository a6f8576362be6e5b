/* cuda/nvidia.h: the parts of NVIDIA's libraries that are used, declared here (CUDA Driver API, cuBLAS,
 * cuSOLVER reference manuals) and looked up when a card is asked for: nothing is linked, and no header of
 * theirs is needed. Names with a version are those that their headers' macros stand for; types are theirs as
 * the ABI sees them (handles are pointers, enums are int). */
#ifndef GPTVQ_CUDA_NVIDIA_H
#define GPTVQ_CUDA_NVIDIA_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef int CUresult, CUdevice, cublasStatus_t, cusolverStatus_t;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;
typedef uint64_t CUdeviceptr; /* unsigned long long there */
typedef struct cublasContext *cublasHandle_t;
typedef struct cusolverDnContext *cusolverDnHandle_t;

enum {
  CUDA_SUCCESS = 0,
  CUDA_ERROR_OUT_OF_MEMORY = 2,
  CUDA_ERROR_STUB_LIBRARY = 34,
  CUDA_ERROR_DEVICE_UNAVAILABLE = 46,
  CUDA_ERROR_NO_DEVICE = 100,
  CUDA_ERROR_NO_BINARY_FOR_GPU = 209,
  CUDA_ERROR_UNSUPPORTED_PTX_VERSION = 222,
  CUDA_ERROR_SYSTEM_NOT_READY = 802,
  CUDA_ERROR_SYSTEM_DRIVER_MISMATCH = 803,
  CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT = 16,
  CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75,
  CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76,
  CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = 97,
  CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES = 1,
  CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8,
  CU_EVENT_DISABLE_TIMING = 2,
  CUBLAS_STATUS_ALLOC_FAILED = 3,
  CUSOLVER_STATUS_ALLOC_FAILED = 2, /* 3 is an invalid value there */
  CUBLAS_OP_N = 0,
  CUBLAS_OP_T = 1,
  CUBLAS_FILL_MODE_LOWER = 0,
  CUBLAS_FILL_MODE_UPPER = 1,
  CUBLAS_DIAG_NON_UNIT = 0,
  CUBLAS_PEDANTIC_MATH = 2,
  CUBLAS_COMPUTE_32F = 68,
  CUBLAS_COMPUTE_32F_PEDANTIC = 69,
  CUBLAS_COMPUTE_32F_FAST_TF32 = 77,
  CUBLAS_COMPUTE_64F = 70,
  CUBLAS_GEMM_DEFAULT = -1,
  CUDA_R_32F = 0,
  CUDA_R_64F = 1,
  CUDA_R_16BF = 14
};

enum { CU_MEMORYTYPE_HOST = 1, CU_MEMORYTYPE_DEVICE = 2 };
typedef struct CUDA_MEMCPY2D {
  size_t srcXInBytes, srcY;
  int srcMemoryType;
  const void *srcHost;
  CUdeviceptr srcDevice;
  void *srcArray;
  size_t srcPitch;
  size_t dstXInBytes, dstY;
  int dstMemoryType;
  void *dstHost;
  CUdeviceptr dstDevice;
  void *dstArray;
  size_t dstPitch;
  size_t WidthInBytes, Height;
} CUDA_MEMCPY2D;
_Static_assert(sizeof(CUDA_MEMCPY2D) == 16 * 8, "as in cuda.h");

/* X(name, symbol, result, parameters) of each library */
#define GPTVQ_CUDA_DRIVER(X) \
  X(init, "cuInit", CUresult, (unsigned flags)) \
  X(driver_version, "cuDriverGetVersion", CUresult, (int *version)) \
  X(error_name, "cuGetErrorName", CUresult, (CUresult error, const char **text)) \
  X(device_count, "cuDeviceGetCount", CUresult, (int *count)) \
  X(device_get, "cuDeviceGet", CUresult, (CUdevice * device, int number)) \
  X(device_name, "cuDeviceGetName", CUresult, (char *name, int size, CUdevice device)) \
  X(device_attribute, "cuDeviceGetAttribute", CUresult, (int *value, int attribute, CUdevice device)) \
  X(context_retain, "cuDevicePrimaryCtxRetain", CUresult, (CUcontext * context, CUdevice device)) \
  X(context_release, "cuDevicePrimaryCtxRelease_v2", CUresult, (CUdevice device)) \
  X(context_set, "cuCtxSetCurrent", CUresult, (CUcontext context)) \
  X(synchronize, "cuCtxSynchronize", CUresult, (void)) \
  X(memory_info, "cuMemGetInfo_v2", CUresult, (size_t * available, size_t * total)) \
  X(memory_alloc, "cuMemAlloc_v2", CUresult, (CUdeviceptr * pointer, size_t bytes)) \
  X(memory_free, "cuMemFree_v2", CUresult, (CUdeviceptr pointer)) \
  X(memory_set, "cuMemsetD8_v2", CUresult, (CUdeviceptr pointer, unsigned char value, size_t bytes)) \
  X(upload, "cuMemcpyHtoD_v2", CUresult, (CUdeviceptr to, const void *from, size_t bytes)) \
  X(download, "cuMemcpyDtoH_v2", CUresult, (void *to, CUdeviceptr from, size_t bytes)) \
  X(host_register, "cuMemHostRegister_v2", CUresult, (void *memory, size_t bytes, unsigned flags)) \
  X(host_unregister, "cuMemHostUnregister", CUresult, (void *memory)) \
  X(copy_rows, "cuMemcpy2D_v2", CUresult, (const CUDA_MEMCPY2D *copy)) \
  X(upload_async, "cuMemcpyHtoDAsync_v2", CUresult, \
    (CUdeviceptr to, const void *from, size_t bytes, CUstream stream)) \
  X(download_async, "cuMemcpyDtoHAsync_v2", CUresult, \
    (void *to, CUdeviceptr from, size_t bytes, CUstream stream)) \
  X(copy_rows_async, "cuMemcpy2DAsync_v2", CUresult, (const CUDA_MEMCPY2D *copy, CUstream stream)) \
  X(event_create, "cuEventCreate", CUresult, (CUevent * event, unsigned flags)) \
  X(event_destroy, "cuEventDestroy_v2", CUresult, (CUevent event)) \
  X(event_record, "cuEventRecord", CUresult, (CUevent event, CUstream stream)) \
  X(event_synchronize, "cuEventSynchronize", CUresult, (CUevent event)) \
  X(module_load, "cuModuleLoadData", CUresult, (CUmodule * module, const void *image)) \
  X(module_unload, "cuModuleUnload", CUresult, (CUmodule module)) \
  X(module_function, "cuModuleGetFunction", CUresult, \
    (CUfunction * function, CUmodule module, const char *name)) \
  X(function_get, "cuFuncGetAttribute", CUresult, (int *value, int attribute, CUfunction function)) \
  X(function_set, "cuFuncSetAttribute", CUresult, (CUfunction function, int attribute, int value)) \
  X(launch, "cuLaunchKernel", CUresult, \
    (CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, \
     unsigned block_y, unsigned block_z, unsigned shared_bytes, CUstream stream, void **arguments, \
     void **extra))

#define GPTVQ_CUDA_BLAS(X) \
  X(blas_create, "cublasCreate_v2", cublasStatus_t, (cublasHandle_t * handle)) \
  X(blas_destroy, "cublasDestroy_v2", cublasStatus_t, (cublasHandle_t handle)) \
  X(blas_gemm, "cublasGemmEx", cublasStatus_t, \
    (cublasHandle_t handle, int op_a, int op_b, int m, int n, int k, const void *alpha, const void *a, \
     int type_a, int lda, const void *b, int type_b, int ldb, const void *beta, void *c, int type_c, \
     int ldc, int compute, int algorithm))

#define GPTVQ_CUDA_SOLVER(X) \
  X(solver_create, "cusolverDnCreate", cusolverStatus_t, (cusolverDnHandle_t * handle)) \
  X(solver_destroy, "cusolverDnDestroy", cusolverStatus_t, (cusolverDnHandle_t handle)) \
  X(cholesky_size, "cusolverDnDpotrf_bufferSize", cusolverStatus_t, \
    (cusolverDnHandle_t handle, int uplo, int n, double *a, int lda, int *doubles)) \
  X(cholesky, "cusolverDnDpotrf", cusolverStatus_t, \
    (cusolverDnHandle_t handle, int uplo, int n, double *a, int lda, double *work, int doubles, int *info)) \
  X(invert_size, "cusolverDnXtrtri_bufferSize", cusolverStatus_t, \
    (cusolverDnHandle_t handle, int uplo, int diagonal, int64_t n, int type, void *a, int64_t lda, \
     size_t *device_bytes, size_t *host_bytes)) \
  X(invert, "cusolverDnXtrtri", cusolverStatus_t, \
    (cusolverDnHandle_t handle, int uplo, int diagonal, int64_t n, int type, void *a, int64_t lda, \
     void *device_work, size_t device_bytes, void *host_work, size_t host_bytes, int *info))

#define GPTVQ_CUDA_MEMBER(name, symbol, result, parameters) result(*name) parameters;
typedef struct gptvq_nvidia {
  void *driver, *blas, *solver; /* what dlopen gave */
  int version;                  /* of the driver: 1000 · major + 10 · minor */
  GPTVQ_CUDA_DRIVER(GPTVQ_CUDA_MEMBER)
  GPTVQ_CUDA_BLAS(GPTVQ_CUDA_MEMBER)
  GPTVQ_CUDA_SOLVER(GPTVQ_CUDA_MEMBER)
} gptvq_nvidia;
#undef GPTVQ_CUDA_MEMBER

/* Loads the driver and starts it; of the libraries, the newest major version that the driver can run. All
 * stay loaded until gptvq_nvidia_unload, also on failure. least: version of the driver that is needed.
 * GPTVQ_ERROR_UNSUPPORTED: a library or a function is missing, the driver is too old or does not start. */
gptvq_status gptvq_nvidia_load_driver(gptvq_nvidia *n, int least, gptvq_error *err);
gptvq_status gptvq_nvidia_load_libraries(gptvq_nvidia *n, gptvq_error *err);
void gptvq_nvidia_unload(gptvq_nvidia *n);

/* CUDA_SUCCESS is GPTVQ_OK; what is out of memory GPTVQ_ERROR_MEMORY; the rest, GPTVQ_ERROR_INTERNAL, named
 * as the driver names it. what: "uploading the inputs of a layer". */
gptvq_status gptvq_nvidia_check(const gptvq_nvidia *n, CUresult result, const char *what, gptvq_error *err);
gptvq_status gptvq_nvidia_check_blas(int result, const char *what, gptvq_error *err);
gptvq_status gptvq_nvidia_check_solver(int result, const char *what, gptvq_error *err);

#endif
