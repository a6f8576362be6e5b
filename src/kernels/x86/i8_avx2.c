/* Packed rows × int8 activations with AVX2: |w| · (sign(w) x), which vpmaddubsw takes and which cannot
 * overflow: 2 · 128 · 127 < 2^15. (16-bit codes and vpmaddwd take as long.) Codes go from the tables into the
 * products; with several tokens and more than 16 centroids, they are looked up once, some rows at a time,
 * into the first-level cache. */
#include "base/half.h"
#include "kernels/multi/row_values.h"
#include "kernels/ref/ref.h"
#include "kernels/x86/codes_avx2.h"
#include "kernels/x86/fold_avx2.h"
#include "kernels/x86/gather_avx2.h"
#include "kernels/shapes.h"
#include "kernels/x86/x86.h"

GPTVQ_INLINE __m256i load(const int8_t *p) { return _mm256_load_si256((const void *)p); }

/* sum + the products of four neighbouring bytes */
GPTVQ_INLINE __m256i dot4(__m256i sum, __m256i w, __m256i q) {
  __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(q, w));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

/* sums += float(total) · scale, of 8 lanes */
GPTVQ_INLINE void add_sums(float *sums, __m256 value, float scale) {
  _mm256_store_ps(sums, _mm256_fmadd_ps(value, _mm256_set1_ps(scale), _mm256_load_ps(sums)));
}

/* ---- block scales of units of 256 columns, a power of two of indices per block ---- */

/* Lane L of half set h has the block (32 h + 4 L) / (vectors per block), whose 4-bit code lies in a word of
 * eight. */
typedef struct block_scales {
  __m256 low, high; /* the table */
  __m256i shift[8]; /* [half set] */
  size_t vectors, bytes;
} block_scales;

static bool by_shifts(const gptvq_i8_tile *job) {
  return job->block_vectors != 0 && job->tile->width == 256 &&
         (job->block_vectors & (job->block_vectors - 1)) == 0;
}

static void prepare_scales(const gptvq_i8_tile *job, block_scales *blocks) {
  const __m256i lane = _mm256_set_epi32(28, 24, 20, 16, 12, 8, 4, 0), seven = _mm256_set1_epi32(7);
  const __m128i log_vectors = _mm_cvtsi32_si128(__builtin_ctzll(job->block_vectors));
  blocks->low = _mm256_loadu_ps(job->block_table);
  blocks->high = _mm256_loadu_ps(job->block_table + 8);
  blocks->vectors = job->block_vectors;
  blocks->bytes = job->tile->block_bytes;
  for (size_t h = 0; h < 2 * job->sets; h++) {
    const __m256i block =
        _mm256_srl_epi32(_mm256_add_epi32(lane, _mm256_set1_epi32((int)(32 * h))), log_vectors);
    blocks->shift[h] = _mm256_slli_epi32(_mm256_and_si256(block, seven), 2);
  }
}

/* The scales of half set h of a unit whose block codes these are. */
GPTVQ_INLINE __m256 look_up_scales(const block_scales *blocks, const uint8_t *codes, size_t h) {
  uint32_t word = codes[0];
  if (blocks->bytes == 2) word = (uint32_t)(codes[0] | codes[1] << 8);
  if (blocks->bytes >= 4) memcpy(&word, codes + 32 * h / blocks->vectors / 8 * 4, sizeof word);
  const __m256i code = _mm256_srlv_epi32(_mm256_set1_epi32((int)word), blocks->shift[h]);
  const __m256 low = _mm256_permutevar8x32_ps(blocks->low, code),
               high = _mm256_permutevar8x32_ps(blocks->high, code);
  return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(code, 28)));
}

/* ---- codes in memory, any number of tokens ---- */

