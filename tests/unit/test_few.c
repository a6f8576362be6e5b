/* Attention of few tokens over long contexts: within a bound of the definition in double, the same bits for
 * every number of threads, at every level, and for a token alone as for several together. */
#include "base/half.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/threads.h"
#include "model/layer/attention.h"

#include <gptvq/context.h>
#include <gptvq/status.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { HEADS = 6, OWNERS = 2, SHARE = HEADS / OWNERS, DIM = 72, LONGEST = 1300, ROWS = 4, TEXTS = 2 };
enum { WIDTH = (HEADS + 2 * OWNERS) * DIM, CACHE = OWNERS * LONGEST * DIM };

static uint16_t half_keys[TEXTS][CACHE], half_values[TEXTS][CACHE];
static float keys[TEXTS][CACHE], values[TEXTS][CACHE]; /* the same numbers */
static float queries[TEXTS][LONGEST][HEADS * DIM];
static float *parts;

/* Which tokens of which texts, and how. */
typedef struct run {
  size_t dim, texts, position[TEXTS], n;
  size_t window;
  float cap;
  bool half, sinks;
} run;

static const float scale = 0.2f, sinks[HEADS] = {-3.0f, 0.0f, 1.5f, 4.0f, 40.0f, 2.0f};

static void fill(size_t dim) {
  uint64_t seed = dim;
  for (size_t t = 0; t < TEXTS; t++) {
    for (size_t i = 0; i < OWNERS * LONGEST * dim; i++) {
      half_keys[t][i] = gptvq_float_to_fp16((float)(4.0 * gptvq_random_unit(&seed) - 2.0));
      half_values[t][i] = gptvq_float_to_fp16((float)(4.0 * gptvq_random_unit(&seed) - 2.0));
      keys[t][i] = gptvq_fp16_to_float(half_keys[t][i]);
      values[t][i] = gptvq_fp16_to_float(half_values[t][i]);
    }
    for (size_t p = 0; p < LONGEST; p++)
      for (size_t i = 0; i < HEADS * dim; i++)
        queries[t][p][i] = (float)(2.0 * gptvq_random_unit(&seed) - 1.0);
  }
}

/* out[texts × n × heads × dim] */
static void attend(const run *r, float *out) {
  static float rows[TEXTS * ROWS * WIDTH];
  static const float angles[1];
  gptvq_attention_text texts[TEXTS];
  for (size_t t = 0; t < r->texts; t++) {
    texts[t] = (gptvq_attention_text){.keys = r->half ? (char *)half_keys[t] : (char *)keys[t],
                                      .values = r->half ? (char *)half_values[t] : (char *)values[t],
                                      .max_positions = LONGEST,
                                      .cosines = angles,
                                      .sines = angles,
                                      .position = r->position[t],
                                      .first = t * r->n,
                                      .n = r->n};
    for (size_t i = 0; i < r->n; i++) {
      float *row = rows + (t * r->n + i) * WIDTH;
      memcpy(row, queries[t][r->position[t] + i], HEADS * r->dim * sizeof *row);
      for (size_t h = 0; h < OWNERS; h++) { /* what is in the caches already */
        size_t from = (h * LONGEST + r->position[t] + i) * r->dim, bytes = r->dim * sizeof *row;
        memcpy(row + (HEADS + h) * r->dim, keys[t] + from, bytes);
        memcpy(row + (HEADS + OWNERS + h) * r->dim, values[t] + from, bytes);
      }
    }
  }
  const gptvq_attention_rows job = {
      .heads = HEADS,
      .kv_heads = OWNERS,
      .head_dim = r->dim,
      .how = {.window = r->window, .scale = scale, .cap = r->cap, .sinks = r->sinks ? sinks : NULL},
      .half = r->half,
      .texts = texts,
      .count = r->texts,
      .n = r->texts * r->n,
      .qkv = rows,
      .ldq = WIDTH,
      .out = out,
      .parts = parts};
  gptvq_attend_rows(&job);
}

/* By the definition, in double, and how far fp32 may be from it. With u = 2^-24: a score errs by
 * d = (dim + 2) u scale Σ|q k|, and by 8 u cap where it is capped; an exponential relatively by that, by the
 * rounding of score − maximum (below 4 u times the largest |score|) and by its own 4 u, once more where parts
 * are joined; the two sums by (keys + 8) u. Each counts twice: above and below the fraction. */
