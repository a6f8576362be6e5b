/* Stored codebooks, decoding in processing order, loss of a layer. */
#include "base/half.h"
#include "base/memory.h"
#include "base/threads.h"
#include "linalg/gemm.h"
#include "quant/layer.h"

#include <math.h>
#include <string.h>

/* smallest bf16 number >= x (x >= 0); the largest finite one when x is above it */
static uint16_t bf16_above(float x) {
  uint16_t h = gptvq_float_to_bf16(x);
  if (gptvq_bf16_to_float(h) < x) h++;
  return h < 0x7f80u ? h : 0x7f7fu;
}

void gptvq_vq_store_codebook(gptvq_vq *q, size_t tile, const float *centroids) {
  size_t n = q->k * q->dim;
  float most = 0.0f, *decoded = q->centroids + tile * n;
  for (size_t i = 0; i < n; i++) most = fmaxf(most, fabsf(centroids[i]));
  uint16_t stored = bf16_above(most);
  float scale = gptvq_bf16_to_float(stored);
  q->codebook_scales[tile] = stored;
  for (size_t i = 0; i < n; i++) {
    float ratio = scale > 0.0f ? centroids[i] / scale : 0.0f;
    if (q->shape.codebook_bits == 8) {
      int8_t code = (int8_t)fminf(127.0f, fmaxf(-127.0f, rintf(ratio * 127.0f)));
      ((int8_t *)q->codes)[tile * n + i] = code;
      decoded[i] = (float)code * (scale / 127.0f);
    } else {
      uint16_t code = gptvq_float_to_fp16(ratio);
      ((uint16_t *)q->codes)[tile * n + i] = code;
      decoded[i] = gptvq_fp16_to_float(code) * scale;
    }
  }
}

typedef struct decode_job {
  const gptvq_vq *q;
  const float *centroids;
  float *out;
} decode_job;

void gptvq_vq_decode_rows(const gptvq_vq *q, const float *centroids, size_t begin, size_t end, float *out) {
  size_t d = q->dim;
  for (size_t row = begin; row < end; row++, out += q->padded) {
    const float *books = centroids + row / q->shape.group_rows * q->groups * q->k * d;
    for (size_t g = 0; g < q->groups; g++, books += q->k * d)
      for (size_t b = q->group[g].start / d; b < (q->group[g].start + q->group[g].width) / d; b++) {
        float scale = gptvq_vq_scale(q, row, b);
        const float *c = books + q->index[row * q->blocks + b] * d;
        for (size_t i = 0; i < d; i++) out[b * d + i] = c[i] * scale;
      }
  }
}

static void decode_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const decode_job *j = context;
  gptvq_vq_decode_rows(j->q, j->centroids, begin, end, j->out + begin * j->q->padded);
}

void gptvq_vq_decode(const gptvq_vq *q, const float *centroids, float *out) {
  decode_job job = {q, centroids, out};
  gptvq_parallel_for(q->rows, 8, decode_rows, &job);
}

/* y = x (H + ridge), rows × padded each */
typedef struct ridge_job {
  const gptvq_factor *f;
  const float *x;
  float *y;
} ridge_job;

static void add_ridge(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const ridge_job *j = context;
  size_t n = j->f->padded;
  for (size_t row = begin; row < end; row++)
    for (size_t c = 0; c < n; c++) j->y[row * n + c] += (float)gptvq_factor_ridge(j->f, c) * j->x[row * n + c];
}

void gptvq_vq_times_hessian(const gptvq_vq *q, size_t rows, const float *x, float *y) {
  size_t n = q->padded;
  gptvq_gemm_nn(rows, n, n, 1.0f, x, n, q->factor->h, n, 0.0f, y, n);
  ridge_job job = {q->factor, x, y};
  gptvq_parallel_for(rows, 8, add_ridge, &job);
}

typedef struct loss_job {
  gptvq_vq *q;
  double *rows;
} loss_job;

static void subtract_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const loss_job *j = context;
  size_t n = j->q->padded;
  for (size_t i = begin * n; i < end * n; i++) j->q->work[i] = j->q->target[i] - j->q->work[i];
}

static void dot_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const loss_job *j = context;
  size_t n = j->q->padded;
  for (size_t row = begin; row < end; row++) {
    double sum = 0.0;
    for (size_t i = row * n; i < (row + 1) * n; i++) sum += (double)j->q->work[i] * (double)j->q->error[i];
    j->rows[row] = sum;
  }
}

void gptvq_vq_residual(gptvq_vq *q) {
  gptvq_vq_decode(q, q->centroids, q->work);
  loss_job job = {q, NULL};
  gptvq_parallel_for(q->rows, 8, subtract_rows, &job);
}

double gptvq_vq_loss(gptvq_vq *q, double *row_loss) {
  gptvq_vq_residual(q);
  gptvq_vq_times_hessian(q, q->rows, q->work, q->error);
  loss_job job = {q, row_loss};
  gptvq_parallel_for(q->rows, 8, dot_rows, &job);
  double sum = 0.0;
  for (size_t row = 0; row < q->rows; row++) sum += row_loss[row];
  return sum;
}
