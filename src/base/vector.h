/* base/vector.h: vectors of the width of the CPU level that a file of a multi/ folder is compiled for. The
 * compiler keeps them in registers, which it does not manage from plain loops. For such files alone. */
#ifndef GPTVQ_BASE_VECTOR_H
#define GPTVQ_BASE_VECTOR_H

#include <stdint.h>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
enum { V = 16 };
#elif defined(__AVX2__)
enum { V = 8 };
#else
enum { V = 4 };
#endif
typedef float vfloat __attribute__((vector_size(4 * V), aligned(4), may_alias));
typedef int32_t vint __attribute__((vector_size(4 * V), aligned(4), may_alias));

#define LOAD(p) (*(const vfloat *)(const void *)(p))
static inline vfloat broadcast(float x) { return x - (vfloat){0}; }
/* a · b + c rounded once, at every level: where there is no instruction for it, in libm. */
static inline vfloat multiply_add(vfloat a, vfloat b, vfloat c) {
#if defined(__AVX512F__)
  return (vfloat)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
  return (vfloat)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
  return (vfloat)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  for (int lane = 0; lane < V; lane++) c[lane] = __builtin_fmaf(a[lane], b[lane], c[lane]);
  return c;
#endif
}
#define BLEND(mask, yes, no) (((mask) & (yes)) | (~(mask) & (no)))

#endif
