#include "quant/plan/allocate.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

typedef struct problem {
  size_t items, settings;
  const gptvq_setting_cost *costs;
  uint64_t budget, used;
  size_t *chosen;
} problem;

static const gptvq_setting_cost *cost(const problem *p, size_t item, size_t setting) {
  return &p->costs[item * p->settings + setting];
}

/* The cheapest possible setting of an item; the lowest loss, then the lowest number among equals. */
static size_t cheapest(const problem *p, size_t item) {
  size_t best = SIZE_MAX;
  for (size_t s = 0; s < p->settings; s++) {
    const gptvq_setting_cost *c = cost(p, item, s), *b = best == SIZE_MAX ? NULL : cost(p, item, best);
    if (!isfinite(c->loss)) continue;
    if (b == NULL || c->bytes < b->bytes || (c->bytes == b->bytes && c->loss < b->loss)) best = s;
  }
  return best;
}

/* The next corner of the item's lower hull: the setting above the present one with the largest decrease of
 * loss per byte (the farther one among equals). */
static size_t next_corner(const problem *p, size_t item, double *slope) {
  const gptvq_setting_cost *now = cost(p, item, p->chosen[item]);
  size_t best = SIZE_MAX;
  *slope = 0.0;
  for (size_t s = 0; s < p->settings; s++) {
    const gptvq_setting_cost *c = cost(p, item, s);
    if (!isfinite(c->loss) || c->bytes <= now->bytes || !(c->loss < now->loss)) continue;
    double gain = (now->loss - c->loss) / (double)(c->bytes - now->bytes);
    if (gain > *slope || (best != SIZE_MAX && gain >= *slope && c->bytes > cost(p, item, best)->bytes)) {
      *slope = gain;
      best = s;
    }
  }
  return best;
}

static void upgrade(problem *p, bool *full) {
  for (;;) {
    size_t item = SIZE_MAX, setting = SIZE_MAX;
    double best = 0.0, slope;
    for (size_t i = 0; i < p->items; i++) {
      if (full[i]) continue;
      size_t s = next_corner(p, i, &slope);
      if (s == SIZE_MAX || !(slope > best)) continue;
      best = slope;
      item = i;
      setting = s;
    }
    if (item == SIZE_MAX) return;
    uint64_t more = cost(p, item, setting)->bytes - cost(p, item, p->chosen[item])->bytes;
    if (more > p->budget - p->used) {
      full[item] = true;
      continue;
    }
    p->used += more;
    p->chosen[item] = setting;
  }
}

static bool fits(const problem *p, uint64_t freed, uint64_t taken) {
  return taken <= freed || taken - freed <= p->budget - p->used;
}

/* The best change of one item, or of two, is made; false when none gains. */
static bool exchange(problem *p) {
  double best = 0.0;
  size_t change[4] = {0, 0, 0, 0};
  for (size_t a = 0; a < p->items; a++)
    for (size_t s = 0; s < p->settings; s++) {
      const gptvq_setting_cost *from = cost(p, a, p->chosen[a]), *to = cost(p, a, s);
      if (s == p->chosen[a] || !isfinite(to->loss)) continue;
      double gain = from->loss - to->loss;
      if (gain > best && fits(p, from->bytes, to->bytes)) {
        best = gain;
        memcpy(change, (size_t[4]){a, s, a, s}, sizeof change);
      }
      for (size_t b = a + 1; b < p->items; b++)
        for (size_t t = 0; t < p->settings; t++) {
          const gptvq_setting_cost *from_b = cost(p, b, p->chosen[b]), *to_b = cost(p, b, t);
          if (t == p->chosen[b] || !isfinite(to_b->loss)) continue;
          double both = gain + from_b->loss - to_b->loss;
          if (both > best && fits(p, from->bytes + from_b->bytes, to->bytes + to_b->bytes)) {
            best = both;
            memcpy(change, (size_t[4]){a, s, b, t}, sizeof change);
          }
        }
    }
  if (!(best > 0.0)) return false;
  for (int i = 0; i < 4; i += 2) {
    p->used -= cost(p, change[i], p->chosen[change[i]])->bytes;
    p->chosen[change[i]] = change[i + 1];
    p->used += cost(p, change[i], change[i + 1])->bytes;
  }
  return true;
}

static double total_loss(const problem *p, const size_t *chosen) {
  double sum = 0;
  for (size_t i = 0; i < p->items; i++) sum += cost(p, i, chosen[i])->loss;
  return sum;
}

gptvq_status gptvq_allocate(size_t items, size_t settings, const gptvq_setting_cost *costs, uint64_t budget,
                            size_t *chosen, gptvq_error *err) {
  /* exchanges of pairs look at (items · settings)² combinations: large models leave them out, their steps are
   * small */
  const size_t most_pairs = (size_t)1 << 22;
  problem p = {items, settings, costs, budget, 0, gptvq_alloc(items, sizeof *chosen)};
  bool *full = gptvq_alloc_zero(items, sizeof *full);
  if (p.chosen == NULL || full == NULL) {
    free(p.chosen);
    free(full);
    return gptvq_fail_memory(err, "the allocation of bits", gptvq_saturated_size(items, sizeof *chosen + 1));
  }
  bool possible = true;
  for (size_t i = 0; i < items && possible; i++) {
    p.chosen[i] = cheapest(&p, i);
    possible = p.chosen[i] != SIZE_MAX;
    if (possible) p.used += cost(&p, i, p.chosen[i])->bytes;
  }
  if (possible && p.used <= budget) {
    upgrade(&p, full);
    if (items * settings * items * settings <= most_pairs)
      for (size_t round = 0; round < 16 * items && exchange(&p); round++) {
      }
    double before = total_loss(&p, chosen), after = total_loss(&p, p.chosen);
    if (after < before || isnan(before)) memcpy(chosen, p.chosen, items * sizeof *chosen);
  }
  free(p.chosen);
  free(full);
  return GPTVQ_OK;
}
