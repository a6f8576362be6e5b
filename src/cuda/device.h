/* cuda/device.h: what a backend asks of a device, as a table of functions. Two devices: the shim (cuda/shim),
 * which runs the same kernels on the host and is there for tests, and a card through the CUDA driver.
 *
 * Memory. `void *` from alloc is memory of the device, which the host must not touch (the shim's is exact
 * blocks of the host's heap, so that the sanitizers see what lies beyond). It is the caller's, who gives it
 * back with free; nothing else takes it over. Host arrays stay the caller's. All arrays are row-major.
 *
 * Order. Launches, products and copies of one device run one after the other in the order of the calls.
 * launch, product, set and inverse_factor may return before the work is done: what they are given has to live
 * until synchronize, but for the arguments of a launch, which are copied. upload returns when the host array
 * may be changed, download when it is filled.
 *
 * Errors. GPTVQ_ERROR_MEMORY: the device has too little memory, with what was asked and what is free (the
 * host may then try smaller pieces; the device goes on). Anything else is GPTVQ_ERROR_INTERNAL with the
 * device's own words: the device is then of no more use than to be closed. Work that fails after its call has
 * returned is reported by the next function that fails, synchronize at the latest.
 *
 * A device is used from one thread at a time. Results do not depend on the number of threads, and are the
 * same from run to run. */
#ifndef GPTVQ_CUDA_DEVICE_H
#define GPTVQ_CUDA_DEVICE_H

#include "base/status.h"
#include "cuda/kernels.h"

#include <stdbool.h>

typedef struct gptvq_device gptvq_device;

/* A kernel's grid: x · y blocks of `threads` threads, a multiple of 32, at most 1024. */
typedef struct gptvq_device_grid {
  unsigned x, y, threads;
  size_t shared_bytes; /* dynamic shared memory of a block, at most the device's shared_bytes */
} gptvq_device_grid;

/* How precisely inputs of a product are taken; sums are fp32 at least. */
typedef enum gptvq_product_precision {
  GPTVQ_PRODUCT_FP32, /* as they are */
  GPTVQ_PRODUCT_TF32, /* 10 bits of mantissa are enough; a device may do better */
  GPTVQ_PRODUCT_BF16  /* they are bf16, 2 bytes each */
} gptvq_product_precision;

/* C[m × n] = alpha op(A) op(B) + beta C, where op(A) is m × k and op(B) k × n; A is stored as it is or, where
 * transpose_a, as k × m, B likewise; not both are. Leading dimensions in elements between rows. beta 0: C is
 * not read. C overlaps neither A nor B. */
typedef struct gptvq_device_product {
  bool transpose_a, transpose_b;
  gptvq_product_precision precision;
  size_t m, n, k;
  float alpha, beta;
  const void *a, *b; /* fp32, or bf16 with that precision */
  float *c;
  size_t lda, ldb, ldc;
} gptvq_device_product;

/* Rows of `row_bytes` bytes, pitch bytes from one to the next on each side. */
typedef struct gptvq_device_rows {
  size_t row_bytes, rows, device_pitch, host_pitch;
} gptvq_device_rows;

struct gptvq_device {
  const char *name;    /* "shim", or what the card calls itself; lives as long as the device */
  size_t shared_bytes; /* of one block at most: dynamic and static shared memory together */
  unsigned processors; /* blocks beyond this number wait for others */
  bool crowded;        /* set by whoever had to take less of its memory than would be best */
  void *state;         /* the device's own */

