/* int8 codes of packed units with AVX2: by component for integer products, and in column order. Up to 64 centroids are looked up by byte shuffles;
 * larger codebooks of four components are read centroid by centroid, of fewer components searched 16 entries at a time. */
#include "kernels/x86/codes_avx2.h"
#include "kernels/multi/row_values.h"
#include "kernels/x86/lookup_avx2.h"
#include "kernels/x86/x86.h"

/* ---- by component ---- */

GPTVQ_INLINE void store(int8_t *to, __m256i v) { _mm256_store_si256((void *)to, v); }

/* 2^bits <= 64 centroids */
GPTVQ_INLINE void shuffle_units(const gptvq_tile *tile, size_t row, size_t rows, int8_t *codes, unsigned bits, unsigned dim) {
  const size_t n = 256 / dim, unit_bytes = n / 8 * bits;
  const uint8_t *unit = tile->units + row * unit_bytes;
  gptvq_table256 table;
  gptvq_load_table256(tile->codebook, bits, dim, &table);
  for (; rows > 0; rows--, unit += unit_bytes, codes += 256)
#pragma GCC unroll 8
    for (size_t at = 0; at < n; at += 32) {
      __m256i index = gptvq_indices256(unit, bits, n, at);
      for (unsigned e = 0; e < dim; e++) store(codes + e * n + at, gptvq_look_up256(&table, bits, e, index));
    }
}

/* 128 or 256 centroids, 64 indices at a time. A byte whose top bit is set finds 0: index − 16 t finds something in table t where it has not
 * become negative. Tables hold entry xor the entry 16 below, so that what is found adds up to the entry. Indices from 128 on have
 * tables of their own. */
GPTVQ_INLINE void search_tables(const __m256i *tables, unsigned bits, const __m256i index[2], __m256i found[2]) {
  const __m256i step = _mm256_set1_epi8(-16), seven = _mm256_set1_epi8(127);
  __m256i at[2], low[2], high[2];
  for (size_t i = 0; i < 2; i++) {
    at[i] = _mm256_and_si256(index[i], seven);
    low[i] = _mm256_shuffle_epi8(tables[0], at[i]);
    if (bits == 8) high[i] = _mm256_shuffle_epi8(tables[8], at[i]);
  }
#pragma GCC unroll 1 /* unrolled, the compiler adds up in an order that needs too many registers */
  for (size_t t = 1; t < 8; t++)
    for (size_t i = 0; i < 2; i++) {
      at[i] = _mm256_add_epi8(at[i], step);
      low[i] = _mm256_xor_si256(low[i], _mm256_shuffle_epi8(tables[t], at[i]));
      if (bits == 8) high[i] = _mm256_xor_si256(high[i], _mm256_shuffle_epi8(tables[8 + t], at[i]));
    }
  for (size_t i = 0; i < 2; i++) found[i] = bits == 8 ? _mm256_blendv_epi8(low[i], high[i], index[i]) : low[i];
}

GPTVQ_INLINE void search_units(const gptvq_tile *tile, size_t row, size_t rows, int8_t *codes, unsigned bits, unsigned dim) {
  const size_t n = 256 / dim, unit_bytes = n / 8 * bits;
  const uint8_t *unit = tile->units + row * unit_bytes;
  gptvq_table256 table;
  gptvq_load_table256(tile->codebook, bits, dim, &table);
  for (unsigned e = 0; e < dim; e++)
    for (size_t t = ((size_t)1 << (bits - 4)) - 1; t > 0; t--)
      if (t != 8) table.part[e][t] = _mm256_xor_si256(table.part[e][t], table.part[e][t - 1]);
  for (; rows > 0; rows--, unit += unit_bytes, codes += 256)
#pragma GCC unroll 4
    for (size_t at = 0; at < n; at += 64) {
      const __m256i index[2] = {gptvq_indices256(unit, bits, n, at), gptvq_indices256(unit, bits, n, at + 32)};
      for (unsigned e = 0; e < dim; e++) {
        __m256i found[2];
        search_tables(table.part[e], bits, index, found);
        store(codes + e * n + at, found[0]);
        store(codes + e * n + at + 32, found[1]);
      }
    }
}

GPTVQ_INLINE int centroid4(const int8_t *codebook, size_t index) {
  int four;
  memcpy(&four, codebook + 4 * index, 4);
  return four;
}

/* Centroids of every fourth index from i on. */
GPTVQ_INLINE __m128i load_four(const int8_t *codebook, const void *indices, size_t i, int wide) {
#define AT(j) centroid4(codebook, wide ? ((const uint16_t *)indices)[i + (j)] : ((const uint8_t *)indices)[i + (j)])
  __m128i v = _mm_cvtsi32_si128(AT(0));
  v = _mm_insert_epi32(v, AT(4), 1);
  v = _mm_insert_epi32(v, AT(8), 2);
  return _mm_insert_epi32(v, AT(12), 3);
#undef AT
}

