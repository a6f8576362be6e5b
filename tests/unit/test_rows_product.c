/* linalg/rows_product.h against sums in double, at every level, and rows alone against rows together. */
#include "base/random.h"
#include "linalg/multi/rows_product.h"
#include "linalg/rows_product.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef void tile_fn(bool, size_t, size_t, size_t, const float *, size_t, const float *, size_t, float *,
                     size_t, float *);

static float packed[GPTVQ_ROWS_PRODUCT_PACKED];

typedef struct matrices {
  size_t m, n, k, lda, ldb, ldc;
  float *a, *b, *c;
} matrices;

static float *random_matrix(size_t count, uint64_t seed) {
  float *x = malloc((count + 1) * sizeof *x);
  assert_non_null(x);
  for (size_t i = 0; i < count; i++) x[i] = (float)(gptvq_random_unit(&seed) - 0.5);
  return x;
}
static matrices make(size_t m, size_t n, size_t k) {
  matrices x = {m, n, k, k + 3, n + 1, n + 5, NULL, NULL, NULL};
  x.a = random_matrix(m * x.lda, 1);
  x.b = random_matrix(k * x.ldb, 2);
  x.c = random_matrix(m * x.ldc, 3);
  return x;
}
static void drop(matrices *x) { free(x->a), free(x->b), free(x->c); }

static const size_t shapes[][3] = {{1, 1, 1},    {3, 17, 5},     {8, 48, 128},    {9, 49, 129}, {5, 300, 31},
                                   {96, 64, 64}, {97, 289, 257}, {200, 130, 400}, {16, 80, 130}};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

/* A sum of k terms, and of ceil(k / 128) parts, errs by at most (k + 1) ulps of the sum of magnitudes. */
static void check(bool subtract, tile_fn *tile) {
  for (size_t s = 0; s < SHAPES; s++) {
    matrices x = make(shapes[s][0], shapes[s][1], shapes[s][2]);
    float *before = random_matrix(x.m * x.ldc, 3);
    if (tile != NULL && x.m > GPTVQ_ROWS_PRODUCT_HEIGHT) x.m = GPTVQ_ROWS_PRODUCT_HEIGHT;
    if (tile != NULL && x.n > GPTVQ_ROWS_PRODUCT_WIDTH) x.n = GPTVQ_ROWS_PRODUCT_WIDTH;
    if (tile != NULL) tile(subtract, x.m, x.n, x.k, x.a, x.lda, x.b, x.ldb, x.c, x.ldc, packed);
    else gptvq_rows_product(subtract, x.m, x.n, x.k, x.a, x.lda, x.b, x.ldb, x.c, x.ldc);
    for (size_t i = 0; i < x.m; i++)
      for (size_t j = 0; j < x.ldc; j++) {
        const double old = (double)before[i * x.ldc + j], is = (double)x.c[i * x.ldc + j];
        double sum = 0.0, size = fabs(old);
        for (size_t p = 0; p < x.k && j < x.n; p++) {
          const double term = (double)x.a[i * x.lda + p] * (double)x.b[p * x.ldb + j];
          sum += term, size += fabs(term);
        }
        const double wanted = j >= x.n ? old : subtract ? old - sum : sum;
        assert_true(fabs(is - wanted) <= (j >= x.n ? 0.0 : (double)(x.k + 2) * 0x1p-24 * size));
      }
    free(before);
    drop(&x);
  }
}

static void equals_the_sum(void **unused) {
  (void)unused;
  for (int subtract = 0; subtract < 2; subtract++) {
    check(subtract, NULL);
    check(subtract, gptvq_rows_product_tile_base);
#if defined(__x86_64__)
    if (gptvq_cpu() & GPTVQ_CPU_AVX2) check(subtract, gptvq_rows_product_tile_avx2);
    if (gptvq_cpu() & GPTVQ_CPU_AVX512) check(subtract, gptvq_rows_product_tile_avx512);
#endif
  }
}

static void levels_agree(void **unused) {
  (void)unused;
  matrices x = make(100, 101, 300), y = make(100, 101, 300);
  gptvq_rows_product(false, x.m, x.n, x.k, x.a, x.lda, x.b, x.ldb, x.c, x.ldc);
  gptvq_rows_product_tile_base(false, y.m, y.n, y.k, y.a, y.lda, y.b, y.ldb, y.c, y.ldc, packed);
  assert_memory_equal(x.c, y.c, x.m * x.ldc * sizeof *x.c);
  drop(&x);
  drop(&y);
}

static void rows_stand_alone(void **unused) {
  (void)unused;
  for (size_t s = 0; s < SHAPES; s++)
    for (int subtract = 0; subtract < 2; subtract++) {
      matrices x = make(shapes[s][0], shapes[s][1], shapes[s][2]);
      float *parts = random_matrix(x.m * x.ldc, 3);
      gptvq_rows_product(subtract, x.m, x.n, x.k, x.a, x.lda, x.b, x.ldb, x.c, x.ldc);
      for (size_t i = 0, count = 1; i < x.m; i += count, count = count * 3 % 29 + 1) {
        if (count > x.m - i) count = x.m - i;
        gptvq_rows_product(subtract, count, x.n, x.k, x.a + i * x.lda, x.lda, x.b, x.ldb, parts + i * x.ldc,
                           x.ldc);
      }
      assert_memory_equal(parts, x.c, x.m * x.ldc * sizeof *parts);
      free(parts);
      drop(&x);
    }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(equals_the_sum), cmocka_unit_test(levels_agree),
                                     cmocka_unit_test(rows_stand_alone)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
