/* kernels/x86/lookup_avx512.h: indices of packed units and their centroids, 64 at a time, with AVX-512 VBMI.
 * Everything here is meant to be inlined with constant `bits` (1 … 8), `dim` and `n`.
 *
 * A table register holds 64 centroid components. Tables of fewer entries are repeated, so that index bits
 * above `bits` may be garbage: vpermb looks at 6 bits, vpermi2b at 7. Only 8-bit indices must be clean, and
 * those are whole bytes. */
#ifndef GPTVQ_KERNELS_LOOKUP_AVX512_H
#define GPTVQ_KERNELS_LOOKUP_AVX512_H

#include "kernels/x86/x86.h"

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

/* ---- memory ---- */
/* The line of packed weights that is 8 KiB ahead into the second-level cache, the one 2 KiB ahead into the
 * first: 5 to 10 % over the hardware's own prefetching, which stops at page ends (Zen 4, two cores). Beyond
 * the end of an array it does nothing. */
GPTVQ_INLINE void gptvq_fetch_ahead(const uint8_t *p) {
  enum { NEAR = 2048, FAR = 8192 };
  _mm_prefetch((const char *)p + FAR, _MM_HINT_T1);
  _mm_prefetch((const char *)p + NEAR, _MM_HINT_T0);
}

/* ---- tables ---- */
typedef struct gptvq_table512 {
  __m512i part[4][4]; /* [component][64 entries each] */
} gptvq_table512;

/* byte i = i */
GPTVQ_INLINE __m512i gptvq_iota512(void) {
  const __m512i low =
      _mm512_set_epi64(0x3f3e3d3c3b3a3938, 0x3736353433323130, 0x2f2e2d2c2b2a2928, 0x2726252423222120,
                       0x1f1e1d1c1b1a1918, 0x1716151413121110, 0x0f0e0d0c0b0a0908, 0x0706050403020100);
  return low;
}

/* codebook[k][dim] to planes; every byte is xored with `flip` (0x80 makes code + 128 of a signed code). */
GPTVQ_INLINE void gptvq_load_table512(const int8_t *codebook, unsigned bits, unsigned dim, int flip,
                                      gptvq_table512 *table) {
  const unsigned k = 1u << bits, bytes = k * dim, log_dim = dim / 2; /* 1, 2, 4 -> 0, 1, 2 */
  const __m512i x = _mm512_set1_epi8((char)flip);
  __m512i select = _mm512_and_si512(gptvq_iota512(), _mm512_set1_epi8((char)((k < 64 ? k : 64) - 1)));
  select = _mm512_slli_epi16(select, log_dim); /* at most 63·4: stays within its byte */
  for (unsigned e = 0; e < dim; e++, select = _mm512_add_epi8(select, _mm512_set1_epi8(1))) {
    if (bytes <= 64) {
      __m512i raw =
          _mm512_maskz_loadu_epi8(bytes == 64 ? ~(__mmask64)0 : ((__mmask64)1 << bytes) - 1, codebook);
      table->part[e][0] = _mm512_permutexvar_epi8(select, _mm512_xor_si512(raw, x));
      continue;
    }
    /* each table register gathers from 64·dim consecutive bytes (all of them when there are fewer) */
    for (unsigned r = 0; r < (k + 63) / 64; r++) {
      const int8_t *from = codebook + r * 64 * dim;
      const unsigned span = bytes < 64 * dim ? bytes : 64 * dim;
      __m512i a = _mm512_xor_si512(_mm512_loadu_si512(from), x), b = a;
      if (span >= 128)
        b = _mm512_permutex2var_epi8(a, select, _mm512_xor_si512(_mm512_loadu_si512(from + 64), x));
      if (span >= 256) {
        __m512i c = _mm512_xor_si512(_mm512_loadu_si512(from + 128), x);
        __m512i d = _mm512_xor_si512(_mm512_loadu_si512(from + 192), x);
        b = _mm512_mask_blend_epi8(_mm512_movepi8_mask(select), b, _mm512_permutex2var_epi8(c, select, d));
      }
      table->part[e][r] = b;
    }
  }
}

