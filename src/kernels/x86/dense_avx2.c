/* Dense rows with AVX2, FMA and F16C: conversions, and one row at a time with four fp32 accumulators of 8
 * lanes. Tails pass through a zero-padded copy. */
#include "kernels/x86/x86.h"

#include <immintrin.h>
#include <string.h>

static inline __m256 load_f32(const char *p) { return _mm256_loadu_ps((const float *)(const void *)p); }
static inline __m256 load_f16(const char *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const void *)p)); }
static inline __m256 load_bf16(const char *p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)p)), 16));
}

static inline __m256 load_i8(const char *p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p)));
}

static inline float sum_lanes(__m256 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

#define PART(type, size) \
  static inline __m256 part_##type(const char *p, size_t n) { \
    char padded[8 * size] = {0}; \
    memcpy(padded, p, n *size); \
    return load_##type(padded); \
  }
#define CONVERT(type, size) \
  static void to_float_##type(const void *in, size_t n, float *out) { \
    const char *p = in; \
    size_t i = 0; \
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(out + i, load_##type(p + i * size)); \
    if (i < n) { \
      float last[8]; \
      _mm256_storeu_ps(last, part_##type(p + i * size, n - i)); \
      memcpy(out + i, last, (n - i) * sizeof *out); \
    } \
  }
/* `count` (a constant) rows, `apart` rows from each other: as with AVX-512. */
#define MATVEC(type, size) \
  GPTVQ_INLINE void rows_##type(const char *w, size_t count, size_t apart, size_t cols, const float *x, \
                                float *y) { \
    const size_t step = apart * cols * size; \
    __m256 sums[2][4]; \
    size_t i = 0; \
    for (size_t r = 0; r < count; r++) \
      for (size_t k = 0; k < 4; k++) sums[r][k] = _mm256_setzero_ps(); \
    for (; i + 32 <= cols; i += 32) \
      for (size_t k = 0; k < 4; k++) { \
        const __m256 v = _mm256_loadu_ps(x + i + 8 * k); \
        for (size_t r = 0; r < count; r++) \
          sums[r][k] = _mm256_fmadd_ps(load_##type(w + r * step + (i + 8 * k) * size), v, sums[r][k]); \
      } \
    for (; i + 8 <= cols; i += 8) \
      for (size_t r = 0; r < count; r++) \
        sums[r][0] = \
            _mm256_fmadd_ps(load_##type(w + r * step + i * size), _mm256_loadu_ps(x + i), sums[r][0]); \
    if (i < cols) \
      for (size_t r = 0; r < count; r++) \
        sums[r][1] = _mm256_fmadd_ps(part_##type(w + r * step + i * size, cols - i), \
                                     part_f32((const char *)(x + i), cols - i), sums[r][1]); \
    for (size_t r = 0; r < count; r++) \
      y[r * apart] = sum_lanes( \
          _mm256_add_ps(_mm256_add_ps(sums[r][0], sums[r][1]), _mm256_add_ps(sums[r][2], sums[r][3]))); \
  } \
  static void matvec_##type(const void *weights, size_t rows, size_t cols, const float *x, float *y) { \
    const char *w = weights; \
    const size_t half = rows / 2; \
    for (size_t row = 0; row < half; row++) rows_##type(w + row * cols * size, 2, half, cols, x, y + row); \
    if (rows % 2 != 0) rows_##type(w + (rows - 1) * cols * size, 1, 1, cols, x, y + rows - 1); \
  }

PART(f32, 4)
PART(f16, 2)
PART(bf16, 2)
PART(i8, 1)
CONVERT(f32, 4)
CONVERT(f16, 2)
CONVERT(bf16, 2)
MATVEC(f32, 4)
MATVEC(f16, 2)
MATVEC(bf16, 2)
MATVEC(i8, 1)

void gptvq_kernels_init_dense_avx2(gptvq_kernel_table *table) {
  table->to_float[GPTVQ_F16] = to_float_f16;
  table->to_float[GPTVQ_BF16] = to_float_bf16;
  table->dense_matvec[GPTVQ_F32] = matvec_f32;
  table->dense_matvec[GPTVQ_F16] = matvec_f16;
  table->dense_matvec[GPTVQ_BF16] = matvec_bf16;
  table->codes_matvec = matvec_i8;
  table->to_float[GPTVQ_F32] = to_float_f32;
}
