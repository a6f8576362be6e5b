/* Sums over tokens of products of bf16 matrices with AVX512-BF16. vdpbf16ps multiplies pairs of neighbours
 * along the tokens: both operands are packed once as panels of COLS columns, [pair of tokens][column], from
 * which all tiles read. A tile of ROWS × COLS sums stays in 24 registers while all tokens of a chunk pass,
 * and goes from there to the sums in double. */
#include "linalg/x86/gemm_bf16.h"

#include <assert.h>
#include <immintrin.h>

enum { ROWS = 8, LANES = 16, VECTORS = 3, COLS = VECTORS * LANES };
static_assert((int)COLS == (int)GPTVQ_BF16_PANEL && COLS % ROWS == 0, "a tile's rows are of one panel");

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* The first so many of LANES. */
static __mmask16 first_lanes(size_t count) { return (__mmask16)((1u << least(LANES, count)) - 1); }

/* As gptvq_float_to_bf16, in the upper halves; what is in the lower ones does not count. */
static inline __m512i round_upper(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x),
                odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  return _mm512_mask_or_epi32(rounded, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), bits,
                              _mm512_set1_epi32(0x400000));
}

void gptvq_pack_pair_avx512(size_t n, size_t cols, const float *x, size_t ldx, size_t pairs, uint32_t *out) {
  const __m512i upper = _mm512_set1_epi32((int)0xffff0000u);
  for (size_t c = 0; c < cols; c += COLS, out += pairs * COLS)
    for (size_t v = 0; v < COLS; v += LANES) {
      const __mmask16 some = c + v < cols ? first_lanes(cols - c - v) : 0;
      const __m512i first = round_upper(_mm512_maskz_loadu_ps(some, x + c + v));
      const __m512i second =
          n > 1 ? round_upper(_mm512_maskz_loadu_ps(some, x + ldx + c + v)) : _mm512_setzero_si512();
      _mm512_storeu_si512(out + v,
                          _mm512_or_si512(_mm512_srli_epi32(first, 16), _mm512_and_si512(second, upper)));
    }
}

/* Where a tile belongs: rows × cols of the sums, in row r of them from column `hidden` + r on where it lies
 * on the diagonal (hidden + r < LANES). */
typedef struct place {
  double *sums;
  size_t lds, rows, cols, hidden;
  bool diagonal;
} place;

static inline __attribute__((always_inline)) void add(__m512 values, size_t row, size_t first,
                                                      const place *to) {
  __mmask16 some = first_lanes(to->cols - first);
  if (to->diagonal && first == 0) some = (__mmask16)(some & (0xffffu << (to->hidden + row)));
  const __mmask8 low = (__mmask8)some, high = (__mmask8)(some >> 8);
  double *sums = to->sums + row * to->lds + first;
  const __m512d left = _mm512_cvtps_pd(_mm512_castps512_ps256(values)),
                right = _mm512_cvtps_pd(_mm512_extractf32x8_ps(values, 1));
  _mm512_mask_storeu_pd(sums, low, _mm512_add_pd(_mm512_maskz_loadu_pd(low, sums), left));
  _mm512_mask_storeu_pd(sums + 8, high, _mm512_add_pd(_mm512_maskz_loadu_pd(high, sums + 8), right));
}

/* to.sums[r][c] += Σ_p a[p · COLS + r] · b[p · COLS + c]; `vectors` is a constant where it is inlined. */
static inline __attribute__((always_inline)) void multiply(size_t vectors, size_t pairs, const uint32_t *a,
                                                           const uint32_t *b, const place *to) {
  __m512 sums[ROWS][VECTORS];
  for (size_t r = 0; r < ROWS; r++)
    for (size_t v = 0; v < vectors; v++) sums[r][v] = _mm512_setzero_ps();
  for (size_t r = 0; r < to->rows; r++) /* they are far, and wanted when all is done */
    for (size_t c = 0; c < to->cols; c += 8)
      _mm_prefetch((const char *)(to->sums + r * to->lds + c), _MM_HINT_T0);
  for (size_t p = 0; p < pairs; p++) {
    __m512i columns[VECTORS];
    for (size_t v = 0; v < vectors; v++) columns[v] = _mm512_loadu_si512(b + p * COLS + v * LANES);
    for (size_t r = 0; r < ROWS; r++) {
      const __m512i pair = _mm512_set1_epi32((int)a[p * COLS + r]);
      for (size_t v = 0; v < vectors; v++)
        sums[r][v] = _mm512_dpbf16_ps(sums[r][v], (__m512bh)pair, (__m512bh)columns[v]);
    }
  }
  for (size_t r = 0; r < ROWS; r++)
    for (size_t v = 0; v < vectors && r < to->rows; v++) add(sums[r][v], r, v * LANES, to);
}

static void multiply_tile(size_t pairs, const uint32_t *a, const uint32_t *b, const place *to) {
  if (to->cols > 2 * LANES) multiply(3, pairs, a, b, to);
  else if (to->cols > LANES) multiply(2, pairs, a, b, to);
  else multiply(1, pairs, a, b, to);
}

void gptvq_add_panels_avx512(bool upper, size_t m, size_t n, size_t pairs, size_t chunk, const uint32_t *a,
                             const uint32_t *b, double *sums, size_t lds) {
  for (size_t p = 0; p < pairs; p += chunk)
    for (size_t j = 0; j < n; j += COLS)
      for (size_t i = 0; i < m && (!upper || i < least(n, j + COLS)); i += ROWS) {
        const bool diagonal = upper && i >= j;
        const size_t skipped = diagonal ? (i - j) / LANES * LANES : 0, column = j + skipped;
        const place to = {.sums = sums + i * lds + column,
                          .lds = lds,
                          .rows = least(ROWS, m - i),
                          .cols = least(COLS, n - j) - skipped,
                          .hidden = diagonal ? i - column : 0,
                          .diagonal = diagonal};
        multiply_tile(least(chunk, pairs - p), a + i / COLS * COLS * pairs + p * COLS + i % COLS,
                      b + j * pairs + p * COLS + skipped, &to);
      }
}
