/* model/layer/delta: gated delta nets against their definition in double. */
#include "model/layer/delta.h"
#include "base/cpu.h"
#include "base/memory.h"
#include "base/random.h"

#include <float.h>
#include <gptvq/context.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { TOKENS = 37 };

/* A number and how far fp32 arithmetic can be from it: errors of the operands, carried on to first order and
 * with the products of errors, and half an ulp (U) for each operation. */
typedef struct bounded {
  double v, e;
} bounded;
static const double U = FLT_EPSILON / 2.0;

static bounded number(float x) { return (bounded){(double)x, 0.0}; }
static bounded times(bounded a, bounded b) {
  const double v = a.v * b.v;
  return (bounded){v, fabs(a.v) * b.e + fabs(b.v) * a.e + a.e * b.e + U * fabs(v)};
}
/* In any order: each of n − 1 partial sums is at most the sum of all sizes. */
static bounded sum_of(size_t n, const bounded *x) {
  double v = 0, e = 0, sizes = 0;
  for (size_t i = 0; i < n; i++) {
    v += x[i].v;
    e += x[i].e;
    sizes += fabs(x[i].v) + x[i].e;
  }
  return (bounded){v, e + (double)n * U * sizes};
}
static bounded inverse_root(bounded a) {
  const double v = 1.0 / sqrt(a.v);
  return (bounded){v, 1.0 / sqrt(a.v - a.e) - v + 3.0 * U * v};
}
/* |silu'| is below 1.1; exp has 2 ulp, then come a sum and a division */
static bounded silu(bounded x) {
  const double v = x.v / (1.0 + exp(-x.v));
  return (bounded){v, 1.1 * x.e + 8.0 * U * fabs(v)};
}
static bounded inverse_length(size_t n, const bounded *x, double scale, double eps) {
  bounded squares[64] = {{0}};
  for (size_t i = 0; i < n; i++) squares[i] = times(x[i], x[i]);
  bounded sum = sum_of(n, squares);
  return inverse_root((bounded){sum.v * scale + eps, sum.e * scale + 2.0 * U * (sum.v * scale + eps)});
}

typedef struct net {
  gptvq_delta_sizes sizes;
  size_t columns, outputs, state, width;
  float *taps, *rate, *time_bias, *norm; /* weights */
  float *mixed, *gates, *out;            /* inputs of TOKENS rows; outputs */
  float *states;
  bounded *truth;
} net;

static float *random_values(size_t n, float spread, uint64_t *state) {
  float *x = malloc(n * sizeof *x);
  for (size_t i = 0; i < n; i++) x[i] = spread * (float)(2.0 * gptvq_random_unit(state) - 1.0);
  return x;
}

static net make(gptvq_delta_sizes sizes) {
  net n = {.sizes = sizes,
           .columns = gptvq_delta_columns(&sizes),
           .outputs = gptvq_delta_outputs(&sizes),
           .state = gptvq_delta_state(&sizes)};
  uint64_t state = 5;
  n.width = n.columns + n.outputs;
  n.taps = random_values(sizes.kernel * n.columns, 1.0f, &state);
  n.rate = random_values(sizes.value_heads, 0.2f, &state);
  for (size_t i = 0; i < sizes.value_heads; i++) n.rate[i] = -fabsf(n.rate[i]) - 0.01f;
  n.time_bias = random_values(sizes.value_heads, 1.0f, &state);
  n.norm = random_values(sizes.value_dim, 2.0f, &state);
  n.mixed = random_values(TOKENS * n.width, 2.0f, &state);
  n.gates = random_values(TOKENS * 2 * sizes.value_heads, 3.0f, &state);
  n.out = malloc(TOKENS * n.outputs * sizeof *n.out);
  n.states = malloc(2 * n.state * sizeof *n.states);
  for (size_t i = 0; i < 2 * n.state; i++)
    n.states[i] = NAN; /* a text's first state is zero, whatever is there */
  n.truth = malloc(TOKENS * n.outputs * sizeof *n.truth);
  return n;
}

static void release(net *n) {
  free(n->taps);
  free(n->rate);
  free(n->time_bias);
  free(n->norm);
  free(n->mixed);
  free(n->gates);
  free(n->out);
  free(n->states);
  free(n->truth);
}

