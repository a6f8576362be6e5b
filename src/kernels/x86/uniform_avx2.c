/* Uniform rows of 2 or 4 bits × int8 activations with AVX2: codes are the unsigned operand of vpmaddubsw as
 * they are; a pair of products is at most 2 · 15 · 127. */
#include "kernels/ref/ref.h"
#include "kernels/x86/fold_avx2.h"
#include "kernels/x86/x86.h"

#include <immintrin.h>
#include <math.h>

/* Zero points of 8 blocks as floats; they lie in 8 bytes unless a part of the unit ends between them. */
GPTVQ_INLINE __m256 zero_points(const gptvq_uniform_row *row, size_t block) {
  const size_t size = row->zero_count / 8 * row->bits, at = row->zero_at + block;
  if (at % size + 8 <= size) {
    __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(row->zeros + at % size)));
    bytes = _mm256_srl_epi32(bytes, _mm_cvtsi32_si128((int)(at / size * row->bits)));
    return _mm256_cvtepi32_ps(_mm256_and_si256(bytes, _mm256_set1_epi32((1 << row->bits) - 1)));
  }
  uint16_t zeros[8];
  gptvq_unpack_range(row->zeros, row->zero_count, row->bits, at, 8, zeros);
  return _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)zeros)));
}

/* The products of the scales into scales[blocks]; the lanes of the correction. */
GPTVQ_INLINE void combine_scales(const gptvq_uniform_row *row, float *scales, __m256 correction[2]) {
  correction[0] = correction[1] = _mm256_setzero_ps();
  size_t b = 0;
  for (; b + 8 <= row->blocks; b += 8) {
    const __m256 weight = _mm256_cvtph_ps(_mm_loadu_si128((const void *)(row->scales + b)));
    const __m256 scale = _mm256_mul_ps(weight, _mm256_loadu_ps(row->x_scales + b)),
                 product = _mm256_mul_ps(scale, zero_points(row, b));
    _mm256_store_ps(scales + b, scale);
    correction[b / 8 % 2] = _mm256_fmadd_ps(product, _mm256_loadu_ps(row->x_sums + b), correction[b / 8 % 2]);
  }
  if (b == row->blocks) return;
  float last[8];
  uint16_t zeros[8];
  _mm256_storeu_ps(last, correction[b / 8 % 2]);
  gptvq_unpack_range(row->zeros, row->zero_count, row->bits, row->zero_at + b, row->blocks - b, zeros);
  for (size_t i = 0; b + i < row->blocks; i++) {
    scales[b + i] = _cvtsh_ss(row->scales[b + i]) * row->x_scales[b + i];
    last[i] = fmaf(scales[b + i] * (float)zeros[i], row->x_sums[b + i], last[i]);
  }
  correction[b / 8 % 2] = _mm256_loadu_ps(last);
}

GPTVQ_INLINE float multiply_row(const gptvq_uniform_row *row, unsigned bits, int narrow) {
  _Alignas(32) float scales[GPTVQ_UNIFORM_MAX_BLOCKS];
  __m256 correction[2];
  const size_t parts = 8 / bits, step = narrow ? 64 : row->block,
               per_part = row->bytes / (narrow ? 32 : row->block);
  const __m256i mask = _mm256_set1_epi8((char)((1 << bits) - 1)), ones = _mm256_set1_epi16(1);
  combine_scales(row, scales, correction);
  __m256 sums[4][2];
  for (size_t i = 0; i < parts; i++) sums[i][0] = sums[i][1] = _mm256_setzero_ps();
  size_t block = 0;
  for (size_t at = 0; at < row->bytes; at += step, block += narrow ? 2 : 1) {
    __m256i totals[4][2];
    for (size_t i = 0; i < parts; i++) totals[i][0] = totals[i][1] = _mm256_setzero_si256();
    for (size_t j = at; j < at + step; j += 64)
      for (size_t half = 0; half < 2; half++) {
        const __m256i bytes = _mm256_loadu_si256((const void *)(row->unit + j + 32 * half));
        for (size_t i = 0; i < parts; i++) {
          __m256i code = _mm256_and_si256(i == 0 ? bytes : _mm256_srli_epi16(bytes, (int)(i * bits)), mask);
          __m256i x = _mm256_loadu_si256((const void *)(row->x + i * row->bytes + j + 32 * half));
          totals[i][half] =
              _mm256_add_epi32(totals[i][half], _mm256_madd_epi16(_mm256_maddubs_epi16(code, x), ones));
        }
      }
    for (size_t i = 0; i < parts; i++)
      for (size_t half = 0; half < 2; half++) {
        const __m256 scale = _mm256_set1_ps(scales[i * per_part + block + (narrow ? half : 0)]);
        sums[i][half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(totals[i][half]), scale, sums[i][half]);
      }
  }
  for (size_t half = 0; half < 2; half++)
    for (size_t i = 1; i < parts; i++) sums[0][half] = _mm256_add_ps(sums[0][half], sums[i][half]);
  return gptvq_fold_difference8(_mm256_add_ps(sums[0][0], sums[0][1]),
                                _mm256_add_ps(correction[0], correction[1]));
}

static float uniform_row(const gptvq_uniform_row *row) {
  if (row->bits == 4) return row->block == 32 ? multiply_row(row, 4, 1) : multiply_row(row, 4, 0);
  return row->block == 32 ? multiply_row(row, 2, 1) : multiply_row(row, 2, 0);
}

void gptvq_kernels_init_uniform_avx2(gptvq_kernel_table *table) { table->uniform_row = uniform_row; }
