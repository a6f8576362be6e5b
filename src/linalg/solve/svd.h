/* linalg/solve/svd.h: truncated singular value decomposition of a matrix with many rows and few columns. */
#ifndef GPTVQ_LINALG_SOLVE_SVD_H
#define GPTVQ_LINALG_SOLVE_SVD_H

#include "base/arena.h"

/* c[rows × cols] ≈ left[rows × rank] right[rank × cols], the best approximation of that rank; rank <=
 * min(rows, cols). right has orthonormal rows, in descending order of their weight. c is destroyed.
 * Scratch, LAPACK's included, comes from the arena. GPTVQ_ERROR_NUMERIC when LAPACK gives up. */
gptvq_status gptvq_svd(size_t rows, size_t cols, size_t rank, double *c, double *left, double *right,
                       gptvq_arena *arena, gptvq_error *err);
size_t gptvq_svd_bytes(size_t rows, size_t cols);

#endif
