/* Dense rows with AVX-512: conversions, and one row at a time with four fp32 accumulators of 16 lanes. The
 * order of additions depends only on the number of columns, so a row's result does not depend on who computes
 * it. */
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
#define MATVEC(type, size) \
  static void matvec_##type(const void *weights, size_t rows, size_t cols, const float *x, float *y) { \
    const char *w = weights; \
    for (size_t row = 0; row < rows; row++, w += cols * size) { \
      __m512 a = _mm512_setzero_ps(), b = a, c = a, d = a; \
      size_t i = 0; \
      for (; i + 64 <= cols; i += 64) { \
        a = _mm512_fmadd_ps(load_##type(w + i * size), _mm512_loadu_ps(x + i), a); \
        b = _mm512_fmadd_ps(load_##type(w + (i + 16) * size), _mm512_loadu_ps(x + i + 16), b); \
        c = _mm512_fmadd_ps(load_##type(w + (i + 32) * size), _mm512_loadu_ps(x + i + 32), c); \
        d = _mm512_fmadd_ps(load_##type(w + (i + 48) * size), _mm512_loadu_ps(x + i + 48), d); \
      } \
      for (; i + 16 <= cols; i += 16) \
        a = _mm512_fmadd_ps(load_##type(w + i * size), _mm512_loadu_ps(x + i), a); \
      if (i < cols) \
        b = _mm512_fmadd_ps(part_##type(w + i * size, cols - i), \
                            _mm512_maskz_loadu_ps(first_lanes(cols - i), x + i), b); \
      y[row] = _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d))); \
    } \
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
