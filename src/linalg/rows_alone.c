/* Do rows of products depend on how many there are? Kernels for the last few rows of a matrix may add up in
 * another order, and tiles are larger in large products. */
#include "base/memory.h"
#include "base/random.h"
#include "linalg/gemm.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_ROWS = 1100 };

/* Parts of the rows of C = alpha A B + beta C, multiplied on their own; each must be what it is in the whole.
 */
static bool try_shape(size_t m, size_t n, size_t k, float alpha, float beta, const float *a, const float *b,
                      float *whole, float *part) {
  const size_t ends[] = {8, 8 + 21, m / 2, m - 24, m};
  for (size_t i = 0; i < m * n; i++) whole[i] = part[i] = a[i % (m * k)];
  gptvq_gemm_nn(m, n, k, alpha, a, k, b, n, beta, whole, n);
  for (size_t i = 0, at = 0; i < sizeof ends / sizeof ends[0]; at = ends[i++])
    gptvq_gemm_nn(ends[i] - at, n, k, alpha, a + at * k, k, b, n, beta, part + at * n, n);
  return memcmp(whole, part, m * n * sizeof *whole) == 0;
}

static bool stand_alone;
static void try_all(void) {
  enum { SHAPES = 2 };
  static const size_t shapes[SHAPES][3] = {{MOST_ROWS, 1024, 700}, {600, 768, 768}};
  const size_t most = (size_t)MOST_ROWS * 1100;
  float *memory = gptvq_alloc(4 * most, sizeof *memory);
  uint64_t random = 3;
  if (memory == NULL) return;
  for (size_t i = 0; i < 2 * most; i++) memory[i] = (float)(gptvq_random_unit(&random) - 0.5);
  stand_alone = true;
  for (size_t s = 0; s < SHAPES && stand_alone; s++)
    for (int pass = 0; pass < 2; pass++)
      stand_alone = stand_alone && try_shape(shapes[s][0], shapes[s][1], shapes[s][2],
                                             pass == 0 ? 1.0f : -1.0f, pass == 0 ? 0.0f : 1.0f, memory,
                                             memory + most, memory + 2 * most, memory + 3 * most);
  free(memory);
}

bool gptvq_gemm_rows_stand_alone(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  (void)pthread_once(&once, try_all);
  return stand_alone;
}
