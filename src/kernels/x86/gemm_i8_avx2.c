/* Packed rows × many tokens with AVX2: sums of 16 rows × 6 tokens in registers. Bytes are taken as 16-bit
 * numbers, even and odd ones apart, for vpmaddwd: two instructions per 16 products, where vpmaddubsw would
 * need four per 32 and both signs changed. Activations are widened once per segment and call, weights (code +
 * 128, so by a mask and a shift) as they are loaded. */
#include "kernels/gemm_i8.h"
#include "kernels/x86/x86.h"

#include <immintrin.h>
#include <string.h>

enum { ROWS = GPTVQ_GEMM_ROWS, TOKENS = GPTVQ_GEMM_TOKENS, HALF = TOKENS / 2, PIECE = 64 /* quads */ };

/* 8 rows of 32 bytes at `from` (row stride in bytes) to 8 quads of 8 rows at `to` (32 bytes each, ROWS · 4
 * bytes apart). */
GPTVQ_INLINE void transpose(const int8_t *from, size_t stride, uint8_t *to) {
  const __m256i flip = _mm256_set1_epi8((char)0x80);
  __m256i a[8], b[8];
#pragma GCC unroll 8
  for (size_t i = 0; i < 8; i++)
    a[i] = _mm256_xor_si256(_mm256_load_si256((const void *)(from + i * stride)), flip);
#pragma GCC unroll 4
  for (size_t i = 0; i < 8; i += 2) {
    b[i] = _mm256_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm256_unpackhi_epi32(a[i], a[i + 1]);
  }
#pragma GCC unroll 2
  for (size_t i = 0; i < 8; i += 4) { /* a[i + j]: column j of each 128-bit lane, rows i … i + 3 */
    a[i] = _mm256_unpacklo_epi64(b[i], b[i + 2]);
    a[i + 1] = _mm256_unpackhi_epi64(b[i], b[i + 2]);
    a[i + 2] = _mm256_unpacklo_epi64(b[i + 1], b[i + 3]);
    a[i + 3] = _mm256_unpackhi_epi64(b[i + 1], b[i + 3]);
  }
#pragma GCC unroll 4
  for (size_t j = 0; j < 4; j++) {
    _mm256_store_si256((void *)(to + j * ROWS * 4), _mm256_permute2x128_si256(a[j], a[4 + j], 0x20));
    _mm256_store_si256((void *)(to + (4 + j) * ROWS * 4), _mm256_permute2x128_si256(a[j], a[4 + j], 0x31));
  }
}

static void pack(const int8_t *codes, size_t stride, size_t quads, uint8_t *weights) {
  size_t q = 0;
  for (; q + 8 <= quads; q += 8)
    for (size_t r = 0; r < ROWS; r += 8)
      transpose(codes + r * stride + 4 * q, stride, weights + (q * ROWS + r) * 4);
  gptvq_gemm_pack_ref(codes + 4 * q, stride, quads - q, weights + q * ROWS * 4);
}

/* Widened activations of up to PIECE quads: of quad q and token t, bytes 0 and 2, and 1 and 3, as pairs of 16
 * bits. */
typedef struct wide_input {
  _Alignas(32) int32_t even[PIECE * TOKENS], odd[PIECE * TOKENS];
} wide_input;

GPTVQ_INLINE void widen(const int8_t *x, size_t quads, wide_input *wide) {
  const size_t n = quads * TOKENS;
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    __m256i v = _mm256_loadu_si256((const void *)(x + 4 * i));
    _mm256_store_si256((void *)(wide->even + i), _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8));
    _mm256_store_si256((void *)(wide->odd + i), _mm256_srai_epi16(v, 8));
  }
  if (i < n) { /* TOKENS is a multiple of 4 */
    __m128i v = _mm_loadu_si128((const void *)(x + 4 * i));
    _mm_store_si128((void *)(wide->even + i), _mm_srai_epi16(_mm_slli_epi16(v, 8), 8));
    _mm_store_si128((void *)(wide->odd + i), _mm_srai_epi16(v, 8));
  }
}

/* One pair of bytes of 16 rows times HALF tokens. */
GPTVQ_INLINE void multiply_pairs(__m256i a, __m256i b, const int32_t *x, __m256i totals[HALF][2]) {
#pragma GCC unroll 6
  for (size_t t = 0; t < HALF; t++) {
    const __m256i q = _mm256_set1_epi32(x[t]);
    totals[t][0] = _mm256_add_epi32(totals[t][0], _mm256_madd_epi16(a, q));
    totals[t][1] = _mm256_add_epi32(totals[t][1], _mm256_madd_epi16(b, q));
    GPTVQ_KEEP(totals[t][0]);
    GPTVQ_KEEP(totals[t][1]);
  }
}

