/* k-means with a metric: against plain loops, the objective's descent, exact cases; factor of the Hessian. */
#include "linalg/solve/cholesky.h"
#include "quant/layer/lookup.h"
#include "solver_fixture.h"

typedef struct problem {
  gptvq_em_points points;
  float *x, *t, *weight, *centroids;
  gptvq_arena scratch;
} problem;

static problem make_problem(unsigned d, size_t rows, size_t blocks, size_t k, uint64_t seed, bool weighted) {
  problem p;
  size_t lanes = gptvq_round_up(blocks, GPTVQ_LOOKUP_LANES);
  p.x = gptvq_alloc_zero(rows * d, lanes * sizeof(float));
  p.t = gptvq_alloc_zero(d * d, lanes * sizeof(float));
  p.weight = gptvq_alloc_zero(rows, lanes * sizeof(float));
  p.centroids = gptvq_alloc_zero(k, d * sizeof(float));
  for (size_t b = 0; b < blocks; b++) {
    for (size_t i = 0; i < d; i++)
      for (size_t j = i; j < d; j++)
        p.t[(i * d + j) * lanes + b] = (float)(i == j ? exp(0.5 * gauss(&seed)) : 0.4 * gauss(&seed));
    for (size_t row = 0; row < rows; row++) {
      p.weight[row * lanes + b] = (float)exp(gauss(&seed));
      for (size_t j = 0; j < d; j++) p.x[(row * d + j) * lanes + b] = (float)gauss(&seed);
    }
  }
  p.points = (gptvq_em_points){rows, blocks, lanes, d, p.x, p.t, weighted ? p.weight : NULL};
  gptvq_error err;
  assert_int_equal(gptvq_arena_create(&p.scratch, gptvq_em_bytes(&p.points, k), "k-means", &err), GPTVQ_OK);
  return p;
}

static void free_problem(problem *p) {
  free(p->x);
  free(p->t);
  free(p->weight);
  free(p->centroids);
  gptvq_arena_destroy(&p->scratch);
}

/* ‖(x − c) T‖² in double */
static double naive_distance(const problem *p, size_t row, size_t b, const float *c) {
  size_t d = p->points.dim, lanes = p->points.lanes;
  double sum = 0.0;
  for (size_t j = 0; j < d; j++) {
    double y = 0.0;
    for (size_t i = 0; i <= j; i++)
      y += ((double)p->x[(row * d + i) * lanes + b] - (double)c[i]) * (double)p->t[(i * d + j) * lanes + b];
    sum += y * y;
  }
  return sum;
}

static double naive_objective(const problem *p, size_t k) {
  double sum = 0.0;
  for (size_t row = 0; row < p->points.rows; row++)
    for (size_t b = 0; b < p->points.blocks; b++) {
      double best = INFINITY;
      for (size_t m = 0; m < k; m++)
        best = fmin(best, naive_distance(p, row, b, p->centroids + m * p->points.dim));
      sum += best * (p->points.weight ? (double)p->weight[row * p->points.lanes + b] : 1.0);
    }
  return sum;
}

/* All inits, dimensions, sizes with tails and empty clusters: never up by more than rounding, and the last
 * value is the true one. */
static void objective_never_rises(void **state) {
  (void)state;
  static const size_t ks[] = {2, 4, 16, 64};
  for (unsigned d = 1; d <= 4; d *= 2)
    for (size_t i = 0; i < 4; i++)
      for (int init = 0; init < 3; init++)
        for (int weighted = 0; weighted < 2; weighted++) {
          enum { ROUNDS = 30 };
          problem p = make_problem(d, 3, 37, ks[i], 11 * i + d, weighted);
          double trace[ROUNDS + 1], last = INFINITY;
          gptvq_em(&p.points, ks[i], (gptvq_em_init)init, ROUNDS, 5, p.centroids, trace, &p.scratch);
          for (size_t r = 0; r <= ROUNDS && !isnan(trace[r]); r++) {
            /* fp32 centroids and distances: 16 ε of the objective's scale, Σ |x T|² ≈ points · d · a few */
            if (trace[r] > last * (1.0 + 1e-5) + 1e-6)
              fail_msg("d %u k %zu init %d: %.9g after %.9g", d, ks[i], init, trace[r], last);
            last = trace[r];
          }
          double truth = naive_objective(&p, ks[i]);
          assert_true(fabs(truth - last) <= 1e-5 * last + 1e-6);
          assert_true(last < trace[0] || ks[i] == 64);
          free_problem(&p);
        }
}

