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
#define MATVEC(type, size) \
  static void matvec_##type(const void *weights, size_t rows, size_t cols, const float *x, float *y) { \
    const char *w = weights; \
    for (size_t row = 0; row < rows; row++, w += cols * size) { \
      __m256 a = _mm256_setzero_ps(), b = a, c = a, d = a; \
      size_t i = 0; \
      for (; i + 32 <= cols; i += 32) { \
        a = _mm256_fmadd_ps(load_##type(w + i * size), _mm256_loadu_ps(x + i), a); \
        b = _mm256_fmadd_ps(load_##type(w + (i + 8) * size), _mm256_loadu_ps(x + i + 8), b); \
        c = _mm256_fmadd_ps(load_##type(w + (i + 16) * size), _mm256_loadu_ps(x + i + 16), c); \
        d = _mm256_fmadd_ps(load_##type(w + (i + 24) * size), _mm256_loadu_ps(x + i + 24), d); \
      } \
      for (; i + 8 <= cols; i += 8) \
        a = _mm256_fmadd_ps(load_##type(w + i * size), _mm256_loadu_ps(x + i), a); \
      if (i < cols) \
        b = _mm256_fmadd_ps(part_##type(w + i * size, cols - i), part_f32((const char *)(x + i), cols - i), \
                            b); \
      y[row] = sum_lanes(_mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d))); \
    } \
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