/* One row times `tokens` (a constant) tokens. */
GPTVQ_INLINE void multiply_tokens(const int8_t *codes, const float *by_lane, size_t sets, unsigned dim,
                                  const int8_t *x, size_t stride, const float *scales, size_t tokens,
                                  float *sums) {
  const size_t plane = sets * GPTVQ_I8_SET;
#pragma GCC unroll 2
  for (size_t half = 0; half < 2; half++) {
    __m256i totals[4];
    __m256 values[4];
#pragma GCC unroll 4
    for (size_t i = 0; i < tokens; i++) totals[i] = _mm256_setzero_si256(), values[i] = _mm256_setzero_ps();
#pragma GCC unroll 4
    for (size_t s = 0; s < sets; s++) {
      const size_t at = s * GPTVQ_I8_SET + 32 * half;
#pragma GCC unroll 4
      for (unsigned e = 0; e < dim; e++) {
        const __m256i w = load(codes + at + e * plane);
#pragma GCC unroll 4
        for (size_t i = 0; i < tokens; i++) {
          totals[i] = dot4(totals[i], w, load(x + i * stride + at + e * plane));
          GPTVQ_KEEP(totals[i]);
        }
      }
      if (by_lane == NULL) continue;
      const __m256 scale = _mm256_loadu_ps(by_lane + s * GPTVQ_I8_LANES + 8 * half);
#pragma GCC unroll 4
      for (size_t i = 0; i < tokens; i++) {
        values[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(totals[i]), scale, values[i]);
        totals[i] = _mm256_setzero_si256();
      }
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < tokens; i++)
      add_sums(sums + i * GPTVQ_I8_LANES + 8 * half,
               by_lane != NULL ? values[i] : _mm256_cvtepi32_ps(totals[i]), scales[i]);
  }
}

GPTVQ_INLINE void multiply_row(const gptvq_i8_tile *job, const int8_t *codes, const float *by_lane,
                               size_t sets, unsigned dim, float *sums) {
  const size_t tokens = job->tokens, stride = job->input_stride;
  const int8_t *x = job->x;
  const float *scales = job->scales;
  size_t t = 0;
  for (; t + 4 <= tokens; t += 4, sums += 4 * GPTVQ_I8_LANES)
    multiply_tokens(codes, by_lane, sets, dim, x + t * stride, stride, scales + t, 4, sums);
  if (tokens - t == 3)
    multiply_tokens(codes, by_lane, sets, dim, x + t * stride, stride, scales + t, 3, sums);
  if (tokens - t == 2)
    multiply_tokens(codes, by_lane, sets, dim, x + t * stride, stride, scales + t, 2, sums);
  if (tokens - t == 1)
    multiply_tokens(codes, by_lane, sets, dim, x + t * stride, stride, scales + t, 1, sums);
}

typedef void (*row_fn)(const gptvq_i8_tile *job, const int8_t *codes, const float *by_lane, float *sums);
#define ROW(dim) \
  static void full_##dim(const gptvq_i8_tile *job, const int8_t *codes, const float *by_lane, float *sums) { \
    if (by_lane != NULL) multiply_row(job, codes, by_lane, 4 / dim, dim, sums); \
    else multiply_row(job, codes, NULL, 4 / dim, dim, sums); \
  } \
  static void any_##dim(const gptvq_i8_tile *job, const int8_t *codes, const float *by_lane, float *sums) { \
    multiply_row(job, codes, by_lane, job->sets, dim, sums); \
  }
ROW(1)
ROW(2)
ROW(4)
static const row_fn full_rows[3] = {full_1, full_2, full_4}, any_rows[3] = {any_1, any_2, any_4};

static void any_tile(const gptvq_i8_tile *job) {
  enum { BYTES = 2048 }; /* a row takes at most GPTVQ_I8_MAX_WIDTH */
  const gptvq_tile *tile = job->tile;
  _Alignas(64) int8_t codes[BYTES];
  _Alignas(64) float by_lane[GPTVQ_I8_MAX_WIDTH / GPTVQ_I8_SET * GPTVQ_I8_LANES];
  const gptvq_unit_codes_fn look_up = gptvq_unit_codes_avx2(tile);
  const size_t unit = job->sets * GPTVQ_I8_SET * tile->dim, most = look_up != NULL ? BYTES / unit : 1;
  const row_fn multiply = (tile->width == 256 ? full_rows : any_rows)[tile->dim / 2];
  const bool scaled = job->block_vectors != 0, shifts = by_shifts(job);
  block_scales blocks = {0};
  if (shifts) prepare_scales(job, &blocks);
  float *sums = job->sums;
  for (size_t row = 0, rows; row < tile->rows; row += rows) {
    rows = tile->rows - row < most ? tile->rows - row : most;
    if (look_up != NULL) look_up(tile, row, rows, codes);
    else gptvq_planar_codes_avx2(tile, row, job->sets * GPTVQ_I8_SET, codes);
    for (size_t r = 0; r < rows; r++, sums += GPTVQ_I8_LANES * job->tokens) {
      const uint8_t *block_codes = scaled ? tile->block_codes + (row + r) * tile->block_bytes : NULL;
      for (size_t h = 0; shifts && h < 2 * job->sets; h++)
        _mm256_store_ps(by_lane + 8 * h, look_up_scales(&blocks, block_codes, h));
      if (scaled && !shifts) gptvq_i8_lane_scales(job, row + r, by_lane);
      multiply(job, codes + r * unit, scaled ? by_lane : NULL, sums);
    }
  }
}

