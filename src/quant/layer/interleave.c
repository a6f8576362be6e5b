/* The GPTVQ loop: group by group a codebook, sub-vector by sub-vector nearest centroid and error feedback. */
#include "base/memory.h"
#include "base/threads.h"
#include "linalg/rows_product.h"
#include "quant/layer/beam.h"
#include "quant/layer/layer.h"
#include "quant/layer/lookup.h"

#include <math.h>
#include <string.h>

typedef struct loop {
  gptvq_vq *q;
  size_t group; /* its place in q->group */
  gptvq_span batch;
  uint32_t *live; /* [live_count] the group's sub-vectors that its codebooks are made from */
  size_t live_count;
  float *feedback; /* of the batch */
  char *scratch;   /* per thread */
  size_t thread_bytes, first_bytes;
} loop;

static bool has_feedback(const gptvq_vq *q) { return q->options->feedback && q->factor != NULL; }

static size_t lanes_of(size_t blocks) { return gptvq_round_up(blocks, GPTVQ_LOOKUP_LANES); }

size_t gptvq_vq_live_blocks(const gptvq_vq *q, const gptvq_group *group, uint32_t *live) {
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

/* A thread's memory for the codebooks of a stripe. */
typedef struct points_memory {
  float *x, *t, *weight, *centroids; /* see gptvq_em_points */
} points_memory;

static void take_points(gptvq_arena *arena, const gptvq_vq *q, size_t lanes, points_memory *m) {
  size_t d = q->dim, rows = q->shape.group_rows;
  m->x = gptvq_arena_take(arena, rows, d * lanes * sizeof *m->x);
  m->t = gptvq_arena_take(arena, d * d, lanes * sizeof *m->t);
  m->weight = gptvq_arena_take(arena, rows, lanes * sizeof *m->weight);
  m->centroids = gptvq_arena_take(arena, q->k, d * sizeof *m->centroids);
}

/* Codebooks of stripes [begin, end) of the group from the compensated weights */
static void make_codebooks(void *context, size_t begin, size_t end, size_t thread) {
  const loop *l = context;
  gptvq_vq *q = l->q;
  size_t d = q->dim, blocks = l->live_count, lanes = lanes_of(blocks);
  gptvq_arena own = gptvq_arena_over(l->scratch + thread * l->thread_bytes, l->thread_bytes);
  points_memory memory;
  take_points(&own, q, lanes, &memory);
  float *x = memory.x, *t = memory.t, *weight = memory.weight, *centroids = memory.centroids;
  for (size_t stripe = begin; stripe < end; stripe++) {
    size_t row_begin = gptvq_stripe_begin(q, stripe), row_end = gptvq_stripe_end(q, stripe);
    gptvq_em_points points = {row_end - row_begin,           blocks, lanes, q->dim, x, t,
                              q->scale_block ? weight : NULL};
    if (q->scale_block) gptvq_vq_scale_group(q, &q->group[l->group], row_begin, row_end);
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
             q->options->seed +
                 0x9e3779b97f4a7c15u *
                     ((q->first_row / q->shape.group_rows + stripe) * q->groups + l->group + 1),
             centroids, NULL, &own);
    gptvq_vq_store_codebook(q, stripe * q->groups + l->group, centroids);
  }
}

static void take_codebooks(gptvq_arena *arena, loop *l) {
  const gptvq_vq *q = l->q;
  size_t widest = gptvq_ceil_div(gptvq_packed_width(&q->shape, 0), q->dim);
  const gptvq_em_points points = {
      .rows = q->shape.group_rows, .blocks = widest, .lanes = lanes_of(widest), .dim = q->dim};
  gptvq_arena counting = {0};
  take_points(&counting, q, points.lanes, &(points_memory){0});
  l->thread_bytes = gptvq_saturated_sum(counting.peak, gptvq_em_bytes(&points, q->k));
  l->scratch = gptvq_arena_take(arena, gptvq_thread_count(), l->thread_bytes);
  l->live = gptvq_arena_take(arena, widest, sizeof *l->live);
}

gptvq_status gptvq_vq_codebooks(gptvq_vq *q, size_t group, gptvq_error *err) {
  if (q->step_bits > 0) return gptvq_trellis_tables(q, group, err);
  loop l = {.q = q, .group = group};
  size_t mark = q->arena->used;
  take_codebooks(q->arena, &l);
  GPTVQ_TRY(gptvq_arena_check(q->arena, "k-means", err));
  l.live_count = gptvq_vq_live_blocks(q, &q->group[group], l.live);
  gptvq_parallel_for(q->stripes, 1, make_codebooks, &l);
  gptvq_arena_return(q->arena, mark);
  return GPTVQ_OK;
}

