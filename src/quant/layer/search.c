/* Re-assignment of whole batches: with all other columns fixed, the columns of a batch are a closest-point
 * problem in the metric H_BB, searched with the beam of the GPTVQ loop. Escapes where single sub-vectors
 * cannot move. */
#include "base/memory.h"
#include "base/threads.h"
#include "linalg/rows_product.h"
#include "quant/layer/beam.h"
#include "linalg/solve/cholesky.h"
#include "quant/layer/layer.h"
#include "quant/layer/lookup.h"
#include "quant/layer/trellis.h"

#include <math.h>
#include <string.h>

#define LEAST_RIDGE 1e-6 /* dead columns have none of their own */

typedef struct search {
  gptvq_vq *q;
  size_t group, begin, end; /* columns of the batch */
  gptvq_batch_factor of;
  float *target; /* [rows × columns] where the batch would be best: decoded + gradient H_BB⁻¹ */
  gptvq_trellis_columns columns;
  float *feedback; /* of vectors, of the batch */
  char *memory;    /* per thread: beam scratch, then table; of a trellis: scratch of a path */
  size_t memory_bytes, beam_bytes;
  double *gain; /* [units] */
} search;

/* U, T and the inverse of H_BB + ridge */
bool gptvq_batch_factor_make(const gptvq_vq *q, gptvq_span batch, const gptvq_batch_factor *s) {
  const gptvq_factor *f = q->factor;
  size_t m = batch.end - batch.begin, n = f->padded, d = q->dim;
  for (size_t i = 0; i < m; i++) /* reversed, as in factor.c */
    for (size_t j = 0; j <= i; j++) {
      size_t r = batch.end - 1 - i, c = batch.end - 1 - j;
      s->a[i * m + j] =
          (double)f->h[r * n + c] + (i == j ? fmax(gptvq_factor_ridge(f, r), LEAST_RIDGE) : 0.0);
    }
  if (!gptvq_cholesky(m, s->a)) return false;
  gptvq_invert_lower(m, s->a, s->scratch);
  for (size_t i = 0; i < m; i++)
    for (size_t j = 0; j < m; j++)
      s->u[i * m + j] = j < i ? 0.0f : (float)s->a[(m - 1 - i) * m + (m - 1 - j)];
  for (size_t b = 0; b < m / d; b++) {
    double u[16], t[16];
    for (size_t i = 0; i < d; i++)
      for (size_t j = 0; j < d; j++)
        u[i * d + j] = j < i ? 0.0 : s->a[(m - 1 - b * d - i) * m + (m - 1 - b * d - j)];
    gptvq_invert_upper(d, u, t);
    for (size_t i = 0; i < d * d; i++) s->metric[b * d * d + i] = (float)t[i];
  }
  for (size_t i = 0; i < m; i++)
    for (size_t j = i; j < m; j++) {
      double sum = 0.0;
      for (size_t k = 0; k <= i; k++) sum += (double)s->u[k * m + i] * (double)s->u[k * m + j];
      s->inverse[i * m + j] = s->inverse[j * m + i] = (float)sum;
    }
  return true;
}

/* Rows [row, row + count) of a stripe */
static void search_together(search *s, const gptvq_batch *batch, size_t stripe, size_t row, size_t count) {
  gptvq_vq *q = s->q;
  const size_t d = q->dim, m = s->end - s->begin, first = s->begin / d;
  float scale[GPTVQ_BATCH_ROWS][GPTVQ_BATCH], now[GPTVQ_BATCH_ROWS][GPTVQ_BATCH],
      error[GPTVQ_BATCH_ROWS][GPTVQ_BATCH], *step = s->target + row * m;
  const float *gradient = q->error + row * q->padded + s->begin;
  uint16_t found[GPTVQ_BATCH_ROWS][GPTVQ_BATCH];
  double loss[GPTVQ_BATCH_ROWS] = {0.0};
  gptvq_batch_row rows[GPTVQ_BATCH_ROWS];
  for (size_t c = 0; c < m; c++)
    for (size_t i = 0; i < count; i++)
      loss[i] += (double)step[i * m + c] * (double)gradient[i * q->padded + c];
  for (size_t i = 0; i < count; i++) {
    const uint16_t *index = q->index + (row + i) * q->blocks + first;
    for (size_t b = 0; b < batch->blocks; b++) {
      scale[i][b] = gptvq_vq_scale(q, row + i, first + b);
      for (size_t j = 0; j < d; j++) now[i][b * d + j] = batch->book[index[b] * d + j] * scale[i][b];
    }
    for (size_t c = 0; c < m; c++) step[i * m + c] += now[i][c];
    rows[i] = (gptvq_batch_row){.w = step + i * m, .scale = scale[i], .index = found[i], .error = error[i]};
  }
  GPTVQ_MULTI_PICK(gptvq_batch_assign)(batch, count, rows);
  for (size_t i = 0; i < count; i++) {
    if (!(rows[i].loss < loss[i] * (1.0 - 1e-5))) continue;
    s->gain[stripe] += loss[i] - rows[i].loss;
    for (size_t b = 0; b < batch->blocks; b++)
      for (size_t j = 0; j < d; j++)
        now[i][b * d + j] = batch->book[found[i][b] * d + j] * scale[i][b] - now[i][b * d + j];
    gptvq_vq_follow(q, row + i, (gptvq_span){s->begin, s->end}, now[i]);
    memcpy(q->index + (row + i) * q->blocks + first, found[i], batch->blocks * sizeof *found[i]);
  }
}

