/* quant/layer/normal.h: the hot loops of the codebook update's normal equations (direct.c), one build per CPU
 * level, the same bits from each (multi/normal.c). Sub-vectors b < blocks of one row with their centroids
 * index[b] and block scales scale[b]. */
#ifndef GPTVQ_QUANT_LAYER_NORMAL_H
#define GPTVQ_QUANT_LAYER_NORMAL_H

#include "base/multi.h"

#include <stddef.h>
#include <stdint.h>

/* sums[index[b] · dim + i][n] += scale[b] · h[b · dim + i][n], rows of h `stride` apart */
GPTVQ_MULTI_DECLARE(void, gptvq_normal_rows, size_t dim, size_t blocks, const uint16_t *index,
                    const float *scale, size_t n, const float *h, size_t stride, float *sums);
/* out[index[b] · dim + i][v] += scale[b] · sums[v][b · dim + i] for v < values; rows of out have `width`
 * numbers, those of sums `stride`. */
GPTVQ_MULTI_DECLARE(void, gptvq_normal_columns, size_t dim, size_t blocks, const uint16_t *index,
                    const float *scale, size_t values, const float *sums, size_t stride, float *out,
                    size_t width);

#endif
