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

/* More than one tile in both directions, more than one chunk of rows, an odd number of them, tails
 * everywhere. */
enum { M = 270, C = 519, N = 1101, LDX = C + 3, LDY = M + 5 };

static float rounded(float x) { return gptvq_bf16_to_float(gptvq_float_to_bf16(x)); }

static float *numbers(size_t count, uint64_t seed) {
  float *x = gptvq_alloc(count, sizeof *x);
  for (size_t i = 0; i < count; i++) x[i] = (float)(2.0 * gptvq_random_unit(&seed) - 1.0);
  return x;
}

/* sums[m × C] = start + Yᵀ X of n rows, from `begin` columns on in each row. Products of bf16 numbers are
 * exact in fp32; a sum of n of them is off by n · 2^-24 · Σ |y x| at most. */
static void check_sums(const char *level, const char *what, size_t m, size_t n, const float *y, size_t ldy,
                       const float *x, double start, bool upper, const double *sums) {
  for (size_t i = 0; i < m; i++)
    for (size_t j = 0; j < C; j++) {
      double sum = start, scale = 0.0, got = sums[i * C + j];
      for (size_t t = 0; t < n && (!upper || j >= i); t++) {
        double product = (double)rounded(y[t * ldy + i]) * (double)rounded(x[t * LDX + j]);
        sum += product;
        scale += fabs(product);
      }
      if (!(fabs(got - sum) <= (double)n * 0x1p-24 * scale))
        fail_msg("%s, %s of %zu rows: row %zu, column %zu is %.9g, should be %.9g", level, what, n, i, j, got,
                 sum);
    }
}

static void check_all_sums(const char *level) {
  static const size_t counts[] = {N, 1023, 7, 1, 0};
  float *x = numbers(N * LDX, 1), *y = numbers(N * LDY, 2);
  double *h = gptvq_alloc(C * C, sizeof *h), *again = gptvq_alloc(C * C, sizeof *again);
  for (size_t k = 0; k < 2 * sizeof counts / sizeof counts[0]; k++) {
    const bool cross = k % 2 != 0;
    const size_t m = cross ? M : C, n = counts[k / 2];
    for (int threads = 1; threads <= 3; threads += 2) {
      double *sums = threads == 1 ? h : again;
      for (size_t i = 0; i < C * C; i++) sums[i] = 0.5;
      gptvq_set_threads(threads);
      assert_int_equal(
          cross
              ? gptvq_cpu_linalg_bf16.cross(&gptvq_cpu_linalg_bf16, M, C, n, 256, y, LDY, x, LDX, sums, NULL)
              : gptvq_cpu_linalg_bf16.gram(&gptvq_cpu_linalg_bf16, C, n, 256, x, LDX, sums, NULL),
          GPTVQ_OK);
    }
    assert_memory_equal(h, again, m * C * sizeof *h);
    check_sums(level, cross ? "cross" : "gram", m, n, cross ? y : x, cross ? LDY : LDX, x, 0.5, !cross, h);
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

/* Tails of all kinds, odd depths and strides, more than one block of the depth. Sums as above. */
static void check_products(const char *level) {
  static const size_t shapes[][3] = {{8, 48, 64},  {192, 192, 64},  {17, 50, 33},   {5, 16, 1},    {5, 15, 7},
                                     {9, 64, 600}, {100, 70, 1100}, {64, 64, 1024}, {20, 33, 2307}};
  for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
    for (int plain = 0; plain < 2; plain++) {
      const size_t m = shapes[s][0], n = shapes[s][1], k = shapes[s][2], lda = k + s, ldc = n + 2,
                   rows = plain ? k : n, ldb = plain ? n + s : k + s;
      float *x = numbers(m * lda, 4), *y = numbers(rows * ldb, 5), *c = gptvq_alloc(m * ldc, sizeof *c);
      uint16_t *a = gptvq_alloc(m * lda, sizeof *a), *b = gptvq_alloc(rows * ldb, sizeof *b);
      gptvq_to_bf16(m * lda, x, a);
      gptvq_to_bf16(rows * ldb, y, b);
      for (size_t i = 0; i < m * ldc; i++) c[i] = 0.5f;
      if (plain) gptvq_gemm_bf16_nn(m, n, k, a, lda, b, ldb, c, ldc);
      else gptvq_gemm_bf16_nt(m, n, k, a, lda, b, ldb, c, ldc);
      for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < ldc; j++) {
          double sum = plain || j >= n ? 0.5 : 0.0, scale = fabs(sum), got = (double)c[i * ldc + j];
          for (size_t t = 0; t < k && j < n; t++) {
            double product =
                (double)rounded(x[i * lda + t]) * (double)rounded(plain ? y[t * ldb + j] : y[j * ldb + t]);
            sum += product;
            scale += fabs(product);
          }
          if (!(fabs(got - sum) <= (double)(k + 1) * 0x1p-24 * scale))
            fail_msg("%s, %zu x %zu x %zu, %d: row %zu, column %zu is %.9g, should be %.9g", level, m, n, k,
                     plain, i, j, got, sum);
        }
      free(x);
      free(y);
      free(c);
      free(a);
      free(b);
    }
}

/* What few rows take is another way to the same bits as what many take: at the edges of groups of tokens, of
 * tiles of rows, of blocks of the depth. */
static void few_rows_have_the_bits_of_many(void **state) {
  (void)state;
  enum { MANY = 200, WEIGHTS = 45, MOST = 2064 };
  static const size_t depths[] = {1, 2, 7, 8, 33, 64, 1023, 1024, 1026, 2059},
                      counts[] = {1, 4, 5, 20, 21, 44, 80};
  if (gptvq_set_cpu("avx512", NULL) != GPTVQ_OK || !gptvq_gemm_bf16_available()) skip();
  float *x = numbers(MANY * MOST, 7), *y = numbers(WEIGHTS * MOST, 8);
  float *many = gptvq_alloc(MANY * WEIGHTS, sizeof *many), *few = gptvq_alloc(MANY * WEIGHTS, sizeof *few);
  uint16_t *a = gptvq_alloc(MANY * MOST, sizeof *a), *b = gptvq_alloc(WEIGHTS * MOST, sizeof *b);
  y[5 * MOST] = INFINITY;
  x[2 * MOST] = 0.0f; /* times infinity */
  gptvq_to_bf16(MANY * MOST, x, a);
  gptvq_to_bf16(WEIGHTS * MOST, y, b);
  for (size_t d = 0; d < sizeof depths / sizeof depths[0]; d++) {
    gptvq_gemm_bf16_nt(MANY, WEIGHTS, depths[d], a, MOST, b, MOST, many, WEIGHTS);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
      gptvq_gemm_bf16_nt(counts[i], WEIGHTS, depths[d], a, MOST, b, MOST, few, WEIGHTS);
      if (memcmp(few, many, counts[i] * WEIGHTS * sizeof *few) != 0)
        fail_msg("%zu rows of depth %zu differ from the same among %d", counts[i], depths[d], MANY);
    }
  }
  gptvq_set_cpu("auto", NULL);
  free(x);
  free(y);
  free(many);
  free(few);
  free(a);
  free(b);
}

