/* Each number of C is one chain of fused multiplications and additions for every DEPTH of its terms, and the
 * sums of these are added in their order: nothing depends on which other rows and columns there are, as it
 * does in a BLAS, nor on the level. Columns of B are packed into panels of DEPTH × COLS, small enough for the
 * first-level cache, while all rows pass, packed as well, as rows a power of two apart share cache lines;
 * sums of ROWS × COLS stay in registers. */
#include "linalg/multi/rows_product.h"
#include "base/memory.h"
#include "base/vector.h"

#include <string.h>

#if defined(__AVX512F__) || defined(__aarch64__)
enum { ROWS = 8, VECTORS = 3 }; /* of 32 registers 24 are sums */
#else
enum { ROWS = 4, VECTORS = 3 }; /* of 16 registers 12 */
#endif
enum { COLS = VECTORS * V, DEPTH = GPTVQ_ROWS_PRODUCT_DEPTH };

static void store(float *to, vfloat value) { memcpy(to, &value, sizeof value); }

/* c[ROWS × V · vectors] = a[ROWS × DEPTH] b[depth × COLS], added to what is there or subtracted from it;
 * `vectors` is a constant where it is inlined */
static inline __attribute__((always_inline)) void multiply(size_t vectors, bool first, bool subtract,
                                                           size_t depth, const float *a, const float *b,
                                                           float *c, size_t ldc) {
  vfloat sums[ROWS][VECTORS];
  for (size_t r = 0; r < ROWS; r++)
    for (size_t v = 0; v < vectors; v++) sums[r][v] = (vfloat){0};
  for (size_t p = 0; p < depth; p++) {
    vfloat columns[VECTORS];
    for (size_t v = 0; v < vectors; v++) columns[v] = LOAD(b + p * COLS + v * V);
    for (size_t r = 0; r < ROWS; r++) {
      const vfloat value = broadcast(a[r * DEPTH + p]);
      for (size_t v = 0; v < vectors; v++) sums[r][v] = multiply_add(value, columns[v], sums[r][v]);
    }
  }
  for (size_t r = 0; r < ROWS; r++)
    for (size_t v = 0; v < vectors; v++) {
      float *to = c + r * ldc + v * V;
      if (subtract) store(to, LOAD(to) - sums[r][v]);
      else if (first) store(to, sums[r][v]);
      else store(to, LOAD(to) + sums[r][v]);
    }
}

static void multiply_columns(size_t cols, bool first, bool subtract, size_t depth, const float *a,
                             const float *b, float *c, size_t ldc) {
  if (cols > 2 * V) multiply(3, first, subtract, depth, a, b, c, ldc);
  else if (cols > V) multiply(2, first, subtract, depth, a, b, c, ldc);
  else multiply(1, first, subtract, depth, a, b, c, ldc);
}

/* The same at the edges of C. */
static void multiply_edge(bool first, bool subtract, size_t depth, const float *a, const float *b,
                          size_t rows, size_t cols, float *c, size_t ldc) {
  float tile[ROWS * COLS] = {0};
  for (size_t r = 0; r < rows && (!first || subtract); r++)
    memcpy(tile + r * COLS, c + r * ldc, cols * sizeof *c);
  multiply_columns(cols, first, subtract, depth, a, b, tile, COLS);
  for (size_t r = 0; r < rows; r++) memcpy(c + r * ldc, tile + r * COLS, cols * sizeof *c);
}

/* out[height][width], what lies beyond x[rows × cols] being zero */
static void pack(size_t rows, size_t cols, size_t height, size_t width, const float *x, size_t ldx,
                 float *out) {
  for (size_t r = 0; r < height; r++) {
    const size_t count = r < rows ? cols : 0;
    if (count > 0) memcpy(out + r * width, x + r * ldx, count * sizeof *x);
    memset(out + r * width + count, 0, (width - count) * sizeof *x);
  }
}

void GPTVQ_MULTI(gptvq_rows_product_tile)(bool subtract, size_t m, size_t n, size_t k, const float *a,
                                          size_t lda, const float *b, size_t ldb, float *c, size_t ldc,
                                          float *packed) {
  float *left = packed, *right = packed + GPTVQ_ROWS_PRODUCT_HEIGHT * DEPTH;
  for (size_t from = 0; from < k; from += DEPTH) {
    const size_t depth = gptvq_min_size(DEPTH, k - from), filled = gptvq_round_up(m, ROWS);
    pack(m, depth, filled, DEPTH, a + from, lda, left);
    for (size_t p = 0; p < depth; p++)
      for (size_t j = 0; j < n; j += COLS) {
        const float *row = b + (from + p) * ldb + j;
        float *to = right + j * DEPTH + p * COLS;
        if (n - j >= COLS) memcpy(to, row, COLS * sizeof *to);
        else pack(1, n - j, 1, COLS, row, ldb, to);
      }
    for (size_t j = 0; j < n; j += COLS)
      for (size_t i = 0; i < m; i += ROWS) {
        const float *x = left + i * DEPTH, *y = right + j * DEPTH;
        float *out = c + i * ldc + j;
        const size_t rows = gptvq_min_size(ROWS, m - i), cols = gptvq_min_size(COLS, n - j);
        if (rows == ROWS && cols % V == 0) multiply_columns(cols, from == 0, subtract, depth, x, y, out, ldc);
        else multiply_edge(from == 0, subtract, depth, x, y, rows, cols, out, ldc);
      }
  }
}
