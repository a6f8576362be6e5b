/* Packed rows × int8 activations with AVX2. Codes are looked up for some rows at a time into the first-level cache and multiplied with all tokens
 * as |w| · (sign(w) x), which vpmaddubsw takes and which cannot overflow: 2 · 128 · 127 < 2^15. One token without block scales has its products
 * made as codes come out of the tables. */
#include "kernels/multi/row_values.h"
#include "kernels/ref/ref.h"
#include "kernels/x86/codes_avx2.h"
#include "kernels/x86/fold_avx2.h"
#include "kernels/x86/gather_avx2.h"
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

/* ---- codes in memory, any number of tokens ---- */

/* One row times `tokens` (a constant) tokens from t on. */
GPTVQ_INLINE void multiply_tokens(const gptvq_i8_tile *job, const int8_t *codes, const float *by_lane, size_t sets, unsigned dim, size_t t,
                                  size_t tokens, float *sums) {
  const size_t plane = sets * GPTVQ_I8_SET;
  const int8_t *x = job->x + t * job->input_stride;
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
    for (size_t i = 0; i < tokens; i++) totals[i] = dot4(totals[i], w, load(x + i * job->input_stride + at + e * plane));
      }
#pragma GCC unroll 4
      for (size_t i = 0; by_lane != NULL && i < tokens; i++) {
        values[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(totals[i]), _mm256_loadu_ps(by_lane + s * GPTVQ_I8_LANES + 8 * half), values[i]);
        totals[i] = _mm256_setzero_si256();
      }
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < tokens; i++)
      add_sums(sums + i * GPTVQ_I8_LANES + 8 * half, by_lane != NULL ? values[i] : _mm256_cvtepi32_ps(totals[i]), job->scales[t + i]);
  }
}

GPTVQ_INLINE void multiply_row(const gptvq_i8_tile *job, const int8_t *codes, const float *by_lane, size_t sets, unsigned dim, float *sums) {
  size_t t = 0;
  for (; t + 4 <= job->tokens; t += 4) multiply_tokens(job, codes, by_lane, sets, dim, t, 4, sums + t * GPTVQ_I8_LANES);
  for (; t < job->tokens; t++) multiply_tokens(job, codes, by_lane, sets, dim, t, 1, sums + t * GPTVQ_I8_LANES);
}

typedef void (*row_fn)(const gptvq_i8_tile *job, const int8_t *codes, const float *by_lane, float *sums);
#define ROW(dim)                                                                                                             \
  static void full_##dim(const gptvq_i8_tile *job, const int8_t *codes, const float *by_lane, float *sums) {                 \
    if (by_lane != NULL) multiply_row(job, codes, by_lane, 4 / dim, dim, sums);                                              \
    else multiply_row(job, codes, NULL, 4 / dim, dim, sums);                                                                 \
  }                                                                                                                          \
  static void any_##dim(const gptvq_i8_tile *job, const int8_t *codes, const float *by_lane, float *sums) {                  \
    multiply_row(job, codes, by_lane, job->sets, dim, sums);                                                                 \
  }
ROW(1) ROW(2) ROW(4)
static const row_fn full_rows[3] = {full_1, full_2, full_4}, any_rows[3] = {any_1, any_2, any_4};

static void any_tile(const gptvq_i8_tile *job) {
  enum { ROWS = 8 };
  const gptvq_tile *tile = job->tile;
  _Alignas(64) int8_t codes[ROWS * 256 > GPTVQ_I8_MAX_WIDTH + 4 * GPTVQ_I8_SET ? ROWS * 256 : GPTVQ_I8_MAX_WIDTH + 4 * GPTVQ_I8_SET];
  _Alignas(64) float by_lane[GPTVQ_I8_MAX_WIDTH / GPTVQ_I8_SET * GPTVQ_I8_LANES];
  const gptvq_unit_codes_fn look_up = gptvq_unit_codes_avx2(tile);
  const size_t most = look_up != NULL ? ROWS : 1;
  const row_fn multiply = (look_up != NULL ? full_rows : any_rows)[tile->dim / 2];
  float *sums = job->sums;
  for (size_t row = 0, rows; row < tile->rows; row += rows) {
    rows = tile->rows - row < most ? tile->rows - row : most;
    if (look_up != NULL) look_up(tile, row, rows, codes);
    else gptvq_planar_codes_avx2(tile, row, job->sets * GPTVQ_I8_SET, codes);
    for (size_t r = 0; r < rows; r++, sums += GPTVQ_I8_LANES * job->tokens) {
      if (job->block_vectors != 0) gptvq_i8_lane_scales(job, row + r, by_lane);
      multiply(job, codes + 256 * r, job->block_vectors != 0 ? by_lane : NULL, sums);
    }
  }
}

