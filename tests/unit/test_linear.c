/* gptvq_linear_forward: every storage, few and many tokens, against sums in double. */
#include "packed_fixture.h"

#include "model/linear.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static uint64_t seed = 7;
static float uniform(void) { return (float)(2.0 * gptvq_random_unit(&seed) - 1.0); }

static float rounded(float x, bool bf16) { return bf16 ? gptvq_bf16_to_float(gptvq_float_to_bf16(x)) : x; }

/* Token counts on both sides of the matrix × vector limit, strides wider than the rows, an output that starts
 * inside a wider row. A sum of cols products, each product and decoded weight rounded a few times: |error| <=
 * (cols + 16) · 2^-24 · Σ|w x| (+ bias). Inputs as int8 codes are off by half a step of max|x| / 127 each,
 * max|x| <= 1. */
static void check_linear(const gptvq_linear *linear, const float *weights, gptvq_compute compute,
                         const char *what) {
  static const size_t counts[] = {1, 2, 4, 5, 9, 70};
  enum { MAX = 70 };
  size_t rows = linear->rows, cols = linear->cols, ldx = cols + 3, ldy = rows + 5;
  float *x = gptvq_alloc(MAX * ldx, sizeof *x), *y = gptvq_alloc(MAX * ldy, sizeof *y);
  float *again = gptvq_alloc(MAX * ldy, sizeof *y);
  for (size_t i = 0; i < MAX * ldx; i++) x[i] = uniform();
  for (size_t t = 0; t < sizeof counts / sizeof counts[0]; t++) {
    size_t n = counts[t];
    bool many = n > GPTVQ_MATVEC_TOKENS;
    bool bf16 = linear->is_packed ? compute == GPTVQ_COMPUTE_BF16 && many : compute != GPTVQ_COMPUTE_FP32;
    bool int8 = compute == GPTVQ_COMPUTE_INT8 && linear->is_packed &&
                gptvq_packed_has_i8(&linear->packed.shape) &&
                (n <= gptvq_packed_few_tokens(&linear->packed.shape) ||
                 gptvq_packed_has_gemm_i8(&linear->packed.shape));
    for (size_t i = 0; i < MAX * ldy; i++) y[i] = again[i] = -77.0f;
    gptvq_set_threads(1);
    assert_int_equal(gptvq_linear_forward(linear, compute, n, x, ldx, y + 2, ldy, NULL), GPTVQ_OK);
    gptvq_set_threads(3);
    assert_int_equal(gptvq_linear_forward(linear, compute, n, x, ldx, again + 2, ldy, NULL), GPTVQ_OK);
    assert_memory_equal(y, again, MAX * ldy * sizeof *y);
    for (size_t i = 0; i < MAX; i++)
      for (size_t r = 0; r < ldy; r++) {
        float got = y[i * ldy + r];
        if (i >= n || r < 2 || r >= rows + 2) {
          if (!(got == -77.0f))
            fail_msg("%s, %zu tokens: wrote outside, token %zu column %zu", what, n, i, r);
          continue;
        }
        double codes = 0.0, sum = linear->bias != NULL ? (double)linear->bias[r - 2] : 0.0, scale = fabs(sum);
        for (size_t c = 0; c < cols; c++) {
          float weight = rounded(weights[(r - 2) * cols + c], bf16 && many);
          double product = (double)weight * (double)rounded(x[i * ldx + c], bf16);
          sum += product;
          scale += fabs(product);
          if (int8) codes += fabs((double)weight) / 254.0;
        }
        double bound = (double)(cols + 16) * (double)FLT_EPSILON / 2.0 * (scale + codes) + codes;
        if (!(fabs((double)got - sum) <= bound))
          fail_msg("%s, %zu tokens: token %zu row %zu is %.9g, should be %.9g (bound %.2g)", what, n, i,
                   r - 2, (double)got, sum, bound);
      }
  }
  gptvq_set_threads(0);
  free(x);
  free(y);
  free(again);
}

static void dense_layers(void **state) {
  (void)state;
  static const char *const names[] = {"fp32", "fp16", "bf16"};
  static const size_t shapes[][2] = {{1, 1}, {3, 17}, {150, 40}, {64, 256}, {300, 130}};
  for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
    for (int dtype = GPTVQ_F32; dtype <= GPTVQ_BF16; dtype++)
      for (size_t offset = 0; offset < 2; offset++) { /* a file may put weights at any byte */
        size_t rows = shapes[s][0], cols = shapes[s][1], size = gptvq_dtype_size((gptvq_dtype)dtype);
        char *stored = gptvq_alloc(rows * cols * size + offset, 1), what[64];
        float *weights = gptvq_alloc(rows * cols, sizeof *weights), *bias = gptvq_alloc(rows, sizeof *bias);
        float *decoded = gptvq_alloc(rows * cols, sizeof *decoded);
        for (size_t i = 0; i < rows; i++) bias[i] = uniform();
        for (size_t i = 0; i < rows * cols; i++) {
          float w = uniform();
          uint16_t h = dtype == GPTVQ_F16 ? gptvq_float_to_fp16(w) : gptvq_float_to_bf16(w);
          weights[i] = dtype == GPTVQ_F32   ? w
                       : dtype == GPTVQ_F16 ? gptvq_fp16_to_float(h)
                                            : gptvq_bf16_to_float(h);
          if (dtype == GPTVQ_F32) memcpy(stored + offset + i * size, &w, size);
          else memcpy(stored + offset + i * size, &h, size);
        }
        gptvq_linear linear = {.name = "test",
                               .rows = rows,
                               .cols = cols,
                               .dtype = (gptvq_dtype)dtype,
                               .weights = stored + offset,
                               .bias = s % 2 ? bias : NULL};
        gptvq_linear_decode(&linear, decoded);
        assert_memory_equal(decoded, weights, rows * cols * sizeof *weights);
        snprintf(what, sizeof what, "%s %zu x %zu at byte %zu", names[dtype], rows, cols, offset);
        check_linear(&linear, weights, GPTVQ_COMPUTE_FP32, what);
        check_linear(&linear, weights, GPTVQ_COMPUTE_BF16, what);
        free(stored);
        free(weights);
        free(bias);
        free(decoded);
      }
}

