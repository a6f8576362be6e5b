/* Packed rows × many tokens with AVX-512 VNNI: 2 × 12 accumulators, two registers of weights, one broadcast
 * of activations. */
#include "kernels/gemm_i8.h"
#include "kernels/x86/transpose_avx512.h"

#include <immintrin.h>
#include <string.h>

enum { ROWS = GPTVQ_GEMM_ROWS, TOKENS = GPTVQ_GEMM_TOKENS };

/* 16 rows of 64 bytes at `from` (row stride in bytes) to 16 quads of 16 rows at `to` (64 bytes each, `step`
 * bytes apart). */
static inline void transpose(const int8_t *from, size_t stride, uint8_t *to, size_t step) {
  const __m512i flip = _mm512_set1_epi8((char)0x80);
  __m512i a[16];
#pragma GCC unroll 16
  for (size_t i = 0; i < 16; i++) a[i] = _mm512_xor_si512(_mm512_load_si512(from + i * stride), flip);
  gptvq_transpose_16(a);
#pragma GCC unroll 16
  for (size_t i = 0; i < 16; i++) _mm512_store_si512(to + i * step, a[i]);
}

static void pack(const int8_t *codes, size_t stride, size_t quads, uint8_t *weights) {
  size_t q = 0;
  for (; q + 16 <= quads; q += 16) {
    transpose(codes + 4 * q, stride, weights + q * ROWS * 4, ROWS * 4);
    transpose(codes + 16 * stride + 4 * q, stride, weights + q * ROWS * 4 + 64, ROWS * 4);
  }
  gptvq_gemm_pack_ref(codes + 4 * q, stride, quads - q, weights + q * ROWS * 4);
}

static void multiply(const gptvq_gemm_block *block) {
  const uint8_t *weights = block->weights;
  const int8_t *x = block->x;
  float *sums = block->sums;
  memset(sums, 0, TOKENS * ROWS * sizeof *sums);
  for (size_t s = 0; s < block->segments; s++) {
    const int32_t *corrections = block->corrections + s * TOKENS;
    const float *scales = block->x_scales + s * TOKENS;
    __m512i low[TOKENS], high[TOKENS];
#pragma GCC unroll 12
    for (size_t t = 0; t < TOKENS; t++) low[t] = high[t] = _mm512_set1_epi32(corrections[t]);
    for (size_t q = s + 1 == block->segments ? block->last_quads : block->quads; q > 0; q--) {
      __m512i a = _mm512_load_si512(weights), b = _mm512_load_si512(weights + 64);
#pragma GCC unroll 12
      for (size_t t = 0; t < TOKENS; t++) {
        int32_t quad;
        memcpy(&quad, x + 4 * t, sizeof quad);
        __m512i v = _mm512_set1_epi32(quad);
        low[t] = _mm512_dpbusd_epi32(low[t], a, v);
        high[t] = _mm512_dpbusd_epi32(high[t], b, v);
        GPTVQ_KEEP(
            low[t]); /* in its register: gcc 12 would keep half of the sums in memory, at half the speed */
        GPTVQ_KEEP(high[t]);
      }
      weights += ROWS * 4;
      x += TOKENS * 4;
    }
    __m512 a = _mm512_load_ps(block->weight_scales + s * ROWS),
           b = _mm512_load_ps(block->weight_scales + s * ROWS + 16);
#pragma GCC unroll 12
    for (size_t t = 0; t < TOKENS; t++) {
      __m512 scale = _mm512_set1_ps(scales[t]);
      float *y = sums + t * ROWS;
      _mm512_store_ps(
          y, _mm512_fmadd_ps(_mm512_cvtepi32_ps(low[t]), _mm512_mul_ps(a, scale), _mm512_load_ps(y)));
      _mm512_store_ps(y + 16, _mm512_fmadd_ps(_mm512_cvtepi32_ps(high[t]), _mm512_mul_ps(b, scale),
                                              _mm512_load_ps(y + 16)));
    }
  }
}

static uint64_t peak(uint64_t times) {
  __m512i sums[2 * TOKENS], a = _mm512_setzero_si512(), b = a;
#pragma GCC unroll 24
  for (size_t t = 0; t < 2 * TOKENS; t++) sums[t] = a;
  for (uint64_t i = 0; i < times; i++)
#pragma GCC unroll 24
    for (size_t t = 0; t < 2 * TOKENS; t++) {
      sums[t] = _mm512_dpbusd_epi32(sums[t], a, b);
      GPTVQ_KEEP(sums[t]);
    }
  return times * 2 * TOKENS * 64;
}

void gptvq_kernels_init_gemm_avx512(gptvq_kernel_table *table) {
  table->i8_peak = peak;
  table->gemm_pack = pack;
  table->gemm_block = multiply;
}
