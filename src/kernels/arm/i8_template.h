/* kernels/arm/i8_template.h: integer products for aarch64; included by i8_neon.c and i8_dotprod.c, which define dot4(sum, a, b):
 * four int32, each plus the products of four neighbouring bytes.
 *
 * Tables are TBL registers of 16, 32 or 64 entries (256: four of 64). The lanes of i8.h are four quarters of four int32. */
#include "kernels/arm/arm.h"
#include "kernels/multi/row_values.h"
#include "kernels/ref/ref.h"

#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* bench/arm-mca.sh marks the loops that it has analysed. */
#ifndef GPTVQ_MCA_BEGIN
#define GPTVQ_MCA_BEGIN(name) ((void)0)
#define GPTVQ_MCA_END(name) ((void)0)
#endif

/* ---- look-ups ---- */
typedef struct tables {
  int8x16x4_t part[4][4]; /* [component][64 entries each]; fewer entries: repeated */
} tables;

INLINE void load_tables(const int8_t *codebook, unsigned bits, unsigned dim, tables *t) {
  const unsigned k = 1u << bits, entries = k < 64 ? 64 : k;
  int8_t plane[256];
  for (unsigned e = 0; e < dim; e++) {
    for (unsigned i = 0; i < entries; i++) plane[i] = codebook[(i & (k - 1)) * dim + e];
    for (unsigned i = 0; i < entries / 64; i++)
      for (unsigned j = 0; j < 4; j++) t->part[e][i].val[j] = vld1q_s8(plane + 64 * i + 16 * j);
  }
}

INLINE int8x16_t look_up(const tables *t, unsigned bits, unsigned e, uint8x16_t index) {
  const int8x16x4_t *part = t->part[e];
  if (bits <= 4) return vqtbl1q_s8(part[0].val[0], index);
  if (bits == 5) return vqtbl2q_s8((int8x16x2_t){{part[0].val[0], part[0].val[1]}}, index);
  int8x16_t found = vqtbl4q_s8(part[0], index); /* 0 where the index is out of range, which vqtbx leaves alone */
  for (unsigned i = 1; i < (1u << bits) / 64; i++)
    found = vqtbx4q_s8(found, part[i], vsubq_u8(index, vdupq_n_u8((uint8_t)(64 * i))));
  return found;
}

/* Indices at … at + 15 of a unit of n; the fields' bytes must be multiples of 16. */
INLINE uint8x16_t indices16(const uint8_t *unit, unsigned bits, size_t n, size_t at) {
  uint8x16_t index = vdupq_n_u8(0);
  unsigned shift = 0;
  for (unsigned f = 8; f >= 1; f /= 2) {
    if (!(bits & f)) continue;
    const size_t size = n / 8 * f;
    const int down = (int)(f * (at / size));
    uint8x16_t v = vld1q_u8(unit + at % size);
    if (down != 0) v = vshlq_u8(v, vdupq_n_s8((int8_t)-down));
    if (down + (int)f < 8) v = vandq_u8(v, vdupq_n_u8((uint8_t)((1u << f) - 1u)));
    if (shift != 0) v = vshlq_u8(v, vdupq_n_s8((int8_t)shift));
    index = vorrq_u8(index, v);
    unit += size;
    shift += f;
  }
  return index;
}

/* ---- tiles ---- */
INLINE void add_token(const gptvq_i8_tile *job, const int8_t *codes, const float *by_lane, size_t t, unsigned dim, size_t sets,
                      float *sums) {
  const int8_t *x = job->x + t * job->input_stride;
  for (size_t quarter = 0; quarter < 4; quarter++) {
    int32x4_t all = vdupq_n_s32(0);
    float32x4_t value = vdupq_n_f32(0);
    for (size_t s = 0; s < sets; s++) {
      int32x4_t sum = by_lane != NULL ? vdupq_n_s32(0) : all;
      for (unsigned e = 0; e < dim; e++) {
        const size_t at = (e * sets + s) * GPTVQ_I8_SET + 16 * quarter;
        sum = dot4(sum, vld1q_s8(codes + at), vld1q_s8(x + at));
      }
      if (by_lane != NULL)
        value = vfmaq_f32(value, vcvtq_f32_s32(sum), vld1q_f32(by_lane + s * GPTVQ_I8_LANES + 4 * quarter));
      else all = sum;
    }
    if (by_lane == NULL) value = vcvtq_f32_s32(all);
    vst1q_f32(sums + 4 * quarter, vfmaq_n_f32(vld1q_f32(sums + 4 * quarter), value, job->scales[t]));
  }
}

