/* kernels/x86/fold_avx512.h: the 16 sums of rows, in the order of gptvq_fold16: halves onto each other, then
 * as with AVX2. */
#ifndef GPTVQ_KERNELS_FOLD_AVX512_H
#define GPTVQ_KERNELS_FOLD_AVX512_H

#include "kernels/x86/fold_avx2.h"

GPTVQ_INLINE __m256 gptvq_fold_half(__m512 sums) {
  return _mm256_add_ps(_mm512_castps512_ps256(sums), _mm512_extractf32x8_ps(sums, 1));
}

/* Lane i of the result: sums[i] folded 16 -> 8 -> 4 -> 2 -> 1, upper half onto lower half. */
GPTVQ_INLINE __m256 gptvq_fold8x16(const __m512 sums[8]) {
  __m256 halves[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) halves[i] = gptvq_fold_half(sums[i]);
  return gptvq_fold8x8(halves);
}

/* fold(a) − fold(b) */
GPTVQ_INLINE float gptvq_fold_difference(__m512 a, __m512 b) {
  return gptvq_fold_difference8(gptvq_fold_half(a), gptvq_fold_half(b));
}

#endif
