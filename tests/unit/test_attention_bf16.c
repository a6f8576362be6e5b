/* Attention of many rows with products in bf16 (model/layer/attention_bf16.c) against that in fp32. */
#include "base/memory.h"
#include "base/random.h"
#include "linalg/gemm_bf16.h"
#include "model/layer/attention.h"

#include <gptvq/status.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

enum { POSITIONS = 420, MOST_HEADS = 10, MOST_DIM = 80 };

typedef struct variant {
  const char *name;
  size_t heads, kv_heads, dim, position, n;
  gptvq_attention how;
  bool sinks;
} variant;

static const variant variants[] = {
    {"heads in threes", 9, 3, 64, 0, 400, {.window = SIZE_MAX, .scale = 0.125f}, false},
    {"heads of their own", 2, 2, 80, 0, 391, {.window = SIZE_MAX, .scale = 0.11f}, false},
    {"more heads than are stacked, after others",
     10,
     1,
     16,
     57,
     130,
     {.window = SIZE_MAX, .scale = 0.25f},
     false},
    {"a window", 4, 2, 32, 9, 401, {.window = 100, .scale = 0.18f}, false},
    {"a cap and sinks", 4, 1, 32, 0, 257, {.window = SIZE_MAX, .scale = 0.18f, .cap = 3.0f}, true},
    {"few rows", 4, 1, 31, 0, 8, {.window = SIZE_MAX, .scale = 0.18f}, false},
};

typedef struct memory {
  float qkv[POSITIONS * 3 * MOST_HEADS * MOST_DIM], keys[POSITIONS * MOST_HEADS * MOST_DIM],
      values[POSITIONS * MOST_HEADS * MOST_DIM];
  float out[POSITIONS * MOST_HEADS * MOST_DIM];
} memory;

/* Numbers in [-1, 1]; the cache holds `position` positions already. */
static void run(const variant *v, bool rounds, const float *sinks, memory *m) {
  uint64_t seed = 7;
  size_t width = (v->heads + 2 * v->kv_heads) * v->dim, cache = v->kv_heads * POSITIONS * v->dim;
  for (size_t i = 0; i < v->n * width; i++) m->qkv[i] = (float)(2.0 * gptvq_random_unit(&seed) - 1.0);
  for (size_t i = 0; i < cache; i++) m->keys[i] = (float)(2.0 * gptvq_random_unit(&seed) - 1.0);
  for (size_t i = 0; i < cache; i++) m->values[i] = (float)(2.0 * gptvq_random_unit(&seed) - 1.0);
  const gptvq_attention_text text = {.keys = (char *)m->keys,
                                     .values = (char *)m->values,
                                     .max_positions = POSITIONS,
                                     .position = v->position,
                                     .n = v->n};
  gptvq_attention_rows rows = {.heads = v->heads,
                               .kv_heads = v->kv_heads,
                               .head_dim = v->dim,
                               .how = v->how,
                               .rounds = rounds,
                               .texts = &text,
                               .count = 1,
                               .n = v->n,
                               .qkv = m->qkv,
                               .ldq = width,
                               .out = m->out};
  rows.how.sinks = v->sinks ? sinks : NULL;
  gptvq_attend_rows(&rows);
}

/* The largest scale · Σ |q k| of a query and a key. */
static double largest_score(const variant *v, const memory *m) {
  double most = 0.0;
  size_t width = (v->heads + 2 * v->kv_heads) * v->dim;
  for (size_t t = 0; t < v->n; t++)
    for (size_t h = 0; h < v->heads; h++)
      for (size_t p = 0; p < v->position + v->n; p++) {
        const float *q = m->qkv + t * width + h * v->dim,
                    *k = m->keys + (h / (v->heads / v->kv_heads) * POSITIONS + p) * v->dim;
        double sum = 0.0;
        for (size_t i = 0; i < v->dim; i++) sum += fabs((double)q[i] * (double)k[i]);
        most = fmax(most, sum * (double)v->how.scale);
      }
  return most;
}

/* A score is off by 2^-8 of its terms (two factors rounded by 2^-9) at most, an exponential by exp of that,
 * in the sum and in the weight; weights and values are rounded by 2^-9, and values are 1 at most. */
static void rounding_is_all_that_differs(void **state) {
  (void)state;
  if (!gptvq_gemm_bf16_available()) skip();
  memory *exact = gptvq_alloc(1, sizeof *exact), *rounded = gptvq_alloc(1, sizeof *rounded);
  float sinks[MOST_HEADS];
  for (size_t h = 0; h < MOST_HEADS; h++) sinks[h] = 0.3f * (float)h;
  for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++) {
    const variant *v = &variants[i];
    run(v, false, sinks, exact);
    run(v, true, sinks, rounded);
    double bound = expm1(2.0 * 0x1.01p-8 * largest_score(v, exact)) + 0x1p-8, most = 0.0;
    size_t count = v->n * v->heads * v->dim;
    for (size_t j = 0; j < count; j++)
      most = fmax(most, fabs((double)exact->out[j] - (double)rounded->out[j]));
    if (!(most <= bound)) fail_msg("%s: off by %g, bound %g", v->name, most, bound);
    assert_true(most > 0.0); /* it did run in bf16 */
  }
  free(exact);
  free(rounded);
}

static void threads_change_nothing(void **state) {
  (void)state;
  memory *one = gptvq_alloc(1, sizeof *one), *three = gptvq_alloc(1, sizeof *three);
  for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++) {
    const variant *v = &variants[i];
    if (v->sinks) continue;
    gptvq_set_threads(1);
    run(v, true, NULL, one);
    gptvq_set_threads(3);
    run(v, true, NULL, three);
    assert_memory_equal(one->out, three->out, v->n * v->heads * v->dim * sizeof(float));
  }
  gptvq_set_threads(0);
  free(one);
  free(three);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(rounding_is_all_that_differs),
                                     cmocka_unit_test(threads_change_nothing)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
