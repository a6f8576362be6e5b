/* kernels/x86/transpose_avx512.h: 16 × 16 dwords turned over in registers. */
#ifndef GPTVQ_KERNELS_TRANSPOSE_AVX512_H
#define GPTVQ_KERNELS_TRANSPOSE_AVX512_H

#include "kernels/x86/x86.h"

#include <immintrin.h>

/* a[i]: row i; afterwards column i. */
GPTVQ_INLINE void gptvq_transpose_16(__m512i a[16]) {
  __m512i b[16];
#pragma GCC unroll 8
  for (size_t i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
  }
#pragma GCC unroll 4
  for (size_t i = 0; i < 16; i += 4) { /* a[i + j]: column j of each 128-bit lane, rows i … i + 3 */
    a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
    a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
    a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
    a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
  }
#pragma GCC unroll 4
  for (size_t j = 0; j < 4; j++) { /* lanes 0 … 3 are columns j, 4 + j, 8 + j, 12 + j */
    b[j] = _mm512_shuffle_i32x4(a[j], a[4 + j], 0x44);
    b[4 + j] = _mm512_shuffle_i32x4(a[j], a[4 + j], 0xee);
    b[8 + j] = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0x44);
    b[12 + j] = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0xee);
  }
#pragma GCC unroll 4
  for (size_t j = 0; j < 4; j++) {
    a[j] = _mm512_shuffle_i32x4(b[j], b[8 + j], 0x88);
    a[4 + j] = _mm512_shuffle_i32x4(b[j], b[8 + j], 0xdd);
    a[8 + j] = _mm512_shuffle_i32x4(b[4 + j], b[12 + j], 0x88);
    a[12 + j] = _mm512_shuffle_i32x4(b[4 + j], b[12 + j], 0xdd);
  }
}

#endif
