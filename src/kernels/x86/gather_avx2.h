/* kernels/x86/gather_avx2.h: units of 64 indices of 7 … 12 bits into codebooks of four components, which are
 * read whole, one by one: on Zen 4 in 0.6 of the time of vpgatherdd, which is slower still on the Intel
 * processors whose gathers are mended in microcode. Meant to be inlined with constant `bits`.
 *
 * An index brings its components side by side: register j = 0 … 3 of a half unit has those of the indices 4 L
 * + j in lane L = 0 … 7. */
#ifndef GPTVQ_KERNELS_GATHER_AVX2_H
#define GPTVQ_KERNELS_GATHER_AVX2_H

#include "kernels/x86/lookup_avx2.h"

/* The indices of a unit as bytes (bits <= 8) or 16-bit words: where they are, in `room` if need be. */
GPTVQ_INLINE const void *gptvq_gather_indices(const uint8_t *unit, unsigned bits, uint16_t room[64]) {
  if (bits == 8) return unit;
  __m256i *to = (void *)room;
  for (size_t at = 0; at<64; at += 32, to += bits> 8 ? 2 : 1) {
    if (bits < 8) {
      _mm256_storeu_si256(to, gptvq_indices256(unit, bits, 64, at));
      continue;
    }
    const __m256i low = _mm256_loadu_si256((const void *)(unit + at)),
                  high = gptvq_indices256(unit + 64, bits - 8, 64, at);
    const __m256i a = _mm256_unpacklo_epi8(low, high), b = _mm256_unpackhi_epi8(low, high);
    _mm256_storeu_si256(to, _mm256_permute2x128_si256(a, b, 0x20));
    _mm256_storeu_si256(to + 1, _mm256_permute2x128_si256(a, b, 0x31));
  }
  return room;
}

GPTVQ_INLINE int gptvq_centroid4(const int8_t *codebook, const void *indices, unsigned bits, size_t i) {
  int four;
  memcpy(&four,
         codebook + 4 * (size_t)(bits > 8 ? ((const uint16_t *)indices)[i] : ((const uint8_t *)indices)[i]),
         4);
  return four;
}

/* The centroids of every fourth index from i on. */
GPTVQ_INLINE __m128i gptvq_gather4(const int8_t *codebook, const void *indices, unsigned bits, size_t i) {
  __m128i v = _mm_cvtsi32_si128(gptvq_centroid4(codebook, indices, bits, i));
  v = _mm_insert_epi32(v, gptvq_centroid4(codebook, indices, bits, i + 4), 1);
  v = _mm_insert_epi32(v, gptvq_centroid4(codebook, indices, bits, i + 8), 2);
  return _mm_insert_epi32(v, gptvq_centroid4(codebook, indices, bits, i + 12), 3);
}

GPTVQ_INLINE __m256i gptvq_gather8(const int8_t *codebook, const void *indices, unsigned bits, size_t i) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(gptvq_gather4(codebook, indices, bits, i)),
                                 gptvq_gather4(codebook, indices, bits, i + 16), 1);
}

/* Byte e of every lane of v[j] to byte j of that lane of v[e]: from centroids to components and back. */
GPTVQ_INLINE void gptvq_exchange_bytes(__m256i v[4]) {
  const __m256i a = _mm256_unpacklo_epi8(v[0], v[1]), b = _mm256_unpackhi_epi8(v[0], v[1]);
  const __m256i c = _mm256_unpacklo_epi8(v[2], v[3]), d = _mm256_unpackhi_epi8(v[2], v[3]);
  const __m256i lane0 = _mm256_unpacklo_epi16(a, c),
                lane1 = _mm256_unpackhi_epi16(a, c); /* the four dwords to be of each lane */
  const __m256i lane2 = _mm256_unpacklo_epi16(b, d), lane3 = _mm256_unpackhi_epi16(b, d);
  const __m256i p = _mm256_unpacklo_epi32(lane0, lane1), q = _mm256_unpackhi_epi32(lane0, lane1);
  const __m256i r = _mm256_unpacklo_epi32(lane2, lane3), s = _mm256_unpackhi_epi32(lane2, lane3);
  v[0] = _mm256_unpacklo_epi64(p, r);
  v[1] = _mm256_unpackhi_epi64(p, r);
  v[2] = _mm256_unpacklo_epi64(q, s);
  v[3] = _mm256_unpackhi_epi64(q, s);
}

#endif
