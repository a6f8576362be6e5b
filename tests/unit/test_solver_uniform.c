/* RTN and GPTQ against independent code; layers at the edges of what may come. */
#include "solver_fixture.h"

static void read_codes(const gptvq_packed *p, size_t row, uint16_t *out) {
  gptvq_unpack_unit(p->indices + gptvq_unit_offset(&p->shape, row, 0), gptvq_unit_indices(&p->shape, 0),
                    p->shape.index_bits, out);
}

/* Rounds one number to a grid with fp16 scale and integer zero point, as the stored format defines it */
static double to_grid(double w, double scale, int zero, int top, int *code) {
  int c = (int)rint(w / scale) + zero;
  *code = c < 0 ? 0 : c > top ? top : c;
  return scale * (*code - zero);
}

static void grid_of(const double *w, size_t n, int top, double *scale, int *zero) {
  double low = 0.0, high = 0.0;
  for (size_t i = 0; i < n; i++) low = fmin(low, w[i]), high = fmax(high, w[i]);
  if (low == 0.0 && high == 0.0) low = -1.0, high = 1.0;
  *scale = (double)gptvq_fp16_to_float(gptvq_float_to_fp16((float)((high - low) / top)));
  *zero = (int)rint(-low / *scale);
}

/* GPTQ as optimal brain surgeon: explicit inverse of the remaining Hessian per column; RTN is the same with H
 * diagonal. */
static void naive_row(size_t cols, size_t group, int top, const float *w, const double *hd, int *codes) {
  double *row = gptvq_alloc(cols, sizeof *row), *rest = gptvq_alloc(cols, cols * sizeof *rest), scale = 1.0;
  int zero = 0;
  for (size_t c = 0; c < cols; c++) row[c] = (double)w[c];
  for (size_t at = 0; at < cols; at++) {
    if (at % group == 0) grid_of(row + at, gptvq_min_size(group, cols - at), top, &scale, &zero);
    double q = to_grid(row[at], scale, zero, top, &codes[at]);
    if (hd == NULL) continue;
    size_t n = cols - at;
    for (size_t a = 0; a < n; a++)
      for (size_t b = 0; b < n; b++) rest[a * n + b] = hd[(at + a) * cols + at + b];
    invert(n, rest);
    double e = (row[at] - q) / rest[0];
    for (size_t c = 0; c < n; c++) row[at + c] -= e * rest[c];
  }
  free(row);
  free(rest);
}

static void gptq_and_rtn_equal_the_naive_ones(void **state) {
  (void)state;
  enum { ROWS = 7, COLS = 150 };
  float *w = random_weights(ROWS, COLS, 3);
  double *h = random_hessian(COLS, 300, 4), *hd = gptvq_alloc(COLS, COLS * sizeof *hd);
  for (unsigned bits = 2; bits <= 4; bits++)
    for (size_t group = 32; group <= 160;
         group *= 5) /* narrower than a lazy batch; one group for the whole row */
      for (int gptq = 0; gptq < 2; gptq++) {
        gptvq_quantize_options o;
        gptvq_quantize_options_init(&o);
        o.method = gptq ? GPTVQ_METHOD_GPTQ : GPTVQ_METHOD_RTN;
        o.bits = 0.0;
        o.index_bits = bits;
        o.group_size = group;
        gptvq_layer_result r = solve(ROWS, COLS, w, h, &o);
        memcpy(hd, h, COLS * COLS * sizeof *hd);
        double lambda = o.damping * mean_diagonal(COLS, h);
        for (size_t i = 0; i < COLS; i++) hd[i * COLS + i] += lambda;
        for (size_t row = 0; row < ROWS; row++) {
          uint16_t got[COLS + 8];
          int want[COLS];
          read_codes(&r.packed, row, got);
          naive_row(COLS, group, (1 << bits) - 1, w + row * COLS, gptq ? hd : NULL, want);
          for (size_t c = 0; c < COLS; c++)
            if (got[c] != want[c])
              fail_msg("bits %u group %zu gptq %d row %zu column %zu: %u, not %d", bits, group, gptq, row, c,
                       got[c], want[c]);
        }
        double truth = relative_error(&r.packed, w, h);
        assert_true(fabs(r.error - truth) <= 1e-4 * truth);
        gptvq_layer_result_release(&r);
      }
  free(w);
  free(h);
  free(hd);
}

