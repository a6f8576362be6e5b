/* The division of a mismatch by the Hessian (calib/mismatch.c), with the solver's H and U, which stay for the
 * solver where there is room. Rows go through the device in pieces that fit. */
#include "base/memory.h"
#include "cuda/cuda.h"

#include <string.h>

enum { THREADS = 256, PANEL = 2048 /* columns of a triangle that are multiplied by together */ };

typedef struct division {
  gptvq_cuda *cuda;
  const gptvq_factor *factor;
  const uint32_t *order, *place; /* on the device: the column of each in processing order [padded], and where
                                    each has gone [cols] */
  const float *weights;
  double share;
  float *map;
} division;

static gptvq_status pick(const division *d, size_t rows, const float *x, size_t x_cols, const uint32_t *at,
                         double scale, float *y, size_t y_cols, gptvq_error *err) {
  const gptvq_kernel_pick_columns_arguments a = {rows, x_cols, y_cols, (float)scale, x, at, y};
  const gptvq_device_grid grid = {(unsigned)gptvq_ceil_div(y_cols, THREADS),
                                  (unsigned)gptvq_min_size(gptvq_ceil_div(rows, 8), 4096), THREADS, 0};
  return d->cuda->device->launch(d->cuda->device, GPTVQ_KERNEL_pick_columns, &grid, &a, err);
}

/* y = x Uᵀ or x U, [rows × padded] each, without most of what is zero */
static gptvq_status times_triangle(const division *d, size_t rows, bool transposed, const float *x, float *y,
                                   gptvq_error *err) {
  gptvq_device *device = d->cuda->device;
  const size_t n = d->factor->padded;
  for (size_t p = 0; p < n; p += PANEL) {
    const size_t width = gptvq_min_size(PANEL, n - p), from = transposed ? p : 0;
    const gptvq_device_product product = {.transpose_b = transposed,
                                          .m = rows,
                                          .n = width,
                                          .k = transposed ? n - p : p + width,
                                          .alpha = 1.0f,
                                          .a = x + from,
                                          .lda = n,
                                          .b = d->cuda->factor.u + (transposed ? p * n + p : p),
                                          .ldb = n,
                                          .c = y + p,
                                          .ldc = n};
    GPTVQ_TRY(device->product(device, &product, err));
  }
  return GPTVQ_OK;
}

/* Of `count` rows from the first on, what is to be subtracted, or divided, or both. */
static gptvq_status work_on(const division *d, size_t first, size_t count, bool subtracts, bool divides,
                            gptvq_error *err) {
  gptvq_cuda *cuda = d->cuda;
  const gptvq_factor *f = d->factor;
  const size_t n = f->padded, cols = f->cols, numbers = count * cols;
  float *rows, *reordered, *other;
  GPTVQ_TRY(gptvq_cuda_reserve(cuda, GPTVQ_CUDA_ROWS, count * n, sizeof *reordered, &reordered, err));
  GPTVQ_TRY(gptvq_cuda_reserve(cuda, GPTVQ_CUDA_STEP, count * n, sizeof *other, &other, err));
  GPTVQ_TRY(
      gptvq_cuda_send(cuda, GPTVQ_CUDA_RESULT, numbers, sizeof *rows, d->map + first * cols, &rows, err));
  GPTVQ_TRY(pick(d, count, rows, cols, d->order, 1.0, reordered, n, err));
  if (subtracts) {
    const gptvq_device_product product = {.m = count,
                                          .n = n,
                                          .k = n,
                                          .alpha = -1.0f,
                                          .beta = 1.0f,
                                          .a = other,
                                          .lda = n,
                                          .b = cuda->factor.h,
                                          .ldb = n,
                                          .c = reordered,
                                          .ldc = n};
    GPTVQ_TRY(gptvq_cuda_send(cuda, GPTVQ_CUDA_RESULT, numbers, sizeof *rows, d->weights + first * cols,
                              &rows, err));
    GPTVQ_TRY(pick(d, count, rows, cols, d->order, d->share / f->scale, other, n, err));
    GPTVQ_TRY(cuda->device->product(cuda->device, &product, err));
  }
  if (divides) {
    GPTVQ_TRY(times_triangle(d, count, true, reordered, other, err));
    GPTVQ_TRY(times_triangle(d, count, false, other, reordered, err));
  }
  GPTVQ_TRY(pick(d, count, reordered, n, d->place, divides ? f->scale : 1.0, rows, cols, err));
  return gptvq_device_download(cuda->device, numbers * sizeof *rows, d->map + first * cols, rows, err);
}