/* The threaded ones: more than one tile in both directions, tails; the same bits for 1 and 3 threads. Sums as
 * above, and a rounding by the factor. Some rows and columns are compared. */
static void check_tiled(const char *level) {
  typedef void tiled(size_t, size_t, size_t, float, const uint16_t *, size_t, const uint16_t *, size_t,
                     float *, size_t);
  static tiled *const products[] = {gptvq_gemm_bf16_tiled_nt, gptvq_gemm_bf16_tiled_nn,
                                    gptvq_gemm_bf16_tiled_tn};
  enum { ROWS = 521, COLS = 531, DEPTH = 75 };
  for (int how = 0; how < 3; how++) {
    const size_t lda = how == 2 ? ROWS + 1 : DEPTH, a_rows = how == 2 ? DEPTH : ROWS,
                 ldb = how == 0 ? DEPTH + 2 : COLS + 3, b_rows = how == 0 ? COLS : DEPTH, ldc = COLS + 2;
    float *x = numbers(a_rows * lda, 7), *y = numbers(b_rows * ldb, 8),
          *c[2] = {numbers(ROWS * ldc, 9), numbers(ROWS * ldc, 9)};
    uint16_t *a = gptvq_alloc(a_rows * lda, sizeof *a), *b = gptvq_alloc(b_rows * ldb, sizeof *b);
    gptvq_to_bf16(a_rows * lda, x, a);
    gptvq_to_bf16(b_rows * ldb, y, b);
    for (int i = 0; i < 2; i++) {
      gptvq_set_threads(i == 0 ? 1 : 3);
      products[how](ROWS, COLS, DEPTH, 0.3f, a, lda, b, ldb, c[i], ldc);
    }
    gptvq_set_threads(0);
    assert_memory_equal(c[0], c[1], ROWS * ldc * sizeof **c);
    float *before = numbers(ROWS * ldc, 9);
    for (size_t i = 0; i < ROWS; i += 5)
      for (size_t j = 0; j < ldc; j++) {
        double sum = 0.0, scale = 0.0, got = (double)c[0][i * ldc + j];
        if (j >= COLS) {
          assert_true(c[0][i * ldc + j] == before[i * ldc + j]);
          continue;
        }
        for (size_t t = 0; t < DEPTH; t++) {
          double product = 0.3f * (double)rounded(how == 2 ? x[t * lda + i] : x[i * lda + t]) *
                           (double)rounded(how == 0 ? y[j * ldb + t] : y[t * ldb + j]);
          sum += product;
          scale += fabs(product);
        }
        if (!(fabs(got - sum) <= (double)(DEPTH + 1) * 0x1p-24 * scale))
          fail_msg("%s, tiled %d: row %zu, column %zu is %.9g, should be %.9g", level, how, i, j, got, sum);
      }
    free(before);
    free(x);
    free(y);
    free(c[0]);
    free(c[1]);
    free(a);
    free(b);
  }
}

