/* Gram products of bf16 inputs, and their like of two matrices: sums over tokens in double. */
#include "base/cpu.h"
#include "base/memory.h"
#include "base/threads.h"
#include "linalg/gemm_bf16.h"
#include "linalg/sums.h"
#include "linalg/x86/gemm_bf16.h"

#include <assert.h>

/* CHUNK: tokens whose products are summed in fp32: with inputs of 8 bits its rounding does not tell, adding
 * to the sums in double would. TILE: rows and columns of the sums that a thread works on at a time. */
enum { CHUNK = 1024, TILE = 4 * GPTVQ_BF16_PANEL };
static_assert((int)TILE <= (int)GPTVQ_SUMS_TILE && (int)TILE <= (int)GPTVQ_BF16_TN_ROWS,
              "tiles fit those who multiply");

/* 32-bit pairs of neighbours along the tokens in panels, x86/gemm_bf16.h */
static size_t panels_bytes(size_t cols, size_t n) {
  const size_t width = gptvq_round_up(gptvq_min_size(cols, SIZE_MAX / 2), GPTVQ_BF16_PANEL);
  return gptvq_saturated_size(n / 2 + n % 2, gptvq_saturated_size(width, sizeof(uint32_t)));
}

size_t gptvq_sums_bf16_bytes(size_t m, size_t c, size_t n) {
  return gptvq_saturated_sum(panels_bytes(m, n), panels_bytes(c, n));
}

#if defined(__x86_64__)
typedef struct packing_job {
  size_t n, cols, ldx, pairs;
  const float *x;
  uint32_t *out;
} packing_job;

static void pack_pairs(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const packing_job *job = context;
  for (size_t p = begin; p < end; p++)
    gptvq_pack_pair_avx512(job->n - 2 * p, job->cols, job->x + 2 * p * job->ldx, job->ldx, job->pairs,
                           job->out + p * GPTVQ_BF16_PANEL);
}

typedef struct tiles_job {
  bool upper;
  size_t m, n, pairs, across;
  const uint32_t *a, *b;
  double *sums;
} tiles_job;

static void add_tiles(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const tiles_job *job = context;
  for (size_t tile = begin; tile < end; tile++) {
    const size_t i = tile / job->across * TILE;
    const size_t j = tile % job->across * TILE;
    if (job->upper && j < i) continue;
    gptvq_add_panels_avx512(job->upper && i == j, gptvq_min_size(TILE, job->m - i),
                            gptvq_min_size(TILE, job->n - j), job->pairs, CHUNK / 2, job->a + i * job->pairs,
                            job->b + j * job->pairs, job->sums + i * job->n + j, job->n);
  }
}

static void add_panels(size_t m, size_t c, size_t n, const float *y, size_t ldy, const float *x, size_t ldx,
                       uint32_t *scratch, double *sums) {
  const size_t pairs = gptvq_ceil_div(n, 2), across = gptvq_ceil_div(c, TILE);
  uint32_t *other = scratch + panels_bytes(c, n) / sizeof *scratch;
  packing_job of_x = {n, c, ldx, pairs, x, scratch}, of_y = {n, m, ldy, pairs, y, other};
  tiles_job job = {m == 0, m > 0 ? m : c, c, pairs, across, m > 0 ? other : scratch, scratch, sums};
  gptvq_parallel_for(pairs, 8, pack_pairs, &of_x);
  if (m > 0) gptvq_parallel_for(pairs, 8, pack_pairs, &of_y);
  gptvq_parallel_for(gptvq_ceil_div(job.m, TILE) * across, 1, add_tiles, &job);
}

#if defined(GPTVQ_HAVE_AMX)
static void multiply_chunk(bool upper, size_t m, size_t n, size_t k, const void *a, size_t lda, const void *b,
                           size_t ldb, float *product) {
  gptvq_gemm_bf16_tn_amx(upper, m, n, k, a, lda, b, ldb, product, GPTVQ_SUMS_TILE);
}

static void add_rows(size_t m, size_t c, size_t n, const float *y, size_t ldy, const float *x, size_t ldx,
                     uint16_t *scratch, double *sums) {
  uint16_t *other = scratch + n * c;
  gptvq_rows_to_bf16(n, c, x, ldx, scratch);
  if (m > 0) gptvq_rows_to_bf16(n, m, y, ldy, other);
  const gptvq_sums job = {
    .m = m > 0 ? m : c,
    .n = c,
    .tokens = n,
    .chunk = CHUNK,
    .tile = TILE,
    .size = sizeof *scratch,
    .a = m > 0 ? other : scratch,
    .b = scratch,
    .lda = m > 0 ? m : c,
    .ldb = c,
    .upper = m == 0,
    .multiply = multiply_chunk,
    .add = gptvq_add_in_double_avx512,
    .sums = sums
  };
  gptvq_sums_add(&job);
}
#endif

static void add_sums(size_t m, size_t c, size_t n, const float *y, size_t ldy, const float *x, size_t ldx,
                     void *scratch, double *sums) {
#if defined(GPTVQ_HAVE_AMX)
  if (gptvq_cpu() & GPTVQ_CPU_AMX) {
    add_rows(m, c, n, y, ldy, x, ldx, scratch, sums);
    return;
  }
#endif
  add_panels(m, c, n, y, ldy, x, ldx, scratch, sums);
}
#else
static void add_sums(size_t m, size_t c, size_t n, const float *y, size_t ldy, const float *x, size_t ldx,
                     void *scratch, double *sums) {
  (void)m, (void)c, (void)n, (void)y, (void)ldy, (void)x, (void)ldx, (void)scratch, (void)sums;
}
#endif

void gptvq_gram_update_bf16(size_t c, size_t n, const float *x, size_t ldx, void *scratch, double *h) {
  add_sums(0, c, n, NULL, 0, x, ldx, scratch, h);
}

void gptvq_cross_update_bf16(size_t m, size_t c, size_t n, const float *y, size_t ldy, const float *x,
                             size_t ldx, void *scratch, double *sums) {
  if (m > 0) add_sums(m, c, n, y, ldy, x, ldx, scratch, sums);
}