/* Assigns the batch's columns in stripes [begin, end), feedback inside the batch */
static void assign_batch(void *context, size_t begin, size_t end, size_t thread) {
  const loop *l = context;
  gptvq_vq *q = l->q;
  size_t d = q->dim, n = q->padded, first = l->batch.begin / d;
  char *scratch = l->scratch + thread * l->thread_bytes;
  gptvq_batch batch = {.dim = q->dim,
                       .k = q->k,
                       .padded = gptvq_round_up(q->k, GPTVQ_LOOKUP_LANES),
                       .width = q->beam,
                       .blocks = (l->batch.end - l->batch.begin) / d,
                       .lookup = q->lookup + first * d * d,
                       .metric = q->metric + first * d * d,
                       .feedback = has_feedback(q) ? l->feedback : NULL,
                       .table = (float *)(void *)(scratch + l->first_bytes),
                       .scratch = scratch};
  for (size_t stripe = begin; stripe < end; stripe++) {
    batch.book = gptvq_vq_codebook(q, stripe, l->group);
    GPTVQ_MULTI_PICK(gptvq_batch_prepare)(&batch);
    size_t row_end = gptvq_stripe_end(q, stripe), count;
    for (size_t row = gptvq_stripe_begin(q, stripe); row < row_end; row += count) {
      gptvq_batch_row rows[GPTVQ_BATCH_ROWS];
      float scale[GPTVQ_BATCH_ROWS][GPTVQ_BATCH];
      count = gptvq_min_size(GPTVQ_BATCH_ROWS, row_end - row);
      for (size_t i = 0; i < count; i++) {
        for (size_t b = 0; b < batch.blocks; b++) scale[i][b] = gptvq_vq_scale(q, row + i, first + b);
        rows[i] = (gptvq_batch_row){
            .w = q->work + (row + i) * n + l->batch.begin,
            .scale = scale[i],
            .index = q->index + (row + i) * q->blocks + first,
            .error = batch.feedback != NULL ? q->error + (row + i) * n + l->batch.begin : NULL};
      }
      GPTVQ_MULTI_PICK(gptvq_batch_assign)(&batch, count, rows);
    }
  }
}

static void take_assign(gptvq_arena *arena, loop *l) {
  const gptvq_vq *q = l->q;
  size_t padded = gptvq_round_up(q->k, GPTVQ_LOOKUP_LANES);
  l->first_bytes = gptvq_round_up(GPTVQ_MULTI_PICK(gptvq_beam_scratch)(padded, q->beam), 64);
  l->thread_bytes =
      gptvq_round_up(l->first_bytes + gptvq_batch_table_floats(q->dim, padded) * sizeof(float), 64);
  l->scratch = gptvq_arena_take(arena, gptvq_thread_count(), l->thread_bytes);
  l->feedback = gptvq_arena_take(arena, GPTVQ_BATCH_FEEDBACK, sizeof *l->feedback);
}

gptvq_status gptvq_vq_assign(gptvq_vq *q, size_t group, gptvq_span batch, gptvq_error *err) {
  if (q->step_bits > 0) return gptvq_trellis_assign(q, batch, err);
  loop l = {.q = q, .group = group, .batch = batch};
  size_t mark = q->arena->used;
  take_assign(q->arena, &l);
  GPTVQ_TRY(gptvq_arena_check(q->arena, "the assignment", err));
  if (has_feedback(q))
    gptvq_batch_feedback(q->dim, batch.end - batch.begin,
                         q->factor->u + batch.begin * q->padded + batch.begin, q->padded, l.feedback);
  gptvq_parallel_for(q->stripes, 1, assign_batch, &l);
  gptvq_arena_return(q->arena, mark);
  return GPTVQ_OK;
}

gptvq_status gptvq_feed_back(const gptvq_backend *backend, const gptvq_factor *factor, size_t rows,
                             gptvq_span from, gptvq_span to, const float *error, float *work,
                             gptvq_error *err) {
  (void)backend;
  (void)err;
  size_t n = factor->padded;
  gptvq_rows_product(true, rows, to.end - to.begin, from.end - from.begin, error + from.begin, n,
                     factor->u + from.begin * n + to.begin, n, work + to.begin, n);
  return GPTVQ_OK;
}

static gptvq_status feed_back(gptvq_vq *q, gptvq_span from, gptvq_span to, gptvq_error *err) {
  if (!has_feedback(q) || from.begin == from.end) return GPTVQ_OK;
  gptvq_stage_count(q->stages, GPTVQ_IN_FP32,
                    2.0 * (double)(q->rows * (from.end - from.begin) * (to.end - to.begin)));
  return q->backend->feedback(q->backend, q->factor, q->rows, from, to, q->error, q->work, err);
}

size_t gptvq_vq_interleave_bytes(const gptvq_vq *q) {
  if (q->step_bits > 0) return gptvq_trellis_loop_bytes(q);
  gptvq_arena making = {0}, assigning = {0};
  loop l = {.q = (gptvq_vq *)(uintptr_t)q};
  take_codebooks(&making, &l);
  take_assign(&assigning, &l);
  return gptvq_max_size(making.peak, assigning.peak);
}

gptvq_status gptvq_vq_interleave(gptvq_vq *q, gptvq_error *err) {
  memcpy(q->work, q->target, q->rows * q->padded * sizeof *q->work);
  for (size_t g = 0; g < q->groups; g++) {
    const gptvq_span group = {q->group[g].start, q->group[g].start + q->group[g].width};
    GPTVQ_TRY(feed_back(q, (gptvq_span){0, group.begin}, group, err));
    gptvq_stage before = gptvq_stage_enter(q->stages, GPTVQ_STAGE_KMEANS);
    GPTVQ_TRY(q->backend->codebooks(q, g, err));
    (void)gptvq_stage_enter(q->stages, before);
    for (gptvq_span batch = {group.begin, 0}; batch.begin < group.end; batch.begin = batch.end) {
      batch.end = gptvq_min_size(group.end, batch.begin + GPTVQ_BATCH);
      GPTVQ_TRY(feed_back(q, (gptvq_span){group.begin, batch.begin}, batch, err));
      GPTVQ_TRY(q->backend->assign(q, g, batch, err));
    }
  }
  return GPTVQ_OK;
}
