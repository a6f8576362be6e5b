/* int8 codes of packed units with AVX2: by component for integer products, and in column order. Up to 64
 * centroids are looked up by byte shuffles; larger codebooks of four components are read centroid by
 * centroid, those of fewer components searched 16 entries at a time. */
#include "kernels/x86/codes_avx2.h"
#include "kernels/multi/row_values.h"
#include "kernels/x86/gather_avx2.h"
#include "kernels/shapes.h"
#include "kernels/x86/x86.h"

/* ---- fields, of units of other than 256 columns ---- */

#define SPREAD(bits) \
  static void spread_##bits(const uint8_t *units, size_t rows, size_t n, size_t room, uint8_t *fields) { \
    for (size_t r = 0; r < rows; r++) \
      gptvq_spread_unit256(units + r * (n / 8 * bits), bits, n, room, fields + r * 3 * room); \
  }
GPTVQ_BITS_8(SPREAD)

#define UNPACK(bits) \
  static void unpack_##bits(const uint8_t *unit, size_t n, uint8_t *indices) { \
    gptvq_spread_unit256(unit, bits, n, 0, indices); \
  }
GPTVQ_BITS_8(UNPACK)

static void unpack_bytes(const uint8_t *unit, size_t n, unsigned bits, uint8_t *indices) {
#define UNPACK_ENTRY(bits) unpack_##bits,
  static void (*const unpack[8])(const uint8_t *, size_t, uint8_t *) = {GPTVQ_BITS_8(UNPACK_ENTRY)};
  unpack[bits - 1](unit, n, indices);
}

void gptvq_spread_units_avx2(unsigned bits, const uint8_t *units, size_t rows, size_t n, size_t room,
                             uint8_t *fields) {
#define SPREAD_ENTRY(bits) spread_##bits,
  static void (*const spread[8])(const uint8_t *, size_t, size_t, size_t,
                                 uint8_t *) = {GPTVQ_BITS_8(SPREAD_ENTRY)};
  spread[bits - 1](units, rows, n, room, fields);
}

/* ---- by component ---- */

/* 2^bits <= 64 centroids, or 128 or 256 of at most two components; `full`: units of 256 columns. Indices of
 * others are spread some rows ahead: what was stored a moment ago in other pieces loads slowly. */
GPTVQ_INLINE void shuffle_units(const gptvq_tile *tile, size_t row, size_t rows, int8_t *codes, unsigned bits,
                                unsigned dim, int full) {
  enum { ROWS = 8, MOST = 256, FIELDS = 3 };
  const size_t n = full ? 256 / dim : tile->indices, unit_bytes = n / 8 * bits, plane = (n + 63) / 64 * 64;
  const size_t room = plane <= MOST ? MOST : ROWS * MOST, most = ROWS * MOST / room;
  const uint8_t *unit = tile->units + row * unit_bytes;
  _Alignas(32) uint8_t fields[FIELDS * ROWS * MOST];
  gptvq_table256 table;
  gptvq_load_table256(tile->codebook, bits, dim, &table);
  for (size_t done = 0; done < rows; done++, unit += unit_bytes, codes += dim * plane) {
    if (!full && done % most == 0)
      gptvq_spread_units_avx2(bits, unit, rows - done < most ? rows - done : most, n, room, fields);
    for (size_t at = 0; at < plane; at += 64) {
      __m256i index[2], found[4][2];
      for (size_t i = 0; i < 2; i++)
        index[i] = full ? gptvq_indices256(unit, bits, 256 / dim, at + 32 * i)
                        : gptvq_join_fields256(fields + done % most * FIELDS * room, bits, room, at + 32 * i);
      gptvq_look_up256(&table, bits, dim, index, found);
      for (unsigned e = 0; e < dim; e++)
        for (size_t i = 0; i < 2; i++)
          _mm256_store_si256((void *)(codes + e * plane + at + 32 * i), found[e][i]);
    }
  }
}

/* 128 centroids or more, dim 4. Indices of units of other than 256 columns are unpacked to 16 bits. */
GPTVQ_INLINE void gather_units(const gptvq_tile *tile, size_t row, size_t rows, int8_t *codes, unsigned bits,
                               int full) {
  const size_t n = full ? 64 : tile->indices, unit_bytes = n / 8 * bits, plane = (n + 63) / 64 * 64;
  const uint8_t *unit = tile->units + row * unit_bytes;
  uint16_t room[GPTVQ_TILE_MAX_WIDTH / 4] = {0};
  for (; rows > 0; rows--, unit += unit_bytes, codes += 4 * plane) {
    const void *indices = room;
    if (full) indices = gptvq_gather_indices(unit, bits, room);
    else gptvq_unpack_words_avx2(unit, n, bits, room);
    for (size_t at = 0; at < plane; at += 32) {
      __m256i v[4];
#pragma GCC unroll 4
      for (size_t j = 0; j < 4; j++) v[j] = gptvq_gather8(tile->codebook, indices, full ? bits : 16, at + j);
      gptvq_exchange_bytes(v);
      for (size_t e = 0; e < 4; e++) _mm256_store_si256((void *)(codes + plane * e + at), v[e]);
    }
  }
}

