#include "linalg/sums.h"
#include "base/memory.h"
#include "base/threads.h"

#include <stdint.h>

typedef struct tiles {
  const gptvq_sums *s;
  size_t across;
} tiles;

void gptvq_add_in_double(size_t n, const float *x, double *sums) {
  for (size_t i = 0; i < n; i++) sums[i] += (double)x[i];
}

/* One tile of the sums meets all chunks while it is in the cache. */
static void add_tiles(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const tiles *job = context;
  const gptvq_sums *s = job->s;
  static _Thread_local float product[GPTVQ_SUMS_TILE * GPTVQ_SUMS_TILE];
  for (size_t tile = begin; tile < end; tile++) {
    size_t i = tile / job->across * s->tile, j = tile % job->across * s->tile;
    if (s->upper && j < i) continue;
    const bool upper = s->upper && i == j;
    const char *a = (const char *)s->a + i * s->size, *b = (const char *)s->b + j * s->size;
    size_t m = gptvq_min_size(s->tile, s->m - i), n = gptvq_min_size(s->tile, s->n - j);
    for (size_t t = 0; t < s->tokens; t += s->chunk) {
      s->multiply(upper, m, n, gptvq_min_size(s->chunk, s->tokens - t), a + t * s->lda * s->size, s->lda,
                  b + t * s->ldb * s->size, s->ldb, product);
      for (size_t r = 0; r < m; r++) {
        const size_t c = upper ? r : 0;
        s->add(n - c, product + r * GPTVQ_SUMS_TILE + c, s->sums + (i + r) * s->n + j + c);
      }
    }
  }
}

void gptvq_sums_add(const gptvq_sums *s) {
  if (s->m == 0 || s->n == 0) return;
  tiles job = {s, gptvq_ceil_div(s->n, s->tile)};
  gptvq_parallel_for(gptvq_ceil_div(s->m, s->tile) * job.across, 1, add_tiles, &job);
}