static void packed_layers(void **state) {
  (void)state;
  static const gptvq_packed_shape more[] = {/* several tasks and panels */
                                            {GPTVQ_PACKED_VQ, 200, 96, 2, 4, 64, 32, 8, 0, true, 0},
                                            {GPTVQ_PACKED_VQ, 150, 1030, 4, 8, 32, 256, 8, 16, true, 0},
                                            {GPTVQ_PACKED_UNIFORM, 130, 1030, 1, 3, 1, 1030, 0, 32, true, 0}};
  enum { MORE = sizeof more / sizeof more[0] };
  for (size_t s = 0; s < FIXTURE_SHAPES + MORE; s++) {
    const gptvq_packed_shape *shape = s < FIXTURE_SHAPES ? &fixture_shapes[s] : &more[s - FIXTURE_SHAPES];
    fixture f = fixture_make(shape, s + 1);
    size_t rows = shape->rows, cols = shape->cols;
    float *weights = gptvq_alloc(rows * cols, sizeof *weights),
          *decoded = gptvq_alloc(rows * cols, sizeof *decoded);
    gptvq_packed_decode_ref(&f.packed, 0, rows, weights, cols);
    gptvq_linear linear = {.name = "test", .rows = rows, .cols = cols, .is_packed = true, .packed = f.packed};
    gptvq_linear_decode(&linear, decoded);
    for (size_t i = 0; i < rows * cols; i++)
      assert_true(fabsf(decoded[i] - weights[i]) <= 4.0f * FLT_EPSILON * fabsf(weights[i]));
    char what[64];
    snprintf(what, sizeof what, "packed shape %zu", s);
    check_linear(&linear, weights, GPTVQ_COMPUTE_FP32, what);
    check_linear(&linear, weights, GPTVQ_COMPUTE_BF16, what);
    check_linear(&linear, weights, GPTVQ_COMPUTE_INT8, what);
    free(weights);
    free(decoded);
    fixture_release(&f);
  }
}

/* A head of int8 codes: single tokens and many give the same bytes, threads too (check_linear's other bounds
 * are the kernels' test). */
static void int8_codes(void **state) {
  (void)state;
  enum { ROWS = 150, COLS = 300, N = 20 };
  size_t groups = gptvq_ceil_div(COLS, GPTVQ_ROWS_GROUP);
  float *weights = gptvq_alloc(ROWS * COLS, sizeof *weights), *x = gptvq_alloc(N * COLS, sizeof *x);
  float *y = gptvq_alloc(N * ROWS, sizeof *y), *one = gptvq_alloc(ROWS, sizeof *one),
        *scales = gptvq_alloc(ROWS * groups, sizeof *scales);
  uint8_t *codes = gptvq_alloc(ROWS, COLS);
  for (size_t i = 0; i < ROWS * COLS; i++) weights[i] = uniform();
  for (size_t i = 0; i < N * COLS; i++) x[i] = uniform();
  for (size_t r = 0; r < ROWS; r++)
    gptvq_rows_quantize(COLS, weights + r * COLS, codes + r * COLS, scales + r * groups);
  gptvq_linear linear = {.name = "head",
                         .rows = ROWS,
                         .cols = COLS,
                         .dtype = GPTVQ_F32,
                         .weights = weights,
                         .codes = codes,
                         .code_scales = scales};
  for (int threads = 1; threads <= 3; threads += 2) {
    gptvq_set_threads(threads);
    assert_int_equal(gptvq_linear_forward(&linear, GPTVQ_COMPUTE_INT8, N, x, COLS, y, ROWS, NULL), GPTVQ_OK);
    for (size_t t = 0; t < N; t++) {
      assert_int_equal(
          gptvq_linear_forward(&linear, GPTVQ_COMPUTE_FP32, 1, x + t * COLS, COLS, one, ROWS, NULL),
          GPTVQ_OK);
      assert_memory_equal(one, y + t * ROWS, ROWS * sizeof *one);
      for (size_t r = 0; r < ROWS; r++) { /* |x|, |w| <= 1: each of 300 products is off by at most 1 / 127 */
        double sum = 0.0;
        for (size_t c = 0; c < COLS; c++) sum += (double)weights[r * COLS + c] * (double)x[t * COLS + c];
        assert_true(fabs((double)one[r] - sum) <= COLS / 127.0);
      }
    }
  }
  gptvq_set_threads(0);
  free(weights);
  free(x);
  free(y);
  free(one);
  free(scales);
  free(codes);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(dense_layers), cmocka_unit_test(packed_layers),
                                     cmocka_unit_test(int8_codes)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
