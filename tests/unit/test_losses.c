/* eval/losses.h: every CPU level against the C library, and against the others bit for bit. */
#include "eval/losses.h"
#include "base/random.h"
#include "levels.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

enum { COUNT = 1003 }; /* lanes and a tail */

static float a[COUNT], b[COUNT];

static void fill(double spread) {
  uint64_t state = 7;
  for (size_t i = 0; i < COUNT; i++) {
    a[i] = (float)(-spread * gptvq_random_unit(&state));
    b[i] = a[i] + (float)gptvq_random_unit(&state);
  }
}

typedef struct level {
  gptvq_cpu_features needs;
  double (*total)(size_t n, const float *x, double shift);
  double (*divergence)(size_t n, const float *a, double total_a, const float *b, double total_b);
} level;

#define LEVEL(needs, name) \
  { needs, gptvq_exp_total_##name, gptvq_divergence_##name }
static const level all_levels[] = {EACH_LEVEL(LEVEL)};

/* Those that the processor has */
static size_t levels_of(level *levels) {
  size_t count = 0;
  for (size_t l = 0; l < sizeof all_levels / sizeof all_levels[0]; l++)
    if ((gptvq_cpu() & all_levels[l].needs) == all_levels[l].needs) levels[count++] = all_levels[l];
  return count;
}

/* What rounding makes of two sums of COUNT terms, which may differ by so many roundings (2^-53 of it) each:
 * one sum adds them one by one, the other in 8 lanes, which are then added up. */
static double roundings(double of_a_term) { return (of_a_term + (COUNT - 1) + (COUNT / 8 + 3)) * 0x1p-53; }

/* Terms are within 2 ulp, the C library's within 1, of 2 roundings each. */
static void exponentials_are_added(void **state) {
  (void)state;
  level levels[3];
  const size_t count = levels_of(levels);
  for (int spread = 1; spread <= 600; spread += 37) {
    fill(spread);
    double expected = 0.0;
    for (size_t i = 0; i < COUNT; i++) expected += exp((double)a[i] - 0.5);
    for (size_t l = 0; l < count; l++) {
      assert_true(levels[l].total(COUNT, a, 0.5) == levels[0].total(COUNT, a, 0.5));
      assert_true(fabs(levels[l].total(COUNT, a, 0.5) - expected) <= roundings(4 + 2) * expected);
    }
    const float one = a[5];
    assert_true(fabs(levels[0].total(1, &one, 0.0) - exp((double)one)) <= 3 * 0x1p-52 * exp((double)one));
  }
}

/* Those below exp(-700) are as large as that, in lanes and tail, alone and among others. */
static void small_terms_are_as_large_as_the_least(void **state) {
  (void)state;
  level levels[3];
  const size_t count = levels_of(levels);
  static const float small[] = {-699.0f, -700.0f, -701.0f, -708.5f, -746.0f, -1000.0f, -3e38f, -INFINITY};
  for (size_t l = 0; l < count; l++) {
    for (size_t s = 0; s < sizeof small / sizeof *small; s++) {
      const double expected = exp(fmax((double)small[s], -700.0));
      assert_true(fabs(levels[l].total(1, small + s, 0.0) - expected) <= 3 * 0x1p-52 * expected);
    }
    double expected = 0.0;
    for (size_t i = 0; i < COUNT; i++) {
      a[i] = small[i % 7]; /* 8 lanes: each has all of them */
      expected += exp(fmax((double)a[i] - 0.25, -700.0));
    }
    assert_true(fabs(levels[l].total(COUNT, a, 0.25) - expected) <= roundings(4 + 2) * expected);
  }
}

/* Exponentials as above, and a product each. The factor is the same operations in the same order. */
static void divergence_is_the_mean_of_differences(void **state) {
  (void)state;
  level levels[3];
  const size_t count = levels_of(levels);
  for (int spread = 1; spread <= 60; spread += 7) {
    fill(spread);
    double total_a = 0.0, total_b = 0.0, expected = 0.0, size = 0.0;
    for (size_t i = 0; i < COUNT; i++) total_a += exp((double)a[i]), total_b += exp((double)b[i]);
    total_a = log(total_a), total_b = log(total_b);
    for (size_t i = 0; i < COUNT; i++) {
      const double term = exp((double)a[i] - total_a) * ((double)a[i] - total_a - ((double)b[i] - total_b));
      expected += term;
      size += fabs(term);
    }
    assert_true(expected > 0.001);
    for (size_t l = 0; l < count; l++) {
      const double found = levels[l].divergence(COUNT, a, total_a, b, total_b);
      assert_true(found == levels[0].divergence(COUNT, a, total_a, b, total_b));
      assert_true(fabs(found - expected) <= roundings(4 + 1 + 2 + 1) * size);
      assert_true(levels[l].divergence(COUNT, a, total_a, a, total_a) == 0.0);
    }
  }
}

static void bad_numbers_show(void **state) {
  (void)state;
  level levels[3];
  const size_t count = levels_of(levels);
  for (size_t l = 0; l < count; l++)
    for (size_t at = 0; at < COUNT; at += 167) {
      fill(3.0);
      a[at] = NAN;
      assert_true(isnan(levels[l].total(COUNT, a, 0.0)));
      a[at] = -INFINITY;
      assert_true(levels[l].total(COUNT, a, 0.0) > 0.0);
    }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(exponentials_are_added), cmocka_unit_test(small_terms_are_as_large_as_the_least),
      cmocka_unit_test(divergence_is_the_mean_of_differences), cmocka_unit_test(bad_numbers_show)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