#define SHUFFLE(bits, dim) \
  static void full_##bits##_##dim(const gptvq_tile *tile, size_t row, size_t rows, int8_t *codes) { \
    shuffle_units(tile, row, rows, codes, bits, dim, 1); \
  } \
  static void any_##bits##_##dim(const gptvq_tile *tile, size_t row, size_t rows, int8_t *codes) { \
    shuffle_units(tile, row, rows, codes, bits, dim, 0); \
  }
GPTVQ_SHAPES_SHUFFLE(SHUFFLE)
#define GATHER(bits) \
  static void full_##bits##_4(const gptvq_tile *tile, size_t row, size_t rows, int8_t *codes) { \
    gather_units(tile, row, rows, codes, bits, 1); \
  } \
  static void any_##bits##_4(const gptvq_tile *tile, size_t row, size_t rows, int8_t *codes) { \
    gather_units(tile, row, rows, codes, bits, 0); \
  }
GPTVQ_BITS_GATHER(GATHER)

#define FULL(bits, dim) GPTVQ_ENTRY(full, bits, dim)
#define FULL_4(bits) GPTVQ_ENTRY(full, bits, 4)
#define ANY(bits, dim) GPTVQ_ENTRY(any, bits, dim)
#define ANY_4(bits) GPTVQ_ENTRY(any, bits, 4)
static const gptvq_unit_codes_fn full_units[12][3] = {GPTVQ_SHAPES_SHUFFLE(FULL) GPTVQ_BITS_GATHER(FULL_4)},
                                 any_units[12][3] = {GPTVQ_SHAPES_SHUFFLE(ANY) GPTVQ_BITS_GATHER(ANY_4)};

gptvq_unit_codes_fn gptvq_unit_codes_avx2(const gptvq_tile *tile) {
  return (tile->width == 256 ? full_units : any_units)[tile->index_bits - 1][tile->dim / 2];
}

/* ---- in column order ---- */

/* 32 indices of each component to column order */
GPTVQ_INLINE void interleave32(const int8_t *planes, size_t plane, unsigned dim, int8_t *codes) {
  __m256i w[4], v[4];
  for (unsigned e = 0; e < dim; e++) w[e] = _mm256_load_si256((const void *)(planes + e * plane));
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

/* n indices of each component */
GPTVQ_INLINE void interleave(const int8_t *planes, size_t plane, size_t n, unsigned dim, int8_t *codes) {
  int8_t last[128];
  size_t i = 0;
  for (; i + 32 <= n; i += 32) interleave32(planes + i, plane, dim, codes + i * dim);
  if (i == n) return;
  interleave32(planes + i, plane, dim, last);
  memcpy(codes + i * dim, last, (n - i) * dim);
}

static void tile_codes(const gptvq_tile *tile, int8_t *codes, size_t stride) {
  enum { BYTES = 2048 };
  _Alignas(32) int8_t planes[BYTES];
  const size_t n = tile->indices, plane = (n + 63) / 64 * 64, unit = plane * tile->dim, most = BYTES / unit;
  const gptvq_unit_codes_fn look_up = gptvq_unit_codes_avx2(tile);
  if (look_up == NULL || (tile->dim == 4 && tile->index_bits > 6)) { /* whole centroids are as well copied */
    gptvq_tile_codes_avx2(tile, codes, stride);
    return;
  }
  for (size_t row = 0, rows; row < tile->rows; row += rows) {
    rows = tile->rows - row < most ? tile->rows - row : most;
    look_up(tile, row, rows, planes);
    for (size_t r = 0; r < rows; r++, codes += stride) {
      if (tile->dim == 1) memcpy(codes, planes + r * unit, n);
      else if (tile->dim == 2) interleave(planes + r * unit, plane, n, 2, codes);
      else interleave(planes + r * unit, plane, n, 4, codes);
    }
  }
}

void gptvq_kernels_init_codes_avx2(gptvq_kernel_table *table) {
  table->tile_codes = tile_codes;
  table->unpack_bytes = unpack_bytes;
}
