/* kernels/x86/fold_avx2.h: the 16 sums of rows, in the order of gptvq_fold16. */
#ifndef GPTVQ_KERNELS_FOLD_AVX2_H
#define GPTVQ_KERNELS_FOLD_AVX2_H

#include "kernels/x86/x86.h"

#include <immintrin.h>

/* Lane i of the result: eight sums a[i] folded 8 -> 4 -> 2 -> 1, upper half onto lower half. */
GPTVQ_INLINE __m256 gptvq_fold8x8(const __m256 a[8]) {
  __m256 b[4], c[2];
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) /* rows i and i + 4 */
    b[i] = _mm256_add_ps(_mm256_permute2f128_ps(a[i], a[i + 4], 0x20),
                         _mm256_permute2f128_ps(a[i], a[i + 4], 0x31));
#pragma GCC unroll 2
  for (int i = 0; i < 2; i++) { /* rows 2i, 2i + 1, 2i + 4, 2i + 5 */
    __m256d x = _mm256_castps_pd(b[2 * i]), y = _mm256_castps_pd(b[2 * i + 1]);
    c[i] =
        _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(x, y)), _mm256_castpd_ps(_mm256_unpackhi_pd(x, y)));
  }
  return _mm256_add_ps(_mm256_shuffle_ps(c[0], c[1], 0x88), _mm256_shuffle_ps(c[0], c[1], 0xdd));
}

/* fold(a) − fold(b) of 8 sums each */
GPTVQ_INLINE float gptvq_fold_difference8(__m256 x, __m256 y) {
  x = _mm256_add_ps(_mm256_permute2f128_ps(x, y, 0x20), _mm256_permute2f128_ps(x, y, 0x31));
  x = _mm256_add_ps(x, _mm256_permute_ps(x, 0x4e));
  x = _mm256_add_ps(x, _mm256_permute_ps(x, 0xb1));
  return _mm_cvtss_f32(_mm_sub_ss(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1)));
}

#endif
