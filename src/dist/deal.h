/* dist/deal.h: how the calibration windows are dealt out to the members of a team.
 *
 * The windows fall into groups of neighbours, as many whoever works: sums over windows are made of the sums
 * of the groups, added in their order. So the result is the same bit for bit with any number of members.
 * Groups are dealt out in rounds: in round t member r works on group t · members + r. A team has at most as
 * many members as there are groups. */
#ifndef GPTVQ_DIST_DEAL_H
#define GPTVQ_DIST_DEAL_H

#include <stdbool.h>
#include <stddef.h>

enum { GPTVQ_MAX_GROUPS = 64, GPTVQ_FEW_GROUPS = 8 };

/* Each window of a few is a group; of more windows four go together, in 64 groups at most. Ending a group
 * adds and clears a c × c matrix of doubles for every input: one or two windows do not pay for that. */
static inline size_t gptvq_deal_groups(size_t windows) {
  const size_t quarter = windows / 4;
  if (windows <= GPTVQ_FEW_GROUPS) return windows;
  if (quarter <= GPTVQ_FEW_GROUPS) return GPTVQ_FEW_GROUPS;
  return quarter < GPTVQ_MAX_GROUPS ? quarter : GPTVQ_MAX_GROUPS;
}

typedef struct gptvq_deal {
  size_t windows, groups; /* of all members */
  size_t rank, members;
} gptvq_deal;

static inline gptvq_deal gptvq_deal_of(size_t windows, size_t rank, size_t members) {
  return (gptvq_deal){
      .windows = windows, .groups = gptvq_deal_groups(windows), .rank = rank, .members = members};
}
static inline size_t gptvq_deal_rounds(const gptvq_deal *s) {
  return (s->groups + s->members - 1) / s->members;
}
/* Has this member a group in that round? */
static inline bool gptvq_deal_has(const gptvq_deal *s, size_t round, size_t rank) {
  return round * s->members + rank < s->groups;
}
/* The first window of a group; of group `groups`: the count of windows. */
static inline size_t gptvq_deal_begin(const gptvq_deal *s, size_t group) {
  return s->windows / s->groups * group + s->windows % s->groups * group / s->groups;
}
/* Windows [begin, end) of this member in that round; none where it has no group. */
static inline void gptvq_deal_round(const gptvq_deal *s, size_t round, size_t *begin, size_t *end) {
  const size_t group = round * s->members + s->rank;
  *begin = *end = 0;
  if (!gptvq_deal_has(s, round, s->rank)) return;
  *begin = gptvq_deal_begin(s, group);
  *end = gptvq_deal_begin(s, group + 1);
}
/* Windows of this member: all of its groups, in the order of the rounds. */
static inline size_t gptvq_deal_count(const gptvq_deal *s) {
  size_t count = 0;
  for (size_t group = s->rank; group < s->groups; group += s->members)
    count += gptvq_deal_begin(s, group + 1) - gptvq_deal_begin(s, group);
  return count;
}

#endif
