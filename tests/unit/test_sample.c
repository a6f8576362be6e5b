/* gptvq_sample: greedy choice, the sets that top-k and top-p leave, frequencies, errors. */
#include <gptvq/model.h>

#include "base/random.h"

#include <math.h>
#include <stdio.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { V = 50, DRAWS = 20000 };

static int32_t draw(gptvq_sampler *sampler, const float *logits, size_t vocab) {
  int32_t token = -1;
  gptvq_error err = {GPTVQ_OK, ""};
  if (gptvq_sample(sampler, logits, vocab, &token, &err) != GPTVQ_OK) fail_msg("%s", err.message);
  assert_in_range(token, 0, vocab - 1);
  return token;
}

static void random_logits(uint64_t seed, float *logits, bool ties) {
  for (size_t i = 0; i < V; i++) {
    double x = 6.0 * gptvq_random_unit(&seed) - 3.0;
    logits[i] = ties ? (float)floor(x) : (float)x;
  }
}

static void greedy_takes_the_lowest_of_equals(void **state) {
  (void)state;
  gptvq_sampler sampler = {.size = sizeof sampler, .temperature = 0.0f, .top_p = 1.0f};
  const float logits[6] = {-1.0f, 2.0f, 5.0f, 5.0f, -INFINITY, 5.0f};
  assert_int_equal(draw(&sampler, logits, 6), 2);
  const float zeros[3] = {-0.0f, 0.0f, -0.0f};
  assert_int_equal(draw(&sampler, zeros, 3), 0);
}

static const float *sorted_by;
static int by_logit(const void *a, const void *b) { /* largest first, then lowest id */
  size_t i = *(const size_t *)a, j = *(const size_t *)b;
  if (sorted_by[i] != sorted_by[j]) return sorted_by[i] > sorted_by[j] ? -1 : 1;
  return i < j ? -1 : 1;
}

/* The definition, by sorting: probabilities after top-k, then top-p. */
static void expected(const float *logits, double temperature, size_t top_k, double top_p,
                     double *probabilities) {
  size_t order[V], count = top_k == 0 || top_k > V ? V : top_k, kept = 0;
  for (size_t i = 0; i < V; i++) order[i] = i;
  sorted_by = logits;
  qsort(order, V, sizeof order[0], by_logit);
  double sum = 0.0, before = 0.0, part = 0.0;
  for (size_t i = 0; i < count; i++) sum += exp((double)logits[order[i]] / temperature);
  for (size_t i = 0; i < V; i++) probabilities[i] = 0.0;
  while (kept < count && before < top_p * sum * (1.0 - 1e-12))
    before += exp((double)logits[order[kept++]] / temperature);
  for (size_t i = 0; i < kept; i++) part += exp((double)logits[order[i]] / temperature);
  for (size_t i = 0; i < kept; i++)
    probabilities[order[i]] = exp((double)logits[order[i]] / temperature) / part;
}

/* No token outside the set is ever drawn, and each inside about as often as it should: within 5 standard
 * deviations (the seeds are fixed). */
static void frequencies_follow_the_definition(void **state) {
  (void)state;
  static const struct {
    float temperature, top_p;
    size_t top_k;
    bool ties;
  } cases[] = {{1.0f, 1.0f, 0, false},  {0.7f, 1.0f, 0, true},       {1.0f, 1.0f, 5, false},
               {1.0f, 1.0f, 7, true},   {1.0f, 0.5f, 0, false},      {1.3f, 0.9f, 0, true},
               {1.0f, 0.01f, 0, false}, {1.0f, 0.8f, 10, false},     {2.0f, 0.6f, 9, true},
               {0.05f, 0.99f, 3, true}, {1.0f, 0.999999f, 0, false}, {1.0f, 1.0f, 1, true}};
  for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
    float logits[V];
    double probabilities[V];
    size_t hits[V] = {0};
    random_logits(c + 100, logits, cases[c].ties);
    expected(logits, (double)cases[c].temperature, cases[c].top_k, (double)cases[c].top_p, probabilities);
    gptvq_sampler sampler = {.size = sizeof sampler,
                             .temperature = cases[c].temperature,
                             .top_p = cases[c].top_p,
                             .top_k = cases[c].top_k,
                             .state = c};
    for (size_t i = 0; i < DRAWS; i++) hits[draw(&sampler, logits, V)]++;
    for (size_t i = 0; i < V; i++) {
      double p = probabilities[i], deviation = sqrt(p * (1.0 - p) * DRAWS);
      if (fabs((double)hits[i] - p * DRAWS) > 5.0 * deviation + (p > 0.0 ? 1.0 : 0.0))
        fail_msg("case %zu: token %zu came %zu times, expected %g", c, i, hits[i], p * DRAWS);
    }
  }
}

