/* Scales of a trellis: with tables and states fixed the layer loss is a quadratic in the scales of each row,
 * one for each group, whose system is formed and solved. With t the row's table values and H_gf the part of H
 * in the rows of group g and the columns of f, its matrix is M_gf = t_gᵀ (H + ridge)_gf t_f, its right side
 * t_gᵀ (H + ridge) w of the row's weights w, and the loss of scales s wᵀ (H + ridge) w − s (2 side − M s).
 * The tables stay as EM found them: all rows share each, so that exact ones would gain 0.05 to 0.5 %, and
 * rounding them to 8 bits costs as much. */
#include "base/memory.h"
#include "base/threads.h"
#include "linalg/rows_product.h"
#include "linalg/solve/cholesky.h"
#include "quant/layer/layer.h"

#include <string.h>

enum { SLAB = 384 }; /* rows that are worked on together */

typedef struct fit {
  gptvq_vq *q;
  size_t first;          /* of the slab, likewise what follows but for the first two */
  double *row_loss;      /* [rows] of all; wᵀ (H + ridge) w, then the loss */
  double *matrix, *work; /* [SLAB][groups²], lower triangles */
  double *slope;         /* [SLAB][groups]: the right side, then minus half the gradient */
  double *step;          /* likewise: the scales, then what leads to the least loss */
} fit;

static void take(gptvq_arena *arena, fit *f) {
  const gptvq_vq *q = f->q;
  const size_t slab = gptvq_min_size(SLAB, q->rows), square = gptvq_saturated_size(q->groups, q->groups);
  f->row_loss = gptvq_arena_take(arena, q->rows, sizeof *f->row_loss);
  f->matrix = gptvq_arena_take(arena, slab, gptvq_saturated_size(square, sizeof *f->matrix));
  f->work = gptvq_arena_take(arena, slab, gptvq_saturated_size(square, sizeof *f->work));
  f->slope = gptvq_arena_take(arena, slab, q->groups * sizeof *f->slope);
  f->step = gptvq_arena_take(arena, slab, q->groups * sizeof *f->step);
}

/* ---- the systems of a slab ---- */

typedef struct making {
  gptvq_vq *q;
  size_t first, group;              /* the group whose rows of the matrices are being made */
  double *constant, *matrix, *side; /* of the slab */
} making;

static double dot(size_t n, const float *x, const float *y) {
  double sum[4] = {0.0, 0.0, 0.0, 0.0};
  size_t i = 0;
  for (; i + 4 <= n; i += 4)
    for (size_t l = 0; l < 4; l++) sum[l] += (double)x[i + l] * (double)y[i + l];
  for (; i < n; i++) sum[0] += (double)x[i] * (double)y[i];
  return sum[0] + sum[1] + (sum[2] + sum[3]);
}

/* The rows' constants, table values and right sides. */
static void begin_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const making *m = context;
  const gptvq_vq *q = m->q;
  for (size_t i = begin; i < end; i++) {
    const size_t row = m->first + i, at = row * q->padded;
    const uint16_t *state = q->index + row * q->blocks;
    float *values = q->work + at;
    const float *product = q->target_product + at;
    m->constant[i] = 0.0;
    for (size_t c = 0; c < q->padded; c++) m->constant[i] += (double)q->target[at + c] * (double)product[c];
    for (size_t g = 0; g < q->groups; g++) {
      const float *table = gptvq_vq_state_values(q, g);
      const size_t start = q->group[g].start, width = q->group[g].width;
      for (size_t c = start; c < start + width; c++) values[c] = table[state[c]];
      m->side[i * q->groups + g] = dot(width, values + start, product + start);
    }
  }
}

/* q->error: the values of the group times its rows of H. */
static void add_group(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const making *m = context;
  const gptvq_vq *q = m->q;
  const gptvq_group *own = &q->group[m->group];
  for (size_t i = begin; i < end; i++) {
    const float *values = q->work + (m->first + i) * q->padded,
                *product = q->error + (m->first + i) * q->padded;
    double *out = m->matrix + (i * q->groups + m->group) * q->groups, ridge = 0.0;
    for (size_t g = 0; g <= m->group; g++)
      out[g] = dot(q->group[g].width, values + q->group[g].start, product + q->group[g].start);
    for (size_t c = own->start; c < own->start + own->width; c++)
      ridge += gptvq_factor_ridge(q->factor, c) * (double)values[c] * (double)values[c];
    out[m->group] += ridge;
  }
}

static gptvq_status make_systems(gptvq_vq *q, size_t first, size_t count, double *constant, double *matrix,
                                 double *side, gptvq_error *err) {
  making m = {q, first, 0, constant, matrix, side};
  const size_t n = q->padded;
  float *values = q->work + first * n, *products = q->error + first * n;
  if (!q->has_product)
    GPTVQ_TRY(q->backend->times_hessian(q, count, q->target + first * n, q->target_product + first * n, err));
  gptvq_parallel_for(count, 4, begin_rows, &m);
  for (m.group = 0; m.group < q->groups; m.group++) {
    const size_t start = q->group[m.group].start, width = q->group[m.group].width;
    gptvq_rows_product(false, count, start + width, width, values + start, n, q->factor->h + start * n, n,
                       products, n);
    gptvq_parallel_for(count, 4, add_group, &m);
  }
  return GPTVQ_OK;
}

