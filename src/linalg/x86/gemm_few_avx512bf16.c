/* Products of few rows, tokens, with the rows of a matrix of weights, with AVX512-BF16. For them the weights'
 * way from memory is what takes time, and packing them as gemm_avx512bf16.c does: here they go from where
 * they are into registers, four rows of four pairs each, and a vector multiplies four rows by four tokens.
 * Sums are added up pair by pair as there, so that the bits are the same. */
#include "linalg/x86/gemm_bf16.h"

#include <immintrin.h>
#include <string.h>

/* A tile is QUADS · 4 rows of weights by `groups` · 4 tokens, at most GROUPS of them, whose sums are in
 * registers. PAIRS: of the tokens' numbers, packed, at a time. */
enum { QUADS = 4, ROWS = 4 * QUADS, GROUPS = 5, PAIRS = 512, MOST_GROUPS = GPTVQ_BF16_FEW / 4, LINE = 32 };

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* out[groups][pairs][4 tokens]: pairs along k of x[tokens × k], zeros beyond. */
static void pack_tokens(size_t tokens, size_t k, const uint16_t *x, size_t ldx, uint32_t *out) {
  const size_t pairs = (k + 1) / 2;
  for (size_t t = 0; t < tokens; t += 4)
    for (size_t p = 0; p < pairs; p += 4) {
      const __mmask8 inside = (__mmask8)((1u << least(8, k - 2 * p)) - 1);
      __m128i v[4];
      for (size_t i = 0; i < 4; i++)
        v[i] =
            t + i < tokens ? _mm_maskz_loadu_epi16(inside, x + (t + i) * ldx + 2 * p) : _mm_setzero_si128();
      const __m128i a = _mm_unpacklo_epi32(v[0], v[1]), b = _mm_unpacklo_epi32(v[2], v[3]),
                    c = _mm_unpackhi_epi32(v[0], v[1]), d = _mm_unpackhi_epi32(v[2], v[3]);
      const __m128i columns[4] = {_mm_unpacklo_epi64(a, b), _mm_unpackhi_epi64(a, b),
                                  _mm_unpacklo_epi64(c, d), _mm_unpackhi_epi64(c, d)};
      for (size_t i = 0; i < 4 && p + i < pairs; i++)
        _mm_storeu_si128((__m128i *)(void *)(out + (t / 4 * pairs + p + i) * 4), columns[i]);
    }
}

/* Lanes are 4 × 4: their transposition. */
static inline __m512 turn(__m512 v) {
  return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), v);
}

/* v[q]: its 128-bit lane t becomes lane q of v[t]. */
static inline void turn_lanes(__m512 v[QUADS]) {
  const __m512 a = _mm512_shuffle_f32x4(v[0], v[1], 0x44), b = _mm512_shuffle_f32x4(v[2], v[3], 0x44),
               c = _mm512_shuffle_f32x4(v[0], v[1], 0xee), d = _mm512_shuffle_f32x4(v[2], v[3], 0xee);
  v[0] = _mm512_shuffle_f32x4(a, b, 0x88);
  v[1] = _mm512_shuffle_f32x4(a, b, 0xdd);
  v[2] = _mm512_shuffle_f32x4(c, d, 0x88);
  v[3] = _mm512_shuffle_f32x4(c, d, 0xdd);
}

/* Four pairs, of which `inside` numbers are, of four rows. */
static inline __m512i load_rows(const uint16_t *b, size_t ldb, __mmask8 inside) {
  __m512i v = _mm512_castsi128_si512(_mm_maskz_loadu_epi16(inside, b));
  v = _mm512_inserti32x4(v, _mm_maskz_loadu_epi16(inside, b + ldb), 1);
  v = _mm512_inserti32x4(v, _mm_maskz_loadu_epi16(inside, b + 2 * ldb), 2);
  return _mm512_inserti32x4(v, _mm_maskz_loadu_epi16(inside, b + 3 * ldb), 3);
}

/* Pair 0 of w times pair `at` of x. */
static inline __attribute__((always_inline)) void add_pair(size_t groups, size_t pairs, size_t at,
                                                           const uint32_t *x, const __m512i w[QUADS],
                                                           __m512 sums[GROUPS][QUADS]) {
#pragma GCC unroll 5
  for (size_t g = 0; g < groups; g++) {
    const __m512i tokens =
        _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)(x + (g * pairs + at) * 4)));
#pragma GCC unroll 4
    for (size_t q = 0; q < QUADS; q++)
      sums[g][q] = _mm512_dpbf16_ps(sums[g][q], (__m512bh)w[q], (__m512bh)tokens);
  }
}

#define PAIR(j) \
  do { \
    __m512i pair[QUADS]; \
    for (size_t q = 0; q < QUADS; q++) pair[q] = _mm512_shuffle_epi32(w[q], (_MM_PERM_ENUM)((j)*0x55)); \
    add_pair(groups, pairs, p + (j), x, pair, sums); \
  } while (0)

