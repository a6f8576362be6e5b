/* linalg/solve/narrow.h: each number as it would be rounded alone, however many tasks there are. */
#include "linalg/solve/narrow.h"
#include "base/memory.h"
#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static void numbers_are_rounded_where_they_are(void **state) {
  (void)state;
  static const size_t counts[] = {1, 2, 4095, 4096, 4097, 8193, 300001};
  uint64_t seed = 3;
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
    const size_t count = counts[i];
    double *values = gptvq_alloc(count, sizeof *values);
    float *expected = gptvq_alloc(count, sizeof *expected);
    assert_true(values != NULL && expected != NULL);
    for (size_t n = 0; n < count; n++) {
      values[n] = gptvq_random_unit(&seed) - 0.5;
      expected[n] = (float)(values[n] * 0.3);
    }
    float *narrow = gptvq_narrow(values, count, 0.3);
    assert_memory_equal(narrow, expected, count * sizeof *expected);
    free(narrow);
    free(expected);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(numbers_are_rounded_where_they_are)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
