/* Products of bf16 matrices with AMX-BF16: of B a block of COLS columns and DEPTH numbers along k is packed
 * as [pair][column] and stays near while all rows pass; 32 × 32 sums in four tiles. Of a transposed A rows
 * are packed too. */
#include "linalg/x86/gemm_bf16.h"
#include "base/x86/tiles_amx.h"
#include "base/x86/transpose_avx512.h"

#include <assert.h>
#include <immintrin.h>
#include <string.h>

enum { SIDE = 16, ROWS = 2 * SIDE, COLS = 2 * SIDE, STEP = 32 /* of k, in a tile */, DEPTH = 512 };

/* Tiles 0 … 3 are sums, 4 and 5 of A, 6 and 7 of B.
 * out[ROWS or, not `tall`, SIDE rows × COLS, rows of ldo] = (add ? out : 0) + A · B; a: rows of lda, b:
 * [steps · SIDE pairs][COLS] */
static inline __attribute__((always_inline)) void multiply(bool tall, size_t steps, const uint16_t *a,
                                                           size_t lda, const uint32_t *b, bool add,
                                                           float *out, size_t ldo) {
  const size_t row = lda * sizeof *a, ldo_bytes = ldo * sizeof *out;
  __asm__ volatile("" ::: "memory"); /* gcc does not know that tiles are loaded from memory */
  if (add) {
    _tile_loadd(0, out, ldo_bytes);
    _tile_loadd(1, out + SIDE, ldo_bytes);
    if (tall) _tile_loadd(2, out + SIDE * ldo, ldo_bytes);
    if (tall) _tile_loadd(3, out + SIDE * ldo + SIDE, ldo_bytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  for (size_t s = 0; s < steps; s++, a += STEP, b += SIDE * COLS) {
    _tile_loadd(4, a, row);
    _tile_loadd(6, b, COLS * sizeof *b);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b + SIDE, COLS * sizeof *b);
    _tile_dpbf16ps(1, 4, 7);
    if (!tall) continue;
    _tile_loadd(5, a + SIDE * lda, row);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, out, ldo_bytes);
  _tile_stored(1, out + SIDE, ldo_bytes);
  if (tall) _tile_stored(2, out + SIDE * ldo, ldo_bytes);
  if (tall) _tile_stored(3, out + SIDE * ldo + SIDE, ldo_bytes);
}

/* Columns [first, first + SIDE) of STEP rows of x as pairs of neighbours in a column: values[pair][column].
 * Rows beyond `depth` and columns beyond `cols` are zeros. */
static inline __attribute__((always_inline)) void load_pairs(size_t depth, size_t cols, const uint16_t *x,
                                                             size_t ldx, __m512i values[SIDE]) {
  const __mmask16 some = (__mmask16)(cols >= SIDE ? 0xffffu : (1u << cols) - 1u);
  for (size_t p = 0; p < SIDE; p++) {
    const uint16_t *row = x + 2 * p * ldx;
    values[p] = _mm512_setzero_si512();
    if (2 * p < depth) values[p] = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(some, row));
    if (2 * p + 1 < depth)
      values[p] = _mm512_or_si512(
          values[p], _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(some, row + ldx)), 16));
  }
}

/* out[depth rounded up to STEP, as pairs][COLS] of x[depth × ldx], of which `cols` columns are; zeros beyond.
 */
static void pack_columns(size_t depth, size_t cols, const uint16_t *x, size_t ldx, uint32_t *out) {
  for (size_t from = 0; from < depth; from += STEP, out += SIDE * COLS)
    for (size_t first = 0; first < COLS; first += SIDE) {
      __m512i values[SIDE];
      const size_t left = cols > first ? cols - first : 0;
      load_pairs(left > 0 ? depth - from : 0, left, x + from * ldx + first, ldx, values);
      for (size_t p = 0; p < SIDE; p++) _mm512_store_si512(out + p * COLS + first, values[p]);
    }
}

/* out[cols rounded up to ROWS][DEPTH]: columns of x[depth × ldx] become rows; zeros up to a multiple of STEP.
 */
