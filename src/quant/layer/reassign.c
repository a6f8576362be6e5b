/* Coordinate descent over the assignments under the full Hessian: each sub-vector moves to the centroid that
 * is best while all others stay. */
#include "base/memory.h"
#include "base/threads.h"
#include "quant/layer/beam.h"
#include "quant/layer/layer.h"
#include "quant/layer/lookup.h"

#include <math.h>
#include <string.h>

typedef struct sweep {
  gptvq_vq *q;
  size_t group;
  gptvq_span batch; /* columns whose gradients are kept up to date at once; the others' afterwards */
  float *tables;    /* per thread: those of the batch's sub-vectors, [dim][padded k] each */
  size_t table_floats;
  double *gain; /* [stripes] */
} sweep;

/* z with z Rᵀ = g */
static void solve_transposed(size_t d, const double *r, const float *g, double *z) {
  for (size_t i = d; i-- > 0;) {
    z[i] = (double)g[i];
    for (size_t j = i + 1; j < d; j++) z[i] -= z[j] * r[i * d + j];
    z[i] /= r[i * d + i];
  }
}

static double distance(size_t d, size_t padded, const float *table, size_t m, const float *x) {
  double sum = 0.0;
  for (size_t j = 0; j < d; j++) {
    double delta = (double)x[j] - (double)table[j * padded + m];
    sum += delta * delta;
  }
  return sum;
}

/* tables[sub-vectors of the batch][dim][padded]: centroids of a stripe times R */
static void make_tables(const sweep *s, size_t stripe, size_t padded, float *tables) {
  const gptvq_vq *q = s->q;
  const size_t d = q->dim;
  const float *book = gptvq_vq_codebook(q, stripe, s->group);
  for (size_t b = s->batch.begin / d; b < s->batch.end / d; b++, tables += d * padded) {
    const double *r = q->factor->metric_h + b * d * d;
    for (size_t j = 0; j < d; j++)
      for (size_t m = 0; m < q->k; m++) {
        double sum = 0.0;
        for (size_t i = 0; i <= j; i++) sum += (double)book[m * d + i] * r[i * d + j];
        tables[j * padded + m] = (float)sum;
      }
  }
}

/* Returns what the loss falls by. */
static double sweep_row(const sweep *s, size_t row, const float *book, size_t padded, const float *table) {
  gptvq_vq *q = s->q;
  const gptvq_factor *f = q->factor;
  const size_t d = q->dim, n = q->padded, begin = s->batch.begin, end = s->batch.end;
  float gradient[GPTVQ_BATCH], change[GPTVQ_BATCH] = {0};
  double gained = 0.0;
  memcpy(gradient, q->error + row * n + begin, (end - begin) * sizeof *gradient);
  for (size_t c = begin; c < end; c += d, table += d * padded) {
    const size_t b = c / d, next = c + d;
    float *g = gradient + c - begin, *delta = change + c - begin, scale = gptvq_vq_scale(q, row, b), x[4];
    double z[4];
    uint16_t *index = q->index + row * q->blocks + b;
    solve_transposed(d, f->metric_h + b * d * d, g, z);
    for (size_t j = 0; j < d; j++) x[j] = table[j * padded + *index] + (float)z[j] / scale;
    size_t m = GPTVQ_MULTI_PICK(gptvq_nearest)(q->dim, padded, table, x);
    if (m == *index) continue;
    double gain = distance(d, padded, table, *index, x) - distance(d, padded, table, m, x);
    if (!(gain > 0.0)) continue;
    gained += gain * (double)scale * (double)scale;
    for (size_t j = 0; j < d; j++) delta[j] = (book[m * d + j] - book[*index * d + j]) * scale;
    *index = (uint16_t)m;
    GPTVQ_MULTI_PICK(gptvq_feedback)
    (q->dim, end - next, delta, f->h + c * n + next, n, g + d, g + d);
  }
  gptvq_vq_follow(q, row, s->batch, change);
  return gained;
}

static void sweep_stripes(void *context, size_t begin, size_t end, size_t thread) {
  sweep *s = context;
  const gptvq_vq *q = s->q;
  const size_t padded = gptvq_round_up(q->k, GPTVQ_LOOKUP_LANES);
  float *tables = s->tables + thread * s->table_floats;
  for (size_t i = 0; i < s->table_floats; i++) tables[i] = INFINITY;
  for (size_t stripe = begin; stripe < end; stripe++) {
    make_tables(s, stripe, padded, tables);
    for (size_t row = gptvq_stripe_begin(q, stripe); row < gptvq_stripe_end(q, stripe); row++)
      s->gain[stripe] += sweep_row(s, row, gptvq_vq_codebook(q, stripe, s->group), padded, tables);
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
