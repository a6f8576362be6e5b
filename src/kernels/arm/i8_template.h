/* kernels/arm/i8_template.h: integer products for aarch64; included by i8_neon.c and i8_dotprod.c, which
 * define dot4(sum, a, b): four int32, each plus the products of four neighbouring bytes. The lanes of i8.h
 * are four quarters of four int32.
 *
 * Sums of a tile or block stay below 2^21 (1024 / 16 products of at most 128 · 127), so they begin at the
 * bits of 1.5 · 2^23: read as fp32 they are 1.5 · 2^23 + sum, and one exact subtraction replaces the
 * conversion, which big cores do at half speed. */
#include "kernels/arm/arm.h"
#include "kernels/arm/gather_neon.h"
#include "kernels/arm/lookup_neon.h"
#include "kernels/multi/row_values.h"
#include "kernels/ref/ref.h"
#include "kernels/shapes.h"

/* bench/arm-mca.sh marks the loops that it has analysed. */
#ifndef GPTVQ_MCA_BEGIN
#define GPTVQ_MCA_BEGIN(name) ((void)0)
#define GPTVQ_MCA_END(name) ((void)0)
#endif

enum { SUM_START = 0x4b400000 }; /* of integer sums: 1.5 · 2^23 as fp32 */
INLINE float32x4_t sum_to_float(int32x4_t sum) {
  return vsubq_f32(vreinterpretq_f32_s32(sum), vreinterpretq_f32_s32(vdupq_n_s32(SUM_START)));
}

/* ---- tiles ---- */
INLINE void add_token(const gptvq_i8_tile *job, const int8_t *codes, const float *by_lane, size_t t,
                      unsigned dim, size_t sets, float *sums) {
  const int8_t *x = job->x + t * job->input_stride;
  for (size_t quarter = 0; quarter < 4; quarter++) {
    int32x4_t all = vdupq_n_s32(SUM_START);
    float32x4_t value = vdupq_n_f32(0);
    for (size_t s = 0; s < sets; s++) {
      int32x4_t sum = by_lane != NULL ? vdupq_n_s32(SUM_START) : all;
      for (unsigned e = 0; e < dim; e++) {
        const size_t at = (e * sets + s) * GPTVQ_I8_SET + 16 * quarter;
        sum = dot4(sum, vld1q_s8(codes + at), vld1q_s8(x + at));
      }
      if (by_lane != NULL)
        value = vfmaq_f32(value, sum_to_float(sum), vld1q_f32(by_lane + s * GPTVQ_I8_LANES + 4 * quarter));
      else all = sum;
    }
    if (by_lane == NULL) value = sum_to_float(all);
    vst1q_f32(sums + 4 * quarter, vfmaq_n_f32(vld1q_f32(sums + 4 * quarter), value, job->scales[t]));
  }
}

INLINE void add_sums(const int32x4_t acc[4], float scale, float *sums) {
  for (size_t quarter = 0; quarter < 4; quarter++)
    vst1q_f32(sums + 4 * quarter,
              vfmaq_n_f32(vld1q_f32(sums + 4 * quarter), sum_to_float(acc[quarter]), scale));
}

/* The 16 look-ups of a unit of 256 columns are so ordered that four in a row use four indices and go to four
 * quarters: look-up j has component e = j / 4 % dim of the indices 64 s + 16 (j % 4) …, s = j / 4 / dim. */
INLINE size_t lookup_index(unsigned dim, size_t j) { return j / 4 / dim * 64 + j % 4 * 16; }
INLINE size_t lookup_place(unsigned dim, size_t j) {
  return j / 4 % dim * (256 / dim) + lookup_index(dim, j);
} /* in the planes */

/* What look-up j looks for: an index, or the nibble that has it. */
INLINE uint8x16_t unit_index(const uint8_t *unit, unsigned bits, unsigned dim, size_t j) {
  const size_t n = 256 / dim, at = lookup_index(dim, j), bytes = n / 8 * bits;
  if (bits != 1 && bits != 2 && bits != 4) return gptvq_indices_neon(unit, bits, n, at);
  const uint8x16_t packed = vld1q_u8(unit + at % bytes);
  return at / bytes < 4 / bits ? packed & 15 : packed >> 4;
}
INLINE int8x16_t unit_codes(const gptvq_tables_neon *t, unsigned bits, unsigned dim, size_t j,
                            uint8x16_t index) {
  const unsigned e = (unsigned)(j / 4 % dim);
  if (bits != 1 && bits != 2 && bits != 4) return gptvq_look_up_neon(t, bits, e, index);
  return vqtbl1q_s8(t->part[e][0].val[lookup_index(dim, j) / (32 * bits / dim) % (4 / bits)], index);
}