static void search_stripes(void *context, size_t begin, size_t end, size_t thread) {
  search *s = context;
  gptvq_vq *q = s->q;
  char *memory = s->memory + thread * s->memory_bytes;
  gptvq_batch batch = {.dim = q->dim,
                       .k = q->k,
                       .padded = gptvq_round_up(q->k, GPTVQ_LOOKUP_LANES),
                       .width = q->beam,
                       .blocks = (s->end - s->begin) / q->dim,
                       .lookup = s->of.metric,
                       .metric = s->of.metric,
                       .feedback = s->feedback,
                       .table = (float *)(void *)(memory + s->beam_bytes),
                       .scratch = memory};
  for (size_t stripe = begin; stripe < end; stripe++) {
    batch.book = gptvq_vq_codebook(q, stripe, s->group);
    GPTVQ_MULTI_PICK(gptvq_batch_prepare)(&batch);
    const size_t row_end = gptvq_stripe_end(q, stripe);
    for (size_t row = gptvq_stripe_begin(q, stripe), count; row < row_end; row += count) {
      count = gptvq_min_size(GPTVQ_BATCH_ROWS, row_end - row);
      search_together(s, &batch, stripe, row, count);
    }
  }
}

/* Of a trellis: both ends of the batch's part of a path stay. */
static void search_rows(void *context, size_t begin, size_t end, size_t thread) {
  search *s = context;
  gptvq_vq *q = s->q;
  size_t n = q->padded, m = s->end - s->begin;
  float scale[GPTVQ_BATCH], now[GPTVQ_BATCH], error[GPTVQ_BATCH];
  uint16_t found[GPTVQ_BATCH];
  gptvq_path path = {.step_bits = q->step_bits,
                     .columns = m,
                     .width = q->beam,
                     .table = s->columns.table,
                     .scale = scale,
                     .lookup = s->of.metric,
                     .metric = s->of.metric,
                     .u = s->of.u,
                     .u_stride = m};
  for (size_t row = begin; row < end; row++) {
    float *step = s->target + row * m;
    const float *gradient = q->error + row * n + s->begin;
    uint16_t *index = q->index + row * q->blocks + s->begin;
    double loss = 0.0;
    for (size_t c = 0; c < m; c++) {
      scale[c] = gptvq_vq_scale(q, row, s->begin + c);
      now[c] = path.table[c][index[c]] * scale[c];
      loss += (double)step[c] * (double)gradient[c];
      step[c] += now[c];
    }
    path.start = gptvq_trellis_prefix(q, row, s->begin);
    path.end = s->end == n ? -1 : gptvq_trellis_prefix(q, row, s->end);
    double least =
        GPTVQ_MULTI_PICK(gptvq_find_path)(&path, step, found, error, s->memory + thread * s->memory_bytes);
    if (!(least < loss * (1.0 - 1e-5))) continue;
    s->gain[row] += loss - least;
    for (size_t c = 0; c < m; c++) now[c] = path.table[c][found[c]] * scale[c] - now[c];
    gptvq_vq_follow(q, row, (gptvq_span){s->begin, s->end}, now);
    memcpy(index, found, m * sizeof *index);
  }
}

