/* cuda/cuda.h: what the parts of the backend share. */
#ifndef GPTVQ_CUDA_CUDA_H
#define GPTVQ_CUDA_CUDA_H

#include "cuda/backend.h"
#include "quant/layer/layer.h"

typedef enum gptvq_cuda_use {                    /* what the buffers are for */
                              GPTVQ_CUDA_TARGET, /* a piece's weights as they were */
                              GPTVQ_CUDA_ROWS,   /* weights, residuals or directions of a piece's rows */
                              GPTVQ_CUDA_RESULT, /* errors, gradients or products of these rows */
                              GPTVQ_CUDA_ERRORS, /* of all rows of a trellis, as long as its loop goes on */
                              GPTVQ_CUDA_STEP,   /* where a batch's columns would be best */
                              GPTVQ_CUDA_SCALE,
                              GPTVQ_CUDA_SCALE_OF,
                              GPTVQ_CUDA_INDEX,
                              GPTVQ_CUDA_FOUND, /* new indices */
                              GPTVQ_CUDA_LOSS, /* [3 × rows] gain of a row, loss of its assignment, loss of a
                                                  new one; systems of row scales */
                              GPTVQ_CUDA_BOOKS,
                              GPTVQ_CUDA_LOOKUP,
                              GPTVQ_CUDA_METRIC,
                              GPTVQ_CUDA_SQUARE, /* part of U, of a batch or larger */
                              GPTVQ_CUDA_INVERSE,
                              GPTVQ_CUDA_COLUMNS,
                              GPTVQ_CUDA_POINTS, /* all scratch of k-means */
                              GPTVQ_CUDA_LISTED, /* stripes */
                              GPTVQ_CUDA_BEFORE, /* states before a batch */
                              GPTVQ_CUDA_TAILS,  /* scratch of kernel `path` */
                              GPTVQ_CUDA_USES
} gptvq_cuda_use;

/* A factor's arrays on the device; id 0: none. */
typedef struct gptvq_cuda_factor {
  uint64_t id;
  float *h, *u, *ridge; /* [padded²], [padded²], [padded]; NULL: not there (yet) */
} gptvq_cuda_factor;

/* What of the layer at work is on the device from one call to the next, each with the host's array that it is
 * a copy of (NULL: none): weights as they were, in GPTVQ_CUDA_TARGET; scaled errors of columns [0, columns),
 * in GPTVQ_CUDA_ERRORS. Both [rows × padded]. It begins with a layer's first batch, and ends with another
 * factor. */
typedef struct gptvq_cuda_layer {
  const float *target, *error;
  size_t rows, columns;
} gptvq_cuda_layer;

struct gptvq_cuda {
  gptvq_device *device;
  gptvq_cuda_linalg *linalg; /* or NULL */
  gptvq_backend backend;
  gptvq_cuda_factor factor;
  gptvq_cuda_layer layer;
  gptvq_device_buffer buffers[GPTVQ_CUDA_USES];
};

static inline gptvq_cuda *gptvq_cuda_of(const gptvq_backend *backend) { return backend->context; }

/* *out: at least count × size bytes for that use, contents unspecified. GPTVQ_ERROR_MEMORY: the device has
 * not got them. What was there is lost. */
gptvq_status gptvq_cuda_reserve(gptvq_cuda *cuda, gptvq_cuda_use use, size_t count, size_t size, void *out,
                                gptvq_error *err);
/* The same, filled from the host. */
gptvq_status gptvq_cuda_send(gptvq_cuda *cuda, gptvq_cuda_use use, size_t count, size_t size,
                             const void *from, void *out, gptvq_error *err);
/* Numbers [rows × width] of 4 bytes out of rows `stride` apart on the host, close together on the device. */
gptvq_status gptvq_cuda_send_rows(gptvq_cuda *cuda, gptvq_cuda_use use, size_t rows, size_t width,
                                  const float *from, size_t stride, float **out, gptvq_error *err);
/* The factor's H and ridge, or its U, kept until another factor is asked for or memory is short; buffers may
 * be lost. GPTVQ_ERROR_MEMORY: it has no room beside nothing else. */
gptvq_status gptvq_cuda_hessian(gptvq_cuda *cuda, const gptvq_factor *factor, gptvq_error *err);
gptvq_status gptvq_cuda_triangle(gptvq_cuda *cuda, const gptvq_factor *factor, gptvq_error *err);
/* Another layer begins: what is kept of the one before goes. factor: the layer's, or NULL. */
void gptvq_cuda_begin_layer(gptvq_cuda *cuda, const gptvq_factor *factor);
/* What is kept of a factor and of its layer goes. */
void gptvq_cuda_forget_factor(gptvq_cuda *cuda);
/* *array, one of the factor's, goes. */
void gptvq_cuda_drop(gptvq_cuda *cuda, float **array);
/* Whether that many bytes have room. Where memory is short a map and then all buffers are lost: before
 * anything is reserved for the work. */
