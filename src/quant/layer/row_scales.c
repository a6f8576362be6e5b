/* Scales of a trellis by conjugate gradients: with tables and states fixed the layer loss is a quadratic in
 * the scales of each row. */
#include "base/memory.h"
#include "base/threads.h"
#include "linalg/solve/cg.h"
#include "quant/layer/layer.h"

#include <string.h>

enum { MAX_STEPS = 30 };
#define REMAINING 3e-4 /* of a row's loss, as for codebooks */

/* The systems are the rows. */
typedef struct fit {
  gptvq_vq *q;
  double *row_loss, *row_after; /* [rows] */
  uint8_t *saved;               /* [rows × groups] */
  gptvq_cg cg;
} fit;

static void take(gptvq_arena *arena, fit *f) {
  const gptvq_vq *q = f->q;
  f->row_loss = gptvq_arena_take(arena, q->rows, sizeof *f->row_loss);
  f->row_after = gptvq_arena_take(arena, q->rows, sizeof *f->row_after);
  f->saved = gptvq_arena_take(arena, q->rows, q->groups);
  gptvq_cg_take(&f->cg, arena);
}

/* out[groups] = Σ over the columns of a group of y · table value */
static void gather_row(const gptvq_vq *q, size_t row, const float *y, double *out) {
  const uint16_t *state = q->index + row * q->blocks;
  for (size_t g = 0; g < q->groups; g++) {
    const float *table = gptvq_vq_state_values(q, g);
    double sum = 0.0;
    for (size_t c = q->group[g].start; c < q->group[g].start + q->group[g].width; c++)
      sum += (double)table[state[c]] * (double)y[c];
    out[g] = sum;
  }
}

/* Rows that are at work lie side by side in q->work and q->error. */
static void gather_active(const gptvq_cg *s, size_t row, size_t slot, double *out) {
  const fit *f = s->context;
  gather_row(f->q, row, f->q->error + slot * f->q->padded, out);
}

static void prepare(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const fit *f = context;
  const gptvq_vq *q = f->q;
  for (size_t row = begin; row < end; row++) {
    const uint16_t *state = q->index + row * q->blocks;
    gather_row(q, row, q->error + row * q->padded, f->cg.residual + row * q->groups);
    f->cg.enough[row] = REMAINING * f->row_loss[row];
    for (size_t g = 0; g < q->groups; g++) {
      const float *table = gptvq_vq_state_values(q, g);
      double sum = 0.0;
      for (size_t c = q->group[g].start; c < q->group[g].start + q->group[g].width; c++)
        sum += ((double)q->factor->h[c * q->padded + c] + gptvq_factor_ridge(q->factor, c)) *
               (double)table[state[c]] * (double)table[state[c]];
      f->cg.blocks[row * q->groups + g] = sum;
      f->cg.solution[row * q->groups + g] = (double)gptvq_vq_scale(q, row, q->group[g].start);
    }
  }
}

static void decode_active(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const fit *f = context;
  const gptvq_vq *q = f->q;
  for (size_t slot = begin; slot < end; slot++) {
    size_t row = f->cg.active[slot];
    const uint16_t *state = q->index + row * q->blocks;
    for (size_t g = 0; g < q->groups; g++) {
      const float *table = gptvq_vq_state_values(q, g), scale = f->cg.direction[row * q->groups + g];
      for (size_t c = q->group[g].start; c < q->group[g].start + q->group[g].width; c++)
        q->work[slot * q->padded + c] = table[state[c]] * scale;
    }
  }
}

size_t gptvq_trellis_scales_bytes(const gptvq_vq *q) {
  gptvq_arena counting = {0};
  fit f = {.q = (gptvq_vq *)(uintptr_t)q, .cg = {.systems = q->rows, .values = q->groups, .block = 1}};
  take(&counting, &f);
  return counting.peak;
}

gptvq_status gptvq_trellis_update_scales(gptvq_vq *q, double *loss, gptvq_error *err) {
  fit f = {
      .q = q,
      .cg = {.systems = q->rows, .values = q->groups, .block = 1, .gather = gather_active, .context = &f}};
  gptvq_cg *s = &f.cg;
  size_t mark = q->arena->used;
  double after;
  take(q->arena, &f);
  GPTVQ_TRY(gptvq_arena_check(q->arena, "the fit of row scales", err));
  GPTVQ_TRY(gptvq_vq_loss(q, f.row_loss, loss, err));
  gptvq_parallel_for(q->rows, 4, prepare, &f);
  gptvq_cg_begin(s);
  for (unsigned step = 0; step < MAX_STEPS && s->active_count > 0; step++) {
    gptvq_parallel_for(s->active_count, 4, decode_active, &f);
    gptvq_stage_count(q->stages, 2.0 * (double)(s->active_count * q->padded * q->padded));
    GPTVQ_TRY(q->backend->times_hessian(q, s->active_count, q->work, q->error, err));
    gptvq_cg_step(s);
  }
  memcpy(f.saved, q->scale_codes, q->rows * q->groups);
  for (size_t row = 0; row < q->rows; row++)
    for (size_t g = 0; g < q->groups; g++)
      q->scale_codes[row * q->groups + q->group[g].id] =
          gptvq_row_scale_code(s->solution[row * q->groups + g]);
  GPTVQ_TRY(gptvq_vq_loss(q, f.row_after, &after, err));
  for (size_t row = 0; row < q->rows; row++) {
    if (f.row_after[row] < f.row_loss[row]) {
      *loss += f.row_after[row] - f.row_loss[row];
      continue;
    }
    memcpy(q->scale_codes + row * q->groups, f.saved + row * q->groups, q->groups);
  }
  gptvq_arena_return(q->arena, mark);
  return GPTVQ_OK;
}
