/* quant/plan/allocate.h: one setting for each layer under a budget of bytes. */
#ifndef GPTVQ_QUANT_PLAN_ALLOCATE_H
#define GPTVQ_QUANT_PLAN_ALLOCATE_H

#include "base/status.h"

typedef struct gptvq_setting_cost {
  uint64_t bytes;
  double loss;
} gptvq_setting_cost;

/* costs[items × settings]; settings with a loss that is not finite cannot be chosen. chosen[items]: on entry
 * any choice within the budget (the fallback); on success the choices with small Σ loss and Σ bytes <=
 * budget: upgrades along the lower convex hull of every item in the order of their loss per byte, then
 * exchanges of single items and of pairs while one gains. Optimal where all steps of the hulls have the same
 * size. Never worse than the entry. Deterministic. GPTVQ_ERROR_MEMORY. */
gptvq_status gptvq_allocate(size_t items, size_t settings, const gptvq_setting_cost *costs, uint64_t budget,
                            size_t *chosen, gptvq_error *err);

#endif
