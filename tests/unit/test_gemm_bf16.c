/* linalg/gemm_bf16.h and the bf16 table of linalg/solve/backend.h, against sums in double. */
#include "base/half.h"
#include "base/memory.h"
#include "base/random.h"
#include "linalg/gemm_bf16.h"
#include "linalg/solve/backend.h"

#include <gptvq/status.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

/* More than one tile in both directions, more than one chunk of rows, tails everywhere. */
enum { M = 270, C = 519, N = 1100, LDX = C + 3, LDY = M + 5 };

static float rounded(float x) { return gptvq_bf16_to_float(gptvq_float_to_bf16(x)); }

static float *numbers(size_t count, uint64_t seed) {
  float *x = gptvq_alloc(count, sizeof *x);
  for (size_t i = 0; i < count; i++) x[i] = (float)(2.0 * gptvq_random_unit(&seed) - 1.0);
  return x;
}

/* sums[m × C] = start + Yᵀ X, from `begin` columns on in each row. Products of bf16 numbers are exact in
 * fp32; a sum of n of them is off by n · 2^-24 · Σ |y x| at most. */
static void check_sums(const char *what, size_t m, const float *y, size_t ldy, const float *x, double start,
                       bool upper, const double *sums) {
  for (size_t i = 0; i < m; i++)
    for (size_t j = 0; j < C; j++) {
      double sum = start, scale = 0.0, got = sums[i * C + j];
      for (size_t t = 0; t < N && (!upper || j >= i); t++) {
        double product = (double)rounded(y[t * ldy + i]) * (double)rounded(x[t * LDX + j]);
        sum += product;
        scale += fabs(product);
      }
      if (!(fabs(got - sum) <= N * 0x1p-24 * scale))
        fail_msg("%s: row %zu, column %zu is %.9g, should be %.9g", what, i, j, got, sum);
    }
}

static void sums_are_those_of_rounded_inputs(void **state) {
  (void)state;
  if (!gptvq_gemm_bf16_available()) skip();
  float *x = numbers(N * LDX, 1), *y = numbers(N * LDY, 2);
  double *h = gptvq_alloc(C * C, sizeof *h), *again = gptvq_alloc(C * C, sizeof *again);
  for (int cross = 0; cross < 2; cross++) {
    size_t m = cross ? M : C;
    for (int threads = 1; threads <= 3; threads += 2) {
      double *sums = threads == 1 ? h : again;
      for (size_t i = 0; i < C * C; i++) sums[i] = 0.5;
      gptvq_set_threads(threads);
      assert_int_equal(cross ? gptvq_cpu_linalg_bf16.cross(M, C, N, 256, y, LDY, x, LDX, sums, NULL)
                             : gptvq_cpu_linalg_bf16.gram(C, N, 256, x, LDX, sums, NULL),
                       GPTVQ_OK);
    }
    assert_memory_equal(h, again, m * C * sizeof *h);
    check_sums(cross ? "cross" : "gram", m, cross ? y : x, cross ? LDY : LDX, x, 0.5, !cross, h);
  }
  gptvq_set_threads(0);
  free(x);
  free(y);
  free(h);
  free(again);
}

static void rows_are_rounded(void **state) {
  (void)state;
  float *x = numbers(70 * LDX, 3);
  uint16_t *out = gptvq_alloc(70 * C, sizeof *out);
  x[5] = NAN;
  gptvq_rows_to_bf16(70, C, x, LDX, out);
  for (size_t t = 0; t < 70; t++)
    for (size_t c = 0; c < C; c++) assert_int_equal(out[t * C + c], gptvq_float_to_bf16(x[t * LDX + c]));
  free(x);
  free(out);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(sums_are_those_of_rounded_inputs),
                                     cmocka_unit_test(rows_are_rounded)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
