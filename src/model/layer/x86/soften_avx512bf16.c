#include "model/layer/x86/soften.h"

#include <immintrin.h>
#include <math.h>

enum { LANES = 16 };
#define LOG2E 1.44269504f

static inline __mmask16 inside(size_t i, size_t n) {
  const unsigned lanes = n - i >= LANES ? 0xffffu : (1u << (n - i)) - 1;
  return (__mmask16)lanes;
}

/* 2^t = 2^k 2^f with |f| <= 1/2, and the Taylor sum to f^5: truncation below 3e-6 of the result. */
static inline __m512 power_of_two(__m512 t) {
  const __m512 k = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
               f = _mm512_sub_ps(t, k);
  __m512 p = _mm512_set1_ps(1.33335581e-3f);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.61812911e-3f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.55041087e-2f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.40226507e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.93147181e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, k);
}

void gptvq_soften_bf16_avx512(size_t count, const float *scores, gptvq_softmax *run, size_t dim, float *out,
                              uint16_t *weights) {
  const __m512 least = _mm512_set1_ps(-INFINITY);
  __m512 most = least, sum = _mm512_setzero_ps();
  for (size_t i = 0; i < count; i += LANES)
    most = _mm512_max_ps(_mm512_mask_loadu_ps(least, inside(i, count), scores + i), most);
  const float top = _mm512_reduce_max_ps(most);
  if (top > run->maximum) {
    const float shrink = expf(run->maximum - top);
    run->sum *= shrink;
    for (size_t i = 0; i < dim; i++) out[i] *= shrink;
    run->maximum = top;
  }
  const __m512 maximum = _mm512_set1_ps(run->maximum), scale = _mm512_set1_ps(LOG2E);
  for (size_t i = 0; i < count; i += LANES) {
    const __mmask16 some = inside(i, count);
    const __m512 t = _mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(some, scores + i), maximum), scale);
    const __m512 e = _mm512_maskz_mov_ps(some, power_of_two(t));
    const __m256bh rounded = _mm512_cvtneps_pbh(e);
    sum = _mm512_add_ps(sum, e);
    _mm256_mask_storeu_epi16(weights + i, some, (__m256i)rounded);
  }
  run->sum += _mm512_reduce_add_ps(sum);
}
