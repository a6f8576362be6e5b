/* quant/plan/memory.h: how much memory a run will take, from the shapes alone: docs/METHOD.md, "Memory". */
#ifndef GPTVQ_QUANT_PLAN_MEMORY_H
#define GPTVQ_QUANT_PLAN_MEMORY_H

#include "model/model_internal.h"
#include "quant/layer/solver.h"

/* Bytes that quantizing takes at its peak beside the mapped files and kept_budget, without the gradients of
 * `allocate` and `guide` and without fine-tuning of the whole model. calib_length set. The sum of the
 * `_bytes` functions beside the allocations. */
double gptvq_pipeline_peak(const gptvq_model *model, const gptvq_resolved *options, bool two_streams,
                           size_t hessian_budget);
/* true and one line that says so and what to do when `peak` exceeds what is available (0: unknown).
 * without_mismatch: the peak then. */
bool gptvq_memory_warning(double peak, double without_mismatch, double available, char *text, size_t size);

#endif
