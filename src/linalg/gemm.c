#include "linalg/gemm.h"
#include "base/memory.h"
#include "base/threads.h"
#include "linalg/sums.h"

#include <cblas.h>
#include <stdbool.h>

/* Tiles large enough for BLAS to reach its peak, small enough to share out; products of LARGE rows and
 * columns have enough of twice that size, for which less is packed (91 instead of 85 GFLOP/s a core). */
enum { TILE = 256, LARGE = 1024, STRIP = 64 };

typedef struct gemm_job {
  size_t m, n, k, lda, ldb, ldc, tile, tiles_n;
  float alpha, beta;
  const float *a, *b;
  float *c;
  CBLAS_TRANSPOSE trans_a, trans_b;
  bool upper; /* B as it lies is an upper triangle: what is zero is left out */
} gemm_job;

static void gemm_tile(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const gemm_job *job = context;
  for (size_t tile = begin; tile < end; tile++) {
    size_t i = tile / job->tiles_n * job->tile, j = tile % job->tiles_n * job->tile;
    size_t m = gptvq_min_size(job->tile, job->m - i), n = gptvq_min_size(job->tile, job->n - j);
    const float *a = job->a + (job->trans_a == CblasTrans ? i : i * job->lda);
    const float *b = job->b + (job->trans_b == CblasTrans ? j * job->ldb : j);
    size_t k = job->k;
    if (job->upper && job->trans_b == CblasNoTrans) k = gptvq_min_size(k, j + n);
    else if (job->upper) {
      a += j;
      b += j;
      k -= j;
    }
    cblas_sgemm(CblasRowMajor, job->trans_a, job->trans_b, (blasint)m, (blasint)n, (blasint)k, job->alpha, a,
                (blasint)job->lda, b, (blasint)job->ldb, job->beta, job->c + i * job->ldc + j,
                (blasint)job->ldc);
  }
}

static void run(gemm_job *job) {
  gptvq_blas_one_thread();
  if (job->m == 0 || job->n == 0) return;
  job->tile = job->m >= LARGE && job->n >= LARGE && !job->upper ? 2 * TILE : TILE;
  job->tiles_n = gptvq_ceil_div(job->n, job->tile);
  gptvq_parallel_for(gptvq_ceil_div(job->m, job->tile) * job->tiles_n, 1, gemm_tile, job);
}

void gptvq_gemm_nt(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b,
                   size_t ldb, float beta, float *c, size_t ldc) {
  gemm_job job = {m, n, k, lda, ldb, ldc, 0, 0, alpha, beta, a, b, c, CblasNoTrans, CblasTrans, false};
  run(&job);
}

void gptvq_gemm_nn(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b,
                   size_t ldb, float beta, float *c, size_t ldc) {
  gemm_job job = {m, n, k, lda, ldb, ldc, 0, 0, alpha, beta, a, b, c, CblasNoTrans, CblasNoTrans, false};
  run(&job);
}

void gptvq_gemm_tn(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b,
                   size_t ldb, float beta, float *c, size_t ldc) {
  gemm_job job = {m, n, k, lda, ldb, ldc, 0, 0, alpha, beta, a, b, c, CblasTrans, CblasNoTrans, false};
  run(&job);
}

void gptvq_gemm_nt_upper(size_t m, size_t n, const float *a, size_t lda, const float *u, size_t ldu, float *c,
                         size_t ldc) {
  gemm_job job = {m, n, n, lda, ldu, ldc, 0, 0, 1.0f, 0.0f, a, u, c, CblasNoTrans, CblasTrans, true};
  run(&job);
}

void gptvq_gemm_nn_upper(size_t m, size_t n, const float *a, size_t lda, const float *u, size_t ldu, float *c,
                         size_t ldc) {
  gemm_job job = {m, n, n, lda, ldu, ldc, 0, 0, 1.0f, 0.0f, a, u, c, CblasNoTrans, CblasNoTrans, true};
  run(&job);
}

static void run_serial(CBLAS_TRANSPOSE trans_b, size_t m, size_t n, size_t k, float alpha, const float *a,
                       size_t lda, const float *b, size_t ldb, float beta, float *c, size_t ldc) {
  gptvq_blas_one_thread();
  if (m == 0 || n == 0) return;
  cblas_sgemm(CblasRowMajor, CblasNoTrans, trans_b, (blasint)m, (blasint)n, (blasint)k, alpha, a,
              (blasint)lda, b, (blasint)ldb, beta, c, (blasint)ldc);
}

void gptvq_gemm_serial_nt(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                          const float *b, size_t ldb, float beta, float *c, size_t ldc) {
  run_serial(CblasTrans, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void gptvq_gemm_serial_nn(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                          const float *b, size_t ldb, float beta, float *c, size_t ldc) {
  run_serial(CblasNoTrans, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

/* Chunks of tokens in fp32. Of a triangle strips of rows, each from its diagonal on. */
static void multiply_chunk(bool upper, size_t m, size_t n, size_t k, const void *a, size_t lda, const void *b,
                           size_t ldb, float *product) {
  const size_t strip = upper ? STRIP : GPTVQ_SUMS_TILE;
  const float *rows = a, *cols = b;
  for (size_t i = 0; i < m; i += strip) {
    const size_t from = upper ? i : 0;
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (blasint)gptvq_min_size(strip, m - i),
                (blasint)(n - from), (blasint)k, 1.0f, rows + i, (blasint)lda, cols + from, (blasint)ldb,
                0.0f, product + i * GPTVQ_SUMS_TILE + from, GPTVQ_SUMS_TILE);
  }
}

static void add_sums(bool upper, size_t m, size_t c, size_t n, size_t chunk, const float *y, size_t ldy,
                     const float *x, size_t ldx, double *sums) {
  gptvq_blas_one_thread();
  gptvq_sums_add(&(gptvq_sums){.m = m,
                               .n = c,
                               .tokens = n,
                               .chunk = chunk,
                               .tile = GPTVQ_SUMS_TILE,
                               .size = sizeof *x,
                               .a = y,
                               .b = x,
                               .lda = ldy,
                               .ldb = ldx,
                               .upper = upper,
                               .multiply = multiply_chunk,
                               .add = gptvq_add_in_double,
                               .sums = sums});
}

void gptvq_gram_update(size_t c, size_t n, size_t chunk, const float *x, size_t ldx, double *h) {
  add_sums(true, c, c, n, chunk, x, ldx, x, ldx, h);
}

void gptvq_cross_update(size_t m, size_t c, size_t n, size_t chunk, const float *y, size_t ldy,
                        const float *x, size_t ldx, double *sums) {
  add_sums(false, m, c, n, chunk, y, ldy, x, ldx, sums);
}