/* dim 4, centroids one by one: 32 of them in four registers, of which j has those of the indices 4 L + j; then bytes are exchanged. */
GPTVQ_INLINE void load_units(const gptvq_tile *tile, size_t row, size_t rows, int8_t *codes, int wide) {
  const int8_t *codebook = tile->codebook;
  uint16_t words[64];
  uint8_t bytes[64];
  for (; rows > 0; rows--, row++, codes += 256) {
    const uint8_t *unit = tile->units + row * tile->unit_bytes;
    const void *indices = unit;
    if (wide) gptvq_unpack_words_avx2(unit, 64, tile->index_bits, words), indices = words;
    else if (tile->index_bits != 8) gptvq_unpack_bytes_avx2(unit, 64, tile->index_bits, bytes), indices = bytes;
    for (size_t at = 0; at < 64; at += 32) {
      __m256i v[4], w[4];
#pragma GCC unroll 4
      for (size_t j = 0; j < 4; j++)
        v[j] = _mm256_inserti128_si256(_mm256_castsi128_si256(load_four(codebook, indices, at + j, wide)),
                                       load_four(codebook, indices, at + 16 + j, wide), 1);
      for (size_t h = 0; h < 4; h += 2) {
        w[h] = _mm256_unpacklo_epi8(v[h], v[h + 1]);
        w[h + 1] = _mm256_unpackhi_epi8(v[h], v[h + 1]);
      }
      for (size_t h = 0; h < 2; h++) { /* dwords: component 0 … 3 of four indices of one lane */
        v[2 * h] = _mm256_unpacklo_epi16(w[h], w[2 + h]);
        v[2 * h + 1] = _mm256_unpackhi_epi16(w[h], w[2 + h]);
      }
      for (size_t h = 0; h < 2; h++) {
        w[2 * h] = _mm256_unpacklo_epi32(v[2 * h], v[2 * h + 1]);
        w[2 * h + 1] = _mm256_unpackhi_epi32(v[2 * h], v[2 * h + 1]);
      }
      store(codes + at, _mm256_unpacklo_epi64(w[0], w[2]));
      store(codes + 64 + at, _mm256_unpackhi_epi64(w[0], w[2]));
      store(codes + 128 + at, _mm256_unpacklo_epi64(w[1], w[3]));
      store(codes + 192 + at, _mm256_unpackhi_epi64(w[1], w[3]));
    }
  }
}

#define UNITS(how, bits, dim)                                                                                        \
  static void how##_##bits##_##dim(const gptvq_tile *tile, size_t row, size_t rows, int8_t *codes) {                 \
    how##_units(tile, row, rows, codes, bits, dim);                                                                  \
  }
#define SHUFFLE(bits) UNITS(shuffle, bits, 1) UNITS(shuffle, bits, 2) UNITS(shuffle, bits, 4)
SHUFFLE(1) SHUFFLE(2) SHUFFLE(3) SHUFFLE(4) SHUFFLE(5) SHUFFLE(6)
UNITS(search, 7, 1) UNITS(search, 7, 2) UNITS(search, 8, 1) UNITS(search, 8, 2)
static void load_bytes(const gptvq_tile *tile, size_t row, size_t rows, int8_t *codes) { load_units(tile, row, rows, codes, 0); }
static void load_words(const gptvq_tile *tile, size_t row, size_t rows, int8_t *codes) { load_units(tile, row, rows, codes, 1); }

#define LIST(bits) {shuffle_##bits##_1, shuffle_##bits##_2, shuffle_##bits##_4}
static const gptvq_unit_codes_fn functions[8][3] = {LIST(1), LIST(2), LIST(3), LIST(4), LIST(5), LIST(6),
                                                    {search_7_1, search_7_2, load_bytes}, {search_8_1, search_8_2, load_bytes}};

gptvq_unit_codes_fn gptvq_unit_codes_avx2(const gptvq_tile *tile) {
  if (tile->width != 256) return NULL;
  if (tile->index_bits > 8) return tile->dim == 4 ? load_words : NULL;
  return functions[tile->index_bits - 1][tile->dim / 2];
}

/* ---- in column order ---- */

/* planes of a unit of 256 columns to column order */
GPTVQ_INLINE void interleave(const int8_t *planes, unsigned dim, int8_t *codes) {
  const size_t n = 256 / dim;
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
  enum { ROWS = 8 };
  _Alignas(32) int8_t planes[ROWS * 256];
  const gptvq_unit_codes_fn look_up = gptvq_unit_codes_avx2(tile);
  /* centroids of many bits are as fast read whole */
  if (look_up == NULL || (tile->dim == 4 && tile->index_bits > 6)) {
    gptvq_tile_codes_avx2(tile, codes, stride);
    return;
  }
  for (size_t row = 0; row < tile->rows; row += ROWS) {
    const size_t rows = tile->rows - row < ROWS ? tile->rows - row : ROWS;
    look_up(tile, row, rows, planes);
    for (size_t r = 0; r < rows; r++, codes += stride) {
      if (tile->dim == 1) memcpy(codes, planes + 256 * r, 256);
      else if (tile->dim == 2) interleave(planes + 256 * r, 2, codes);
      else interleave(planes + 256 * r, 4, codes);
    }
  }
}

void gptvq_kernels_init_codes_avx2(gptvq_kernel_table *table) { table->tile_codes = tile_codes; }
