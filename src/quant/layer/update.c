/* Codebook update: with assignments fixed the layer loss is a quadratic in all centroids, one independent
 * system per stripe, solved by preconditioned conjugate gradients on the normal equations. Small systems are
 * formed (direct.c); for the others the operator is decode, times H, gather. */
#include "base/memory.h"
#include "base/threads.h"
#include "linalg/solve/cg.h"
#include "quant/layer/layer.h"

#include <math.h>
#include <string.h>

/* Σ over rows and blocks of scale · y at the centroid of that block: the transpose of decode */
void gptvq_vq_gather(const gptvq_vq *q, size_t stripe, const float *y, double *out) {
  size_t d = q->dim;
  memset(out, 0, q->groups * q->k * d * sizeof *out);
  for (size_t row = gptvq_stripe_begin(q, stripe); row < gptvq_stripe_end(q, stripe); row++, y += q->padded)
    for (size_t g = 0; g < q->groups; g++)
      for (size_t b = q->group[g].start / d; b < (q->group[g].start + q->group[g].width) / d; b++) {
        double scale = (double)gptvq_vq_scale(q, row, b),
               *sum = out + (g * q->k + q->index[row * q->blocks + b]) * d;
        for (size_t i = 0; i < d; i++) sum[i] += scale * (double)y[b * d + i];
      }
}

void gptvq_vq_curvature(const gptvq_vq *q, size_t stripe, double *blocks) {
  const gptvq_factor *f = q->factor;
  size_t d = q->dim;
  memset(blocks, 0, q->groups * q->k * d * d * sizeof *blocks);
  for (size_t g = 0; g < q->groups; g++)
    for (size_t b = q->group[g].start / d; b < (q->group[g].start + q->group[g].width) / d; b++)
      for (size_t row = gptvq_stripe_begin(q, stripe); row < gptvq_stripe_end(q, stripe); row++) {
        double scale = (double)gptvq_vq_scale(q, row, b);
        double *sum = blocks + (g * q->k + q->index[row * q->blocks + b]) * d * d;
        for (size_t i = 0; i < d; i++)
          for (size_t j = 0; j <= i; j++) {
            double h = f == NULL ? (i == j ? 1.0 : 0.0)
                                 : (double)f->h[(b * d + i) * q->padded + b * d + j] +
                                       (i == j ? gptvq_factor_ridge(f, b * d + i) : 0.0);
            sum[i * d + j] += scale * scale * h;
          }
      }
}

/* The systems are the stripes. */
typedef struct stripes {
  gptvq_vq *q;
  double *row_loss, *row_after; /* [rows] before and afterwards */
  gptvq_saved_codebooks saved;  /* [stripes] before */
  gptvq_cg cg;
} stripes;

static void prepare(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const stripes *job = context;
  const gptvq_cg *s = &job->cg;
  const gptvq_vq *q = job->q;
  for (size_t stripe = begin; stripe < end; stripe++) {
    gptvq_vq_curvature(q, stripe, s->blocks + stripe * s->values * s->block);
    const float *centroids = q->centroids + stripe * s->values;
    for (size_t i = 0; i < s->values; i++) s->solution[stripe * s->values + i] = (double)centroids[i];
    gptvq_vq_gather(q, stripe, q->error + gptvq_stripe_begin(q, stripe) * q->padded,
                    s->residual + stripe * s->values); /* E (H + ridge) */
    s->enough[stripe] = 0.0;
    for (size_t row = gptvq_stripe_begin(q, stripe); row < gptvq_stripe_end(q, stripe); row++)
      s->enough[stripe] += GPTVQ_UPDATE_REMAINING * job->row_loss[row];
  }
}

/* Some stripes, whose rows lie side by side in work and error: only the last of a layer may be lower than the
 * others. */
typedef struct listed {
  const gptvq_vq *q;
  const uint32_t *stripes;
  const float *directions;
  double *products;
} listed;

static float *slot_rows(const gptvq_vq *q, float *rows, size_t slot) {
  return rows + slot * q->shape.group_rows * q->padded;
}

static void decode_listed(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const listed *l = context;
  for (size_t i = begin; i < end; i++)
    gptvq_vq_decode_rows(l->q, l->directions, gptvq_stripe_begin(l->q, l->stripes[i]),
                         gptvq_stripe_end(l->q, l->stripes[i]), slot_rows(l->q, l->q->work, i));
}

static void gather_listed(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const listed *l = context;
  const size_t values = l->q->groups * l->q->k * l->q->dim;
  for (size_t i = begin; i < end; i++)
    gptvq_vq_gather(l->q, l->stripes[i], slot_rows(l->q, l->q->error, i),
                    l->products + l->stripes[i] * values);
}

