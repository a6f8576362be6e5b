/* Re-assignment. Stripes go through the device in pieces that fit, each
 * for a whole sweep: what is sent are weights and indices, what comes back are indices and gains. */
#include "base/memory.h"
#include "cuda/cuda.h"
#include "quant/layer/beam.h"
#include "quant/layer/trellis.h"

#include <string.h>

/* Rows of some stripes at work. */
typedef struct piece {
  gptvq_cuda *cuda;
  gptvq_vq *q;
  size_t begin, rows, stripes;
  float *work; /* [rows × padded] E */
  gptvq_kernel_scales scale;
  const float *books;
  const uint32_t *book_of;
  uint16_t *index;
  double *gain; /* [rows], then loss[rows] and least[rows] of a search */
  gptvq_batch_factor of;
} piece;

typedef gptvq_status (*batch_function)(piece *p, size_t group, gptvq_span batch, gptvq_error *err);

/* What a row of a stripe has in the codebooks of a group: of a trellis the values of all states. */
static size_t book_values(const gptvq_vq *q) {
  return q->step_bits > 0 ? GPTVQ_TRELLIS_STATES : q->k * q->dim;
}

static size_t row_bytes(const gptvq_vq *q) {
  return 2 * q->padded * sizeof(float) + q->blocks * sizeof(uint16_t) + q->scale_blocks * sizeof(float) +
         2 * GPTVQ_BATCH * (sizeof(float) + sizeof(uint16_t)) + 3 * sizeof(double) +
         q->groups * book_values(q) * sizeof(float) / q->shape.group_rows + 1;
}

/* Of sub-vectors from the `first` on. */
static gptvq_kernel_scales scales_from(const piece *p, size_t first) {
  gptvq_kernel_scales out = p->scale;
  if (out.of != NULL) out.of += first;
  return out;
}

/* work = the residual */
static gptvq_status decode(piece *p, gptvq_error *err) {
  gptvq_device *device = p->cuda->device;
  const gptvq_vq *q = p->q;
  const size_t n = q->padded;
  gptvq_kernel_decode_arguments a = {.rows = p->rows,
                                     .stripe_rows = q->shape.group_rows,
                                     .dim = q->dim,
                                     .blocks = (uint32_t)q->blocks,
                                     .index = p->index,
                                     .scale = p->scale,
                                     .books = p->books,
                                     .book_stride = q->groups * book_values(q),
                                     .book_of = p->book_of};
  GPTVQ_TRY(gptvq_cuda_target(p->cuda, q, p->begin, p->rows, &a.target, err));
  GPTVQ_TRY(gptvq_cuda_reserve(p->cuda, GPTVQ_CUDA_ROWS, p->rows * n, sizeof *p->work, &p->work, err));
  a.out = p->work;
  const gptvq_device_grid grid = {(unsigned)gptvq_ceil_div(q->blocks, GPTVQ_ROWS_THREADS),
                                  (unsigned)gptvq_min_size(p->rows, 4096), GPTVQ_ROWS_THREADS, 0};
  return device->launch(device, GPTVQ_KERNEL_decode, &grid, &a, err);
}

static gptvq_status open_piece(piece *p, const uint32_t *book_of, gptvq_error *err) {
  const gptvq_vq *q = p->q;
  const size_t book = q->groups * book_values(q);
  const float *books =
      q->step_bits > 0 ? q->state_values : gptvq_vq_codebook(q, p->begin / q->shape.group_rows, 0);
  GPTVQ_TRY(
      gptvq_cuda_send(p->cuda, GPTVQ_CUDA_BOOKS, p->stripes * book, sizeof *books, books, &p->books, err));
  GPTVQ_TRY(
      gptvq_cuda_send(p->cuda, GPTVQ_CUDA_COLUMNS, q->blocks, sizeof *book_of, book_of, &p->book_of, err));
  GPTVQ_TRY(
      gptvq_cuda_send_scales(p->cuda, q, p->begin, p->begin + p->rows, NULL, 0, q->blocks, &p->scale, err));
  GPTVQ_TRY(gptvq_cuda_send(p->cuda, GPTVQ_CUDA_INDEX, p->rows * q->blocks, sizeof *p->index,
                            q->index + p->begin * q->blocks, &p->index, err));
  GPTVQ_TRY(gptvq_cuda_reserve(p->cuda, GPTVQ_CUDA_LOSS, 3 * p->rows, sizeof *p->gain, &p->gain, err));
  GPTVQ_TRY(p->cuda->device->set(p->cuda->device, p->gain, 0, p->rows * sizeof *p->gain, err));
  return decode(p, err);
}