static bounded convolved(const net *n, size_t t, size_t column) {
  const size_t kernel = n->sizes.kernel;
  bounded terms[GPTVQ_DELTA_KERNEL];
  size_t count = 0;
  for (size_t i = 0; i < kernel; i++)
    if (t + i + 1 >= kernel)
      terms[count++] = times(number(n->taps[i * n->columns + column]),
                             number(n->mixed[(t + i + 1 - kernel) * n->width + column]));
  return silu(sum_of(count, terms));
}

static double length(size_t n, const double *x) {
  double squares = 0;
  for (size_t i = 0; i < n; i++) squares += x[i] * x[i];
  return sqrt(squares);
}

/* q or k: values, and the length of the vector of their errors. */
static double unit_vector(const net *n, size_t t, size_t column, double scale, double *x) {
  const size_t dim = n->sizes.key_dim;
  bounded values[64] = {{0}};
  double errors[64];
  for (size_t i = 0; i < dim; i++) values[i] = convolved(n, t, column + i);
  const bounded factor = times((bounded){scale, 2.0 * U * scale}, inverse_length(dim, values, 1.0, 1e-6));
  for (size_t i = 0; i < dim; i++) {
    values[i] = times(values[i], factor);
    x[i] = values[i].v;
    errors[i] = values[i].e;
  }
  return length(dim, errors);
}

/* One column s of a head's state, [key_dim], and the length *e of the vector of its errors; |k| <= 1, β <= 1:
 * an error that is in s becomes g (1 − β k kᵀ) times as much, which is no longer than g times it. Returns qᵀ
 * s. */
static bounded step_column(size_t dim, double g, double beta, const double *q, double q_error,
                           const double *k, double k_error, bounded v, double *s, double *e) {
  double memory = 0, sizes = 0, out = 0, out_sizes = 0;
  for (size_t i = 0; i < dim; i++) {
    memory += k[i] * s[i];
    sizes += fabs(k[i] * s[i]);
  }
  const double change = beta * (v.v - g * memory), count = (double)dim, before = length(dim, s);
  const double change_error =
      beta * (v.e + g * (before * k_error + count * U * sizes + 3.0 * U * fabs(memory))) +
      4.0 * U * (fabs(change) + beta * fabs(g * memory));
  for (size_t i = 0; i < dim; i++) s[i] = g * s[i] + k[i] * change;
  *e = g * *e + change_error + fabs(change) * k_error + 4.0 * U * (g * before + fabs(change));
  for (size_t i = 0; i < dim; i++) {
    out += q[i] * s[i];
    out_sizes += fabs(q[i] * s[i]);
  }
  return (bounded){out, length(dim, q) * *e + length(dim, s) * q_error + count * U * out_sizes};
}

/* The definition of delta.h: one value head of row t. S: its state, column by column, each followed by its
 * error. */
static void step_truth(net *n, size_t t, size_t h, double *S) {
  const gptvq_delta_sizes *s = &n->sizes;
  const size_t keys = s->key_heads * s->key_dim, dv = s->value_dim;
  const size_t at = h / (s->value_heads / s->key_heads) * s->key_dim;
  const float *gates = n->gates + t * 2 * s->value_heads;
  const double a = (double)gates[h] + (double)n->time_bias[h];
  const double g = exp((double)n->rate[h] * log(1.0 + exp(a)));
  const double beta = 1.0 / (1.0 + exp(-(double)gates[s->value_heads + h]));
  double q[64], k[64];
  bounded out[64] = {{0}};
  const double q_error = unit_vector(n, t, at, 1.0 / sqrt((double)s->key_dim), q),
               k_error = unit_vector(n, t, keys + at, 1.0, k);
  for (size_t j = 0; j < dv; j++) {
    double *column = S + j * (s->key_dim + 1);
    const bounded v = convolved(n, t, 2 * keys + h * dv + j);
    out[j] = step_column(s->key_dim, g, beta, q, q_error, k, k_error, v, column, column + s->key_dim);
  }
  const bounded scale = inverse_length(dv, out, 1.0 / (double)dv, 1e-6);
  for (size_t j = 0; j < dv; j++)
    n->truth[(t * s->value_heads + h) * dv + j] =
        times(times(times(out[j], scale), number(n->norm[j])),
              silu(number(n->mixed[t * n->width + n->columns + h * dv + j])));
}

