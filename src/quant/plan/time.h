/* quant/plan/time.h: how long a run will take: operations counted from the shapes alone, divided by what this
 * machine does in two seconds. */
#ifndef GPTVQ_QUANT_PLAN_TIME_H
#define GPTVQ_QUANT_PLAN_TIME_H

#include "base/stages.h"
#include "model/model_internal.h"
#include "quant/plan/memory.h"

/* *plan: where inputs of output layers are kept, their half of a block runs once. Seconds of all the
 * context's threads together and flop of each stage into sums[GPTVQ_STAGES]; cpu_seconds stay 0. Options with
 * calib_length set. Not in it:
 * fine-tuning of blocks by themselves. The memory it measures reading with keeps within plan->peak.
 * GPTVQ_ERROR_MEMORY. */
gptvq_status gptvq_time_plan_make(const gptvq_model *model, const gptvq_resolved *options,
                                  const gptvq_backend *backend, const gptvq_memory_plan *plan,
                                  gptvq_stage_sum sums[GPTVQ_STAGES], gptvq_error *err);

/* Is a run so long that the measuring pays? From 4 TFLOP of its calibration tokens' way through the original
 * on. */
bool gptvq_time_plan_pays(const gptvq_model *model, const gptvq_resolved *options);

/* Of the gradients of the loss (gptvq_guide_create): each block forwards twice, as its activations are made
 * again, and once backwards, and the output head. */
typedef struct gptvq_gradient_flop {
  double calibrated; /* in the precision of the calibration */
  double plain;      /* in fp32 whatever that is: products inside attention, when it is run again and back */
} gptvq_gradient_flop;
gptvq_gradient_flop gptvq_gradient_flop_of(const gptvq_model *model, size_t windows, size_t length);

#endif