  /* *out: `bytes` bytes (0: an address that is not NULL), 256-byte aligned on a card; NULL on failure. */
  gptvq_status (*alloc)(gptvq_device *device, size_t bytes, void **out, gptvq_error *err);
  /* Waits for work that may use it. NULL: nothing. */
  void (*free)(gptvq_device *device, void *memory);
  gptvq_status (*upload)(gptvq_device *device, const gptvq_device_rows *shape, void *to, const void *from,
                         gptvq_error *err);
  gptvq_status (*download)(gptvq_device *device, const gptvq_device_rows *shape, void *to, const void *from,
                           gptvq_error *err);
  /* Copies to and from this memory of the host get faster, until unpin, which comes before it is freed.
   * false: they do not, and there is nothing to unpin. */
  bool (*pin)(gptvq_device *device, void *memory, size_t bytes);
  void (*unpin)(gptvq_device *device, void *memory);
  /* bytes of `to` = value */
  gptvq_status (*set)(gptvq_device *device, void *to, unsigned char value, size_t bytes, gptvq_error *err);
  /* arguments: the kernel's struct of cuda/kernels.h, its addresses the device's. A grid without blocks does
   * nothing. */
  gptvq_status (*launch)(gptvq_device *device, gptvq_kernel kernel, const gptvq_device_grid *grid,
                         const void *arguments, gptvq_error *err);
  gptvq_status (*product)(gptvq_device *device, const gptvq_device_product *product, gptvq_error *err);
  /* As inverse_factor of linalg/solve/backend.h, a[n × n] on the device, what stands above the diagonal
   * unspecified afterwards. Returns when *done is known. GPTVQ_ERROR_MEMORY also where it needs more. */
  gptvq_status (*inverse_factor)(gptvq_device *device, size_t n, double *a, bool *done, gptvq_error *err);
  gptvq_status (*synchronize)(gptvq_device *device, gptvq_error *err);
  /* Bytes of device memory: free at the moment, and all. */
  gptvq_status (*memory)(gptvq_device *device, size_t *free_bytes, size_t *total_bytes, gptvq_error *err);
  /* Ends it; memory that was not given back is. */
  void (*close)(gptvq_device *device);
};

/* The shim: kernels on the host's threads, products by OpenBLAS; its memory is what the machine has, or
 * GPTVQ_SHIM_BYTES of the environment. GPTVQ_ERROR_UNSUPPORTED where the library
 * was built without a C++ compiler. On success the caller closes *out. shim/device.c */
gptvq_status gptvq_device_open_shim(gptvq_device **out, gptvq_error *err);

/* Kernels for cards, a fatbin with code for several architectures and PTX; 0 bytes: built without nvcc. */
extern const unsigned char gptvq_cuda_image[];
extern const size_t gptvq_cuda_image_bytes;

/* Contiguous copies. */
static inline gptvq_status gptvq_device_upload(gptvq_device *device, size_t bytes, void *to, const void *from,
                                               gptvq_error *err) {
  const gptvq_device_rows all = {bytes, 1, bytes, bytes};
  return device->upload(device, &all, to, from, err);
}
static inline gptvq_status gptvq_device_download(gptvq_device *device, size_t bytes, void *to,
                                                 const void *from, gptvq_error *err) {
  const gptvq_device_rows all = {bytes, 1, bytes, bytes};
  return device->download(device, &all, to, from, err);
}

/* Device memory that is kept from use to use and grows; {0}: none. */
typedef struct gptvq_device_buffer {
  void *memory;
  size_t bytes;
} gptvq_device_buffer;

static inline void gptvq_device_drop(gptvq_device *device, gptvq_device_buffer *buffer) {
  device->free(device, buffer->memory);
  *buffer = (gptvq_device_buffer){0};
}
/* At least `bytes`, contents unspecified; where it grows, what was there is lost first. Errors of alloc. */
static inline gptvq_status gptvq_device_grow(gptvq_device *device, gptvq_device_buffer *buffer, size_t bytes,
                                             gptvq_error *err) {
  if (buffer->memory != NULL && buffer->bytes >= bytes) return GPTVQ_OK;
  gptvq_device_drop(device, buffer);
  const gptvq_status status = device->alloc(device, bytes, &buffer->memory, err);
  buffer->bytes = status == GPTVQ_OK ? bytes : 0;
  return status;
}

#endif
