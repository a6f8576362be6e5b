/* The GPTVQ loop: k-means of a group, assignment of a batch. Stripes go through the device in pieces that
 * fit.
 */
#include "base/memory.h"
#include "base/threads.h"
#include "cuda/cuda.h"
#include "quant/layer/beam.h"

#include <string.h>

size_t gptvq_cuda_assign_bytes(const gptvq_vq *q, size_t columns, bool kept, size_t warps) {
  const size_t row =
      kept ? 2 * q->beam * columns * sizeof(float) + q->beam * (columns / q->dim) * sizeof(uint32_t)
           : columns * sizeof(float);
  return q->dim * q->k * sizeof(float) + warps * row;
}

size_t gptvq_cuda_assign_warps(const gptvq_cuda *cuda, const gptvq_vq *q, size_t columns, bool kept) {
  size_t warps = gptvq_min_size(GPTVQ_ASSIGN_WARPS, q->shape.group_rows);
  while (warps > 0 && gptvq_cuda_assign_bytes(q, columns, kept, warps) > cuda->device->shared_bytes) warps--;
  return warps;
}

gptvq_status gptvq_cuda_assign(gptvq_vq *q, size_t group, gptvq_span batch, gptvq_error *err) {
  if (q->step_bits > 0) return gptvq_cuda_trellis_assign(q, group, batch, err);
  gptvq_cuda *cuda = gptvq_cuda_of(q->backend);
  gptvq_device *device = cuda->device;
  const size_t d = q->dim, n = q->padded, first = batch.begin / d, columns = batch.end - batch.begin,
               blocks = columns / d, height = q->shape.group_rows;
  const bool feedback = q->options->feedback && q->factor != NULL, kept = feedback && q->beam > 1;
  const size_t warps = gptvq_cuda_assign_warps(cuda, q, columns, kept);
  if (warps == 0 || (kept && q->beam > GPTVQ_ASSIGN_WIDTH)) return gptvq_vq_assign(q, group, batch, err);
  gptvq_kernel_assign_arguments a = {.stripe_rows = height,
                                     .dim = q->dim,
                                     .k = (uint32_t)q->k,
                                     .blocks = (uint32_t)blocks,
                                     .width = (uint32_t)(kept ? q->beam : 1),
                                     .w_stride = columns,
                                     .book_stride = q->k * d,
                                     .u_stride = columns,
                                     .index_stride = blocks,
                                     .error_stride = columns};
  float *w, *books, *u, *error = NULL;
  uint16_t *index;
  const size_t row_bytes = 2 * columns * sizeof(float) + blocks * (sizeof(float) + sizeof *index) +
                           q->k * d * sizeof(float) / height + 1;
  const size_t piece = gptvq_cuda_piece(cuda, q->rows, height, row_bytes,
                                        (columns * columns + 2 * columns * d) * sizeof(float));
  GPTVQ_TRY(gptvq_cuda_send(cuda, GPTVQ_CUDA_LOOKUP, blocks * d * d, sizeof(float), q->lookup + first * d * d,
                            &a.lookup, err));
  GPTVQ_TRY(gptvq_cuda_send(cuda, GPTVQ_CUDA_METRIC, blocks * d * d, sizeof(float), q->metric + first * d * d,
                            &a.metric, err));
  if (feedback) {
    GPTVQ_TRY(gptvq_cuda_send_rows(cuda, GPTVQ_CUDA_SQUARE, columns, columns,
                                   q->factor->u + batch.begin * n + batch.begin, n, &u, err));
    a.u = u;
  }
  for (size_t begin = 0; begin < q->rows;) {
    const size_t rows = gptvq_min_size(piece, q->rows - begin), stripe = begin / height,
                 stripes = gptvq_ceil_div(rows, height);
    a.rows = rows;
    GPTVQ_TRY(gptvq_cuda_send_rows(cuda, GPTVQ_CUDA_ROWS, rows, columns, q->work + begin * n + batch.begin, n,
                                   &w, err));
    GPTVQ_TRY(gptvq_cuda_send_rows(cuda, GPTVQ_CUDA_BOOKS, stripes, q->k * d,
                                   gptvq_vq_codebook(q, stripe, group), q->groups * q->k * d, &books, err));
    GPTVQ_TRY(gptvq_cuda_send_scales(cuda, q, begin, begin + rows, NULL, first, blocks, &a.scale, err));
    GPTVQ_TRY(gptvq_cuda_reserve(cuda, GPTVQ_CUDA_INDEX, rows * blocks, sizeof *index, &index, err));
    if (feedback)
      GPTVQ_TRY(gptvq_cuda_reserve(cuda, GPTVQ_CUDA_RESULT, rows * columns, sizeof *error, &error, err));
    a.w = w;
    a.books = books;
    a.index = index;
    a.error = error;
    const gptvq_device_grid grid = {(unsigned)stripes,
                                    (unsigned)gptvq_ceil_div(gptvq_min_size(rows, height), warps),
                                    (unsigned)warps * 32, gptvq_cuda_assign_bytes(q, columns, kept, warps)};
    GPTVQ_TRY(device->launch(device, GPTVQ_KERNEL_assign, &grid, &a, err));
    const gptvq_device_rows indices = {blocks * sizeof *index, rows, blocks * sizeof *index,
                                       q->blocks * sizeof *index};
    const gptvq_device_rows errors = {columns * sizeof *error, rows, columns * sizeof *error,
                                      n * sizeof *error};
    GPTVQ_TRY(device->download(device, &indices, q->index + begin * q->blocks + first, index, err));
    if (feedback)
      GPTVQ_TRY(device->download(device, &errors, q->error + begin * n + batch.begin, error, err));
    begin += rows;
  }
  return GPTVQ_OK;
}

