/* kernels/i8.h: packed layers times int8 activations (docs/KERNELS.md, "Integer products").
 *
 * A prepared input holds, for one token, the codes of every column group in the order in which kernels meet
 * them, correction terms and scales. All kernels add in the same order, so every CPU level gives the same
 * bytes: a column group's n indices, padded to a multiple of 64, are cut into sets of 64; component e of set
 * s is 64 consecutive bytes at (e·sets + s)·64 of the group's codes; lane L = 0 … 15 of a set owns its
 * indices 4L … 4L + 3: lane(s, L) = Σ_e Σ_b w[64s + 4L + b][e] · q[e][64s + 4L + b], an int32; one tile adds
 * to the 16 fp32 sums of a row: sum(L) = fma(Σ_s lane(s, L), scale, sum(L)), column groups ascending, or,
 * with block scales b: t = fma(lane(s, L), b(s, L), t) over s ascending from 0, then sum(L) = fma(t, scale,
 * sum(L)); y = the sums folded 16 -> 8 -> 4 -> 2 -> 1, upper half onto lower half. scale = (codebook scale /
 * 127) · activation scale. */
#ifndef GPTVQ_KERNELS_I8_H
#define GPTVQ_KERNELS_I8_H

#include "format/tile.h"

enum {
  GPTVQ_I8_LANES = 16,
  GPTVQ_I8_SET = 64,
  GPTVQ_I8_MAX_WIDTH = GPTVQ_TILE_MAX_WIDTH,
  GPTVQ_I8_MAX_TOKENS = 32, /* tokens per pass over the weights */
  GPTVQ_I8_STRIPE_ROWS = 8,
  GPTVQ_I8_PLAN_BYTES = 2560
};

/* Where things are in a prepared input of a layer; byte offsets. `corrections` holds, per group, 16 int32 as
 * in gptvq_i8_tile; of uniform layers one float, the sum of the group's codes. */
typedef struct gptvq_input_layout {
  size_t groups, width; /* activation blocks and their columns (the last may be narrower) */
  size_t group_codes;   /* bytes of codes of a full group, a multiple of 64 */
  size_t corrections, scales, bytes;
} gptvq_input_layout;
void gptvq_input_measure(const gptvq_packed_shape *shape, gptvq_input_layout *layout);
/* Bytes of a component's codes in a group of so many columns, of vectors of `dim` of them. */
static inline size_t gptvq_input_plane(size_t width, size_t dim) {
  return ((width + dim - 1) / dim + GPTVQ_I8_SET - 1) / GPTVQ_I8_SET * GPTVQ_I8_SET;
}

/* Some rows of one tile times the activations of its column group. */
typedef struct gptvq_i8_tile {
  const gptvq_tile *tile;
  size_t sets;      /* ceil(indices / 64) */
  const void *plan; /* what the table's i8_plan has made of such units */
  size_t tokens, input_stride;
  const int8_t
      *x; /* codes of token 0 for this group; token t is input_stride bytes further; 64-byte aligned */
  const int32_t
      *correction;      /* [16] of token 0: −128 · Σ of the codes of each lane over sets and components */
  const float *scales;  /* [tokens] */
  size_t block_vectors; /* indices per block scale, a multiple of 4; 0: no block scales */
  const float *block_table; /* [16] */
  float *sums;              /* [rows][tokens][16], 64-byte aligned */
} gptvq_i8_tile;

/* All column groups of up to GPTVQ_I8_STRIPE_ROWS rows of a stripe, one token, no block scales. */
typedef struct gptvq_i8_stripe {
  size_t rows, groups, width, last_width;
  const uint8_t *units; /* of the first group: rows × unit bytes; of the next: unit_step bytes further */
  size_t unit_step;
  const uint8_t *last_units;       /* of the last group */
  const void *plan, *last_plan;    /* of the units of the last group */
  const int8_t *codebook;          /* [groups][k][dim] */
  const uint16_t *codebook_scales; /* [groups] bf16 */
  const int8_t *x;                 /* of the first group; of the next: group_codes bytes further */
  size_t group_codes;
  const int32_t *corrections; /* [groups][16] */
  const float *x_scales;      /* [groups] */
  float *y;                   /* [rows], overwritten */
} gptvq_i8_stripe;
typedef void (*gptvq_i8_stripe_fn)(const gptvq_i8_stripe *stripe);

#endif
