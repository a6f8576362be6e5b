/* linalg/gemm_int8.h: int8 × int8 products with int32 accumulation (oneDNN), for processors with AMX: there
 * they are several times faster than what AVX-512 VNNI can do. */
#ifndef GPTVQ_LINALG_GEMM_INT8_H
#define GPTVQ_LINALG_GEMM_INT8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Should prompts use it? True on processors with AMX (CPUID, XCR0 and the kernel's permission) when the build
 * has oneDNN; the environment variable GPTVQ_GEMM=own|onednn forces either, read once; never where oneDNN's
 * products are not exact (processors without VNNI). */
bool gptvq_gemm_int8_wanted(void);

/* C[m × n] = A[m × k] · B[n × k]ᵀ on the calling thread, exact; row-major, strides in elements. False when
 * the product cannot be made: nothing useful is in C then. */
bool gptvq_gemm_int8_serial_nt(size_t m, size_t n, size_t k, const int8_t *a, size_t lda, const int8_t *b,
                               size_t ldb, int32_t *c, size_t ldc);

#endif
