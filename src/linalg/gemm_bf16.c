#include "linalg/gemm_bf16.h"

bool gptvq_gemm_bf16_available(void) { return false; }

bool gptvq_gemm_bf16_serial_nt(size_t m, size_t n, size_t k, const uint16_t *a, size_t lda, const uint16_t *b,
                               size_t ldb, float *c, size_t ldc) {
  (void)m, (void)n, (void)k, (void)a, (void)lda, (void)b, (void)ldb, (void)c, (void)ldc;
  return false;
}
