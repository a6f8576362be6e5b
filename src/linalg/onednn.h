/* linalg/onednn.h: one matrix product by oneDNN on the calling thread. */
#ifndef GPTVQ_LINALG_ONEDNN_H
#define GPTVQ_LINALG_ONEDNN_H

#include <stdbool.h>
#include <stddef.h>

typedef enum gptvq_onednn_kind {
  GPTVQ_ONEDNN_BF16,
  /* bf16 × bf16 -> fp32 */ GPTVQ_ONEDNN_INT8 /* int8 × int8 -> int32, exact */
} gptvq_onednn_kind;

/* Is oneDNN in this build, and does it multiply, int8 exactly? Tried once for each kind. */
bool gptvq_onednn_works(gptvq_onednn_kind kind);

/* C[m × n] = A[m × k] · B[n × k]ᵀ, row-major, strides in elements. False (nothing useful in C) when the
 * product cannot be made. */
bool gptvq_onednn_product(gptvq_onednn_kind kind, size_t m, size_t n, size_t k, const void *a, size_t lda,
                          const void *b, size_t ldb, void *c, size_t ldc);

#endif
