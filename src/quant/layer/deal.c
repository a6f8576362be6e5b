/* Layers in parts: stripes of rows, dealt out to the members of a team. Given the Hessian a stripe depends on
 * no other, but for the losses that decide when rounds end: these are added up over all, in one order. */
#include "base/memory.h"
#include "quant/layer/layer.h"

#include <stdlib.h>
#include <string.h>

/* The first stripe of member r. */
static size_t first_of(const gptvq_vq *q, const gptvq_dist *dist, size_t r) {
  return gptvq_ceil_div(q->all_rows, q->shape.group_rows) * r / dist->team.count;
}

/* Parts of arrays with so many bytes for each stripe; the last stripe may have fewer rows. offsets[members +
 * 1] */
static void set_offsets(const gptvq_vq *q, size_t stripe_bytes, size_t all_bytes, size_t *offsets) {
  for (size_t r = 0; r < q->dist->team.count; r++) offsets[r] = first_of(q, q->dist, r) * stripe_bytes;
  offsets[q->dist->team.count] = all_bytes;
}

static gptvq_status gather(const gptvq_vq *q, void *all, size_t stripe_bytes, size_t all_bytes,
                           gptvq_error *err) {
  size_t *offsets = gptvq_alloc(q->dist->team.count + 1, sizeof *offsets);
  if (offsets == NULL) return gptvq_fail_memory(err, q->name, (q->dist->team.count + 1) * sizeof *offsets);
  set_offsets(q, stripe_bytes, all_bytes, offsets);
  gptvq_status status = gptvq_dist_gather_parts(q->dist, all, offsets, err);
  free(offsets);
  return status;
}

gptvq_status gptvq_vq_total(const gptvq_vq *q, const double *values, double *total, gptvq_error *err) {
  size_t count = q->stripes;
  const double *all = values;
  if (q->dist != NULL) {
    count = gptvq_ceil_div(q->all_rows, q->shape.group_rows);
    memmove(q->stripe_values + q->first_stripe, values, q->stripes * sizeof *values);
    GPTVQ_TRY(gather(q, q->stripe_values, sizeof *values, count * sizeof *values, err));
    all = q->stripe_values;
  }
  *total = 0.0;
  for (size_t stripe = 0; stripe < count; stripe++) *total += all[stripe];
  return GPTVQ_OK;
}

/* A layer with data, of a stripe or more for each member. */
static bool can_deal(const gptvq_vq *q, const gptvq_dist *dist) {
  if (!q->has_factor || q->step_bits > 0 || q->scale_block > 0 || q->shape.svd_rank > 0) return false;
  if (q->backend->times_hessian != gptvq_cpu_backend.times_hessian ||
      q->backend->feedback != gptvq_cpu_backend.feedback)
    return false;
  return gptvq_ceil_div(q->all_rows, q->shape.group_rows) >= dist->team.count;
}

bool gptvq_vq_deal(const gptvq_solver *solver, const gptvq_vq *q, gptvq_vq *part) {
  gptvq_dist *dist = solver->dist;
  if (dist == NULL || gptvq_dist_alone(dist) || !can_deal(q, dist)) return false;
  const size_t first = first_of(q, dist, dist->team.rank), end = first_of(q, dist, dist->team.rank + 1);
  gptvq_packed_shape shape = q->shape;
  shape.rows = gptvq_min_size(q->rows, end * shape.group_rows) - first * shape.group_rows;
  *part = gptvq_vq_of(solver, q->name, &shape, q->factor, q->has_factor);
  part->dist = dist;
  part->all_rows = q->all_rows;
  part->first_stripe = first;
  part->first_row = first * shape.group_rows;
  return true;
}

gptvq_status gptvq_vq_assemble(const gptvq_vq *part, gptvq_vq *q, gptvq_error *err) {
  const size_t codes = q->k * q->dim * (q->shape.codebook_bits / 8), row = q->blocks * sizeof *q->index,
               rows = q->shape.group_rows;
  q->arena = part->arena;
  q->group = part->group;
  q->exponent = part->exponent;
  q->index = gptvq_arena_take(q->arena, q->rows, row);
  q->codes = gptvq_arena_take(q->arena, q->stripes * q->groups, codes);
  q->codebook_scales = gptvq_arena_take(q->arena, q->stripes * q->groups, sizeof *q->codebook_scales);
  GPTVQ_TRY(gptvq_arena_check(q->arena, q->name, err));
  memcpy((char *)q->index + part->first_row * row, part->index, part->rows * row);
  memcpy((char *)q->codes + part->first_stripe * q->groups * codes, part->codes,
         part->stripes * part->groups * codes);
  memcpy(q->codebook_scales + part->first_stripe * q->groups, part->codebook_scales,
         part->stripes * part->groups * sizeof *q->codebook_scales);
  GPTVQ_TRY(gather(part, q->index, rows * row, q->rows * row, err));
  GPTVQ_TRY(gather(part, q->codes, q->groups * codes, q->stripes * q->groups * codes, err));
  return gather(part, q->codebook_scales, q->groups * sizeof *q->codebook_scales,
                q->stripes * q->groups * sizeof *q->codebook_scales, err);
}