/* Points of a group as kernel `em` wants them, on the host. */
typedef struct points {
  gptvq_vq *q;
  size_t group, blocks;
  uint32_t *live;   /* [blocks of the group] */
  uint32_t *column; /* [blocks · dim] */
  float *t;         /* [blocks][dim²] */
  float *centroids; /* [stripes of a piece][k · dim] */
  size_t first_stripe;
} points;

static void scale_stripes(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const points *p = context;
  const size_t height = p->q->shape.group_rows;
  gptvq_vq_scale_group(p->q, &p->q->group[p->group], begin * height,
                       gptvq_min_size(p->q->rows, end * height));
}

static void store_stripes(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const points *p = context;
  for (size_t i = begin; i < end; i++)
    gptvq_vq_store_codebook(p->q, (p->first_stripe + i) * p->q->groups + p->group,
                            p->centroids + i * p->q->k * p->q->dim);
}

static void describe_points(points *p) {
  const gptvq_vq *q = p->q;
  const size_t d = q->dim;
  p->blocks = gptvq_vq_live_blocks(q, &q->group[p->group], p->live);
  for (size_t b = 0; b < p->blocks; b++)
    for (size_t i = 0; i < d; i++) {
      const size_t c = p->live[b] * d + i;
      const bool dead = gptvq_factor_is_dead(q->factor, c);
      p->column[b * d + i] = dead ? UINT32_MAX : (uint32_t)(c - q->group[p->group].start);
      for (size_t j = 0; j < d; j++)
        p->t[(b * d + i) * d + j] =
            dead || gptvq_factor_is_dead(q->factor, p->live[b] * d + j) ? 0.0f : q->lookup[c * d + j];
    }
}

/* The kernel's scratch for some stripes, cut out of one buffer. */
static gptvq_status reserve_scratch(gptvq_cuda *cuda, gptvq_kernel_em_arguments *a, size_t stripes,
                                    gptvq_error *err) {
  const size_t n = stripes * a->most;
  double *memory;
  GPTVQ_TRY(gptvq_cuda_reserve(cuda, GPTVQ_CUDA_POINTS, n,
                               sizeof(double) + (2 * a->dim + 1) * sizeof(float) + sizeof(uint32_t) +
                                   2 * sizeof(uint16_t),
                               &memory, err));
  a->keys = memory;
  a->x = (float *)(a->keys + n);
  a->xt = a->x + n * a->dim;
  a->distance = a->xt + n * a->dim;
  a->sorted = (uint32_t *)(void *)(a->distance + n);
  a->index = (uint16_t *)(void *)(a->sorted + n);
  a->previous = a->index + n;
  return GPTVQ_OK;
}