/* ---- codes from the tables into the products: one token, or up to 16 centroids ---- */

/* Units of other than 256 columns: the indices of up to AHEAD rows are spread before they are used, since
 * what was stored a moment ago in other pieces loads slowly. */
enum { AHEAD = 8, MAX_INDICES = 256, SPREAD = 3 * MAX_INDICES };

/* Set s of a unit times the activations of `tokens` tokens (a constant) onto the totals of both halves. The
 * unit has 256 columns (sets is 4 / dim), or the fields of its indices have been spread. */
GPTVQ_INLINE void multiply_set(const gptvq_table256 *table, const uint8_t *unit, const uint8_t *fields,
                               unsigned bits, unsigned dim, size_t s, size_t sets, const int8_t *x,
                               size_t stride, size_t tokens, __m256i totals[4][2]) {
  __m256i index[2], found[4][2];
  for (size_t half = 0; half < 2; half++)
    index[half] = fields == NULL ? gptvq_indices256(unit, bits, 256 / dim, 64 * s + 32 * half)
                                 : gptvq_join_fields256(fields, bits, MAX_INDICES, 64 * s + 32 * half);
  gptvq_look_up256(table, bits, dim, index, found);
#pragma GCC unroll 4
  for (unsigned e = 0; e < dim; e++)
#pragma GCC unroll 2
    for (size_t half = 0; half < 2; half++)
#pragma GCC unroll 4
      for (size_t t = 0; t < tokens; t++) {
        totals[t][half] =
            dot4(totals[t][half], found[e][half], load(x + t * stride + (e * sets + s) * 64 + 32 * half));
        if (tokens > 1) GPTVQ_KEEP(totals[t][half]);
      }
}

/* `tokens` tokens (a constant) from t on. At most 64 centroids; 128 or 256 of at most two components. `full`:
 * units of 256 columns, with or without block scales; else without. */
GPTVQ_INLINE void unit_tile(const gptvq_i8_tile *job, size_t t, unsigned bits, unsigned dim, int full,
                            int scaled, size_t tokens) {
  const gptvq_tile *tile = job->tile;
  const size_t n = full ? 256 / dim : tile->indices, sets = full ? 4 / dim : job->sets,
               unit_bytes = n / 8 * bits, stride = job->input_stride, step = job->tokens * GPTVQ_I8_LANES;
  const int8_t *x = job->x + t * stride;
  const float *scales = job->scales + t;
  gptvq_table256 table;
  gptvq_load_table256(tile->codebook, bits, dim, &table);
  block_scales blocks;
  if (scaled) prepare_scales(job, &blocks);
  _Alignas(32) uint8_t ahead[AHEAD * SPREAD];
  const uint8_t *unit = tile->units, *codes = tile->block_codes, *fields = NULL;
  float *sums = job->sums + t * GPTVQ_I8_LANES;
  for (size_t row = 0; row < tile->rows; row++, unit += unit_bytes, sums += step) {
    if (!full) fields = ahead + row % AHEAD * SPREAD;
    if (!full && row % AHEAD == 0)
      gptvq_spread_units_avx2(bits, unit, tile->rows - row < AHEAD ? tile->rows - row : AHEAD, n, MAX_INDICES,
                              ahead);
    __m256i totals[4][2];
    __m256 values[4][2];
#pragma GCC unroll 8
    for (size_t i = 0; i < 2 * tokens; i++)
      totals[i / 2][i % 2] = _mm256_setzero_si256(), values[i / 2][i % 2] = _mm256_setzero_ps();
#pragma GCC unroll 4
    for (size_t s = 0; s < sets; s++) {
      multiply_set(&table, unit, fields, bits, dim, s, sets, x, stride, tokens, totals);
      for (size_t half = 0; scaled && half < 2; half++) {
        const __m256 by_lane = look_up_scales(&blocks, codes, 2 * s + half);
#pragma GCC unroll 4
        for (size_t i = 0; i < tokens; i++) {
          values[i][half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(totals[i][half]), by_lane, values[i][half]);
          totals[i][half] = _mm256_setzero_si256();
        }
      }
    }
#pragma GCC unroll 8
    for (size_t i = 0; i < 2 * tokens; i++)
      add_sums(sums + 8 * i, scaled ? values[i / 2][i % 2] : _mm256_cvtepi32_ps(totals[i / 2][i % 2]),
               scales[i / 2]);
    if (scaled) codes += tile->block_bytes;
  }
}