/* Units of 256 columns; one token and no block scales: codes go from the tables into the products. */
INLINE void full_tile(const gptvq_i8_tile *job, unsigned bits, unsigned dim) {
  const gptvq_tile *tile = job->tile;
  const size_t n = 256 / dim, sets = n / 64;
  gptvq_tables_neon t;
  GPTVQ_MCA_BEGIN("tables");
  gptvq_load_tables_neon(tile->codebook, bits, dim, &t);
  const uint8_t *unit = tile->units;
  float *sums = job->sums;
  if (job->tokens == 1 && job->block_vectors == 0) {
    const float scale = job->scales[0];
    GPTVQ_MCA_END("tables");
    for (size_t row = tile->rows; row > 0; row--, unit += n / 8 * bits, sums += GPTVQ_I8_LANES) {
      GPTVQ_MCA_BEGIN("vq");
      int32x4_t acc[4];
      /* indices come four look-ups before their use, and look-ups four before their products: little cores do
       * not look ahead */
      uint8x16_t index[16];
      int8x16_t found[16], x[16];
      for (size_t quarter = 0; quarter < 4; quarter++) acc[quarter] = vdupq_n_s32(SUM_START);
#pragma GCC unroll 24
      for (size_t step = 0; step < 24; step++) {
        if (step < 16) index[step] = unit_index(unit, bits, dim, step);
        if (step >= 4 && step < 20) {
          x[step - 4] = vld1q_s8(job->x + lookup_place(dim, step - 4));
          found[step - 4] = unit_codes(&t, bits, dim, step - 4, index[step - 4]);
        }
        if (step >= 8) acc[step % 4] = dot4(acc[step % 4], found[step - 8], x[step - 8]);
      }
      add_sums(acc, scale, sums);
      GPTVQ_MCA_END("vq");
    }
    return;
  }
  for (size_t row = 0; row < tile->rows; row++, unit += n / 8 * bits) {
    int8_t codes[256];
    float by_lane[4 * GPTVQ_I8_LANES];
#pragma GCC unroll 16
    for (size_t j = 0; j < 16; j++)
      vst1q_s8(codes + lookup_place(dim, j), unit_codes(&t, bits, dim, j, unit_index(unit, bits, dim, j)));
    if (job->block_vectors != 0) gptvq_i8_lane_scales(job, row, by_lane);
    for (size_t token = 0; token < job->tokens; token++, sums += GPTVQ_I8_LANES)
      add_token(job, codes, job->block_vectors != 0 ? by_lane : NULL, token, dim, sets, sums);
  }
}

/* Units of any width: indices are unpacked and looked up 16 at a time. */
INLINE void other_tile(const gptvq_i8_tile *job, unsigned bits, unsigned dim) {
  const gptvq_tile *tile = job->tile;
  const size_t plane = job->sets * GPTVQ_I8_SET;
  uint8_t indices[GPTVQ_I8_MAX_WIDTH];
  int8_t codes[GPTVQ_I8_MAX_WIDTH + 4 * GPTVQ_I8_SET];
  float by_lane[GPTVQ_I8_MAX_WIDTH / GPTVQ_I8_SET * GPTVQ_I8_LANES], *sums = job->sums;
  const uint8_t *unit = tile->units;
  gptvq_tables_neon t;
  gptvq_load_tables_neon(tile->codebook, bits, dim, &t);
  memset(indices + plane - GPTVQ_I8_SET, 0, GPTVQ_I8_SET); /* what no unit fills */
  for (size_t row = 0; row < tile->rows; row++, unit += tile->unit_bytes) {
    gptvq_unpack_bytes_base(unit, tile->indices, bits, indices);
    for (size_t i = 0; i < plane; i += 16)
      for (unsigned e = 0; e < dim; e++)
        vst1q_s8(codes + e * plane + i, gptvq_look_up_neon(&t, bits, e, vld1q_u8(indices + i)));
    if (job->block_vectors != 0) gptvq_i8_lane_scales(job, row, by_lane);
    for (size_t token = 0; token < job->tokens; token++, sums += GPTVQ_I8_LANES)
      add_token(job, codes, job->block_vectors != 0 ? by_lane : NULL, token, dim, job->sets, sums);
  }
}

/* The same centroid by centroid. */
static void any_tile(const gptvq_i8_tile *job) {
  int8_t codes[GPTVQ_I8_MAX_WIDTH + 4 * GPTVQ_I8_SET];
  float by_lane[GPTVQ_I8_MAX_WIDTH / GPTVQ_I8_SET * GPTVQ_I8_LANES], *sums = job->sums;
  for (size_t row = 0; row < job->tile->rows; row++) {
    gptvq_planar_codes_base(job->tile, row, job->sets * GPTVQ_I8_SET, codes);
    if (job->block_vectors != 0) gptvq_i8_lane_scales(job, row, by_lane);
    for (size_t t = 0; t < job->tokens; t++, sums += GPTVQ_I8_LANES)
      add_token(job, codes, job->block_vectors != 0 ? by_lane : NULL, t, job->tile->dim, job->sets, sums);
  }
}

