/* train/guide.h: how much the end loss feels each linear's output, by one backward pass through the original
 * model.
 *
 * With L = Σ −log p(next token) over the calibration windows and z the outputs of a linear, the expected
 * increase of L by an error E of its weights is, to second order and with the empirical Fisher information
 * for the Hessian, ½ Σ_t Σ_i (∂L/∂z_ti)² (E x_t)_i². The squares are averaged over the outputs i: what is
 * left is a weight for each token and a scale for each linear. An expert's gradients are its share times
 * those of what the experts give together: its tokens weigh share² times what they weigh for all experts,
 * whichever experts the quantized model sends them to. docs/METHOD.md, "Guided Hessians". */
#ifndef GPTVQ_TRAIN_GUIDE_H
#define GPTVQ_TRAIN_GUIDE_H

#include "calib/observers.h"
#include "dist/dist.h"

typedef struct gptvq_guide {
  size_t blocks, inputs, tokens; /* inputs: GPTVQ_INPUTS, or with latent attention GPTVQ_ALL_INPUTS */
  double power;
  float *weights;  /* [blocks][inputs][tokens]: mean over the tokens 1 (all 1 when no gradient
                      arrives), owned. Of experts: before the square of an expert's share, to the same power */
  double **energy; /* [blocks][linear_count]: mean over tokens and outputs of (∂L/∂z)², owned */
  double loss;     /* mean −log p(next token), nats */
} gptvq_guide;

/* Windows of at least 2 tokens; products in the model's precision (`compute`). weights are tempered: (mean
 * square)^power before they are normalised; power 0: all 1. Memory: the block inputs of as many windows as
 * fit into `budget` bytes (at least one), the fp32 weights of one block, and the head as its products take
 * it. dist: whose members deal out the windows, with one result for all; NULL: alone. GPTVQ_ERROR_NUMERIC:
 * the loss is not finite. The caller releases *out. Progress is reported as ("quantize", item, done, total)
 * after each window. */
gptvq_status gptvq_guide_create(const gptvq_model *model, const gptvq_token_windows *windows, double power,
                                size_t budget, gptvq_dist *dist, const gptvq_standing *standing,
                                gptvq_guide *out, gptvq_error *err);
/* Bytes that it takes at its peak, and that are left in *out. */
double gptvq_guide_peak(const gptvq_model *model, size_t windows, size_t length, size_t budget);
double gptvq_guide_bytes(const gptvq_model *model, size_t windows, size_t length);
void gptvq_guide_release(gptvq_guide *guide); /* a zeroed struct is fine */

/* [tokens] of one input of a block */
static inline float *gptvq_guide_weights(const gptvq_guide *guide, size_t block, gptvq_block_input input) {
  return guide->weights + (block * guide->inputs + (size_t)input) * guide->tokens;
}
/* For an observer of that input; windows of `length` tokens. */
static inline gptvq_token_weights gptvq_guide_watch(const gptvq_guide *guide, size_t block,
                                                    gptvq_block_input input, size_t length) {
  return (gptvq_token_weights){gptvq_guide_weights(guide, block, input), length, (float)(2.0 * guide->power)};
}

#endif