static void at_all_levels(void (*check)(const char *level)) {
  static const char *const levels[] = {"avx512", "amx"};
  size_t checked = 0;
  for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
    if (gptvq_set_cpu(levels[i], NULL) != GPTVQ_OK || !gptvq_gemm_bf16_available()) continue;
    check(levels[i]);
    checked++;
  }
  gptvq_set_cpu("auto", NULL);
  if (checked == 0) skip();
}

/* A number whose upper half looks like infinity, too: finite sums would hide it from calib/hessian.c. */
static void check_bad_numbers(const char *level) {
  enum { BAD = 50, ROWS = 3, COLS = 60 };
  float *x = numbers(ROWS * COLS, 9);
  double *h = gptvq_alloc_zero(COLS * COLS, sizeof *h);
  x[1 * COLS + BAD] = gptvq_bits_float(0x7f800001u);
  assert_int_equal(gptvq_cpu_linalg_bf16.gram(&gptvq_cpu_linalg_bf16, COLS, ROWS, 256, x, COLS, h, NULL),
                   GPTVQ_OK);
  for (size_t i = 0; i < COLS; i++)
    if (isnan(h[i * COLS + i]) != (i == BAD)) fail_msg("%s: diagonal %zu is %g", level, i, h[i * COLS + i]);
  free(x);
  free(h);
}

static void bad_numbers_show_in_sums(void **state) {
  (void)state;
  at_all_levels(check_bad_numbers);
}

static void products(void **state) {
  (void)state;
  at_all_levels(check_products);
}

static void tiled_products(void **state) {
  (void)state;
  at_all_levels(check_tiled);
}

static void sums_are_those_of_rounded_inputs(void **state) {
  (void)state;
  at_all_levels(check_all_sums);
}

/* In its own memory, too. */
static void numbers_are_rounded(void **state) {
  (void)state;
  static const uint32_t special[] = {0x7f800001u, 0xffc00000u, 0x7f800000u, 0xff800000u, 0x7f7fffffu,
                                     0x00000001u, 0x80007fffu, 0x3f808000u, 0x3f818000u, 0x80000000u};
  enum { COUNT = 37, SPECIAL = sizeof special / sizeof special[0] };
  float x[COUNT], *own = numbers(COUNT, 6);
  uint16_t out[COUNT];
  for (size_t i = 0; i < SPECIAL; i++) own[i] = gptvq_bits_float(special[i]);
  memcpy(x, own, sizeof x);
  gptvq_to_bf16(COUNT, x, out);
  gptvq_to_bf16(COUNT, own, (uint16_t *)(void *)own);
  for (size_t i = 0; i < COUNT; i++) assert_int_equal(out[i], gptvq_float_to_bf16(x[i]));
  assert_memory_equal(own, out, sizeof out);
  free(own);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(sums_are_those_of_rounded_inputs),
                                     cmocka_unit_test(bad_numbers_show_in_sums),
                                     cmocka_unit_test(rows_are_rounded),
                                     cmocka_unit_test(products),
                                     cmocka_unit_test(few_rows_have_the_bits_of_many),
                                     cmocka_unit_test(tiled_products),
                                     cmocka_unit_test(numbers_are_rounded)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
