/* kernels/uniform.h: one row of a uniform layer times int8 activations.
 *
 * Activations are quantized per weight-scale block of N columns, in column order. With s_b = weight scale ·
 * activation scale of block b, code and q the integers, z_b the zero point and t_b = Σ q over block b: where
 * rows can be multiplied in parts (gptvq_uniform_in_parts), the row is cut into 8 / bits parts, as its index
 * bytes are (part i: bits i·bits …); else its codes are unpacked and it is one part. A part has 16 sums, and
 * is cut into sets of 64 columns; lane L = 0 … 15 owns columns 4L … 4L + 3 of a set. N a multiple of 64, or a
 * single block: sum_i(L) = fma(Σ_sets Σ_b code · q, s_b, sum_i(L)) over the blocks of part i ascending; else
 * the same for every set, each lane with the s_b of its columns; correction(L) = fma(s_b · z_b, t_b,
 * correction(L)) over the blocks b = L mod 16, ascending; y = fold(sum_0 + sum_1 (+ sum_2 + sum_3)) −
 * fold(correction), folds as in i8.h. */
#ifndef GPTVQ_KERNELS_UNIFORM_H
#define GPTVQ_KERNELS_UNIFORM_H

#include "format/packed.h"

enum { GPTVQ_UNIFORM_MAX_BLOCKS = 2048, GPTVQ_UNIFORM_MAX_COLS = 1 << 15 /* of rows in one part */ };

typedef struct gptvq_uniform_row {
  unsigned bits;
  unsigned field;              /* bits of a code in `unit`: bits, or 8 when codes are unpacked */
  size_t bytes, block, blocks; /* of the unit, a multiple of 64 / parts; N; blocks of the row */
  const uint8_t *unit;
  const uint16_t *scales; /* [blocks] fp16 */
  const uint8_t *zeros;   /* all zero points of the layer, zero_count of them; this row's begin at zero_at */
  size_t zero_count, zero_at;
  const int8_t *x;                /* [blocks × N], zeros up to a multiple of 64; 64-byte aligned */
  const float *x_scales, *x_sums; /* [blocks] */
} gptvq_uniform_row;

/* Rows that follow each other, one token. `row` says of the first one what is said above, but for its unit,
 * which is as it is stored; units of the others lie unit_bytes further, scales and zero points row.blocks
 * further. */
typedef struct gptvq_uniform_rows {
  gptvq_uniform_row row;
  size_t rows, indices, unit_bytes; /* `indices` of a unit, a multiple of 8 */
  float *y;                         /* [rows], overwritten */
} gptvq_uniform_rows;

/* Are rows of this (uniform) shape covered? N a multiple of 4, or a single block. */
bool gptvq_uniform_has_i8(const gptvq_packed_shape *shape);
/* Are they multiplied in parts? 2 or 4 bits, and every part begins with a block and with a set. */
bool gptvq_uniform_in_parts(const gptvq_packed_shape *shape);

float gptvq_uniform_row_scalar(const gptvq_uniform_row *row);

/* The sums folded 16 -> 8 -> 4 -> 2 -> 1; overwrites them. */
static inline float gptvq_fold16(float *sums) {
  for (size_t half = 8; half > 0; half /= 2)
    for (size_t i = 0; i < half; i++) sums[i] += sums[i + half];
  return sums[0];
}

/* Does a block of N columns hold whole sets of a row in one part? */
static inline bool gptvq_uniform_whole_sets(const gptvq_uniform_row *row) {
  return row->block % 64 == 0 || row->blocks == 1;
}

/* by_lane[bytes / 4]: the scale of every lane of a row in one part; lanes beyond the last block have its
 * scale, and products of 0. */
static inline void gptvq_uniform_spread(const gptvq_uniform_row *row, const float *scales, float *by_lane) {
  const size_t lanes = row->bytes / 4, step = row->block / 4;
  for (size_t b = 0; b < row->blocks; b++)
    for (size_t i = b * step; i < (b + 1) * step && i < lanes; i++) by_lane[i] = scales[b];
  for (size_t i = row->blocks * step; i < lanes; i++) by_lane[i] = scales[row->blocks - 1];
}

#endif
