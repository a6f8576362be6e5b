#include "model/layer/experts.h"
#include "base/memory.h"
#include "model/layer/vector.h"

#include <math.h>
#include <string.h>

enum { ARRAYS = 7 };

/* Bytes of each array in the order of their places. */
static void measure(const gptvq_routing *r, size_t bytes[ARRAYS]) {
  const size_t values[ARRAYS] = {r->experts, r->hidden, r->used,       r->used,
                                 1,          1,         2 * r->experts}; /* of a row */
  for (size_t i = 0; i < ARRAYS; i++) {
    const size_t rows = i + 1 < ARRAYS ? r->max_rows : 1;
    bytes[i] = gptvq_saturated_size(rows, gptvq_saturated_size(values[i], sizeof(float)));
    bytes[i] = bytes[i] > SIZE_MAX / 16 ? SIZE_MAX / 16 : gptvq_round_up(bytes[i], 64);
  }
}

size_t gptvq_routing_bytes(const gptvq_routing *routing) {
  size_t bytes[ARRAYS], total = 0;
  measure(routing, bytes);
  for (size_t i = 0; i < ARRAYS; i++) total += bytes[i];
  return total < SIZE_MAX / 16 ? total : SIZE_MAX;
}

void gptvq_routing_place(gptvq_routing *routing, char *memory) {
  size_t bytes[ARRAYS];
  void *places[ARRAYS];
  measure(routing, bytes);
  for (size_t i = 0; i < ARRAYS; memory += bytes[i++]) places[i] = memory;
  routing->logits = places[0];
  routing->gathered = places[1];
  routing->chosen = places[2];
  routing->share = places[3];
  routing->members = places[4];
  routing->member_share = places[5];
  routing->choice = places[6];
}

/* Of one group: its largest value, or the sum of the two largest. */
static float group_value(size_t n, const float *choice, bool two) {
  float first = -INFINITY, second = -INFINITY;
  for (size_t i = 0; i < n; i++) {
    if (choice[i] > first) {
      second = first;
      first = choice[i];
    } else if (choice[i] > second) second = choice[i];
  }
  return two && n > 1 ? first + second : first;
}

/* The first of the largest, which is then out of the choice; n: all are. */
static size_t take_best(size_t n, float *choice) {
  size_t best = n;
  for (size_t i = 0; i < n; i++)
    if (choice[i] > -INFINITY && (best == n || choice[i] > choice[best])) best = i;
  if (best < n) choice[best] = -INFINITY;
  return best;
}

/* Experts of all groups but the best are out of the choice. */
static void choose_groups(const gptvq_routing *r) {
  const size_t groups = r->rule.groups, size = r->experts / groups;
  float *values = r->choice + r->experts;
  for (size_t g = 0; g < groups; g++) values[g] = group_value(size, r->choice + g * size, r->rule.sigmoid);
  for (size_t i = 0; i < r->rule.used_groups; i++) (void)take_best(groups, values);
  for (size_t g = 0; g < groups; g++) /* those that were not taken */
    for (size_t e = 0; e < size && values[g] > -INFINITY; e++) r->choice[g * size + e] = -INFINITY;
}

/* Probabilities of a softmax are relative to the largest one until their shares are known. */
static bool choose(const gptvq_routing *r, float *logits, uint32_t *chosen, float *share) {
  const size_t experts = r->experts;
  float *probabilities = logits, sum = r->rule.sigmoid ? 1e-20f : 0.0f, all = 1.0f;
  if (r->rule.sigmoid)
    for (size_t e = 0; e < experts; e++) probabilities[e] = 1.0f / (1.0f + expf(-logits[e]));
  else
    all =
        GPTVQ_MULTI_PICK(gptvq_exp_sum)(experts, GPTVQ_MULTI_PICK(gptvq_max)(experts, logits), probabilities);
  for (size_t e = 0; e < experts; e++)
    r->choice[e] = probabilities[e] + (r->correction != NULL ? r->correction[e] : 0.0f);
  if (r->rule.groups > 1) choose_groups(r);
  for (size_t i = 0; i < r->used; i++) {
    const size_t best = take_best(experts, r->choice);
    if (best == experts) return false;
    chosen[i] = (uint32_t)best;
    share[i] = probabilities[best];
    sum += share[i];
  }
  for (size_t i = 0; i < r->used; i++) {
    share[i] /= r->rule.keeps_sum ? all : sum;
    if (r->rule.scale > 0.0) share[i] *= (float)r->rule.scale;
  }
  return true;
}

bool gptvq_route(gptvq_routing *r, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (!choose(r, r->logits + i * r->experts, r->chosen + i * r->used, r->share + i * r->used)) return false;
  return true;
}

size_t gptvq_route_gather(gptvq_routing *r, size_t expert, size_t n, const float *x) {
  size_t members = 0;
  for (size_t i = 0; i < n; i++) {
    size_t at = i * r->used, end = at + r->used;
    while (at < end && r->chosen[at] != expert) at++;
    if (at == end) continue;
    r->members[members] = (uint32_t)i;
    r->member_share[members] = r->share[at];
    memcpy(r->gathered + members * r->hidden, x + i * r->hidden, r->hidden * sizeof *x);
    members++;
  }
  return members;
}

size_t gptvq_route_everyone(gptvq_routing *r, size_t n, const float *gate) {
  for (size_t i = 0; i < n; i++) {
    r->members[i] = (uint32_t)i;
    r->member_share[i] = gate != NULL ? 1.0f / (1.0f + expf(-gate[i])) : 1.0f;
  }
  return n;
}

void gptvq_route_scatter(const gptvq_routing *r, size_t members, float *sum) {
  for (size_t m = 0; m < members; m++) GPTVQ_MULTI_PICK(gptvq_add_scaled)
  (r->hidden, r->member_share[m], r->gathered + m * r->hidden, sum + r->members[m] * r->hidden);
}
