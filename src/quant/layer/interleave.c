/* The GPTVQ loop: group by group a codebook, sub-vector by sub-vector nearest centroid and error feedback. */
#include "base/memory.h"
#include "base/threads.h"
#include "linalg/gemm.h"
#include "quant/layer/beam.h"
#include "quant/layer/layer.h"
#include "quant/layer/lookup.h"

#include <math.h>
#include <string.h>

typedef struct loop {
  gptvq_vq *q;
  const gptvq_group *group;
  uint32_t *live; /* [live_count] the group's sub-vectors that its codebooks are made from */
  size_t live_count;
  size_t g, begin,
      end; /* group number; columns of the present batch, whose feedback among themselves is immediate */
  char *scratch; /* per thread */
  size_t scratch_bytes, points_bytes, beam_bytes;
} loop;

static size_t lanes_of(size_t blocks) { return gptvq_round_up(blocks, GPTVQ_LOOKUP_LANES); }

/* Sub-vectors of the group that count, in order: all but those of dead columns only (unless there are no
 * others). */
static size_t live_blocks(const gptvq_vq *q, const gptvq_group *group, uint32_t *live) {
  size_t d = q->dim, first = group->start / d, blocks = group->width / d, n = 0;
  for (size_t b = first; b < first + blocks; b++) {
    bool dead = true;
    for (size_t i = 0; i < d; i++) dead = dead && gptvq_factor_is_dead(q->factor, b * d + i);
    if (!dead) live[n++] = (uint32_t)b;
  }
  if (n > 0) return n;
  for (size_t b = 0; b < blocks; b++) live[b] = (uint32_t)(first + b);
  return blocks;
}

/* Codebooks of stripes [begin, end) of the group from the compensated weights */
static void make_codebooks(void *context, size_t begin, size_t end, size_t thread) {
  const loop *l = context;
  gptvq_vq *q = l->q;
  size_t d = q->dim, blocks = l->live_count, lanes = lanes_of(blocks);
  char *scratch = l->scratch + thread * l->scratch_bytes;
  float *x = (float *)(void *)scratch, *t = x + q->shape.group_rows * d * lanes, *weight = t + d * d * lanes,
        *centroids = weight + q->shape.group_rows * lanes;
  for (size_t stripe = begin; stripe < end; stripe++) {
    size_t row_begin = stripe * q->shape.group_rows,
           row_end = gptvq_min_size(q->rows, row_begin + q->shape.group_rows);
    gptvq_em_points points = {row_end - row_begin,           blocks, lanes, q->dim, x, t,
                              q->scale_block ? weight : NULL};
    if (q->scale_block) gptvq_vq_scale_group(q, l->group, row_begin, row_end);
    memset(x, 0, points.rows * d * lanes * sizeof *x);
    memset(t, 0, d * d * lanes * sizeof *t);
    for (size_t b = 0; b < blocks; b++)
      for (size_t i = 0; i < d; i++)
        for (size_t j = 0; j < d; j++)
          if (!gptvq_factor_is_dead(q->factor, l->live[b] * d + i) &&
              !gptvq_factor_is_dead(q->factor, l->live[b] * d + j))
            t[(i * d + j) * lanes + b] = q->lookup[(l->live[b] * d + i) * d + j];
    for (size_t row = row_begin; row < row_end; row++)
      for (size_t b = 0; b < blocks; b++) {
        float scale = gptvq_vq_scale(q, row, l->live[b]);
        weight[(row - row_begin) * lanes + b] = scale * scale;
        for (size_t j = 0; j < d; j++)
          if (!gptvq_factor_is_dead(q->factor, l->live[b] * d + j))
            x[((row - row_begin) * d + j) * lanes + b] =
                q->work[row * q->padded + l->live[b] * d + j] / scale;
      }
    gptvq_em(&points, q->k, q->options->em_init, q->options->em_iterations,
             q->options->seed + 0x9e3779b97f4a7c15u * (stripe * q->groups + l->g + 1), centroids, NULL,
             scratch + l->points_bytes);
    gptvq_vq_store_codebook(q, stripe * q->groups + l->g, centroids);
  }
}