/* ---- their solution ---- */

/* From the right side to the slope at the row's scales, which scale[groups] becomes. Returns the loss there.
 */
static double measure(const gptvq_vq *q, size_t row, const double *matrix, double constant, double *slope,
                      double *scale) {
  const size_t n = q->groups;
  double loss = constant;
  for (size_t g = 0; g < n; g++) {
    scale[g] = (double)q->scale_table[q->scale_codes[row * n + q->group[g].id]];
    loss -= scale[g] * slope[g];
  }
  for (size_t g = 0; g < n; g++) {
    for (size_t h = 0; h < g; h++) {
      slope[g] -= matrix[g * n + h] * scale[h];
      slope[h] -= matrix[g * n + h] * scale[g];
    }
    slope[g] -= matrix[g * n + g] * scale[g];
  }
  for (size_t g = 0; g < n; g++) loss -= scale[g] * slope[g];
  return loss < 0.0 ? 0.0 : loss; /* NaN stays */
}

/* The scales that lead to the least loss, rounded; taken where the loss falls. */
static void solve_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const fit *f = context;
  const gptvq_vq *q = f->q;
  const size_t n = q->groups;
  for (size_t i = begin; i < end; i++) {
    const double *matrix = f->matrix + i * n * n;
    double *slope = f->slope + i * n, *work = f->work + i * n * n, *step = f->step + i * n, gain = 0.0,
           *loss = f->row_loss + f->first + i;
    uint8_t *codes = q->scale_codes + (f->first + i) * n;
    *loss = measure(q, f->first + i, matrix, *loss, slope, step);
    memcpy(work, matrix, n * n * sizeof *work);
    memcpy(step, slope, n * sizeof *step);
    for (size_t g = 0; g < n; g++) /* a table of nothing: any scale will do */
      if (work[g * n + g] == 0.0) work[g * n + g] = 1.0;
    if (!gptvq_solve_positive(n, work, step)) continue;
    for (size_t g = 0; g < n; g++) {
      const double now = (double)q->scale_table[codes[q->group[g].id]];
      step[g] = (double)q->scale_table[gptvq_row_scale_code(now + step[g])] - now;
    }
    for (size_t g = 0; g < n; g++) {
      gain += step[g] * (2.0 * slope[g] - step[g] * matrix[g * n + g]);
      for (size_t h = 0; h < g; h++) gain -= 2.0 * step[g] * step[h] * matrix[g * n + h];
    }
    if (!(gain > 0.0)) continue;
    *loss = gain > *loss ? 0.0 : *loss - gain;
    for (size_t g = 0; g < n; g++) {
      uint8_t *code = codes + q->group[g].id;
      *code = gptvq_row_scale_code((double)q->scale_table[*code] + step[g]);
    }
  }
}

size_t gptvq_trellis_scales_bytes(const gptvq_vq *q) {
  gptvq_arena counting = {0};
  fit f = {.q = (gptvq_vq *)(uintptr_t)q};
  take(&counting, &f);
  return counting.peak;
}

gptvq_status gptvq_trellis_update_scales_by(gptvq_vq *q, gptvq_scale_systems make, double *loss,
                                            gptvq_error *err) {
  fit f = {.q = q};
  const size_t mark = q->arena->used;
  take(q->arena, &f);
  GPTVQ_TRY(gptvq_arena_check(q->arena, "the fit of row scales", err));
  q->has_gradient = false;
  for (f.first = 0; f.first < q->rows; f.first += SLAB) {
    const size_t count = gptvq_min_size(SLAB, q->rows - f.first), n = q->padded;
    if (!q->has_product) gptvq_stage_count(q->stages, GPTVQ_IN_FP32, 2.0 * (double)(count * n * n));
    for (size_t g = 0; g < q->groups; g++)
      gptvq_stage_count(q->stages, GPTVQ_IN_FP32,
                        2.0 * (double)(count * (q->group[g].start + q->group[g].width) * q->group[g].width));
    GPTVQ_TRY(make(q, f.first, count, f.row_loss + f.first, f.matrix, f.slope, err));
    gptvq_parallel_for(count, 1, solve_rows, &f);
  }
  q->has_product = true;
  gptvq_arena_return(q->arena, mark);
  return gptvq_vq_total(q, f.row_loss, loss, err);
}

gptvq_status gptvq_trellis_update_scales(gptvq_vq *q, double *loss, gptvq_error *err) {
  return gptvq_trellis_update_scales_by(q, make_systems, loss, err);
}