/* 128 centroids or more of four components, whose activations are brought into their order. Units of 256
 * columns (`full`), or fewer without block scales. */
GPTVQ_INLINE void gather_tile(const gptvq_i8_tile *job, unsigned bits, int full, int scaled) {
  const gptvq_tile *tile = job->tile;
  const uint8_t *unit = tile->units, *codes = tile->block_codes;
  float *sums = job->sums;
  uint16_t room[64] = {0};
  block_scales blocks;
  if (scaled) prepare_scales(job, &blocks);
  __m256i x[2][4];
  for (size_t half = 0; half < 2; half++) {
    for (size_t e = 0; e < 4; e++) x[half][e] = load(job->x + 64 * e + 32 * half);
    gptvq_exchange_bytes(x[half]);
  }
  for (size_t row = tile->rows; row > 0; row--, unit += tile->unit_bytes, sums += GPTVQ_I8_LANES) {
    const void *indices = room;
    if (full) indices = gptvq_gather_indices(unit, bits, room);
    else gptvq_unpack_words_avx2(unit, tile->indices, tile->index_bits, room);
#pragma GCC unroll 2
    for (size_t half = 0; half < 2; half++) {
      __m256i total = _mm256_setzero_si256();
#pragma GCC unroll 4
      for (size_t j = 0; j < 4; j++)
        total =
            dot4(total, gptvq_gather8(tile->codebook, indices, full ? bits : 16, 32 * half + j), x[half][j]);
      __m256 value = _mm256_cvtepi32_ps(total);
      if (scaled) value = _mm256_fmadd_ps(value, look_up_scales(&blocks, codes, half), _mm256_setzero_ps());
      add_sums(sums + 8 * half, value, job->scales[0]);
    }
    if (scaled) codes += tile->block_bytes;
  }
}

/* Up to 16 centroids are looked up faster than codes go through memory: again for every four tokens. */
GPTVQ_INLINE void tokens_tile(const gptvq_i8_tile *job, unsigned bits, unsigned dim, int full, int scaled) {
  size_t t = 0;
  for (; bits <= 4 && t + 4 <= job->tokens; t += 4) unit_tile(job, t, bits, dim, full, scaled, 4);
  for (; bits <= 4 && t + 2 <= job->tokens; t += 2) unit_tile(job, t, bits, dim, full, scaled, 2);
  for (; t < job->tokens; t++) unit_tile(job, t, bits, dim, full, scaled, 1);
}

typedef void (*tile_fn)(const gptvq_i8_tile *job);
#define SHUFFLE(bits, dim) \
  static void full_##bits##_##dim(const gptvq_i8_tile *job) { \
    if (job->block_vectors != 0) tokens_tile(job, bits, dim, 1, 1); \
    else tokens_tile(job, bits, dim, 1, 0); \
  } \
  static void other_##bits##_##dim(const gptvq_i8_tile *job) { tokens_tile(job, bits, dim, 0, 0); }
GPTVQ_SHAPES_SHUFFLE(SHUFFLE)
#define GATHER(bits) \
  static void full_##bits##_4(const gptvq_i8_tile *job) { \
    if (job->block_vectors != 0) gather_tile(job, bits, 1, 1); \
    else gather_tile(job, bits, 1, 0); \
  }
GPTVQ_BITS_GATHER(GATHER)
static void other_4(const gptvq_i8_tile *job) { gather_tile(job, 16, 0, 0); }
#define FULL(bits, dim) GPTVQ_ENTRY(full, bits, dim)
#define FULL_4(bits) GPTVQ_ENTRY(full, bits, 4)
#define OTHER(bits, dim) GPTVQ_ENTRY(other, bits, dim)
#define OTHER_4(bits) [bits - 1][2] = other_4,
static const tile_fn full_tiles[12][3] = {GPTVQ_SHAPES_SHUFFLE(FULL) GPTVQ_BITS_GATHER(FULL_4)},
                     other_tiles[12][3] = {GPTVQ_SHAPES_SHUFFLE(OTHER) GPTVQ_BITS_GATHER(OTHER_4)};

static void i8_tile(const gptvq_i8_tile *job) {
  const gptvq_tile *tile = job->tile;
  const bool few = job->tokens == 1 || tile->index_bits <= 4, full = tile->width == 256;
  const tile_fn run = (full ? full_tiles : other_tiles)[tile->index_bits - 1][tile->dim / 2];
  const bool fits = full ? job->block_vectors == 0 || by_shifts(job)
                         : job->block_vectors == 0 && tile->indices <= (run == other_4 ? 64 : MAX_INDICES);
  if (run != NULL && few && fits) run(job);
  else any_tile(job);
}

