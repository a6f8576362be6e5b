#include "dist/dist.h"

#include "base/memory.h"

#include <stdlib.h>

gptvq_status gptvq_dist_create(const gptvq_team *team, gptvq_dist *out, gptvq_error *err) {
  *out = (gptvq_dist){.team = {.size = sizeof out->team, .count = 1, .neighbours = 1}};
  if (team == NULL || team->count == 1) return GPTVQ_OK;
  if (team->size < sizeof *team || team->rank >= team->count || team->neighbour >= team->neighbours ||
      team->broadcast == NULL || team->gather == NULL || team->exchange == NULL)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "gptvq_team: member %zu of %zu, or functions are missing",
                      team->rank, team->count);
  out->team = *team;
  return GPTVQ_OK;
}

void gptvq_dist_release(gptvq_dist *dist) {
  free(dist->send);
  free(dist->receive);
  dist->send = dist->receive = NULL;
}

gptvq_status gptvq_dist_broadcast(gptvq_dist *d, void *data, size_t bytes, gptvq_error *err) {
  if (gptvq_dist_alone(d) || bytes == 0) return GPTVQ_OK;
  if (gptvq_dist_leads(d)) d->sent += (uint64_t)bytes * (d->team.count - 1);
  return d->team.broadcast(d->team.context, data, bytes, err);
}

gptvq_status gptvq_dist_gather_parts(gptvq_dist *d, void *data, const size_t *offsets, gptvq_error *err) {
  if (gptvq_dist_alone(d)) return GPTVQ_OK;
  d->sent += (uint64_t)(offsets[d->team.rank + 1] - offsets[d->team.rank]) * (d->team.count - 1);
  return d->team.gather(d->team.context, data, offsets, err);
}

gptvq_status gptvq_dist_gather(gptvq_dist *d, void *all, size_t bytes, gptvq_error *err) {
  return gptvq_dist_gather_items(d, all, d->team.count, bytes, err);
}

gptvq_status gptvq_dist_gather_items(gptvq_dist *d, void *all, size_t items, size_t bytes, gptvq_error *err) {
  if (d == NULL || gptvq_dist_alone(d)) return GPTVQ_OK;
  size_t *offsets = gptvq_alloc(d->team.count + 1, sizeof *offsets);
  if (offsets == NULL) return gptvq_fail_memory(err, "a team", (d->team.count + 1) * sizeof *offsets);
  for (size_t r = 0; r <= d->team.count; r++) offsets[r] = gptvq_dist_first(d, items, r) * bytes;
  gptvq_status status = gptvq_dist_gather_parts(d, all, offsets, err);
  free(offsets);
  return status;
}

gptvq_status gptvq_dist_total(gptvq_dist *d, uint64_t *values, size_t count, gptvq_error *err) {
  if (d == NULL || gptvq_dist_alone(d) || count == 0) return GPTVQ_OK;
  uint64_t *all = gptvq_alloc(d->team.count * count, sizeof *all);
  if (all == NULL) return gptvq_fail_memory(err, "a team", d->team.count * count * sizeof *all);
  for (size_t i = 0; i < count; i++) all[d->team.rank * count + i] = values[i];
  gptvq_status status = gptvq_dist_gather(d, all, count * sizeof *all, err);
  for (size_t i = 0; i < count && status == GPTVQ_OK; i++) {
    values[i] = 0;
    for (size_t r = 0; r < d->team.count; r++) values[i] += all[r * count + i];
  }
  free(all);
  return status;
}