static void act_order_gptq_is_consistent(void **state) {
  (void)state;
  enum { ROWS = 7, COLS = 150 };
  float *w = random_weights(ROWS, COLS, 3);
  double *h = random_hessian(COLS, 300, 4);
  gptvq_quantize_options o;
  gptvq_quantize_options_init(&o);
  o.method = GPTVQ_METHOD_GPTQ;
  o.bits = 3.125;
  o.act_order = 1;
  gptvq_layer_result r = solve(ROWS, COLS, w, h, &o);
  for (size_t c = 1; c < COLS; c++)
    assert_true(h[r.packed.permutation[c] * (COLS + 1)] <= h[r.packed.permutation[c - 1] * (COLS + 1)]);
  double truth = relative_error(&r.packed, w, h);
  assert_true(fabs(r.error - truth) <= 1e-4 * truth);
  gptvq_layer_result_release(&r);
  free(w);
  free(h);
}

/* Values on the grid come back exactly: powers of two, constants, zeros. */
static void exact_cases(void **state) {
  (void)state;
  enum { ROWS = 4, COLS = 64 };
  float w[ROWS * COLS];
  double *h = random_hessian(COLS, 128, 8);
  for (size_t i = 0; i < ROWS * COLS; i++)
    w[i] = i % 4 == 0 ? -0.25f : i % 4 == 1 ? 0.0f : i % 4 == 2 ? 0.25f : 0.5f;
  static const gptvq_method methods[] = {GPTVQ_METHOD_RTN, GPTVQ_METHOD_GPTQ, GPTVQ_METHOD_KMEANS,
                                         GPTVQ_METHOD_GPTVQ};
  for (int kind = 0; kind < 3; kind++) { /* four levels; constant rows; all zero */
    for (size_t i = 0; i < ROWS * COLS && kind > 0; i++)
      w[i] = kind == 1 ? ldexpf(1.0f, (int)(i / COLS) % 2) : 0.0f;
    for (size_t m = 0; m < 4; m++)
      for (unsigned dim = 1; dim <= 4; dim *= 2) {
        gptvq_quantize_options o = small_options(dim, m < 2 ? 2 : 4, 64);
        o.method = methods[m];
        o.em_init = kind == 0 ? GPTVQ_INIT_KMEANSPP : GPTVQ_INIT_MAHALANOBIS;
        gptvq_layer_result r = solve(ROWS, COLS, w, h, &o);
        float out[ROWS * COLS];
        gptvq_packed_decode_ref(&r.packed, 0, ROWS, out, COLS);
        for (size_t i = 0; i < ROWS * COLS; i++) {
          /* int8 codes of half the largest value are 1/254 of it off; a third of 1 or 2 is rounded to fp16 */
          float bound = m < 2 ? kind == 1 ? 0x1p-11f * w[i] : 0.0f : kind == 0 ? 0.5f / 254.0f + 1e-6f : 0.0f;
          if (fabsf(out[i] - w[i]) > bound)
            fail_msg("kind %d method %zu dim %u: %g for %g", kind, m, dim, (double)out[i], (double)w[i]);
        }
        if (kind == 2 || (kind == 1 && m >= 2)) assert_true(r.error == 0.0);
        gptvq_layer_result_release(&r);
      }
  }
  free(h);
}

static char last_log[1024];
static void keep_log(void *user, gptvq_log_level level, const char *line) {
  (void)user;
  assert_int_equal(level, GPTVQ_LOG_WARNING);
  (void)snprintf(last_log, sizeof last_log, "%s", line);
}

/* Every shape, dimension and method ends with finite values and its true error, also where nothing divides
 * anything. */