/* Points in k far-apart heaps of equal points: EM from k-means++ finds them exactly, objective 0. */
static void heaps_are_found_exactly(void **state) {
  (void)state;
  for (unsigned d = 1; d <= 4; d *= 2) {
    enum { K = 8, ROUNDS = 20 };
    problem p = make_problem(d, 4, 16, K, 3, false);
    for (size_t row = 0; row < 4; row++)
      for (size_t b = 0; b < 16; b++)
        for (size_t j = 0; j < d; j++)
          p.x[(row * d + j) * p.points.lanes + b] = (float)((row * 16 + b) % K) * 4.0f - 16.0f + (float)j;
    double trace[ROUNDS + 1];
    gptvq_em(&p.points, K, GPTVQ_INIT_KMEANSPP, ROUNDS, 1, p.centroids, trace, &p.scratch);
    bool found[K] = {false};
    for (size_t m = 0; m < K; m++) {
      long heap = lrintf((p.centroids[m * d] + 16.0f) / 4.0f);
      assert_in_range(heap, 0, K - 1);
      found[heap] = true;
      for (size_t j = 0; j < d; j++)
        assert_true(fabsf(p.centroids[m * d + j] - ((float)heap * 4.0f - 16.0f + (float)j)) < 1e-5f);
    }
    for (size_t m = 0; m < K; m++) assert_true(found[m]);
    free_problem(&p);
  }
}

/* One cluster: the centroid is the weighted mean (Σ w M)⁻¹ Σ w M x. */
static void m_step_is_the_weighted_mean(void **state) {
  (void)state;
  for (unsigned d = 1; d <= 4; d *= 2) {
    problem p = make_problem(d, 5, 23, 1, 77, true);
    gptvq_em(&p.points, 1, GPTVQ_INIT_MAHALANOBIS, 3, 1, p.centroids, NULL, &p.scratch);
    /* stationary: moving any coordinate either way raises the objective */
    double least = naive_objective(&p, 1);
    for (size_t j = 0; j < d; j++)
      for (int sign = -1; sign <= 1; sign += 2) {
        float keep = p.centroids[j];
        p.centroids[j] = keep + (float)sign * 1e-2f;
        assert_true(naive_objective(&p, 1) > least);
        p.centroids[j] = keep;
      }
    free_problem(&p);
  }
}

/* Nearest centroid, ties to the lowest index, padding never chosen. */
static void nearest_is_the_first_minimum(void **state) {
  (void)state;
  uint64_t seed = 9;
  for (unsigned d = 1; d <= 4; d *= 2)
    for (size_t k = 1; k <= 300; k = k * 2 + 1) {
      size_t padded = gptvq_round_up(k, GPTVQ_LOOKUP_LANES);
      float *table = gptvq_alloc(padded, d * sizeof *table);
      for (size_t i = 0; i < padded * d; i++)
        table[i] = i % padded < k ? (float)(int)gptvq_random_below(&seed, 9) - 4.0f : INFINITY;
      for (int trial = 0; trial < 50; trial++) {
        float x[4], least = INFINITY;
        size_t want = 0;
        for (size_t j = 0; j < d; j++) x[j] = (float)(int)gptvq_random_below(&seed, 11) - 5.0f;
        for (size_t m = 0; m < k; m++) {
          float sum = 0.0f; /* small integers: exact */
          for (size_t j = 0; j < d; j++)
            sum += (x[j] - table[j * padded + m]) * (x[j] - table[j * padded + m]);
          if (sum < least) least = sum, want = m;
        }
        assert_int_equal(GPTVQ_MULTI_PICK(gptvq_nearest)(d, padded, table, x), want);
      }
      free(table);
    }
}

