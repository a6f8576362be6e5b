#include "train/pieces.h"

#include "base/memory.h"
#include "base/threads.h"
#include "linalg/gemm.h"
#include "linalg/gemm_bf16.h"

enum { COLUMNS = 16 }; /* columns of one column-sum task: a cache line */

/* sum[i] += Σ_t a[t][i] (· b[t][i] · scale[t] where b is given): each task owns some columns and walks over
 * all tokens, in order. */
typedef struct sum_job {
  size_t tokens, width;
  const float *a, *b, *scale;
  float *sum;
} sum_job;

static void sum_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const sum_job *job = context;
  for (size_t chunk = begin; chunk < end; chunk++) {
    size_t first = chunk * COLUMNS, count = gptvq_min_size(COLUMNS, job->width - first);
    double sum[COLUMNS] = {0};
    for (size_t t = 0; t < job->tokens; t++) {
      const float *a = job->a + t * job->width + first;
      if (job->b == NULL) {
        for (size_t i = 0; i < count; i++) sum[i] += (double)a[i];
        continue;
      }
      const float *b = job->b + t * job->width + first;
      double scale = (double)job->scale[t];
      for (size_t i = 0; i < count; i++) sum[i] += (double)a[i] * (double)b[i] * scale;
    }
    for (size_t i = 0; i < count; i++) job->sum[first + i] += (float)sum[i];
  }
}

void gptvq_ft_add_columns(size_t tokens, size_t width, const float *a, const float *b, const float *scale,
                          float *sum) {
  sum_job job = {tokens, width, a, b, scale, sum};
  gptvq_parallel_for(gptvq_ceil_div(width, COLUMNS), 1, sum_task, &job);
}

typedef struct bias_job {
  size_t width;
  const float *bias;
  float *y;
} bias_job;

static void bias_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const bias_job *job = context;
  for (size_t t = begin; t < end; t++)
    for (size_t i = 0; i < job->width; i++) job->y[t * job->width + i] += job->bias[i];
}

/* What a product reads: x[tokens × width], or the same in bf16 numbers. */
static const uint16_t *rounded(const gptvq_ft_weights *weights, size_t which, size_t tokens, size_t width,
                               const float *x) {
  gptvq_rows_to_bf16(tokens, width, x, width, weights->rounded[which]);
  return weights->rounded[which];
}

/* A matrix of bf16 numbers lies in the first halves of its rows of floats. */
static const uint16_t *bf16_matrix(const gptvq_ft_weights *weights, gptvq_ft_matrix matrix) {
  return (const uint16_t *)(const void *)weights->matrix[matrix];
}

void gptvq_ft_linear_forward(const gptvq_ft_dims *dims, const gptvq_ft_weights *weights,
                             gptvq_ft_matrix matrix, size_t tokens, const float *x, float *y) {
  size_t rows = gptvq_ft_rows(dims, matrix), cols = gptvq_ft_cols(dims, matrix);
  if (weights->rounded[0] != NULL)
    gptvq_gemm_bf16_tiled_nt(tokens, rows, cols, 1.0f, rounded(weights, 0, tokens, cols, x), cols,
                             bf16_matrix(weights, matrix), 2 * cols, y, rows);
  else gptvq_gemm_nt(tokens, rows, cols, 1.0f, x, cols, weights->matrix[matrix], cols, 0.0f, y, rows);
  if (weights->bias[matrix] == NULL) return;
  bias_job job = {rows, weights->bias[matrix], y};
  gptvq_parallel_for(tokens, 16, bias_task, &job);
}

void gptvq_ft_linear_gradient(const gptvq_ft_dims *dims, const gptvq_ft_weights *weights,
                              gptvq_ft_matrix matrix, size_t tokens, const float *dy, const float *x,
                              float *gradient) {
  size_t rows = gptvq_ft_rows(dims, matrix), cols = gptvq_ft_cols(dims, matrix);
  if (weights->rounded[0] != NULL)
    gptvq_gemm_bf16_tiled_tn(rows, cols, tokens, 1.0f, rounded(weights, 0, tokens, rows, dy), rows,
                             rounded(weights, 1, tokens, cols, x), cols, gradient, cols);
  else gptvq_gemm_tn(rows, cols, tokens, 1.0f, dy, rows, x, cols, 0.0f, gradient, cols);
}

void gptvq_ft_linear_backward(const gptvq_ft_dims *dims, const gptvq_ft_weights *weights,
                              gptvq_ft_matrix matrix, size_t tokens, const float *dy, float *dx) {
  size_t rows = gptvq_ft_rows(dims, matrix), cols = gptvq_ft_cols(dims, matrix);
  if (weights->rounded[0] != NULL)
    gptvq_gemm_bf16_tiled_nn(tokens, cols, rows, 1.0f, rounded(weights, 0, tokens, rows, dy), rows,
                             bf16_matrix(weights, matrix), 2 * cols, dx, cols);
  else gptvq_gemm_nn(tokens, cols, rows, 1.0f, dy, rows, weights->matrix[matrix], cols, 0.0f, dx, cols);
}
