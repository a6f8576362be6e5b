/* int8 codes of packed units in column order with AVX-512 VBMI. */
#include "kernels/multi/row_values.h"
#include "kernels/x86/plan_avx512.h"
#include "kernels/shapes.h"
#include "kernels/x86/x86.h"

#include <string.h>

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

/* 64 indices of each component to column order */
GPTVQ_INLINE void interleave(const __m512i *w, unsigned dim, int8_t *out) {
  __m512i v[4];
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

GPTVQ_INLINE void unit_codes(const gptvq_tile *tile, int8_t *codes, size_t stride, unsigned bits,
                             unsigned dim, int full) {
  const size_t n = full ? 256 / dim : tile->indices;
  gptvq_table512 table;
  gptvq_spread512 spread;
  gptvq_plan512 plan;
  gptvq_load_table512(tile->codebook, bits, dim, 0, &table);
  if (full) gptvq_prepare_spread512(bits, n, &spread);
  else gptvq_plan_unit512(bits, n, &plan);
  const uint8_t *unit = tile->units;
  for (size_t row = 0; row < tile->rows; row++, unit += n / 8 * bits, codes += stride) {
    gptvq_unit512 loaded;
    if (!full) gptvq_load_unit512(&plan, bits, unit, &loaded);
    for (size_t s = 0; 64 * s < n; s++) {
      const __m512i index = full ? gptvq_indices512(unit, bits, n, s, &spread)
                                 : gptvq_planned_indices512(&plan, &loaded, bits, s);
      int8_t last[256], *out = codes + 64 * dim * s;
      const bool whole = full || 64 * (s + 1) <= n;
      __m512i w[4];
      for (unsigned e = 0; e < dim; e++) w[e] = gptvq_look_up512(&table, bits, e, index);
      interleave(w, dim, whole ? out : last);
      if (!whole) memcpy(out, last, (n - 64 * s) * dim);
    }
  }
}

#define TILE(bits, dim) \
  static void full_##bits##_##dim(const gptvq_tile *tile, int8_t *codes, size_t stride) { \
    unit_codes(tile, codes, stride, bits, dim, 1); \
  } \
  static void planned_##bits##_##dim(const gptvq_tile *tile, int8_t *codes, size_t stride) { \
    unit_codes(tile, codes, stride, bits, dim, 0); \
  }
GPTVQ_SHAPES_8(TILE)

typedef void (*tile_fn)(const gptvq_tile *tile, int8_t *codes, size_t stride);
#define FULL(bits, dim) GPTVQ_ENTRY(full, bits, dim)
#define PLANNED(bits, dim) GPTVQ_ENTRY(planned, bits, dim)
static const tile_fn full_tiles[8][3] = {GPTVQ_SHAPES_8(FULL)},
                     planned_tiles[8][3] = {GPTVQ_SHAPES_8(PLANNED)};

static void tile_codes(const gptvq_tile *tile, int8_t *codes, size_t stride) {
  if (tile->index_bits > 8 || tile->indices > 64 * GPTVQ_PLAN_SETS)
    gptvq_tile_codes_avx512(tile, codes, stride);
  else
    (tile->width == 256 ? full_tiles : planned_tiles)[tile->index_bits - 1][tile->dim / 2](tile, codes,
                                                                                           stride);
}

void gptvq_kernels_init_codes_avx512(gptvq_kernel_table *table) { table->tile_codes = tile_codes; }
