#include "linalg/gemm_bf16.h"
#include "base/cpu.h"
#include "base/half.h"
#include "base/memory.h"
#include "base/threads.h"
#include "linalg/x86/gemm_bf16.h"

#include <string.h>

/* out may be x's memory: element i of out lies never beyond element i of x. */
static void to_bf16(size_t n, const float *x, uint16_t *out) {
  for (size_t i = 0; i < n; i++) {
    const uint16_t bits = gptvq_float_to_bf16(x[i]);
    memcpy(out + i, &bits, sizeof bits);
  }
}

#if defined(__x86_64__)
bool gptvq_gemm_bf16_available(void) { return (gptvq_cpu() & GPTVQ_CPU_AVX512_BF16) != 0; }

void gptvq_gemm_bf16_nt(size_t m, size_t n, size_t k, const uint16_t *a, size_t lda, const uint16_t *b,
                        size_t ldb, float *c, size_t ldc) {
#if defined(GPTVQ_HAVE_AMX)
  if (gptvq_cpu() & GPTVQ_CPU_AMX) {
    gptvq_gemm_bf16_nt_amx(m, n, k, a, lda, b, ldb, c, ldc);
    return;
  }
#endif
  gptvq_gemm_bf16_nt_avx512(m, n, k, a, lda, b, ldb, c, ldc);
}

void gptvq_gemm_bf16_nn(size_t m, size_t n, size_t k, const uint16_t *a, size_t lda, const uint16_t *b,
                        size_t ldb, float *c, size_t ldc) {
#if defined(GPTVQ_HAVE_AMX)
  if (gptvq_cpu() & GPTVQ_CPU_AMX) {
    gptvq_gemm_bf16_nn_amx(m, n, k, a, lda, b, ldb, c, ldc);
    return;
  }
#endif
  gptvq_gemm_bf16_nn_avx512(m, n, k, a, lda, b, ldb, c, ldc);
}

/* m <= GPTVQ_BF16_TN_ROWS */
static void multiply_tn(size_t m, size_t n, size_t k, const uint16_t *a, size_t lda, const uint16_t *b,
                        size_t ldb, float *c, size_t ldc) {
#if defined(GPTVQ_HAVE_AMX)
  if (gptvq_cpu() & GPTVQ_CPU_AMX) {
    gptvq_gemm_bf16_tn_amx(false, m, n, k, a, lda, b, ldb, c, ldc);
    return;
  }
#endif
  gptvq_gemm_bf16_tn_avx512(m, n, k, a, lda, b, ldb, c, ldc);
}

void gptvq_to_bf16(size_t n, const float *x, uint16_t *out) {
  if (gptvq_gemm_bf16_available()) gptvq_to_bf16_avx512(n, x, out);
  else to_bf16(n, x, out);
}
#else
bool gptvq_gemm_bf16_available(void) { return false; }

void gptvq_gemm_bf16_nt(size_t m, size_t n, size_t k, const uint16_t *a, size_t lda, const uint16_t *b,
                        size_t ldb, float *c, size_t ldc) {
  (void)m, (void)n, (void)k, (void)a, (void)lda, (void)b, (void)ldb, (void)c, (void)ldc;
}

void gptvq_gemm_bf16_nn(size_t m, size_t n, size_t k, const uint16_t *a, size_t lda, const uint16_t *b,
                        size_t ldb, float *c, size_t ldc) {
  (void)m, (void)n, (void)k, (void)a, (void)lda, (void)b, (void)ldb, (void)c, (void)ldc;
}

static void multiply_tn(size_t m, size_t n, size_t k, const uint16_t *a, size_t lda, const uint16_t *b,
                        size_t ldb, float *c, size_t ldc) {
  (void)m, (void)n, (void)k, (void)a, (void)lda, (void)b, (void)ldb, (void)c, (void)ldc;
}

void gptvq_to_bf16(size_t n, const float *x, uint16_t *out) { to_bf16(n, x, out); }
#endif

