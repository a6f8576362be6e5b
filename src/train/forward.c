#include "train/train.h"

#include "base/memory.h"
#include "base/threads.h"
#include "linalg/gemm.h"

#include <math.h>
#include <string.h>

size_t gptvq_ft_rows(const gptvq_ft_dims *d, gptvq_ft_matrix matrix) {
  switch (matrix) {
  case GPTVQ_FT_QKV: return (d->heads + 2 * d->kv_heads) * d->head_dim;
  case GPTVQ_FT_GATE_UP: return 2 * d->intermediate;
  default: return d->hidden;
  }
}

size_t gptvq_ft_cols(const gptvq_ft_dims *d, gptvq_ft_matrix matrix) {
  switch (matrix) {
  case GPTVQ_FT_O: return d->heads * d->head_dim;
  case GPTVQ_FT_DOWN: return d->intermediate;
  default: return d->hidden;
  }
}

size_t gptvq_ft_norm_size(const gptvq_ft_dims *d, gptvq_norm_place norm) {
  return norm == GPTVQ_NORM_Q || norm == GPTVQ_NORM_K ? d->head_dim : d->hidden;
}

gptvq_status gptvq_ft_weights_create(const gptvq_ft_dims *dims, bool with_matrices, gptvq_ft_weights *out,
                                     gptvq_error *err) {
  memset(out, 0, sizeof *out);
  size_t wanted = 0;
  bool failed = false;
  for (int m = 0; m < GPTVQ_FT_MATRICES; m++) {
    size_t rows = gptvq_ft_rows(dims, (gptvq_ft_matrix)m), cols = gptvq_ft_cols(dims, (gptvq_ft_matrix)m);
    if (with_matrices) {
      wanted += gptvq_saturated_size(rows * cols, sizeof(float));
      out->matrix[m] = gptvq_alloc_zero(rows * cols, sizeof(float));
      failed = failed || out->matrix[m] == NULL;
    }
    if (dims->has_bias[m]) {
      out->bias[m] = gptvq_alloc_zero(rows, sizeof(float));
      failed = failed || out->bias[m] == NULL;
    }
  }
  for (int n = 0; n < GPTVQ_NORMS; n++)
    if (dims->has_norm[n]) {
      out->norm[n] = gptvq_alloc_zero(gptvq_ft_norm_size(dims, (gptvq_norm_place)n), sizeof(float));
      failed = failed || out->norm[n] == NULL;
    }
  if (!failed) return GPTVQ_OK;
  gptvq_ft_weights_release(out);
  return gptvq_fail_memory(err, "fine-tuning: the weights of a block", wanted);
}

void gptvq_ft_weights_release(gptvq_ft_weights *weights) {
  for (int m = 0; m < GPTVQ_FT_MATRICES; m++) {
    free(weights->matrix[m]);
    free(weights->bias[m]);
  }
  for (int n = 0; n < GPTVQ_NORMS; n++) free(weights->norm[n]);
  memset(weights, 0, sizeof *weights);
}