static void all_shapes_work(void **state) {
  (void)state;
  static const size_t rows[] = {1, 3, 17}, cols[] = {1, 2, 7, 8, 33, 257, 300};
  for (size_t a = 0; a < 3; a++)
    for (size_t b = 0; b < 7; b++)
      for (int m = 0; m < 6; m++) {
        float *w = random_weights(rows[a], cols[b], a + b + 1);
        double *h = random_hessian(cols[b], cols[b] / 2 + 1, 9); /* singular for wide layers */
        gptvq_quantize_options o;
        gptvq_quantize_options_init(&o);
        o.method = m < 3 ? GPTVQ_METHOD_GPTVQ : (gptvq_method)(m - 2);
        o.dim = m < 3 ? 1u << m : 2;
        o.scale_block = m < 3 && b % 2 ? 32 : 0;
        o.act_order = (int)(a + b) % 3;
        o.bits = 2.25;
        gptvq_layer_result r = solve(rows[a], cols[b], w, h, &o);
        double truth = relative_error(&r.packed, w, h);
        /* k-means alone may fit every value of a tiny layer: the error is then rounding, 1e-6 of fp32 sums */
        if (!(fabs(r.error - truth) <= 1e-3 * truth + 1e-6))
          fail_msg("%zu x %zu method %d: %g, not %g", rows[a], cols[b], m, r.error, truth);
        gptvq_layer_result_release(&r);
        free(w);
        free(h);
      }
}

static void bad_input_is_named(void **state) {
  (void)state;
  enum { ROWS = 4, COLS = 16 };
  float *w = random_weights(ROWS, COLS, 1);
  double *h = random_hessian(COLS, 32, 2);
  gptvq_quantize_options o = small_options(2, 2, 64);
  gptvq_error err;
  gptvq_factor *f;
  gptvq_layer_result r;
  gptvq_callbacks callbacks = {.size = sizeof callbacks, .log = keep_log};
  w[2 * COLS + 5] = NAN;
  assert_int_equal(solve_with(NULL, "layer.x", ROWS, COLS, w, &o, &r, &err), GPTVQ_ERROR_NUMERIC);
  assert_non_null(strstr(err.message, "layer.x: the weight at row 2, column 5 is NaN"));
  assert_null(r.storage);
  w[2 * COLS + 5] = -INFINITY;
  assert_int_equal(solve_with(NULL, "layer.x", ROWS, COLS, w, &o, &r, &err), GPTVQ_ERROR_NUMERIC);
  assert_non_null(strstr(err.message, "infinite"));
  h[3 * COLS + 4] = NAN;
  assert_int_equal(make_factor("layer.x", COLS, h, &o, NULL, &f, &err), GPTVQ_ERROR_NUMERIC);
  assert_non_null(strstr(err.message, "layer.x"));
  assert_non_null(strstr(err.message, "row 3, column 4"));
  free(w);
  free(h);
  /* no calibration input at all: identity, said in the log */
  w = random_weights(ROWS, COLS, 1);
  h = gptvq_alloc_zero(COLS, COLS * sizeof *h);
  assert_int_equal(make_factor("layer.x", COLS, h, &o, &callbacks, &f, &err), GPTVQ_OK);
  assert_non_null(strstr(last_log, "layer.x: no calibration input"));
  assert_int_equal(solve_with(f, "layer.x", ROWS, COLS, w, &o, &r, &err), GPTVQ_OK);
  for (size_t i = 0; i < COLS; i++) h[i * COLS + i] = 1.0;
  double truth = relative_error(&r.packed, w, h);
  assert_true(fabs(r.error - truth) <= 1e-5 * truth);
  gptvq_layer_result_release(&r);
  gptvq_factor_destroy(f);
  /* not positive definite: more damping, named in the log */
  for (size_t i = 0; i < COLS * COLS; i++) h[i] = i % (COLS + 1) == 0 ? 1.0 : 1.02;
  assert_int_equal(make_factor("layer.x", COLS, h, &o, &callbacks, &f, &err), GPTVQ_OK);
  assert_non_null(strstr(last_log, "trying 0.1"));
  assert_false(f->diagonal);
  gptvq_factor_destroy(f);
  /* beyond repair: the diagonal */
  o.damping = 0.0;
  for (size_t i = 0; i < COLS * COLS; i++) h[i] = i % (COLS + 1) == 0 ? 1.0 : 2.0;
  assert_int_equal(make_factor("layer.x", COLS, h, &o, &callbacks, &f, &err), GPTVQ_OK);
  assert_non_null(strstr(last_log, "only its diagonal"));
  assert_true(f->diagonal);
  assert_int_equal(solve_with(f, "layer.x", ROWS, COLS, w, &o, &r, &err), GPTVQ_OK);
  gptvq_layer_result_release(&r);
  /* a factor of other sizes is refused */
  gptvq_quantize_options other = small_options(4, 2, 64);
  assert_int_equal(solve_with(f, "layer.x", ROWS, COLS, w, &other, &r, &err), GPTVQ_ERROR_INTERNAL);
  gptvq_factor_destroy(f);
  free(w);
  free(h);
}

