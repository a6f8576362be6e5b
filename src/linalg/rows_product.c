#include "linalg/rows_product.h"
#include "base/memory.h"
#include "base/threads.h"
#include "linalg/multi/rows_product.h"

enum { TILE_ROWS = GPTVQ_ROWS_PRODUCT_HEIGHT, TILE_COLS = GPTVQ_ROWS_PRODUCT_WIDTH };

typedef struct job {
  bool subtract;
  size_t m, n, k, lda, ldb, ldc, tiles_n;
  const float *a, *b;
  float *c;
} job;

static void multiply_tiles(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  static _Thread_local float packed[GPTVQ_ROWS_PRODUCT_PACKED];
  const job *w = context;
  for (size_t tile = begin; tile < end; tile++) {
    const size_t i = tile / w->tiles_n * TILE_ROWS, j = tile % w->tiles_n * TILE_COLS;
    GPTVQ_MULTI_PICK(gptvq_rows_product_tile)
    (w->subtract, gptvq_min_size(TILE_ROWS, w->m - i), gptvq_min_size(TILE_COLS, w->n - j), w->k,
     w->a + i * w->lda, w->lda, w->b + j, w->ldb, w->c + i * w->ldc + j, w->ldc, packed);
  }
}

void gptvq_rows_product(bool subtract, size_t m, size_t n, size_t k, const float *a, size_t lda,
                        const float *b, size_t ldb, float *c, size_t ldc) {
  job w = {subtract, m, n, k, lda, ldb, ldc, gptvq_ceil_div(n, TILE_COLS), a, b, c};
  gptvq_parallel_for(gptvq_ceil_div(m, TILE_ROWS) * w.tiles_n, 1, multiply_tiles, &w);
}
