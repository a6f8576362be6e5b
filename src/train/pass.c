/* A block forward and backward: the order of its pieces. */
#include "train/pieces.h"

#include "model/layer/norm.h"

#include <string.h>

/* y = x + the outputs of a half's last linear, normalised where a norm stands behind it, and scaled */
static void output_forward(const gptvq_ft_dims *d, const gptvq_ft_weights *weights, gptvq_ft_tape *tape,
                           bool mlp, const float *input, const float *x, float *y) {
  const gptvq_ft_matrix matrix = mlp ? GPTVQ_FT_DOWN : GPTVQ_FT_O;
  const gptvq_norm_place behind = gptvq_norm_behind((gptvq_block_input)matrix);
  float *out = d->has_norm[behind] ? tape->unnormed[mlp] : y;
  gptvq_ft_linear_forward(d, weights, matrix, tape->tokens, input, out);
  if (d->has_norm[behind])
    gptvq_ft_norm_forward(d, tape->tokens, out, weights->norm[behind], y, tape->out_inverse_rms[mlp]);
  gptvq_scale_values(tape->tokens * d->hidden, d->residual_scale, y);
  gptvq_add_rows(tape->tokens, d->hidden, 1.0f, x, y);
}

/* What a half reads of x, normalised where a norm stands before it. */
static const float *input_forward(const gptvq_ft_dims *d, const gptvq_ft_weights *weights,
                                  gptvq_ft_tape *tape, bool mlp, const float *x) {
  const gptvq_norm_place before = mlp ? GPTVQ_NORM_MLP : GPTVQ_NORM_ATTENTION;
  tape->inputs[mlp] = d->has_norm[before] ? tape->normed[mlp] : x;
  if (d->has_norm[before])
    gptvq_ft_norm_forward(d, tape->tokens, x, weights->norm[before], tape->normed[mlp],
                          tape->inverse_rms[mlp]);
  return tape->inputs[mlp];
}

const float *gptvq_ft_forward(const gptvq_ft_dims *d, const gptvq_ft_weights *weights, gptvq_ft_tape *tape,
                              size_t tokens, const float *x) {
  float *const *norm = weights->norm;
  size_t width = gptvq_ft_rows(d, GPTVQ_FT_QKV), keys = d->heads * d->head_dim;
  tape->x = x;
  tape->tokens = tokens;
  const float *in = input_forward(d, weights, tape, false, x);
  gptvq_ft_linear_forward(d, weights, GPTVQ_FT_QKV, tokens, in, tape->qkv);
  if (tape->raw != NULL) memcpy(tape->raw, tape->qkv, tokens * width * sizeof(float));
  if (d->has_norm[GPTVQ_NORM_Q])
    gptvq_ft_heads_forward(d, GPTVQ_NORM_Q, tokens, width, tape->raw, norm[GPTVQ_NORM_Q], tape->qkv);
  if (d->has_norm[GPTVQ_NORM_K])
    gptvq_ft_heads_forward(d, GPTVQ_NORM_K, tokens, width, tape->raw + keys, norm[GPTVQ_NORM_K],
                           tape->qkv + keys);
  gptvq_ft_rope(d, tokens, tape->qkv, width, false);
  gptvq_ft_attention_forward(d, tokens, tape->qkv, tape->attention, tape->lse, tape->attention_scratch);
  output_forward(d, weights, tape, false, tape->attention, x, tape->middle);
  in = input_forward(d, weights, tape, true, tape->middle);
  gptvq_ft_linear_forward(d, weights, GPTVQ_FT_GATE_UP, tokens, in, tape->gate_up);
  gptvq_ft_gate_forward(d->activation, tokens, d->intermediate, tape->gate_up, tape->product);
  output_forward(d, weights, tape, true, tape->product, tape->middle, tape->out);
  return tape->out;
}

/* Gradients of a matrix and its bias from dy, the gradient of its outputs, and x, its inputs; then that of
 * its inputs into dx. d_matrix holds the matrix's gradient until the sink has seen it: dx may lie there. */
static void linear_backward(const gptvq_ft_dims *d, const gptvq_ft_weights *weights, gptvq_ft_tape *tape,
                            gptvq_ft_matrix matrix, const float *dy, const float *x,
                            gptvq_ft_weights *vectors, gptvq_ft_sink sink, void *context, float *dx) {
  size_t rows = gptvq_ft_rows(d, matrix);
  if (vectors->bias[matrix] != NULL)
    gptvq_ft_add_columns(tape->tokens, rows, dy, NULL, NULL, vectors->bias[matrix]);
  if (tape->watch != NULL) tape->watch(tape->watch_context, matrix, tape->tokens, rows, dy);
  if (sink != NULL) {
    gptvq_ft_linear_gradient(d, matrix, tape->tokens, dy, x, tape->d_matrix);
    sink(context, matrix, tape->d_matrix);
  }
  gptvq_ft_linear_backward(d, weights, matrix, tape->tokens, dy, dx);
}