static gptvq_status solve_scaled(gptvq_method method, unsigned bits, size_t rows, size_t cols, const float *w,
                                 float factor, const double *h, float *scaled, gptvq_layer_result *r,
                                 gptvq_error *err) {
  gptvq_quantize_options o;
  gptvq_factor *f = NULL;
  gptvq_quantize_options_init(&o);
  bool uniform = method == GPTVQ_METHOD_RTN || method == GPTVQ_METHOD_GPTQ;
  o.method = method;
  o.bits = 0.0;
  o.dim = uniform ? 1 : 2;
  o.index_bits = bits;
  o.group_size = uniform ? 32 : 512;
  for (size_t i = 0; i < rows * cols; i++) scaled[i] = w[i] * factor;
  assert_int_equal(make_factor("layer.x", cols, h, &o, NULL, &f, err), GPTVQ_OK);
  gptvq_status status = solve_with(f, "layer.x", rows, cols, scaled, &o, r, err);
  gptvq_factor_destroy(f);
  return status;
}

/* The scales of uniform codes are fp16. A layer that they do not hold is refused, not rounded to zero or cut
 * off; one that is written is no worse than with codes of 2 bits. VQ layers keep their error at any size. */
static void scales_hold_or_the_layer_is_refused(void **state) {
  (void)state;
  enum { ROWS = 7, COLS = 96 };
  float *w = random_weights(ROWS, COLS, 5), *scaled = gptvq_alloc(ROWS, COLS * sizeof *scaled);
  double *h = random_hessian(COLS, 300, 6), plain[4] = {0};
  gptvq_layer_result r;
  gptvq_error err;
  assert_int_equal(solve_scaled(GPTVQ_METHOD_RTN, 2, ROWS, COLS, w, 1.0f, h, scaled, &r, &err), GPTVQ_OK);
  double coarsest = r.error;
  gptvq_layer_result_release(&r);
  for (int power = 110; power >= -110; power--) /* of 0.05: 1e31 to 1e-35 */
    for (unsigned bits = 2; bits <= 8; bits += 2) {
      gptvq_status status =
          solve_scaled(GPTVQ_METHOD_RTN, bits, ROWS, COLS, w, ldexpf(1.0f, power), h, scaled, &r, &err);
      bool surely = power >= -10 && power <= 16, never = power <= -24 || power >= 28;
      if (status != GPTVQ_OK ? status != GPTVQ_ERROR_NUMERIC || surely : never)
        fail_msg("2^%d, %u bits: %s", power, bits, gptvq_status_name(status));
      if (status != GPTVQ_OK) {
        assert_non_null(strstr(err.message, "layer.x"));
        assert_non_null(strstr(err.message, "`method` gptvq"));
        continue;
      }
      if (bits > 2 && !(r.error <= coarsest))
        fail_msg("2^%d, %u bits: error %g, with 2 bits %g", power, bits, r.error, coarsest);
      gptvq_layer_result_release(&r);
    }
  static const float factors[] = {1.0f, 0x1p-22f, 0x1p100f}; /* weights about 1e-8 and 1e29 */
  for (size_t i = 0; i < 3; i++)
    for (int m = 0; m < 4; m++) {
      static const gptvq_method methods[] = {GPTVQ_METHOD_RTN, GPTVQ_METHOD_GPTQ, GPTVQ_METHOD_KMEANS,
                                             GPTVQ_METHOD_GPTVQ};
      gptvq_status status = solve_scaled(methods[m], 4, ROWS, COLS, w, factors[i], h, scaled, &r, &err);
      assert_int_equal(status, m < 2 && i > 0 ? GPTVQ_ERROR_NUMERIC : GPTVQ_OK);
      if (status != GPTVQ_OK) continue;
      if (i == 0) plain[m] = r.error;
      if (!(fabs(r.error - plain[m]) <= 1e-4 * plain[m])) /* powers of two: the same codes */
        fail_msg("method %d, factor %g: error %g, not %g", m, (double)factors[i], r.error, plain[m]);
      gptvq_layer_result_release(&r);
    }
  /* a row that does not count in a layer that does */
  for (size_t c = 0; c < COLS; c++) w[3 * COLS + c] *= 1e-20f;
  for (int m = 0; m < 2; m++) {
    if (solve_scaled(m == 0 ? GPTVQ_METHOD_RTN : GPTVQ_METHOD_GPTQ, 8, ROWS, COLS, w, 1.0f, h, scaled, &r,
                     &err) != GPTVQ_OK)
      fail_msg("%s", err.message);
    gptvq_layer_result_release(&r);
  }
  for (size_t i = 0; i < ROWS * COLS; i++) w[i] = i % 2 ? 3e38f : -3e38f; /* a range beyond fp32 */
  assert_int_equal(solve_scaled(GPTVQ_METHOD_RTN, 4, ROWS, COLS, w, 1.0f, h, scaled, &r, &err),
                   GPTVQ_ERROR_NUMERIC);
  /* block scales over a wider range than files may have: what is written can be read */
  for (size_t i = 0; i < ROWS * COLS; i++) w[i] = i < 4 * COLS ? 1e-44f : 0.05f;
  gptvq_quantize_options o;
  gptvq_quantize_options_init(&o);
  o.method = GPTVQ_METHOD_KMEANS;
  o.scale_block = 16;
  r = solve(ROWS, COLS, w, NULL, &o);
  assert_true(r.packed.block_scale_range[0] >= -120.0f);
  gptvq_layer_result_release(&r);
  free(w);
  free(scaled);
  free(h);
}

