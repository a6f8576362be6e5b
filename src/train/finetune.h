/* train/finetune.h: after a block's linears are quantized, its continuous parameters (codebooks, uniform
 * scales, norms, biases) are optimised by back-propagation through the block, so that its outputs on the
 * quantized model's activations match those of the original block on the original model's activations.
 * Indices stay as they are unless index_rate is given. Formulas: docs/METHOD.md. */
#ifndef GPTVQ_TRAIN_FINETUNE_H
#define GPTVQ_TRAIN_FINETUNE_H

#include "calib/sweep.h"

typedef struct gptvq_finetune_options {
  size_t steps;          /* Adam steps at most */
  size_t batch;          /* windows per step */
  size_t holdout;        /* the last windows, never trained on, which decide what parameters are kept */
  size_t evaluate_every; /* steps between two looks at the held-out windows */
  /* Stop after so many looks without a new best. Each halves the rates, and training goes on from the best
   * values (not where indices are trained, whose shadow values have no such record). */
  size_t patience;
  double table_rate;  /* learning rate of codebooks and scales, relative to a codebook's rms value */
  double vector_rate; /* of norms and biases, relative to the vector's rms value; 0 = leave them */
  double index_rate; /* learning rate of the weights behind the indices, relative to a codebook's rms value; 0
                        = indices stay */
  double index_pull; /* where those weights start: 0 = at the quantized, 1 = at the original weights */
  size_t max_tokens; /* tokens that go through the block at once: bounds the memory */
  gptvq_compute compute; /* BF16: the factors of products are rounded, where the processor has instructions */
  uint64_t seed;
  gptvq_dtype vector_dtype; /* precision that norms and biases are kept at */
  /* of the whole model, which are not trained; NULL: the original's */
  const gptvq_linear *embedding, *head;
  gptvq_stream_place place; /* of the original model's final hidden states */
} gptvq_finetune_options;
void gptvq_finetune_options_init(gptvq_finetune_options *options);

typedef struct gptvq_finetune_result {
  /* Σ‖block(x) − target‖² / Σ‖target − mean target‖² over the held-out windows (the training windows when
   * there are none) */
  double before, after;
  size_t steps, best_step; /* best_step 0: nothing was gained and the block is as it was */
  double seconds;
} gptvq_finetune_result;

/* Windows on their way into a block, and what it should make of them: [length × hidden] each. */
typedef struct gptvq_block_windows {
  size_t count, length;
  const gptvq_stream *inputs, *targets;
} gptvq_block_windows;

/* The block's packed codebooks and scales, its norms and its biases are overwritten: the caller has put
 * writable memory there (a linear's bias may be shared by no other block). The same bytes for any number of
 * threads. The block is left as it was on failure and when nothing is gained. GPTVQ_ERROR_NUMERIC: NaN in
 * inputs or targets. GPTVQ_ERROR_DATA: too few windows; what reading the windows returns. */
gptvq_status gptvq_finetune_block(const gptvq_model *model, gptvq_block *block,
                                  const gptvq_block_windows *windows, const gptvq_finetune_options *options,
                                  const gptvq_callbacks *callbacks, gptvq_finetune_result *result,
                                  gptvq_error *err);

/* Bytes of one packed linear's trained values, with what training keeps of each, and of its tables and
 * scales. */
double gptvq_finetune_linear_bytes(const gptvq_packed_shape *shape);
/* Bytes that it takes at its peak beside the windows; linears: the block's gptvq_finetune_linear_bytes. */
double gptvq_finetune_block_peak(const gptvq_model *model, const gptvq_block *block, size_t length,
                                 double linears, const gptvq_finetune_options *options);

/* The whole model at once: the continuous parameters of all blocks and the final norm are optimised so that
 * the quantized model's next token distribution matches the original's: mean KL divergence over all positions
 * of the windows. blocks: [layers] copies of the original's blocks whose linears are packed, writable as
 * above, the indices only where they are trained; final_norm[hidden] is writable. result->before and after
 * are nats per token over the held-out windows. Of weights, and of what the backward pass needs of the
 * forward pass, those of one block at a time are in memory: the inputs of all blocks are kept, the rest is
 * computed again. Pages of both models' files are given back block by block. */
gptvq_status gptvq_finetune_model(const gptvq_model *original, gptvq_block *blocks, float *final_norm,
                                  const gptvq_token_windows *windows, const gptvq_finetune_options *options,
                                  const gptvq_callbacks *callbacks, gptvq_finetune_result *result,
                                  gptvq_error *err);

/* Bytes that gptvq_finetune_model needs beside the mappings of files, those of tables and scales included;
 * linears: all gptvq_finetune_linear_bytes. SIZE_MAX on overflow. */
size_t gptvq_finetune_model_bytes(const gptvq_model *original, double linears, size_t windows, size_t length,
                                  const gptvq_finetune_options *options);

#endif