gptvq_status gptvq_ft_tape_create(const gptvq_ft_dims *d, size_t max_tokens, bool with_backward,
                                  gptvq_ft_tape **out, gptvq_error *err) {
  *out = NULL;
  gptvq_ft_tape *tape = calloc(1, sizeof *tape);
  if (tape == NULL) return gptvq_fail_memory(err, "fine-tuning", sizeof *tape);
  size_t qkv = gptvq_ft_rows(d, GPTVQ_FT_QKV), attention = d->heads * d->head_dim, wide = 0, largest = 0,
         total = 0;
  for (int m = 0; m < GPTVQ_FT_MATRICES; m++) {
    size_t rows = gptvq_ft_rows(d, (gptvq_ft_matrix)m), cols = gptvq_ft_cols(d, (gptvq_ft_matrix)m);
    wide = gptvq_max_size(wide, rows);
    largest = gptvq_max_size(largest, rows * cols);
  }
  wide = gptvq_max_size(wide, attention);
  bool has_raw = d->has_norm[GPTVQ_NORM_Q] || d->has_norm[GPTVQ_NORM_K];
  struct {
    float **place;
    size_t floats;
  } parts[] = {
      {&tape->normed[0], max_tokens * d->hidden},
      {&tape->normed[1], max_tokens * d->hidden},
      {&tape->inverse_rms[0], max_tokens},
      {&tape->inverse_rms[1], max_tokens},
      {&tape->raw, has_raw ? max_tokens * qkv : 0},
      {&tape->qkv, max_tokens * qkv},
      {&tape->lse, max_tokens * d->heads},
      {&tape->attention, max_tokens * attention},
      {&tape->middle, max_tokens * d->hidden},
      {&tape->gate_up, max_tokens * 2 * d->intermediate},
      {&tape->product, max_tokens * d->intermediate},
      {&tape->out, max_tokens * d->hidden},
      {&tape->attention_scratch, gptvq_ft_attention_scratch(d)},
      {&tape->d_hidden, with_backward ? max_tokens * d->hidden : 0},
      {&tape->d_middle, with_backward ? max_tokens * d->hidden : 0},
      {&tape->d_wide, with_backward ? max_tokens * wide : 0},
      {&tape->d_matrix,
       with_backward ? gptvq_max_size(largest, max_tokens * gptvq_max_size(attention, d->intermediate)) : 0},
  };
  bool failed = false;
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
    total += gptvq_saturated_size(parts[i].floats, sizeof(float));
    if (parts[i].floats != 0 && (*parts[i].place = gptvq_alloc(parts[i].floats, sizeof(float))) == NULL)
      failed = true;
  }
  if (has_raw && with_backward) {
    tape->partial = gptvq_alloc(gptvq_ceil_div(max_tokens, 64) * d->head_dim, sizeof(double));
    failed = failed || tape->partial == NULL;
  }
  if (failed) {
    gptvq_ft_tape_destroy(tape);
    return gptvq_fail_memory(err, "fine-tuning: the activations of a block", total);
  }
  tape->max_tokens = max_tokens;
  *out = tape;
  return GPTVQ_OK;
}

void gptvq_ft_tape_destroy(gptvq_ft_tape *tape) {
  if (tape == NULL) return;
  float *parts[] = {
      tape->normed[0], tape->normed[1], tape->inverse_rms[0],    tape->inverse_rms[1], tape->raw,
      tape->qkv,       tape->lse,       tape->attention,         tape->middle,         tape->gate_up,
      tape->product,   tape->out,       tape->attention_scratch, tape->d_hidden,       tape->d_middle,
      tape->d_wide,    tape->d_matrix};
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) free(parts[i]);
  free(tape->partial);
  free(tape);
}

/* y = x · g / rms(x) over rows of `size` values, `heads` of them side by side in each token's row */
typedef struct norm_job {
  size_t size, heads, ldx, ldy;
  const float *x, *gain;
  float *y, *inverse_rms; /* inverse_rms may be NULL */
  float eps;
} norm_job;

static void norm_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const norm_job *job = context;
  for (size_t t = begin; t < end; t++)
    for (size_t h = 0; h < job->heads; h++) {
      const float *x = job->x + t * job->ldx + h * job->size;
      float *y = job->y + t * job->ldy + h * job->size;
      double sum = 0;
      for (size_t i = 0; i < job->size; i++) sum += (double)x[i] * (double)x[i];
      float inverse = (float)(1.0 / sqrt(sum / (double)job->size + (double)job->eps));
      for (size_t i = 0; i < job->size; i++) y[i] = x[i] * inverse * job->gain[i];
      if (job->inverse_rms != NULL) job->inverse_rms[t] = inverse;
    }
}

void gptvq_ft_norm_forward(const gptvq_ft_dims *d, size_t tokens, const float *x, const float *gain, float *y,
                           float *scale) {
  norm_job job = {d->hidden, 1, d->hidden, d->hidden, x, gain, y, scale, d->eps};
  gptvq_parallel_for(tokens, 16, norm_task, &job);
}

typedef struct row_job {
  size_t width;
  const float *a, *b;
  float *y;
} row_job;

