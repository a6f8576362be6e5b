/* quant/layer/normal.h: the hot loops of the codebook update's normal equations (direct.c), one build per CPU
 * level, the same bits from each (multi/normal.c). Sub-vectors b < blocks of one row in one column group have
 * centroids index[b] and block scales scale[b]. */
#ifndef GPTVQ_QUANT_LAYER_NORMAL_H
#define GPTVQ_QUANT_LAYER_NORMAL_H

#include "base/multi.h"

#include <stddef.h>
#include <stdint.h>

enum { GPTVQ_NORMAL_COLUMNS = 32 }; /* of H that are added up at a time */

/* sums[m · dim + i][COLUMNS] = Σ scale[b] · h[b · dim + i][COLUMNS] over the sub-vectors b = order[start[m] …
 * start[m + 1]) of centroid m < k, in that order. */
GPTVQ_MULTI_DECLARE(void, gptvq_normal_rows, size_t dim, size_t k, const uint32_t *start,
                    const uint32_t *order, const float *scale, const float *h, float *sums);
/* out[index[b] · dim + i][v] += scale[b] · sums[v][b · dim + i] for v < values; rows of out have `width`
 * numbers, those of sums `stride`. */
GPTVQ_MULTI_DECLARE(void, gptvq_normal_columns, size_t dim, size_t blocks, const uint16_t *index,
                    const float *scale, size_t values, const float *sums, size_t stride, float *out,
                    size_t width);
/* sums[index[b]][i][j] += scale[b] · h[i][b · dim + j] over b, in order, for i, j < dim; rows of h have
 * `stride` numbers. */
GPTVQ_MULTI_DECLARE(void, gptvq_normal_row, size_t dim, size_t blocks, const uint16_t *index,
                    const float *scale, const float *h, size_t stride, float *sums);
/* The part of y = N x that rows of blocks [first, last) make, for symmetric N of groups × groups blocks of n
 * × n numbers, of which those on and above the diagonal are there, [f][g >= f][n of f][n of g]; blocks: those
 * of row `first` on. */
GPTVQ_MULTI_DECLARE(void, gptvq_normal_times, size_t groups, size_t n, size_t first, size_t last,
                    const float *blocks, const float *x, float *y);

#endif
