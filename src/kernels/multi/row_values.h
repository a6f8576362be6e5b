/* kernels/multi/row_values.h: portable pieces of the fp32 path, fast where the compiler's vectors are. No
 * alignment is needed. */
#ifndef GPTVQ_KERNELS_ROW_VALUES_H
#define GPTVQ_KERNELS_ROW_VALUES_H

#include "base/multi.h"
#include "format/tile.h"

/* All n indices of a packed unit (n a multiple of 8), bits <= 8. */
GPTVQ_MULTI_DECLARE(void, gptvq_unpack_bytes, const uint8_t *unit, size_t n, unsigned bits, uint8_t *indices);
/* The same for any bits. */
GPTVQ_MULTI_DECLARE(void, gptvq_unpack_words, const uint8_t *unit, size_t n, unsigned bits,
                    uint16_t *indices);
/* int8 codes of the rows of a tile, column by column (padding indices included): codes[rows][stride]. At most
 * GPTVQ_TILE_MAX_WIDTH columns. */
GPTVQ_MULTI_DECLARE(void, gptvq_tile_codes, const gptvq_tile *tile, int8_t *codes, size_t stride);
/* int8 codes of one row of a tile by component: codes[e · plane + i], zero from the last index to `plane` (a
 * multiple of 8). */
GPTVQ_MULTI_DECLARE(void, gptvq_planar_codes, const gptvq_tile *tile, size_t row, size_t plane,
                    int8_t *codes);
/* out[i] = codes[i] · scale */
GPTVQ_MULTI_DECLARE(void, gptvq_scale_codes, const int8_t *codes, size_t n, float scale, float *out);
/* out[i] = (codes[i] − zero) · scale */
GPTVQ_MULTI_DECLARE(void, gptvq_scale_uniform, const uint8_t *codes, size_t n, int zero, float scale,
                    float *out);
/* values[i] *= factor */
GPTVQ_MULTI_DECLARE(void, gptvq_multiply, float *values, size_t n, float factor);

#endif
