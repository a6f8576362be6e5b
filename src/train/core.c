/* Between the first matrix of a block's attention half and its last one: attention, or a delta net. */
#include "train/pieces.h"

#include "base/threads.h"
#include "linalg/gemm.h"
#include "model/layer/latent.h"

#include <string.h>

static bool is_latent(const gptvq_ft_dims *d) { return d->latent.kv_rank > 0; }

typedef struct gate_job {
  const gptvq_ft_dims *dims;
  const gptvq_ft_tape *tape;
  const float *dy;
} gate_job;

static float sigmoid(float x) { return 1.0f / (1.0f + gptvq_ft_exp(-x)); }

/* Rows q | gate of each head | k | v in tape->made become q | k | v in tape->qkv. */
static void split_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const gate_job *job = context;
  const gptvq_ft_dims *d = job->dims;
  const size_t dim = d->head_dim, queries = d->heads * dim, core = gptvq_ft_core_width(d);
  for (size_t t = begin; t < end; t++) {
    const float *made = job->tape->made + t * (core + queries);
    float *row = job->tape->qkv + t * core;
    for (size_t h = 0; h < d->heads; h++) memcpy(row + h * dim, made + 2 * h * dim, dim * sizeof *row);
    memcpy(row + queries, made + 2 * queries, (core - queries) * sizeof *row);
  }
}

/* core = attention ∘ sigmoid(gate) */
static void apply_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const gate_job *job = context;
  const gptvq_ft_dims *d = job->dims;
  const size_t dim = d->head_dim, queries = d->heads * dim, core = gptvq_ft_core_width(d);
  for (size_t t = begin; t < end; t++)
    for (size_t i = 0; i < queries; i++) {
      const float gate = job->tape->made[t * (core + queries) + (2 * (i / dim) + 1) * dim + i % dim];
      job->tape->core[t * queries + i] = job->tape->attention[t * queries + i] * sigmoid(gate);
    }
}

/* d_core = dy ∘ sigmoid(gate); the gates' gradients go to d_made. */
static void apply_backward(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const gate_job *job = context;
  const gptvq_ft_dims *d = job->dims;
  const gptvq_ft_tape *tape = job->tape;
  const size_t dim = d->head_dim, queries = d->heads * dim, width = gptvq_ft_core_width(d) + queries;
  for (size_t t = begin; t < end; t++)
    for (size_t i = 0; i < queries; i++) {
      const size_t at = t * width + (2 * (i / dim) + 1) * dim + i % dim;
      const float share = sigmoid(tape->made[at]), dy = job->dy[t * queries + i];
      tape->d_core[t * queries + i] = dy * share;
      tape->d_made[at] = dy * tape->attention[t * queries + i] * share * (1.0f - share);
    }
}

/* Those of q, k and v from d_wide too. */
static void join_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const gate_job *job = context;
  const gptvq_ft_dims *d = job->dims;
  const size_t dim = d->head_dim, queries = d->heads * dim, core = gptvq_ft_core_width(d);
  for (size_t t = begin; t < end; t++) {
    float *made = job->tape->d_made + t * (core + queries);
    const float *row = job->tape->d_wide + t * core;
    for (size_t h = 0; h < d->heads; h++) memcpy(made + 2 * h * dim, row + h * dim, dim * sizeof *row);
    memcpy(made + 2 * queries, row + queries, (core - queries) * sizeof *row);
  }
}

/* Rows q | k | v in tape->qkv, before the norms of their heads. */
static void rows_forward(const gptvq_ft_dims *d, const gptvq_ft_weights *weights, gptvq_ft_tape *tape) {
  if (is_latent(d)) {
    gptvq_ft_latent_forward(d, weights, tape);
    return;
  }
  gptvq_ft_linear_forward(d, weights, GPTVQ_FT_QKV, tape->tokens, tape->inputs[0],
                          d->output_gate ? tape->made : tape->qkv);
  gate_job job = {d, tape, NULL};
  if (d->output_gate) gptvq_parallel_for(tape->tokens, 16, split_task, &job);
}

/* dx from the gradient of these rows in d_wide */
static void rows_backward(const gptvq_ft_back *back, float *dx) {
  gptvq_ft_tape *tape = back->tape;
  gate_job job = {back->dims, tape, NULL};
  if (is_latent(back->dims)) gptvq_ft_latent_backward(back);
  else if (back->dims->output_gate) gptvq_parallel_for(tape->tokens, 16, join_task, &job);
  gptvq_ft_linear_back(back, GPTVQ_FT_QKV, tape->made != NULL ? tape->d_made : tape->d_wide, tape->inputs[0],
                       dx);
}

