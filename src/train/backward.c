#include "train/train.h"

#include "base/memory.h"
#include "base/threads.h"
#include "linalg/gemm.h"

#include <math.h>
#include <string.h>

enum { COLUMNS = 16 }; /* columns of one column-sum task: a cache line */

/* sum[i] += Σ_t a[t][i] (· b[t][i] · scale[t] where b is given): each task owns some columns and walks over
 * all tokens, in order. */
typedef struct sum_job {
  size_t tokens, width, lda, ldb;
  const float *a, *b, *scale;
  float *sum;
} sum_job;

static float inverse_rms(const float *x, size_t n, float eps) {
  double sum = 0;
  for (size_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
  return (float)(1.0 / sqrt(sum / (double)n + (double)eps));
}

static void sum_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const sum_job *job = context;
  for (size_t chunk = begin; chunk < end; chunk++) {
    size_t first = chunk * COLUMNS, count = gptvq_min_size(COLUMNS, job->width - first);
    double sum[COLUMNS] = {0};
    for (size_t t = 0; t < job->tokens; t++) {
      const float *a = job->a + t * job->lda + first;
      if (job->b == NULL) {
        for (size_t i = 0; i < count; i++) sum[i] += (double)a[i];
        continue;
      }
      const float *b = job->b + t * job->ldb + first;
      double scale = (double)job->scale[t];
      for (size_t i = 0; i < count; i++) sum[i] += (double)a[i] * (double)b[i] * scale;
    }
    for (size_t i = 0; i < count; i++) job->sum[first + i] += (float)sum[i];
  }
}

static void add_bias_gradient(const gptvq_ft_dims *dims, gptvq_ft_weights *vectors, gptvq_ft_matrix matrix,
                              size_t tokens, const float *gradient) {
  if (vectors->bias[matrix] == NULL) return;
  size_t rows = gptvq_ft_rows(dims, matrix);
  sum_job job = {tokens, rows, rows, 0, gradient, NULL, NULL, vectors->bias[matrix]};
  gptvq_parallel_for(gptvq_ceil_div(rows, COLUMNS), 1, sum_task, &job);
}

/* y = g ∘ x / rms(x): with n = x / rms and e = g ∘ dy, dx = (e − n · mean(e ∘ n)) / rms. Written to out =
 * base + dx. */
typedef struct norm_job {
  size_t size;
  const float *x, *gain, *dy, *scale, *base;
  float *out;
} norm_job;

static void norm_row(size_t size, const float *x, const float *gain, const float *dy, float scale,
                     const float *base, float *out) {
  double sum = 0;
  for (size_t i = 0; i < size; i++) sum += (double)(gain[i] * dy[i]) * (double)x[i];
  float mean = (float)(sum * (double)scale / (double)size);
  for (size_t i = 0; i < size; i++) {
    float dx = (gain[i] * dy[i] - x[i] * scale * mean) * scale;
    out[i] = base != NULL ? base[i] + dx : dx;
  }
}

static void norm_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const norm_job *job = context;
  for (size_t t = begin; t < end; t++) {
    size_t at = t * job->size;
    norm_row(job->size, job->x + at, job->gain, job->dy + at, job->scale[t],
             job->base != NULL ? job->base + at : NULL, job->out + at);
  }
}

void gptvq_ft_norm_backward(const gptvq_ft_dims *d, size_t tokens, const float *x, const float *gain,
                            const float *scale, const float *dy, const float *base, float *gain_gradient,
                            float *out) {
  sum_job sum = {tokens, d->hidden, d->hidden, d->hidden, dy, x, scale, gain_gradient};
  gptvq_parallel_for(gptvq_ceil_div(d->hidden, COLUMNS), 1, sum_task, &sum);
  norm_job job = {d->hidden, x, gain, dy, scale, base, out};
  gptvq_parallel_for(tokens, 16, norm_task, &job);
}

/* The norms of query and key heads, in place on the gradient; the gains' gradients first, token ranges of
 * fixed size each giving a partial sum that is added in order. */
typedef struct head_norm_job {
  size_t size, heads, ldx, tokens;
  const float *x, *gain;
  float *gradient, eps;
  double *partial; /* [chunks × size] */
} head_norm_job;

enum { HEAD_CHUNK = 64 }; /* as gptvq_ft_tape_create has it */

static void head_norm_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const head_norm_job *job = context;
  for (size_t chunk = begin; chunk < end; chunk++) {
    double *partial = job->partial + chunk * job->size;
    memset(partial, 0, job->size * sizeof *partial);
    size_t last = gptvq_min_size((chunk + 1) * HEAD_CHUNK, job->tokens);
    for (size_t t = chunk * HEAD_CHUNK; t < last; t++)
      for (size_t h = 0; h < job->heads; h++) {
        const float *x = job->x + t * job->ldx + h * job->size;
        float *dy = job->gradient + t * job->ldx + h * job->size, scale = inverse_rms(x, job->size, job->eps);
        for (size_t i = 0; i < job->size; i++) partial[i] += (double)dy[i] * (double)x[i] * (double)scale;
        norm_row(job->size, x, job->gain, dy, scale, NULL, dy);
      }
  }
}

