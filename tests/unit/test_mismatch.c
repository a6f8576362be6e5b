/* calib/mismatch.h against its definition in double precision. */
#include "base/memory.h"
#include "base/random.h"
#include "calib/mismatch.h"
#include "solver_fixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static const float scale = 0.25f; /* of the output on its way to the stream; exact */
enum { COLS = 21, LDX = 24, STREAM = 7, ROWS = 7, TOKENS = 700 };

typedef struct fixture {
  float x_original[TOKENS * COLS], x[TOKENS * LDX], stream_original[TOKENS * STREAM],
      stream_after[TOKENS * STREAM], stream[TOKENS * STREAM], w[ROWS * COLS], bias[ROWS];
  double h[COLS * COLS], a[COLS * COLS], d[STREAM * COLS];
} fixture;
static fixture f;

static float number(uint64_t *state) { return (float)gptvq_random_below(state, 2001) / 1000.0f - 1.0f; }

/* x = (1 + noise)-mixed x_original; `noise` 0: both streams are the same */
static void make_fixture(float noise, size_t dead) {
  uint64_t state = 5;
  memset(&f, 0, sizeof f);
  for (size_t i = 0; i < ROWS * COLS; i++) f.w[i] = number(&state);
  for (size_t i = 0; i < ROWS; i++) f.bias[i] = number(&state);
  for (size_t t = 0; t < TOKENS; t++) {
    float common = number(&state);
    for (size_t c = 0; c < COLS; c++) {
      float original = c == dead ? 0.0f : number(&state) + common;
      f.x_original[t * COLS + c] = original;
      f.x[t * LDX + c] =
          c == dead ? 0.0f : original + noise * (number(&state) + 0.3f * f.x_original[t * COLS + c / 2]);
    }
    for (size_t c = 0; c < STREAM; c++) {
      f.stream_original[t * STREAM + c] = number(&state);
      f.stream[t * STREAM + c] =
          f.stream_original[t * STREAM + c] + noise * (number(&state) + 2.0f * f.x[t * LDX + c]);
      double gain = (double)f.bias[c];
      for (size_t i = 0; i < COLS; i++)
        gain += (double)f.w[c * COLS + i] * (double)f.x_original[t * COLS + i];
      f.stream_after[t * STREAM + c] =
          (float)((double)f.stream_original[t * STREAM + c] + (double)scale * gain);
    }
  }
  for (size_t t = 0; t < TOKENS; t++)
    for (size_t j = 0; j < COLS; j++) {
      double x = (double)f.x[t * LDX + j] / TOKENS;
      for (size_t i = 0; i < COLS; i++) {
        f.h[i * COLS + j] += (double)f.x[t * LDX + i] * x;
        f.a[i * COLS + j] += ((double)f.x_original[t * COLS + i] - (double)f.x[t * LDX + i]) * x;
      }
      for (size_t i = 0; i < STREAM; i++)
        f.d[i * COLS + j] += ((double)f.stream_original[t * STREAM + i] - (double)f.stream[t * STREAM + i]) /
                             (double)scale * x;
    }
}

/* The solver's factor of f.h, of pairs: with a phantom, as COLS is odd, columns in an order of their own. */
static gptvq_factor *factorise(double damping) {
  gptvq_quantize_options o;
  gptvq_resolved resolved;
  gptvq_error err;
  gptvq_factor *factor;
  gptvq_quantize_options_init(&o);
  o.code = GPTVQ_CODE_VQ;
  o.dim = 2;
  o.damping = damping;
  assert_int_equal(gptvq_resolve(&o, &resolved, &err), GPTVQ_OK);
  const gptvq_solver solver = {&resolved, &gptvq_cpu_backend, NULL, NULL, NULL};
  assert_int_equal(gptvq_factor_create(&solver, "layer", COLS, f.h, &factor, &err), GPTVQ_OK);
  return factor;
}

