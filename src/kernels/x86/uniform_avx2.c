/* Uniform rows × int8 activations with AVX2: codes of up to 7 bits are the unsigned operand of vpmaddubsw as
 * they are; a pair of products is at most 2 · 127 · 127. */
#include "kernels/ref/ref.h"
#include "kernels/x86/fold_avx2.h"
#include "kernels/x86/x86.h"

#include <immintrin.h>
#include <math.h>

/* Zero points of 8 blocks as floats, field by field; they lie in 8 bytes unless a part of the unit ends
 * between them. */
GPTVQ_INLINE __m256 zero_points(const gptvq_uniform_row *row, size_t block) {
  const size_t at = row->zero_at + block;
  const uint8_t *zeros = row->zeros;
  __m256i all = _mm256_setzero_si256();
  unsigned shift = 0;
  for (unsigned f = 8; f >= 1; f /= 2) {
    if (!(row->bits & f)) continue;
    const size_t size = row->zero_count / 8 * f;
    if (at % size + 8 > size) {
      uint16_t few[8];
      gptvq_unpack_range(row->zeros, row->zero_count, row->bits, at, 8, few);
      return _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)few)));
    }
    __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(zeros + at % size)));
    bytes = _mm256_srl_epi32(bytes, _mm_cvtsi32_si128((int)(at / size * f)));
    bytes = _mm256_and_si256(bytes, _mm256_set1_epi32((1 << f) - 1));
    all = _mm256_or_si256(all, _mm256_sll_epi32(bytes, _mm_cvtsi32_si128((int)shift)));
    zeros += size;
    shift += f;
  }
  return _mm256_cvtepi32_ps(all);
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
  scales[row->blocks] = 0.0f; /* blocks of 32 columns are taken two by two */
  correction[b / 8 % 2] = _mm256_loadu_ps(last);
}

/* Blocks of 32 columns are taken two by two: NARROW. */
enum { WHOLE_SETS, NARROW, BY_LANE };

/* sum + the products of four neighbouring bytes. `wide`: codes of 8 bits, as code − 128 and 128 */
GPTVQ_INLINE __m256i dot4(__m256i sum, __m256i code, __m256i x, int wide) {
  const __m256i ones = _mm256_set1_epi16(1);
  if (!wide) return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(code, x), ones));
  const __m256i w = _mm256_xor_si256(code, _mm256_set1_epi8((char)0x80));
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w)),
                x_pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), x);
  sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(x_pairs, _mm256_set1_epi16(128)));
}

/* `field` bits a code: 8 when they are unpacked. */
GPTVQ_INLINE float multiply_row(const gptvq_uniform_row *row, unsigned field, int how, int wide) {
  _Alignas(32) float scales[GPTVQ_UNIFORM_MAX_BLOCKS + 8];
  _Alignas(32) float by_lane[GPTVQ_UNIFORM_MAX_COLS / 4];
  __m256 correction[2];
  const size_t parts = 8 / field, step = how == WHOLE_SETS ? (row->block + 63) / 64 * 64 : 64,
               per_part = row->bytes / (how == NARROW ? 32 : step);
  const __m256i mask = _mm256_set1_epi8((char)((1 << field) - 1));
  combine_scales(row, scales, correction);
  if (how == BY_LANE) gptvq_uniform_spread(row, scales, by_lane);
  __m256 sums[4][2];
  for (size_t i = 0; i < parts; i++) sums[i][0] = sums[i][1] = _mm256_setzero_ps();
  size_t block = 0;
  for (size_t at = 0; at < row->bytes; at += step, block += how == NARROW ? 2 : 1) {
    const size_t end = field < 8 || at + step < row->bytes ? at + step : row->bytes;
    __m256i totals[4][2];
    for (size_t i = 0; i < parts; i++) totals[i][0] = totals[i][1] = _mm256_setzero_si256();
    for (size_t j = at; j < end; j += 64)
      for (size_t half = 0; half < 2; half++) {
        const __m256i bytes = _mm256_loadu_si256((const void *)(row->unit + j + 32 * half));
        for (size_t i = 0; i < parts; i++) {
          __m256i code = i == 0 ? bytes : _mm256_srli_epi16(bytes, (int)(i * field));
          if (field < 8) code = _mm256_and_si256(code, mask);
          __m256i x = _mm256_loadu_si256((const void *)(row->x + i * row->bytes + j + 32 * half));
          totals[i][half] = dot4(totals[i][half], code, x, wide);
        }
      }
    for (size_t i = 0; i < parts; i++)
      for (size_t half = 0; half < 2; half++) {
        const __m256 scale = how == BY_LANE
                                 ? _mm256_load_ps(by_lane + 16 * block + 8 * half)
                                 : _mm256_set1_ps(scales[i * per_part + block + (how == NARROW ? half : 0)]);
        sums[i][half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(totals[i][half]), scale, sums[i][half]);
      }
  }
  for (size_t half = 0; half < 2; half++)
    for (size_t i = 1; i < parts; i++) sums[0][half] = _mm256_add_ps(sums[0][half], sums[i][half]);
  return gptvq_fold_difference8(_mm256_add_ps(sums[0][0], sums[0][1]),
                                _mm256_add_ps(correction[0], correction[1]));
}

GPTVQ_INLINE float multiply_unpacked(const gptvq_uniform_row *row, int wide) {
  if (gptvq_uniform_whole_sets(row)) return multiply_row(row, 8, WHOLE_SETS, wide);
  return row->block == 32 ? multiply_row(row, 8, NARROW, wide) : multiply_row(row, 8, BY_LANE, wide);
}

static float uniform_row(const gptvq_uniform_row *row) {
  const bool narrow = row->block == 32;
  if (row->field == 4) return narrow ? multiply_row(row, 4, NARROW, 0) : multiply_row(row, 4, WHOLE_SETS, 0);
  if (row->field == 2) return narrow ? multiply_row(row, 2, NARROW, 0) : multiply_row(row, 2, WHOLE_SETS, 0);
  return row->bits == 8 ? multiply_unpacked(row, 1) : multiply_unpacked(row, 0);
}

void gptvq_kernels_init_uniform_avx2(gptvq_kernel_table *table) { table->uniform_row = uniform_row; }