static void pack_transposed(size_t depth, size_t cols, const uint16_t *x, size_t ldx, uint16_t *out) {
  for (size_t first = 0; first < cols; first += ROWS)
    for (size_t half = first; half < first + ROWS; half += SIDE)
      for (size_t from = 0; from < depth; from += STEP) {
        __m512i values[SIDE];
        const size_t left = cols > half ? cols - half : 0;
        load_pairs(left > 0 ? depth - from : 0, left, x + from * ldx + half, ldx, values);
        gptvq_transpose_16(values);
        for (size_t r = 0; r < SIDE; r++) _mm512_store_si512(out + (half + r) * DEPTH + from, values[r]);
      }
}

/* out[depth rounded up to STEP, as pairs][COLS]: rows of x[rows × ldx] become columns; zeros beyond. */
static void pack_rows(size_t depth, size_t rows, const uint16_t *x, size_t ldx, uint32_t *out) {
  for (size_t from = 0; from < depth; from += STEP, out += SIDE * COLS) {
    const size_t left = depth - from;
    const __mmask32 inside = left >= STEP ? 0xffffffffu : (1u << left) - 1u;
    for (size_t first = 0; first < COLS; first += SIDE) {
      __m512i values[SIDE];
      for (size_t r = 0; r < SIDE; r++)
        values[r] = first + r < rows ? _mm512_maskz_loadu_epi16(inside, x + (first + r) * ldx + from)
                                     : _mm512_setzero_si512();
      gptvq_transpose_16(values);
      for (size_t p = 0; p < SIDE; p++) _mm512_store_si512(out + p * COLS + first, values[p]);
    }
  }
}

/* The same at the edges: rows <= ROWS, cols <= COLS, any depth <= DEPTH. */
static void multiply_edge(size_t rows, size_t cols, size_t depth, const uint16_t *a, size_t lda,
                          const uint32_t *b, bool add, float *c, size_t ldc) {
  static _Thread_local _Alignas(64) uint16_t numbers[ROWS * DEPTH];
  _Alignas(64) float sums[ROWS * COLS];
  const size_t steps = (depth + STEP - 1) / STEP, width = steps * STEP, height = rows > SIDE ? ROWS : SIDE;
  if (rows < ROWS || depth < width) { /* nothing is read beyond A, and what is not there is zero */
    for (size_t r = 0; r < height; r++) {
      const size_t there = r < rows ? depth : 0;
      memcpy(numbers + r * width, a + (r < rows ? r * lda : 0), there * sizeof *a);
      memset(numbers + r * width + there, 0, (width - there) * sizeof *a);
    }
    a = numbers;
    lda = width;
  }
  for (size_t r = 0; r < rows && add; r++) memcpy(sums + r * COLS, c + r * ldc, cols * sizeof *c);
  if (height == ROWS) multiply(true, steps, a, lda, b, add, sums, COLS);
  else multiply(false, steps, a, lda, b, add, sums, COLS);
  for (size_t r = 0; r < rows; r++) memcpy(c + r * ldc, sums + r * COLS, cols * sizeof *c);
}

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* How B is read: its rows are those of Bᵀ [n × k], or of B [k × n]. */
typedef enum layout { TRANSPOSED, PLAIN } layout;

static inline __attribute__((always_inline)) void product(layout how, bool add, size_t m, size_t n, size_t k,
                                                          const uint16_t *a, size_t lda, const uint16_t *b,
                                                          size_t ldb, float *c, size_t ldc) {
  static _Thread_local _Alignas(64) uint32_t block[DEPTH / 2 * COLS];
  gptvq_tiles_begin();
  for (size_t j = 0; j < n; j += COLS)
    for (size_t from = 0; from < k; from += DEPTH) {
      const size_t depth = least(DEPTH, k - from), cols = least(COLS, n - j);
      if (how == TRANSPOSED) pack_rows(depth, cols, b + j * ldb + from, ldb, block);
      else pack_columns(depth, cols, b + from * ldb + j, ldb, block);
      for (size_t i = 0; i < m; i += ROWS) {
        const uint16_t *x = a + i * lda + from;
        float *out = c + i * ldc + j;
        if (m - i >= ROWS && cols == COLS && depth % STEP == 0)
          multiply(true, depth / STEP, x, lda, block, add || from > 0, out, ldc);
        else multiply_edge(least(ROWS, m - i), cols, depth, x, lda, block, add || from > 0, out, ldc);
      }
    }
  _tile_release();
}