/* U is upper triangular with Uᵀ U (H + λ) = 1 over several Cholesky blocks, in every column order, T its
 * block inverses. */
static void factor_inverts_the_hessian(void **state) {
  (void)state;
  enum { N = 301 };
  double *h = random_hessian(N, 2 * N, 4);
  double *scaled = gptvq_alloc(N + 3, (N + 3) * sizeof *scaled);
  for (int act_order = 0; act_order <= 2; act_order++) {
    gptvq_quantize_options o = small_options(4, 4, 2048);
    o.act_order = act_order;
    gptvq_factor *f;
    gptvq_error err;
    assert_int_equal(make_factor("test", N, h, &o, NULL, &f, &err), GPTVQ_OK);
    size_t n = f->padded;
    assert_int_equal(n, 304);
    bool seen[N] = {false};
    size_t phantoms = 0;
    for (size_t c = 0; c < n; c++) {
      if (f->order[c] == GPTVQ_NO_COLUMN) phantoms++;
      else {
        assert_in_range(f->order[c], 0, N - 1);
        assert_false(seen[f->order[c]]);
        seen[f->order[c]] = true;
      }
      if (act_order == 0 && c < N) assert_int_equal(f->order[c], c);
      if (act_order == 1 && c > 0 && c < N)
        assert_true(h[f->order[c] * (N + 1)] <= h[f->order[c - 1] * (N + 1)]);
      if (act_order == 2 && c % 4 > 0 && f->order[c] != GPTVQ_NO_COLUMN)
        assert_int_equal(f->order[c], f->order[c - 1] + 1);
    }
    assert_int_equal(phantoms, 3);
    assert_int_equal(f->stored_permutation, act_order == 1);
    double mean = mean_diagonal(N, h), worst = 0.0;
    for (size_t a = 0; a < n; a++)
      for (size_t b = 0; b < n; b++) {
        bool phantom = f->order[a] == GPTVQ_NO_COLUMN || f->order[b] == GPTVQ_NO_COLUMN;
        double want = phantom ? 0.0 : h[f->order[a] * N + f->order[b]] / mean;
        assert_true(fabs(want - (double)f->h[a * n + b]) <= 1e-7 * fabs(want));
        scaled[a * n + b] = want + (a != b ? 0.0 : phantom ? 1e-6 : 0.01);
        if (b < a) assert_true(f->u[a * n + b] == 0.0f);
      }
    invert(n, scaled);
    for (size_t a = 0; a < N; a++) /* (Uᵀ U)_ab against H⁻¹_ab ≤ 100: fp32 entries */
      for (size_t b = 0; b < N; b++) {
        double sum = 0.0, size = 0.0;
        for (size_t i = 0; i <= (a < b ? a : b); i++) {
          sum += (double)f->u[i * n + a] * (double)f->u[i * n + b];
          size += fabs((double)f->u[i * n + a] * (double)f->u[i * n + b]);
        }
        double error = fabs(sum - scaled[a * n + b]) / (size + 1e-30);
        if (error > worst && f->order[a] != GPTVQ_NO_COLUMN && f->order[b] != GPTVQ_NO_COLUMN) worst = error;
      }
    assert_true(worst < 4e-7);
    for (size_t b = 0; b + 1 < n / 4; b++)
      for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < 4; j++) {
          double sum = 0.0;
          for (size_t m = 0; m < 4; m++)
            sum += (double)f->u[(b * 4 + i) * n + b * 4 + m] * f->metric[b * 16 + m * 4 + j];
          assert_true(fabs(sum - (i == j ? 1.0 : 0.0)) < 1e-4);
        }
    gptvq_factor_destroy(f);
  }
  free(scaled);
  free(h);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(objective_never_rises), cmocka_unit_test(heaps_are_found_exactly),
      cmocka_unit_test(m_step_is_the_weighted_mean), cmocka_unit_test(nearest_is_the_first_minimum),
      cmocka_unit_test(factor_inverts_the_hessian)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