GPTVQ_INLINE __m512i gptvq_look_up512(const gptvq_table512 *table, unsigned bits, unsigned e, __m512i index) {
  const __m512i *part = table->part[e];
  if (bits <= 6) return _mm512_permutexvar_epi8(index, part[0]);
  __m512i low = _mm512_permutex2var_epi8(part[0], index, part[1]);
  if (bits == 7) return low;
  return _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), low,
                                _mm512_permutex2var_epi8(part[2], index, part[3]));
}

/* ---- indices ---- */
/* A field whose bytes are fewer than 64 is spread over the lanes by vpmultishiftqb; its control picks, for
 * lane i, the byte i mod (bytes of the field) of the broadcast bytes, moved so that the field lies at its
 * place in the index. */
typedef struct gptvq_spread512 {
  __m512i control[3][4]; /* [field][set] */
} gptvq_spread512;

GPTVQ_INLINE __m512i gptvq_spread_control512(unsigned f, unsigned shift, size_t bytes, size_t set) {
  const unsigned log_bytes = bytes == 32 ? 5 : bytes == 16 ? 4 : 3;
  __m512i lane = gptvq_iota512();
  __m512i part =
      _mm512_and_si512(_mm512_srli_epi16(lane, log_bytes), _mm512_set1_epi8((char)(63 >> log_bytes)));
  part = _mm512_add_epi8(part, _mm512_set1_epi8((char)(set * (64 / bytes))));
  __m512i offset = _mm512_slli_epi16(_mm512_and_si512(lane, _mm512_set1_epi8(7)), 3);
  for (unsigned i = 0; i < f; i++) offset = _mm512_add_epi8(offset, part);
  return _mm512_sub_epi8(offset, _mm512_set1_epi8((char)shift)); /* taken modulo 64 */
}

GPTVQ_INLINE void gptvq_prepare_spread512(unsigned bits, size_t n, gptvq_spread512 *spread) {
  unsigned shift = 0, field = 0;
  for (unsigned f = 8; f >= 1; f /= 2) {
    if (!(bits & f)) continue;
    if (n / 8 * f < 64)
      for (size_t s = 0; s < n / 64; s++)
        spread->control[field][s] = gptvq_spread_control512(f, shift, n / 8 * f, s);
    shift += f;
    field++;
  }
}

/* Indices 64·set … + 63 of a unit of n = 64, 128 or 256 indices, one per byte; bits above `bits` are garbage.
 */
GPTVQ_INLINE __m512i gptvq_indices512(const uint8_t *unit, unsigned bits, size_t n, size_t set,
                                      const gptvq_spread512 *spread) {
  unsigned shift = 0, field = 0;
  __m512i index = _mm512_setzero_si512();
  for (unsigned f = 8; f >= 1; f /= 2) {
    if (!(bits & f)) continue;
    const size_t bytes = n / 8 * f;
    __m512i v;
    if (bytes >= 64) {
      const size_t chunks = bytes / 64;
      const int move = (int)(f * (set / chunks)) - (int)shift;
      v = _mm512_loadu_si512(unit + set % chunks * 64);
      if (move > 0) v = _mm512_srli_epi16(v, (unsigned)move);
      if (move < 0) v = _mm512_slli_epi16(v, (unsigned)-move);
    } else {
      if (bytes == 32) v = _mm512_broadcast_i64x4(_mm256_loadu_si256((const void *)unit));
      else if (bytes == 16) v = _mm512_broadcast_i32x4(_mm_loadu_si128((const void *)unit));
      else v = _mm512_broadcastq_epi64(_mm_loadl_epi64((const void *)unit));
      v = _mm512_multishift_epi64_epi8(spread->control[field][set], v);
    }
    index = shift == 0
                ? v
                : _mm512_ternarylogic_epi32(_mm512_set1_epi8((char)((1 << shift) - 1)), index, v, 0xca);
    unit += bytes;
    shift += f;
    field++;
  }
  return index;
}

#endif
