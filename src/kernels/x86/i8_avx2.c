/* Packed rows × int8 activations, and codes in column order, with AVX2. A row's indices are unpacked to bytes, looked up 32 at a time
 * in 16-entry shuffle tables (1, 2 or 4 of them; larger codebooks: one by one), and multiplied as |w| · (sign(w) x), which
 * vpmaddubsw takes and which cannot overflow: 2 · 128 · 127 < 2^15. */
#include "kernels/multi/row_values.h"
#include "kernels/ref/ref.h"
#include "kernels/x86/x86.h"

#include <immintrin.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

typedef struct table256 {
  __m256i part[4][4]; /* [component][16 entries each, in both halves] */
} table256;

/* k <= 64 entries; shorter tables are repeated, so that index bits above `bits` do not matter within 16 entries */
static void load_table(const int8_t *codebook, unsigned bits, unsigned dim, table256 *table) {
  int8_t plane[64];
  const unsigned k = 1u << bits, entries = k < 16 ? 16 : k;
  for (unsigned e = 0; e < dim; e++) {
    for (unsigned i = 0; i < entries; i++) plane[i] = codebook[(i & (k - 1)) * dim + e];
    for (unsigned i = 0; i < entries / 16; i++)
      table->part[e][i] = _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)(plane + 16 * i)));
  }
}

INLINE __m256i look_up(const __m256i *part, unsigned bits, __m256i index) {
  __m256i low = _mm256_shuffle_epi8(part[0], _mm256_and_si256(index, _mm256_set1_epi8(15)));
  if (bits <= 4) return low;
  __m256i in = _mm256_and_si256(index, _mm256_set1_epi8(15));
  __m256i bit4 = _mm256_slli_epi16(index, 3), bit5 = _mm256_slli_epi16(index, 2); /* to the top of each byte */
  low = _mm256_blendv_epi8(low, _mm256_shuffle_epi8(part[1], in), bit4);
  if (bits == 5) return low;
  __m256i high = _mm256_blendv_epi8(_mm256_shuffle_epi8(part[2], in), _mm256_shuffle_epi8(part[3], in), bit4);
  return _mm256_blendv_epi8(low, high, bit5);
}

/* planar codes of one unit, n a multiple of 64 */
INLINE void look_up_unit(const table256 *table, unsigned bits, unsigned dim, const uint8_t *indices, size_t n,
                         int8_t *codes) {
  for (size_t i = 0; i < n; i += 32) {
    __m256i index = _mm256_load_si256((const void *)(indices + i));
    for (unsigned e = 0; e < dim; e++)
      _mm256_store_si256((void *)(codes + e * n + i), look_up(table->part[e], bits, index));
  }
}

typedef void (*look_up_fn)(const table256 *table, const uint8_t *indices, size_t n, int8_t *codes);
#define LOOK_UP(parts, bits, dim)                                                                                    \
  static void look_up_##parts##_##dim(const table256 *table, const uint8_t *indices, size_t n, int8_t *codes) {      \
    look_up_unit(table, bits, dim, indices, n, codes);                                                               \
  }
#define LOOK_UPS(parts, bits) LOOK_UP(parts, bits, 1) LOOK_UP(parts, bits, 2) LOOK_UP(parts, bits, 4)
LOOK_UPS(1, 4) LOOK_UPS(2, 5) LOOK_UPS(4, 6)

static look_up_fn choose(unsigned bits, unsigned dim) {
  static const look_up_fn functions[3][3] = {{look_up_1_1, look_up_1_2, look_up_1_4},
                                             {look_up_2_1, look_up_2_2, look_up_2_4},
                                             {look_up_4_1, look_up_4_2, look_up_4_4}};
  return functions[bits <= 4 ? 0 : bits - 4][dim / 2];
}

static bool by_shuffles(const gptvq_tile *tile) { return tile->index_bits <= 6 && tile->indices % 64 == 0; }

INLINE __m256i load(const int8_t *p) { return _mm256_load_si256((const void *)p); }

/* sum + the products of four neighbouring bytes */
INLINE __m256i dot4(__m256i sum, __m256i w, __m256i q) {
  __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(q, w));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

