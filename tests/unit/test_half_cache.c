/* Keys and values as fp16: conversions equal the scalar ones everywhere, attention equals that over the
 * rounded numbers, bit for bit. */
#include "base/half.h"
#include "base/memory.h"
#include "base/random.h"
#include "model/layer/vector.h"

#include <gptvq/status.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const char *const levels[] = {"ref", "avx2", "avx512", "neon"};
#define FOR_EACH_LEVEL(level) \
  for (size_t level = 0; level < sizeof levels / sizeof levels[0]; level++) \
    if (gptvq_set_cpu(levels[level], NULL) == GPTVQ_OK)

static void conversions(void **state) {
  (void)state;
  enum { ALL = 65536 };
  uint16_t *half = gptvq_alloc(ALL, sizeof *half), *back = gptvq_alloc(ALL, sizeof *back);
  float *x = gptvq_alloc(ALL, sizeof *x);
  uint64_t seed = 3;
  FOR_EACH_LEVEL(level) {
    for (size_t i = 0; i < ALL; i++) half[i] = (uint16_t)i;
    GPTVQ_MULTI_PICK(gptvq_from_half)(ALL, half, x);
    GPTVQ_MULTI_PICK(gptvq_to_half)(ALL, x, back);
    for (size_t i = 0; i < ALL; i++) {
      bool nan = (i & 0x7fff) > 0x7c00;
      if (nan ? !isnan(x[i]) : gptvq_float_bits(x[i]) != gptvq_float_bits(gptvq_fp16_to_float((uint16_t)i)))
        fail_msg("%s: %#zx becomes %g", levels[level], i, (double)x[i]);
      bool lost = (i & 0x7fff) >= 0x7c00; /* infinity becomes NaN */
      if (lost ? (back[i] & 0x7fff) <= 0x7c00 : back[i] != i)
        fail_msg("%s: %#zx comes back as %#x", levels[level], i, back[i]);
    }
    for (int round = 0; round < 20; round++) { /* between the halves, ties among them, and far outside */
      for (size_t i = 0; i < ALL; i++) {
        uint32_t bits = (uint32_t)gptvq_random(&seed);
        if (round % 2)
          bits = (bits & 0x8fffe000u) | 0x30000000u | (bits & 1u ? 0x1000u : 0u) | (bits & 2u ? 1u : 0u);
        x[i] = gptvq_bits_float(bits);
      }
      GPTVQ_MULTI_PICK(gptvq_to_half)(ALL, x, back);
      for (size_t i = 0; i < ALL; i++) {
        uint16_t half_of = gptvq_float_to_fp16(x[i]);
        bool lost = (half_of & 0x7fff) >= 0x7c00;
        if (lost ? (back[i] & 0x7fff) <= 0x7c00 : back[i] != half_of)
          fail_msg("%s: %a becomes %#x", levels[level], (double)x[i], back[i]);
      }
    }
  }
  free(half);
  free(back);
  free(x);
}

static void attention(void **state) {
  (void)state;
  enum { COUNT = 200 };
  static const size_t dims[] = {8, 32, 80, 128};
  uint64_t seed = 5;
  for (size_t d = 0; d < 4; d++) {
    size_t dim = dims[d];
    float *keys = gptvq_alloc(COUNT * dim, sizeof *keys), *values = gptvq_alloc(COUNT * dim, sizeof *values);
    uint16_t *k = gptvq_alloc(COUNT * dim, sizeof *k), *v = gptvq_alloc(COUNT * dim, sizeof *v);
    float q[GPTVQ_HALF_DIM], expected[GPTVQ_HALF_DIM], got[GPTVQ_HALF_DIM];
    for (size_t i = 0; i < COUNT * dim; i++) {
      k[i] = gptvq_float_to_fp16((float)(4.0 * gptvq_random_unit(&seed) - 2.0));
      v[i] = gptvq_float_to_fp16((float)(4.0 * gptvq_random_unit(&seed) - 2.0));
      keys[i] = gptvq_fp16_to_float(k[i]);
      values[i] = gptvq_fp16_to_float(v[i]);
    }
    for (size_t i = 0; i < dim; i++) q[i] = (float)gptvq_random_unit(&seed);
    FOR_EACH_LEVEL(level) {
      for (size_t count = 1; count <= COUNT; count += 33) {
        const float cap = count % 2 != 0 ? 0.0f : 5.0f;
        GPTVQ_MULTI_PICK(gptvq_attend)(count, dim, 0.3f, cap, q, keys, values, expected);
        GPTVQ_MULTI_PICK(gptvq_attend_half)(count, dim, 0.3f, cap, q, k, v, got);
        assert_memory_equal(got, expected, dim * sizeof *got);
      }
    }
    free(keys);
    free(values);
    free(k);
    free(v);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(conversions), cmocka_unit_test(attention)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