static void compute_truth(net *n) {
  const size_t size = (n->sizes.key_dim + 1) * n->sizes.value_dim;
  double *S = calloc(size, sizeof *S);
  for (size_t h = 0; h < n->sizes.value_heads; h++) {
    memset(S, 0, size * sizeof *S);
    for (size_t t = 0; t < TOKENS; t++) step_truth(n, t, h, S);
  }
  free(S);
}

/* All tokens in calls of `step`; `apart`: the state goes from one place to another and back. */
static void run(net *n, size_t step, bool apart) {
  const gptvq_delta_weights weights = {n->taps, n->rate, n->time_bias, n->norm};
  float *mixed = malloc(TOKENS * n->width * sizeof *mixed);
  memcpy(mixed, n->mixed, TOKENS * n->width * sizeof *mixed);
  for (size_t at = 0, call = 0; at < TOKENS; at += step, call++) {
    const size_t from = apart ? call % 2 : 0, to = apart ? 1 - from : 0;
    const gptvq_attention_text text = {.position = at,
                                       .n = gptvq_min_size(step, TOKENS - at),
                                       .state = n->states + from * n->state,
                                       .next_state = n->states + to * n->state};
    const gptvq_delta_rows rows = {.sizes = &n->sizes,
                                   .weights = &weights,
                                   .eps = 1e-6f,
                                   .texts = &text,
                                   .count = 1,
                                   .n = text.n,
                                   .mixed = mixed + at * n->width,
                                   .ldm = n->width,
                                   .gates = n->gates + at * 2 * n->sizes.value_heads,
                                   .out = n->out + at * n->outputs};
    gptvq_delta_net_rows(&rows);
  }
  free(mixed);
}

static void equals_the_definition(void **state) {
  (void)state;
  static const gptvq_delta_sizes sizes[] = {{1, 1, 1, 1, 1},  {2, 4, 8, 12, 4}, {2, 2, 16, 16, 4},
                                            {1, 3, 5, 64, 3}, {3, 3, 33, 7, 2}, {1, 2, 64, 64, 16}};
  static const char *const levels[] = {"ref", "avx2", "avx512", "neon"};
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    net n = make(sizes[i]);
    compute_truth(&n);
    float *first = malloc(TOKENS * n.outputs * sizeof *first);
    run(&n, TOKENS, false);
    memcpy(first, n.out, TOKENS * n.outputs * sizeof *first);
    double worst = 0, bounds = 0, sum = 0;
    for (size_t k = 0; k < TOKENS * n.outputs; k++) {
      double distance = fabs((double)first[k] - n.truth[k].v);
      if (!(distance <= n.truth[k].e))
        fail_msg("sizes %zu: output %zu is %.9g, should be %.9g (bound %.2g)", i, k, (double)first[k],
                 n.truth[k].v, n.truth[k].e);
      worst = fmax(worst, distance);
      bounds += n.truth[k].e;
      sum += fabs(n.truth[k].v);
    }
    print_message("sizes %zu: off by at most %.2g; bounds %.2g of the outputs\n", i, worst, bounds / sum);
    assert_true(bounds < 1e-2 * sum); /* they say something */
    /* bit for bit: calls of any length, states that move, threads, CPU levels */
    static const size_t steps[] = {1, 2, 3, 5, 16, TOKENS};
    for (size_t s = 0; s < sizeof steps / sizeof steps[0]; s++) {
      gptvq_set_threads(1 + (int)s % 3);
      run(&n, steps[s], s % 2 == 0);
      assert_memory_equal(n.out, first, TOKENS * n.outputs * sizeof *first);
    }
    gptvq_set_threads(0);
    for (size_t level = 0; level < sizeof levels / sizeof levels[0]; level++) {
      if (gptvq_set_cpu(levels[level], NULL) != GPTVQ_OK) continue;
      run(&n, 7, true);
      assert_memory_equal(n.out, first, TOKENS * n.outputs * sizeof *first);
    }
    assert_int_equal(gptvq_set_cpu(NULL, NULL), GPTVQ_OK);
    free(first);
    release(&n);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(equals_the_definition)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
