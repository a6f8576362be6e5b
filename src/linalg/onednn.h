/* linalg/onednn.h: one matrix product by oneDNN on the calling thread. */
#ifndef GPTVQ_LINALG_ONEDNN_H
#define GPTVQ_LINALG_ONEDNN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Is oneDNN in this build, and does it multiply? Tried once. */
bool gptvq_onednn_works(void);

/* C[m × n] = A[m × k] · B[n × k]ᵀ, bf16 bits in, fp32 out, row-major, strides in elements. False (nothing
 * useful in C) when the product cannot be made. */
bool gptvq_onednn_product(size_t m, size_t n, size_t k, const uint16_t *a, size_t lda, const uint16_t *b,
                          size_t ldb, float *c, size_t ldc);

#endif
