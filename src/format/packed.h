/* format/packed.h: the packed formats of one linear layer. docs/FORMAT.md says the same byte by byte.
 *
 * A layer has `rows` outputs and `cols` inputs. Columns are cut into column groups of `group_cols` (the last
 * may be narrower), rows into stripes of `group_rows` (the last may be shorter).
 *
 * VQ. A tile is (stripe s, column group g) and owns one codebook of k = 2^index_bits centroids of `dim`
 * values. A *unit* is one row of a tile: n = ceil(width / dim) indices, one per sub-vector of `dim`
 * consecutive (permuted) columns, padded to a multiple of 8 indices; index padding is 0. Units are stored
 * stripe by stripe; in a stripe, column group by column group; in a tile, row by row: one forward pass over
 * memory, in which codebooks change as rarely as possible. Inside a unit the index bits are split into
 * fields, from the lowest bits up, of the widths 8, 4, 2, 1 that make up index_bits in descending order (6 =
 * 4 + 2, 12 = 8 + 4, 3 = 2 + 1). A field of f bits takes B = n·f/8 bytes: byte j holds, at bit f·i, the field
 * of index j + i·B (i = 0 … 8/f − 1): a SIMD kernel loads B bytes and shifts and masks them.
 *
 * value(row, col) = centroid[index][col mod dim] · scale, where
 *   codebook_bits 8:  centroid = int8 code / 127, scale = codebook_scales[tile] (bf16, the codebook's
 * max-norm); codebook_bits 16: centroid = fp16 number, scale = codebook_scales[tile] too (bf16); scale_block
 * N > 0: the value is further multiplied by 2^(lo + step·code), code = the 4-bit block-scale code of that
 * row's block of N columns (N a multiple of dim), lo, step = block_scale_range[0], [1]. Column c of the
 * packed matrix is input column permutation[c] (permutation != NULL).
 *
 * svd_rank R > 0 (dim 1 only): files hold, instead of codebooks and their scales, the factors of the matrix
 * [tiles × k] of all centroids: v[tile][m] = Σ_r factor_scales[r] · (codebook_left[tile][r] ·
 * codebook_right[r][m]), r ascending, fp32; codebooks and codebook_scales are what gptvq_round_codebook makes
 * of v[tile]: computed once, when a layer is read or quantized.
 *
 * TRELLIS. dim 1. Two tables of 16 int8 entries per column group, shared by all rows (group_rows = rows):
 * codebooks[group] = first[16], second[16], of which no sum of one entry each is beyond ±127. Each row is one
 * bit stream over all its columns, ceil(cols · index_bits / 8) bytes, rows in order; bit i is bit i mod 8 of
 * byte i / 8. The state of a column is the window of 8 bits of the stream that ends with the column's own
 * index_bits bits: bits index_bits · (c + 1) − 8 … index_bits · (c + 1) − 1, the first one lowest; bits
 * before the stream are 0, those after its last column are padding. Then
 *   value(row, c) = (first[entry of state] + second[entry of state]) / 127 · codebook_scales[group] ·
 * gptvq_row_scale(row_scales[row][group])
 *
 * UNIFORM. dim 1, index = code of index_bits bits. scale_block columns share (row-wise) one scale (fp16) and
 * one zero point of index_bits bits: value = scale · (code − zero). group_rows = 1; group_cols = cols.
 * scales[row · groups + group]; the zero points of all rows × groups are one unit, packed as above. */
#ifndef GPTVQ_FORMAT_PACKED_H
#define GPTVQ_FORMAT_PACKED_H

#include "base/status.h"
#include <stdbool.h>

/* Of block scales, both ways: fp32 holds them with room for products. */
enum { GPTVQ_MAX_SCALE_EXPONENT = 120 };

/* Bits of a trellis' window; entries of the two tables of a column group together. */
enum { GPTVQ_TRELLIS_STATE_BITS = 8, GPTVQ_TRELLIS_TABLE = 32 };

typedef enum gptvq_packed_kind {
  GPTVQ_PACKED_VQ = 0,
  GPTVQ_PACKED_UNIFORM = 1,
  GPTVQ_PACKED_TRELLIS = 2
} gptvq_packed_kind;