/* c[cols × ldc], `rows` <= ROWS columns of it, = or += the sums' [ROWS × COLS] columns */
static void store_transposed(size_t rows, size_t cols, const float *sums, bool add, float *c, size_t ldc) {
  for (size_t i = 0; i < rows; i += SIDE)
    for (size_t j = 0; j < cols; j += SIDE) {
      const __mmask16 some = (__mmask16)(rows - i >= SIDE ? 0xffffu : (1u << (rows - i)) - 1u);
      __m512i values[SIDE];
      for (size_t r = 0; r < SIDE; r++) values[r] = _mm512_load_si512(sums + (i + r) * COLS + j);
      gptvq_transpose_16(values);
      for (size_t r = 0; r < SIDE && j + r < cols; r++) {
        float *out = c + (j + r) * ldc + i;
        __m512 value = _mm512_castsi512_ps(values[r]);
        if (add) value = _mm512_add_ps(_mm512_maskz_loadu_ps(some, out), value);
        _mm512_mask_storeu_ps(out, some, value);
      }
    }
}

/* A · Bᵀ of at most COLS rows of A, as the transpose of B · Aᵀ: what is packed is A, and B, of which every
 * number is used but once, is read as it lies. */
static void few_rows(size_t m, size_t n, size_t k, const uint16_t *a, size_t lda, const uint16_t *b,
                     size_t ldb, float *c, size_t ldc) {
  static _Thread_local _Alignas(64) uint32_t block[DEPTH / 2 * COLS];
  _Alignas(64) float sums[ROWS * COLS];
  gptvq_tiles_begin();
  for (size_t from = 0; from < k; from += DEPTH) {
    const size_t depth = least(DEPTH, k - from);
    pack_rows(depth, m, a + from, lda, block);
    for (size_t j = 0; j < n; j += ROWS) {
      const uint16_t *rows = b + j * ldb + from;
      if (n - j >= ROWS && depth % STEP == 0)
        multiply(true, depth / STEP, rows, ldb, block, false, sums, COLS);
      else multiply_edge(least(ROWS, n - j), COLS, depth, rows, ldb, block, false, sums, COLS);
      store_transposed(least(ROWS, n - j), m, sums, from > 0, c + j, ldc);
    }
  }
  _tile_release();
}

void gptvq_gemm_bf16_nt_amx(size_t m, size_t n, size_t k, const uint16_t *a, size_t lda, const uint16_t *b,
                            size_t ldb, float *c, size_t ldc) {
  if (m <= COLS) {
    few_rows(m, n, k, a, lda, b, ldb, c, ldc);
    return;
  }
  product(TRANSPOSED, false, m, n, k, a, lda, b, ldb, c, ldc);
}

void gptvq_gemm_bf16_nn_amx(size_t m, size_t n, size_t k, const uint16_t *a, size_t lda, const uint16_t *b,
                            size_t ldb, float *c, size_t ldc) {
  product(PLAIN, true, m, n, k, a, lda, b, ldb, c, ldc);
}

void gptvq_gemm_bf16_tn_amx(bool upper, size_t m, size_t n, size_t k, const uint16_t *a, size_t lda,
                            const uint16_t *b, size_t ldb, float *c, size_t ldc) {
  static _Thread_local _Alignas(64) uint32_t block[DEPTH / 2 * COLS];
  static _Thread_local _Alignas(64) uint16_t rows[GPTVQ_BF16_TN_ROWS * DEPTH];
  static_assert(GPTVQ_BF16_TN_ROWS % ROWS == 0, "blocks of rows are whole");
  gptvq_tiles_begin();
  for (size_t from = 0; from < k; from += DEPTH) {
    const size_t depth = least(DEPTH, k - from), steps = (depth + STEP - 1) / STEP;
    pack_transposed(depth, m, a + from * lda, lda, rows);
    for (size_t j = 0; j < n; j += COLS) {
      const size_t cols = least(COLS, n - j), end = upper ? least(m, j + cols) : m;
      pack_columns(depth, cols, b + from * ldb + j, ldb, block);
      for (size_t i = 0; i < end; i += ROWS) {
        float *out = c + i * ldc + j;
        if (m - i >= ROWS && cols == COLS)
          multiply(true, steps, rows + i * DEPTH, DEPTH, block, from > 0, out, ldc);
        else
          multiply_edge(least(ROWS, m - i), cols, steps * STEP, rows + i * DEPTH, DEPTH, block, from > 0, out,
                        ldc);
      }
    }
  }
  _tile_release();
}
