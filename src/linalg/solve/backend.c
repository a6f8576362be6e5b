#include "linalg/solve/backend.h"
#include "base/memory.h"
#include "linalg/gemm.h"
#include "linalg/gemm_bf16.h"
#include "linalg/solve/cholesky.h"

static gptvq_status gram(const gptvq_linalg *linalg, size_t c, size_t n, size_t chunk, const float *x,
                         size_t ldx, double *h, gptvq_error *err) {
  (void)linalg;
  (void)err;
  gptvq_gram_update(c, n, chunk, x, ldx, h);
  return GPTVQ_OK;
}

static gptvq_status cross(const gptvq_linalg *linalg, size_t m, size_t c, size_t n, size_t chunk,
                          const float *y, size_t ldy, const float *x, size_t ldx, double *sums,
                          gptvq_error *err) {
  (void)linalg;
  (void)err;
  gptvq_cross_update(m, c, n, chunk, y, ldy, x, ldx, sums);
  return GPTVQ_OK;
}

static gptvq_status inverse_factor(const gptvq_linalg *linalg, size_t n, double *a, double *scratch,
                                   bool *done, gptvq_error *err) {
  (void)linalg;
  (void)err;
  *done = gptvq_cholesky(n, a);
  if (*done) gptvq_invert_lower(n, a, scratch);
  return GPTVQ_OK;
}

static gptvq_status fold(const gptvq_linalg *linalg, const gptvq_sum *sum, gptvq_error *err) {
  (void)linalg;
  (void)err;
  gptvq_sum_fold(sum);
  return GPTVQ_OK;
}

/* Sums are where they belong at once. */
static gptvq_status settle(const gptvq_linalg *linalg, double *sums, gptvq_error *err) {
  (void)linalg;
  (void)sums;
  (void)err;
  return GPTVQ_OK;
}

static void forget(const gptvq_linalg *linalg, const void *host) {
  (void)linalg;
  (void)host;
}

const gptvq_linalg gptvq_cpu_linalg = {.gram = gram,
                                       .cross = cross,
                                       .inverse_factor = inverse_factor,
                                       .fold = fold,
                                       .hand_over = settle,
                                       .settle = settle,
                                       .forget = forget};

size_t gptvq_cpu_linalg_bf16_bytes(size_t m, size_t c, size_t n) { return gptvq_sums_bf16_bytes(m, c, n); }

/* m 0: gram */
static gptvq_status cross_bf16(const gptvq_linalg *linalg, size_t m, size_t c, size_t n, size_t chunk,
                               const float *y, size_t ldy, const float *x, size_t ldx, double *sums,
                               gptvq_error *err) {
  (void)linalg;
  (void)chunk;
  size_t bytes = gptvq_sums_bf16_bytes(m, c, n);
  void *scratch = gptvq_alloc(bytes, 1);
  if (scratch == NULL) return gptvq_fail_memory(err, "calibration inputs in bf16", bytes);
  if (m > 0) gptvq_cross_update_bf16(m, c, n, y, ldy, x, ldx, scratch, sums);
  else gptvq_gram_update_bf16(c, n, x, ldx, scratch, sums);
  free(scratch);
  return GPTVQ_OK;
}

static gptvq_status gram_bf16(const gptvq_linalg *linalg, size_t c, size_t n, size_t chunk, const float *x,
                              size_t ldx, double *h, gptvq_error *err) {
  return cross_bf16(linalg, 0, c, n, chunk, NULL, 0, x, ldx, h, err);
}

const gptvq_linalg gptvq_cpu_linalg_bf16 = {.gram = gram_bf16,
                                            .cross = cross_bf16,
                                            .inverse_factor = inverse_factor,
                                            .fold = fold,
                                            .hand_over = settle,
                                            .settle = settle,
                                            .forget = forget};