/* 16 rows × HALF tokens over some quads, on top of totals */
GPTVQ_INLINE void multiply_quads(const uint8_t *weights, const int32_t *even, const int32_t *odd,
                                 size_t quads, __m256i totals[HALF][2]) {
  const __m256i mask = _mm256_set1_epi16(255);
  for (; quads > 0; quads--, weights += ROWS * 4, even += TOKENS, odd += TOKENS) {
    const __m256i *w = (const void *)weights;
    multiply_pairs(_mm256_and_si256(_mm256_load_si256(w), mask),
                   _mm256_and_si256(_mm256_load_si256(w + 1), mask), even, totals);
    multiply_pairs(_mm256_srli_epi16(_mm256_load_si256(w), 8), _mm256_srli_epi16(_mm256_load_si256(w + 1), 8),
                   odd, totals);
  }
}

/* A segment of more than PIECE quads leaves its int32 sums in memory between pieces. */
static void multiply(const gptvq_gemm_block *block) {
  const uint8_t *weights = block->weights;
  const int8_t *x = block->x;
  float *sums = block->sums;
  wide_input wide;
  _Alignas(32) int32_t kept[TOKENS * ROWS];
  memset(sums, 0, TOKENS * ROWS * sizeof *sums);
  for (size_t s = 0; s < block->segments; s++) {
    size_t left = s + 1 == block->segments ? block->last_quads : block->quads;
    for (bool first = true; left > 0; first = false) {
      const size_t quads = left < PIECE ? left : PIECE;
      const bool last = quads == left;
      widen(x, quads, &wide);
      for (size_t r = 0; r < ROWS; r += 16)
        for (size_t t0 = 0; t0 < TOKENS; t0 += HALF) {
          __m256i totals[HALF][2];
#pragma GCC unroll 6
          for (size_t t = 0; t < HALF; t++) {
            const __m256i *from = (const void *)(kept + (t0 + t) * ROWS + r);
            totals[t][0] = totals[t][1] = _mm256_set1_epi32(block->corrections[s * TOKENS + t0 + t]);
            if (!first) totals[t][0] = _mm256_load_si256(from), totals[t][1] = _mm256_load_si256(from + 1);
          }
          multiply_quads(weights + 4 * r, wide.even + t0, wide.odd + t0, quads, totals);
          const __m256 a = _mm256_load_ps(block->weight_scales + s * ROWS + r),
                       b = _mm256_load_ps(block->weight_scales + s * ROWS + r + 8);
#pragma GCC unroll 6
          for (size_t t = 0; t < HALF; t++) {
            const __m256 scale = _mm256_set1_ps(block->x_scales[s * TOKENS + t0 + t]);
            float *y = sums + (t0 + t) * ROWS + r;
            __m256i *to = (void *)(kept + (t0 + t) * ROWS + r);
            if (!last) {
              _mm256_store_si256(to, totals[t][0]);
              _mm256_store_si256(to + 1, totals[t][1]);
              continue;
            }
            _mm256_store_ps(y, _mm256_fmadd_ps(_mm256_cvtepi32_ps(totals[t][0]), _mm256_mul_ps(a, scale),
                                               _mm256_load_ps(y)));
            _mm256_store_ps(y + 8, _mm256_fmadd_ps(_mm256_cvtepi32_ps(totals[t][1]), _mm256_mul_ps(b, scale),
                                                   _mm256_load_ps(y + 8)));
          }
        }
      weights += quads * ROWS * 4;
      x += quads * TOKENS * 4;
      left -= quads;
    }
  }
}

static uint64_t peak(uint64_t times) {
  enum { SUMS = 12 };
  __m256i sums[SUMS], a = _mm256_setzero_si256(), b = a;
#pragma GCC unroll 12
  for (size_t t = 0; t < SUMS; t++) sums[t] = a;
  for (uint64_t i = 0; i < times; i++) {
    GPTVQ_KEEP(a); /* as unknown as weights are */
    GPTVQ_KEEP(b);
#pragma GCC unroll 12
    for (size_t t = 0; t < SUMS; t++) {
      __m256i pairs = _mm256_madd_epi16(a, b);
      GPTVQ_KEEP(pairs);
      sums[t] = _mm256_add_epi32(sums[t], pairs);
      GPTVQ_KEEP(sums[t]);
    }
  }
  return times * SUMS * 16;
}

void gptvq_kernels_init_gemm_avx2(gptvq_kernel_table *table) {
  table->i8_peak = peak;
  table->gemm_pack = pack;
  table->gemm_block = multiply;
}
