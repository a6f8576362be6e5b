/* Uniform rows × int8 activations with AVX-512 VNNI: codes are the unsigned operand of vpdpbusd as they
 * are. */
#include "kernels/ref/ref.h"
#include "kernels/x86/fold_avx512.h"
#include "kernels/x86/lookup_avx512.h"
#include "kernels/x86/x86.h"

#include <immintrin.h>

/* Zero points of up to 16 blocks as floats, field by field; they are spread over two bytes' worth of parts
 * only where a part ends. */
GPTVQ_INLINE __m512 zero_points(const gptvq_uniform_row *row, size_t block, __mmask16 lanes) {
  const size_t count = (size_t)__builtin_popcount(lanes), at = row->zero_at + block;
  const uint8_t *zeros = row->zeros;
  __m512i all = _mm512_setzero_si512();
  unsigned shift = 0;
  for (unsigned f = 8; f >= 1; f /= 2) {
    if (!(row->bits & f)) continue;
    const size_t size = row->zero_count / 8 * f, part = at / size;
    if (at % size + count > size) {
      uint16_t few[16] = {0};
      gptvq_unpack_range(row->zeros, row->zero_count, row->bits, at, count, few);
      return _mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)few)));
    }
    __m512i bytes = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(lanes, zeros + at % size));
    bytes = _mm512_srl_epi32(bytes, _mm_cvtsi32_si128((int)(part * f)));
    bytes = _mm512_and_si512(bytes, _mm512_set1_epi32((1 << f) - 1));
    all = _mm512_or_si512(all, _mm512_sll_epi32(bytes, _mm_cvtsi32_si128((int)shift)));
    zeros += size;
    shift += f;
  }
  return _mm512_cvtepi32_ps(all);
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

/* Blocks of 32 columns are taken two by two: NARROW. */
enum { WHOLE_SETS, NARROW, BY_LANE };

/* `field` bits a code: 8 when they are unpacked. */
GPTVQ_INLINE float multiply_row(const gptvq_uniform_row *row, unsigned field, int how) {
  _Alignas(64) float scales[GPTVQ_UNIFORM_MAX_BLOCKS + 16];
  _Alignas(64) float by_lane[GPTVQ_UNIFORM_MAX_COLS / 4];
  const size_t parts = 8 / field, step = how == WHOLE_SETS ? (row->block + 63) / 64 * 64 : 64,
               per_part = row->bytes / (how == NARROW ? 32 : step);
  const __m512i mask = _mm512_set1_epi8((char)((1 << field) - 1));
  __m512 correction = combine_scales(row, scales), sums[4];
  if (how == BY_LANE) gptvq_uniform_spread(row, scales, by_lane);
  for (size_t i = 0; i < parts; i++) sums[i] = _mm512_setzero_ps();
  size_t block = 0;
  for (size_t at = 0; at < row->bytes; at += step, block += how == NARROW ? 2 : 1) {
    const size_t end = field < 8 || at + step < row->bytes ? at + step : row->bytes;
    __m512i totals[4];
    for (size_t i = 0; i < parts; i++) totals[i] = _mm512_setzero_si512();
    for (size_t j = at; j < end; j += 64) {
      const __m512i bytes = _mm512_loadu_si512(row->unit + j);
      if (field < 8) gptvq_fetch_ahead(row->unit + j);
      for (size_t i = 0; i < parts; i++) {
        __m512i code =
            field == 8
                ? bytes
                : _mm512_and_si512(i == 0 ? bytes : _mm512_srli_epi16(bytes, (unsigned)(i * field)), mask);
        totals[i] = _mm512_dpbusd_epi32(totals[i], code, _mm512_loadu_si512(row->x + i * row->bytes + j));
      }
    }
    for (size_t i = 0; i < parts; i++) {
      const float *s = scales + i * per_part + block;
      __m512 scale = how == BY_LANE ? _mm512_load_ps(by_lane + 16 * block) : _mm512_set1_ps(s[0]);
      if (how == NARROW) scale = _mm512_mask_broadcastss_ps(scale, 0xff00, _mm_load_ss(s + 1));
      sums[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(totals[i]), scale, sums[i]);
    }
  }
  for (size_t i = 1; i < parts; i++) sums[0] = _mm512_add_ps(sums[0], sums[i]);
  return gptvq_fold_difference(sums[0], correction);
}

static float uniform_row(const gptvq_uniform_row *row) {
  const bool narrow = row->block == 32;
  if (row->field == 4) return narrow ? multiply_row(row, 4, NARROW) : multiply_row(row, 4, WHOLE_SETS);
  if (row->field == 2) return narrow ? multiply_row(row, 2, NARROW) : multiply_row(row, 2, WHOLE_SETS);
  if (gptvq_uniform_whole_sets(row)) return multiply_row(row, 8, WHOLE_SETS);
  return narrow ? multiply_row(row, 8, NARROW) : multiply_row(row, 8, BY_LANE);
}

void gptvq_kernels_init_uniform_avx512(gptvq_kernel_table *table) { table->uniform_row = uniform_row; }
