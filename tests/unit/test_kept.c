/* Matrices of the codebook update that are kept and follow what moves, against their definition in double. */
#include "quant/layer/system.h"
#include "solver_fixture.h"

enum { ROWS = 8, COLS = 32, K = 4, GROUP = 16, MOST = 2 * K * 4 };

/* Layer of two stripes of 4 rows and two column groups with random assignments and room for all matrices.
 * exact: Hessian, ridge and scales are such that all sums are without rounding. */
static gptvq_vq open_kept(unsigned d, unsigned scale_block, bool exact, const float *w, gptvq_factor **f,
                          gptvq_resolved *r, gptvq_arena *arena) {
  gptvq_quantize_options o = small_options(d, 2, 4 * GROUP);
  o.group_cols = GROUP;
  o.scale_block = scale_block;
  gptvq_error err;
  uint64_t seed = 43 + d;
  double *h = random_hessian(COLS, 64, 41);
  assert_int_equal(make_factor("test", COLS, h, &o, NULL, f, &err), GPTVQ_OK);
  free(h);
  *r = resolved(&o);
  gptvq_vq q = open_layer(ROWS, COLS, w, *f, r, arena);
  assert_true(gptvq_vq_is_direct(&q));
  if (!exact) { /* columns of equal weight */
    double power[COLS];
    for (size_t i = 0; i < COLS; i++) power[i] = sqrt((double)(*f)->h[i * COLS + i]);
    for (size_t i = 0; i < COLS * COLS; i++)
      (*f)->h[i] = (float)((double)(*f)->h[i] / (power[i / COLS] * power[i % COLS]));
  } else {
    (*f)->ridge = 0.25;
    for (size_t i = 0; i < COLS; i++)
      for (size_t j = 0; j <= i; j++)
        (*f)->h[i * COLS + j] = (*f)->h[j * COLS + i] =
            i == j ? 400.0f : (float)gptvq_random_below(&seed, 17) - 8.0f;
    for (int code = 0; code < 16; code++) q.scale_table[code] = ldexpf(1.0f, code % 3 - 1);
  }
  q.has_gradient = false;
  for (size_t i = 0; i < q.rows * q.blocks; i++) q.index[i] = (uint16_t)gptvq_random_below(&seed, K);
  gptvq_vq_keep_systems(arena, &q, SIZE_MAX);
  assert_int_equal(gptvq_arena_check(arena, "test", &err), GPTVQ_OK);
  return q;
}

static size_t value_of(const gptvq_vq *q, size_t row, size_t column) {
  return (column / GROUP * K + q->index[row * q->blocks + column / q->dim]) * q->dim + column % q->dim;
}

static double term(const gptvq_vq *q, size_t row, size_t i, size_t j) {
  const double h = (double)q->factor->h[i * COLS + j] + (i == j ? q->factor->ridge : 0.0);
  return (double)gptvq_vq_scale(q, row, i / q->dim) * (double)gptvq_vq_scale(q, row, j / q->dim) * h;
}

/* n[MOST × MOST] by definition; sizes: of their terms */
static void define(const gptvq_vq *q, size_t stripe, double *n, double *sizes) {
  memset(n, 0, MOST * MOST * sizeof *n);
  memset(sizes, 0, MOST * MOST * sizeof *sizes);
  for (size_t row = gptvq_stripe_begin(q, stripe); row < gptvq_stripe_end(q, stripe); row++)
    for (size_t i = 0; i < COLS; i++)
      for (size_t j = 0; j < COLS; j++) {
        const size_t at = value_of(q, row, i) * MOST + value_of(q, row, j);
        n[at] += term(q, row, i, j);
        sizes[at] += fabs(term(q, row, i, j));
      }
}

/* The terms that sub-vector b of a row has with the others, at its centroid, on both sides */
static void add_sizes(const gptvq_vq *q, size_t row, size_t b, double *sizes) {
  for (size_t i = b * q->dim; i < (b + 1) * q->dim; i++)
    for (size_t j = 0; j < COLS; j++) {
      const size_t v = value_of(q, row, i), u = value_of(q, row, j);
      sizes[v * MOST + u] += fabs(term(q, row, i, j));
      sizes[u * MOST + v] += fabs(term(q, row, i, j));
    }
}

