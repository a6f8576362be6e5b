/* kernels/multi/trellis_lanes.h: trellis rows in portable C. */
#ifndef GPTVQ_KERNELS_TRELLIS_LANES_H
#define GPTVQ_KERNELS_TRELLIS_LANES_H

#include "base/multi.h"
#include <stddef.h>
#include <stdint.h>

/* gptvq_trellis_codes_fn, a word of the stream at a time. */
GPTVQ_MULTI_DECLARE(void, gptvq_window_codes, const uint8_t *stream, unsigned index_bits, unsigned state_bits,
                    size_t begin, size_t count, const int8_t *table, int8_t *codes);
/* sums[lane] = fma(Σ codes · x, scale, sums[lane]) of the 16 lanes (trellis.h) over `chunks` chunks of 256
 * columns, both in column order. */
GPTVQ_MULTI_DECLARE(void, gptvq_add_lanes, size_t chunks, const int8_t *codes, const int8_t *x, float scale,
                    float *sums);

#endif
