/* Matrices of the codebook update that are kept and follow what moves, against their definition in double. */
#include "quant/layer/system.h"
#include "solver_fixture.h"

/* COLS: with a phantom, if there is one */
enum { ROWS = 8, COLS = 32, K = 4, GROUP = 16, MOST = 2 * K * 4 };

static bool is_live(const gptvq_vq *q, size_t column) { return q->factor->h[column * COLS + column] > 0.0f; }

/* Layer of two stripes of 4 rows and two column groups with random assignments and room for all matrices.
 * exact: Hessian, ridge and scales are such that all sums are without rounding. odd: the last stripe has 3
 * rows, and of the columns one is always zero and (pairs) the last one a phantom; not exact. */
static gptvq_vq open_kept(unsigned d, unsigned scale_block, bool exact, bool odd, const float *w,
                          gptvq_factor **f, gptvq_resolved *r, gptvq_arena *arena) {
  enum { DEAD = 5 };
  const size_t rows = odd ? ROWS - 1 : ROWS, cols = odd ? COLS - 1 : COLS;
  gptvq_quantize_options o = small_options(d, 2, 4 * GROUP);
  o.group_cols = GROUP;
  o.scale_block = scale_block;
  gptvq_error err;
  uint64_t seed = 43 + d;
  double *h = random_hessian(cols, 64, 41);
  for (size_t i = 0; i < cols && odd; i++) h[i * cols + DEAD] = h[DEAD * cols + i] = 0.0;
  assert_int_equal(make_factor("test", cols, h, &o, NULL, f, &err), GPTVQ_OK);
  free(h);
  *r = resolved(&o);
  gptvq_vq q = open_layer(rows, cols, w, *f, r, arena);
  assert_int_equal(q.padded, COLS);
  assert_int_equal(q.stripes, 2);
  assert_true(gptvq_vq_is_direct(&q));
  if (!exact) { /* columns of equal weight */
    double power[COLS];
    for (size_t i = 0; i < COLS; i++) power[i] = is_live(&q, i) ? sqrt((double)(*f)->h[i * COLS + i]) : 1.0;
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
  const double h = (double)q->factor->h[i * COLS + j] + (i == j ? gptvq_factor_ridge(q->factor, i) : 0.0);
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

/* How many sub-vectors of the stripe and group, without zeros and phantoms, have the centroid of this one? */
static size_t companions(const gptvq_vq *q, size_t row, size_t b) {
  const size_t width = GROUP / q->dim, first = b / width * width, stripe = row / 4;
  size_t count = 0;
  for (size_t other = gptvq_stripe_begin(q, stripe); other < gptvq_stripe_end(q, stripe); other++)
    for (size_t c = first; c < first + width; c++)
      count += is_live(q, c * q->dim) && is_live(q, (c + 1) * q->dim - 1) &&
               q->index[other * q->blocks + c] == q->index[row * q->blocks + b];
  return count;
}

/* Sub-vectors of a stripe move, 2 columns a row, in one row most of them: no more than are followed. sizes
 * (or NULL): of the stripe's matrix. Returns how many tried. */
static size_t move_some(const gptvq_vq *q, size_t stripe, uint64_t *seed, double *sizes) {
  const size_t first = gptvq_stripe_begin(q, stripe), rows = gptvq_stripe_end(q, stripe) - first,
               moves = 2 * rows / q->dim;
  for (size_t move = 0; move < moves; move++) {
    const size_t row = first + (move < 3 ? 2 : move % rows), b = gptvq_random_below(seed, q->blocks);
    if (companions(q, row, b) < 3) continue;
    if (sizes != NULL) add_sizes(q, row, b, sizes);
    q->index[row * q->blocks + b] = (uint16_t)((q->index[row * q->blocks + b] + 1) % K);
    if (sizes != NULL) add_sizes(q, row, b, sizes);
  }
  return moves;
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
  for (unsigned variant = 0; variant < 14; variant++) {
    const bool odd = variant >= 12, exact = variant >= 6 && !odd;
    const unsigned d = odd ? 2 : 1u << variant % 3, scale_block = odd ? variant % 2 * 8 : variant / 3 % 2 * 8;
    uint64_t seed = 77 + variant;
    gptvq_factor *f;
    gptvq_resolved r;
    gptvq_arena arena;
    gptvq_error err;
    gptvq_vq q = open_kept(d, scale_block, exact, odd, w, &f, &r, &arena);
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
        moves += move_some(&q, stripe, &seed, sizes + stripe * MOST * MOST);
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
  gptvq_vq q = open_kept(1, 0, false, false, w, &f, &r, &arena);
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
  gptvq_vq q = open_kept(2, 0, false, false, w, &f, &r, &arena), part = q;
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

/* A stripe's updates are the same whatever is kept of another: with room for one of two, the first one's are
 * those of a layer of which nothing is kept, the second one's those of a layer of which all is. */
static void partly_kept_layers_are_both(void **state) {
  (void)state;
  enum { NOTHING, ONE, ALL, LAYERS };
  float *w = random_weights(ROWS, COLS, 40);
  gptvq_factor *f[LAYERS];
  gptvq_resolved r[LAYERS];
  gptvq_arena arena[LAYERS];
  gptvq_vq q[LAYERS];
  gptvq_error err;
  double loss;
  uint64_t seed = 5;
  for (size_t i = 0; i < LAYERS; i++) {
    gptvq_arena counting = {0};
    q[i] = open_kept(2, 8, false, true, w, f + i, r + i, arena + i);
    gptvq_vq_keep_systems(&counting, q + i, SIZE_MAX);
    gptvq_vq_keep_systems(arena + i, q + i, i == NOTHING ? 0 : i == ONE ? counting.peak * 3 / 4 : SIZE_MAX);
    assert_int_equal(gptvq_arena_check(arena + i, "test", &err), GPTVQ_OK);
    assert_int_equal(q[i].kept.count, i);
  }
  assert_null(gptvq_kept_system(q + ONE, 0));
  assert_non_null(gptvq_kept_system(q + ONE, 1));
  const size_t values = q->groups * K * q->dim;
  for (int round = 0; round < 4; round++) {
    for (size_t i = 0; i < LAYERS; i++) {
      memcpy(q[i].index, q->index, q->rows * q->blocks * sizeof *q->index);
      assert_int_equal(gptvq_vq_update_direct(q + i, &loss, &err), GPTVQ_OK);
    }
    assert_memory_equal(q[ONE].centroids, q[NOTHING].centroids, values * sizeof(float));
    assert_memory_equal(q[ONE].centroids + values, q[ALL].centroids + values, values * sizeof(float));
    assert_memory_equal(q[ONE].unit_values, q[NOTHING].unit_values, sizeof(double));
    assert_memory_equal(q[ONE].unit_values + 1, q[ALL].unit_values + 1, sizeof(double));
    for (size_t stripe = 0; stripe < 2; stripe++) (void)move_some(q, stripe, &seed, NULL);
  }
  for (size_t i = 0; i < LAYERS; i++) {
    gptvq_factor_destroy(f[i]);
    gptvq_arena_destroy(arena + i);
  }
  free(w);
}

/* Scratch of a second thread that begins at no multiple of a double's size, if that of following is not
 * rounded up, which the sanitizer sees; it is the largest of what a thread takes, in a layer of many narrow
 * groups. */
static void threads_change_nothing(void **state) {
  (void)state;
  enum { HEIGHT = 16, WIDTH = 1201, NARROW = 32 };
  gptvq_quantize_options o = small_options(1, 1, 4 * NARROW);
  o.group_cols = NARROW;
  const gptvq_resolved r = resolved(&o);
  float *w = random_weights(HEIGHT, WIDTH, 3), *books[2];
  double *h = gptvq_alloc_zero(WIDTH, WIDTH * sizeof *h), loss[2];
  for (size_t i = 0; i < WIDTH; i++) {
    h[i * WIDTH + i] = 2.0 + (double)(i % 5);
    if (i > 0) h[i * WIDTH + i - 1] = h[(i - 1) * WIDTH + i] = 0.5;
  }
  gptvq_factor *f;
  gptvq_error err;
  assert_int_equal(make_factor("test", WIDTH, h, &o, NULL, &f, &err), GPTVQ_OK);
  free(h);
  for (int i = 0; i < 2; i++) {
    gptvq_arena arena;
    gptvq_set_threads(1 + i);
    gptvq_vq q = open_layer(HEIGHT, WIDTH, w, f, &r, &arena);
    assert_int_equal(gptvq_follow_floats(&q) % 2, 1);
    gptvq_vq_keep_systems(&arena, &q, SIZE_MAX);
    for (int round = 0; round < 2; round++) {
      assert_int_equal(gptvq_vq_update_direct(&q, loss + i, &err), GPTVQ_OK);
      for (size_t row = 0; row < HEIGHT; row++) q.index[row * q.blocks + 31 * row + 7] ^= 1;
    }
    const size_t bytes = q.stripes * q.groups * q.k * sizeof(float);
    books[i] = gptvq_alloc(1, bytes);
    memcpy(books[i], q.centroids, bytes);
    if (i == 1) assert_memory_equal(books[0], books[1], bytes);
    gptvq_arena_destroy(&arena);
  }
  assert_memory_equal(loss, loss + 1, sizeof *loss);
  gptvq_set_threads(0);
  gptvq_factor_destroy(f);
  free(books[0]);
  free(books[1]);
  free(w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(systems_follow),         cmocka_unit_test(systems_are_formed_anew),
      cmocka_unit_test(kept_by_shape_alone),    cmocka_unit_test(partly_kept_layers_are_both),
      cmocka_unit_test(threads_change_nothing),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
