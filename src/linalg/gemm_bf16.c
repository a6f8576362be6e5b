#include "linalg/gemm_bf16.h"
#include "base/cpu.h"
#include "linalg/onednn.h"

bool gptvq_gemm_bf16_available(void) {
  return (gptvq_cpu() & GPTVQ_CPU_AVX512_BF16) && gptvq_onednn_works(GPTVQ_ONEDNN_BF16);
}

bool gptvq_gemm_bf16_serial_nt(size_t m, size_t n, size_t k, const uint16_t *a, size_t lda, const uint16_t *b,
                               size_t ldb, float *c, size_t ldc) {
  return gptvq_gemm_bf16_available() &&
         gptvq_onednn_product(GPTVQ_ONEDNN_BF16, m, n, k, a, lda, b, ldb, c, ldc);
}
