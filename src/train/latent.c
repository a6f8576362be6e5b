#include "model/layer/latent.h"
#include "train/pieces.h"

#include "base/threads.h"

#include <string.h>

/* Values of the first matrix's rows: queries or what they are made from, what keys and values are made from,
 * rotated values of keys. */
static size_t keys_at(const gptvq_ft_dims *d) {
  return d->latent.q_rank > 0 ? d->latent.q_rank : d->heads * d->head_dim;
}

void gptvq_ft_latent_forward(const gptvq_ft_dims *d, const gptvq_ft_weights *weights, gptvq_ft_tape *tape) {
  const gptvq_latent *l = &d->latent;
  const size_t tokens = tape->tokens, first = gptvq_ft_rows(d, GPTVQ_FT_QKV), keys = keys_at(d),
               queries = d->heads * d->head_dim, row = gptvq_ft_core_width(d);
  gptvq_ft_linear_forward(d, weights, GPTVQ_FT_QKV, tokens, tape->inputs[0], tape->made);
  if (l->q_rank > 0) {
    gptvq_ft_heads_forward(d, GPTVQ_NORM_Q_LATENT, tokens, tape->made, first,
                           weights->norm[GPTVQ_NORM_Q_LATENT], tape->latents[0], l->q_rank);
    gptvq_ft_linear_forward(d, weights, GPTVQ_FT_Q_B, tokens, tape->latents[0], tape->expanded);
    gptvq_latent_queries(l, d->heads, tokens, tape->expanded, queries, tape->qkv, row);
  } else gptvq_latent_queries(l, d->heads, tokens, tape->made, first, tape->qkv, row);
  gptvq_ft_heads_forward(d, GPTVQ_NORM_KV_LATENT, tokens, tape->made + keys, first,
                         weights->norm[GPTVQ_NORM_KV_LATENT], tape->latents[1], l->kv_rank);
  gptvq_ft_linear_forward(d, weights, GPTVQ_FT_KV_B, tokens, tape->latents[1], tape->expanded);
  gptvq_latent_keys(l, d->heads, tokens, tape->expanded, tape->made + keys + l->kv_rank, first, tape->qkv,
                    row);
}

typedef struct rows_job {
  const gptvq_ft_dims *dims;
  const gptvq_ft_tape *tape;
  float *out; /* of the queries, [tokens × ld] */
  size_t ld;
} rows_job;

/* The way back from a head's rotated values, which it has first. */
static void add_rotated(const gptvq_latent *l, const float *from, float *to) {
  const size_t half = l->rotated / 2;
  for (size_t i = 0; i < half; i++) {
    to[l->halves ? i : 2 * i] += from[i];
    to[l->halves ? half + i : 2 * i + 1] += from[half + i];
  }
}

static void queries_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const rows_job *job = context;
  const gptvq_ft_dims *d = job->dims;
  const gptvq_latent *l = &d->latent;
  for (size_t t = begin; t < end; t++)
    for (size_t h = 0; h < d->heads; h++) {
      const float *from = job->tape->d_wide + t * gptvq_ft_core_width(d) + h * d->head_dim;
      float *to = job->out + t * job->ld + h * d->head_dim;
      memcpy(to, from + l->rotated, l->plain * sizeof *to);
      memset(to + l->plain, 0, l->rotated * sizeof *to);
      add_rotated(l, from, to + l->plain);
    }
}

/* Of what kv_b gives into d_core; of the rotated values, which all heads share, into d_made. */
static void keys_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const rows_job *job = context;
  const gptvq_ft_dims *d = job->dims;
  const gptvq_latent *l = &d->latent;
  const size_t dim = d->head_dim, width = l->plain + l->values, first = gptvq_ft_rows(d, GPTVQ_FT_QKV);
  for (size_t t = begin; t < end; t++) {
    float *rotated = job->tape->d_made + t * first + first - l->rotated;
    memset(rotated, 0, l->rotated * sizeof *rotated);
    for (size_t h = 0; h < d->heads; h++) {
      const float *key = job->tape->d_wide + t * gptvq_ft_core_width(d) + (d->heads + h) * dim,
                  *value = key + d->heads * dim;
      float *to = job->tape->d_core + (t * d->heads + h) * width;
      memcpy(to, key + l->rotated, l->plain * sizeof *to);
      memcpy(to + l->plain, value, l->values * sizeof *to);
      add_rotated(l, key, rotated);
    }
  }
}

/* d_core, of what a matrix gives, to d_made of the latent vector at `column`. */
static void expand_backward(const gptvq_ft_back *back, gptvq_ft_matrix matrix, gptvq_norm_place place,
                            const float *input, size_t column) {
  const gptvq_ft_dims *d = back->dims;
  gptvq_ft_tape *tape = back->tape;
  const size_t first = gptvq_ft_rows(d, GPTVQ_FT_QKV), rank = gptvq_ft_cols(d, matrix);
  gptvq_ft_linear_back(back, matrix, tape->d_core, input, tape->d_matrix);
  gptvq_ft_heads_backward(d, place, tape->tokens, tape->made + column, first, back->weights->norm[place],
                          tape->partial, back->vectors->norm[place], tape->d_matrix, rank);
  for (size_t t = 0; t < tape->tokens; t++)
    memcpy(tape->d_made + t * first + column, tape->d_matrix + t * rank, rank * sizeof(float));
}

void gptvq_ft_latent_backward(const gptvq_ft_back *back) {
  const gptvq_ft_dims *d = back->dims;
  gptvq_ft_tape *tape = back->tape;
  const bool made = d->latent.q_rank > 0;
  rows_job job = {d, tape, made ? tape->d_core : tape->d_made,
                  made ? d->heads * d->head_dim : gptvq_ft_rows(d, GPTVQ_FT_QKV)};
  gptvq_parallel_for(tape->tokens, 4, keys_task, &job);
  expand_backward(back, GPTVQ_FT_KV_B, GPTVQ_NORM_KV_LATENT, tape->latents[1], keys_at(d));
  gptvq_parallel_for(tape->tokens, 4, queries_task, &job);
  if (made) expand_backward(back, GPTVQ_FT_Q_B, GPTVQ_NORM_Q_LATENT, tape->latents[0], 0);
}
