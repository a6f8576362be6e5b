/* Coordinate descent over the assignments under the full Hessian: each sub-vector moves to the centroid that
 * is best while all others stay. */
#include "base/memory.h"
#include "base/threads.h"
#include "linalg/rows_product.h"
#include "quant/layer/layer.h"
#include "quant/layer/lookup.h"

#include <math.h>
#include <string.h>

enum { BATCH = 128 }; /* columns whose gradients are kept up to date together; a multiple of 4 */

typedef struct sweep {
  gptvq_vq *q;
  size_t group, begin, end; /* columns of the batch */
  float *tables;            /* per thread: dim · padded k */
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

/* One stripe, one batch. error[row][0 … end − begin) = gradient E (H + ridge) of the batch's columns, stride
 * padded. */
static void sweep_stripe(sweep *s, size_t stripe, float *table) {
  gptvq_vq *q = s->q;
  const gptvq_factor *f = q->factor;
  size_t d = q->dim, k = q->k, padded = gptvq_round_up(k, GPTVQ_LOOKUP_LANES), n = q->padded;
  const float *book = gptvq_vq_codebook(q, stripe, s->group);
  size_t row_begin = gptvq_stripe_begin(q, stripe), row_end = gptvq_stripe_end(q, stripe);
  for (size_t b = s->begin / d; b < s->end / d; b++) {
    const double *r = f->metric_h + b * d * d;
    for (size_t j = 0; j < d; j++)
      for (size_t m = 0; m < k; m++) {
        double sum = 0.0;
        for (size_t i = 0; i <= j; i++) sum += (double)book[m * d + i] * r[i * d + j];
        table[j * padded + m] = (float)sum;
      }
    for (size_t row = row_begin; row < row_end; row++) {
      float *g = q->error + row * n + b * d - s->begin, scale = gptvq_vq_scale(q, row, b), x[4], delta[4];
      double z[4];
      uint16_t *index = q->index + row * q->blocks + b;
      solve_transposed(d, r, g, z);
      for (size_t j = 0; j < d; j++) x[j] = table[j * padded + *index] + (float)z[j] / scale;
      size_t m = GPTVQ_MULTI_PICK(gptvq_nearest)(q->dim, padded, table, x);
      if (m == *index) continue;
      double gain = distance(d, padded, table, *index, x) - distance(d, padded, table, m, x);
      if (!(gain > 0.0)) continue;
      s->gain[stripe] += gain * (double)scale * (double)scale;
      for (size_t j = 0; j < d; j++) {
        delta[j] = (book[m * d + j] - book[*index * d + j]) * scale;
        q->work[row * n + b * d + j] -= delta[j];
      }
      *index = (uint16_t)m;
      size_t next = (b + 1) * d;
      GPTVQ_MULTI_PICK(gptvq_feedback)
      (q->dim, s->end - next, delta, f->h + b * d * n + next, n, g + d, g + d);
    }
  }
}

static void sweep_stripes(void *context, size_t begin, size_t end, size_t thread) {
  sweep *s = context;
  gptvq_vq *q = s->q;
  float *table = s->tables + thread * s->table_floats;
  for (size_t i = 0; i < s->table_floats; i++) table[i] = INFINITY;
  for (size_t stripe = begin; stripe < end; stripe++) {
    size_t row_end = gptvq_stripe_end(q, stripe);
    for (size_t row = gptvq_stripe_begin(q, stripe); row < row_end; row++)
      for (size_t c = s->begin; c < s->end; c++)
        q->error[row * q->padded + c - s->begin] +=
            (float)gptvq_factor_ridge(q->factor, c) * q->work[row * q->padded + c];
    sweep_stripe(s, stripe, table);
  }
}

static void take(gptvq_arena *arena, sweep *s) {
  s->table_floats = s->q->dim * gptvq_round_up(s->q->k, GPTVQ_LOOKUP_LANES);
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
  size_t n = q->padded, mark = q->arena->used;
  sweep s = {.q = q};
  take(q->arena, &s);
  GPTVQ_TRY(gptvq_arena_check(q->arena, "re-assignment", err));
  gptvq_vq_residual(q);
  for (s.group = 0; s.group < q->groups; s.group++) {
    size_t stop = q->group[s.group].start + q->group[s.group].width;
    for (s.begin = q->group[s.group].start; s.begin < stop; s.begin = s.end) {
      s.end = gptvq_min_size(stop, s.begin + BATCH);
      gptvq_rows_product(false, q->rows, s.end - s.begin, n, q->work, n, q->factor->h + s.begin, n, q->error,
                         n);
      gptvq_parallel_for(q->stripes, 1, sweep_stripes, &s);
    }
  }
  GPTVQ_TRY(gptvq_vq_total(q, s.gain, gain, err));
  gptvq_arena_return(q->arena, mark);
  return GPTVQ_OK;
}
