/* kernels/ref/ref.h: scalar kernels, and the helpers that faster ones share with them. */
#ifndef GPTVQ_KERNELS_REF_H
#define GPTVQ_KERNELS_REF_H

#include "kernels/table.h"
#include "format/tile.h"

/* Indices [begin, begin + count) of a packed unit of n indices (see packed.h). */
void gptvq_unpack_range(const uint8_t *unit, size_t n, unsigned bits, size_t begin, size_t count,
                        uint16_t *indices);

void gptvq_packed_decode_scalar(const gptvq_packed *packed, size_t begin, size_t end, float *out,
                                size_t stride);
void gptvq_packed_matvec_scalar(const gptvq_packed *packed, size_t begin, size_t end, const float *x,
                                float *y);

void gptvq_i8_tile_scalar(const gptvq_i8_tile *job);
void gptvq_i8_fold_scalar(const float *sums, size_t n, float *out);
/* Block scale of every lane of every set of one row: by_lane[sets × 16]. */
void gptvq_i8_lane_scales(const gptvq_i8_tile *job, size_t row, float *by_lane);

#endif
