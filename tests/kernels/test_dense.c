/* Dense conversions (bit-exact) and matrix × vector products (within a rounding bound), at every CPU level.
 */
#define _GNU_SOURCE
#include "support.h"

static const gptvq_dtype dtypes[] = {GPTVQ_F32, GPTVQ_F16, GPTVQ_BF16};

static float scalar(gptvq_dtype dtype, const unsigned char *at) {
  if (dtype == GPTVQ_F32) {
    float x;
    memcpy(&x, at, 4);
    return x;
  }
  uint16_t h;
  memcpy(&h, at, 2);
  return dtype == GPTVQ_F16 ? gptvq_fp16_to_float(h) : gptvq_bf16_to_float(h);
}

/* All 65536 halves; signalling NaNs may become quiet. */
static void every_half(void **test) {
  (void)test;
  uint16_t *in = gptvq_alloc(0x10000, 2);
  float *out = gptvq_alloc(0x10000, 4);
  assert_true(in != NULL && out != NULL);
  for (unsigned i = 0; i < 0x10000u; i++) in[i] = (uint16_t)i;
  FOR_EACH_LEVEL(level)
  for (int type = 1; type < 3; type++) {
    gptvq_to_float(dtypes[type], in, 0x10000, out);
    for (unsigned i = 0; i < 0x10000u; i++) {
      float expected = scalar(dtypes[type], (unsigned char *)&in[i]);
      if (isnan(expected)) assert_true(isnan(out[i]));
      else assert_memory_equal(&out[i], &expected, 4);
    }
  }
  free(in);
  free(out);
}

static void tails(void **test) {
  (void)test;
  uint64_t state = 5;
  FOR_EACH_LEVEL(level)
  for (int type = 0; type < 3; type++)
    for (size_t n = 0; n < 200; n++) {
      size_t size = gptvq_dtype_size(dtypes[type]);
      guarded in = guarded_new(n * size), out = guarded_new(n * 4);
      for (size_t i = 0; i < n; i++) {
        float x = random_normal(&state);
        uint16_t h = type == 1 ? gptvq_float_to_fp16(x) : gptvq_float_to_bf16(x);
        memcpy(in.data + i * size, type == 0 ? (void *)&x : (void *)&h, size);
      }
      gptvq_to_float(dtypes[type], in.data, n, (float *)out.data);
      for (size_t i = 0; i < n; i++) {
        float expected = scalar(dtypes[type], in.data + i * size);
        assert_memory_equal(&expected, out.data + i * 4, 4);
      }
      guarded_free(&in);
      guarded_free(&out);
    }
}

/* fp32 accumulation of n products in any order: |error| <= (n + 2)·2^-24·Σ|w·x| */
static void products(void **test) {
  (void)test;
  uint64_t state = 6;
  for (int round = 0; round < 300; round++) {
    int type = round % 3;
    size_t size = gptvq_dtype_size(dtypes[type]), rows = 1 + gptvq_random_below(&state, 9);
    size_t cols = round < 210 ? 1 + (size_t)round / 3 : 1 + gptvq_random_below(&state, 1500);
    size_t begin = gptvq_random_below(&state, rows),
           end = begin + gptvq_random_below(&state, rows - begin + 1);
    /* mapped files align nothing: shift by one byte before the guard page now and then */
    size_t shift = gptvq_random_below(&state, 2);
    guarded w = guarded_new(rows * cols * size + shift), x = guarded_new(cols * 4);
    unsigned exponent = (unsigned)gptvq_random_below(&state, 12);
    for (size_t i = 0; i < rows * cols; i++) {
      float value = ldexpf(random_normal(&state), -(int)exponent);
      uint16_t h = type == 1 ? gptvq_float_to_fp16(value) : gptvq_float_to_bf16(value);
      memcpy(w.data + i * size, type == 0 ? (void *)&value : (void *)&h, size);
    }
    for (size_t i = 0; i < cols; i++) ((float *)x.data)[i] = random_normal(&state);
    FOR_EACH_LEVEL(level) {
      guarded y = guarded_new((end - begin) * 4);
      gptvq_dense_matvec(dtypes[type], w.data, cols, begin, end, (float *)x.data, (float *)y.data);
      for (size_t row = begin; row < end; row++) {
        double sum = 0.0, magnitude = 0.0;
        for (size_t c = 0; c < cols; c++) {
          double term =
              (double)scalar(dtypes[type], w.data + (row * cols + c) * size) * (double)((float *)x.data)[c];
          sum += term;
          magnitude += fabs(term);
        }
        double got = (double)((float *)y.data)[row - begin],
               limit = ((double)cols + 2.0) * 0x1p-24 * magnitude;
        if (!(fabs(got - sum) <= limit))
          fail_msg("level %s, type %d, %zu columns, row %zu: %.9g, not %.9g (bound %.3g)", level_names[level],
                   type, cols, row, got, sum, limit);
      }
      guarded_free(&y);
    }
    guarded_free(&w);
    guarded_free(&x);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(every_half), cmocka_unit_test(tails),
                                     cmocka_unit_test(products)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
