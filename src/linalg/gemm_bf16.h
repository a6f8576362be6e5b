/* linalg/gemm_bf16.h: bf16 × bf16 products with fp32 accumulation, on processors with bf16 instructions:
 * AVX512-BF16, AMX-BF16. */
#ifndef GPTVQ_LINALG_GEMM_BF16_H
#define GPTVQ_LINALG_GEMM_BF16_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Is there a fast bf16 product on this machine? If not, callers round to bf16 and use
 * gptvq_gemm_nt: the same numbers but for the order of summation. */
bool gptvq_gemm_bf16_available(void);

/* C[m × n] = A[m × k] · B[n × k]ᵀ and C[m × n] += A[m × k] · B[k × n] on the calling thread; bf16 bits in,
 * fp32 out; row-major, strides in elements. Only where gptvq_gemm_bf16_available. */
void gptvq_gemm_bf16_nt(size_t m, size_t n, size_t k, const uint16_t *a, size_t lda, const uint16_t *b,
                        size_t ldb, float *c, size_t ldc);
void gptvq_gemm_bf16_nn(size_t m, size_t n, size_t k, const uint16_t *a, size_t lda, const uint16_t *b,
                        size_t ldb, float *c, size_t ldc);

/* Threaded, in tiles that the shapes alone decide, so that results do not depend on the number of threads;
 * outputs must not alias inputs. Only where gptvq_gemm_bf16_available.
 * C[m × n] = alpha · A[m × k] · B[n × k]ᵀ, alpha · A[m × k] · B[k × n], alpha · A[k × m]ᵀ · B[k × n] */
void gptvq_gemm_bf16_tiled_nt(size_t m, size_t n, size_t k, float alpha, const uint16_t *a, size_t lda,
                              const uint16_t *b, size_t ldb, float *c, size_t ldc);
void gptvq_gemm_bf16_tiled_nn(size_t m, size_t n, size_t k, float alpha, const uint16_t *a, size_t lda,
                              const uint16_t *b, size_t ldb, float *c, size_t ldc);
void gptvq_gemm_bf16_tiled_tn(size_t m, size_t n, size_t k, float alpha, const uint16_t *a, size_t lda,
                              const uint16_t *b, size_t ldb, float *c, size_t ldc);

/* out[n]: x[n] rounded as gptvq_float_to_bf16 does; out may be x's memory. */
void gptvq_to_bf16(size_t n, const float *x, uint16_t *out);
/* out[n × cols]: the rows of x[n × ldx] rounded. Threaded. */
void gptvq_rows_to_bf16(size_t n, size_t cols, const float *x, size_t ldx, uint16_t *out);

/* H[c × c] += Xᵀ X for X[n × ldx], upper triangle, and S[m × c] += Yᵀ X for Y[n × ldy], X[n × ldx], inputs
 * rounded to bf16: products in fp32 over 1,024 rows at a time, their sums in double. Threaded; the result
 * does not depend on the number of threads. Only where gptvq_gemm_bf16_available. scratch:
 * gptvq_sums_bf16_bytes, aligned to 64 bytes. */
void gptvq_gram_update_bf16(size_t c, size_t n, const float *x, size_t ldx, void *scratch, double *h);
void gptvq_cross_update_bf16(size_t m, size_t c, size_t n, const float *y, size_t ldy, const float *x,
                             size_t ldx, void *scratch, double *sums);
/* m: 0 for gptvq_gram_update_bf16; SIZE_MAX on overflow */
size_t gptvq_sums_bf16_bytes(size_t m, size_t c, size_t n);

#endif
