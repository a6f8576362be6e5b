/* Uniform rows of 2 or 4 bits × int8 activations with AVX2: codes are the unsigned operand of vpmaddubsw as they are; a pair of
 * products is at most 2 · 15 · 127. */
#include "kernels/ref/ref.h"
#include "kernels/x86/fold_avx2.h"
#include "kernels/x86/x86.h"

#include <immintrin.h>
#include <math.h>

#define INLINE static inline __attribute__((always_inline))

/* The products of the scales into scales[blocks]; the lanes of the correction. */
static void combine_scales(const gptvq_uniform_row *row, float *scales, float correction[16]) {
  uint16_t zeros[16];
  for (size_t b = 0; b < row->blocks; b += 16) {
    size_t count = row->blocks - b < 16 ? row->blocks - b : 16;
    gptvq_unpack_range(row->zeros, row->zero_count, row->bits, row->zero_at + b, count, zeros);
    for (size_t i = 0; i < count; i++) {
      scales[b + i] = _cvtsh_ss(row->scales[b + i]) * row->x_scales[b + i];
      correction[i] = fmaf(scales[b + i] * (float)zeros[i], row->x_sums[b + i], correction[i]);
    }
  }
}

INLINE float multiply_row(const gptvq_uniform_row *row, unsigned bits, int narrow) {
  _Alignas(32) float scales[GPTVQ_UNIFORM_MAX_BLOCKS], correction[16] = {0};
  const size_t parts = 8 / bits, step = narrow ? 64 : row->block, per_part = row->bytes / (narrow ? 32 : row->block);
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
          totals[i][half] = _mm256_add_epi32(totals[i][half], _mm256_madd_epi16(_mm256_maddubs_epi16(code, x), ones));
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
                                _mm256_add_ps(_mm256_load_ps(correction), _mm256_load_ps(correction + 8)));
}

static float uniform_row(const gptvq_uniform_row *row) {
  if (row->bits == 4) return row->block == 32 ? multiply_row(row, 4, 1) : multiply_row(row, 4, 0);
  return row->block == 32 ? multiply_row(row, 2, 1) : multiply_row(row, 2, 0);
}

void gptvq_kernels_init_uniform_avx2(gptvq_kernel_table *table) { table->uniform_row = uniform_row; }
