/* kernels/ref/ref.h: scalar kernels, and the helpers that faster ones share with them. */
#ifndef GPTVQ_KERNELS_REF_H
#define GPTVQ_KERNELS_REF_H

#include "kernels/table.h"

/* Indices [begin, begin + count) of a packed unit of n indices (see packed.h). */
void gptvq_unpack_range(const uint8_t *unit, size_t n, unsigned bits, size_t begin, size_t count, uint16_t *indices);

void gptvq_packed_decode_scalar(const gptvq_packed *packed, size_t begin, size_t end, float *out, size_t stride);
void gptvq_packed_matvec_scalar(const gptvq_packed *packed, size_t begin, size_t end, const float *x, float *y);

void gptvq_i8_tile_scalar(const gptvq_i8_tile *tile);

/* 2^(lo + step·code) for the 16 block-scale codes; all 1 when the layer has no block scales. */
void gptvq_block_scale_table(const gptvq_packed *packed, float table[16]);

#endif
