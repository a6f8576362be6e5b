/* Dense rows with AVX-512: conversions, and rows with four fp32 accumulators of 16 lanes. The order of
 * additions depends only on the number of columns, so a row's result does not depend on who computes it. A
 * row of the first half goes with one of the second: memory is read in two streams far from each other, which
 * one core reads a quarter faster than one stream or two rows that follow each other (Zen 4). */
#include "kernels/x86/x86.h"

#include <immintrin.h>

static inline __m512 load_f32(const char *p) { return _mm512_loadu_ps(p); }
static inline __m512 load_f16(const char *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p)); }
static inline __m512 widen_bf16(__m256i h) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
static inline __m512 load_bf16(const char *p) { return widen_bf16(_mm256_loadu_si256((const void *)p)); }

static inline __m512 load_i8(const char *p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p)));
}

static inline __mmask16 first_lanes(size_t n) { return (__mmask16)((1u << n) - 1u); }
static inline __m512 part_f32(const char *p, size_t n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
static inline __m512 part_f16(const char *p, size_t n) {
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(n), p));
}
static inline __m512 part_bf16(const char *p, size_t n) {
  return widen_bf16(_mm256_maskz_loadu_epi16(first_lanes(n), p));
}

static inline __m512 part_i8(const char *p, size_t n) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(first_lanes(n), p)));
}

#define CONVERT(type, size) \
  static void to_float_##type(const void *in, size_t n, float *out) { \
    const char *p = in; \
    size_t i = 0; \
    for (; i + 16 <= n; i += 16) _mm512_storeu_ps(out + i, load_##type(p + i * size)); \
    if (i < n) _mm512_mask_storeu_ps(out + i, first_lanes(n - i), part_##type(p + i * size, n - i)); \
  }
/* `count` (a constant) rows, `apart` rows from each other. */
#define MATVEC(type, size) \
  GPTVQ_INLINE void rows_##type(const char *w, size_t count, size_t apart, size_t cols, const float *x, \
                                float *y) { \
    const size_t step = apart * cols * size; \
    __m512 sums[2][4]; \
    size_t i = 0; \
    for (size_t r = 0; r < count; r++) \
      for (size_t k = 0; k < 4; k++) sums[r][k] = _mm512_setzero_ps(); \
    for (; i + 64 <= cols; i += 64) \
      for (size_t k = 0; k < 4; k++) { \
        const __m512 v = _mm512_loadu_ps(x + i + 16 * k); \
        for (size_t r = 0; r < count; r++) \
          sums[r][k] = _mm512_fmadd_ps(load_##type(w + r * step + (i + 16 * k) * size), v, sums[r][k]); \
      } \
    for (; i + 16 <= cols; i += 16) \
      for (size_t r = 0; r < count; r++) \
        sums[r][0] = \
            _mm512_fmadd_ps(load_##type(w + r * step + i * size), _mm512_loadu_ps(x + i), sums[r][0]); \
    if (i < cols) \
      for (size_t r = 0; r < count; r++) \
        sums[r][1] = _mm512_fmadd_ps(part_##type(w + r * step + i * size, cols - i), \
                                     _mm512_maskz_loadu_ps(first_lanes(cols - i), x + i), sums[r][1]); \
    for (size_t r = 0; r < count; r++) \
      y[r * apart] = _mm512_reduce_add_ps( \
          _mm512_add_ps(_mm512_add_ps(sums[r][0], sums[r][1]), _mm512_add_ps(sums[r][2], sums[r][3]))); \
  } \
  static void matvec_##type(const void *weights, size_t rows, size_t cols, const float *x, float *y) { \
    const char *w = weights; \
    const size_t half = rows / 2; \
    for (size_t row = 0; row < half; row++) rows_##type(w + row * cols * size, 2, half, cols, x, y + row); \
    if (rows % 2 != 0) rows_##type(w + (rows - 1) * cols * size, 1, 1, cols, x, y + rows - 1); \
  }

CONVERT(f32, 4)
CONVERT(f16, 2)
CONVERT(bf16, 2)
MATVEC(f32, 4)
MATVEC(f16, 2)
MATVEC(bf16, 2)
MATVEC(i8, 1)

void gptvq_kernels_init_dense_avx512(gptvq_kernel_table *table) {
  table->to_float[GPTVQ_F16] = to_float_f16;
  table->to_float[GPTVQ_BF16] = to_float_bf16;
  table->dense_matvec[GPTVQ_F32] = matvec_f32;
  table->dense_matvec[GPTVQ_F16] = matvec_f16;
  table->dense_matvec[GPTVQ_BF16] = matvec_bf16;
  table->codes_matvec = matvec_i8;
  table->to_float[GPTVQ_F32] = to_float_f32;
}