typedef struct rounding_job {
  size_t cols, ldx;
  const float *x;
  uint16_t *out;
} rounding_job;

static void round_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const rounding_job *job = context;
  for (size_t i = begin; i < end; i++)
    gptvq_to_bf16(job->cols, job->x + i * job->ldx, job->out + i * job->cols);
}

void gptvq_rows_to_bf16(size_t n, size_t cols, const float *x, size_t ldx, uint16_t *out) {
  rounding_job job = {cols, ldx, x, out};
  gptvq_parallel_for(n, 16, round_rows, &job);
}

/* ---- threaded products ---- */

/* For every tile B, or in the last case A, is packed anew: rows enough that it does not tell. */
enum { TILE_ROWS = 512, TILE_COLS = 192 };

typedef enum product { NT, NN, TN } product;

typedef struct product_job {
  product how;
  size_t m, n, k, lda, ldb, ldc, tile_rows, tile_cols, tiles_n;
  float alpha;
  const uint16_t *a, *b;
  float *c;
} product_job;

static void multiply_tiles(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const product_job *job = context;
  for (size_t tile = begin; tile < end; tile++) {
    const size_t i = tile / job->tiles_n * job->tile_rows, j = tile % job->tiles_n * job->tile_cols,
                 m = gptvq_min_size(job->tile_rows, job->m - i),
                 n = gptvq_min_size(job->tile_cols, job->n - j);
    const uint16_t *a = job->a + (job->how == TN ? i : i * job->lda),
                   *b = job->b + (job->how == NT ? j * job->ldb : j);
    float *c = job->c + i * job->ldc + j;
    if (job->how == NN)
      for (size_t row = 0; row < m; row++) memset(c + row * job->ldc, 0, n * sizeof *c);
    if (job->how == NT) gptvq_gemm_bf16_nt(m, n, job->k, a, job->lda, b, job->ldb, c, job->ldc);
    else if (job->how == NN) gptvq_gemm_bf16_nn(m, n, job->k, a, job->lda, b, job->ldb, c, job->ldc);
    else multiply_tn(m, n, job->k, a, job->lda, b, job->ldb, c, job->ldc);
    for (size_t row = 0; row < m && job->alpha != 1.0f; row++)
      for (size_t col = 0; col < n; col++) c[row * job->ldc + col] *= job->alpha;
  }
}

static void multiply(product_job job) {
  job.tile_rows = job.how == TN ? GPTVQ_BF16_TN_ROWS : TILE_ROWS;
  job.tile_cols = job.how == TN ? TILE_ROWS : TILE_COLS;
  job.tiles_n = gptvq_ceil_div(job.n, job.tile_cols);
  gptvq_parallel_for(gptvq_ceil_div(job.m, job.tile_rows) * job.tiles_n, 1, multiply_tiles, &job);
}

void gptvq_gemm_bf16_tiled_nt(size_t m, size_t n, size_t k, float alpha, const uint16_t *a, size_t lda,
                              const uint16_t *b, size_t ldb, float *c, size_t ldc) {
  multiply((product_job){NT, m, n, k, lda, ldb, ldc, 0, 0, 0, alpha, a, b, c});
}

void gptvq_gemm_bf16_tiled_nn(size_t m, size_t n, size_t k, float alpha, const uint16_t *a, size_t lda,
                              const uint16_t *b, size_t ldb, float *c, size_t ldc) {
  multiply((product_job){NN, m, n, k, lda, ldb, ldc, 0, 0, 0, alpha, a, b, c});
}

void gptvq_gemm_bf16_tiled_tn(size_t m, size_t n, size_t k, float alpha, const uint16_t *a, size_t lda,
                              const uint16_t *b, size_t ldb, float *c, size_t ldc) {
  multiply((product_job){TN, m, n, k, lda, ldb, ldc, 0, 0, 0, alpha, a, b, c});
}