static void divide(gptvq_mismatch *m, double damping) {
  gptvq_error err;
  gptvq_factor *factor = factorise(damping);
  const gptvq_factored factored = gptvq_factor_arrays(factor);
  assert_true(factored.padded > COLS);
  assert_int_equal(gptvq_mismatch_end(m, &err), GPTVQ_OK);
  assert_int_equal(gptvq_mismatch_divide(m, &factored, f.w, "layer", &err), GPTVQ_OK);
  gptvq_factor_destroy(factor);
}

/* The corrected weights. Tokens come in two calls. */
static void correct(double inputs_share, double stream_share, size_t rows_of_stream, double damping,
                    float *w) {
  gptvq_mismatch m;
  gptvq_error err;
  memcpy(w, f.w, sizeof f.w);
  assert_int_equal(gptvq_mismatch_init(&m, &gptvq_cpu_linalg, COLS, rows_of_stream, inputs_share,
                                       stream_share, "layer", &err),
                   GPTVQ_OK);
  const size_t cut = 300;
  for (size_t t = 0; t < TOKENS; t += cut) {
    const gptvq_deviation tokens = {.n = t == 0 ? cut : TOKENS - cut,
                                    .x_original = f.x_original + t * COLS,
                                    .x = f.x + t * LDX,
                                    .ldx = LDX,
                                    .stream_original = f.stream_original + t * STREAM,
                                    .stream_after = f.stream_after + t * STREAM,
                                    .bias = f.bias,
                                    .scale = scale,
                                    .stream = f.stream + t * STREAM};
    assert_int_equal(gptvq_mismatch_add(&m, &tokens, &err), GPTVQ_OK);
    if (t > 0) break;
  }
  divide(&m, damping);
  assert_int_equal(gptvq_mismatch_apply(&m, ROWS, w, "layer", &err), GPTVQ_OK);
  gptvq_mismatch_release(&m);
}

static void equal_streams_change_nothing(void **state) {
  (void)state;
  float w[ROWS * COLS];
  make_fixture(0.0f, SIZE_MAX);
  correct(1.0, 0.0, 0, 0.01, w);
  assert_memory_equal(w, f.w, sizeof w);
}

/* (W' − W)(H + λ) = share · W A + share · D, the normal equations, with rows and, where the stream has no
 * say, without. fp32 sums over 256 tokens of products below 4, of a stream below 2 + 2 · COLS where it takes
 * part, and fp32 products with the inverse, whose norm is at most 1/λ: an error of c · ε · 4 · COLS in each
 * term, c = 16 for their number. */
static void weights_solve_the_normal_equations(void **state) {
  (void)state;
  float w[ROWS * COLS];
  make_fixture(0.4f, 4);
  double mean = 0;
  for (size_t c = 0; c < COLS; c++) mean += f.h[c * COLS + c] / COLS;
  const double damping = 0.02, shares[5][2] = {{1, 0}, {0, 1}, {1, 1}, {0.5, 0.25}, {0.75, 0}};
  for (int s = 0; s < 5; s++) {
    correct(shares[s][0], shares[s][1], s < 4 ? STREAM : 0, damping, w);
    for (size_t r = 0; r < ROWS; r++)
      for (size_t j = 0; j < COLS; j++) {
        double left = 0, right = shares[s][1] * f.d[r * COLS + j];
        for (size_t i = 0; i < COLS; i++) {
          double change = (double)w[r * COLS + i] - (double)f.w[r * COLS + i];
          left += change * (f.h[i * COLS + j] + (i == j ? damping * mean : 0.0));
          right += shares[s][0] * (double)f.w[r * COLS + i] * f.a[i * COLS + j];
        }
        double bound = 16 * 4 * COLS * 0x1p-24 / damping;
        if (fabs(left - right) > bound)
          fail_msg("row %zu, column %zu: %g instead of %g (bound %g)", r, j, left, right, bound);
      }
    for (size_t r = 0; r < ROWS; r++) assert_true(w[r * COLS + 4] == f.w[r * COLS + 4]); /* the dead column */
  }
}

