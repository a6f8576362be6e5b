/* train/pieces.h: the pieces of a block for training, each forward and backward beside each other.
 * Descriptions are those of model/layer/, whose forward passes answer for speed on few tokens: here sums are
 * kept in double where that costs nothing, and whatever the backward pass asks for is left behind. */
#ifndef GPTVQ_TRAIN_PIECES_H
#define GPTVQ_TRAIN_PIECES_H

#include "train/train.h"

/* ---- linear.c ---- */
/* y[tokens × rows] = x[tokens × cols] Wᵀ + b */
void gptvq_ft_linear_forward(const gptvq_ft_dims *dims, const gptvq_ft_weights *weights,
                             gptvq_ft_matrix matrix, size_t tokens, const float *x, float *y);
/* dW[rows × cols] = dyᵀ x */
void gptvq_ft_linear_gradient(const gptvq_ft_dims *dims, gptvq_ft_matrix matrix, size_t tokens,
                              const float *dy, const float *x, float *gradient);
/* dx[tokens × cols] = dy W */
void gptvq_ft_linear_backward(const gptvq_ft_dims *dims, const gptvq_ft_weights *weights,
                              gptvq_ft_matrix matrix, size_t tokens, const float *dy, float *dx);
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

/* The norms of the query or key heads (`place`), side by side in rows of `ld` values. Backward: in place on
 * the gradient; partial: [tokens / GPTVQ_FT_HEAD_CHUNK × gptvq_ft_norm_size]. */
enum { GPTVQ_FT_HEAD_CHUNK = 64 };
void gptvq_ft_heads_forward(const gptvq_ft_dims *dims, gptvq_norm_place place, size_t tokens, size_t ld,
                            const float *x, const float *gain, float *y);
void gptvq_ft_heads_backward(const gptvq_ft_dims *dims, gptvq_norm_place place, size_t tokens, size_t ld,
                             const float *x, const float *gain, double *partial, float *gain_gradient,
                             float *gradient);

/* ---- gate.c: rows gate | up of 2 · width values; product = activation(gate) · up ---- */
void gptvq_ft_gate_forward(gptvq_activation activation, size_t tokens, size_t width, const float *gate_up,
                           float *product);
void gptvq_ft_gate_backward(gptvq_activation activation, size_t tokens, size_t width, const float *gate_up,
                            const float *d_product, float *d_gate_up);

/* ---- attention.c ---- */
void gptvq_ft_attention_forward(const gptvq_ft_dims *dims, size_t tokens, const float *qkv, float *out,
                                float *lse, float *scratch);
/* gradient_qkv[tokens × rows(QKV)] is overwritten. */
void gptvq_ft_attention_backward(const gptvq_ft_dims *dims, size_t tokens, const float *qkv, const float *out,
                                 const float *lse, const float *gradient_out, float *gradient_qkv,
                                 float *scratch);
/* Floats of `scratch` above, for all threads. */
size_t gptvq_ft_attention_scratch(const gptvq_ft_dims *dims);
/* In place on the query and key heads in every row of x[tokens × ldx]; backward: the inverse rotation (×
 * attention factor, as the transposed map wants). Queries also get their position's scale. */
void gptvq_ft_rope(const gptvq_ft_dims *dims, size_t tokens, float *x, size_t ldx, bool backward);

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
