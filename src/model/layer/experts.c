#include "model/layer/experts.h"
#include "base/memory.h"
#include "model/layer/vector.h"

#include <math.h>
#include <string.h>

enum { ARRAYS = 6 };

/* Bytes of each array in the order of their places. */
static void measure(const gptvq_routing *r, size_t bytes[ARRAYS]) {
  const size_t values[ARRAYS] = {r->experts, r->hidden, r->used, r->used, 1, 1}; /* of a row */
  for (size_t i = 0; i < ARRAYS; i++) {
    bytes[i] = gptvq_saturated_size(r->max_rows, gptvq_saturated_size(values[i], sizeof(float)));
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
}

/* Probabilities are relative to the largest one until their shares are known. */
static bool choose(const gptvq_routing *r, float *logits, uint32_t *chosen, float *share) {
  const size_t experts = r->experts, used = r->used;
  float *probabilities = logits, sum = 0.0f;
  const float all =
      GPTVQ_MULTI_PICK(gptvq_exp_sum)(experts, GPTVQ_MULTI_PICK(gptvq_max)(experts, logits), probabilities);
  for (size_t i = 0; i < used; i++) {
    size_t best = experts;
    for (size_t e = 0; e < experts; e++) /* no expert twice: those chosen are negative */
      if (!(probabilities[e] < 0.0f) && (best == experts || probabilities[e] > probabilities[best])) best = e;
    if (best == experts) return false;
    chosen[i] = (uint32_t)best;
    share[i] = probabilities[best];
    sum += share[i];
    probabilities[best] = -1.0f;
  }
  for (size_t i = 0; i < used; i++) share[i] /= r->keeps_sum ? all : sum;
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
