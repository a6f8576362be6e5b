/* Coordinate descent over the assignments under the full Hessian: each sub-vector moves to the centroid that
 * is best while all others stay. */
#include "base/memory.h"
#include "base/threads.h"
#include "quant/layer/beam.h"
#include "quant/layer/layer.h"
#include "quant/layer/lookup.h"
#include "quant/layer/sweep.h"

#include <string.h>

typedef struct sweep {
  gptvq_vq *q;
  size_t group;
  gptvq_span batch; /* columns whose gradients are kept up to date at once; the others' afterwards */
  float *tables;    /* per thread: those of the batch's sub-vectors, [dim][padded k] each */
  size_t table_floats;
  double *gain; /* [stripes] */
} sweep;

static void sweep_stripes(void *context, size_t begin, size_t end, size_t thread) {
  sweep *s = context;
  gptvq_vq *q = s->q;
  const size_t d = q->dim, n = q->padded, first = s->batch.begin / d, columns = s->batch.end - s->batch.begin;
  gptvq_sweep_batch batch = {.dim = q->dim,
                             .k = q->k,
                             .padded = gptvq_round_up(q->k, GPTVQ_LOOKUP_LANES),
                             .blocks = columns / d,
                             .metric = q->factor->metric_h + first * d * d,
                             .h = q->factor->h + s->batch.begin * n + s->batch.begin,
                             .stride = n,
                             .table = s->tables + thread * s->table_floats};
  for (size_t stripe = begin; stripe < end; stripe++) {
    batch.book = gptvq_vq_codebook(q, stripe, s->group);
    GPTVQ_MULTI_PICK(gptvq_sweep_prepare)(&batch);
    for (size_t row = gptvq_stripe_begin(q, stripe); row < gptvq_stripe_end(q, stripe); row++) {
      float gradient[GPTVQ_BATCH], scale[GPTVQ_BATCH], change[GPTVQ_BATCH];
      memcpy(gradient, q->error + row * n + s->batch.begin, columns * sizeof *gradient);
      for (size_t b = 0; b < batch.blocks; b++) scale[b] = gptvq_vq_scale(q, row, first + b);
      s->gain[stripe] += GPTVQ_MULTI_PICK(gptvq_sweep_row)(&batch, gradient, scale,
                                                           q->index + row * q->blocks + first, change);
      gptvq_vq_follow(q, row, s->batch, change);
    }
  }
}

static void take(gptvq_arena *arena, sweep *s) {
  s->table_floats = gptvq_batch_table_floats(s->q->dim, gptvq_round_up(s->q->k, GPTVQ_LOOKUP_LANES));
  s->tables = gptvq_arena_take(arena, gptvq_thread_count(), s->table_floats * sizeof *s->tables);
  s->gain = gptvq_arena_take_zero(arena, s->q->stripes, sizeof *s->gain);
}

size_t gptvq_vq_reassign_bytes(const gptvq_vq *q) {
  gptvq_arena counting = {0};
  sweep s = {.q = (gptvq_vq *)(uintptr_t)q};
  take(&counting, &s);
  return counting.peak;
}

gptvq_status gptvq_vq_reassign(gptvq_vq *q, double *gain, gptvq_error *err) {
  const size_t mark = q->arena->used;
  sweep s = {.q = q};
  take(q->arena, &s);
  GPTVQ_TRY(gptvq_arena_check(q->arena, "re-assignment", err));
  GPTVQ_TRY(gptvq_vq_gradient(q, err));
  for (s.group = 0; s.group < q->groups; s.group++) {
    const size_t stop = q->group[s.group].start + q->group[s.group].width;
    for (size_t begin = q->group[s.group].start; begin < stop; begin = s.batch.end) {
      s.batch = (gptvq_span){begin, gptvq_min_size(stop, begin + GPTVQ_BATCH)};
      gptvq_parallel_for(q->stripes, 1, sweep_stripes, &s);
    }
  }
  GPTVQ_TRY(gptvq_vq_total(q, s.gain, gain, err));
  gptvq_arena_return(q->arena, mark);
  return GPTVQ_OK;
}