static gptvq_status cluster(gptvq_cuda *cuda, points *p, gptvq_error *err) {
  const gptvq_vq *q = p->q;
  gptvq_device *device = cuda->device;
  const gptvq_group *group = &q->group[p->group];
  const size_t d = q->dim, height = q->shape.group_rows, book = q->k * d;
  gptvq_kernel_em_arguments a = {.stripe_rows = height,
                                 .dim = q->dim,
                                 .k = (uint32_t)q->k,
                                 .blocks = (uint32_t)p->blocks,
                                 .iterations = q->options->em_iterations,
                                 .cdf = q->options->em_init == GPTVQ_INIT_CDF,
                                 .w_stride = group->width,
                                 .book_stride = book,
                                 .most = 1};
  while (a.most < height * p->blocks) a.most *= 2;
  const size_t row_bytes = group->width * sizeof(float) + p->blocks * sizeof(float) +
                           a.most * (2 * d * sizeof(float) + 20) / height + book * sizeof(float) / height + 2;
  const size_t piece =
      gptvq_cuda_piece(cuda, q->rows, height, row_bytes, p->blocks * d * (d + 1) * sizeof(float));
  GPTVQ_TRY(
      gptvq_cuda_send(cuda, GPTVQ_CUDA_COLUMNS, p->blocks * d, sizeof *p->column, p->column, &a.column, err));
  GPTVQ_TRY(gptvq_cuda_send(cuda, GPTVQ_CUDA_LOOKUP, p->blocks * d * d, sizeof *p->t, p->t, &a.t, err));
  for (size_t begin = 0; begin < q->rows;) {
    const size_t rows = gptvq_min_size(piece, q->rows - begin), stripes = gptvq_ceil_div(rows, height);
    float *w;
    a.rows = rows;
    p->first_stripe = begin / height;
    GPTVQ_TRY(gptvq_cuda_send_rows(cuda, GPTVQ_CUDA_ROWS, rows, group->width,
                                   q->work + begin * q->padded + group->start, q->padded, &w, err));
    a.w = w;
    GPTVQ_TRY(gptvq_cuda_send_scales(cuda, q, begin, begin + rows, p->live, 0, p->blocks, &a.scale, err));
    GPTVQ_TRY(reserve_scratch(cuda, &a, stripes, err));
    GPTVQ_TRY(gptvq_cuda_reserve(cuda, GPTVQ_CUDA_BOOKS, stripes * book, sizeof(float), &a.centroids, err));
    const gptvq_device_grid grid = {(unsigned)stripes, 1, GPTVQ_EM_THREADS, book * sizeof(float) + q->k};
    GPTVQ_TRY(device->launch(device, GPTVQ_KERNEL_em, &grid, &a, err));
    GPTVQ_TRY(gptvq_device_download(device, stripes * book * sizeof(float), p->centroids, a.centroids, err));
    gptvq_parallel_for(stripes, 1, store_stripes, p);
    begin += rows;
  }
  return GPTVQ_OK;
}

gptvq_status gptvq_cuda_codebooks(gptvq_vq *q, size_t group, gptvq_error *err) {
  if (q->step_bits > 0) return gptvq_cuda_trellis_tables(q, group, err);
  gptvq_cuda *cuda = gptvq_cuda_of(q->backend);
  const size_t d = q->dim, blocks = q->group[group].width / d;
  const size_t shared = q->k * (d * sizeof(float) + 1) + 1024; /* and the kernel's static arrays */
  if (q->options->em_init == GPTVQ_INIT_KMEANSPP || shared > cuda->device->shared_bytes ||
      q->shape.group_rows * blocks > (size_t)1 << 30)
    return gptvq_vq_codebooks(q, group, err);
  points p = {.q = q,
              .group = group,
              .live = gptvq_alloc(blocks, sizeof *p.live),
              .column = gptvq_alloc(blocks, d * sizeof *p.column),
              .t = gptvq_alloc(blocks, d * d * sizeof *p.t),
              .centroids = gptvq_alloc(q->stripes, q->k * d * sizeof *p.centroids)};
  gptvq_status status;
  if (p.live == NULL || p.column == NULL || p.t == NULL || p.centroids == NULL) {
    status = gptvq_fail_memory(err, "k-means on a device", q->stripes * q->k * d * sizeof *p.centroids);
  } else {
    describe_points(&p);
    if (q->scale_block) gptvq_parallel_for(q->stripes, 1, scale_stripes, &p);
    status = cluster(cuda, &p, err);
  }
  free(p.live);
  free(p.column);
  free(p.t);
  free(p.centroids);
  return status;
}