bool gptvq_cuda_fits(gptvq_cuda *cuda, size_t bytes);
/* As many of the rows, a multiple of `unit` and at least that, as fit with row_bytes each beside `other`
 * bytes. Buffers are lost as by gptvq_cuda_fits. */
size_t gptvq_cuda_piece(gptvq_cuda *cuda, size_t rows, size_t unit, size_t row_bytes, size_t other);

/* *out[rows × padded]: weights as they were of a layer's rows from `begin` on; those of all rows stay. */
gptvq_status gptvq_cuda_target(gptvq_cuda *cuda, const gptvq_vq *q, size_t begin, size_t rows,
                               const float **out, gptvq_error *err);
/* The device's copy of columns [0, end) of `rows` rows of errors, from where it has any; NULL: it has not. */
const float *gptvq_cuda_errors(const gptvq_cuda *cuda, const float *error, size_t rows, size_t end);

/* Launches the kernel with a grid that suits. */
gptvq_status gptvq_cuda_add_ridge(gptvq_cuda *cuda, const gptvq_kernel_add_ridge_arguments *a,
                                  gptvq_error *err);

/* y[rows × n] = x (H + ridge), both on the device, as H and ridge are since gptvq_cuda_hessian; n: padded. */
gptvq_status gptvq_cuda_multiply_hessian(gptvq_cuda *cuda, size_t rows, size_t n, const float *x, float *y,
                                         gptvq_error *err);

/* Scales of `blocks` sub-vectors, those of list[] or (NULL) from the `first` on, of rows [begin, end). */
gptvq_status gptvq_cuda_send_scales(gptvq_cuda *cuda, const gptvq_vq *q, size_t begin, size_t end,
                                    const uint32_t *list, size_t first, size_t blocks,
                                    gptvq_kernel_scales *out, gptvq_error *err);

/* trellis.c: device memory of kernel `path` beside its arguments, in bytes; 0 without feedback. */
size_t gptvq_cuda_path_bytes(const gptvq_cuda *cuda, const gptvq_vq *q, size_t rows, bool feedback);
/* Launches it, once rows, columns and arrays are set, all but the tails. */
gptvq_status gptvq_cuda_find_paths(gptvq_cuda *cuda, const gptvq_vq *q, gptvq_kernel_path_arguments *a,
                                   gptvq_error *err);
gptvq_status gptvq_cuda_trellis_tables(gptvq_vq *q, size_t group, gptvq_error *err);
gptvq_status gptvq_cuda_trellis_assign(gptvq_vq *q, size_t group, gptvq_span batch, gptvq_error *err);
/* scales.c */
gptvq_status gptvq_cuda_update_scales(gptvq_vq *q, double *loss, gptvq_error *err);

/* The table's entries: products.c, loop.c, update.c, refine.c. */
gptvq_status gptvq_cuda_times_hessian(const gptvq_vq *q, size_t rows, const float *x, float *y,
                                      gptvq_error *err);
gptvq_status gptvq_cuda_feedback(const gptvq_backend *backend, const gptvq_factor *factor, size_t rows,
                                 gptvq_span from, gptvq_span to, const float *error, float *work,
                                 gptvq_error *err);
gptvq_status gptvq_cuda_codebooks(gptvq_vq *q, size_t group, gptvq_error *err);
gptvq_status gptvq_cuda_assign(gptvq_vq *q, size_t group, gptvq_span batch, gptvq_error *err);
gptvq_status gptvq_cuda_times_system(const gptvq_vq *q, size_t count, const uint32_t *stripes,
                                     const float *directions, double *products, gptvq_error *err);
gptvq_status gptvq_cuda_update(gptvq_vq *q, double *loss, gptvq_error *err);
gptvq_status gptvq_cuda_reassign(gptvq_vq *q, double *gain, gptvq_error *err);
gptvq_status gptvq_cuda_search(gptvq_vq *q, double *gain, gptvq_error *err);

gptvq_status gptvq_cuda_row_losses(const gptvq_backend *backend, const gptvq_factor *factor, size_t rows,
                                   const float *x, double *out, gptvq_error *err);
/* divide.c */
gptvq_status gptvq_cuda_divide(const gptvq_backend *backend, const gptvq_factor *factor, size_t rows,
                               const float *weights, double share, float *map, gptvq_error *err);

/* Dynamic shared memory of kernel `assign` with that many warps, in bytes; the warps that fit (0: none). */
size_t gptvq_cuda_assign_bytes(const gptvq_vq *q, size_t columns, bool kept, size_t warps);
size_t gptvq_cuda_assign_warps(const gptvq_cuda *cuda, const gptvq_vq *q, size_t columns, bool kept);

#endif