typedef struct gptvq_packed_shape {
  gptvq_packed_kind kind;
  size_t rows, cols;
  unsigned dim;        /* 1, 2, 4 (VQ); 1 (uniform, trellis) */
  unsigned index_bits; /* 1 … 12 (VQ), 1 … 8 (uniform), 2 … 4 (trellis: bits of the stream per weight) */
  size_t group_rows;   /* rows of a stripe, 1 … rows; trellis: rows */
  size_t group_cols;   /* columns of a column group: a multiple of dim and of 8; or >= cols */
  unsigned codebook_bits; /* 8 or 16 (VQ), 8 (trellis) */
  unsigned scale_block;   /* N; VQ: 0 = none, else divides group_cols; uniform: columns per scale, >= 1 */
  bool permuted;
  unsigned
      svd_rank; /* R: VQ of dim 1 with at most 8 index bits: 1 … min(k, tiles), or 0 = none; otherwise 0 */
} gptvq_packed_shape;

/* Arrays of a layer; those that its shape does not have are NULL. Not owned by this struct. */
typedef struct gptvq_packed {
  gptvq_packed_shape shape;
  const uint8_t *indices;
  const void *codebooks; /* int8_t or fp16 bits [stripes][column groups][k][dim]; trellis: int8_t [column
                            groups][GPTVQ_TRELLIS_TABLE] */
  const uint16_t *codebook_scales; /* bf16 bits [stripes][column groups] */
  const uint8_t
      *block_scales; /* 4-bit codes; per unit ceil(width / N) codes, two per byte (low first), unit order */
  const float *block_scale_range; /* lo, step */
  const uint32_t *permutation;    /* [cols]; in files U16 when cols <= 65536 */
  const uint16_t *scales;         /* uniform: fp16 [rows][ceil(cols / scale_block)] */
  const uint8_t *zeros;           /* uniform: packed codes */
  const int8_t *codebook_left;    /* svd_rank > 0: [stripes][column groups][R] */
  const int8_t *codebook_right;   /* [R][k] */
  const float *factor_scales;     /* [R] */
  const uint8_t *row_scales;      /* trellis: [rows][column groups] */
} gptvq_packed;

/* Checks the shape (GPTVQ_ERROR_FORMAT, `name` in the message) and that no size below overflows. */
gptvq_status gptvq_packed_check(const gptvq_packed_shape *shape, const char *name, gptvq_error *err);

/* Sizes; valid for checked shapes. codebook_bytes and codebook_scales: in memory, where svd_rank > 0 as well.
 */
typedef struct gptvq_packed_sizes {
  size_t stripes, column_groups;
  size_t index_bytes, codebook_values, codebook_bytes, codebook_scales, block_scale_bytes, uniform_scales,
      zero_bytes;
  size_t left_bytes, right_bytes; /* svd_rank > 0 */
  size_t row_scale_bytes;         /* trellis */
  size_t stored_bytes;            /* of all tensors in a file */
} gptvq_packed_sizes;
void gptvq_packed_measure(const gptvq_packed_shape *shape, gptvq_packed_sizes *sizes);

/* Columns of column group g; indices in one of its units, padding included; bytes of one of its units. */
size_t gptvq_packed_width(const gptvq_packed_shape *shape, size_t g);
size_t gptvq_unit_indices(const gptvq_packed_shape *shape, size_t g);
size_t gptvq_unit_bytes(const gptvq_packed_shape *shape, size_t g);
/* Byte offset in `indices` of the unit of (row, column group g). */
size_t gptvq_unit_offset(const gptvq_packed_shape *shape, size_t row, size_t g);
/* ---- trellis ---- */
/* Bytes of the stream of one row. */
size_t gptvq_trellis_row_bytes(const gptvq_packed_shape *shape);
/* The scale that a byte of row_scales stands for: 0 for 0, else (1 + (code mod 16) / 16) · 2^(code / 16 − 8),
 * exact in fp32. */
