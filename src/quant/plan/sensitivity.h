/* quant/plan/sensitivity.h: index bits and group sizes layer by layer, from measured layer errors and
 * gradients of the end loss. */
#ifndef GPTVQ_QUANT_PLAN_SENSITIVITY_H
#define GPTVQ_QUANT_PLAN_SENSITIVITY_H

#include "quant/layer/solver.h"
#include "train/guide.h"

typedef struct gptvq_allocated {
  unsigned index_bits;
  size_t group_size;
} gptvq_allocated;

typedef struct gptvq_allocation {
  size_t blocks;
  gptvq_allocated **layers;  /* [blocks][linear_count], owned */
  uint64_t bytes, budget;    /* of all linears with these settings, and what they might take: the options' own
                                and gptvq_allocation_spare */
  double loss, loss_uniform; /* predicted increase of the loss, nats per token: with these settings, with the
                                options' own */
} gptvq_allocation;

/* The layers' inputs are those of the original model on the windows, weighted by their `guide`. Every layer
 * (at most 256 of its rows, or one group of them) is quantized at each setting, without the refinements of
 * the full method (a trellis at the options' own size alone: what other sizes lose relates to that); error
 * times energy is the loss that gptvq_allocate works with. Layers that no token
 * reaches keep the options' sizes. hessian_budget: bytes of Hessians at a time, at least one is kept; more
 * take further passes. Options: not a uniform method. The members of the
 * solver's team deal out the blocks, and all get the same. The caller releases *out. */
gptvq_status gptvq_pipeline_allocate(const gptvq_solver *solver, const gptvq_model *model,
                                     const gptvq_token_windows *windows, const gptvq_guide *guide,
                                     size_t hessian_budget, const gptvq_standing *standing,
                                     gptvq_allocation *out, gptvq_error *err);
/* In that a linear is quantized at so many settings, each time with so many of its rows; 0, 0: it cannot be.
 */
void gptvq_allocation_trials(const gptvq_resolved *options, const gptvq_linear *linear, size_t *settings,
                             size_t *rows);
/* The options for that: without the refinements of the full method. */
gptvq_status gptvq_allocation_quick(const gptvq_resolved *options, gptvq_resolved *quick, gptvq_error *err);
/* Bytes at the peak while the linears of one input are measured, with its Hessian. */
double gptvq_allocation_input_bytes(const gptvq_resolved *options, const gptvq_block *block,
                                    const gptvq_linear_group *readers);
/* Bytes that all linears together may take beyond equal sizes, which seldom take all of `bits`. */
uint64_t gptvq_allocation_spare(const gptvq_model *model, const gptvq_resolved *options);
/* Not where all layers of a trellis have its smallest size and nothing is left. */
bool gptvq_allocation_has_choice(const gptvq_model *model, const gptvq_resolved *options);
void gptvq_allocation_release(gptvq_allocation *allocation); /* a zeroed struct is fine */

#endif
