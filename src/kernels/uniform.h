/* kernels/uniform.h: one row of a uniform layer of 2 or 4 bits times int8 activations.
 *
 * Activations are quantized per weight-scale block of N columns (N = 32 or a multiple of 64), in column
 * order. With s_b = weight scale · activation scale of block b, code and q the integers, z_b the zero point
 * and t_b = Σ q over block b: the row is cut into 8 / bits parts, as its index bytes are (part i: bits i·bits
 * …); a part has 16 sums; N >= 64: sum_i(L) = fma(Σ_sets Σ_b code · q, s_b, sum_i(L)) over the blocks of part
 * i ascending, a set being 64 columns and lane L = 0 … 15 owning columns 4L … 4L + 3 of it;  N = 32: the same
 * for every set, lanes 0 … 7 with its first block's s_b; correction(L) = fma(s_b · z_b, t_b, correction(L))
 * over the blocks b = L mod 16, ascending; y = fold(sum_0 + sum_1 (+ sum_2 + sum_3)) − fold(correction),
 * folds as in i8.h. */
#ifndef GPTVQ_KERNELS_UNIFORM_H
#define GPTVQ_KERNELS_UNIFORM_H

#include "format/packed.h"

enum { GPTVQ_UNIFORM_MAX_BLOCKS = 2048 };

typedef struct gptvq_uniform_row {
  unsigned bits;
  size_t bytes, block, blocks; /* of the unit; N; blocks of the row */
  const uint8_t *unit;
  const uint16_t *scales; /* [blocks] fp16 */
  const uint8_t *zeros;   /* all zero points of the layer, zero_count of them; this row's begin at zero_at */
  size_t zero_count, zero_at;
  const int8_t *x;                /* [blocks × N], 64-byte aligned */
  const float *x_scales, *x_sums; /* [blocks] */
} gptvq_uniform_row;

/* Are rows of this (uniform) shape covered? */
bool gptvq_uniform_has_i8(const gptvq_packed_shape *shape);

float gptvq_uniform_row_scalar(const gptvq_uniform_row *row);

/* The sums folded 16 -> 8 -> 4 -> 2 -> 1; overwrites them. */
static inline float gptvq_fold16(float *sums) {
  for (size_t half = 8; half > 0; half /= 2)
    for (size_t i = 0; i < half; i++) sums[i] += sums[i + half];
  return sums[0];
}

#endif