/* More than 64 centroids: units of 256 columns, one token, no block scales. `bits` 0: not a constant. */
INLINE void gather_tile(const gptvq_i8_tile *job, unsigned bits, unsigned dim) {
  const gptvq_tile *tile = job->tile;
  const size_t n = 256 / dim;
  const int8_t *codebook = tile->codebook;
  const uint8_t *unit = tile->units;
  int8_t ordered[256];
  gptvq_order_inputs_neon(job->x, dim, ordered);
  int8x16_t x[16];
  for (size_t i = 0; i < 16; i++) x[i] = vld1q_s8(ordered + 16 * i);
  float *sums = job->sums;
  const float scale = job->scales[0];
  for (size_t row = tile->rows; row > 0; row--, unit += tile->unit_bytes, sums += GPTVQ_I8_LANES) {
    uint16_t unpacked[128];
    const uint8_t *indices = unit;
    if (bits != 8) {
      gptvq_unpack_words_base(unit, n, tile->index_bits, unpacked);
      indices = (const uint8_t *)unpacked;
    }
    GPTVQ_MCA_BEGIN("gather");
    int32x4_t acc[4];
    for (size_t quarter = 0; quarter < 4; quarter++) acc[quarter] = vdupq_n_s32(SUM_START);
#pragma GCC unroll 8
    for (size_t chunk = 0; chunk < n / 16; chunk++) {
      int8x16_t parts[4];
      gptvq_gather_chunk(codebook, dim, indices + chunk * (bits == 8 ? 16 : 32), bits != 8, parts);
      for (unsigned p = 0; p < dim; p++) acc[chunk % 4] = dot4(acc[chunk % 4], parts[p], x[chunk * dim + p]);
    }
    add_sums(acc, scale, sums);
    GPTVQ_MCA_END("gather");
  }
}

typedef void (*tile_fn)(const gptvq_i8_tile *job);

/* Not of units whose single-bit fields have 8 bytes. */
#define TILE(bits, dim) \
  static void tile_##bits##_##dim(const gptvq_i8_tile *job) { full_tile(job, bits, dim); }
#define TILES(X) \
  GPTVQ_DIMS(X, 2) \
  GPTVQ_DIMS(X, 4) \
  GPTVQ_DIMS(X, 6) GPTVQ_DIMS(X, 8) X(1, 1) X(1, 2) X(3, 1) X(3, 2) X(5, 1) X(5, 2) X(7, 1) X(7, 2)
TILES(TILE)
/* Large codebooks of four components are as well read centroid by centroid. */
#define OTHER(bits, dim) \
  static void other_##bits##_##dim(const gptvq_i8_tile *job) { other_tile(job, bits, dim); }
GPTVQ_SHAPES_SHUFFLE(OTHER)
#define TILE_ENTRY(bits, dim) GPTVQ_ENTRY(tile, bits, dim)
#define OTHER_ENTRY(bits, dim) GPTVQ_ENTRY(other, bits, dim)
static const tile_fn full_tiles[8][3] = {TILES(TILE_ENTRY)},
                     other_tiles[8][3] = {GPTVQ_SHAPES_SHUFFLE(OTHER_ENTRY)};

static void gather_8_2(const gptvq_i8_tile *job) { gather_tile(job, 8, 2); }
static void gather_8_4(const gptvq_i8_tile *job) { gather_tile(job, 8, 4); }
static void gather_any_2(const gptvq_i8_tile *job) { gather_tile(job, 0, 2); }
static void gather_any_4(const gptvq_i8_tile *job) { gather_tile(job, 0, 4); }

static void i8_tile(const gptvq_i8_tile *job) {
  const gptvq_tile *tile = job->tile;
  const unsigned bits = tile->index_bits, dim = tile->dim;
  const bool full = tile->width == 256;
  if (full && job->tokens == 1 && job->block_vectors == 0 && dim > 1 && bits > 6) {
    (bits == 8 ? dim == 2 ? gather_8_2 : gather_8_4 : dim == 2 ? gather_any_2 : gather_any_4)(job);
    return;
  }
  const tile_fn run = bits <= 8 ? (full ? full_tiles : other_tiles)[bits - 1][dim / 2] : NULL;
  (run != NULL ? run : any_tile)(job);
}
/* ---- uniform rows ---- */
/* scales[first …]: weight scale times activation scale; correction[16] of uniform.h, of the blocks from
 * `first`, a multiple of 16. */