/* Indices, and gains onto those of the units; host: scratch, [rows] */
static gptvq_status close_piece(const piece *p, double *host, gptvq_error *err) {
  const gptvq_vq *q = p->q;
  gptvq_device *device = p->cuda->device;
  GPTVQ_TRY(gptvq_device_download(device, p->rows * q->blocks * sizeof *p->index,
                                  q->index + p->begin * q->blocks, p->index, err));
  GPTVQ_TRY(gptvq_device_download(device, p->rows * sizeof *host, host, p->gain, err));
  for (size_t row = 0; row < p->rows; row++) q->unit_values[(p->begin + row) / q->unit_rows] += host[row];
  return GPTVQ_OK;
}

/* *gradient[rows × columns] = E H of a batch's columns */
static gptvq_status multiply(piece *p, gptvq_span batch, float **gradient, gptvq_error *err) {
  const size_t n = p->q->padded, m = batch.end - batch.begin;
  GPTVQ_TRY(gptvq_cuda_reserve(p->cuda, GPTVQ_CUDA_RESULT, p->rows * m, sizeof **gradient, gradient, err));
  const gptvq_device_product product = {.m = p->rows,
                                        .n = m,
                                        .k = n,
                                        .alpha = 1.0f,
                                        .beta = 0.0f,
                                        .a = p->work,
                                        .lda = n,
                                        .b = p->cuda->factor.h + batch.begin,
                                        .ldb = n,
                                        .c = *gradient,
                                        .ldc = m};
  gptvq_stage_count(p->q->stages, GPTVQ_IN_FP32, 2.0 * (double)(p->rows * m * n));
  return p->cuda->device->product(p->cuda->device, &product, err);
}

static size_t sweep_warps(const gptvq_cuda *cuda, const gptvq_vq *q, bool kept) {
  const size_t widest = gptvq_min_size(GPTVQ_BATCH, gptvq_round_up(q->padded, q->dim));
  return gptvq_cuda_assign_warps(cuda, q, widest, kept);
}

static gptvq_device_grid sweep_grid(const piece *p, size_t columns, bool kept) {
  const gptvq_vq *q = p->q;
  const size_t warps = sweep_warps(p->cuda, q, kept), height = gptvq_min_size(p->rows, q->shape.group_rows);
  return (gptvq_device_grid){(unsigned)p->stripes, (unsigned)gptvq_ceil_div(height, warps),
                             (unsigned)warps * 32, gptvq_cuda_assign_bytes(q, columns, kept, warps)};
}