INLINE void add_token(const gptvq_i8_tile *job, const int8_t *codes, const float *by_lane, size_t t, unsigned dim,
                      float *sums) {
  const size_t plane = job->sets * GPTVQ_I8_SET;
  const int8_t *x = job->x + t * job->input_stride;
  const __m256 scale = _mm256_set1_ps(job->scales[t]);
  for (size_t half = 0; half < 2; half++, sums += 8) {
    __m256i all = _mm256_setzero_si256();
    __m256 value = _mm256_setzero_ps();
    for (size_t s = 0; s < job->sets; s++) {
      const size_t at = s * GPTVQ_I8_SET + 32 * half;
      __m256i sum = _mm256_setzero_si256();
      for (unsigned e = 0; e < dim; e++) sum = dot4(sum, load(codes + at + e * plane), load(x + at + e * plane));
      if (by_lane != NULL)
        value = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_load_ps(by_lane + s * GPTVQ_I8_LANES + 8 * half), value);
      else all = _mm256_add_epi32(all, sum);
    }
    if (by_lane == NULL) value = _mm256_cvtepi32_ps(all);
    _mm256_store_ps(sums, _mm256_fmadd_ps(value, scale, _mm256_load_ps(sums)));
  }
}

/* Indices at … at + 31 of a unit of n; the fields' bytes must be multiples of 32. Bits above `bits` are garbage. */
INLINE __m256i indices32(const uint8_t *unit, unsigned bits, size_t n, size_t at) {
  __m256i index = _mm256_setzero_si256();
  unsigned shift = 0;
  for (unsigned f = 8; f >= 1; f /= 2) {
    if (!(bits & f)) continue;
    const size_t size = n / 8 * f;
    const int move = (int)(f * (at / size)) - (int)shift;
    __m256i v = _mm256_loadu_si256((const void *)(unit + at % size));
    if (move > 0) v = _mm256_srli_epi16(v, move);
    if (move < 0) v = _mm256_slli_epi16(v, -move);
    if (shift == 0) {
      index = v;
    } else {
      const __m256i low = _mm256_set1_epi8((char)((1 << shift) - 1));
      index = _mm256_or_si256(_mm256_and_si256(low, index), _mm256_andnot_si256(low, v));
    }
    unit += size;
    shift += f;
  }
  return index;
}

