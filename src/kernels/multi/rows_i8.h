/* kernels/multi/rows_i8.h: dense matrices as int8 codes with one scale per row and 256 columns (the output
 * head).
 *
 * y[r] = Σ_g fma(float(Σ_c w[r][c] q[c]), weight scale[r][g] · x scale[g], ·), groups ascending; the inner
 * sum is an int32, exact (256 · 127 · 127 < 2^23): the same bytes at every CPU level. Weights are stored as
 * code + 128, which the sum takes back by −128 Σ q. */
#ifndef GPTVQ_KERNELS_ROWS_I8_H
#define GPTVQ_KERNELS_ROWS_I8_H

#include "base/multi.h"

#include <stddef.h>
#include <stdint.h>

/* Two rows, each with weights[cols] and scales[groups]; the prepared x: codes[cols], corrections[groups],
 * x_scales[groups]. */
GPTVQ_MULTI_DECLARE(void, gptvq_two_rows_i8, size_t cols, const uint8_t *const weights[2],
                    const float *const scales[2], const int8_t *codes, const int32_t *corrections,
                    const float *x_scales, float y[2]);

#endif