/* Units of 256 columns; one token and no block scales: codes go from the tables into the products. */
INLINE void full_tile(const gptvq_i8_tile *job, unsigned bits, unsigned dim) {
  const gptvq_tile *tile = job->tile;
  const size_t n = 256 / dim, sets = n / 64;
  tables t;
  load_tables(tile->codebook, bits, dim, &t);
  const uint8_t *unit = tile->units;
  float *sums = job->sums;
  if (job->tokens == 1 && job->block_vectors == 0) {
    int8x16_t x[16]; /* for all rows */
    for (size_t i = 0; i < 16; i++) x[i] = vld1q_s8(job->x + 16 * i);
    const float scale = job->scales[0];
    for (size_t row = tile->rows; row > 0; row--, unit += n / 8 * bits, sums += GPTVQ_I8_LANES) {
      GPTVQ_MCA_BEGIN("vq");
#pragma GCC unroll 4
      for (size_t quarter = 0; quarter < 4; quarter++) {
        int32x4_t sum = vdupq_n_s32(0);
        for (size_t s = 0; s < sets; s++) {
          uint8x16_t index = indices16(unit, bits, n, 64 * s + 16 * quarter);
          for (unsigned e = 0; e < dim; e++) sum = dot4(sum, look_up(&t, bits, e, index), x[(e * sets + s) * 4 + quarter]);
        }
        vst1q_f32(sums + 4 * quarter, vfmaq_n_f32(vld1q_f32(sums + 4 * quarter), vcvtq_f32_s32(sum), scale));
      }
      GPTVQ_MCA_END("vq");
    }
    return;
  }
  for (size_t row = 0; row < tile->rows; row++, unit += n / 8 * bits) {
    int8_t codes[256];
    float by_lane[4 * GPTVQ_I8_LANES];
    for (size_t i = 0; i < n; i += 16) {
      uint8x16_t index = indices16(unit, bits, n, i);
      for (unsigned e = 0; e < dim; e++) vst1q_s8(codes + e * n + i, look_up(&t, bits, e, index));
    }
    if (job->block_vectors != 0) gptvq_i8_lane_scales(job, row, by_lane);
    for (size_t token = 0; token < job->tokens; token++, sums += GPTVQ_I8_LANES)
      add_token(job, codes, job->block_vectors != 0 ? by_lane : NULL, token, dim, sets, sums);
  }
}

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

#define TILE(bits, dim) \
  static void tile_##bits##_##dim(const gptvq_i8_tile *job) { full_tile(job, bits, dim); }
#define TILES(bits) TILE(bits, 1) TILE(bits, 2) TILE(bits, 4)
TILES(2) TILES(4) TILES(6) TILES(8)
TILE(1, 1) TILE(1, 2) TILE(3, 1) TILE(3, 2) TILE(5, 1) TILE(5, 2) TILE(7, 1) TILE(7, 2)

/* NULL: single-bit fields of 8 bytes */
static void (*const full_tiles[8][3])(const gptvq_i8_tile *) = {
    {tile_1_1, tile_1_2, NULL}, {tile_2_1, tile_2_2, tile_2_4}, {tile_3_1, tile_3_2, NULL}, {tile_4_1, tile_4_2, tile_4_4},
    {tile_5_1, tile_5_2, NULL}, {tile_6_1, tile_6_2, tile_6_4}, {tile_7_1, tile_7_2, NULL}, {tile_8_1, tile_8_2, tile_8_4}};

static void i8_tile(const gptvq_i8_tile *job) {
  const gptvq_tile *tile = job->tile;
  if (tile->index_bits <= 8 && tile->width == 256 && full_tiles[tile->index_bits - 1][tile->dim / 2] != NULL)
    full_tiles[tile->index_bits - 1][tile->dim / 2](job);
  else any_tile(job);
}