/* Dead inputs: their weights cost nothing and have no say in the codebooks, whatever they are, and nothing in
 * the indices of other columns. One column of every eighth pair, all columns of one group of 16, and two
 * whole pairs of another. */
static bool is_dead(size_t c) {
  return c % 16 == 5 || (c >= 32 && c < 48) || c == 50 || c == 51 || c == 60 || c == 61;
}

static void dead_columns_have_no_say(void **state) {
  (void)state;
  enum { ROWS = 8, COLS = 64 };
  double *h = random_hessian(COLS, 128, 7);
  gptvq_callbacks callbacks = {.size = sizeof callbacks, .log = keep_log};
  for (size_t i = 0; i < COLS; i++)
    for (size_t c = 0; c < COLS; c++)
      if (is_dead(c)) h[c * COLS + i] = h[i * COLS + c] = 0.0;
  for (unsigned setting = 0; setting < 12;
       setting++) { /* dim 1, 2, 4; with and without block scales; by beam and greedy */
    unsigned d = 1u << setting % 3;
    gptvq_quantize_options o = small_options(d, 4, ROWS * 16);
    o.group_cols = 16;
    o.scale_block = setting / 3 % 2 == 0 ? 0 : 8;
    o.beam = setting / 6 == 0 ? 4 : 1;
    o.reassign_rounds = 2;
    gptvq_error err;
    gptvq_factor *f;
    gptvq_layer_result r[2];
    gptvq_packed_sizes sizes;
    assert_int_equal(make_factor("layer.x", COLS, h, &o, &callbacks, &f, &err), GPTVQ_OK);
    assert_non_null(strstr(last_log, "23 of 64 inputs are always zero"));
    for (size_t scaled = 0; scaled < 2; scaled++) {
      float *w = random_weights(ROWS, COLS, 6);
      for (size_t i = 0; i < ROWS * COLS && scaled; i++)
        if (is_dead(i % COLS)) w[i] *= 1.75f;
      assert_int_equal(solve_with(f, "layer.x", ROWS, COLS, w, &o, &r[scaled], &err), GPTVQ_OK);
      assert_true(r[scaled].error < (d == 4 ? 0.2 : 0.05));
      free(w);
    }
    gptvq_packed_measure(&r[0].packed.shape, &sizes);
    size_t group =
        sizes.codebook_bytes / 4; /* of the four, the third has only dead columns: its codebook is theirs */
    for (size_t g = 0; g < 4; g++)
      if (g != 2)
        assert_memory_equal((const char *)r[0].packed.codebooks + g * group,
                            (const char *)r[1].packed.codebooks + g * group, group);
    float decoded[2][ROWS * COLS];
    for (size_t i = 0; i < 2; i++) {
      gptvq_packed_decode_ref(&r[i].packed, 0, ROWS, decoded[i], COLS);
      gptvq_layer_result_release(&r[i]);
    }
    for (size_t i = 0; i < ROWS * COLS; i++)
      if (!is_dead(i % COLS)) assert_true(decoded[0][i] == decoded[1][i]);
    gptvq_factor_destroy(f);
  }
  free(h);
}

