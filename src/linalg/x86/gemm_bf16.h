/* linalg/x86/gemm_bf16.h: products of bf16 matrices on processors with AVX512-BF16; linalg/gemm_bf16.h
 * chooses. Row-major, strides in elements; sums in fp32 in an order that the shapes alone decide. */
#ifndef GPTVQ_LINALG_X86_GEMM_BF16_H
#define GPTVQ_LINALG_X86_GEMM_BF16_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { GPTVQ_BF16_TN_ROWS = 192, GPTVQ_BF16_FEW = 80, GPTVQ_BF16_FEW_ROWS = 16, GPTVQ_BF16_PANEL = 48 };

/* C[m × n] = A[m × k] · B[n × k]ᵀ; fastest with even k and lda */
void gptvq_gemm_bf16_nt_avx512(size_t m, size_t n, size_t k, const uint16_t *a, size_t lda, const uint16_t *b,
                               size_t ldb, float *c, size_t ldc);
/* The same, to the bit, for 0 < m <= GPTVQ_BF16_FEW and n >= GPTVQ_BF16_FEW_ROWS: B is read once, in order.
 */
void gptvq_gemm_bf16_few_avx512(size_t m, size_t n, size_t k, const uint16_t *a, size_t lda,
                                const uint16_t *b, size_t ldb, float *c, size_t ldc);
/* The same with AMX-BF16. */
void gptvq_gemm_bf16_nt_amx(size_t m, size_t n, size_t k, const uint16_t *a, size_t lda, const uint16_t *b,
                            size_t ldb, float *c, size_t ldc);
/* C[m × n] += A[m × k] · B[k × n], likewise */
void gptvq_gemm_bf16_nn_avx512(size_t m, size_t n, size_t k, const uint16_t *a, size_t lda, const uint16_t *b,
                               size_t ldb, float *c, size_t ldc);
/* C[m × n] = A[k × m]ᵀ · B[k × n], m <= GPTVQ_BF16_TN_ROWS */
void gptvq_gemm_bf16_tn_avx512(size_t m, size_t n, size_t k, const uint16_t *a, size_t lda, const uint16_t *b,
                               size_t ldb, float *c, size_t ldc);
/* Both with AMX-BF16; with `upper` what stands below the diagonal is unspecified. */
void gptvq_gemm_bf16_nn_amx(size_t m, size_t n, size_t k, const uint16_t *a, size_t lda, const uint16_t *b,
                            size_t ldb, float *c, size_t ldc);
void gptvq_gemm_bf16_tn_amx(bool upper, size_t m, size_t n, size_t k, const uint16_t *a, size_t lda,
                            const uint16_t *b, size_t ldb, float *c, size_t ldc);
/* out[n] = x[n] rounded as gptvq_float_to_bf16 does; out may be x's memory. */
void gptvq_to_bf16_avx512(size_t n, const float *x, uint16_t *out);
/* Two neighbouring rows of x (n > 1; else the last one alone) in bf16 as one row of pairs, the first row's in
 * the lower half, cut into panels of GPTVQ_BF16_PANEL columns: out[panel · pairs · GPTVQ_BF16_PANEL +
 * column]; zeros beyond the last column. `pairs`: rows of a panel. */
void gptvq_pack_pair_avx512(size_t n, size_t cols, const float *x, size_t ldx, size_t pairs, uint32_t *out);
/* sums[m × n, rows of lds] += Aᵀ B for panels of `pairs` rows, in fp32 over `chunk` of them at a time; a and
 * b begin with a panel. upper: m = n, and only the upper triangle is added. */
void gptvq_add_panels_avx512(bool upper, size_t m, size_t n, size_t pairs, size_t chunk, const uint32_t *a,
                             const uint32_t *b, double *sums, size_t lds);
/* sums[n] += x[n] */
void gptvq_add_in_double_avx512(size_t n, const float *x, double *sums);

#endif
