/* Uniform rows of 2 or 4 bits × int8 activations with AVX-512 VNNI: codes are the unsigned operand of
 * vpdpbusd as they are. */
#include "kernels/ref/ref.h"
#include "kernels/x86/fold_avx512.h"
#include "kernels/x86/lookup_avx512.h"
#include "kernels/x86/x86.h"

#include <immintrin.h>

/* Zero points of 16 blocks as floats; they are spread over two bytes' worth of parts only where a part ends.
 */
GPTVQ_INLINE __m512 zero_points(const gptvq_uniform_row *row, size_t block, __mmask16 lanes) {
  const size_t size = row->zero_count / 8 * row->bits, at = row->zero_at + block;
  const size_t count = (size_t)__builtin_popcount(lanes), part = at / size;
  if (at % size + count <= size) {
    __m512i bytes = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(lanes, row->zeros + at % size));
    bytes = _mm512_srl_epi32(bytes, _mm_cvtsi32_si128((int)(part * row->bits)));
    return _mm512_cvtepi32_ps(_mm512_and_si512(bytes, _mm512_set1_epi32((1 << row->bits) - 1)));
  }
  uint16_t zeros[16] = {0};
  gptvq_unpack_range(row->zeros, row->zero_count, row->bits, at, count, zeros);
  return _mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)zeros)));
}

/* The products of the scales into scales[blocks]; returns the lanes of the correction. */
GPTVQ_INLINE __m512 combine_scales(const gptvq_uniform_row *row, float *scales) {
  __m512 correction = _mm512_setzero_ps();
  for (size_t b = 0; b < row->blocks; b += 16) {
    const __mmask16 lanes = (__mmask16)(row->blocks - b >= 16 ? 0xffffu : (1u << (row->blocks - b)) - 1u);
    __m512 weight = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes, row->scales + b));
    __m512 scale = _mm512_mul_ps(weight, _mm512_maskz_loadu_ps(lanes, row->x_scales + b));
    _mm512_store_ps(scales + b, scale);
    correction = _mm512_fmadd_ps(_mm512_mul_ps(scale, zero_points(row, b, lanes)),
                                 _mm512_maskz_loadu_ps(lanes, row->x_sums + b), correction);
  }
  return correction;
}

GPTVQ_INLINE float multiply_row(const gptvq_uniform_row *row, unsigned bits, int narrow) {
  _Alignas(64) float scales[GPTVQ_UNIFORM_MAX_BLOCKS + 16];
  const size_t parts = 8 / bits, step = narrow ? 64 : row->block,
               per_part = row->bytes / (narrow ? 32 : row->block);
  const __m512i mask = _mm512_set1_epi8((char)((1 << bits) - 1));
  __m512 correction = combine_scales(row, scales), sums[4];
  for (size_t i = 0; i < parts; i++) sums[i] = _mm512_setzero_ps();
  size_t block = 0;
  for (size_t at = 0; at < row->bytes; at += step, block += narrow ? 2 : 1) {
    __m512i totals[4];
    for (size_t i = 0; i < parts; i++) totals[i] = _mm512_setzero_si512();
    for (size_t j = at; j < at + step; j += 64) {
      const __m512i bytes = _mm512_loadu_si512(row->unit + j);
      gptvq_fetch_ahead(row->unit + j);
      for (size_t i = 0; i < parts; i++) {
        __m512i code =
            _mm512_and_si512(i == 0 ? bytes : _mm512_srli_epi16(bytes, (unsigned)(i * bits)), mask);
        totals[i] = _mm512_dpbusd_epi32(totals[i], code, _mm512_loadu_si512(row->x + i * row->bytes + j));
      }
    }
    for (size_t i = 0; i < parts; i++) {
      const float *s = scales + i * per_part + block;
      __m512 scale = _mm512_set1_ps(s[0]);
      if (narrow) scale = _mm512_mask_broadcastss_ps(scale, 0xff00, _mm_load_ss(s + 1));
      sums[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(totals[i]), scale, sums[i]);
    }
  }
  for (size_t i = 1; i < parts; i++) sums[0] = _mm512_add_ps(sums[0], sums[i]);
  return gptvq_fold_difference(sums[0], correction);
}

static float uniform_row(const gptvq_uniform_row *row) {
  if (row->bits == 4) return row->block == 32 ? multiply_row(row, 4, 1) : multiply_row(row, 4, 0);
  return row->block == 32 ? multiply_row(row, 2, 1) : multiply_row(row, 2, 0);
}

void gptvq_kernels_init_uniform_avx512(gptvq_kernel_table *table) { table->uniform_row = uniform_row; }
