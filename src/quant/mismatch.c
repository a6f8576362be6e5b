#include "quant/mismatch.h"

#include "base/memory.h"
#include "base/threads.h"
#include "linalg/gemm.h"
#include "quant/cholesky.h"

#include <stdio.h>
#include <string.h>

/* Products of so many tokens are summed in fp32, the sums in double (as quant/hessian.c). */
enum { TOKENS = 256, ATTEMPTS = 6 };

/* doubles of the two sums; floats of scratch: differences of TOKENS tokens and one product */
static bool sizes(size_t cols, size_t rows, size_t *sums, size_t *scratch) {
  size_t wide = gptvq_max_size(cols, rows), product;
  return gptvq_mul(cols, cols, sums) && gptvq_mul(rows, cols, scratch) && gptvq_add(*sums, *scratch, sums) &&
         gptvq_mul(wide, cols, &product) && gptvq_mul(wide, TOKENS, scratch) && gptvq_add(*scratch, product, scratch) &&
         *sums <= SIZE_MAX / 32 && *scratch <= SIZE_MAX / 32;
}

size_t gptvq_mismatch_bytes(size_t cols, size_t rows) {
  size_t sums, scratch;
  if (!sizes(cols, rows, &sums, &scratch)) return SIZE_MAX;
  return sums * sizeof(double) + scratch * sizeof(float);
}

static gptvq_status out_of_memory(const char *name, size_t bytes, gptvq_error *err) {
  char context[256];
  (void)snprintf(context, sizeof context, "the mismatch of %s", name);
  return gptvq_fail_memory(err, context, bytes);
}

gptvq_status gptvq_mismatch_init(gptvq_mismatch *mismatch, size_t cols, size_t rows, const char *name, gptvq_error *err) {
  size_t sums, scratch;
  *mismatch = (gptvq_mismatch){.cols = cols, .rows = rows};
  if (sizes(cols, rows, &sums, &scratch)) {
    mismatch->inputs = gptvq_alloc_zero(sums, sizeof *mismatch->inputs);
    mismatch->scratch = gptvq_alloc(scratch, sizeof *mismatch->scratch);
  }
  if (mismatch->inputs == NULL || mismatch->scratch == NULL) {
    gptvq_mismatch_release(mismatch);
    return out_of_memory(name, gptvq_mismatch_bytes(cols, rows), err);
  }
  if (rows > 0) mismatch->stream = mismatch->inputs + cols * cols;
  return GPTVQ_OK;
}

void gptvq_mismatch_release(gptvq_mismatch *mismatch) {
  free(mismatch->inputs);
  free(mismatch->scratch);
  free(mismatch->map);
  *mismatch = (gptvq_mismatch){0};
}

typedef struct sum_job {
  size_t cols;
  const float *product;
  double *sum;
} sum_job;

static void add_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const sum_job *job = context;
  for (size_t i = begin * job->cols; i < end * job->cols; i++) job->sum[i] += (double)job->product[i];
}

/* sum[width × cols] += Σ w (a − b) xᵀ over n <= TOKENS tokens */
static void add_products(gptvq_mismatch *m, size_t n, size_t width, const float *a, const float *b, size_t ldb,
                         const float *x, size_t ldx, const float *weight, double *sum) {
  float *difference = m->scratch, *product = difference + TOKENS * gptvq_max_size(m->cols, m->rows);
  for (size_t t = 0; t < n; t++)
    for (size_t i = 0; i < width; i++) difference[t * width + i] = (a[t * width + i] - b[t * ldb + i]) * (weight != NULL ? weight[t] : 1.0f);
  gptvq_gemm_tn(width, m->cols, n, 1.0f, difference, width, x, ldx, 0.0f, product, m->cols);
  sum_job job = {m->cols, product, sum};
  gptvq_parallel_for(width, 16, add_rows, &job);
}

void gptvq_mismatch_add(gptvq_mismatch *m, size_t n, const float *x_original, const float *x, size_t ldx,
                        const float *stream_original, const float *stream, const float *weight) {
  for (size_t t = 0; t < n; t += TOKENS) {
    size_t count = gptvq_min_size(TOKENS, n - t);
    const float *w = weight != NULL ? weight + t : NULL;
    add_products(m, count, m->cols, x_original + t * m->cols, x + t * ldx, ldx, x + t * ldx, ldx, w, m->inputs);
    if (m->rows > 0)
      add_products(m, count, m->rows, stream_original + t * m->rows, stream + t * m->rows, m->rows, x + t * ldx, ldx, w,
                   m->stream);
  }
  m->tokens += n;
}