/* Units of 256 columns, one token, no block scales: codes go from the tables into the products. */
INLINE void full_tile(const gptvq_i8_tile *job, unsigned bits, unsigned dim) {
  const gptvq_tile *tile = job->tile;
  const size_t n = 256 / dim, sets = n / 64;
  table256 table;
  load_table(tile->codebook, bits, dim, &table);
  const uint8_t *unit = tile->units;
  const __m256 scale = _mm256_set1_ps(job->scales[0]);
  float *sums = job->sums;
  for (size_t row = tile->rows; row > 0; row--, unit += n / 8 * bits) {
    __m256i totals[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    for (size_t s = 0; s < sets; s++)
      for (size_t half = 0; half < 2; half++) {
        __m256i index = indices32(unit, bits, n, 64 * s + 32 * half);
        for (unsigned e = 0; e < dim; e++)
          totals[half] = dot4(totals[half], look_up(table.part[e], bits, index), load(job->x + (e * sets + s) * 64 + 32 * half));
      }
    for (size_t half = 0; half < 2; half++, sums += 8)
      _mm256_store_ps(sums, _mm256_fmadd_ps(_mm256_cvtepi32_ps(totals[half]), scale, _mm256_load_ps(sums)));
  }
}

#define TILE(bits, dim) \
  static void tile_##bits##_##dim(const gptvq_i8_tile *job) { full_tile(job, bits, dim); }
TILE(1, 1) TILE(2, 1) TILE(3, 1) TILE(4, 1) TILE(5, 1) TILE(6, 1) TILE(2, 2) TILE(4, 2) TILE(6, 2) TILE(4, 4)

/* NULL: fields of fewer than 32 bytes */
static void (*const full_tiles[6][3])(const gptvq_i8_tile *) = {{tile_1_1, NULL, NULL},     {tile_2_1, tile_2_2, NULL},
                                                                {tile_3_1, NULL, NULL},     {tile_4_1, tile_4_2, tile_4_4},
                                                                {tile_5_1, NULL, NULL},     {tile_6_1, tile_6_2, NULL}};

static void i8_tile(const gptvq_i8_tile *job) {
  const gptvq_tile *tile = job->tile;
  if (tile->index_bits <= 6 && tile->width == 256 && job->tokens == 1 && job->block_vectors == 0 &&
      full_tiles[tile->index_bits - 1][tile->dim / 2] != NULL) {
    full_tiles[tile->index_bits - 1][tile->dim / 2](job);
    return;
  }
  _Alignas(64) uint8_t indices[GPTVQ_I8_MAX_WIDTH];
  _Alignas(64) int8_t codes[GPTVQ_I8_MAX_WIDTH + 4 * GPTVQ_I8_SET];
  _Alignas(64) float by_lane[GPTVQ_I8_MAX_WIDTH / GPTVQ_I8_SET * GPTVQ_I8_LANES];
  const bool shuffles = by_shuffles(tile);
  const look_up_fn look_up_row = shuffles ? choose(tile->index_bits, tile->dim) : NULL;
  table256 table;
  if (shuffles) load_table(tile->codebook, tile->index_bits, tile->dim, &table);
  float *sums = job->sums;
  for (size_t row = 0; row < tile->rows; row++) {
    if (shuffles) {
      gptvq_unpack_bytes_avx2(tile->units + row * tile->unit_bytes, tile->indices, tile->index_bits, indices);
      look_up_row(&table, indices, tile->indices, codes);
    } else {
      gptvq_planar_codes_avx2(tile, row, job->sets * GPTVQ_I8_SET, codes);
    }
    if (job->block_vectors != 0) gptvq_i8_lane_scales(job, row, by_lane);
    const float *scales = job->block_vectors != 0 ? by_lane : NULL;
    for (size_t t = 0; t < job->tokens; t++, sums += GPTVQ_I8_LANES) {
      if (tile->dim == 1) add_token(job, codes, scales, t, 1, sums);
      else if (tile->dim == 2) add_token(job, codes, scales, t, 2, sums);
      else add_token(job, codes, scales, t, 4, sums);
    }
  }
}

/* planes to column order: n indices */
static void interleave(const int8_t *planes, size_t n, unsigned dim, int8_t *codes) {
  if (dim == 1) {
    memcpy(codes, planes, n);
    return;
  }
  for (size_t i = 0; i < n; i += 32, codes += 32 * dim) {
    __m256i w[4], v[4];
    for (unsigned e = 0; e < dim; e++) w[e] = _mm256_load_si256((const void *)(planes + e * n + i));
    if (dim == 2) {
      v[0] = _mm256_unpacklo_epi8(w[0], w[1]);
      v[1] = _mm256_unpackhi_epi8(w[0], w[1]);
    } else {
      __m256i a = _mm256_unpacklo_epi8(w[0], w[1]), b = _mm256_unpackhi_epi8(w[0], w[1]);
      __m256i c = _mm256_unpacklo_epi8(w[2], w[3]), d = _mm256_unpackhi_epi8(w[2], w[3]);
      v[0] = _mm256_unpacklo_epi16(a, c);
      v[1] = _mm256_unpackhi_epi16(a, c);
      v[2] = _mm256_unpacklo_epi16(b, d);
      v[3] = _mm256_unpackhi_epi16(b, d);
    }
    for (unsigned j = 0; j < dim; j++) {
      _mm_storeu_si128((void *)(codes + 16 * j), _mm256_castsi256_si128(v[j]));
      _mm_storeu_si128((void *)(codes + 16 * (dim + j)), _mm256_extracti128_si256(v[j], 1));
    }
  }
}

static void tile_codes(const gptvq_tile *tile, int8_t *codes, size_t stride) {
  if (!by_shuffles(tile)) {
    gptvq_tile_codes_avx2(tile, codes, stride);
    return;
  }
  _Alignas(64) uint8_t indices[GPTVQ_TILE_MAX_WIDTH];
  _Alignas(64) int8_t planes[GPTVQ_TILE_CODES];
  const look_up_fn look_up_row = choose(tile->index_bits, tile->dim);
  table256 table;
  load_table(tile->codebook, tile->index_bits, tile->dim, &table);
  for (size_t row = 0; row < tile->rows; row++, codes += stride) {
    gptvq_unpack_bytes_avx2(tile->units + row * tile->unit_bytes, tile->indices, tile->index_bits, indices);
    look_up_row(&table, indices, tile->indices, planes);
    interleave(planes, tile->indices, tile->dim, codes);
  }
}

void gptvq_kernels_init_i8_avx2(gptvq_kernel_table *table) {
  table->i8_tile = i8_tile;
  table->tile_codes = tile_codes;
}