/* Assigns the batch's columns in stripes [begin, end), feedback inside the batch */
static void assign_batch(void *context, size_t begin, size_t end, size_t thread) {
  const loop *l = context;
  gptvq_vq *q = l->q;
  size_t d = q->dim, n = q->padded, first = l->begin / d;
  char *scratch = l->scratch + thread * l->scratch_bytes;
  gptvq_batch batch = {.dim = q->dim,
                       .k = q->k,
                       .padded = gptvq_round_up(q->k, GPTVQ_LOOKUP_LANES),
                       .width = q->beam,
                       .blocks = (l->end - l->begin) / d,
                       .lookup = q->lookup + first * d * d,
                       .metric = q->metric + first * d * d,
                       .u_stride = n,
                       .table = (float *)(void *)(scratch + l->beam_bytes),
                       .scratch = scratch};
  if (q->options->feedback && q->factor != NULL) batch.u = q->factor->u + l->begin * n + l->begin;
  for (size_t stripe = begin; stripe < end; stripe++) {
    batch.book = gptvq_vq_codebook(q, stripe, l->g);
    gptvq_batch_prepare(&batch);
    size_t row_begin = stripe * q->shape.group_rows,
           row_end = gptvq_min_size(q->rows, row_begin + q->shape.group_rows);
    for (size_t row = row_begin; row < row_end; row++) {
      float scale[GPTVQ_BATCH];
      for (size_t b = 0; b < batch.blocks; b++) scale[b] = gptvq_vq_scale(q, row, first + b);
      (void)gptvq_batch_assign(&batch, q->work + row * n + l->begin, scale,
                               q->index + row * q->blocks + first,
                               batch.u != NULL ? q->error + row * n + l->begin : NULL);
    }
  }
}

/* work[:, begin … end) −= error[:, from … to) U[from … to, begin … end) */
static void feed_back(gptvq_vq *q, size_t from, size_t to, size_t begin, size_t end) {
  if (!q->options->feedback || q->factor == NULL || from == to) return;
  size_t n = q->padded;
  gptvq_gemm_nn(q->rows, end - begin, to - from, -1.0f, q->error + from, n, q->factor->u + from * n + begin,
                n, 1.0f, q->work + begin, n);
}

gptvq_status gptvq_vq_interleave(gptvq_vq *q, gptvq_error *err) {
  size_t widest = 0;
  for (size_t g = 0; g < q->groups; g++) widest = gptvq_max_size(widest, q->group[g].width / q->dim);
  size_t lanes = lanes_of(widest), d = q->dim, rows = q->shape.group_rows;
  size_t padded = gptvq_round_up(q->k, GPTVQ_LOOKUP_LANES);
  size_t floats = rows * d * lanes + d * d * lanes + rows * lanes + padded * d;
  loop l = {.q = q};
  l.points_bytes = gptvq_round_up(floats * sizeof(float), 64);
  l.beam_bytes = gptvq_round_up(gptvq_beam_scratch(padded, q->beam), 64);
  size_t making = l.points_bytes + gptvq_em_scratch(rows, lanes, q->dim, q->k);
  size_t assigning = l.beam_bytes + gptvq_batch_table_floats(q->dim, padded) * sizeof(float);
  l.scratch_bytes = gptvq_round_up(gptvq_max_size(making, assigning), 64);
  size_t threads = gptvq_thread_count();
  l.scratch = gptvq_alloc(threads, l.scratch_bytes);
  l.live = gptvq_alloc(widest, sizeof *l.live);
  if (l.scratch == NULL || l.live == NULL) {
    free(l.scratch);
    free(l.live);
    return gptvq_fail_memory(err, "k-means", gptvq_saturated_size(threads, l.scratch_bytes));
  }
  memcpy(q->work, q->target, q->rows * q->padded * sizeof *q->work);
  for (l.g = 0; l.g < q->groups; l.g++) {
    l.group = &q->group[l.g];
    size_t start = l.group->start, stop = start + l.group->width;
    feed_back(q, 0, start, start, stop);
    l.live_count = live_blocks(q, l.group, l.live);
    gptvq_parallel_for(q->stripes, 1, make_codebooks, &l);
    for (l.begin = start; l.begin < stop; l.begin = l.end) {
      l.end = gptvq_min_size(stop, l.begin + GPTVQ_BATCH);
      feed_back(q, start, l.begin, l.begin, l.end);
      gptvq_parallel_for(q->stripes, 1, assign_batch, &l);
    }
  }
  free(l.live);
  free(l.scratch);
  return GPTVQ_OK;
}