static void head_norm_backward(const gptvq_ft_dims *d, const gptvq_ft_weights *weights, gptvq_ft_tape *tape,
                               gptvq_norm_place norm, size_t heads, size_t column,
                               gptvq_ft_weights *vectors) {
  if (!d->has_norm[norm]) return;
  size_t chunks = gptvq_ceil_div(tape->tokens, HEAD_CHUNK);
  head_norm_job job = {d->head_dim,
                       heads,
                       gptvq_ft_rows(d, GPTVQ_FT_QKV),
                       tape->tokens,
                       tape->raw + column,
                       weights->norm[norm],
                       tape->d_wide + column,
                       d->eps,
                       tape->partial};
  gptvq_parallel_for(chunks, 1, head_norm_task, &job);
  for (size_t i = 0; i < d->head_dim; i++) {
    double sum = 0;
    for (size_t chunk = 0; chunk < chunks; chunk++) sum += tape->partial[chunk * d->head_dim + i];
    vectors->norm[norm][i] += (float)sum;
  }
}

typedef struct gate_job {
  size_t width;
  const float *gate_up, *d_product;
  float *d_gate_up;
} gate_job;

static void gate_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const gate_job *job = context;
  for (size_t t = begin; t < end; t++) {
    const float *gate = job->gate_up + t * 2 * job->width, *up = gate + job->width,
                *dy = job->d_product + t * job->width;
    float *d_gate = job->d_gate_up + t * 2 * job->width, *d_up = d_gate + job->width;
    for (size_t i = 0; i < job->width; i++) {
      float sigmoid = 1.0f / (1.0f + gptvq_ft_exp(-gate[i])), silu = gate[i] * sigmoid;
      d_up[i] = dy[i] * silu;
      d_gate[i] = dy[i] * up[i] * (sigmoid + silu * (1.0f - sigmoid));
    }
  }
}

static void matrix_gradient(const gptvq_ft_dims *dims, gptvq_ft_tape *tape, gptvq_ft_matrix matrix,
                            const float *dy, const float *x, gptvq_ft_weights *vectors, gptvq_ft_sink sink,
                            void *context) {
  size_t rows = gptvq_ft_rows(dims, matrix), cols = gptvq_ft_cols(dims, matrix);
  add_bias_gradient(dims, vectors, matrix, tape->tokens, dy);
  if (tape->watch != NULL) tape->watch(tape->watch_context, matrix, tape->tokens, rows, dy);
  if (sink == NULL) return;
  gptvq_gemm_tn(rows, cols, tape->tokens, 1.0f, dy, rows, x, cols, 0.0f, tape->d_matrix, cols);
  sink(context, matrix, tape->d_matrix);
}

/* dx[tokens × cols] = dy · W */
static void input_gradient(const gptvq_ft_dims *dims, const gptvq_ft_weights *weights, gptvq_ft_matrix matrix,
                           size_t tokens, const float *dy, float *dx) {
  size_t rows = gptvq_ft_rows(dims, matrix), cols = gptvq_ft_cols(dims, matrix);
  gptvq_gemm_nn(tokens, cols, rows, 1.0f, dy, rows, weights->matrix[matrix], cols, 0.0f, dx, cols);
}

void gptvq_ft_backward(const gptvq_ft_dims *d, const gptvq_ft_weights *weights, gptvq_ft_tape *tape,
                       const float *gradient_out, gptvq_ft_weights *vectors, gptvq_ft_sink sink,
                       void *context, float *gradient_in) {
  size_t tokens = tape->tokens, width = gptvq_ft_rows(d, GPTVQ_FT_QKV);
  /* d_matrix holds one matrix's gradient until the sink has seen it, then the gradient of that matrix's
   * inputs */
  matrix_gradient(d, tape, GPTVQ_FT_DOWN, gradient_out, tape->product, vectors, sink, context);
  input_gradient(d, weights, GPTVQ_FT_DOWN, tokens, gradient_out, tape->d_matrix);
  gate_job gate = {d->intermediate, tape->gate_up, tape->d_matrix, tape->d_wide};
  gptvq_parallel_for(tokens, 16, gate_task, &gate);
  matrix_gradient(d, tape, GPTVQ_FT_GATE_UP, tape->d_wide, tape->normed[1], vectors, sink, context);
  input_gradient(d, weights, GPTVQ_FT_GATE_UP, tokens, tape->d_wide, tape->d_hidden);
  gptvq_ft_norm_backward(d, tokens, tape->middle, weights->norm[GPTVQ_NORM_MLP], tape->inverse_rms[1],
                         tape->d_hidden, gradient_out, vectors->norm[GPTVQ_NORM_MLP], tape->d_middle);

  matrix_gradient(d, tape, GPTVQ_FT_O, tape->d_middle, tape->attention, vectors, sink, context);
  input_gradient(d, weights, GPTVQ_FT_O, tokens, tape->d_middle, tape->d_matrix);
  gptvq_ft_attention_backward(d, tokens, tape->qkv, tape->attention, tape->lse, tape->d_matrix, tape->d_wide,
                              tape->attention_scratch);
  gptvq_ft_rope(d, tokens, d->heads + d->kv_heads, tape->d_wide, width, true);
  head_norm_backward(d, weights, tape, GPTVQ_NORM_Q, d->heads, 0, vectors);
  head_norm_backward(d, weights, tape, GPTVQ_NORM_K, d->kv_heads, d->heads * d->head_dim, vectors);
  matrix_gradient(d, tape, GPTVQ_FT_QKV, tape->d_wide, tape->normed[0], vectors, sink, context);
  input_gradient(d, weights, GPTVQ_FT_QKV, tokens, tape->d_wide, tape->d_hidden);
  gptvq_ft_norm_backward(d, tokens, tape->x, weights->norm[GPTVQ_NORM_ATTENTION], tape->inverse_rms[0],
                         tape->d_hidden, tape->d_middle, vectors->norm[GPTVQ_NORM_ATTENTION],
                         gradient_in != NULL ? gradient_in : tape->d_hidden);
}