static gptvq_status reassign_batch(piece *p, size_t group, gptvq_span batch, gptvq_error *err) {
  gptvq_device *device = p->cuda->device;
  const gptvq_vq *q = p->q;
  const size_t d = q->dim, n = q->padded, first = batch.begin / d, columns = batch.end - batch.begin;
  gptvq_kernel_reassign_arguments a = {.rows = p->rows,
                                       .stripe_rows = q->shape.group_rows,
                                       .dim = q->dim,
                                       .k = (uint32_t)q->k,
                                       .blocks = (uint32_t)(columns / d),
                                       .scale = scales_from(p, first),
                                       .books = p->books + group * q->k * d,
                                       .book_stride = q->groups * q->k * d,
                                       .h = p->cuda->factor.h + batch.begin * n + batch.begin,
                                       .h_stride = n,
                                       .ridge = p->cuda->factor.ridge + batch.begin,
                                       .work = p->work + batch.begin,
                                       .work_stride = n,
                                       .index = p->index + first,
                                       .index_stride = q->blocks,
                                       .gain = p->gain};
  float *gradient;
  GPTVQ_TRY(multiply(p, batch, &gradient, err));
  GPTVQ_TRY(gptvq_cuda_send(p->cuda, GPTVQ_CUDA_METRIC, columns * d, sizeof(double),
                            q->factor->metric_h + first * d * d, &a.metric_h, err));
  a.gradient = gradient;
  const gptvq_device_grid grid = sweep_grid(p, columns, false);
  return device->launch(device, GPTVQ_KERNEL_reassign, &grid, &a, err);
}

/* What is found for a batch, and its loss; metric and u: the device's, of H_BB. */
static gptvq_status find_vectors(piece *p, size_t group, const gptvq_kernel_search_arguments *s,
                                 const float *metric, const float *u, uint16_t *found, double *least,
                                 gptvq_error *err) {
  const gptvq_vq *q = p->q;
  const size_t m = s->blocks * q->dim;
  const gptvq_kernel_assign_arguments a = {.rows = p->rows,
                                           .stripe_rows = q->shape.group_rows,
                                           .dim = q->dim,
                                           .k = (uint32_t)q->k,
                                           .blocks = s->blocks,
                                           .width = (uint32_t)q->beam,
                                           .w = s->step,
                                           .w_stride = m,
                                           .scale = s->scale,
                                           .books = p->books + group * q->k * q->dim,
                                           .book_stride = s->book_stride,
                                           .lookup = metric,
                                           .metric = metric,
                                           .u = u,
                                           .u_stride = m,
                                           .index = found,
                                           .index_stride = s->blocks,
                                           .loss = least};
  const gptvq_device_grid grid = sweep_grid(p, m, q->beam > 1);
  return p->cuda->device->launch(p->cuda->device, GPTVQ_KERNEL_assign, &grid, &a, err);
}

/* The same of a trellis: both ends of the batch's part of a path stay. */
static gptvq_status find_paths(piece *p, gptvq_span batch, const gptvq_kernel_search_arguments *s,
                               const float *metric, const float *u, uint16_t *found, double *least,
                               gptvq_error *err) {
  const gptvq_vq *q = p->q;
  const size_t m = batch.end - batch.begin;
  gptvq_kernel_path_arguments a = {.rows = p->rows,
                                   .columns = (uint32_t)m,
                                   .w = s->step,
                                   .w_stride = m,
                                   .scale = s->scale,
                                   .books = s->books,
                                   .book_of = s->book_of,
                                   .lookup = metric,
                                   .metric = metric,
                                   .u = u,
                                   .u_stride = m,
                                   .before = batch.begin > 0 ? p->index + batch.begin - 1 : NULL,
                                   .last = batch.end < q->padded ? p->index + batch.end - 1 : NULL,
                                   .bound_stride = q->blocks,
                                   .state = found,
                                   .state_stride = m,
                                   .loss = least};
  return gptvq_cuda_find_paths(p->cuda, q, &a, err);
}

