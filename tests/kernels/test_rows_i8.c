/* Dense matrices as int8 codes: the same bytes at every CPU level; weights off by half a step at most;
 * products exact but for the codes' rounding. */
#define _GNU_SOURCE
#include "support.h"

/* y is the sum over groups of int32 sums times scales. With e = |w − ŵ| <= scale_w / 2 and |x − x̂| <= scale_x
 * / 2 per value: |y − w·x| <= Σ (|w| scale_x / 2 + |x̂| scale_w / 2) and a rounding per group. */
static void check(size_t rows, size_t cols, size_t count, uint64_t *state) {
  enum { GROUP = GPTVQ_ROWS_GROUP };
  size_t groups = gptvq_ceil_div(cols, GROUP), input_bytes = gptvq_rows_input_bytes(cols), ldy = rows + 2;
  float *weights = gptvq_alloc(rows * cols, sizeof *weights), *x = gptvq_alloc(count * cols, sizeof *x);
  float *expected = gptvq_alloc(count * ldy, sizeof *expected);
  guarded codes = guarded_new(rows * cols), scales = guarded_new(rows * groups * sizeof(float));
  guarded inputs = guarded_new(count * input_bytes), y = guarded_new(count * ldy * sizeof(float));
  float *weight_scales = (float *)(void *)scales.data, *got = (float *)(void *)y.data;
  for (size_t i = 0; i < rows * cols; i++)
    weights[i] = gptvq_random_below(state, 20) ? random_normal(state) : 0.0f;
  for (size_t i = 0; i < count * cols; i++)
    x[i] = gptvq_random_below(state, 3) ? random_normal(state) : -3.0f;
  for (size_t i = 0; i < cols && i < GROUP; i++) weights[i] = 0.0f; /* a group of zeros */
  FOR_EACH_LEVEL(level) {
    for (size_t r = 0; r < rows; r++)
      gptvq_rows_quantize(cols, weights + r * cols, codes.data + r * cols, weight_scales + r * groups);
    for (size_t t = 0; t < count; t++) gptvq_rows_prepare(cols, x + t * cols, inputs.data + t * input_bytes);
    for (size_t i = 0; i < count * ldy; i++) got[i] = -77.0f;
    gptvq_rows_matmul(codes.data, weight_scales, cols, 0, rows, inputs.data, count, got, ldy);
    if (level == 0) memcpy(expected, got, count * ldy * sizeof *got);
    if (memcmp(expected, got, count * ldy * sizeof *got) != 0)
      fail_msg("%s: not the bytes of level ref", level_names[level]);
    if (rows > 2) { /* any part of the rows */
      gptvq_rows_matmul(codes.data, weight_scales, cols, 1, rows - 1, inputs.data, 1, got, ldy);
      assert_memory_equal(got, expected + 1, (rows - 2) * sizeof *got);
    }
  }
  for (size_t t = 0; t < count; t++)
    for (size_t r = 0; r < rows; r++) {
      double sum = 0.0, bound = 0.0;
      for (size_t c = 0; c < cols; c++) {
        size_t first = c / GROUP * GROUP;
        double w = (double)weights[r * cols + c], v = (double)x[t * cols + c],
               scale_w = (double)weight_scales[r * groups + c / GROUP];
        double decoded = ((double)codes.data[r * cols + c] - 128.0) * scale_w, largest = 0.0;
        if (!(fabs(decoded - w) <= 0.5001 * scale_w))
          fail_msg("weight %zu of row %zu is %g, stored as %g", c, r, w, decoded);
        for (size_t i = first; i < cols && i < first + GROUP; i++)
          largest = fmax(largest, fabs((double)x[t * cols + i]));
        sum += w * v;
        bound += fabs(w) * largest / 254.0 * 1.001 + largest * scale_w / 2.0 * 1.001;
      }
      if (!(fabs((double)expected[t * ldy + r] - sum) <= bound))
        fail_msg("token %zu row %zu: %.9g, not %.9g (bound %.3g)", t, r, (double)expected[t * ldy + r], sum,
                 bound);
    }
  free(weights);
  free(x);
  free(expected);
  guarded_free(&codes);
  guarded_free(&scales);
  guarded_free(&inputs);
  guarded_free(&y);
}

static void shapes(void **test) {
  (void)test;
  uint64_t state = 31;
  static const size_t widths[] = {1, 3, 64, 255, 256, 257, 512, 1000, 4096};
  for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++)
    for (size_t count = 1; count <= 3; count++) check(1 + i * 3, widths[i], count, &state);
}

static void not_a_number(void **test) {
  (void)test;
  float w[300], x[300], scales[2], y;
  uint8_t codes[300];
  _Alignas(64) char input[1024];
  for (size_t i = 0; i < 300; i++) w[i] = x[i] = 1.0f;
  x[280] = NAN;
  assert_true(gptvq_rows_input_bytes(300) <= sizeof input);
  gptvq_rows_quantize(300, w, codes, scales);
  gptvq_rows_prepare(300, x, input);
  gptvq_rows_matmul(codes, scales, 300, 0, 1, input, 1, &y, 1);
  assert_true(isnan(y));
  w[3] = INFINITY;
  gptvq_rows_quantize(300, w, codes, scales);
  assert_true(isnan(scales[0]) && isfinite(scales[1]));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(shapes), cmocka_unit_test(not_a_number)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