/* mean ‖W x_o + s_o − W' x − s‖² */
static double loss(const float *w, int with_stream) {
  double sum = 0;
  for (size_t t = 0; t < TOKENS; t++)
    for (size_t r = 0; r < ROWS; r++) {
      double e =
          with_stream
              ? ((double)f.stream_original[t * STREAM + r] - (double)f.stream[t * STREAM + r]) / (double)scale
              : 0.0;
      for (size_t c = 0; c < COLS; c++)
        e += (double)f.w[r * COLS + c] * (double)f.x_original[t * COLS + c] -
             (double)w[r * COLS + c] * (double)f.x[t * LDX + c];
      sum += e * e / TOKENS;
    }
  return sum;
}

static void the_match_improves(void **state) {
  (void)state;
  float w[ROWS * COLS], both[ROWS * COLS], half[ROWS * COLS];
  make_fixture(0.4f, SIZE_MAX);
  correct(1.0, 0.0, 0, 1e-4, w);
  correct(0.5, 0.0, 0, 1e-4, half);
  assert_true(loss(half, 0) < 0.95 * loss(f.w, 0));
  assert_true(loss(w, 0) < loss(half, 0));
  correct(1.0, 1.0, STREAM, 1e-4, both);
  assert_true(loss(both, 1) < 0.98 * loss(w, 1));
}

static void no_token_no_change(void **state) {
  (void)state;
  gptvq_mismatch m;
  gptvq_error err;
  float w[ROWS * COLS];
  make_fixture(0.4f, SIZE_MAX);
  memcpy(w, f.w, sizeof w);
  memset(f.h, 0, sizeof f.h);
  assert_int_equal(gptvq_mismatch_init(&m, &gptvq_cpu_linalg, COLS, STREAM, 1.0, 1.0, "layer", &err),
                   GPTVQ_OK);
  divide(&m, 0.01);
  assert_int_equal(gptvq_mismatch_apply(&m, ROWS, w, "layer", &err), GPTVQ_OK);
  assert_memory_equal(w, f.w, sizeof w);
  gptvq_mismatch_release(&m);
}

/* An overflow of the correction is not taken for a weight that the file has. */
static void overflow_is_named(void **state) {
  (void)state;
  gptvq_error err;
  float w[ROWS * COLS], map[COLS * COLS];
  for (size_t i = 0; i < ROWS * COLS; i++) w[i] = 1e20f;
  for (size_t i = 0; i < COLS * COLS; i++) map[i] = 1e20f;
  const gptvq_mismatch m = {.linalg = &gptvq_cpu_linalg, .cols = COLS, .inputs_share = 1.0, .map = map};
  assert_int_equal(gptvq_mismatch_apply(&m, ROWS, w, "layer", &err), GPTVQ_ERROR_NUMERIC);
  assert_non_null(strstr(err.message, "layer: making up for"));
}

static void impossible_sizes_are_refused(void **state) {
  (void)state;
  gptvq_mismatch m;
  gptvq_error err;
  assert_int_equal(gptvq_mismatch_bytes(SIZE_MAX / 2, 1), SIZE_MAX);
  assert_int_equal(gptvq_mismatch_init(&m, &gptvq_cpu_linalg, (size_t)1 << 31, 0, 1.0, 0.0, "layer", &err),
                   GPTVQ_ERROR_MEMORY);
  assert_non_null(strstr(err.message, "layer"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(equal_streams_change_nothing), cmocka_unit_test(weights_solve_the_normal_equations),
      cmocka_unit_test(the_match_improves),           cmocka_unit_test(no_token_no_change),
      cmocka_unit_test(impossible_sizes_are_refused), cmocka_unit_test(overflow_is_named),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