/* inverse[cols × cols] = L⁻¹ of H + λ = L Lᵀ as fp32; false: not positive definite at any λ */
static bool invert_factor(const gptvq_mismatch *m, const double *hessian, double damping, double *work, double *scratch,
                          float *inverse) {
  size_t n = m->cols;
  double mean = 0.0;
  for (size_t c = 0; c < n; c++) mean += hessian[c * n + c] / (double)n;
  if (!(mean > 0.0)) return false;
  double lambda = damping > 0.0 ? damping * mean : 1e-6 * mean;
  bool done = false;
  for (int attempt = 0; attempt < ATTEMPTS && !done; attempt++, lambda *= 10.0) {
    memcpy(work, hessian, n * n * sizeof *work);
    for (size_t c = 0; c < n; c++) work[c * n + c] += lambda;
    done = gptvq_cholesky(n, work);
  }
  if (!done) return false;
  gptvq_invert_lower(n, work, scratch);
  for (size_t r = 0; r < n; r++)
    for (size_t c = 0; c < n; c++) inverse[r * n + c] = c <= r ? (float)work[r * n + c] : 0.0f;
  return true;
}

/* map[rows × cols] = sum / tokens · L⁻ᵀ L⁻¹; uses a and b, [rows × cols] */
static void divide(const gptvq_mismatch *m, size_t rows, const double *sum, const float *inverse, float *a, float *map) {
  double scale = 1.0 / (double)m->tokens;
  for (size_t i = 0; i < rows * m->cols; i++) map[i] = (float)(sum[i] * scale);
  gptvq_gemm_nt(rows, m->cols, m->cols, 1.0f, map, m->cols, inverse, m->cols, 0.0f, a, m->cols);
  gptvq_gemm_nn(rows, m->cols, m->cols, 1.0f, a, m->cols, inverse, m->cols, 0.0f, map, m->cols);
}

gptvq_status gptvq_mismatch_finish(gptvq_mismatch *m, const double *hessian, double damping, const char *name,
                                   gptvq_error *err) {
  size_t n = m->cols, square = n * n, values = square + m->rows * n;
  m->map = gptvq_alloc_zero(values, sizeof *m->map);
  if (m->map == NULL) return out_of_memory(name, values * sizeof *m->map, err);
  if (m->rows > 0) m->shift = m->map + square;
  if (m->tokens == 0) return GPTVQ_OK;
  double *work = gptvq_alloc(n, n * sizeof *work);
  double *scratch = gptvq_alloc(gptvq_max_size(n, GPTVQ_CHOLESKY_BLOCK), GPTVQ_CHOLESKY_BLOCK * sizeof *scratch);
  float *inverse = gptvq_alloc(n, n * sizeof *inverse);
  gptvq_status status = GPTVQ_OK;
  if (work == NULL || scratch == NULL || inverse == NULL) {
    status = out_of_memory(name, square * sizeof *work, err);
  } else if (invert_factor(m, hessian, damping, work, scratch, inverse)) {
    divide(m, n, m->inputs, inverse, m->scratch, m->map);
    if (m->rows > 0) divide(m, m->rows, m->stream, inverse, m->scratch, m->shift);
  }
  free(work);
  free(scratch);
  free(inverse);
  return status;
}

gptvq_status gptvq_mismatch_apply(const gptvq_mismatch *m, double inputs_share, double stream_share, size_t rows,
                                  float *weights, const char *name, gptvq_error *err) {
  size_t values = rows * m->cols;
  float *change = gptvq_alloc(values, sizeof *change);
  if (change == NULL) return out_of_memory(name, gptvq_saturated_size(values, sizeof *change), err);
  gptvq_gemm_nn(rows, m->cols, m->cols, (float)inputs_share, weights, m->cols, m->map, m->cols, 0.0f, change, m->cols);
  for (size_t i = 0; i < values; i++) weights[i] += change[i];
  if (m->rows > 0)
    for (size_t i = 0; i < values; i++) weights[i] += (float)stream_share * m->shift[i];
  free(change);
  return GPTVQ_OK;
}
