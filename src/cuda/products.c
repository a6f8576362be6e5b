/* Products with H and U, whose rows go through the device in pieces that fit. */
#include "base/memory.h"
#include "cuda/cuda.h"
#include "linalg/solve/cholesky.h"

#include <string.h>

gptvq_status gptvq_cuda_add_ridge(gptvq_cuda *cuda, const gptvq_kernel_add_ridge_arguments *a,
                                  gptvq_error *err) {
  const gptvq_device_grid grid = {(unsigned)gptvq_ceil_div(a->n, 256),
                                  (unsigned)gptvq_min_size(a->rows, 4096), 256, 0};
  return cuda->device->launch(cuda->device, GPTVQ_KERNEL_add_ridge, &grid, a, err);
}

gptvq_status gptvq_cuda_multiply_hessian(gptvq_cuda *cuda, size_t rows, size_t n, const float *x, float *y,
                                         gptvq_error *err) {
  const gptvq_device_product product = {.m = rows,
                                        .n = n,
                                        .k = n,
                                        .alpha = 1.0f,
                                        .beta = 0.0f,
                                        .a = x,
                                        .lda = n,
                                        .b = cuda->factor.h,
                                        .ldb = n,
                                        .c = y,
                                        .ldc = n};
  GPTVQ_TRY(cuda->device->product(cuda->device, &product, err));
  const gptvq_kernel_add_ridge_arguments ridge = {
      .rows = rows, .n = n, .x_stride = n, .y_stride = n, .ridge = cuda->factor.ridge, .x = x, .y = y};
  return gptvq_cuda_add_ridge(cuda, &ridge, err);
}

gptvq_status gptvq_cuda_times_hessian(const gptvq_vq *q, size_t rows, const float *x, float *y,
                                      gptvq_error *err) {
  if (q->factor == NULL) return gptvq_vq_times_hessian(q, rows, x, y, err);
  gptvq_cuda *cuda = gptvq_cuda_of(q->backend);
  const size_t n = q->padded, row_bytes = 2 * n * sizeof(float);
  GPTVQ_TRY(gptvq_cuda_hessian(cuda, q->factor, err));
  const size_t piece = gptvq_cuda_piece(cuda, rows, 1, row_bytes, 0);
  for (size_t begin = 0; begin < rows; begin += piece) {
    const size_t count = gptvq_min_size(piece, rows - begin);
    float *from, *to;
    GPTVQ_TRY(gptvq_cuda_send(cuda, GPTVQ_CUDA_ROWS, count * n, sizeof *x, x + begin * n, &from, err));
    GPTVQ_TRY(gptvq_cuda_reserve(cuda, GPTVQ_CUDA_RESULT, count * n, sizeof *y, &to, err));
    GPTVQ_TRY(gptvq_cuda_multiply_hessian(cuda, count, n, from, to, err));
    GPTVQ_TRY(gptvq_device_download(cuda->device, count * n * sizeof *y, y + begin * n, to, err));
  }
  return GPTVQ_OK;
}

gptvq_status gptvq_cuda_feedback(const gptvq_backend *backend, const gptvq_factor *factor, size_t rows,
                                 gptvq_span from, gptvq_span to, const float *error, float *work,
                                 gptvq_error *err) {
  gptvq_cuda *cuda = gptvq_cuda_of(backend);
  const size_t n = factor->padded, k = from.end - from.begin, width = to.end - to.begin;
  GPTVQ_TRY(gptvq_cuda_triangle(cuda, factor, err));
  /* what is there may go where memory is short */
  const float *there = gptvq_cuda_errors(cuda, error, rows, from.end);
  size_t piece = gptvq_cuda_piece(cuda, rows, 1, ((there != NULL ? 0 : k) + width) * sizeof(float), 0);
  if (there != NULL && gptvq_cuda_errors(cuda, error, rows, from.end) == NULL) {
    there = NULL;
    piece = gptvq_cuda_piece(cuda, rows, 1, (k + width) * sizeof(float), 0);
  }
  for (size_t begin = 0; begin < rows; begin += piece) {
    const size_t count = gptvq_min_size(piece, rows - begin);
    float *sent = NULL, *w;
    if (there == NULL)
      GPTVQ_TRY(gptvq_cuda_send_rows(cuda, GPTVQ_CUDA_RESULT, count, k, error + begin * n + from.begin, n,
                                     &sent, err));
    GPTVQ_TRY(
        gptvq_cuda_send_rows(cuda, GPTVQ_CUDA_ROWS, count, width, work + begin * n + to.begin, n, &w, err));
    const gptvq_device_product product = {.m = count,
                                          .n = width,
                                          .k = k,
                                          .alpha = -1.0f,
                                          .beta = 1.0f,
                                          .a = there != NULL ? there + begin * n + from.begin : sent,
                                          .lda = there != NULL ? n : k,
                                          .b = cuda->factor.u + from.begin * n + to.begin,
                                          .ldb = n,
                                          .c = w,
                                          .ldc = width};
    GPTVQ_TRY(cuda->device->product(cuda->device, &product, err));
    const gptvq_device_rows shape = {width * sizeof *w, count, width * sizeof *w, n * sizeof *w};
    GPTVQ_TRY(cuda->device->download(cuda->device, &shape, work + begin * n + to.begin, w, err));
  }
  return GPTVQ_OK;
}