/* Min-p and the repetition penalty with all the rest, against transformers (tests/golden/sample). */
static void frequencies_are_those_of_transformers(void **state) {
  (void)state;
  FILE *file = fopen(TEST_SOURCE_DIR "/tests/golden/sample/distributions.txt", "r");
  assert_non_null(file);
  size_t vocab, cases = 0;
  gptvq_sampler sampler;
  gptvq_sampler_init(&sampler, 5);
  assert_true(sampler.temperature == 0.8f && sampler.top_p == 0.95f && sampler.state == 5);
  while (fscanf(file, "%zu %f %zu %f %f %f %zu", &vocab, &sampler.temperature, &sampler.top_k, &sampler.top_p,
                &sampler.min_p, &sampler.repetition_penalty, &sampler.history_count) == 7) {
    float logits[V];
    int history[V];
    double probabilities[V];
    size_t hits[V] = {0};
    assert_true(vocab <= V && sampler.history_count <= V);
    for (size_t i = 0; i < sampler.history_count; i++) assert_int_equal(fscanf(file, "%d", &history[i]), 1);
    for (size_t i = 0; i < vocab; i++) assert_int_equal(fscanf(file, "%f", &logits[i]), 1);
    for (size_t i = 0; i < vocab; i++) assert_int_equal(fscanf(file, "%lf", &probabilities[i]), 1);
    sampler.history = history;
    for (size_t i = 0; i < DRAWS; i++) hits[draw(&sampler, logits, vocab)]++;
    for (size_t i = 0; i < vocab; i++) {
      double p = probabilities[i], deviation = sqrt(p * (1.0 - p) * DRAWS);
      if (fabs((double)hits[i] - p * DRAWS) > 5.0 * deviation + (p > 0.0 ? 1.0 : 0.0))
        fail_msg("case %zu: token %zu came %zu times, expected %g", cases, i, hits[i], p * DRAWS);
    }
    cases++;
  }
  assert_int_equal(cases, 7);
  (void)fclose(file);
}

static void greedy_is_penalized_too(void **state) {
  (void)state;
  const float logits[4] = {2.0f, 1.5f, -1.0f, -0.5f};
  const int32_t history[2] = {0, 0}, foreign[1] = {4};
  gptvq_sampler sampler = {.size = sizeof sampler,
                           .top_p = 1.0f,
                           .repetition_penalty = 1.25f,
                           .history = history,
                           .history_count = 2};
  assert_int_equal(draw(&sampler, logits, 4), 0); /* 1.6, not 1.28: once, however often it came */
  sampler.repetition_penalty = 2.0f;
  assert_int_equal(draw(&sampler, logits, 4), 1);
  gptvq_error err;
  int32_t token;
  sampler.history = foreign;
  sampler.history_count = 1;
  assert_int_equal(gptvq_sample(&sampler, logits, 4, &token, &err), GPTVQ_ERROR_DATA);
}

static void the_state_decides(void **state) {
  (void)state;
  float logits[V];
  random_logits(3, logits, false);
  gptvq_sampler a = {.size = sizeof a, .temperature = 1.0f, .top_p = 0.95f, .state = 17}, b = a,
                c = {.size = sizeof c, .temperature = 1.0f, .top_p = 0.95f, .state = 18};
  size_t different = 0;
  for (size_t i = 0; i < 200; i++) {
    int32_t token = draw(&a, logits, V);
    assert_int_equal(token, draw(&b, logits, V));
    if (token != draw(&c, logits, V)) different++;
  }
  assert_true(different > 50);
}

static void masked_tokens_never_come(void **state) {
  (void)state;
  float logits[V];
  random_logits(5, logits, false);
  for (size_t i = 0; i < V; i++)
    if (i % 3 != 1) logits[i] = -INFINITY;
  gptvq_sampler sampler = {
      .size = sizeof sampler, .temperature = 5.0f, .top_p = 1.0f, .top_k = 40, .state = 1};
  for (size_t i = 0; i < 2000; i++) assert_int_equal(draw(&sampler, logits, V) % 3, 1);
}

static void nonsense_is_refused(void **state) {
  (void)state;
  gptvq_error err;
  int32_t token;
  const float fine[2] = {0.0f, 1.0f}, bad[2] = {0.0f, NAN}, huge[2] = {INFINITY, 0.0f},
              none[2] = {-INFINITY, -INFINITY};
  gptvq_sampler sampler = {.size = sizeof sampler, .temperature = 0.0f, .top_p = 1.0f};
  assert_int_equal(gptvq_sample(&sampler, bad, 2, &token, &err), GPTVQ_ERROR_NUMERIC);
  assert_int_equal(gptvq_sample(&sampler, huge, 2, &token, &err), GPTVQ_ERROR_NUMERIC);
  assert_int_equal(gptvq_sample(&sampler, none, 2, &token, &err), GPTVQ_ERROR_NUMERIC);
  assert_int_equal(gptvq_sample(&sampler, fine, 0, &token, &err), GPTVQ_ERROR_ARGUMENT);
  const gptvq_sampler wrong[] = {{.temperature = -1.0f, .top_p = 1.0f},
                                 {.temperature = NAN, .top_p = 1.0f},
                                 {.temperature = INFINITY, .top_p = 1.0f},
                                 {.temperature = 1.0f, .top_p = 0.0f},
                                 {.temperature = 1.0f, .top_p = 1.5f},
                                 {.temperature = 1.0f, .top_p = NAN},
                                 {.temperature = 1.0f, .top_p = 1.0f, .min_p = -0.1f},
                                 {.temperature = 1.0f, .top_p = 1.0f, .min_p = 1.1f},
                                 {.temperature = 1.0f, .top_p = 1.0f, .min_p = NAN},
                                 {.temperature = 1.0f, .top_p = 1.0f, .repetition_penalty = -1.0f},
                                 {.temperature = 1.0f, .top_p = 1.0f, .repetition_penalty = NAN},
                                 {.temperature = 1.0f, .top_p = 1.0f, .repetition_penalty = INFINITY}};
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    sampler = wrong[i];
    sampler.size = sizeof sampler;
    assert_int_equal(gptvq_sample(&sampler, fine, 2, &token, &err), GPTVQ_ERROR_ARGUMENT);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(greedy_takes_the_lowest_of_equals),
                                     cmocka_unit_test(frequencies_follow_the_definition),
                                     cmocka_unit_test(frequencies_are_those_of_transformers),
                                     cmocka_unit_test(greedy_is_penalized_too),
                                     cmocka_unit_test(the_state_decides),
                                     cmocka_unit_test(masked_tokens_never_come),
                                     cmocka_unit_test(nonsense_is_refused)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
