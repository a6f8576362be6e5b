/* linalg/multi/rows_product.h: part of a product of matrices in fp32, row by row of the same bits. */
#ifndef GPTVQ_LINALG_MULTI_ROWS_PRODUCT_H
#define GPTVQ_LINALG_MULTI_ROWS_PRODUCT_H

#include "base/multi.h"

#include <stdbool.h>
#include <stddef.h>

/* C[m × n] = A[m × k] B[k × n], or C −= A B: see gptvq_rows_product, on the calling thread; m <= HEIGHT, n <=
 * WIDTH, multiples of what stays in registers at every level. packed[GPTVQ_ROWS_PRODUCT_PACKED]: room for
 * DEPTH columns of A and rows of B. */
enum {
  GPTVQ_ROWS_PRODUCT_HEIGHT = 384,
  GPTVQ_ROWS_PRODUCT_WIDTH = 288,
  GPTVQ_ROWS_PRODUCT_DEPTH = 128,
  GPTVQ_ROWS_PRODUCT_PACKED =
      (GPTVQ_ROWS_PRODUCT_HEIGHT + GPTVQ_ROWS_PRODUCT_WIDTH) * GPTVQ_ROWS_PRODUCT_DEPTH
};
GPTVQ_MULTI_DECLARE(void, gptvq_rows_product_tile, bool subtract, size_t m, size_t n, size_t k,
                    const float *a, size_t lda, const float *b, size_t ldb, float *c, size_t ldc,
                    float *packed);

#endif
