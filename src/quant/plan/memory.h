/* quant/plan/memory.h: how much memory a run will take, from the shapes alone, and how it keeps within a
 * limit: docs/METHOD.md, "Memory". */
#ifndef GPTVQ_QUANT_PLAN_MEMORY_H
#define GPTVQ_QUANT_PLAN_MEMORY_H

#include "calib/calib.h"
#include "model/model_internal.h"
#include "quant/layer/solver.h"

/* ---- what a run will do: of options for the model, calib_length set ---- */
bool gptvq_run_uses_data(const gptvq_resolved *options);
/* Are the two streams to be compared? */
bool gptvq_run_corrects(const gptvq_resolved *options);
/* Does nobody look at what the block makes of its input? */
bool gptvq_run_ends_with(const gptvq_resolved *options, const gptvq_model *model, const gptvq_block *block);
/* Are the inputs of these layers worth keeping, to save running their half of the block again? */
bool gptvq_run_keeps(const gptvq_resolved *options, const gptvq_model *model, const gptvq_block *block,
                     gptvq_block_input input);
/* Does anything need the original model's activations? */
bool gptvq_run_keeps_both(const gptvq_resolved *options);
/* Are tokens weighted by the gradients of the loss, sizes chosen layer by layer, blocks fine-tuned? */
bool gptvq_run_is_guided(const gptvq_resolved *options);
bool gptvq_run_allocates(const gptvq_resolved *options);
bool gptvq_run_tunes_blocks(const gptvq_resolved *options);
/* Are activations kept in bf16? The choice is part of the run: it does not depend on memory. */
static inline bool gptvq_run_keeps_half(const gptvq_resolved *options) {
  return options->options.calib_compute == GPTVQ_COMPUTE_BF16;
}

/* ---- memory ---- */
/* How many windows sizes are chosen by, and which of all the i-th one of `count` is: one of each part of
 * equal length, at changing places of it, as sources take turns. */
size_t gptvq_allocation_windows(const gptvq_quantize_options *options);
size_t gptvq_allocation_window(size_t i, size_t count, size_t windows);

typedef enum gptvq_memory_phase {
  GPTVQ_MEMORY_TEXT,      /* calibration tokens */
  GPTVQ_MEMORY_GRADIENTS, /* sensitivities, token weights */
  GPTVQ_MEMORY_BLOCKS,
  GPTVQ_MEMORY_TUNING, /* of the whole model */
  GPTVQ_MEMORY_JUDGE,  /* losses at the end */
  GPTVQ_MEMORY_PHASES
} gptvq_memory_phase;
/* "calibration text"; static storage */
const char *gptvq_memory_phase_name(gptvq_memory_phase phase);

typedef struct gptvq_memory_plan {
  bool scratch;          /* activations lie in scratch files */
  double scratch_bytes;  /* of disk, then */
  size_t hessian_budget; /* bytes of Hessians kept at a time */
  size_t kept_budget;    /* of layer inputs kept to save forward passes */
  gptvq_text_room room;  /* while the model writes its windows; the text depends on room.caches */
  size_t guide_budget;   /* of block inputs kept for gradients */
  /* resident bytes at the peak of each phase, with what the process has before; 0: there is no such phase */
  double phases[GPTVQ_MEMORY_PHASES];
  double peak;  /* the largest of them */
  double least; /* the peak could not be lower */
} gptvq_memory_plan;

/* windows: whose activations this process keeps: calib_samples, or its part of them in a team.
 * The plan that keeps within `limit` bytes (0: unknown, no limit) if there is one, else that of plan->least.
 * With `all` what is left may be used for layer inputs, else half of it: available memory is not ours alone.
 * Only with `all` does room.caches depend on the limit. `resident`: what the process has now. The sum of the
 * `_bytes` functions beside the allocations, and of the pages of the model's files that are looked at. */
void gptvq_memory_plan_make(const gptvq_model *model, const gptvq_resolved *options, size_t windows,
                            double resident, double limit, bool all, gptvq_memory_plan *plan);
/* Bytes that the blocks take at their peak beside mapped files, streams in memory included, without what is
 * kept to save forward passes. */
double gptvq_blocks_peak(const gptvq_model *model, const gptvq_resolved *options, bool two_streams,
                         size_t hessian_budget);

/* true and one line that says so and what to do when `peak` exceeds what is available (0: unknown).
 * without_mismatch: the peak then. */
bool gptvq_memory_warning(double peak, double without_mismatch, double available, char *text, size_t size);

#endif
