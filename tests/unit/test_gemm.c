/* linalg/gemm.h: products with a triangle, against sums in double. */
#include "base/memory.h"
#include "base/random.h"
#include "linalg/gemm.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

/* More than one tile in both directions, tails, room between the rows. */
enum { M = 270, N = 531, LDA = N + 1, LDU = N + 2, LDC = N + 3 };

static float *numbers(size_t count, uint64_t seed) {
  float *x = gptvq_alloc(count, sizeof *x);
  for (size_t i = 0; i < count; i++) x[i] = (float)(2.0 * gptvq_random_unit(&seed) - 1.0);
  return x;
}

/* A sum of n products is off by n · 2^-24 · Σ |a u| at most, a rounding of each product included. */
static void triangles_are_multiplied(void **state) {
  (void)state;
  float *a = numbers(M * LDA, 1), *u = numbers(N * LDU, 2), *c = numbers(M * LDC, 3),
        *again = numbers(M * LDC, 3), *before = numbers(M * LDC, 3);
  for (size_t r = 0; r < N; r++)
    for (size_t col = 0; col < r; col++) u[r * LDU + col] = 0.0f;
  for (int plain = 0; plain < 2; plain++) {
    for (int threads = 1; threads <= 3; threads += 2) {
      gptvq_set_threads(threads);
      if (plain) gptvq_gemm_nn_upper(M, N, a, LDA, u, LDU, threads == 1 ? c : again, LDC);
      else gptvq_gemm_nt_upper(M, N, a, LDA, u, LDU, threads == 1 ? c : again, LDC);
    }
    assert_memory_equal(c, again, M * LDC * sizeof *c);
    for (size_t i = 0; i < M; i += 7)
      for (size_t j = 0; j < LDC; j++) {
        double sum = 0.0, scale = 0.0, got = (double)c[i * LDC + j];
        for (size_t k = 0; k < N && j < N; k++) {
          const double product = (double)a[i * LDA + k] * (double)u[plain ? k * LDU + j : j * LDU + k];
          sum += product;
          scale += fabs(product);
        }
        if (j >= N) assert_true(c[i * LDC + j] == before[i * LDC + j]);
        else if (!(fabs(got - sum) <= (N + 1) * 0x1p-24 * scale))
          fail_msg("%s: row %zu, column %zu is %.9g, should be %.9g", plain ? "U" : "its transpose", i, j,
                   got, sum);
      }
  }
  gptvq_set_threads(0);
  free(a);
  free(u);
  free(c);
  free(again);
  free(before);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(triangles_are_multiplied)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