/* ---- uniform rows ---- */
/* block: 32, 128 (constants: unrolled) or row->block */
INLINE float multiply_row(const gptvq_uniform_row *row, unsigned bits, size_t block_columns) {
  const bool narrow = block_columns == 32;
  float scales[GPTVQ_UNIFORM_MAX_BLOCKS + 4], correction[16] = {0}, folded[16];
  uint16_t zeros[16];
  const size_t parts = 8 / bits, step = narrow ? 64 : block_columns, per_part = row->bytes / block_columns;
  for (size_t b = 0; b < row->blocks; b += 16) {
    size_t count = row->blocks - b < 16 ? row->blocks - b : 16;
    float wide[16];
    gptvq_kernels(GPTVQ_CPU_NEON)->to_float[GPTVQ_F16](row->scales + b, count, wide);
    gptvq_unpack_range(row->zeros, row->zero_count, bits, row->zero_at + b, count, zeros);
    for (size_t i = 0; i < count; i++) {
      scales[b + i] = wide[i] * row->x_scales[b + i];
      correction[i] = __builtin_fmaf(scales[b + i] * (float)zeros[i], row->x_sums[b + i], correction[i]);
    }
  }
  const uint8x16_t mask = vdupq_n_u8((uint8_t)((1u << bits) - 1u));
  float32x4_t sums[4][4];
  for (size_t i = 0; i < parts; i++)
    for (size_t quarter = 0; quarter < 4; quarter++) sums[i][quarter] = vdupq_n_f32(0);
  size_t block = 0;
  for (size_t at = 0; at < row->bytes; at += step, block += narrow ? 2 : 1) {
    GPTVQ_MCA_BEGIN("int4");
#pragma GCC unroll 4
    for (size_t quarter = 0; quarter < 4; quarter++) {
      int32x4_t totals[4];
      for (size_t i = 0; i < parts; i++) totals[i] = vdupq_n_s32(0);
#pragma GCC unroll 2
      for (size_t set = 0; set < step; set += 64) {
        const size_t j = at + set + 16 * quarter;
        const uint8x16_t bytes = vld1q_u8(row->unit + j);
        for (size_t i = 0; i < parts; i++) {
          uint8x16_t code = i == 0 ? bytes : vshlq_u8(bytes, vdupq_n_s8((int8_t) - (int)(i * bits)));
          if (i + 1 < parts) code = vandq_u8(code, mask);
          totals[i] = dot4(totals[i], vreinterpretq_s8_u8(code), vld1q_s8(row->x + i * row->bytes + j));
        }
      }
      for (size_t i = 0; i < parts; i++)
        sums[i][quarter] = vfmaq_n_f32(sums[i][quarter], vcvtq_f32_s32(totals[i]),
                                       scales[i * per_part + block + (narrow ? quarter / 2 : 0)]);
    }
    GPTVQ_MCA_END("int4");
  }
  for (size_t quarter = 0; quarter < 4; quarter++) {
    for (size_t i = 1; i < parts; i++) sums[0][quarter] = vaddq_f32(sums[0][quarter], sums[i][quarter]);
    vst1q_f32(folded + 4 * quarter, sums[0][quarter]);
  }
  return gptvq_fold16(folded) - gptvq_fold16(correction);
}

static float uniform_4_128(const gptvq_uniform_row *row) { return multiply_row(row, 4, 128); }
static float uniform_2_128(const gptvq_uniform_row *row) { return multiply_row(row, 2, 128); }
static float uniform_4_32(const gptvq_uniform_row *row) { return multiply_row(row, 4, 32); }
static float uniform_2_32(const gptvq_uniform_row *row) { return multiply_row(row, 2, 32); }
static float uniform_any(const gptvq_uniform_row *row) { return multiply_row(row, row->bits, row->block); }

static float (*const uniform_rows[3][2])(const gptvq_uniform_row *) = {
    {uniform_2_32, uniform_4_32}, {uniform_2_128, uniform_4_128}, {uniform_any, uniform_any}};

static float uniform_row(const gptvq_uniform_row *row) {
  return uniform_rows[row->block == 32 ? 0 : row->block == 128 ? 1 : 2][row->bits == 4](row);
}
