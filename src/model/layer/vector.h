/* model/layer/vector.h: the element-wise and short-reduction work of the forward pass, compiled once per CPU
 * level (multi/vector.c). Sums run in 16 fixed lanes: the same bits at every level. Lengths in elements;
 * vectors need no alignment. */
#ifndef GPTVQ_MODEL_LAYER_VECTOR_H
#define GPTVQ_MODEL_LAYER_VECTOR_H

#include "base/multi.h"
#include "model/arch/config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* y = x / sqrt(mean(x²) + eps) · weight; y may be x. (RMSNorm, arXiv 1910.07467) False when the sum of
 * squares is no finite number, because x holds NaN, infinity or numbers too large: y is NaN then, not zero.
 */
GPTVQ_MULTI_DECLARE(bool, gptvq_rms_norm, size_t n, const float *x, const float *weight, float eps, float *y);
/* gate = silu(gate) · up, silu(x) = x / (1 + exp(−x)) */
GPTVQ_MULTI_DECLARE(void, gptvq_silu_mul, size_t n, float *gate, const float *up);
/* x = silu(x) */
GPTVQ_MULTI_DECLARE(void, gptvq_silu, size_t n, float *x);
/* x = x · sigmoid(gate) */
GPTVQ_MULTI_DECLARE(void, gptvq_sigmoid_mul, size_t n, const float *gate, float *x);
/* y = x · scale / sqrt(Σ x² + 1e-6) */
GPTVQ_MULTI_DECLARE(void, gptvq_l2_norm, size_t n, const float *x, float scale, float *y);
/* gate = gelu(gate) · up, gelu(x) = x / (1 + exp(−2u)) with u = √(2/π) (x + 0.044715 x³): the "tanh" form */
GPTVQ_MULTI_DECLARE(void, gptvq_gelu_mul, size_t n, float *gate, const float *up);
/* g · (u + 1) / (1 + exp(−GPTVQ_SWIGLU_ALPHA g)) with g = gate and u = up, held below GPTVQ_SWIGLU_LIMIT, up
 * also above its negative (gpt-oss) */
GPTVQ_MULTI_DECLARE(void, gptvq_clamped_mul, size_t n, float *gate, const float *up);
/* x = cap · tanh(x / cap), within a few ulp of each result */
GPTVQ_MULTI_DECLARE(void, gptvq_soft_cap, size_t n, float cap, float *x);
/* y += a · x */
GPTVQ_MULTI_DECLARE(void, gptvq_add_scaled, size_t n, float a, const float *x, float *y);
/* Rotates the pairs (a[i], b[i]) by the angles whose cosines and sines are given, i < half; with a and b
 * exchanged, back. */
GPTVQ_MULTI_DECLARE(void, gptvq_rotate, size_t half, const float *cosines, const float *sines, float *a,
                    float *b);
/* x = exp(x − shift), returns the sum; n may be 0. Relative error of exp below 2 ulp; results below 2^-126
 * are flushed to about that. */
GPTVQ_MULTI_DECLARE(float, gptvq_exp_sum, size_t n, float shift, float *x);
/* the largest element; −infinity for n = 0 */
GPTVQ_MULTI_DECLARE(float, gptvq_max, size_t n, const float *x);
/* A softmax over keys that come a few at a time: the largest score so far, −infinity to begin with, and the
 * sum of exponentials relative to it. */
typedef struct gptvq_softmax {
  float maximum, sum;
} gptvq_softmax;
/* Attention in three steps (multi/attend.c), the first and the last of several queries that read the same
 * keys and values. Scores scale · q·k of each, for `count` keys [count × dim]. */
GPTVQ_MULTI_DECLARE(void, gptvq_attend_scores, size_t queries, size_t count, size_t dim, float scale,
                    const float *const *q, const float *keys, float *const *scores);
/* Scores, capped (gptvq_soft_cap) unless cap is 0, become exp(score − maximum) and go into the sum; where the
 * maximum rises, sum and out[dim] are brought down to it. */
GPTVQ_MULTI_DECLARE(void, gptvq_attend_soften, size_t count, float cap, float *scores, gptvq_softmax *run,
                    size_t dim, float *out);
/* Of each out[dim] += Σ weights[j] · values[j × dim …]; out / sum is the result */
GPTVQ_MULTI_DECLARE(void, gptvq_attend_values, size_t queries, size_t count, size_t dim,
                    const float *const *weights, const float *values, float *const *out);
/* One step of the gated delta rule: with S the state `from`, change = beta · (v − decay · kᵀ S), the state
 * `to`, which may be `from`, is decay · S + k changeᵀ, and out = qᵀ `to`. States are [key_dim × value_dim]; v
 * and out [value_dim], apart from all else. */
typedef struct gptvq_delta_step {
  size_t key_dim, value_dim;
  float decay, beta;
  const float *q, *k; /* [key_dim] */
} gptvq_delta_step;
GPTVQ_MULTI_DECLARE(void, gptvq_delta_rule, const gptvq_delta_step *step, const float *from, const float *v,
                    float *to, float *out);
/* fp32 to fp16, to nearest even; what is too large becomes NaN: an infinite key could make a score of
 * −infinity, which passes for a small one. */
GPTVQ_MULTI_DECLARE(void, gptvq_to_half, size_t n, const float *x, uint16_t *half);
/* Are all numbers finite? */
GPTVQ_MULTI_DECLARE(bool, gptvq_all_finite, size_t n, const float *x);

#endif