gptvq_status gptvq_vq_times_system(const gptvq_vq *q, size_t count, const uint32_t *stripes_listed,
                                   const float *directions, double *products, gptvq_error *err) {
  listed l = {q, stripes_listed, directions, products};
  size_t rows = 0;
  for (size_t i = 0; i < count; i++)
    rows += gptvq_stripe_end(q, stripes_listed[i]) - gptvq_stripe_begin(q, stripes_listed[i]);
  gptvq_parallel_for(count, 1, decode_listed, &l);
  GPTVQ_TRY(q->backend->times_hessian(q, rows, q->work, q->error, err));
  gptvq_parallel_for(count, 1, gather_listed, &l);
  return GPTVQ_OK;
}

static size_t active_row_count(const stripes *job) {
  size_t rows = 0;
  for (size_t i = 0; i < job->cg.active_count; i++)
    rows += gptvq_stripe_end(job->q, job->cg.active[i]) - gptvq_stripe_begin(job->q, job->cg.active[i]);
  return rows;
}

/* Stores the solution; stripes that are not better afterwards get their codebooks back. */
static gptvq_status store(const stripes *job, double *loss, gptvq_error *err) {
  gptvq_vq *q = job->q;
  const gptvq_cg *s = &job->cg;
  const size_t n = q->stripes * s->values, tiles = q->stripes * q->groups;
  for (size_t stripe = 0; stripe < q->stripes; stripe++)
    gptvq_vq_save_codebooks(q, stripe, &job->saved, stripe);
  for (size_t i = 0; i < n; i++) s->direction[i] = (float)s->solution[i];
  for (size_t tile = 0; tile < tiles; tile++)
    gptvq_vq_store_codebook(q, tile, s->direction + tile * q->k * q->dim);
  GPTVQ_TRY(gptvq_vq_loss(q, job->row_after, NULL, err));
  for (size_t stripe = 0; stripe < q->stripes; stripe++) {
    double before = 0.0, after = 0.0;
    for (size_t row = gptvq_stripe_begin(q, stripe); row < gptvq_stripe_end(q, stripe); row++) {
      before += job->row_loss[row];
      after += job->row_after[row];
    }
    q->unit_values[stripe] = after < before ? after : before;
    if (after < before) continue;
    gptvq_vq_restore_codebooks(q, stripe, &job->saved, stripe);
    q->has_gradient = false;
  }
  return gptvq_vq_total(q, q->unit_values, loss, err);
}

static void take(gptvq_arena *arena, stripes *job) {
  const gptvq_vq *q = job->q;
  job->cg =
      (gptvq_cg){.systems = q->stripes, .values = q->groups * q->k * q->dim, .block = q->dim, .context = q};
  job->row_loss = gptvq_arena_take(arena, q->rows, sizeof *job->row_loss);
  job->row_after = gptvq_arena_take(arena, q->rows, sizeof *job->row_after);
  gptvq_saved_codebooks_take(arena, q, q->stripes, &job->saved);
  gptvq_cg_take(&job->cg, arena);
}

size_t gptvq_vq_update_bytes(const gptvq_vq *q) {
  gptvq_arena counting = {0};
  stripes job = {.q = (gptvq_vq *)(uintptr_t)q};
  take(&counting, &job); /* which a device may use where the CPU is direct */
  return gptvq_max_size(counting.peak, gptvq_vq_is_direct(q) ? gptvq_vq_direct_bytes(q) : 0);
}

gptvq_status gptvq_vq_update(gptvq_vq *q, double *loss, gptvq_error *err) {
  if (q->step_bits > 0) return gptvq_trellis_update_scales(q, loss, err);
  if (gptvq_vq_is_direct(q)) return gptvq_vq_update_direct(q, loss, err);
  return gptvq_vq_update_gradients(q, loss, err);
}

gptvq_status gptvq_vq_update_gradients(gptvq_vq *q, double *loss, gptvq_error *err) {
  stripes job = {.q = q};
  gptvq_cg *s = &job.cg;
  size_t mark = q->arena->used;
  take(q->arena, &job);
  GPTVQ_TRY(gptvq_arena_check(q->arena, "the codebook update", err));
  GPTVQ_TRY(gptvq_vq_loss(q, job.row_loss, NULL, err));
  gptvq_parallel_for(q->stripes, 1, prepare, &job);
  q->has_gradient = false;
  gptvq_cg_begin(s);
  for (unsigned step = 0; step < GPTVQ_UPDATE_STEPS && s->active_count > 0; step++) {
    gptvq_stage_count(q->stages, GPTVQ_IN_FP32,
                      2.0 * (double)(active_row_count(&job) * q->padded * q->padded));
    GPTVQ_TRY(q->backend->times_system(q, s->active_count, s->active, s->direction, s->product, err));
    gptvq_cg_step(s);
  }
  GPTVQ_TRY(store(&job, loss, err));
  gptvq_arena_return(q->arena, mark);
  return GPTVQ_OK;
}