/* Σ x (x H) of parts of each row, which the host adds up. */
gptvq_status gptvq_cuda_row_losses(const gptvq_backend *backend, const gptvq_factor *factor, size_t rows,
                                   const float *x, double *out, gptvq_error *err) {
  enum { PART = 256 /* columns */ };
  gptvq_cuda *cuda = gptvq_cuda_of(backend);
  const size_t n = factor->padded, parts = gptvq_ceil_div(n, PART);
  GPTVQ_TRY(gptvq_cuda_hessian(cuda, factor, err));
  const size_t piece = gptvq_cuda_piece(cuda, rows, 1, 2 * n * sizeof *x + parts * sizeof *out,
                                        (parts + 1) * sizeof(uint32_t));
  uint32_t *start = gptvq_alloc(parts + 1, sizeof *start);
  double *sums = gptvq_alloc(piece, parts * sizeof *sums);
  gptvq_status status = start != NULL && sums != NULL
                            ? GPTVQ_OK
                            : gptvq_fail_memory(err, "the layer error", piece * parts * sizeof *sums);
  for (size_t i = 0; status == GPTVQ_OK && i <= parts; i++) start[i] = (uint32_t)gptvq_min_size(n, i * PART);
  gptvq_kernel_dots_arguments dots = {.stride = n, .count = (uint32_t)parts, .ways = 1, .out_stride = parts};
  if (status == GPTVQ_OK)
    status = gptvq_cuda_send(cuda, GPTVQ_CUDA_COLUMNS, parts + 1, sizeof *start, start, &dots.start, err);
  for (size_t begin = 0; begin < rows && status == GPTVQ_OK; begin += piece) {
    const size_t count = gptvq_min_size(piece, rows - begin);
    float *from, *to;
    GPTVQ_TRY_GOTO(gptvq_cuda_send(cuda, GPTVQ_CUDA_ROWS, count * n, sizeof *x, x + begin * n, &from, err));
    GPTVQ_TRY_GOTO(gptvq_cuda_reserve(cuda, GPTVQ_CUDA_RESULT, count * n, sizeof *x, &to, err));
    GPTVQ_TRY_GOTO(gptvq_cuda_reserve(cuda, GPTVQ_CUDA_LOSS, count * parts, sizeof *out, &dots.out, err));
    const gptvq_device_product product = {.m = count,
                                          .n = n,
                                          .k = n,
                                          .alpha = 1.0f,
                                          .a = from,
                                          .lda = n,
                                          .b = cuda->factor.h,
                                          .ldb = n,
                                          .c = to,
                                          .ldc = n};
    const gptvq_device_grid grid = {(unsigned)gptvq_ceil_div(count * parts, GPTVQ_ROWS_THREADS), 1,
                                    GPTVQ_ROWS_THREADS, 0};
    dots.rows = count;
    dots.x = from;
    dots.y = to;
    GPTVQ_TRY_GOTO(cuda->device->product(cuda->device, &product, err));
    GPTVQ_TRY_GOTO(cuda->device->launch(cuda->device, GPTVQ_KERNEL_dots, &grid, &dots, err));
    GPTVQ_TRY_GOTO(gptvq_device_download(cuda->device, count * parts * sizeof *sums, sums, dots.out, err));
    for (size_t r = 0; r < count; r++) {
      out[begin + r] = 0.0;
      for (size_t i = 0; i < parts; i++) out[begin + r] += sums[r * parts + i];
    }
  }
done:
  free(start);
  free(sums);
  return status;
}
