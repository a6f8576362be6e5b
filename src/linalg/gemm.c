#include "linalg/gemm.h"
#include "base/memory.h"
#include "base/threads.h"

#include <cblas.h>
#include <pthread.h>

/* Tiles large enough for BLAS to reach its peak, small enough to share out. */
enum { TILE_M = 256, TILE_N = 256, GRAM_TILE = 256 };

static pthread_once_t once = PTHREAD_ONCE_INIT;
static void use_one_blas_thread(void) { openblas_set_num_threads(1); }
void gptvq_blas_init(void) { (void)pthread_once(&once, use_one_blas_thread); }

typedef struct gemm_job {
  size_t m, n, k, lda, ldb, ldc, tiles_n;
  float alpha, beta;
  const float *a, *b;
  float *c;
  CBLAS_TRANSPOSE trans_a, trans_b;
} gemm_job;

static void gemm_tile(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const gemm_job *job = context;
  for (size_t tile = begin; tile < end; tile++) {
    size_t i = tile / job->tiles_n * TILE_M, j = tile % job->tiles_n * TILE_N;
    size_t m = gptvq_min_size(TILE_M, job->m - i), n = gptvq_min_size(TILE_N, job->n - j);
    const float *a = job->a + (job->trans_a == CblasTrans ? i : i * job->lda);
    const float *b = job->b + (job->trans_b == CblasTrans ? j * job->ldb : j);
    cblas_sgemm(CblasRowMajor, job->trans_a, job->trans_b, (blasint)m, (blasint)n, (blasint)job->k, job->alpha, a,
                (blasint)job->lda, b, (blasint)job->ldb, job->beta, job->c + i * job->ldc + j,
                (blasint)job->ldc);
  }
}

static void run(gemm_job *job) {
  pthread_once(&once, use_one_blas_thread);
  if (job->m == 0 || job->n == 0) return;
  job->tiles_n = gptvq_ceil_div(job->n, TILE_N);
  gptvq_parallel_for(gptvq_ceil_div(job->m, TILE_M) * job->tiles_n, 1, gemm_tile, job);
}

void gptvq_gemm_nt(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b, size_t ldb,
                   float beta, float *c, size_t ldc) {
  gemm_job job = {m, n, k, lda, ldb, ldc, 0, alpha, beta, a, b, c, CblasNoTrans, CblasTrans};
  run(&job);
}

void gptvq_gemm_nn(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b, size_t ldb,
                   float beta, float *c, size_t ldc) {
  gemm_job job = {m, n, k, lda, ldb, ldc, 0, alpha, beta, a, b, c, CblasNoTrans, CblasNoTrans};
  run(&job);
}

void gptvq_gemm_tn(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b, size_t ldb,
                   float beta, float *c, size_t ldc) {
  gemm_job job = {m, n, k, lda, ldb, ldc, 0, alpha, beta, a, b, c, CblasTrans, CblasNoTrans};
  run(&job);
}

static void run_serial(CBLAS_TRANSPOSE trans_b, size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda,
                       const float *b, size_t ldb, float beta, float *c, size_t ldc) {
  pthread_once(&once, use_one_blas_thread);
  if (m == 0 || n == 0) return;
  cblas_sgemm(CblasRowMajor, CblasNoTrans, trans_b, (blasint)m, (blasint)n, (blasint)k, alpha, a, (blasint)lda, b,
              (blasint)ldb, beta, c, (blasint)ldc);
}

void gptvq_gemm_serial_nt(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b,
                          size_t ldb, float beta, float *c, size_t ldc) {
  run_serial(CblasTrans, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void gptvq_gemm_serial_nn(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b,
                          size_t ldb, float beta, float *c, size_t ldc) {
  run_serial(CblasNoTrans, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

typedef struct gram_job {
  size_t c, n, ldx, tiles;
  const float *x;
  double *h;
} gram_job;

static void gram_tile(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const gram_job *job = context;
  static _Thread_local float product[GRAM_TILE * GRAM_TILE];
  for (size_t tile = begin; tile < end; tile++) {
    size_t i = tile / job->tiles * GRAM_TILE, j = tile % job->tiles * GRAM_TILE;
    if (j < i) continue; /* the upper triangle */
    size_t m = gptvq_min_size(GRAM_TILE, job->c - i), n = gptvq_min_size(GRAM_TILE, job->c - j);
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (blasint)m, (blasint)n, (blasint)job->n, 1.0f, job->x + i,
                (blasint)job->ldx, job->x + j, (blasint)job->ldx, 0.0f, product, GRAM_TILE);
    for (size_t a = 0; a < m; a++)
      for (size_t b = i == j ? a : 0; b < n; b++) job->h[(i + a) * job->c + j + b] += (double)product[a * GRAM_TILE + b];
  }
}

void gptvq_gram_update(size_t c, size_t n, const float *x, size_t ldx, double *h) {
  pthread_once(&once, use_one_blas_thread);
  gram_job job = {c, n, ldx, gptvq_ceil_div(c, GRAM_TILE), x, h};
  gptvq_parallel_for(job.tiles * job.tiles, 1, gram_tile, &job);
}
