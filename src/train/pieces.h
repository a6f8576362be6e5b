/* train/pieces.h: the pieces of a block for training, each forward and backward beside each other.
 * Descriptions are those of model/layer/, whose forward passes answer for speed on few tokens: here sums are
 * kept in double where that costs nothing, and whatever the backward pass asks for is left behind. */
#ifndef GPTVQ_TRAIN_PIECES_H
#define GPTVQ_TRAIN_PIECES_H

#include "train/train.h"

/* ---- linear.c: in the precision of the weights (gptvq_ft_weights.rounded) ---- */
/* y[tokens × rows] = x[tokens × cols] Wᵀ + b */
void gptvq_ft_linear_forward(const gptvq_ft_dims *dims, const gptvq_ft_weights *weights,
                             gptvq_ft_matrix matrix, size_t tokens, const float *x, float *y);
/* dW[rows × cols] = dyᵀ x */
void gptvq_ft_linear_gradient(const gptvq_ft_dims *dims, const gptvq_ft_weights *weights,
                              gptvq_ft_matrix matrix, size_t tokens, const float *dy, const float *x,
                              float *gradient);
/* dx[tokens × cols] = dy W */
void gptvq_ft_linear_backward(const gptvq_ft_dims *dims, const gptvq_ft_weights *weights,
                              gptvq_ft_matrix matrix, size_t tokens, const float *dy, float *dx);
/* A backward pass: through what, and where its gradients go. */
typedef struct gptvq_ft_back {
  const gptvq_ft_dims *dims;
  const gptvq_ft_weights *weights;
  gptvq_ft_tape *tape;
  gptvq_ft_weights *vectors;
  gptvq_ft_sink sink; /* or NULL */
  void *context;
} gptvq_ft_back;
/* A matrix's gradient and its bias's from watched->dy and x, its inputs, to the watch, the vectors and the
 * sink. */
void gptvq_ft_give(const gptvq_ft_back *back, const gptvq_ft_watched *watched, const float *x);
/* The same, and then the gradient of its inputs into dx; linear: of all tokens. tape->d_matrix holds the
 * matrix's gradient until the sink has seen it: dx may lie there. */
void gptvq_ft_matrix_backward(const gptvq_ft_back *back, const gptvq_ft_watched *watched, const float *x,
                              float *dx);
void gptvq_ft_linear_back(const gptvq_ft_back *back, gptvq_ft_matrix matrix, const float *dy, const float *x,
                          float *dx);
/* sum[i] += Σ_t a[t][i] (· b[t][i] · scale[t] where b is given), i < width, rows of so many values */
void gptvq_ft_add_columns(size_t tokens, size_t width, const float *a, const float *b, const float *scale,
                          float *sum);

/* ---- norm.c ---- */
/* Backward pass of y = gain ∘ x / rms(x) over tokens of dims->hidden values: gain_gradient += …; out = base +
 * dx (base may be NULL; out may be dy). scale: [tokens] 1 / rms. */
void gptvq_ft_norm_backward(const gptvq_ft_dims *dims, size_t tokens, const float *x, const float *gain,
                            const float *scale, const float *dy, const float *base, float *gain_gradient,
                            float *out);
/* The forward pass of the same. */
void gptvq_ft_norm_forward(const gptvq_ft_dims *dims, size_t tokens, const float *x, const float *gain,
                           float *y, float *scale);

/* The norms of the query or key heads, or of a latent vector (`place`), side by side in rows of x[tokens ×
 * ldx]. Backward: in place on the gradient; partial: [tokens / GPTVQ_FT_HEAD_CHUNK × gptvq_ft_norm_size]. */
enum { GPTVQ_FT_HEAD_CHUNK = 64 };
void gptvq_ft_heads_forward(const gptvq_ft_dims *dims, gptvq_norm_place place, size_t tokens, const float *x,
                            size_t ldx, const float *gain, float *y, size_t ldy);
void gptvq_ft_heads_backward(const gptvq_ft_dims *dims, gptvq_norm_place place, size_t tokens, const float *x,
                             size_t ldx, const float *gain, double *partial, float *gain_gradient,
                             float *gradient, size_t ldg);

/* ---- gate.c: rows gate | up of 2 · width values; product = activation(gate) · up ---- */
void gptvq_ft_gate_forward(gptvq_activation activation, size_t tokens, size_t width, const float *gate_up,
                           float *product);
