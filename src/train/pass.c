/* A block forward and backward: the order of its pieces. */
#include "train/pieces.h"

#include "model/layer/norm.h"

#include <string.h>

/* Where a half puts what it gives, before a norm that stands behind it; y is what it goes to. */
static float *half_output(const gptvq_ft_dims *d, gptvq_ft_tape *tape, bool mlp, float *y) {
  return d->has_norm[mlp ? GPTVQ_NORM_MLP_OUT : GPTVQ_NORM_ATTENTION_OUT] ? tape->unnormed[mlp] : y;
}

/* y = x + that, normalised where a norm stands behind it, and scaled. */
static void finish_half(const gptvq_ft_dims *d, const gptvq_ft_weights *weights, gptvq_ft_tape *tape,
                        bool mlp, const float *x, float *y) {
  const gptvq_norm_place behind = mlp ? GPTVQ_NORM_MLP_OUT : GPTVQ_NORM_ATTENTION_OUT;
  if (d->has_norm[behind])
    gptvq_ft_norm_forward(d, tape->tokens, tape->unnormed[mlp], weights->norm[behind], y,
                          tape->out_inverse_rms[mlp]);
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

static void mlp_forward(const gptvq_ft_dims *d, const gptvq_ft_weights *weights, gptvq_ft_tape *tape,
                        const float *in, float *out) {
  const size_t tokens = tape->tokens;
  if (d->experts > 0) {
    gptvq_ft_experts_forward(d, weights, tape, in, out);
    return;
  }
  gptvq_ft_linear_forward(d, weights, GPTVQ_FT_GATE_UP, tokens, in, tape->gate_up);
  gptvq_ft_gate_forward(d->activation, tokens, d->intermediate, tape->gate_up, tape->product);
  gptvq_ft_linear_forward(d, weights, GPTVQ_FT_DOWN, tokens, tape->product, out);
}

const float *gptvq_ft_forward(const gptvq_ft_dims *d, const gptvq_ft_weights *weights, gptvq_ft_tape *tape,
                              size_t tokens, const float *x) {
  tape->x = x;
  tape->tokens = tokens;
  (void)input_forward(d, weights, tape, false, x);
  const float *core = gptvq_ft_core_forward(d, weights, tape);
  gptvq_ft_linear_forward(d, weights, GPTVQ_FT_O, tokens, core, half_output(d, tape, false, tape->middle));
  finish_half(d, weights, tape, false, x, tape->middle);
  const float *in = input_forward(d, weights, tape, true, tape->middle);
  mlp_forward(d, weights, tape, in, half_output(d, tape, true, tape->out));
  finish_half(d, weights, tape, true, tape->middle, tape->out);
  return tape->out;
}

void gptvq_ft_give(const gptvq_ft_back *back, const gptvq_ft_watched *watched, const float *x) {
  const gptvq_ft_matrix matrix = watched->matrix;
  gptvq_ft_tape *tape = back->tape;
  if (back->vectors->bias[matrix] != NULL)
    gptvq_ft_add_columns(watched->count, watched->width, watched->dy, NULL, NULL,
                         back->vectors->bias[matrix]);
  if (tape->watch != NULL) tape->watch(tape->watch_context, watched);
  if (back->sink == NULL) return;
  gptvq_ft_linear_gradient(back->dims, back->weights, matrix, watched->count, watched->dy, x, tape->d_matrix);
  back->sink(back->context, matrix, tape->d_matrix);
}

void gptvq_ft_matrix_backward(const gptvq_ft_back *back, const gptvq_ft_watched *watched, const float *x,
                              float *dx) {
  gptvq_ft_give(back, watched, x);
  gptvq_ft_linear_backward(back->dims, back->weights, watched->matrix, watched->count, watched->dy, dx);
}

void gptvq_ft_linear_back(const gptvq_ft_back *back, gptvq_ft_matrix matrix, const float *dy, const float *x,
                          float *dx) {
  const gptvq_ft_watched watched = {matrix, back->tape->tokens, gptvq_ft_rows(back->dims, matrix), dy, NULL,
                                    NULL};
  gptvq_ft_matrix_backward(back, &watched, x, dx);
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

/* d_hidden = the gradient of what the MLP, or the experts, read. */
static void mlp_backward(const gptvq_ft_back *back, const float *dy) {
  const gptvq_ft_dims *d = back->dims;
  gptvq_ft_tape *tape = back->tape;
  if (d->experts > 0) {
    gptvq_ft_experts_backward(back, tape->inputs[1], dy, tape->d_hidden);
    return;
  }
  gptvq_ft_linear_back(back, GPTVQ_FT_DOWN, dy, tape->product, tape->d_matrix);
  gptvq_ft_gate_backward(d->activation, tape->tokens, d->intermediate, tape->gate_up, tape->d_matrix,
                         tape->d_wide);
  gptvq_ft_linear_back(back, GPTVQ_FT_GATE_UP, tape->d_wide, tape->inputs[1], tape->d_hidden);
}

void gptvq_ft_backward(const gptvq_ft_dims *d, const gptvq_ft_weights *weights, gptvq_ft_tape *tape,
                       const float *gradient_out, gptvq_ft_weights *vectors, gptvq_ft_sink sink,
                       void *context, float *gradient_in) {
  const gptvq_ft_back back = {d, weights, tape, vectors, sink, context};
  const float *dy = output_backward(d, weights, tape, true, gradient_out, vectors);
  mlp_backward(&back, dy);
  input_backward(d, weights, tape, true, gradient_out, vectors, tape->d_middle);
  dy = output_backward(d, weights, tape, false, tape->d_middle, vectors);
  const float *core = tape->core != NULL ? tape->core : tape->attention;
  gptvq_ft_linear_back(&back, GPTVQ_FT_O, dy, core, tape->d_matrix);
  gptvq_ft_core_backward(&back, tape->d_matrix, tape->d_hidden);
  input_backward(d, weights, tape, false, tape->d_middle, vectors,
                 gradient_in != NULL ? gradient_in : tape->d_hidden);
}