/* y += bias */
static void bias_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const row_job *job = context;
  for (size_t t = begin; t < end; t++)
    for (size_t i = 0; i < job->width; i++) job->y[t * job->width + i] += job->a[i];
}

/* y += a */
static void add_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const row_job *job = context;
  for (size_t i = begin * job->width; i < end * job->width; i++) job->y[i] += job->a[i];
}

/* y = silu(gate) · up, a = gate | up rows */
static void gate_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const row_job *job = context;
  for (size_t t = begin; t < end; t++) {
    const float *gate = job->a + t * 2 * job->width, *up = gate + job->width;
    float *y = job->y + t * job->width;
    for (size_t i = 0; i < job->width; i++) y[i] = gate[i] / (1.0f + gptvq_ft_exp(-gate[i])) * up[i];
  }
}

static void linear(const gptvq_ft_dims *dims, const gptvq_ft_weights *weights, gptvq_ft_matrix matrix,
                   size_t tokens, const float *x, float *y) {
  size_t rows = gptvq_ft_rows(dims, matrix), cols = gptvq_ft_cols(dims, matrix);
  gptvq_gemm_nt(tokens, rows, cols, 1.0f, x, cols, weights->matrix[matrix], cols, 0.0f, y, rows);
  if (weights->bias[matrix] == NULL) return;
  row_job job = {rows, weights->bias[matrix], NULL, y};
  gptvq_parallel_for(tokens, 16, bias_task, &job);
}

const float *gptvq_ft_forward(const gptvq_ft_dims *d, const gptvq_ft_weights *weights, gptvq_ft_tape *tape,
                              size_t tokens, const float *x) {
  size_t width = gptvq_ft_rows(d, GPTVQ_FT_QKV);
  tape->x = x;
  tape->tokens = tokens;
  gptvq_ft_norm_forward(d, tokens, x, weights->norm[GPTVQ_NORM_ATTENTION], tape->normed[0],
                        tape->inverse_rms[0]);
  linear(d, weights, GPTVQ_FT_QKV, tokens, tape->normed[0], tape->qkv);
  if (tape->raw != NULL) memcpy(tape->raw, tape->qkv, tokens * width * sizeof(float));
  if (d->has_norm[GPTVQ_NORM_Q]) {
    norm_job q = {d->head_dim, d->heads, width, width, tape->raw, weights->norm[GPTVQ_NORM_Q],
                  tape->qkv,   NULL,     d->eps};
    gptvq_parallel_for(tokens, 16, norm_task, &q);
  }
  if (d->has_norm[GPTVQ_NORM_K]) {
    size_t column = d->heads * d->head_dim;
    norm_job k = {
        d->head_dim,        d->kv_heads, width, width, tape->raw + column, weights->norm[GPTVQ_NORM_K],
        tape->qkv + column, NULL,        d->eps};
    gptvq_parallel_for(tokens, 16, norm_task, &k);
  }
  gptvq_ft_rope(d, tokens, d->heads + d->kv_heads, tape->qkv, width, false);
  gptvq_ft_attention_forward(d, tokens, tape->qkv, tape->attention, tape->lse, tape->attention_scratch);
  linear(d, weights, GPTVQ_FT_O, tokens, tape->attention, tape->middle);
  row_job residual = {d->hidden, x, NULL, tape->middle};
  gptvq_parallel_for(tokens, 16, add_task, &residual);
  gptvq_ft_norm_forward(d, tokens, tape->middle, weights->norm[GPTVQ_NORM_MLP], tape->normed[1],
                        tape->inverse_rms[1]);
  linear(d, weights, GPTVQ_FT_GATE_UP, tokens, tape->normed[1], tape->gate_up);
  row_job gate = {d->intermediate, tape->gate_up, NULL, tape->product};
  gptvq_parallel_for(tokens, 16, gate_task, &gate);
  linear(d, weights, GPTVQ_FT_DOWN, tokens, tape->product, tape->out);
  residual.a = tape->middle;
  residual.y = tape->out;
  gptvq_parallel_for(tokens, 16, add_task, &residual);
  return tape->out;
}
