/* kernels/x86/codes_avx2.h: int8 codes of packed units with AVX2. */
#ifndef GPTVQ_KERNELS_CODES_AVX2_H
#define GPTVQ_KERNELS_CODES_AVX2_H

#include "format/tile.h"

/* Codes of `rows` consecutive units of a tile by component: component e of index i at codes[(row · dim + e) ·
 * plane + i], plane the indices of a unit rounded up to a multiple of 64; beyond them there is anything.
 * codes 32-byte aligned. */
typedef void (*gptvq_unit_codes_fn)(const gptvq_tile *tile, size_t row, size_t rows, int8_t *codes);
/* NULL: not covered. */
gptvq_unit_codes_fn gptvq_unit_codes_avx2(const gptvq_tile *tile);

/* Fields of the indices (lookup_avx2.h) of `rows` consecutive units of n, 1 … 8 bits: [row][3 fields][room].
 */
void gptvq_spread_units_avx2(unsigned bits, const uint8_t *units, size_t rows, size_t n, size_t room,
                             uint8_t *fields);

#endif