/* Both orders of the columns, once the pieces are known, which may cost all buffers. */
static gptvq_status send_orders(division *d, gptvq_error *err) {
  const gptvq_factor *f = d->factor;
  uint32_t *place = gptvq_alloc(f->cols, sizeof *place);
  if (place == NULL) return gptvq_fail_memory(err, "an order of columns", f->cols * sizeof *place);
  memset(place, 0xff, f->cols * sizeof *place);
  for (size_t c = 0; c < f->padded; c++)
    if (f->order[c] < f->cols) place[f->order[c]] = (uint32_t)c;
  gptvq_status status =
      gptvq_cuda_send(d->cuda, GPTVQ_CUDA_COLUMNS, f->padded, sizeof *f->order, f->order, &d->order, err);
  if (status == GPTVQ_OK)
    status = gptvq_cuda_send(d->cuda, GPTVQ_CUDA_LISTED, f->cols, sizeof *place, place, &d->place, err);
  free(place);
  return status;
}

static size_t row_bytes(const gptvq_factor *f) { return (2 * f->padded + f->cols) * sizeof(float); }
static size_t order_bytes(const gptvq_factor *f) { return (f->padded + f->cols) * sizeof(uint32_t); }

static gptvq_status work_on_all(division *d, size_t rows, bool subtracts, bool divides, gptvq_error *err) {
  const gptvq_factor *f = d->factor;
  const size_t piece = gptvq_cuda_piece(d->cuda, rows, 1, row_bytes(f), order_bytes(f));
  GPTVQ_TRY(send_orders(d, err));
  for (size_t r = 0; r < rows; r += piece)
    GPTVQ_TRY(work_on(d, r, gptvq_min_size(piece, rows - r), subtracts, divides, err));
  return GPTVQ_OK;
}

/* Rows are of no more use: others, such as the map, need the room. */
static void release(gptvq_cuda *cuda) {
  static const gptvq_cuda_use uses[] = {GPTVQ_CUDA_ROWS, GPTVQ_CUDA_STEP, GPTVQ_CUDA_RESULT};
  for (size_t i = 0; i < sizeof uses / sizeof uses[0]; i++)
    gptvq_device_drop(cuda->device, &cuda->buffers[uses[i]]);
}

gptvq_status gptvq_cuda_divide(const gptvq_backend *backend, const gptvq_factor *factor, size_t rows,
                               const float *weights, double share, float *map, gptvq_error *err) {
  gptvq_cuda *cuda = gptvq_cuda_of(backend);
  division d = {.cuda = cuda, .factor = factor, .weights = weights, .share = share, .map = map};
  const bool subtracts = weights != NULL;
  if (subtracts) GPTVQ_TRY(gptvq_cuda_triangle(cuda, factor, err));
  if (subtracts) GPTVQ_TRY(gptvq_cuda_hessian(cuda, factor, err));
  const size_t least = gptvq_saturated_sum(row_bytes(factor), order_bytes(factor));
  const bool both = subtracts && cuda->factor.u != NULL && gptvq_cuda_fits(cuda, least);
  gptvq_status status = GPTVQ_OK;
  if (subtracts && !both) { /* no room for U and a row beside H */
    gptvq_cuda_drop(cuda, &cuda->factor.u);
    status = work_on_all(&d, rows, true, false, err);
    gptvq_cuda_drop(cuda, &cuda->factor.h);
  }
  if (status == GPTVQ_OK) status = gptvq_cuda_triangle(cuda, factor, err);
  if (status == GPTVQ_OK) status = work_on_all(&d, rows, both, true, err);
  release(cuda);
  return status;
}