/* How many sub-vectors of the stripe and group have the centroid of this one? */
static size_t companions(const gptvq_vq *q, size_t row, size_t b) {
  const size_t width = GROUP / q->dim, first = b / width * width;
  size_t count = 0;
  for (size_t other = row / 4 * 4; other < row / 4 * 4 + 4; other++)
    for (size_t c = first; c < first + width; c++)
      count += q->index[other * q->blocks + c] == q->index[row * q->blocks + b];
  return count;
}

/* Returns the largest ratio of a difference from the definition to what rounding allows: `roundings` of
 * each term. */
static double difference(const gptvq_vq *q, size_t stripe, const double *sizes, double roundings) {
  double n[MOST * MOST], now[MOST * MOST], worst = 0.0;
  const size_t values = K * q->dim;
  define(q, stripe, n, now);
  for (size_t f = 0; f < 2; f++)
    for (size_t g = f; g < 2; g++) {
      const float *block = gptvq_system_block(q, gptvq_kept_system(q, stripe), f, g);
      for (size_t v = 0; v < values; v++)
        for (size_t u = 0; u < values; u++) {
          const size_t at = (f * values + v) * MOST + g * values + u;
          const double wrong = fabs((double)block[v * values + u] - n[at]);
          if (wrong > 0.0) worst = fmax(worst, wrong / (roundings * 0x1p-24 * sizes[at]));
        }
    }
  return worst;
}

/* Four rounds of moves. Where nothing is rounded the matrix is what it would be if formed anew, to the bit;
 * otherwise it differs by what rounding its terms allows: those of the assignment and twice those that came
 * and went. */
static void systems_follow(void **state) {
  (void)state;
  float *w = random_weights(ROWS, COLS, 40);
  double loss, *sizes = gptvq_alloc(2 * MOST * MOST, sizeof *sizes), n[MOST * MOST];
  for (unsigned variant = 0; variant < 12; variant++) {
    const unsigned d = 1u << variant % 3, scale_block = variant / 3 % 2 * 8;
    const bool exact = variant >= 6;
    uint64_t seed = 77 + variant;
    gptvq_factor *f;
    gptvq_resolved r;
    gptvq_arena arena;
    gptvq_error err;
    gptvq_vq q = open_kept(d, scale_block, exact, w, &f, &r, &arena);
    float *scratch = gptvq_alloc(gptvq_follow_floats(&q), sizeof *scratch);
    assert_int_equal(gptvq_vq_update_direct(&q, &loss, &err), GPTVQ_OK);
    size_t moves = 0;
    for (size_t stripe = 0; stripe < 2; stripe++) define(&q, stripe, n, sizes + stripe * MOST * MOST);
    for (int round = 0; round <= 4; round++) {
      /* forming: sums along the rows of H, then columns, of all rows, and the ridge; a move: sums along the
       * row of H, five more of scales and halves, and the numbers it is added to */
      const double roundings = COLS + 4.0 * COLS + 4.0 * COLS + COLS + 5.0 + 4.0 * (double)moves;
      for (size_t stripe = 0; stripe < 2; stripe++) {
        if (round > 0) assert_true(gptvq_system_follow(&q, stripe, scratch));
        const double worst = difference(&q, stripe, sizes + stripe * MOST * MOST, roundings);
        assert_true(exact ? worst == 0.0 : worst < 1.0);
      }
      for (size_t stripe = 0; stripe < 2; stripe++)
        for (size_t move = 0; move < 8 / d; move++, moves++) { /* in one row, most of them */
          const size_t row = 4 * stripe + (move < 3 ? 2 : move % 4), b = gptvq_random_below(&seed, q.blocks);
          if (companions(&q, row, b) < 3) continue;
          add_sizes(&q, row, b, sizes + stripe * MOST * MOST);
          q.index[row * q.blocks + b] = (uint16_t)((q.index[row * q.blocks + b] + 1) % K);
          add_sizes(&q, row, b, sizes + stripe * MOST * MOST);
        }
    }
    free(scratch);
    gptvq_factor_destroy(f);
    gptvq_arena_destroy(&arena);
  }
  free(sizes);
  free(w);
}

