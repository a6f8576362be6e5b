/* linalg/rows_product.h: a product whose rows come out the same bits whatever other rows are multiplied with
 * them, as the layer solver needs that multiplies stripes of a layer together or apart (some stripes of a
 * sweep, the rows of one member of a team). A BLAS does not promise that, and OpenBLAS's AVX2 kernels do not
 * keep it. */
#ifndef GPTVQ_LINALG_ROWS_PRODUCT_H
#define GPTVQ_LINALG_ROWS_PRODUCT_H

#include <stdbool.h>
#include <stddef.h>

/* C[m × n] = A[m × k] · B[k × n], or C −= A · B; row-major, strides in elements, C apart from A and B.
 * Threaded; the bits depend neither on the number of threads nor on the CPU level (multiplications are
 * fused with additions at all of them). */
void gptvq_rows_product(bool subtract, size_t m, size_t n, size_t k, const float *a, size_t lda,
                        const float *b, size_t ldb, float *c, size_t ldc);

#endif
