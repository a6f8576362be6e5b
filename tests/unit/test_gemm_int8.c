/* int8 products by oneDNN: exact, for strides, shapes and extremes; and packed layers get the same bytes by
 * them as by their own kernels. */
#define _GNU_SOURCE
#include "packed_fixture.h"

#include "linalg/gemm_int8.h"
#include "linalg/onednn.h"
#include "model/linear.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static uint64_t seed = 31;

static void exact(void **state) {
  (void)state;
  static const size_t shapes[][3] = {{1, 1, 1},     {1, 16, 64},     {12, 32, 256},
                                     {70, 33, 100}, {256, 128, 256}, {5, 7, 1000}};
  if (!gptvq_onednn_works(GPTVQ_ONEDNN_INT8)) skip();
  for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
    for (int extreme = 0; extreme < 2; extreme++) {
      size_t m = shapes[s][0], n = shapes[s][1], k = shapes[s][2], lda = k + 5, ldb = k + 64, ldc = n + 3;
      int8_t *a = gptvq_alloc(m * lda, 1), *b = gptvq_alloc(n * ldb, 1);
      int32_t *c = gptvq_alloc(m * ldc, sizeof *c);
      for (size_t i = 0; i < m * lda; i++)
        a[i] = extreme ? (i % 3 ? 127 : -127) : (int8_t)gptvq_random(&seed);
      for (size_t i = 0; i < n * ldb; i++) b[i] = extreme ? -128 : (int8_t)gptvq_random(&seed);
      for (size_t i = 0; i < m * ldc; i++) c[i] = 77;
      assert_true(gptvq_gemm_int8_serial_nt(m, n, k, a, lda, b, ldb, c, ldc));
      for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < ldc; j++) {
          int32_t sum = 0;
          for (size_t l = 0; l < k && j < n; l++) sum += (int32_t)a[i * lda + l] * b[j * ldb + l];
          if (c[i * ldc + j] != (j < n ? sum : 77))
            fail_msg("%zu x %zu x %zu: element %zu %zu is %d, not %d", m, n, k, i, j, c[i * ldc + j], sum);
        }
      free(a);
      free(b);
      free(c);
    }
}

enum { TOKENS = 45 };

/* GPTVQ_GEMM is read once per process: this test binary runs with it set to onednn, so that a layer takes
 * that way here; the kernels are called by hand. */
static void same_bytes_as_kernels(void **state) {
  (void)state;
  static const gptvq_packed_shape shapes[] = {
      {GPTVQ_PACKED_VQ, 200, 512, 2, 4, 8, 256, 8, 0, false, 0, 0},
      {GPTVQ_PACKED_VQ, 150, 1024, 4, 8, 128, 256, 8, 64, true, 0, 0},
      {GPTVQ_PACKED_VQ, 70, 397, 1, 3, 2, 256, 8, 0, true, 0, 0},
      {GPTVQ_PACKED_UNIFORM, 130, 512, 1, 4, 1, 512, 0, 128, true, 0, 0}};
  if (!gptvq_onednn_works(GPTVQ_ONEDNN_INT8)) skip();
  assert_true(gptvq_gemm_int8_wanted());
  for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
    const gptvq_packed_shape *shape = &shapes[s];
    fixture f = fixture_make(shape, s + 1);
    gptvq_linear linear = {
        .name = "test", .rows = shape->rows, .cols = shape->cols, .is_packed = true, .packed = f.packed};
    float *x = gptvq_alloc(TOKENS * shape->cols, sizeof *x),
          *y = gptvq_alloc(TOKENS * shape->rows, sizeof *y);
    float *expected = gptvq_alloc(TOKENS * shape->rows, sizeof *expected);
    for (size_t i = 0; i < TOKENS * shape->cols; i++) x[i] = (float)(2.0 * gptvq_random_unit(&seed) - 1.0);
    assert_int_equal(
        gptvq_linear_forward(&linear, GPTVQ_COMPUTE_INT8, TOKENS, x, shape->cols, y, shape->rows, NULL),
        GPTVQ_OK);
    assert_int_equal(gptvq_set_cpu("ref", NULL), GPTVQ_OK);
    size_t bytes = gptvq_packed_gemm_input_bytes(shape), blocks = gptvq_ceil_div(TOKENS, GPTVQ_GEMM_BLOCK);
    char *inputs = gptvq_alloc(blocks * bytes, 1);
    void *panel = gptvq_alloc(gptvq_packed_gemm_panel_bytes(shape, shape->rows), 1);
    for (size_t b = 0; b < blocks; b++)
      gptvq_packed_gemm_prepare(&f.packed, x + b * GPTVQ_GEMM_BLOCK * shape->cols, shape->cols,
                                gptvq_min_size(GPTVQ_GEMM_BLOCK, TOKENS - b * GPTVQ_GEMM_BLOCK),
                                inputs + b * bytes);
    gptvq_packed_gemm_i8(&f.packed, inputs, TOKENS, 0, shape->rows, expected, shape->rows, panel);
    gptvq_set_cpu("auto", NULL);
    if (memcmp(y, expected, TOKENS * shape->rows * sizeof *y) != 0)
      fail_msg("shape %zu: other bytes than the kernels'", s);
    free(x);
    free(y);
    free(expected);
    free(inputs);
    free(panel);
    fixture_release(&f);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(exact), cmocka_unit_test(same_bytes_as_kernels)};
  if (setenv("GPTVQ_GEMM", "onednn", 1) != 0) return 1;
  return cmocka_run_group_tests(tests, NULL, NULL);
}
