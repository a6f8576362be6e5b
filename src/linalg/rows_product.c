#include "linalg/rows_product.h"
#include "base/memory.h"
#include "base/threads.h"
#include "linalg/multi/rows_product.h"

enum { MOST_ROWS = GPTVQ_ROWS_PRODUCT_HEIGHT, TILE_COLS = GPTVQ_ROWS_PRODUCT_WIDTH, TOGETHER = 8 };

typedef struct job {
  bool subtract;
  size_t m, n, k, lda, ldb, ldc, tile_rows, tiles_n;
  const float *a, *b;
  float *c;
} job;

static void multiply_tiles(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  static _Thread_local float packed[GPTVQ_ROWS_PRODUCT_PACKED];
  const job *w = context;
  for (size_t tile = begin; tile < end; tile++) {
    const size_t i = tile / w->tiles_n * w->tile_rows, j = tile % w->tiles_n * TILE_COLS;
    GPTVQ_MULTI_PICK(gptvq_rows_product_tile)
    (w->subtract, gptvq_min_size(w->tile_rows, w->m - i), gptvq_min_size(TILE_COLS, w->n - j), w->k,
     w->a + i * w->lda, w->lda, w->b + j, w->ldb, w->c + i * w->ldc + j, w->ldc, packed);
  }
}

void gptvq_rows_product(bool subtract, size_t m, size_t n, size_t k, const float *a, size_t lda,
                        const float *b, size_t ldb, float *c, size_t ldc) {
  job w = {subtract, m, n, k, lda, ldb, ldc, 0, gptvq_ceil_div(n, TILE_COLS), a, b, c};
  if (m == 0 || n == 0) return;
  /* B is packed again for each tile: as few as there can be, of the same height, but one for each thread */
  const size_t parts =
      gptvq_max_size(gptvq_ceil_div(m, MOST_ROWS), gptvq_ceil_div(gptvq_thread_count(), w.tiles_n));
  w.tile_rows = gptvq_round_up(gptvq_ceil_div(m, parts), TOGETHER);
  gptvq_parallel_for(gptvq_ceil_div(m, w.tile_rows) * w.tiles_n, 1, multiply_tiles, &w);
}
