/* linalg/x86/gemm_bf16.h: products of bf16 matrices on processors with AVX512-BF16; linalg/gemm_bf16.h
 * chooses. Row-major, strides in elements; sums in fp32 in an order that the shapes alone decide. */
#ifndef GPTVQ_LINALG_X86_GEMM_BF16_H
#define GPTVQ_LINALG_X86_GEMM_BF16_H

#include <stddef.h>
#include <stdint.h>

enum { GPTVQ_BF16_TN_ROWS = 256 };

/* C[m × n] = A[m × k] · B[n × k]ᵀ; fastest with even k and lda */
void gptvq_gemm_bf16_nt_avx512(size_t m, size_t n, size_t k, const uint16_t *a, size_t lda, const uint16_t *b,
                               size_t ldb, float *c, size_t ldc);
/* C[m × n] = A[k × m]ᵀ · B[k × n], m <= GPTVQ_BF16_TN_ROWS */
void gptvq_gemm_bf16_tn_avx512(size_t m, size_t n, size_t k, const uint16_t *a, size_t lda, const uint16_t *b,
                               size_t ldb, float *c, size_t ldc);

#endif
