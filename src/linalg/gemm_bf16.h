/* linalg/gemm_bf16.h: bf16 × bf16 products with fp32 accumulation (oneDNN, on processors with bf16
 * instructions). */
#ifndef GPTVQ_LINALG_GEMM_BF16_H
#define GPTVQ_LINALG_GEMM_BF16_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Is there a fast bf16 product on this machine and in this build? If not, callers round to bf16 and use
 * gptvq_gemm_nt: the same numbers but for the order of summation. */
bool gptvq_gemm_bf16_available(void);

/* C[m × n] = A[m × k] · B[n × k]ᵀ on the calling thread; bf16 bits in, fp32 out; row-major, strides in
 * elements. False when the product cannot be made (out of memory, a shape that oneDNN refuses): nothing
 * useful is in C then. */
bool gptvq_gemm_bf16_serial_nt(size_t m, size_t n, size_t k, const uint16_t *a, size_t lda, const uint16_t *b,
                               size_t ldb, float *c, size_t ldc);

#endif