/* Weights that are a power of two times as large give the same indices and codes, the power in the codebook
 * scales, also where squares of fp32 numbers overflow or vanish. Scales of bf16 have 8 bits: 2^±100 keeps the
 * smallest of them normal. */
static void magnitude_does_not_matter(void **state) {
  (void)state;
  enum { ROWS = 12, COLS = 48 };
  static const int exponents[] = {-100, -60, 20, 60, 100};
  float *w = random_weights(ROWS, COLS, 8), *scaled = gptvq_alloc(ROWS * COLS, sizeof *scaled);
  double *h = random_hessian(COLS, 96, 9);
  for (int method = 0; method < 2; method++) {
    gptvq_quantize_options o = small_options(2, 4, 288);
    if (method == 1) o.method = GPTVQ_METHOD_KMEANS;
    gptvq_layer_result plain = solve(ROWS, COLS, w, h, &o);
    gptvq_packed_sizes s;
    gptvq_packed_measure(&plain.packed.shape, &s);
    assert_true(plain.error > 0.0 && plain.error < 0.2);
    for (size_t i = 0; i < sizeof exponents / sizeof *exponents; i++) {
      for (size_t j = 0; j < ROWS * COLS; j++) scaled[j] = ldexpf(w[j], exponents[i]);
      gptvq_layer_result r = solve(ROWS, COLS, scaled, h, &o);
      assert_memory_equal(r.packed.indices, plain.packed.indices, s.index_bytes);
      assert_memory_equal(r.packed.codebooks, plain.packed.codebooks, s.codebook_bytes);
      for (size_t j = 0; j < s.codebook_scales; j++)
        assert_true(gptvq_bf16_to_float(r.packed.codebook_scales[j]) ==
                    ldexpf(gptvq_bf16_to_float(plain.packed.codebook_scales[j]), exponents[i]));
      assert_true(fabs(r.error - plain.error) <= 1e-5 * plain.error); /* fp32 sums of 48 products */
      gptvq_layer_result_release(&r);
    }
    gptvq_layer_result_release(&plain);
  }
  free(w);
  free(scaled);
  free(h);
}

/* Layers with next to nothing in them: every dimension, init, with and without block scales; exact where few
 * values suffice. */
static void degenerate_layers_are_exact(void **state) {
  (void)state;
  enum { ROWS = 9, COLS = 40 };
  float w[ROWS * COLS];
  double *h = random_hessian(COLS, 80, 10);
  for (unsigned d = 1; d <= 4; d *= 2)
    for (int kind = 0; kind < 4; kind++)
      for (int init = 0; init < 3; init++)
        for (unsigned scale_block = 0; scale_block <= 8; scale_block += 8) {
          static const float values[] = {0.0f, 0.5f, 0x1p-118f,
                                         -0x1p120f}; /* their squares vanish, overflow */
          size_t cols = kind == 3 ? 1 : COLS;
          for (size_t i = 0; i < ROWS * COLS; i++) w[i] = values[kind];
          gptvq_quantize_options o = small_options(d, 5, ROWS * COLS);
          o.em_init = (gptvq_em_init)init;
          o.scale_block = scale_block;
          gptvq_layer_result r = solve(ROWS, cols, w, h, &o);
          /* the codebook scale is bf16, rounded up; with block scales exp2 comes in addition: (2^-8)² of the
           * norm */
          if (!(r.error <= 0x1p-14))
            fail_msg("d %u kind %d init %d scales %u: error %g", d, kind, init, scale_block, r.error);
          gptvq_layer_result_release(&r);
        }
  free(h);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(gptq_and_rtn_equal_the_naive_ones),
                                     cmocka_unit_test(act_order_gptq_is_consistent),
                                     cmocka_unit_test(exact_cases),
                                     cmocka_unit_test(all_shapes_work),
                                     cmocka_unit_test(bad_input_is_named),
                                     cmocka_unit_test(scales_hold_or_the_layer_is_refused),
                                     cmocka_unit_test(dead_columns_have_no_say),
                                     cmocka_unit_test(magnitude_does_not_matter),
                                     cmocka_unit_test(degenerate_layers_are_exact)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