/* ---- units of 256 columns, one token, no block scales ---- */

/* At most 64 centroids; 128 or 256 of at most two components. */
GPTVQ_INLINE void full_tile(const gptvq_i8_tile *job, unsigned bits, unsigned dim) {
  const gptvq_tile *tile = job->tile;
  const size_t n = 256 / dim, sets = n / 64;
  gptvq_table256 table;
  gptvq_load_table256(tile->codebook, bits, dim, &table);
  if (bits > 6) gptvq_prepare_search256(&table, bits, dim);
  const uint8_t *unit = tile->units;
  float *sums = job->sums;
  for (size_t row = tile->rows; row > 0; row--, unit += n / 8 * bits, sums += GPTVQ_I8_LANES) {
    __m256i totals[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    for (size_t s = 0; s < sets; s++) {
      const __m256i index[2] = {gptvq_indices256(unit, bits, n, 64 * s), gptvq_indices256(unit, bits, n, 64 * s + 32)};
      __m256i found[2][2];
      if (bits > 6) gptvq_search256(&table, bits, dim, index, found);
      for (size_t half = 0; half < 2; half++)
        for (unsigned e = 0; e < dim; e++)
          totals[half] = dot4(totals[half], bits > 6 ? found[e][half] : gptvq_look_up256(&table, bits, e, index[half]),
                              load(job->x + (e * sets + s) * 64 + 32 * half));
    }
    for (size_t half = 0; half < 2; half++) add_sums(sums + 8 * half, _mm256_cvtepi32_ps(totals[half]), job->scales[0]);
  }
}

/* 128 centroids or more of four components, whose activations are brought into their order. */
GPTVQ_INLINE void gather_tile(const gptvq_i8_tile *job, unsigned bits) {
  const gptvq_tile *tile = job->tile;
  const uint8_t *unit = tile->units;
  float *sums = job->sums;
  uint16_t room[64];
  __m256i x[2][4];
  for (size_t half = 0; half < 2; half++) {
    for (size_t e = 0; e < 4; e++) x[half][e] = load(job->x + 64 * e + 32 * half);
    gptvq_exchange_bytes(x[half]);
  }
  for (size_t row = tile->rows; row > 0; row--, unit += 8 * bits, sums += GPTVQ_I8_LANES) {
    const void *indices = gptvq_gather_indices(unit, bits, room);
#pragma GCC unroll 2
    for (size_t half = 0; half < 2; half++) {
      __m256i total = _mm256_setzero_si256();
#pragma GCC unroll 4
      for (size_t j = 0; j < 4; j++) total = dot4(total, gptvq_gather8(tile->codebook, indices, bits, 32 * half + j), x[half][j]);
      add_sums(sums + 8 * half, _mm256_cvtepi32_ps(total), job->scales[0]);
    }
  }
}

typedef void (*tile_fn)(const gptvq_i8_tile *job);
#define TILE(bits, dim) \
  static void tile_##bits##_##dim(const gptvq_i8_tile *job) { full_tile(job, bits, dim); }
#define TILES(bits) TILE(bits, 1) TILE(bits, 2) TILE(bits, 4)
TILES(1) TILES(2) TILES(3) TILES(4) TILES(5) TILES(6) TILE(7, 1) TILE(7, 2) TILE(8, 1) TILE(8, 2)
#define GATHER(bits) \
  static void gather_##bits(const gptvq_i8_tile *job) { gather_tile(job, bits); }
GATHER(7) GATHER(8) GATHER(9) GATHER(10) GATHER(11) GATHER(12)
#define LIST(bits) {tile_##bits##_1, tile_##bits##_2, tile_##bits##_4}
static const tile_fn full_tiles[12][3] = {
    LIST(1), LIST(2), LIST(3), LIST(4), LIST(5), LIST(6), {tile_7_1, tile_7_2, gather_7}, {tile_8_1, tile_8_2, gather_8},
    {NULL, NULL, gather_9}, {NULL, NULL, gather_10}, {NULL, NULL, gather_11}, {NULL, NULL, gather_12}};

static void i8_tile(const gptvq_i8_tile *job) {
  const gptvq_tile *tile = job->tile;
  const tile_fn run = full_tiles[tile->index_bits - 1][tile->dim / 2];
  if (run != NULL && tile->width == 256 && job->tokens == 1 && job->block_vectors == 0) run(job);
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

void gptvq_kernels_init_i8_avx2(gptvq_kernel_table *table) {
  table->i8_tile = i8_tile;
  table->i8_fold = i8_fold;
}
