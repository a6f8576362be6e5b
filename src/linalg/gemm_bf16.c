#include "linalg/gemm_bf16.h"
#include "base/cpu.h"
#include "base/half.h"
#include "base/memory.h"
#include "base/threads.h"
#include "linalg/onednn.h"
#include "linalg/x86/gemm_bf16.h"

/* SUMS_CHUNK: rows whose products are summed in fp32: with inputs of 8 bits its rounding does not tell,
 * adding to the sums in double would. */
enum { SUMS_TILE = GPTVQ_BF16_TN_ROWS, SUMS_CHUNK = 1024 };

#if defined(__x86_64__)
bool gptvq_gemm_bf16_available(void) { return (gptvq_cpu() & GPTVQ_CPU_AVX512_BF16) != 0; }

bool gptvq_gemm_bf16_serial_nt(size_t m, size_t n, size_t k, const uint16_t *a, size_t lda, const uint16_t *b,
                               size_t ldb, float *c, size_t ldc) {
  if ((gptvq_cpu() & GPTVQ_CPU_AMX) && gptvq_onednn_works(GPTVQ_ONEDNN_BF16))
    return gptvq_onednn_product(GPTVQ_ONEDNN_BF16, m, n, k, a, lda, b, ldb, c, ldc);
  gptvq_gemm_bf16_nt_avx512(m, n, k, a, lda, b, ldb, c, ldc);
  return true;
}

static void multiply_chunk(size_t m, size_t n, size_t k, const uint16_t *a, size_t lda, const uint16_t *b,
                           size_t ldb, float *c, size_t ldc) {
  gptvq_gemm_bf16_tn_avx512(m, n, k, a, lda, b, ldb, c, ldc);
}
#else
bool gptvq_gemm_bf16_available(void) { return false; }

bool gptvq_gemm_bf16_serial_nt(size_t m, size_t n, size_t k, const uint16_t *a, size_t lda, const uint16_t *b,
                               size_t ldb, float *c, size_t ldc) {
  (void)m, (void)n, (void)k, (void)a, (void)lda, (void)b, (void)ldb, (void)c, (void)ldc;
  return false;
}

static void multiply_chunk(size_t m, size_t n, size_t k, const uint16_t *a, size_t lda, const uint16_t *b,
                           size_t ldb, float *c, size_t ldc) {
  (void)m, (void)n, (void)k, (void)a, (void)lda, (void)b, (void)ldb, (void)c, (void)ldc;
}
#endif

typedef struct rounding_job {
  size_t cols, ldx;
  const float *x;
  uint16_t *out;
} rounding_job;

static void round_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const rounding_job *job = context;
  for (size_t i = begin; i < end; i++) {
    const float *x = job->x + i * job->ldx;
    uint16_t *out = job->out + i * job->cols;
    for (size_t c = 0; c < job->cols; c++) out[c] = gptvq_float_to_bf16(x[c]);
  }
}

void gptvq_rows_to_bf16(size_t n, size_t cols, const float *x, size_t ldx, uint16_t *out) {
  rounding_job job = {cols, ldx, x, out};
  gptvq_parallel_for(n, 16, round_rows, &job);
}

typedef struct sums_job {
  size_t m, n, tokens, tiles_n;
  bool upper;
  const uint16_t *a, *b; /* [tokens × m], [tokens × n] */
  double *sums;
} sums_job;

/* As in gemm.c: one tile of the sums meets all tokens while it is in the cache. */
static void sums_tile(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const sums_job *job = context;
  static _Thread_local float product[SUMS_TILE * SUMS_TILE];
  for (size_t tile = begin; tile < end; tile++) {
    size_t i = tile / job->tiles_n * SUMS_TILE, j = tile % job->tiles_n * SUMS_TILE;
    if (job->upper && j < i) continue;
    size_t m = gptvq_min_size(SUMS_TILE, job->m - i), n = gptvq_min_size(SUMS_TILE, job->n - j);
    for (size_t t = 0; t < job->tokens; t += SUMS_CHUNK) {
      multiply_chunk(m, n, gptvq_min_size(SUMS_CHUNK, job->tokens - t), job->a + t * job->m + i, job->m,
                     job->b + t * job->n + j, job->n, product, SUMS_TILE);
      for (size_t r = 0; r < m; r++)
        for (size_t c = job->upper && i == j ? r : 0; c < n; c++)
          job->sums[(i + r) * job->n + j + c] += (double)product[r * SUMS_TILE + c];
    }
  }
}

static void run_sums(sums_job *job) {
  if (job->m == 0 || job->n == 0) return;
  job->tiles_n = gptvq_ceil_div(job->n, SUMS_TILE);
  gptvq_parallel_for(gptvq_ceil_div(job->m, SUMS_TILE) * job->tiles_n, 1, sums_tile, job);
}

void gptvq_gram_update_bf16(size_t c, size_t n, const uint16_t *x, double *h) {
  sums_job job = {.m = c, .n = c, .tokens = n, .upper = true, .a = x, .b = x, .sums = h};
  run_sums(&job);
}

void gptvq_cross_update_bf16(size_t m, size_t c, size_t n, const uint16_t *y, const uint16_t *x,
                             double *sums) {
  sums_job job = {.m = m, .n = c, .tokens = n, .a = y, .b = x, .sums = sums};
  run_sums(&job);
}
