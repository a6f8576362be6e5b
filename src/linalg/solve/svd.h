/* linalg/solve/svd.h: truncated singular value decomposition of a matrix with many rows and few columns. */
#ifndef GPTVQ_LINALG_SOLVE_SVD_H
#define GPTVQ_LINALG_SOLVE_SVD_H

#include "base/status.h"

/* c[rows × cols] ≈ left[rows × rank] right[rank × cols], the best approximation of that rank; rank <=
 * min(rows, cols). right has orthonormal rows, in descending order of their weight. c is destroyed.
 * GPTVQ_ERROR_NUMERIC when LAPACK gives up. */
gptvq_status gptvq_svd(size_t rows, size_t cols, size_t rank, double *c, double *left, double *right,
                       gptvq_error *err);

#endif
