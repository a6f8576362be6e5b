/* Scales of a trellis: with tables and states fixed the layer loss is a quadratic in the scales of each row,
 * one for each group, whose system is formed and solved. With t the row's table values and H_gf the part of H
 * in the rows of group g and the columns of f, its matrix is t_gᵀ (H + ridge)_gf t_f. The tables stay as EM
 * found them: all rows share each, so that exact ones would gain 0.05 to 0.5 %, and rounding them to 8 bits
 * costs as much. */
#include "base/memory.h"
#include "base/threads.h"
#include "linalg/rows_product.h"
#include "linalg/solve/cholesky.h"
#include "quant/layer/layer.h"

#include <string.h>

enum { SLAB = 384 }; /* rows that are worked on together */

typedef struct fit {
  gptvq_vq *q;
  size_t first, group;   /* the slab; the group whose rows of the matrices are being made */
  double *row_loss;      /* [rows]; afterwards what the rows gain */
  double *matrix, *work; /* [SLAB][groups²], lower triangles */
  double *slope, *step;  /* [SLAB][groups]: minus half the gradient; what leads to the least loss */
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

static double dot(size_t n, const float *x, const float *y) {
  double sum[4] = {0.0, 0.0, 0.0, 0.0};
  size_t i = 0;
  for (; i + 4 <= n; i += 4)
    for (size_t l = 0; l < 4; l++) sum[l] += (double)x[i + l] * (double)y[i + l];
  for (; i < n; i++) sum[0] += (double)x[i] * (double)y[i];
  return sum[0] + sum[1] + (sum[2] + sum[3]);
}

/* The rows' table values take the place of their errors, of which the slopes are left. */
static void begin_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const fit *f = context;
  const gptvq_vq *q = f->q;
  for (size_t i = begin; i < end; i++) {
    const size_t row = f->first + i;
    const uint16_t *state = q->index + row * q->blocks;
    float *values = q->work + row * q->padded;
    for (size_t g = 0; g < q->groups; g++) {
      const float *table = gptvq_vq_state_values(q, g);
      const size_t start = q->group[g].start, width = q->group[g].width;
      for (size_t c = start; c < start + width; c++) values[c] = table[state[c]];
      f->slope[i * q->groups + g] = dot(width, values + start, q->error + row * q->padded + start);
    }
  }
}

/* q->error: the values of the group times its rows of H. */
static void add_group(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const fit *f = context;
  const gptvq_vq *q = f->q;
  const gptvq_group *own = &q->group[f->group];
  for (size_t i = begin; i < end; i++) {
    const float *values = q->work + (f->first + i) * q->padded,
                *product = q->error + (f->first + i) * q->padded;
    double *out = f->matrix + (i * q->groups + f->group) * q->groups, ridge = 0.0;
    for (size_t g = 0; g <= f->group; g++)
      out[g] = dot(q->group[g].width, values + q->group[g].start, product + q->group[g].start);
    for (size_t c = own->start; c < own->start + own->width; c++)
      ridge += gptvq_factor_ridge(q->factor, c) * (double)values[c] * (double)values[c];
    out[f->group] += ridge;
    if (out[f->group] == 0.0) out[f->group] = 1.0; /* a table of nothing: any scale will do */
  }
}

/* The scales that lead to the least loss, rounded; taken where the loss falls. */
static void solve_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const fit *f = context;
  const gptvq_vq *q = f->q;
  const size_t n = q->groups;
  for (size_t i = begin; i < end; i++) {
    const double *matrix = f->matrix + i * n * n, *slope = f->slope + i * n;
    double *work = f->work + i * n * n, *step = f->step + i * n, gain = 0.0;
    uint8_t *codes = q->scale_codes + (f->first + i) * n;
    f->row_loss[f->first + i] = 0.0;
    memcpy(work, matrix, n * n * sizeof *work);
    memcpy(step, slope, n * sizeof *step);
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
    f->row_loss[f->first + i] = gain;
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

gptvq_status gptvq_trellis_update_scales(gptvq_vq *q, double *loss, gptvq_error *err) {
  fit f = {.q = q};
  const size_t n = q->padded, mark = q->arena->used;
  double gained;
  take(q->arena, &f);
  GPTVQ_TRY(gptvq_arena_check(q->arena, "the fit of row scales", err));
  GPTVQ_TRY(gptvq_vq_loss(q, f.row_loss, loss, err));
  for (f.first = 0; f.first < q->rows; f.first += SLAB) {
    const size_t count = gptvq_min_size(SLAB, q->rows - f.first);
    float *values = q->work + f.first * n, *products = q->error + f.first * n;
    gptvq_parallel_for(count, 4, begin_rows, &f);
    for (f.group = 0; f.group < q->groups; f.group++) {
      const size_t start = q->group[f.group].start, width = q->group[f.group].width;
      gptvq_stage_count(q->stages, 2.0 * (double)(count * (start + width) * width));
      gptvq_rows_product(false, count, start + width, width, values + start, n, q->factor->h + start * n, n,
                         products, n);
      gptvq_parallel_for(count, 4, add_group, &f);
    }
    gptvq_parallel_for(count, 1, solve_rows, &f);
  }
  GPTVQ_TRY(gptvq_vq_total(q, f.row_loss, &gained, err));
  *loss -= gained;
  gptvq_arena_return(q->arena, mark);
  return GPTVQ_OK;
}