static void add_scales(const gptvq_uniform_row *row, size_t first, float *scales, float *correction) {
  for (size_t b = first; b < row->blocks; b += 16) {
    const size_t count = row->blocks - b < 16 ? row->blocks - b : 16;
    uint16_t zeros[16];
    gptvq_kernels(GPTVQ_CPU_NEON)->to_float[GPTVQ_F16](row->scales + b, count, scales + b);
    gptvq_unpack_range(row->zeros, row->zero_count, row->bits, row->zero_at + b, count, zeros);
    for (size_t i = 0; i < count; i++) {
      scales[b + i] *= row->x_scales[b + i];
      correction[i] = __builtin_fmaf(scales[b + i] * (float)zeros[i], row->x_sums[b + i], correction[i]);
    }
  }
}

/* block: 32, 128 (constants: unrolled) or row->block. `field` bits a code: 8 when they are unpacked, those of
 * 8 bits as code − 128 and 128. */
INLINE float multiply_row(const gptvq_uniform_row *row, unsigned field, size_t block_columns, bool wide) {
  const bool narrow = field < 8 && block_columns == 32,
             by_lane = field == 8 && !gptvq_uniform_whole_sets(row);
  float scales[GPTVQ_UNIFORM_MAX_BLOCKS + 1], correction[16] = {0}, folded[16];
  float lanes[GPTVQ_UNIFORM_MAX_COLS / 4];
  const size_t parts = 8 / field, step = narrow || by_lane ? 64 : (block_columns + 63) / 64 * 64,
               per_part = row->bytes / block_columns;
  add_scales(row, 0, scales, correction);
  if (by_lane) gptvq_uniform_spread(row, scales, lanes);
  const uint8x16_t mask = vdupq_n_u8((uint8_t)((1u << field) - 1u));
  float32x4_t sums[4][4];
  for (size_t i = 0; i < parts; i++)
    for (size_t quarter = 0; quarter < 4; quarter++) sums[i][quarter] = vdupq_n_f32(0);
  size_t block = 0;
  for (size_t at = 0; at < row->bytes; at += step, block += narrow ? 2 : 1) {
    const size_t end = field < 8 || at + step < row->bytes ? step : row->bytes - at;
    GPTVQ_MCA_BEGIN("int4");
#pragma GCC unroll 4
    for (size_t quarter = 0; quarter < 4; quarter++) {
      int32x4_t totals[4];
      for (size_t i = 0; i < parts; i++) totals[i] = vdupq_n_s32(SUM_START);
#pragma GCC unroll 2
      for (size_t set = 0; set < end; set += 64) {
        const size_t j = at + set + 16 * quarter;
        const uint8x16_t bytes = vld1q_u8(row->unit + j);
        for (size_t i = 0; i < parts; i++) {
          const int8x16_t x = vld1q_s8(row->x + i * row->bytes + j);
          uint8x16_t code = i == 0 ? bytes : vshlq_u8(bytes, vdupq_n_s8((int8_t) - (int)(i * field)));
          if (i + 1 < parts) code = vandq_u8(code, mask);
          if (wide) { /* 128 = 64 + 64 */
            code = code ^ 128;
            totals[i] = dot4(dot4(totals[i], vdupq_n_s8(64), x), vdupq_n_s8(64), x);
          }
          totals[i] = dot4(totals[i], vreinterpretq_s8_u8(code), x);
        }
      }
      for (size_t i = 0; i < parts; i++) {
        const float32x4_t scale =
            by_lane ? vld1q_f32(lanes + 16 * block + 4 * quarter)
                    : vdupq_n_f32(scales[i * per_part + block + (narrow ? quarter / 2 : 0)]);
        sums[i][quarter] = vfmaq_f32(sums[i][quarter], sum_to_float(totals[i]), scale);
      }
    }
    GPTVQ_MCA_END("int4");
  }
  for (size_t quarter = 0; quarter < 4; quarter++) {
    for (size_t i = 1; i < parts; i++) sums[0][quarter] = vaddq_f32(sums[0][quarter], sums[i][quarter]);
    vst1q_f32(folded + 4 * quarter, sums[0][quarter]);
  }
  return gptvq_fold16(folded) - gptvq_fold16(correction);
}

static float uniform_row(const gptvq_uniform_row *row) {
  if (row->field == 8)
    return row->bits == 8 ? multiply_row(row, 8, row->block, true) : multiply_row(row, 8, row->block, false);
  const unsigned field = row->field;
  if (row->block == 32) return field == 4 ? multiply_row(row, 4, 32, false) : multiply_row(row, 2, 32, false);
  if (row->block == 128)
    return field == 4 ? multiply_row(row, 4, 128, false) : multiply_row(row, 2, 128, false);
  return multiply_row(row, field, row->block, false);
}
