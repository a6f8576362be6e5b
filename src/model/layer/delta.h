/* model/layer/delta.h: gated delta nets, a linear attention with a state in place of keys and values (arXiv
 * 2412.06464): a causal depth-wise convolution over q | k | v, the gated delta rule, a gated RMS norm. */
#ifndef GPTVQ_MODEL_LAYER_DELTA_H
#define GPTVQ_MODEL_LAYER_DELTA_H

#include "model/arch/config.h"
#include "model/layer/attention.h"

/* Beside its linears; fp32. */
typedef struct gptvq_delta_weights {
  const float *taps; /* [kernel][gptvq_delta_columns]: of the convolution, those of the oldest row first */
  const float *rate; /* [value_heads]: −exp(A_log) */
  const float *time_bias; /* [value_heads] */
  const float *norm;      /* [value_dim]: gain of the norm of each head's output */
} gptvq_delta_weights;

/* Columns q | k | v that the convolution takes; values of a row of outputs; floats of one text's state, which
 * is [kernel − 1][columns] rows that the convolution still sees, and [value_heads][key_dim][value_dim]. */
static inline size_t gptvq_delta_outputs(const gptvq_delta_sizes *sizes) {
  return sizes->value_heads * sizes->value_dim;
}
static inline size_t gptvq_delta_columns(const gptvq_delta_sizes *sizes) {
  return 2 * sizes->key_heads * sizes->key_dim + gptvq_delta_outputs(sizes);
}
static inline size_t gptvq_delta_state(const gptvq_delta_sizes *sizes) {
  return (sizes->kernel - 1) * gptvq_delta_columns(sizes) + gptvq_delta_outputs(sizes) * sizes->key_dim;
}

/* One call: n rows q | k | v | z as the linears give them, and the texts that they are of, in order. With x
 * the rows after the convolution and silu, of each value head h, whose key head is h / (value_heads /
 * key_heads): g = exp(rate · softplus(a + time_bias)), β = sigmoid(b), k = k / ‖k‖, q = q / ‖q‖ / √key_dim,
 *   S ← g S + β k (v − g kᵀ S)ᵀ, out = norm(qᵀ S) · silu(z)
 * S, [key_dim × value_dim], and what the convolution sees of earlier rows are zero at a text's first
 * position; they come from text->state and go to text->next_state, which may be the same. */
typedef struct gptvq_delta_rows {
  const gptvq_delta_sizes *sizes;
  const gptvq_delta_weights *weights;
  float eps;
  const gptvq_attention_text *texts;
  size_t count, n;
  float *mixed; /* [n × ldm], overwritten */
  size_t ldm;
  const float *gates; /* [n × 2 · value_heads]: a | b */
  float *out;         /* [n × gptvq_delta_outputs] */
} gptvq_delta_rows;

/* Threaded; the same numbers for any number of threads, and for any cut of a text into calls. */
void gptvq_delta_net_rows(const gptvq_delta_rows *rows);

#endif
