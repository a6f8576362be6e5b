/* Layers in parts: units of rows, dealt out to the members of a team. Given the Hessian a unit depends on no
 * other, but for the losses that decide when rounds end: these are added up over all, in one order; and for
 * the tables of a trellis, which are made from all rows (trellis.c). A member may have no row of a low layer.
 */
#include "base/memory.h"
#include "quant/layer/layer.h"

#include <stdlib.h>
#include <string.h>

static size_t all_units(const gptvq_vq *q) { return gptvq_ceil_div(q->all_rows, q->unit_rows); }
static size_t first_unit(const gptvq_vq *part, size_t member) {
  return gptvq_dist_first(part->dist, all_units(part), member);
}
size_t gptvq_vq_first_row(const gptvq_vq *part, size_t member) {
  return gptvq_min_size(part->all_rows, first_unit(part, member) * part->unit_rows);
}

gptvq_status gptvq_vq_collect(const gptvq_vq *part, void *all, size_t bytes,
                              size_t (*first)(const gptvq_vq *part, size_t member), gptvq_error *err) {
  if (part->dist == NULL) return GPTVQ_OK;
  const size_t count = part->dist->team.count;
  size_t *offsets = gptvq_alloc(count + 1, sizeof *offsets);
  if (offsets == NULL) return gptvq_fail_memory(err, part->name, (count + 1) * sizeof *offsets);
  for (size_t member = 0; member <= count; member++) offsets[member] = first(part, member) * bytes;
  const gptvq_status status = gptvq_dist_gather_parts(part->dist, all, offsets, err);
  free(offsets);
  return status;
}

gptvq_status gptvq_vq_total(const gptvq_vq *q, const double *values, double *total, gptvq_error *err) {
  const double *all = values;
  if (q->dist != NULL) {
    memmove(q->unit_values + q->first_row / q->unit_rows, values, q->units * sizeof *values);
    GPTVQ_TRY(gptvq_vq_collect(q, q->unit_values, sizeof *values, first_unit, err));
    all = q->unit_values;
  }
  *total = 0.0;
  for (size_t unit = 0; unit < all_units(q); unit++) *total += all[unit];
  return GPTVQ_OK;
}

/* A layer with data, of several units. */
static bool can_deal(const gptvq_vq *q, size_t members) {
  if (!q->has_factor || q->shape.scale_block > 0 || q->shape.svd_rank > 0) return false;
  const bool on_cpu = q->backend->times_hessian == gptvq_cpu_backend.times_hessian;
  return q->units >= (on_cpu ? 2 : members); /* a device works on no rows of nothing */
}

bool gptvq_vq_deal(const gptvq_solver *solver, const gptvq_vq *q, gptvq_vq *part) {
  gptvq_dist *dist = solver->dist;
  if (dist == NULL || gptvq_dist_alone(dist) || !can_deal(q, dist->team.count)) return false;
  gptvq_vq whole = *q;
  whole.dist = dist;
  const size_t first = gptvq_vq_first_row(&whole, dist->team.rank);
  gptvq_packed_shape shape = q->shape;
  shape.rows = gptvq_vq_first_row(&whole, dist->team.rank + 1) - first;
  *part = gptvq_vq_of(solver, q->name, &shape, q->factor, q->has_factor);
  part->dist = dist;
  part->all_rows = q->all_rows;
  part->first_row = first;
  return true;
}

/* The arrays of the whole; a trellis has its tables as a whole already. */
static void take(gptvq_arena *arena, const gptvq_vq *part, gptvq_vq *q) {
  const size_t tiles = gptvq_ceil_div(part->all_rows, part->shape.group_rows) * part->groups;
  const bool trellis = part->step_bits > 0;
  q->index = gptvq_arena_take(arena, part->all_rows, part->blocks * sizeof *q->index);
  q->scale_codes = gptvq_arena_take(arena, part->all_rows, part->scale_blocks);
  q->codes = trellis ? part->codes
                     : gptvq_arena_take(arena, tiles, part->k * part->dim * (part->shape.codebook_bits / 8));
  q->codebook_scales =
      trellis ? part->codebook_scales : gptvq_arena_take(arena, tiles, sizeof *q->codebook_scales);
}

size_t gptvq_vq_assemble_bytes(const gptvq_vq *part) {
  gptvq_arena counting = {0};
  take(&counting, part, &(gptvq_vq){0});
  return counting.peak;
}

/* One array of all parts: own[…][bytes] is what stands from first(part, own member) on. */
static gptvq_status assemble(const gptvq_vq *part, void *all, const void *own, size_t bytes,
                             size_t (*first)(const gptvq_vq *part, size_t member), gptvq_error *err) {
  const size_t begin = first(part, part->dist->team.rank), end = first(part, part->dist->team.rank + 1);
  memcpy((char *)all + begin * bytes, own, (end - begin) * bytes);
  return gptvq_vq_collect(part, all, bytes, first, err);
}

gptvq_status gptvq_vq_assemble(const gptvq_vq *part, gptvq_vq *q, gptvq_error *err) {
  q->arena = part->arena;
  q->group = part->group;
  q->exponent = part->exponent;
  take(q->arena, part, q);
  GPTVQ_TRY(gptvq_arena_check(q->arena, q->name, err));
  GPTVQ_TRY(assemble(part, q->index, part->index, q->blocks * sizeof *q->index, gptvq_vq_first_row, err));
  if (q->step_bits > 0)
    return assemble(part, q->scale_codes, part->scale_codes, q->scale_blocks, gptvq_vq_first_row, err);
  GPTVQ_TRY(assemble(part, q->codes, part->codes, q->groups * q->k * q->dim * (q->shape.codebook_bits / 8),
                     first_unit, err));
  return assemble(part, q->codebook_scales, part->codebook_scales, q->groups * sizeof *q->codebook_scales,
                  first_unit, err);
}
