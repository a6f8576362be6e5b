/* Products of bf16 matrices with AVX512-BF16. vdpbf16ps multiplies pairs of neighbours along k, so operands
 * are read as 32-bit pairs: of B a block of COLS columns and PAIRS pairs is packed as [pair][column], and
 * stays in the first-level cache while all rows pass; tiles of ROWS × COLS sums stay in 24 registers. */
#include "linalg/x86/gemm_bf16.h"

#include <immintrin.h>
#include <stdbool.h>
#include <string.h>

enum { ROWS = 8, LANES = 16, VECTORS = 3, COLS = VECTORS * LANES, PAIRS = 128 };

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* out[ROWS × LANES · vectors, rows of ldo] = (add ? out : 0) + Σ_p a[r · row + p · step] · b[p][column];
 * `vectors` is a constant where it is inlined. */
static inline __attribute__((always_inline)) void multiply(size_t vectors, size_t pairs, const uint32_t *a,
                                                           size_t row, size_t step, const uint32_t *b,
                                                           bool add, float *out, size_t ldo) {
  __m512 sums[ROWS][VECTORS];
  for (size_t r = 0; r < ROWS; r++)
    for (size_t v = 0; v < vectors; v++)
      sums[r][v] = add ? _mm512_loadu_ps(out + r * ldo + v * LANES) : _mm512_setzero_ps();
  for (size_t p = 0; p < pairs; p++) {
    __m512i columns[VECTORS];
    for (size_t v = 0; v < vectors; v++) columns[v] = _mm512_loadu_si512(b + p * COLS + v * LANES);
    for (size_t r = 0; r < ROWS; r++) {
      int32_t pair;
      memcpy(&pair, a + r * row + p * step, sizeof pair);
      __m512i broadcast = _mm512_set1_epi32(pair);
      for (size_t v = 0; v < vectors; v++)
        sums[r][v] = _mm512_dpbf16_ps(sums[r][v], (__m512bh)broadcast, (__m512bh)columns[v]);
    }
  }
  for (size_t r = 0; r < ROWS; r++)
    for (size_t v = 0; v < vectors; v++) _mm512_storeu_ps(out + r * ldo + v * LANES, sums[r][v]);
}

static void multiply_tile(size_t cols, size_t pairs, const uint32_t *a, size_t row, size_t step,
                          const uint32_t *b, bool add, float *out, size_t ldo) {
  if (cols > 2 * LANES) multiply(3, pairs, a, row, step, b, add, out, ldo);
  else if (cols > LANES) multiply(2, pairs, a, row, step, b, add, out, ldo);
  else multiply(1, pairs, a, row, step, b, add, out, ldo);
}

/* The same at the edges of C, where a tile has fewer rows or columns. a: packed. */
static void multiply_edge(size_t pairs, const uint32_t *a, const uint32_t *b, bool add, size_t rows,
                          size_t cols, float *c, size_t ldc) {
  float tile[ROWS * COLS];
  memset(tile, 0, sizeof tile);
  for (size_t r = 0; r < rows && add; r++) memcpy(tile + r * COLS, c + r * ldc, cols * sizeof *c);
  multiply_tile(cols, pairs, a, 1, ROWS, b, true, tile, COLS);
  for (size_t r = 0; r < rows; r++) memcpy(c + r * ldc, tile + r * COLS, cols * sizeof *c);
}

static uint32_t pair_of(uint16_t first, uint16_t second) { return (uint32_t)first | (uint32_t)second << 16; }

/* out[pair][width]: columns of x[k × ldx], pairs of rows; `cols` <= width, zeros beyond. */
static void pack_columns(size_t k, size_t cols, size_t width, const uint16_t *x, size_t ldx, uint32_t *out) {
  for (size_t p = 0; 2 * p < k; p++) {
    const uint16_t *first = x + 2 * p * ldx, *second = first + ldx;
    uint32_t *to = out + p * width;
    if (2 * p + 1 < k)
      for (size_t c = 0; c < cols; c++) to[c] = pair_of(first[c], second[c]);
    else
      for (size_t c = 0; c < cols; c++) to[c] = pair_of(first[c], 0);
    for (size_t c = cols; c < width; c++) to[c] = 0;
  }
}

/* out[pair][width]: rows of x[rows × ldx], pairs along k. */
static void pack_rows(size_t k, size_t rows, size_t width, const uint16_t *x, size_t ldx, uint32_t *out) {
  for (size_t r = 0; r < width; r++)
    for (size_t p = 0; 2 * p < k; p++) {
      const uint16_t *at = x + r * ldx + 2 * p;
      out[p * width + r] = r < rows ? pair_of(at[0], 2 * p + 1 < k ? at[1] : 0) : 0;
    }
}

void gptvq_gemm_bf16_nt_avx512(size_t m, size_t n, size_t k, const uint16_t *a, size_t lda, const uint16_t *b,
                               size_t ldb, float *c, size_t ldc) {
  static _Thread_local uint32_t block[PAIRS * COLS], edge[PAIRS * ROWS];
  for (size_t j = 0; j < n; j += COLS)
    for (size_t from = 0; from < k; from += 2 * PAIRS) {
      size_t depth = least(2 * PAIRS, k - from), cols = least(COLS, n - j);
      pack_rows(depth, cols, COLS, b + j * ldb + from, ldb, block);
      for (size_t i = 0; i < m; i += ROWS) {
        const uint16_t *x = a + i * lda + from;
        float *out = c + i * ldc + j;
        if (m - i >= ROWS && cols % LANES == 0 && depth % 2 == 0 && lda % 2 == 0) {
          multiply_tile(cols, depth / 2, (const uint32_t *)(const void *)x, lda / 2, 1, block, from > 0, out,
                        ldc);
          continue;
        }
        pack_rows(depth, least(ROWS, m - i), ROWS, x, lda, edge);
        multiply_edge((depth + 1) / 2, edge, block, from > 0, least(ROWS, m - i), cols, out, ldc);
      }
    }
}

void gptvq_gemm_bf16_tn_avx512(size_t m, size_t n, size_t k, const uint16_t *a, size_t lda, const uint16_t *b,
                               size_t ldb, float *c, size_t ldc) {
  static _Thread_local uint32_t block[PAIRS * COLS], rows[PAIRS * GPTVQ_BF16_TN_ROWS];
  for (size_t from = 0; from < k; from += 2 * PAIRS) {
    size_t depth = least(2 * PAIRS, k - from), pairs = (depth + 1) / 2;
    for (size_t i = 0; i < m; i += ROWS)
      pack_columns(depth, least(ROWS, m - i), ROWS, a + from * lda + i, lda, rows + i * PAIRS);
    for (size_t j = 0; j < n; j += COLS) {
      size_t cols = least(COLS, n - j);
      pack_columns(depth, cols, COLS, b + from * ldb + j, ldb, block);
      for (size_t i = 0; i < m; i += ROWS) {
        float *out = c + i * ldc + j;
        if (m - i >= ROWS && cols % LANES == 0)
          multiply_tile(cols, pairs, rows + i * PAIRS, 1, ROWS, block, from > 0, out, ldc);
        else multiply_edge(pairs, rows + i * PAIRS, block, from > 0, least(ROWS, m - i), cols, out, ldc);
      }
    }
  }
}
