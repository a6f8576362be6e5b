/* kernels/multi/quantize_input.h: activations of one column group to int8. */
#ifndef GPTVQ_KERNELS_QUANTIZE_INPUT_H
#define GPTVQ_KERNELS_QUANTIZE_INPUT_H

#include "base/multi.h"
#include <stddef.h>
#include <stdint.h>

/* scale = max |x| / 127, code = x / scale rounded to nearest even, for `width` numbers; index i, component e
 * goes to codes[e·plane + i]; the plane's rest is zeroed. Returns the scale; NaN (and codes of 0) when an x
 * is not finite. */
GPTVQ_MULTI_DECLARE(float, gptvq_quantize_group, const float *x, size_t width, size_t dim, size_t plane,
                    int8_t *codes);
/* correction[16] as in gptvq_i8_tile from n codes, n a multiple of 64 */
GPTVQ_MULTI_DECLARE(void, gptvq_correct_lanes, const int8_t *codes, size_t n, int32_t *correction);
/* Σ codes */
GPTVQ_MULTI_DECLARE(int32_t, gptvq_sum_codes, const int8_t *codes, size_t n);

#endif
