/* Packed rows × int8 activations with AVX-512 VBMI and VNNI.
 * vpdpbusd multiplies unsigned by signed bytes: the tables hold code + 128, and the sums start at −128 · Σ q instead of 0. */
#include "kernels/ref/ref.h"
#include "kernels/x86/lookup_avx512.h"
#include "kernels/x86/x86.h"

#include <string.h>

/* One unit's block-scale codes, 4 bits each, in one word. */
GPTVQ_INLINE uint64_t block_word(const uint8_t *codes, size_t bytes) {
  uint64_t word = 0;
  switch (bytes) {
  case 1: return codes[0];
  case 2: memcpy(&word, codes, 2); return word;
  case 4: memcpy(&word, codes, 4); return word;
  default: memcpy(&word, codes, 8); return word;
  }
}

/* The usual units: 256 columns, so n = 256 / dim indices and always 4 registers of activations. */
GPTVQ_INLINE void full_tile(const gptvq_i8_tile *tile, unsigned bits, unsigned dim, int scaled) {
  const size_t n = 256 / dim, sets = n / 64, unit_bytes = n / 8 * bits;
  gptvq_table512 table;
  gptvq_spread512 spread;
  gptvq_load_table512(tile->codebook, bits, dim, 0x80, &table);
  gptvq_prepare_spread512(bits, n, &spread);
  __m512i block_shift[4];
  __m512 block_table = _mm512_setzero_ps();
  if (scaled) {
    block_table = _mm512_loadu_ps(tile->block_table);
    const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const unsigned log_block = (unsigned)__builtin_ctzll(tile->block_vectors);
    for (size_t s = 0; s < sets; s++) { /* block of lane L = (64 s + 4 L) / vectors per block; 4 bits each */
      __m512i first = _mm512_add_epi32(_mm512_slli_epi32(lane, 2), _mm512_set1_epi32((int)(64 * s)));
      block_shift[s] = _mm512_slli_epi32(_mm512_srl_epi32(first, _mm_cvtsi32_si128((int)log_block)), 2);
    }
  }
  const uint8_t *unit = tile->units, *block_codes = tile->block_codes;
  float *sums = tile->sums;
  if (tile->tokens == 1) {
    __m512i x[4];
    for (int i = 0; i < 4; i++) x[i] = _mm512_load_si512(tile->x + 64 * i);
    const __m512i correction = _mm512_loadu_si512(tile->correction);
    const __m512 scale = _mm512_set1_ps(tile->scales[0]);
    for (size_t row = 0; row < tile->rows; row++, unit += unit_bytes, sums += 16) {
      __m512i total = correction;
      for (size_t s = 0; s < sets; s++) {
        __m512i index = gptvq_indices512(unit, bits, n, s, &spread);
        for (unsigned e = 0; e < dim; e++)
          total = _mm512_dpbusd_epi32(total, gptvq_look_up512(&table, bits, e, index), x[e * sets + s]);
      }
      _mm512_store_ps(sums, _mm512_fmadd_ps(_mm512_cvtepi32_ps(total), scale, _mm512_load_ps(sums)));
    }
  }
  (void)block_shift;
  (void)block_table;
  (void)block_codes;
}

#define TILE(bits, dim) \
  static void tile_##bits##_##dim(const gptvq_i8_tile *tile) { full_tile(tile, bits, dim, 0); }
#define TILES(bits) TILE(bits, 1) TILE(bits, 2) TILE(bits, 4)
TILES(1) TILES(2) TILES(3) TILES(4) TILES(5) TILES(6) TILES(7) TILES(8)

typedef void (*tile_fn)(const gptvq_i8_tile *tile);
#define ROW(bits) {tile_##bits##_1, tile_##bits##_2, tile_##bits##_4}
static const tile_fn full_tiles[8][3] = {ROW(1), ROW(2), ROW(3), ROW(4), ROW(5), ROW(6), ROW(7), ROW(8)};

static void i8_tile(const gptvq_i8_tile *tile) {
  if (tile->index_bits <= 8 && tile->indices == 256 / tile->dim && tile->block_vectors == 0 && tile->tokens == 1)
    full_tiles[tile->index_bits - 1][tile->dim / 2](tile);
  else gptvq_i8_tile_scalar(tile);
  (void)block_word;
}

void gptvq_kernels_init_i8_avx512(gptvq_kernel_table *table) { table->i8_tile = i8_tile; }