void gptvq_ft_gate_backward(gptvq_activation activation, size_t tokens, size_t width, const float *gate_up,
                            const float *d_product, float *d_gate_up);

/* ---- attention.c ---- */
void gptvq_ft_attention_forward(const gptvq_ft_dims *dims, size_t tokens, const float *qkv, float *out,
                                float *lse, float *scratch);
/* gradient_qkv[tokens × gptvq_ft_core_width] is overwritten. */
void gptvq_ft_attention_backward(const gptvq_ft_dims *dims, size_t tokens, const float *qkv, const float *out,
                                 const float *lse, const float *gradient_out, float *gradient_qkv,
                                 float *scratch);
/* Floats of `scratch` above, for all threads. */
size_t gptvq_ft_attention_scratch(const gptvq_ft_dims *dims);
/* In place on the query and key heads in every row of x[tokens × ldx]; backward: the inverse rotation (×
 * attention factor, as the transposed map wants). Queries also get their position's scale. */
void gptvq_ft_rope(const gptvq_ft_dims *dims, size_t tokens, float *x, size_t ldx, bool backward);

/* ---- experts.c: a router, the MLPs that it sends tokens to, and the one beside them. The choice of experts
 * is taken as it is, their shares have gradients. ---- */
/* y[tokens × hidden] of x[tokens × hidden]; NaN where the router gives none. */
void gptvq_ft_experts_forward(const gptvq_ft_dims *dims, const gptvq_ft_weights *weights, gptvq_ft_tape *tape,
                              const float *x, float *y);
/* dx is overwritten; it may not be dy. */
void gptvq_ft_experts_backward(const gptvq_ft_back *back, const float *x, const float *dy, float *dx);

/* ---- core.c: between what the first matrix gives and what o reads ---- */
/* From tape->inputs[0]; returns the inputs of o. */
const float *gptvq_ft_core_forward(const gptvq_ft_dims *dims, const gptvq_ft_weights *weights,
                                   gptvq_ft_tape *tape);
/* dy: of the inputs of o; dx[tokens × hidden]: of tape->inputs[0], overwritten. */
void gptvq_ft_core_backward(const gptvq_ft_back *back, const float *dy, float *dx);

/* ---- latent.c: latent attention up to rows q | k | v, before rotation ---- */
/* From tape->inputs[0] into tape->qkv, and the rest. */
void gptvq_ft_latent_forward(const gptvq_ft_dims *dims, const gptvq_ft_weights *weights, gptvq_ft_tape *tape);
/* From the gradient of these rows, in tape->d_wide, into tape->d_made. */
void gptvq_ft_latent_backward(const gptvq_ft_back *back);

/* ---- delta.c: gated delta nets, model/layer/delta.h ---- */
/* Floats of the states that the backward pass begins its parts of a window with. */
size_t gptvq_ft_delta_states(const gptvq_ft_dims *dims, size_t tokens);
/* From tape->made and tape->delta_gates into tape->qkv and tape->core. */
void gptvq_ft_delta_forward(const gptvq_ft_dims *dims, gptvq_ft_tape *tape);
/* Floats of tape->attention_scratch, for all threads. */
size_t gptvq_ft_delta_scratch(const gptvq_ft_dims *dims);
/* From dy of tape->core, which may not be tape->d_wide, into tape->d_made and tape->d_gates. */
void gptvq_ft_delta_backward(const gptvq_ft_dims *dims, gptvq_ft_tape *tape, const float *dy);

/* The derivative of y = cap · tanh(x / cap) (gptvq_soft_cap), by y; cap 0: there is none. */
static inline float gptvq_ft_cap_slope(float cap, float y) {
  return cap > 0.0f ? 1.0f - y / cap * (y / cap) : 1.0f;
}

/* exp within 2 ulp; NaN stays NaN; below −87 it gives e^−87. Straight-line code, so that
 * compilers vectorise it. */
static inline float gptvq_ft_exp(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  const float magic = 12582912.0f; /* 1.5 · 2^23: adding it rounds to an integer in the low bits */
  float shifted = x * 1.44269504f + magic, n = shifted - magic;
  float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.0f / 5040.0f;
  p = p * r + 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return p * gptvq_bits_float((gptvq_float_bits(shifted) - gptvq_float_bits(magic) + 127u) << 23);
}

#endif