/* After many moves, and where a centroid has lost what it had, matrices are formed anew: the latter has exact
 * zeros. */
static void systems_are_formed_anew(void **state) {
  (void)state;
  float *w = random_weights(ROWS, COLS, 40);
  double loss, n[MOST * MOST], sizes[MOST * MOST];
  gptvq_factor *f;
  gptvq_resolved r;
  gptvq_arena arena;
  gptvq_error err;
  gptvq_vq q = open_kept(1, 0, false, w, &f, &r, &arena);
  float *scratch = gptvq_alloc(gptvq_follow_floats(&q), sizeof *scratch);
  for (size_t i = 0; i < q.rows * q.blocks; i++)
    q.index[i] = (uint16_t)(i % q.blocks == 0 ? 0 : 1 + i % 3); /* the first of each row is alone */
  assert_int_equal(gptvq_vq_update_direct(&q, &loss, &err), GPTVQ_OK);
  for (size_t row = 0; row < 4; row++) q.index[row * q.blocks] = 1;
  assert_false(gptvq_system_follow(&q, 0, scratch));
  for (size_t i = 0; i < 4 * q.blocks; i++) q.index[4 * q.blocks + i] ^= i % 4 == 0;
  assert_false(gptvq_system_follow(&q, 1, scratch));
  assert_int_equal(gptvq_vq_update_direct(&q, &loss, &err), GPTVQ_OK);
  for (size_t stripe = 0; stripe < 2; stripe++) {
    define(&q, stripe, n, sizes);
    assert_true(difference(&q, stripe, sizes, 9.0 * COLS) < 1.0);
  }
  const float *block = gptvq_system_block(&q, gptvq_kept_system(&q, 0), 0, 0);
  for (size_t v = 0; v < K; v++) assert_true(block[v] == 0.0f && block[v * K] == 0.0f);
  free(scratch);
  gptvq_factor_destroy(f);
  gptvq_arena_destroy(&arena);
  free(w);
}

/* With less room some stripes are kept, those of the whole layer wherever its rows are worked on. */
static void kept_by_shape_alone(void **state) {
  (void)state;
  float *w = random_weights(ROWS, COLS, 40);
  gptvq_factor *f;
  gptvq_resolved r;
  gptvq_arena arena;
  gptvq_vq q = open_kept(2, 0, false, w, &f, &r, &arena), part = q;
  q.stripes = 50;
  q.rows = q.all_rows = part.all_rows = 198;
  for (size_t bytes = 0; bytes < 100000; bytes += 3001) {
    gptvq_arena counting = {0}, one = {0};
    gptvq_vq_keep_systems(&counting, &q, bytes);
    assert_true(counting.peak <= bytes + 3 * 64);
    q.kept.matrices = part.kept.matrices = (float *)16; /* places alone count */
    size_t kept = 0;
    for (size_t stripe = 0; stripe < 50; stripe++) {
      part.first_row = stripe * 4;
      part.stripes = 1;
      gptvq_vq_keep_systems(&one, &part, bytes);
      part.kept.matrices = q.kept.matrices;
      const bool here = gptvq_kept_system(&q, stripe) != NULL;
      assert_true(here == (gptvq_kept_system(&part, 0) != NULL));
      if (here)
        assert_ptr_equal(gptvq_kept_system(&q, stripe), q.kept.matrices + kept++ * gptvq_system_floats(&q));
    }
    assert_int_equal(kept, q.kept.count);
  }
  gptvq_factor_destroy(f);
  gptvq_arena_destroy(&arena);
  free(w);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(systems_follow),
                                     cmocka_unit_test(systems_are_formed_anew),
                                     cmocka_unit_test(kept_by_shape_alone)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