/* c[tokens × ROWS], those of `rows`, = (add ? c : 0) + x · b[ROWS × k]ᵀ; `groups` is a constant where it is
 * inlined. */
static inline __attribute__((always_inline)) void multiply(size_t groups, size_t tokens, size_t k,
                                                           const uint32_t *x, const uint16_t *b, size_t ldb,
                                                           bool add, __mmask16 rows, float *c, size_t ldc) {
  const size_t pairs = (k + 1) / 2;
  /* what comes next in memory is most likely what is multiplied next; an address beyond does no harm */
  const uintptr_t next = (uintptr_t)b + ROWS * ldb * sizeof *b;
  __m512 sums[GROUPS][QUADS];
#pragma GCC unroll 5
  for (size_t g = 0; g < groups; g++) {
#pragma GCC unroll 4
    for (size_t t = 0; t < 4; t++)
      sums[g][t] = add && g * 4 + t < tokens ? _mm512_maskz_loadu_ps(rows, c + (g * 4 + t) * ldc)
                                             : _mm512_setzero_ps();
    turn_lanes(sums[g]);
#pragma GCC unroll 4
    for (size_t q = 0; q < QUADS; q++) sums[g][q] = turn(sums[g][q]);
  }
  size_t p = 0;
  for (; 2 * p + 8 <= k; p += 4) {
    __m512i w[QUADS];
    if (2 * p % LINE == 0)
      for (size_t r = 0; r < ROWS; r++)
        _mm_prefetch((const char *)(next + (r * ldb + 2 * p) * sizeof *b), _MM_HINT_T1);
#pragma GCC unroll 4
    for (size_t q = 0; q < QUADS; q++) w[q] = load_rows(b + 4 * q * ldb + 2 * p, ldb, 0xff);
    PAIR(0);
    PAIR(1);
    PAIR(2);
    PAIR(3);
  }
  if (2 * p < k) {
    __m512i w[QUADS];
    const __mmask8 inside = (__mmask8)((1u << (k - 2 * p)) - 1);
    for (size_t q = 0; q < QUADS; q++) w[q] = load_rows(b + 4 * q * ldb + 2 * p, ldb, inside);
    PAIR(0);
    if (p + 1 < pairs) PAIR(1);
    if (p + 2 < pairs) PAIR(2);
    if (p + 3 < pairs) PAIR(3);
  }
#pragma GCC unroll 5
  for (size_t g = 0; g < groups; g++) {
#pragma GCC unroll 4
    for (size_t q = 0; q < QUADS; q++) sums[g][q] = turn(sums[g][q]);
    turn_lanes(sums[g]);
#pragma GCC unroll 4
    for (size_t t = 0; t < 4; t++)
      if (g * 4 + t < tokens) _mm512_mask_storeu_ps(c + (g * 4 + t) * ldc, rows, sums[g][t]);
  }
}

static void multiply_tile(size_t tokens, size_t k, const uint32_t *x, const uint16_t *b, size_t ldb, bool add,
                          __mmask16 rows, float *c, size_t ldc) {
  switch ((tokens + 3) / 4) {
  case 1: multiply(1, tokens, k, x, b, ldb, add, rows, c, ldc); break;
  case 2: multiply(2, tokens, k, x, b, ldb, add, rows, c, ldc); break;
  case 3: multiply(3, tokens, k, x, b, ldb, add, rows, c, ldc); break;
  case 4: multiply(4, tokens, k, x, b, ldb, add, rows, c, ldc); break;
  default: multiply(GROUPS, tokens, k, x, b, ldb, add, rows, c, ldc); break;
  }
}

void gptvq_gemm_bf16_few_avx512(size_t m, size_t n, size_t k, const uint16_t *a, size_t lda,
                                const uint16_t *b, size_t ldb, float *c, size_t ldc) {
  static _Thread_local uint32_t packed[MOST_GROUPS * PAIRS * 4];
  const size_t groups = (m + 3) / 4, passes = (groups + GROUPS - 1) / GROUPS,
               tokens = (groups + passes - 1) / passes * 4, blocks = (k + 2 * PAIRS - 1) / (2 * PAIRS),
               depth = ((k + blocks - 1) / blocks + 7) / 8 * 8;
  for (size_t from = 0; from < k; from += depth) {
    const size_t some = least(depth, k - from), stride = (some + 1) / 2;
    pack_tokens(m, some, a + from, lda, packed);
    for (size_t j = 0; j < n; j += ROWS) {
      /* the last tile goes back over rows that are done, which it leaves as they are */
      const size_t row = least(j, n - ROWS);
      const __mmask16 rows = (__mmask16)(0xffffu << (j - row));
      for (size_t t = 0; t < m; t += tokens)
        multiply_tile(least(tokens, m - t), some, packed + t * stride, b + row * ldb + from, ldb, from > 0,
                      rows, c + t * ldc + row, ldc);
    }
  }
}
