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
/* TALL: of more rows than are divided together, with FEW tokens */
enum { COLS = 21, PADDED = 22, LDX = 24, ROWS = 7, TOKENS = 700, TALL = 2100, FEW = 40, STREAM = TALL * FEW };

/* A layer that writes to the stream, as many rows. */
typedef struct fixture {
  size_t rows, tokens;
  float x_original[TOKENS * COLS], x[TOKENS * LDX], stream_original[STREAM], stream_after[STREAM],
      stream[STREAM], w[TALL * COLS], bias[TALL];
  double h[COLS * COLS], a[COLS * COLS], d[TALL * COLS];
} fixture;
static fixture f;
static float w[TALL * COLS]; /* corrected */

static float number(uint64_t *state) { return (float)gptvq_random_below(state, 2001) / 1000.0f - 1.0f; }

/* x = (1 + noise)-mixed x_original; `noise` 0: both streams are the same */
static void make_fixture(size_t rows, size_t tokens, float noise, size_t dead) {
  uint64_t state = 5;
  memset(&f, 0, sizeof f);
  f.rows = rows;
  f.tokens = tokens;
  for (size_t i = 0; i < rows * COLS; i++) f.w[i] = number(&state);
  for (size_t i = 0; i < rows; i++) f.bias[i] = number(&state);
  for (size_t t = 0; t < tokens; t++) {
    float common = number(&state);
    for (size_t c = 0; c < COLS; c++) {
      float original = c == dead ? 0.0f : number(&state) + common;
      f.x_original[t * COLS + c] = original;
      f.x[t * LDX + c] =
          c == dead ? 0.0f : original + noise * (number(&state) + 0.3f * f.x_original[t * COLS + c / 2]);
    }
    for (size_t c = 0; c < rows; c++) {
      f.stream_original[t * rows + c] = number(&state);
      f.stream[t * rows + c] =
          f.stream_original[t * rows + c] + noise * (number(&state) + 2.0f * f.x[t * LDX + c]);
      double gain = (double)f.bias[c];
      for (size_t i = 0; i < COLS; i++)
        gain += (double)f.w[c * COLS + i] * (double)f.x_original[t * COLS + i];
      f.stream_after[t * rows + c] = (float)((double)f.stream_original[t * rows + c] + (double)scale * gain);
    }
  }
  for (size_t t = 0; t < tokens; t++)
    for (size_t j = 0; j < COLS; j++) {
      double x = (double)f.x[t * LDX + j] / (double)tokens;
      for (size_t i = 0; i < COLS; i++) {
        f.h[i * COLS + j] += (double)f.x[t * LDX + i] * x;
        f.a[i * COLS + j] += ((double)f.x_original[t * COLS + i] - (double)f.x[t * LDX + i]) * x;
      }
      for (size_t i = 0; i < rows; i++)
        f.d[i * COLS + j] +=
            ((double)f.stream_original[t * rows + i] - (double)f.stream[t * rows + i]) / (double)scale * x;
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
  o.mismatch = 1.0; /* then there is some damping in any case */
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

/* w = the corrected weights, with the stream or without. Tokens come in two calls. */
static void correct(double inputs_share, double stream_share, bool with_stream, double damping) {
  gptvq_mismatch m;
  gptvq_error err;
  memcpy(w, f.w, sizeof f.w);
  const size_t rows = f.rows;
  assert_int_equal(gptvq_mismatch_init(&m, &gptvq_cpu_linalg, COLS, with_stream ? rows : 0, inputs_share,
                                       stream_share, "layer", &err),
                   GPTVQ_OK);
  const size_t cut = f.tokens * 3 / 7;
  for (size_t t = 0; t < f.tokens; t += cut) {
    const gptvq_deviation tokens = {.n = t == 0 ? cut : f.tokens - cut,
                                    .x_original = f.x_original + t * COLS,
                                    .x = f.x + t * LDX,
                                    .ldx = LDX,
                                    .stream_original = f.stream_original + t * rows,
                                    .stream_after = f.stream_after + t * rows,
                                    .bias = f.bias,
                                    .scale = scale,
                                    .stream = f.stream + t * rows};
    assert_int_equal(gptvq_mismatch_add(&m, &tokens, &err), GPTVQ_OK);
    if (t > 0) break;
  }
  divide(&m, damping);
  assert_int_equal(gptvq_mismatch_apply(&m, f.rows, w, "layer", &err), GPTVQ_OK);
  gptvq_mismatch_release(&m);
}

static void equal_streams_change_nothing(void **state) {
  (void)state;
  make_fixture(ROWS, TOKENS, 0.0f, SIZE_MAX);
  correct(1.0, 0.0, false, 0.01);
  assert_memory_equal(w, f.w, sizeof w);
}

static double norm(const double *x) {
  double sum = 0.0;
  for (size_t c = 0; c < COLS; c++) sum += x[c] * x[c];
  return sqrt(sum);
}

/* What a row's change is made of: s = α W A + β D. λ is so much of the mean diagonal. */
typedef struct row {
  size_t at;
  double inputs_share, stream_share, lambda, s[COLS];
  bool with_stream;
} row;

static row row_of(size_t at, double inputs_share, double stream_share, bool with_stream, double damping) {
  row r = {.at = at,
           .inputs_share = inputs_share,
           .stream_share = stream_share,
           .lambda = damping * mean_diagonal(COLS, f.h),
           .with_stream = with_stream};
  for (size_t j = 0; j < COLS; j++) {
    r.s[j] = stream_share * f.d[at * COLS + j];
    for (size_t i = 0; i < COLS; i++) r.s[j] += inputs_share * (double)f.w[at * COLS + i] * f.a[i * COLS + j];
  }
  return r;
}

/* How far an entry of s may be off, in fp32. Sums over at most 256 tokens, of products, and their mean, and 5
 * roundings on the way from the stream to a token's numbers: of all that these are made of, or of
 * W (x_o − x). The stream gives W (A + H): W H has a sum of as many terms as columns, H and its factor are
 * rounded, and the difference. */
static double error_of_sums(const row *r) {
  const float *weights = f.w + r->at * COLS;
  double summed = 0.0, product = 0.0;
  for (size_t j = 0; j < COLS; j++) {
    double of_tokens = 0.0, of_columns = 0.0;
    for (size_t t = 0; t < f.tokens; t++) {
      const size_t at = t * f.rows + r->at;
      const double before = fabs((double)f.stream_original[at]), after = fabs((double)f.stream_after[at]),
                   bias = fabs((double)f.bias[r->at]);
      double size = r->inputs_share * ((after + before) / (double)scale + bias) +
                    r->stream_share * (before + fabs((double)f.stream[at])) / (double)scale;
      for (size_t i = 0; i < COLS; i++)
        size += r->inputs_share *
                fabs((double)weights[i] * ((double)f.x_original[t * COLS + i] - (double)f.x[t * LDX + i]));
      of_tokens += size * fabs((double)f.x[t * LDX + j]) / (double)f.tokens;
    }
    for (size_t i = 0; i < COLS; i++)
      of_columns += r->inputs_share * fabs((double)weights[i] * f.h[i * COLS + j]);
    summed = fmax(summed, of_tokens);
    product = fmax(product, of_columns);
  }
  const double terms = f.tokens < 256 ? (double)f.tokens : 256.0;
  return 0x1p-24 * ((terms + 7) * summed + (COLS + 3) * product);
}

/* How much of 1 / λ the division may add to a change. It is s U'ᵀ U'' with U' and U'' within n + 2 roundings
 * of U in every entry (its own and those of sums of n terms; n = PADDED): twice at most (n + 2) √n ‖U‖² ‖s‖,
 * and ‖U‖² <= 1 / λ. Where all rows have one map s are its rows, and their product with W has roundings, too.
 */
static double error_of_division(const row *r) {
  double s = norm(r->s);
  if (!r->with_stream) {
    s = 0.0;
    for (size_t i = 0; i < COLS; i++)
      s += r->inputs_share * fabs((double)f.w[r->at * COLS + i]) * norm(f.a + i * COLS);
  }
  return 0x1p-24 * (2 * (PADDED + 2) * sqrt(PADDED) + COLS + 1) * s;
}

/* (W' − W)(H + λ) = s, the normal equations, with rows and, where the stream has no say, without: but for the
 * error of s, and times H + λ that of the division and a rounding of the weights. A column is dead. */
static void check_normal_equations(size_t rows, size_t tokens) {
  make_fixture(rows, tokens, 0.4f, 4);
  const double damping = 0.1, shares[5][2] = {{1, 0}, {0, 1}, {1, 1}, {0.5, 0.25}, {0.75, 0}};
  double largest_sum = 0.0;
  for (size_t i = 0; i < COLS; i++) {
    double sum = damping * mean_diagonal(COLS, f.h);
    for (size_t j = 0; j < COLS; j++) sum += fabs(f.h[i * COLS + j]);
    largest_sum = fmax(largest_sum, sum); /* at least ‖H + λ‖ */
  }
  for (int s = 0; s < 5; s++) {
    correct(shares[s][0], shares[s][1], s < 4, damping);
    for (size_t at = 0; at < rows; at++) {
      const row r = row_of(at, shares[s][0], shares[s][1], s < 4, damping);
      double left[COLS] = {0}, largest = 0.0;
      for (size_t i = 0; i < COLS; i++) {
        const double now = (double)w[at * COLS + i], change = now - (double)f.w[at * COLS + i];
        largest = fmax(largest, fabs(now));
        for (size_t j = 0; j < COLS; j++) left[j] += change * (f.h[i * COLS + j] + (i == j ? r.lambda : 0.0));
      }
      const double bound =
          error_of_sums(&r) + largest_sum * (error_of_division(&r) / r.lambda + 0x1p-24 * largest);
      for (size_t j = 0; j < COLS; j++)
        if (!(fabs(left[j] - r.s[j]) <= bound))
          fail_msg("row %zu, column %zu: %g instead of %g (bound %g)", at, j, left[j], r.s[j], bound);
      assert_true(w[at * COLS + 4] == f.w[at * COLS + 4]); /* the dead column */
    }
  }
}

static void weights_solve_the_normal_equations(void **state) {
  (void)state;
  check_normal_equations(ROWS, TOKENS);
}

static void rows_beyond_a_slab_do_too(void **state) {
  (void)state;
  check_normal_equations(TALL, FEW);
}

/* mean ‖W x_o + s_o − W' x − s‖² */
static double loss(const float *weights, bool with_stream) {
  double sum = 0;
  for (size_t t = 0; t < f.tokens; t++)
    for (size_t r = 0; r < f.rows; r++) {
      double e =
          with_stream
              ? ((double)f.stream_original[t * f.rows + r] - (double)f.stream[t * f.rows + r]) / (double)scale
              : 0.0;
      for (size_t c = 0; c < COLS; c++)
        e += (double)f.w[r * COLS + c] * (double)f.x_original[t * COLS + c] -
             (double)weights[r * COLS + c] * (double)f.x[t * LDX + c];
      sum += e * e / (double)f.tokens;
    }
  return sum;
}

/* With fewer tokens than columns H has no inverse; without damping λ is 1e-6 of its mean diagonal: the change
 * is s (H + λ)⁻¹ but for 1 / λ times what s and the division lack, and a rounding of weights below 2, and the
 * match improves. */
static void few_tokens_do_without_damping(void **state) {
  (void)state;
  for (size_t tokens = 5; tokens <= 20; tokens += 5)
    for (int with_stream = 0; with_stream < 2; with_stream++) {
      double inverse[COLS * COLS];
      make_fixture(ROWS, tokens, 0.1f, SIZE_MAX);
      memcpy(inverse, f.h, sizeof inverse);
      for (size_t c = 0; c < COLS; c++) inverse[c * COLS + c] += 1e-6 * mean_diagonal(COLS, f.h);
      invert(COLS, inverse);
      correct(1.0, with_stream, with_stream, 0.0);
      for (size_t at = 0; at < ROWS; at++) {
        const row r = row_of(at, 1.0, with_stream, with_stream, 1e-6);
        const double bound = (sqrt(COLS) * error_of_sums(&r) + error_of_division(&r)) / r.lambda + 0x1p-23;
        for (size_t j = 0; j < COLS; j++) {
          const double change = (double)w[at * COLS + j] - (double)f.w[at * COLS + j];
          double expected = 0.0;
          for (size_t i = 0; i < COLS; i++) expected += r.s[i] * inverse[i * COLS + j];
          if (!(fabs(change - expected) <= bound))
            fail_msg("%zu tokens, row %zu, column %zu: %g instead of %g (bound %g)", tokens, at, j, change,
                     expected, bound);
        }
      }
      assert_true(loss(w, with_stream) < loss(f.w, with_stream));
    }
}

static void the_match_improves(void **state) {
  (void)state;
  make_fixture(ROWS, TOKENS, 0.4f, SIZE_MAX);
  correct(1.0, 0.0, false, 1e-4);
  const double all = loss(w, false), all_of_stream = loss(w, true);
  correct(0.5, 0.0, false, 1e-4);
  const double half = loss(w, false);
  assert_true(half < 0.95 * loss(f.w, false));
  assert_true(all < half);
  correct(1.0, 1.0, true, 1e-4);
  assert_true(loss(w, true) < 0.98 * all_of_stream);
}

static void no_token_no_change(void **state) {
  (void)state;
  gptvq_mismatch m;
  gptvq_error err;
  make_fixture(ROWS, TOKENS, 0.4f, SIZE_MAX);
  memcpy(w, f.w, sizeof f.w);
  memset(f.h, 0, sizeof f.h);
  assert_int_equal(gptvq_mismatch_init(&m, &gptvq_cpu_linalg, COLS, ROWS, 1.0, 1.0, "layer", &err), GPTVQ_OK);
  divide(&m, 0.01);
  assert_int_equal(gptvq_mismatch_apply(&m, f.rows, w, "layer", &err), GPTVQ_OK);
  assert_memory_equal(w, f.w, sizeof w);
  gptvq_mismatch_release(&m);
}

/* An overflow of the correction is not taken for a weight that the file has. */
static void overflow_is_named(void **state) {
  (void)state;
  gptvq_error err;
  float map[COLS * COLS];
  for (size_t i = 0; i < ROWS * COLS; i++) w[i] = 1e20f;
  for (size_t i = 0; i < COLS * COLS; i++) map[i] = 1e20f;
  const gptvq_mismatch m = {.linalg = &gptvq_cpu_linalg, .cols = COLS, .inputs_share = 1.0, .map = map};
  assert_int_equal(gptvq_mismatch_apply(&m, f.rows, w, "layer", &err), GPTVQ_ERROR_NUMERIC);
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
      cmocka_unit_test(rows_beyond_a_slab_do_too),    cmocka_unit_test(few_tokens_do_without_damping),
      cmocka_unit_test(the_match_improves),           cmocka_unit_test(no_token_no_change),
      cmocka_unit_test(impossible_sizes_are_refused), cmocka_unit_test(overflow_is_named),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
