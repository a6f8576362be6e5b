/* int8 codes of packed units in column order with AVX-512 VBMI. */
#include "kernels/multi/row_values.h"
#include "kernels/x86/lookup_avx512.h"
#include "kernels/x86/x86.h"

/* Writes the 128-bit lanes of up to four registers in turn: lane j of all, then lane j + 1. */
GPTVQ_INLINE void store_lanes(int8_t *out, const __m512i *v, unsigned count) {
  for (unsigned i = 0; i < count; i++) {
    int8_t *to = out + 16 * i;
    _mm_storeu_si128((void *)to, _mm512_castsi512_si128(v[i]));
    _mm_storeu_si128((void *)(to + 16 * count), _mm512_extracti32x4_epi32(v[i], 1));
    _mm_storeu_si128((void *)(to + 32 * count), _mm512_extracti32x4_epi32(v[i], 2));
    _mm_storeu_si128((void *)(to + 48 * count), _mm512_extracti32x4_epi32(v[i], 3));
  }
}

GPTVQ_INLINE void full_tile(const gptvq_tile *tile, int8_t *codes, size_t stride, unsigned bits,
                            unsigned dim) {
  const size_t n = 256 / dim;
  gptvq_table512 table;
  gptvq_spread512 spread;
  gptvq_load_table512(tile->codebook, bits, dim, 0, &table);
  gptvq_prepare_spread512(bits, n, &spread);
  const uint8_t *unit = tile->units;
  for (size_t row = 0; row < tile->rows; row++, unit += n / 8 * bits, codes += stride)
    for (size_t s = 0; s < n / 64; s++) {
      __m512i index = gptvq_indices512(unit, bits, n, s, &spread), w[4], v[4];
      for (unsigned e = 0; e < dim; e++) w[e] = gptvq_look_up512(&table, bits, e, index);
      int8_t *out = codes + 64 * dim * s;
      if (dim == 1) {
        _mm512_storeu_si512(out, w[0]);
      } else if (dim == 2) { /* pairs of components; each 128-bit lane then holds 16 consecutive columns */
        v[0] = _mm512_unpacklo_epi8(w[0], w[1]);
        v[1] = _mm512_unpackhi_epi8(w[0], w[1]);
        store_lanes(out, v, 2);
      } else {
        __m512i a = _mm512_unpacklo_epi8(w[0], w[1]), b = _mm512_unpackhi_epi8(w[0], w[1]);
        __m512i c = _mm512_unpacklo_epi8(w[2], w[3]), d = _mm512_unpackhi_epi8(w[2], w[3]);
        v[0] = _mm512_unpacklo_epi16(a, c);
        v[1] = _mm512_unpackhi_epi16(a, c);
        v[2] = _mm512_unpacklo_epi16(b, d);
        v[3] = _mm512_unpackhi_epi16(b, d);
        store_lanes(out, v, 4);
      }
    }
}

#define TILE(bits, dim) \
  static void tile_##bits##_##dim(const gptvq_tile *tile, int8_t *codes, size_t stride) { \
    full_tile(tile, codes, stride, bits, dim); \
  }
#define TILES(bits) \
  TILE(bits, 1) \
  TILE(bits, 2) \
  TILE(bits, 4)
TILES(1)
TILES(2)
TILES(3)
TILES(4)
TILES(5)
TILES(6)
TILES(7)
TILES(8)

typedef void (*tile_fn)(const gptvq_tile *tile, int8_t *codes, size_t stride);
#define ROW(bits) \
  { tile_##bits##_1, tile_##bits##_2, tile_##bits##_4 }
static const tile_fn full_tiles[8][3] = {ROW(1), ROW(2), ROW(3), ROW(4), ROW(5), ROW(6), ROW(7), ROW(8)};

static void tile_codes(const gptvq_tile *tile, int8_t *codes, size_t stride) {
  if (tile->index_bits <= 8 && tile->width == 256)
    full_tiles[tile->index_bits - 1][tile->dim / 2](tile, codes, stride);
  else gptvq_tile_codes_avx512(tile, codes, stride);
}

void gptvq_kernels_init_codes_avx512(gptvq_kernel_table *table) { table->tile_codes = tile_codes; }