static void check(const run *r, size_t text, size_t position, const float *out) {
  static double weights[LONGEST];
  const double u = ldexp(1.0, -24);
  size_t low = position + 1 > r->window ? position + 1 - r->window : 0, dim = r->dim;
  for (size_t h = 0; h < HEADS; h++) {
    const float *q = queries[text][position] + h * dim, *k = keys[text] + h / SHARE * LONGEST * dim,
                *v = values[text] + h / SHARE * LONGEST * dim;
    double top = r->sinks ? (double)sinks[h] : -INFINITY, sum = 0.0, products = 0.0, largest = 0.0;
    for (size_t p = low; p <= position; p++) {
      double s = 0.0, all = 0.0;
      for (size_t i = 0; i < dim; i++) {
        s += (double)q[i] * k[p * dim + i];
        all += fabs((double)q[i] * k[p * dim + i]);
      }
      s *= scale;
      if (r->cap > 0.0f) s = r->cap * tanh(s / r->cap);
      weights[p] = s;
      top = fmax(top, s);
      largest = fmax(largest, fabs(s));
      products = fmax(products, scale * all);
    }
    if (r->sinks) {
      sum = exp((double)sinks[h] - top);
      largest = fmax(largest, fabs((double)sinks[h]));
    }
    for (size_t p = low; p <= position; p++) sum += weights[p] = exp(weights[p] - top);
    double weight = (double)(dim + 2) * u * products + 8.0 * u * r->cap + 2.0 * (4.0 * u * largest + 4.0 * u);
    double relative = 2.0 * (weight + (double)(position + 1 - low + 8) * u);
    for (size_t i = 0; i < dim; i++) {
      double y = 0.0, size = 0.0;
      for (size_t p = low; p <= position; p++) {
        y += weights[p] * v[p * dim + i];
        size += weights[p] * fabs((double)v[p * dim + i]);
      }
      double error = fabs(out[h * dim + i] - y / sum), bound = relative * size / sum;
      if (!(error <= bound))
        fail_msg("dim %zu, position %zu, window %zu, cap %g, head %zu: error %g > %g", dim, position,
                 r->window, (double)r->cap, h, error, bound);
    }
  }
}

static const char *const levels[] = {"ref", "avx2", "avx512", "neon", "dotprod"};

/* `expected` came from one thread at the level in force. */
static void check_alike(const run *r, const float *expected) {
  static float got[TEXTS * ROWS * HEADS * DIM];
  size_t row = HEADS * r->dim, values_of_all = r->texts * r->n * row;
  for (size_t l = 0; l < sizeof levels / sizeof levels[0]; l++) {
    if (gptvq_set_cpu(levels[l], NULL) != GPTVQ_OK) continue;
    for (int threads = 1; threads <= 5; threads += 2) {
      gptvq_set_threads(threads);
      attend(r, got);
      assert_memory_equal(got, expected, values_of_all * sizeof *got);
    }
  }
  gptvq_set_threads(2);
  for (size_t i = 0; i < r->n; i++) { /* tokens of the first text, each alone */
    run alone = *r;
    alone.texts = alone.n = 1;
    alone.position[0] += i;
    attend(&alone, got);
    assert_memory_equal(got, expected + i * row, row * sizeof *got);
  }
}

static void few_tokens(void **state) {
  (void)state;
  static const size_t dims[] = {20, 64, DIM}, positions[] = {0, 62, 70, 510, 1022, LONGEST - ROWS},
                      windows[] = {SIZE_MAX, 100, 600};
  static float out[TEXTS * ROWS * HEADS * DIM];
  parts = gptvq_alloc(gptvq_attention_part_bytes(TEXTS * ROWS * HEADS, DIM, LONGEST), 1);
  assert_non_null(parts);
  for (size_t d = 0; d < 3; d++) {
    fill(dims[d]);
    for (size_t i = 0; i < 6; i++) {
      run r = {.dim = dims[d],
               .texts = 1 + i % 2,
               .position = {positions[i], positions[(i + 3) % 6]},
               .n = 1 + i * (ROWS - 1) / 5,
               .window = windows[i % 3],
               .cap = i % 2 == 0 ? 0.0f : 5.0f,
               .half = i % 2 == 0,
               .sinks = i / 2 % 2 == 1};
      gptvq_set_threads(1);
      attend(&r, out);
      for (size_t t = 0; t < r.texts; t++)
        for (size_t n = 0; n < r.n; n++) check(&r, t, r.position[t] + n, out + (t * r.n + n) * HEADS * r.dim);
      check_alike(&r, out);
    }
  }
  free(parts);
}

/* Sums of short contexts need no memory; the sizes of others overflow to SIZE_MAX. */
static void sizes(void **state) {
  (void)state;
  assert_int_equal(gptvq_attention_part_bytes(9, 64, 512), 0);
  assert_int_equal(gptvq_attention_part_bytes(9, 64, 513), 2 * 9 * 80 * sizeof(float));
  assert_true(gptvq_attention_part_bytes(SIZE_MAX / 2, 64, 4096) == SIZE_MAX);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(few_tokens), cmocka_unit_test(sizes)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