void gptvq_batch_factor_take(gptvq_arena *arena, const gptvq_vq *q, gptvq_batch_factor *out) {
  enum { B = GPTVQ_BATCH };
  out->metric = gptvq_arena_take(arena, B * q->dim, sizeof *out->metric);
  out->u = gptvq_arena_take(arena, B * B, sizeof *out->u);
  out->inverse = gptvq_arena_take(arena, B * B, sizeof *out->inverse);
  out->a = gptvq_arena_take(arena, B * B, sizeof *out->a);
  out->scratch = gptvq_arena_take(arena, B * B, sizeof *out->scratch);
}

static void take(gptvq_arena *arena, search *s) {
  enum { B = GPTVQ_BATCH };
  const gptvq_vq *q = s->q;
  size_t padded = gptvq_round_up(q->k, GPTVQ_LOOKUP_LANES);
  s->beam_bytes = gptvq_round_up(GPTVQ_MULTI_PICK(gptvq_beam_scratch)(padded, q->beam), 64);
  s->memory_bytes =
      gptvq_round_up(s->beam_bytes + gptvq_batch_table_floats(q->dim, padded) * sizeof(float), 64);
  if (q->step_bits > 0) s->memory_bytes = gptvq_trellis_path_bytes(q);
  gptvq_batch_factor_take(arena, q, &s->of);
  s->target = gptvq_arena_take(arena, q->rows, B * sizeof *s->target);
  s->feedback = gptvq_arena_take(arena, q->step_bits > 0 ? 0 : GPTVQ_BATCH_FEEDBACK, sizeof *s->feedback);
  s->memory = gptvq_arena_take(arena, gptvq_thread_count(), s->memory_bytes);
  s->gain = gptvq_arena_take_zero(arena, q->units, sizeof *s->gain);
}

size_t gptvq_vq_search_bytes(const gptvq_vq *q) {
  gptvq_arena counting = {0};
  search s = {.q = (gptvq_vq *)(uintptr_t)q};
  take(&counting, &s);
  return counting.peak;
}

static void search_batch(search *s) {
  gptvq_vq *q = s->q;
  size_t n = q->padded, m = s->end - s->begin;
  if (!gptvq_batch_factor_make(q, (gptvq_span){s->begin, s->end}, &s->of)) return;
  gptvq_rows_product(false, q->rows, m, m, q->error + s->begin, n, s->of.inverse, m, s->target, m);
  if (q->step_bits > 0) {
    gptvq_trellis_set_columns(q, (gptvq_span){s->begin, s->end}, &s->columns);
    gptvq_parallel_for(q->rows, 4, search_rows, s);
  } else {
    gptvq_batch_feedback(q->dim, m, s->of.u, m, s->feedback);
    gptvq_parallel_for(q->stripes, 1, search_stripes, s);
  }
}

size_t gptvq_trellis_search_end(const gptvq_vq *q, size_t begin) {
  const size_t shift = q->searches % 2 == 1 && begin == 0 ? GPTVQ_BATCH / 2 : 0;
  return gptvq_min_size(q->padded, begin + GPTVQ_BATCH - shift);
}

gptvq_status gptvq_vq_search(gptvq_vq *q, double *gain, gptvq_error *err) {
  size_t mark = q->arena->used;
  search s = {.q = q};
  take(q->arena, &s);
  GPTVQ_TRY(gptvq_arena_check(q->arena, "re-assignment", err));
  GPTVQ_TRY(gptvq_vq_gradient(q, err));
  if (q->step_bits > 0) {
    for (s.begin = 0; s.begin < q->padded; s.begin = s.end) {
      s.end = gptvq_trellis_search_end(q, s.begin);
      search_batch(&s);
    }
    q->searches++;
  } else {
    for (s.group = 0; s.group < q->groups; s.group++) {
      size_t stop = q->group[s.group].start + q->group[s.group].width;
      for (s.begin = q->group[s.group].start; s.begin < stop; s.begin = s.end) {
        s.end = gptvq_min_size(stop, s.begin + GPTVQ_BATCH);
        search_batch(&s);
      }
    }
  }
  GPTVQ_TRY(gptvq_vq_total(q, s.gain, gain, err));
  gptvq_arena_return(q->arena, mark);
  return GPTVQ_OK;
}