static gptvq_status search_batch(piece *p, size_t group, gptvq_span batch, gptvq_error *err) {
  gptvq_device *device = p->cuda->device;
  const gptvq_vq *q = p->q;
  const size_t d = q->dim, n = q->padded, first = batch.begin / d, m = batch.end - batch.begin;
  float *gradient, *step;
  const float *metric, *u, *inverse;
  double *least = p->gain + 2 * p->rows;
  uint16_t *found;
  if (!gptvq_batch_factor_make(q, batch, &p->of)) return GPTVQ_OK;
  GPTVQ_TRY(gptvq_cuda_send(p->cuda, GPTVQ_CUDA_METRIC, m * d, sizeof *metric, p->of.metric, &metric, err));
  GPTVQ_TRY(gptvq_cuda_send(p->cuda, GPTVQ_CUDA_SQUARE, m * m, sizeof *u, p->of.u, &u, err));
  GPTVQ_TRY(
      gptvq_cuda_send(p->cuda, GPTVQ_CUDA_INVERSE, m * m, sizeof *inverse, p->of.inverse, &inverse, err));
  GPTVQ_TRY(gptvq_cuda_reserve(p->cuda, GPTVQ_CUDA_STEP, p->rows * m, sizeof *step, &step, err));
  GPTVQ_TRY(gptvq_cuda_reserve(p->cuda, GPTVQ_CUDA_FOUND, p->rows * (m / d), sizeof *found, &found, err));
  GPTVQ_TRY(multiply(p, batch, &gradient, err));
  const gptvq_kernel_add_ridge_arguments ridge = {.rows = p->rows,
                                                  .n = m,
                                                  .x_stride = n,
                                                  .y_stride = m,
                                                  .ridge = p->cuda->factor.ridge + batch.begin,
                                                  .x = p->work + batch.begin,
                                                  .y = gradient};
  GPTVQ_TRY(gptvq_cuda_add_ridge(p->cuda, &ridge, err));
  const gptvq_device_product product = {.m = p->rows,
                                        .n = m,
                                        .k = m,
                                        .alpha = 1.0f,
                                        .beta = 0.0f,
                                        .a = gradient,
                                        .lda = m,
                                        .b = inverse,
                                        .ldb = m,
                                        .c = step,
                                        .ldc = m};
  GPTVQ_TRY(device->product(device, &product, err));
  const gptvq_kernel_search_arguments a = {.rows = p->rows,
                                           .stripe_rows = q->shape.group_rows,
                                           .dim = q->dim,
                                           .blocks = (uint32_t)(m / d),
                                           .scale = scales_from(p, first),
                                           .books = p->books,
                                           .book_stride = q->groups * book_values(q),
                                           .book_of = p->book_of + first,
                                           .gradient = gradient,
                                           .step = step,
                                           .found = found,
                                           .loss = p->gain + p->rows,
                                           .least = least,
                                           .work = p->work + batch.begin,
                                           .work_stride = n,
                                           .index = p->index + first,
                                           .index_stride = q->blocks,
                                           .gain = p->gain};
  const gptvq_device_grid each_row = {(unsigned)gptvq_ceil_div(p->rows, GPTVQ_ROWS_THREADS / 32), 1,
                                      GPTVQ_ROWS_THREADS, 0};
  GPTVQ_TRY(device->launch(device, GPTVQ_KERNEL_search_prepare, &each_row, &a, err));
  GPTVQ_TRY(q->step_bits > 0 ? find_paths(p, batch, &a, metric, u, found, least, err)
                             : find_vectors(p, group, &a, metric, u, found, least, err));
  return device->launch(device, GPTVQ_KERNEL_search_accept, &each_row, &a, err);
}

/* The batches of a piece in order: of a trellis over groups, boundaries alternate from search to search. */
static gptvq_status each_batch(piece *p, batch_function function, gptvq_error *err) {
  const gptvq_vq *q = p->q;
  if (q->step_bits > 0) {
    for (gptvq_span batch = {0, 0}; batch.begin < q->padded; batch.begin = batch.end) {
      batch.end = gptvq_trellis_search_end(q, batch.begin);
      GPTVQ_TRY(function(p, 0, batch, err));
    }
    return GPTVQ_OK;
  }
  for (size_t g = 0; g < q->groups; g++) {
    const size_t stop = q->group[g].start + q->group[g].width;
    for (gptvq_span batch = {q->group[g].start, 0}; batch.begin < stop; batch.begin = batch.end) {
      batch.end = gptvq_min_size(stop, batch.begin + GPTVQ_BATCH);
      GPTVQ_TRY(function(p, g, batch, err));
    }
  }
  return GPTVQ_OK;
}