static void i8_fold(const float *sums, size_t n, float *out) {
  for (size_t i = 0; i < n; i += 8) {
    __m256 rows[8];
#pragma GCC unroll 8
    for (size_t j = 0; j < 8; j++) { /* beyond the last row: that one again */
      const float *row = sums + (i + j < n ? i + j : n - 1) * GPTVQ_I8_LANES;
      rows[j] = _mm256_add_ps(_mm256_load_ps(row), _mm256_load_ps(row + 8));
    }
    float folded[8];
    _mm256_storeu_ps(i + 8 <= n ? out + i : folded, gptvq_fold8x8(rows));
    if (i + 8 > n) memcpy(out + i, folded, (n - i) * sizeof *out);
  }
}

/* ---- stripes of few rows: one call for all column groups ---- */

/* One group, `full` for 256 columns, onto the sums. */
GPTVQ_INLINE void add_group(const gptvq_i8_stripe *job, size_t g, const uint8_t *units, unsigned bits,
                            unsigned dim, int full, float *sums) {
  _Alignas(32) uint8_t ahead[AHEAD * SPREAD];
  const uint8_t *fields = NULL;
  const int8_t *x = job->x + g * job->group_codes;
  size_t n = 256 / dim, sets = 4 / dim;
  if (!full) {
    n = ((g + 1 == job->groups ? job->last_width : job->width) + dim - 1) / dim;
    n = (n + 7) / 8 * 8;
    sets = (n + 63) / 64;
    gptvq_spread_units_avx2(bits, units, job->rows, n, MAX_INDICES, ahead);
  }
  gptvq_table256 table;
  gptvq_load_table256(job->codebook + (g * dim << bits), bits, dim, &table);
  const float scale = gptvq_bf16_to_float(job->codebook_scales[g]) / 127.0f * job->x_scales[g];
  for (size_t r = 0; r < job->rows; r++) {
    __m256i totals[4][2] = {{_mm256_setzero_si256(), _mm256_setzero_si256()}};
    if (!full) fields = ahead + r * SPREAD;
    for (size_t s = 0; s < sets; s++)
      multiply_set(&table, units + r * (n / 8 * bits), fields, bits, dim, s, sets, x, 0, 1, totals);
    for (size_t half = 0; half < 2; half++)
      add_sums(sums + r * GPTVQ_I8_LANES + 8 * half, _mm256_cvtepi32_ps(totals[0][half]), scale);
  }
}

/* Groups of 256 columns come first. */
GPTVQ_INLINE void multiply_stripe(const gptvq_i8_stripe *job, unsigned bits, unsigned dim) {
  _Alignas(64) float sums[AHEAD * GPTVQ_I8_LANES];
  const size_t full = job->width != 256 ? 0 : job->groups - (job->last_width != 256);
  memset(sums, 0, job->rows * GPTVQ_I8_LANES * sizeof *sums);
  const uint8_t *units = job->units;
  size_t g = 0;
  for (; g < full; g++, units += job->unit_step) add_group(job, g, units, bits, dim, 1, sums);
  for (; g < job->groups; g++, units += job->unit_step)
    add_group(job, g, g + 1 == job->groups ? job->last_units : units, bits, dim, 0, sums);
  i8_fold(sums, job->rows, job->y);
}

#define STRIPE(bits, dim) \
  static void stripe_##bits##_##dim(const gptvq_i8_stripe *job) { multiply_stripe(job, bits, dim); }
GPTVQ_SHAPES_4(STRIPE)
#define STRIPE_ENTRY(bits, dim) GPTVQ_ENTRY(stripe, bits, dim)
static const gptvq_i8_stripe_fn stripes[4][3] = {GPTVQ_SHAPES_4(STRIPE_ENTRY)};

static gptvq_i8_stripe_fn i8_stripe(const gptvq_packed_shape *shape) {
  const size_t width = shape->cols < shape->group_cols ? shape->cols : shape->group_cols;
  if (shape->scale_block != 0 || shape->index_bits > 4 || width > MAX_INDICES * shape->dim) return NULL;
  return stripes[shape->index_bits - 1][shape->dim / 2];
}

void gptvq_kernels_init_i8_avx2(gptvq_kernel_table *table) {
  table->i8_tile = i8_tile;
  table->i8_tokens = 16;
  table->i8_tokens_other = 8;
  table->i8_fold = i8_fold;
  table->i8_stripe = i8_stripe;
}