/* out = base + the gradient of a half's x, from d_hidden of what it reads of it. */
static void input_backward(const gptvq_ft_dims *d, const gptvq_ft_weights *weights, gptvq_ft_tape *tape,
                           bool mlp, const float *base, gptvq_ft_weights *vectors, float *out) {
  const gptvq_norm_place before = mlp ? GPTVQ_NORM_MLP : GPTVQ_NORM_ATTENTION;
  if (d->has_norm[before]) {
    gptvq_ft_norm_backward(d, tape->tokens, mlp ? tape->middle : tape->x, weights->norm[before],
                           tape->inverse_rms[mlp], tape->d_hidden, base, vectors->norm[before], out);
    return;
  }
  gptvq_add_rows(tape->tokens, d->hidden, 1.0f, base, tape->d_hidden);
  if (out != tape->d_hidden) memcpy(out, tape->d_hidden, tape->tokens * d->hidden * sizeof *out);
}

/* The gradient of the last linear's outputs, from dy of what is added to the stream. */
static const float *output_backward(const gptvq_ft_dims *d, const gptvq_ft_weights *weights,
                                    gptvq_ft_tape *tape, bool mlp, const float *dy,
                                    gptvq_ft_weights *vectors) {
  const gptvq_norm_place behind = gptvq_norm_behind(mlp ? GPTVQ_INPUT_DOWN : GPTVQ_INPUT_O);
  if (d->residual_scale != 1.0f) {
    memcpy(tape->d_unnormed, dy, tape->tokens * d->hidden * sizeof *dy);
    gptvq_scale_values(tape->tokens * d->hidden, d->residual_scale, tape->d_unnormed);
    dy = tape->d_unnormed;
  }
  if (!d->has_norm[behind]) return dy;
  gptvq_ft_norm_backward(d, tape->tokens, tape->unnormed[mlp], weights->norm[behind],
                         tape->out_inverse_rms[mlp], dy, NULL, vectors->norm[behind], tape->d_unnormed);
  return tape->d_unnormed;
}

void gptvq_ft_backward(const gptvq_ft_dims *d, const gptvq_ft_weights *weights, gptvq_ft_tape *tape,
                       const float *gradient_out, gptvq_ft_weights *vectors, gptvq_ft_sink sink,
                       void *context, float *gradient_in) {
  float *const *norm = weights->norm, *const *d_norm = vectors->norm;
  size_t tokens = tape->tokens, width = gptvq_ft_rows(d, GPTVQ_FT_QKV), keys = d->heads * d->head_dim;
  const float *dy = output_backward(d, weights, tape, true, gradient_out, vectors);
  linear_backward(d, weights, tape, GPTVQ_FT_DOWN, dy, tape->product, vectors, sink, context, tape->d_matrix);
  gptvq_ft_gate_backward(d->activation, tokens, d->intermediate, tape->gate_up, tape->d_matrix, tape->d_wide);
  linear_backward(d, weights, tape, GPTVQ_FT_GATE_UP, tape->d_wide, tape->inputs[1], vectors, sink, context,
                  tape->d_hidden);
  input_backward(d, weights, tape, true, gradient_out, vectors, tape->d_middle);

  dy = output_backward(d, weights, tape, false, tape->d_middle, vectors);
  linear_backward(d, weights, tape, GPTVQ_FT_O, dy, tape->attention, vectors, sink, context, tape->d_matrix);
  gptvq_ft_attention_backward(d, tokens, tape->qkv, tape->attention, tape->lse, tape->d_matrix, tape->d_wide,
                              tape->attention_scratch);
  gptvq_ft_rope(d, tokens, tape->d_wide, width, true);
  if (d->has_norm[GPTVQ_NORM_Q])
    gptvq_ft_heads_backward(d, GPTVQ_NORM_Q, tokens, width, tape->raw, norm[GPTVQ_NORM_Q], tape->partial,
                            d_norm[GPTVQ_NORM_Q], tape->d_wide);
  if (d->has_norm[GPTVQ_NORM_K])
    gptvq_ft_heads_backward(d, GPTVQ_NORM_K, tokens, width, tape->raw + keys, norm[GPTVQ_NORM_K],
                            tape->partial, d_norm[GPTVQ_NORM_K], tape->d_wide + keys);
  linear_backward(d, weights, tape, GPTVQ_FT_QKV, tape->d_wide, tape->inputs[0], vectors, sink, context,
                  tape->d_hidden);
  input_backward(d, weights, tape, false, tape->d_middle, vectors,
                 gradient_in != NULL ? gradient_in : tape->d_hidden);
}
