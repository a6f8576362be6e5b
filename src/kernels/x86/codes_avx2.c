/* int8 codes of packed units with AVX2: by component for integer products, and in column order. Up to 64
 * centroids are looked up by byte shuffles; larger codebooks of four components are read centroid by
 * centroid, those of fewer components searched 16 entries at a time. */
#include "kernels/x86/codes_avx2.h"
#include "kernels/multi/row_values.h"
#include "kernels/x86/gather_avx2.h"
#include "kernels/x86/x86.h"

/* ---- by component ---- */

/* 2^bits <= 64 centroids, or 128 or 256 of at most two components; `full`: units of 256 columns */
GPTVQ_INLINE void shuffle_units(const gptvq_tile *tile, size_t row, size_t rows, int8_t *codes, unsigned bits,
                                unsigned dim, int full) {
  const size_t n = full ? 256 / dim : tile->indices, unit_bytes = n / 8 * bits;
  const uint8_t *unit = tile->units + row * unit_bytes;
  _Alignas(32) uint8_t bytes[GPTVQ_TILE_MAX_WIDTH];
  gptvq_table256 table;
  gptvq_load_table256(tile->codebook, bits, dim, &table);
  for (; rows > 0; rows--, unit += unit_bytes, codes += dim * n) {
    if (!full) gptvq_unpack_bytes_avx2(unit, n, bits, bytes);
    for (size_t at = 0; at < n; at += 64) {
      __m256i index[2], found[4][2];
      for (size_t i = 0; i < 2; i++)
        index[i] = full ? gptvq_indices256(unit, bits, 256 / dim, at + 32 * i)
                        : _mm256_load_si256((const void *)(bytes + at + 32 * i));
      gptvq_look_up256(&table, bits, dim, index, found);
      for (unsigned e = 0; e < dim; e++)
        for (size_t i = 0; i < 2; i++) _mm256_store_si256((void *)(codes + e * n + at + 32 * i), found[e][i]);
    }
  }
}

/* 128 centroids or more, dim 4 */
GPTVQ_INLINE void gather_units(const gptvq_tile *tile, size_t row, size_t rows, int8_t *codes,
                               unsigned bits) {
  const uint8_t *unit = tile->units + row * 8 * bits;
  uint16_t room[64];
  for (; rows > 0; rows--, unit += 8 * bits, codes += 256) {
    const void *indices = gptvq_gather_indices(unit, bits, room);
    for (size_t at = 0; at < 64; at += 32) {
      __m256i v[4];
#pragma GCC unroll 4
      for (size_t j = 0; j < 4; j++) v[j] = gptvq_gather8(tile->codebook, indices, bits, at + j);
      gptvq_exchange_bytes(v);
      for (size_t e = 0; e < 4; e++) _mm256_store_si256((void *)(codes + 64 * e + at), v[e]);
    }
  }
}

#define UNITS(bits, dim) \
  static void full_##bits##_##dim(const gptvq_tile *tile, size_t row, size_t rows, int8_t *codes) { \
    shuffle_units(tile, row, rows, codes, bits, dim, 1); \
  } \
  static void any_##bits##_##dim(const gptvq_tile *tile, size_t row, size_t rows, int8_t *codes) { \
    shuffle_units(tile, row, rows, codes, bits, dim, 0); \
  }
#define SHUFFLE(bits) \
  UNITS(bits, 1) \
  UNITS(bits, 2) \
  UNITS(bits, 4)
SHUFFLE(1)
SHUFFLE(2)
SHUFFLE(3)
SHUFFLE(4)
SHUFFLE(5)
SHUFFLE(6)
UNITS(7, 1)
UNITS(7, 2)
UNITS(8, 1)
UNITS(8, 2)
#define GATHER(bits) \
  static void gather_##bits(const gptvq_tile *tile, size_t row, size_t rows, int8_t *codes) { \
    gather_units(tile, row, rows, codes, bits); \
  }
GATHER(7)
GATHER(8)
GATHER(9)
GATHER(10)
GATHER(11)
GATHER(12)

#define LIST(which, bits) \
  { which##_##bits##_1, which##_##bits##_2, which##_##bits##_4 }
static const gptvq_unit_codes_fn full_units[12][3] = {LIST(full, 1),
                                                      LIST(full, 2),
                                                      LIST(full, 3),
                                                      LIST(full, 4),
                                                      LIST(full, 5),
                                                      LIST(full, 6),
                                                      {full_7_1, full_7_2, gather_7},
                                                      {full_8_1, full_8_2, gather_8},
                                                      {NULL, NULL, gather_9},
                                                      {NULL, NULL, gather_10},
                                                      {NULL, NULL, gather_11},
                                                      {NULL, NULL, gather_12}};
static const gptvq_unit_codes_fn any_units[12][3] = {LIST(any, 1),
                                                     LIST(any, 2),
                                                     LIST(any, 3),
                                                     LIST(any, 4),
                                                     LIST(any, 5),
                                                     LIST(any, 6),
                                                     {any_7_1, any_7_2, NULL},
                                                     {any_8_1, any_8_2, NULL}};

gptvq_unit_codes_fn gptvq_unit_codes_avx2(const gptvq_tile *tile) {
  if (tile->width == 256) return full_units[tile->index_bits - 1][tile->dim / 2];
  return tile->indices % 64 == 0 ? any_units[tile->index_bits - 1][tile->dim / 2] : NULL;
}

/* ---- in column order ---- */

/* planes of n indices to column order */
GPTVQ_INLINE void interleave(const int8_t *planes, size_t n, unsigned dim, int8_t *codes) {
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
  enum { BYTES = 2048 };
  _Alignas(32) int8_t planes[BYTES];
  const size_t n = tile->indices, unit = n * tile->dim, most = BYTES / unit;
  const gptvq_unit_codes_fn look_up = gptvq_unit_codes_avx2(tile);
  if (look_up == NULL || (tile->dim == 4 && tile->index_bits > 6)) { /* whole centroids are as well copied */
    gptvq_tile_codes_avx2(tile, codes, stride);
    return;
  }
  for (size_t row = 0, rows; row < tile->rows; row += rows) {
    rows = tile->rows - row < most ? tile->rows - row : most;
    look_up(tile, row, rows, planes);
    for (size_t r = 0; r < rows; r++, codes += stride) {
      if (tile->dim == 1) memcpy(codes, planes + r * unit, unit);
      else if (tile->dim == 2) interleave(planes + r * unit, n, 2, codes);
      else interleave(planes + r * unit, n, 4, codes);
    }
  }
}

void gptvq_kernels_init_codes_avx2(gptvq_kernel_table *table) { table->tile_codes = tile_codes; }