/* All batches of all groups, piece by piece; host: [rows], book_of: [blocks] */
static gptvq_status sweep(piece *p, batch_function function, uint32_t *book_of, double *host,
                          gptvq_error *err) {
  const gptvq_vq *q = p->q;
  const size_t d = q->dim, height = q->unit_rows,
               others = 4 * GPTVQ_BATCH * GPTVQ_BATCH * sizeof(float) + 2 * q->blocks * sizeof *book_of +
                        (q->step_bits > 0 ? gptvq_cuda_path_bytes(p->cuda, q, q->rows, true) +
                                                q->groups * book_values(q) * sizeof(float)
                                          : 0);
  for (size_t g = 0; g < q->groups; g++)
    for (size_t b = q->group[g].start / d; b < (q->group[g].start + q->group[g].width) / d; b++)
      book_of[b] = (uint32_t)(g * book_values(q));
  GPTVQ_TRY(gptvq_cuda_hessian(p->cuda, q->factor, err));
  memset(q->unit_values, 0, q->units * sizeof *q->unit_values);
  const size_t most = gptvq_cuda_piece(p->cuda, q->rows, height, row_bytes(q), others);
  for (p->begin = 0; p->begin < q->rows; p->begin += p->rows) {
    p->rows = gptvq_min_size(most, q->rows - p->begin);
    p->stripes = gptvq_ceil_div(p->rows, q->shape.group_rows);
    GPTVQ_TRY(open_piece(p, book_of, err));
    GPTVQ_TRY(each_batch(p, function, err));
    GPTVQ_TRY(close_piece(p, host, err));
  }
  return GPTVQ_OK;
}

static gptvq_status run(gptvq_vq *q, batch_function function, double *gain, gptvq_error *err) {
  piece p = {.cuda = gptvq_cuda_of(q->backend), .q = q};
  const size_t mark = q->arena->used;
  uint32_t *book_of = gptvq_alloc(q->blocks, sizeof *book_of);
  double *host = gptvq_alloc(q->rows, sizeof *host);
  gptvq_status status;
  GPTVQ_TRY_GOTO(book_of != NULL && host != NULL
                     ? GPTVQ_OK
                     : gptvq_fail_memory(err, "re-assignment on a device", q->rows * sizeof *host));
  if (function == search_batch) gptvq_batch_factor_take(q->arena, q, &p.of);
  GPTVQ_TRY_GOTO(gptvq_arena_check(q->arena, "re-assignment", err));
  q->has_gradient = false;
  GPTVQ_TRY_GOTO(sweep(&p, function, book_of, host, err));
  GPTVQ_TRY_GOTO(gptvq_vq_total(q, q->unit_values, gain, err));
  gptvq_arena_return(q->arena, mark);
done:
  free(book_of);
  free(host);
  return status;
}

gptvq_status gptvq_cuda_reassign(gptvq_vq *q, double *gain, gptvq_error *err) {
  if (sweep_warps(gptvq_cuda_of(q->backend), q, false) == 0) return gptvq_vq_reassign(q, gain, err);
  return run(q, reassign_batch, gain, err);
}

static gptvq_status search_trellis(gptvq_vq *q, double *gain, gptvq_error *err) {
  if (GPTVQ_PATH_SHARED(q->step_bits, q->beam) > gptvq_cuda_of(q->backend)->device->shared_bytes)
    return gptvq_vq_search(q, gain, err);
  GPTVQ_TRY(run(q, search_batch, gain, err));
  q->searches++;
  return GPTVQ_OK;
}

gptvq_status gptvq_cuda_search(gptvq_vq *q, double *gain, gptvq_error *err) {
  if (q->step_bits > 0) return search_trellis(q, gain, err);
  if (sweep_warps(gptvq_cuda_of(q->backend), q, q->beam > 1) == 0 || q->beam > GPTVQ_ASSIGN_WIDTH)
    return gptvq_vq_search(q, gain, err);
  return run(q, search_batch, gain, err);
}