/* The delta net's decay and beta are not quantized: they only hand gradients on. */
static const float *delta_forward(const gptvq_ft_dims *d, const gptvq_ft_weights *weights,
                                  gptvq_ft_tape *tape) {
  const size_t gates = 2 * d->delta.value_heads;
  gptvq_ft_linear_forward(d, weights, GPTVQ_FT_QKV, tape->tokens, tape->inputs[0], tape->made);
  gptvq_gemm_nt(tape->tokens, gates, d->hidden, 1.0f, tape->inputs[0], d->hidden, weights->delta_gates,
                d->hidden, 0.0f, tape->delta_gates, gates);
  gptvq_ft_delta_forward(d, tape);
  return tape->core;
}

static void delta_backward(const gptvq_ft_back *back, const float *dy, float *dx) {
  const gptvq_ft_dims *d = back->dims;
  const size_t gates = 2 * d->delta.value_heads;
  gptvq_ft_tape *tape = back->tape;
  gptvq_ft_delta_backward(d, tape, dy);
  gptvq_ft_linear_back(back, GPTVQ_FT_QKV, tape->d_made, tape->inputs[0], dx);
  gptvq_gemm_nn(tape->tokens, d->hidden, gates, 1.0f, tape->d_gates, gates, back->weights->delta_gates,
                d->hidden, 1.0f, dx, d->hidden);
}

const float *gptvq_ft_core_forward(const gptvq_ft_dims *d, const gptvq_ft_weights *weights,
                                   gptvq_ft_tape *tape) {
  const size_t tokens = tape->tokens, width = gptvq_ft_core_width(d), keys = d->heads * d->head_dim;
  float *const *norm = weights->norm;
  if (d->delta.value_heads > 0) return delta_forward(d, weights, tape);
  rows_forward(d, weights, tape);
  if (tape->raw != NULL) memcpy(tape->raw, tape->qkv, tokens * width * sizeof(float));
  if (d->has_norm[GPTVQ_NORM_Q])
    gptvq_ft_heads_forward(d, GPTVQ_NORM_Q, tokens, tape->raw, width, norm[GPTVQ_NORM_Q], tape->qkv, width);
  if (d->has_norm[GPTVQ_NORM_K])
    gptvq_ft_heads_forward(d, GPTVQ_NORM_K, tokens, tape->raw + keys, width, norm[GPTVQ_NORM_K],
                           tape->qkv + keys, width);
  gptvq_ft_rope(d, tokens, tape->qkv, width, false);
  gptvq_ft_attention_forward(d, tokens, tape->qkv, tape->attention, tape->lse, tape->attention_scratch);
  if (is_latent(d)) {
    for (size_t head = 0; head < tokens * d->heads; head++)
      memcpy(tape->core + head * d->latent.values, tape->attention + head * d->head_dim,
             d->latent.values * sizeof(float));
    return tape->core;
  }
  if (!d->output_gate) return tape->attention;
  gate_job job = {d, tape, NULL};
  gptvq_parallel_for(tokens, 16, apply_task, &job);
  return tape->core;
}

/* The gradient of the attention's outputs from dy of what o reads. */
static const float *attention_outputs(const gptvq_ft_back *back, const float *dy) {
  const gptvq_ft_dims *d = back->dims;
  gptvq_ft_tape *tape = back->tape;
  gate_job job = {d, tape, dy};
  if (is_latent(d)) {
    memset(tape->d_core, 0, tape->tokens * d->heads * d->head_dim * sizeof *dy);
    for (size_t head = 0; head < tape->tokens * d->heads; head++)
      memcpy(tape->d_core + head * d->head_dim, dy + head * d->latent.values, d->latent.values * sizeof *dy);
  } else if (d->output_gate) gptvq_parallel_for(tape->tokens, 16, apply_backward, &job);
  else return dy;
  return tape->d_core;
}

void gptvq_ft_core_backward(const gptvq_ft_back *back, const float *dy, float *dx) {
  const gptvq_ft_dims *d = back->dims;
  gptvq_ft_tape *tape = back->tape;
  const size_t tokens = tape->tokens, width = gptvq_ft_core_width(d), keys = d->heads * d->head_dim;
  float *const *norm = back->weights->norm, *const *d_norm = back->vectors->norm;
  if (d->delta.value_heads > 0) {
    delta_backward(back, dy, dx);
    return;
  }
  gptvq_ft_attention_backward(d, tokens, tape->qkv, tape->attention, tape->lse, attention_outputs(back, dy),
                              tape->d_wide, tape->attention_scratch);
  gptvq_ft_rope(d, tokens, tape->d_wide, width, true);
  if (d->has_norm[GPTVQ_NORM_Q])
    gptvq_ft_heads_backward(d, GPTVQ_NORM_Q, tokens, tape->raw, width, norm[GPTVQ_NORM_Q], tape->partial,
                            d_norm[GPTVQ_NORM_Q], tape->d_wide, width);
  if (d->has_norm[GPTVQ_NORM_K])
    gptvq_ft_heads_backward(d, GPTVQ_NORM_K, tokens, tape->raw + keys, width, norm[GPTVQ_NORM_K],
                            tape->partial, d_norm[GPTVQ_NORM_K], tape->d_wide + keys, width);
  rows_backward(back, dx);
}
