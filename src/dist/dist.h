/* dist/dist.h: what the members of a team do together, and how many bytes it takes. With one member all of
 * it is the identity. Every member calls the same functions in the same order. */
#ifndef GPTVQ_DIST_DIST_H
#define GPTVQ_DIST_DIST_H

#include <gptvq/team.h>

#include "base/status.h"
#include "dist/deal.h"
#include "linalg/solve/backend.h"

#include <stdbool.h>

typedef struct gptvq_dist {
  gptvq_team team;      /* count 1: alone */
  uint64_t sent;        /* bytes that this member has sent to others, a broadcast once to each of them */
  void *send, *receive; /* buffers, owned; NULL until they are needed */
} gptvq_dist;

/* team NULL: alone. GPTVQ_ERROR_ARGUMENT: a team that does not hold together. */
gptvq_status gptvq_dist_create(const gptvq_team *team, gptvq_dist *out, gptvq_error *err);
void gptvq_dist_release(gptvq_dist *dist);
static inline bool gptvq_dist_leads(const gptvq_dist *d) { return d->team.rank == 0; }
static inline bool gptvq_dist_alone(const gptvq_dist *d) { return d->team.count == 1; }

/* data[bytes] of member 0 for all. */
gptvq_status gptvq_dist_broadcast(gptvq_dist *dist, void *data, size_t bytes, gptvq_error *err);
/* all[members × bytes], each member's part in its place, for all. */
gptvq_status gptvq_dist_gather(gptvq_dist *dist, void *all, size_t bytes, gptvq_error *err);
/* data[offsets[members]]: likewise, parts of any size; offsets[members + 1] in bytes. */
gptvq_status gptvq_dist_gather_parts(gptvq_dist *dist, void *data, const size_t *offsets, gptvq_error *err);
/* Items dealt out in equal parts: those of a member begin here; of member `count` their number. dist NULL,
 * here and in the next two: alone. */
static inline size_t gptvq_dist_first(const gptvq_dist *dist, size_t items, size_t member) {
  return dist == NULL ? items * member : items * member / dist->team.count;
}
/* This member's, [begin, end). */
static inline void gptvq_dist_own(const gptvq_dist *dist, size_t items, size_t *begin, size_t *end) {
  const size_t member = dist == NULL ? 0 : dist->team.rank;
  *begin = gptvq_dist_first(dist, items, member);
  *end = gptvq_dist_first(dist, items, member + 1);
}
/* all[items × bytes], each member's items in their place, for all. */
gptvq_status gptvq_dist_gather_items(gptvq_dist *dist, void *all, size_t items, size_t bytes,
                                     gptvq_error *err);
/* values[count]: the sums over all members. */
gptvq_status gptvq_dist_total(gptvq_dist *dist, uint64_t *values, size_t count, gptvq_error *err);

/* A group of tokens ends (gptvq_sum_fold); of several members the parts are added in their order, of those
 * for which the deal has a group in this round. linalg: what has added to the part. The total is only
 * complete after gptvq_sum_gather, and there once the linalg has settled the part. */
/* dist NULL: alone; the deal is not looked at then. */
gptvq_status gptvq_sum_add(const gptvq_sum *sum, const gptvq_linalg *linalg, gptvq_dist *dist,
                           const gptvq_deal *deal, size_t round, gptvq_error *err);
/* Every member gets the whole total. */
gptvq_status gptvq_sum_gather(const gptvq_sum *sum, gptvq_dist *dist, gptvq_error *err);
/* What the buffers of such sums take of memory with so many members, until gptvq_dist_release. */
size_t gptvq_sum_bytes(size_t members, size_t rows, size_t cols);

#endif