static inline float gptvq_row_scale(uint8_t code) {
  union {
    uint32_t bits;
    float value;
  } u = {code == 0 ? 0u : ((uint32_t)code << 19) + ((127u - 8u) << 23)};
  return u.value;
}
/* The nearest code of a scale, at least 1; 0 for what is not positive. */
uint8_t gptvq_row_scale_code(double scale);
/* States of columns [begin, begin + count) of a row's stream. */
void gptvq_trellis_states(const uint8_t *stream, unsigned index_bits, size_t begin, size_t count,
                          uint8_t *states);
/* The other way: the stream of a row whose states follow from each other (each one's lower 8 − index_bits
 * bits are the upper ones of the one before, of the first: 0). */
void gptvq_trellis_pack(const uint8_t *states, size_t cols, unsigned index_bits, uint8_t *stream);
/* Entry of the first (member 0) or second table of a group that a state's value is the sum of: of 2 bits per
 * weight the oldest and the newest two bits choose from the first, those between from the second; otherwise
 * the older four bits from the first and the newer four from the second. */
static inline unsigned gptvq_trellis_entry(unsigned index_bits, unsigned state, unsigned member) {
  if (index_bits == 2) return member == 0 ? (state & 3) | (state >> 4 & 12) : state >> 2 & 15;
  return member == 0 ? state & 15 : state >> 4;
}
/* The int8 value of a state in a group's tables. */
static inline int8_t gptvq_trellis_value(const int8_t table[GPTVQ_TRELLIS_TABLE], unsigned index_bits,
                                         unsigned state) {
  return (int8_t)(table[gptvq_trellis_entry(index_bits, state, 0)] +
                  table[GPTVQ_TRELLIS_TABLE / 2 + gptvq_trellis_entry(index_bits, state, 1)]);
}
/* The first of `groups` groups of tables [groups][GPTVQ_TRELLIS_TABLE] with a sum beyond ±127, which no
 * layer may have; `groups` if there is none. */
size_t gptvq_trellis_find_overflow(const int8_t *tables, size_t groups);

/* Byte offset in `block_scales` of the codes of (row, column group g): each unit starts on a whole byte. */
size_t gptvq_block_scale_offset(const gptvq_packed_shape *shape, size_t row, size_t g);

/* n indices (n a multiple of 8) of `bits` bits to and from n·bits/8 bytes in the field layout above. */
void gptvq_pack_unit(const uint16_t *indices, size_t n, unsigned bits, uint8_t *bytes);
void gptvq_unpack_unit(const uint8_t *bytes, size_t n, unsigned bits, uint16_t *indices);

/* n values of one codebook (finite) as they are stored in `bits` = 8 or 16 bits each: scale = the smallest
 * bf16 number that is not below the largest magnitude (the largest finite one when there is none); codes:
 * int8 of value / scale · 127 rounded to even, or fp16 of value / scale. */
void gptvq_round_codebook(const float *values, size_t n, unsigned bits, void *codes, uint16_t *scale);
/* The two tables of a trellis' group (in either order): codes whose sums are within ±127. */
void gptvq_round_trellis_tables(const float values[GPTVQ_TRELLIS_TABLE], int8_t codes[GPTVQ_TRELLIS_TABLE],
                                uint16_t *scale);
/* The other way: values[n] in fp32. */
void gptvq_expand_codebook(const void *codes, size_t n, unsigned bits, uint16_t scale, float *values);
/* Codebooks [tiles][k] of `bits` bits and their scales [tiles] from the factors: the equation above, the same
 * bits on every machine. */
void gptvq_codebooks_from_factors(size_t tiles, size_t k, size_t rank, const int8_t *left,
                                  const int8_t *right, const float *scales, unsigned bits, void *codebooks,
                                  uint16_t *codebook_scales);
/* Do these factor scales keep every value within bf16's range? */
bool gptvq_factor_scales_fit(const float *scales, size_t rank);

/* Scalar definition: rows [begin, end) as fp32 in *original* column order (permutation undone), out[(end −
 * begin) × stride], stride >= cols in elements. The fast variants are in kernels.h. */
void gptvq_packed_decode_ref(const gptvq_packed *packed, size_t begin, size_t end, float *out, size_t stride);

#endif
