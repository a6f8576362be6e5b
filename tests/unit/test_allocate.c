/* quant/plan/allocate.h against brute force. */
#include "base/memory.h"
#include "base/random.h"
#include "quant/plan/allocate.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

enum { ITEMS = 5, SETTINGS = 4 };

static uint64_t bytes_of(const gptvq_setting_cost *costs, const size_t *chosen) {
  uint64_t sum = 0;
  for (size_t i = 0; i < ITEMS; i++) sum += costs[i * SETTINGS + chosen[i]].bytes;
  return sum;
}
static double loss_of(const gptvq_setting_cost *costs, const size_t *chosen) {
  double sum = 0;
  for (size_t i = 0; i < ITEMS; i++) sum += costs[i * SETTINGS + chosen[i]].loss;
  return sum;
}
static double best_possible(const gptvq_setting_cost *costs, uint64_t budget) {
  double best = INFINITY;
  for (size_t code = 0; code < 1024; code++) { /* SETTINGS to the power of ITEMS */
    size_t chosen[ITEMS];
    for (size_t i = 0; i < ITEMS; i++) chosen[i] = code >> 2 * i & 3;
    if (bytes_of(costs, chosen) <= budget) best = fmin(best, loss_of(costs, chosen));
  }
  return best;
}

static void allocate(const gptvq_setting_cost *costs, uint64_t budget, size_t *chosen) {
  gptvq_error err;
  assert_int_equal(gptvq_allocate(ITEMS, SETTINGS, costs, budget, chosen, &err), GPTVQ_OK);
}

/* Convex curves with steps of one size: greedy is optimal, at every budget. */
static void equal_steps_give_the_optimum(void **state) {
  (void)state;
  uint64_t random = 1;
  for (int trial = 0; trial < 50; trial++) {
    gptvq_setting_cost costs[ITEMS * SETTINGS];
    for (size_t i = 0; i < ITEMS; i++) {
      double loss = 1.0 + (double)gptvq_random_below(&random, 1000),
             factor = 0.2 + 0.5 * (double)gptvq_random_below(&random, 100) / 100.0;
      for (size_t s = 0; s < SETTINGS; s++, loss *= factor)
        costs[i * SETTINGS + s] = (gptvq_setting_cost){100 + 10 * s, loss};
    }
    for (uint64_t budget = 500; budget <= 650; budget += 5) {
      size_t chosen[ITEMS] = {0};
      allocate(costs, budget, chosen);
      assert_true(bytes_of(costs, chosen) <= budget);
      assert_true(loss_of(costs, chosen) <= best_possible(costs, budget) * (1 + 1e-12));
    }
  }
}

/* Anything at all: within the budget, never worse than the entry, and at most one step of a hull above the
 * optimum. */
static void arbitrary_costs_stay_close(void **state) {
  (void)state;
  uint64_t random = 2;
  size_t optimal = 0, trials = 300;
  for (size_t trial = 0; trial < trials; trial++) {
    gptvq_setting_cost costs[ITEMS * SETTINGS];
    double largest = 0;
    for (size_t i = 0; i < ITEMS * SETTINGS; i++) {
      costs[i] = (gptvq_setting_cost){50 + gptvq_random_below(&random, 400),
                                      (double)gptvq_random_below(&random, 10000)};
      largest = fmax(largest, costs[i].loss);
    }
    size_t chosen[ITEMS], entry[ITEMS];
    for (size_t i = 0; i < ITEMS; i++) entry[i] = chosen[i] = gptvq_random_below(&random, SETTINGS);
    uint64_t budget = bytes_of(costs, entry);
    allocate(costs, budget, chosen);
    double best = best_possible(costs, budget), got = loss_of(costs, chosen);
    assert_true(bytes_of(costs, chosen) <= budget);
    assert_true(got <= loss_of(costs, entry));
    assert_true(got >= best && got <= best + largest);
    optimal += got == best;
  }
  assert_true(optimal > trials * 3 / 4);
}

static void impossible_settings_are_not_chosen(void **state) {
  (void)state;
  gptvq_setting_cost costs[ITEMS * SETTINGS];
  size_t chosen[ITEMS] = {1, 1, 1, 1, 1};
  for (size_t i = 0; i < ITEMS * SETTINGS; i++)
    costs[i] = (gptvq_setting_cost){100 + 10 * (i % SETTINGS),
                                    i % SETTINGS == 3 ? NAN : 10.0 - (double)(i % SETTINGS)};
  allocate(costs, 10000, chosen);
  for (size_t i = 0; i < ITEMS; i++) assert_int_equal(chosen[i], 2);
  /* a budget that nothing fits into: the entry stays */
  for (size_t i = 0; i < ITEMS; i++) chosen[i] = 1;
  allocate(costs, 10, chosen);
  for (size_t i = 0; i < ITEMS; i++) assert_int_equal(chosen[i], 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(equal_steps_give_the_optimum),
      cmocka_unit_test(arbitrary_costs_stay_close),
      cmocka_unit_test(impossible_settings_are_not_chosen),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
