/* calib/mismatch.h: targets that make up for what quantization has already done to a layer's inputs.
 *
 * A layer of the original model sees x_o, the same layer of the quantized model sees x. The least-squares
 * match of W x_o by W' x is W' = W + W A (H + λ)⁻¹ with A = mean (x_o − x) xᵀ and H = mean x xᵀ. A layer that
 * adds to the residual stream can also make up for the stream's own error r = s_o − s: plus D (H + λ)⁻¹ with
 * D = mean r xᵀ. There W x_o is known, the stream has just gained it: one product with as many rows as the
 * layer has, mean (α W x_o + β r) xᵀ = α W (A + H) + β D, says all. docs/METHOD.md, "Mismatch". */
#ifndef GPTVQ_CALIB_MISMATCH_H
#define GPTVQ_CALIB_MISMATCH_H

#include "dist/dist.h"
#include "linalg/solve/backend.h"
#include "linalg/solve/factored.h"

typedef struct gptvq_mismatch {
  const gptvq_linalg *linalg;
  size_t cols, rows, tokens;         /* rows: of the residual stream, 0 = the layer does not write to it */
  double inputs_share, stream_share; /* α, β */
  double *sums; /* Σ (x_o − x) xᵀ [cols × cols], or with rows Σ (α W x_o + β r) xᵀ [rows × cols], over the
                   groups of tokens that are complete; NULL after _end */
  double *part;      /* the same over the present group's; NULL after _gather and _end */
  float *map;        /* after _end: means of the sums; after _divide: A (H + λ)⁻¹, or with rows what the
                        weights gain; same shapes */
  float *difference; /* of so many tokens as are worked on together; NULL after _end */
} gptvq_mismatch;

size_t gptvq_mismatch_bytes(size_t cols, size_t rows);          /* of _init; SIZE_MAX on overflow */
size_t gptvq_mismatch_map_bytes(size_t cols, size_t rows);      /* what is left of them after _end */
size_t gptvq_mismatch_divide_bytes(size_t padded, size_t rows); /* scratch of _divide */
size_t gptvq_mismatch_apply_bytes(size_t cols,
                                  size_t rows); /* scratch of _apply to a linear of so many rows */
/* Zeros. Shares: how much of the deviation of the inputs, and of the stream (with rows only), is made up for.
 * `name`: the layer, for messages. On failure nothing is left allocated. */
gptvq_status gptvq_mismatch_init(gptvq_mismatch *mismatch, const gptvq_linalg *linalg, size_t cols,
                                 size_t rows, double inputs_share, double stream_share, const char *name,
                                 gptvq_error *err);
/* What n tokens were in the original model, and are. */
typedef struct gptvq_deviation {
  size_t n;
  const float *x_original,
      *x; /* [n × cols] (ignored with rows), [n × ldx] (ldx >= cols): inputs of the layer */
  size_t ldx;
  /* [n × rows], ignored without rows: the original's stream before the layer adds to it and afterwards, the
   * present one before */
  const float *stream_original, *stream_after, *stream;
  const float *bias;   /* [rows]: the layer's, no part of W x_o; NULL: none */
  float scale;         /* of what the layer gives on its way to the stream */
  const float *weight; /* [n] the tokens' weights in all means; NULL: 1 */
} gptvq_deviation;
/* The result depends on how tokens are cut into calls, not on the number of threads. */
gptvq_status gptvq_mismatch_add(gptvq_mismatch *mismatch, const gptvq_deviation *tokens, gptvq_error *err);
/* The same without rows and weights, where the backend remembers (gptvq_linalg.remember) what the n tokens'
 * inputs were. */
bool gptvq_mismatch_remembers(const gptvq_mismatch *mismatch);
gptvq_status gptvq_mismatch_add_change(gptvq_mismatch *mismatch, size_t n, const float *x, size_t ldx,
                                       gptvq_error *err);
/* As gptvq_hessian_add_group and gptvq_hessian_gather. */
gptvq_status gptvq_mismatch_add_group(gptvq_mismatch *mismatch, gptvq_dist *dist, const gptvq_deal *deal,
                                      size_t round, gptvq_error *err);
gptvq_status gptvq_mismatch_gather(gptvq_mismatch *mismatch, gptvq_dist *dist, gptvq_error *err);
/* No more tokens. */
gptvq_status gptvq_mismatch_end(gptvq_mismatch *mismatch, gptvq_error *err);
/* After _end. factored: mean x xᵀ over the same tokens, with λ. weights[rows × cols]: the layer's, with rows
 * only. What remains of α W (A + H) + β D without α W H is little; taken in fp32, as far as sums of bf16
 * products know it (docs/METHOD.md has a figure). Without a factor, or tokens, maps are zero, and the layer
 * stays as it is. */
gptvq_status gptvq_mismatch_divide(gptvq_mismatch *mismatch, const gptvq_factored *factored,
                                   const float *weights, const char *name, gptvq_error *err);
/* weights[rows × cols] += α W A (H + λ)⁻¹ + β D (H + λ)⁻¹ (the latter only where the layer writes to the
 * stream: then rows must be those of the stream). */
gptvq_status gptvq_mismatch_apply(const gptvq_mismatch *mismatch, size_t rows, float *weights,
                                  const char *name, gptvq_error *err);
void gptvq_mismatch_release(gptvq_mismatch *mismatch); /* a zeroed struct is fine */

#endif
