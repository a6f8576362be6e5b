/* The GPTVQ loop, codebook update and re-assignment against independent double-precision code. */
#include "solver_fixture.h"

#include <gptvq/status.h>

/* Codebook of a layer that is one tile, as decoded by the reference: [k][d] */
static void read_codebook(const gptvq_packed *p, double *out) {
  float scale = gptvq_bf16_to_float(p->codebook_scales[0]);
  for (size_t i = 0; i < ((size_t)1 << p->shape.index_bits) * p->shape.dim; i++)
    out[i] = p->shape.codebook_bits == 8
                 ? (double)((float)((const int8_t *)p->codebooks)[i] * (scale / 127.0f))
                 : (double)(gptvq_fp16_to_float(((const uint16_t *)p->codebooks)[i]) * scale);
}

/* Indices of one row and column group 0 */
static void read_row(const gptvq_packed *p, size_t row, uint16_t *out) {
  gptvq_unpack_unit(p->indices + gptvq_unit_offset(&p->shape, row, 0), gptvq_unit_indices(&p->shape, 0),
                    p->shape.index_bits, out);
}

/* Optimal brain surgeon, written as the textbook has it: eliminate the sub-vectors one after the other (in
 * natural order), with the explicit inverse of the remaining Hessian each time. hd: damped. picks[c / d] =
 * chosen centroids. */
static void textbook_row(size_t cols, size_t d, size_t k, const float *w, const double *hd,
                         const double *book, bool diagonal, uint16_t *picks) {
  double *rest = gptvq_alloc(cols, cols * sizeof *rest), *row = gptvq_alloc(cols, sizeof *row);
  for (size_t c = 0; c < cols; c++) row[c] = (double)w[c];
  for (size_t at = 0; at < cols; at += d) {
    size_t n = cols - at;
    for (size_t a = 0; a < n; a++)
      for (size_t b = 0; b < n; b++) rest[a * n + b] = hd[(at + a) * cols + at + b];
    invert(n, rest);
    double block[16], feedback[16];
    for (size_t a = 0; a < d; a++)
      for (size_t b = 0; b < d; b++) block[a * d + b] = rest[a * n + b];
    invert(d, block); /* loss increase of an error δ in this block: δ (H⁻¹_BB)⁻¹ δᵀ */
    memcpy(feedback, block, sizeof block);
    if (diagonal) { /* the published choice: each column as if the others of its block were already fixed or
                       absent */
      for (size_t i = 0; i < d; i++) {
        double *later = gptvq_alloc(n - i, (n - i) * sizeof *later);
        for (size_t a = i; a < n; a++)
          for (size_t b = i; b < n; b++) later[(a - i) * (n - i) + b - i] = hd[(at + a) * cols + at + b];
        invert(n - i, later);
        for (size_t j = 0; j < d; j++) block[i * d + j] = i == j ? 1.0 / later[0] : 0.0;
        free(later);
      }
    }
    double least = INFINITY, delta[4];
    for (size_t m = 0; m < k; m++) {
      for (size_t j = 0; j < d; j++) delta[j] = row[at + j] - book[m * d + j];
      double loss = row_loss(d, delta, block);
      if (loss < least) least = loss, picks[at / d] = (uint16_t)m;
    }
    for (size_t j = 0; j < d; j++) delta[j] = row[at + j] - book[picks[at / d] * d + j];
    for (size_t c = d; c < n; c++)
      for (size_t a = 0; a < d; a++)
        for (size_t b = 0; b < d; b++) row[at + c] -= delta[a] * feedback[a * d + b] * rest[b * n + c];
  }
  free(rest);
  free(row);
}

static void damp(size_t n, double *h, double fraction) {
  double lambda = fraction * mean_diagonal(n, h);
  for (size_t i = 0; i < n; i++) h[i * n + i] += lambda;
}

/* One group, so that the codebook does not depend on feedback: every assignment equals the textbook
 * recursion's. */
static void loop_is_the_textbook_recursion(void **state) {
  (void)state;
  enum { ROWS = 9, COLS = 200 }; /* more columns than one lazy batch */
  float *w = random_weights(ROWS, COLS, 1);
  double *h = random_hessian(COLS, 400, 2);
  for (unsigned d = 1; d <= 4; d *= 2) {
    gptvq_quantize_options o = small_options(d, 4, ROWS * COLS);
    o.act_order = 0;
    o.codebook_update = 0;
    o.reassign_rounds = 0;
    o.beam = 1;
    gptvq_layer_result result = solve(ROWS, COLS, w, h, &o);
    double book[64], *hd = gptvq_alloc(COLS, COLS * sizeof *hd);
    read_codebook(&result.packed, book);
    memcpy(hd, h, COLS * COLS * sizeof *hd);
    damp(COLS, hd, o.damping);
    for (size_t row = 0; row < ROWS; row++) {
      uint16_t got[COLS], want[COLS];
      read_row(&result.packed, row, got);
      textbook_row(COLS, d, 16, w + row * COLS, hd, book, false, want);
      assert_memory_equal(got, want, COLS / d * sizeof *want);
    }
    free(hd);
    gptvq_layer_result_release(&result);
  }
  free(w);
  free(h);
}

/* Feedback off and H = I: k-means VQ, byte for byte; for 1-D to 4-D and with block scales. */
static void without_feedback_it_is_kmeans(void **state) {
  (void)state;
  enum { ROWS = 33, COLS = 300 };
  float *w = random_weights(ROWS, COLS, 5);
  double *h = gptvq_alloc_zero(COLS, COLS * sizeof *h);
  for (size_t c = 0; c < COLS; c++) h[c * COLS + c] = 1.0;
  for (unsigned d = 1; d <= 4; d *= 2)
    for (unsigned scale_block = 0; scale_block <= 16; scale_block += 16)
      for (int act_order = 0; act_order <= 2; act_order += 2) {
        gptvq_quantize_options o = small_options(d, 4, 2048);
        o.scale_block = scale_block;
        o.method = GPTVQ_METHOD_KMEANS;
        gptvq_layer_result plain = solve(ROWS, COLS, w, NULL, &o);
        o.method = GPTVQ_METHOD_GPTVQ;
        o.feedback = 0;
        o.damping = 0.0;
        o.codebook_update = 0;
        o.reassign_rounds = 0;
        o.act_order = act_order;
        gptvq_layer_result same = solve(ROWS, COLS, w, h, &o);
        assert_same_bytes(&plain, &same);
        gptvq_layer_result identity = solve(ROWS, COLS, w, NULL, &o);
        assert_same_bytes(&plain, &identity);
        gptvq_layer_result_release(&plain);
        gptvq_layer_result_release(&same);
        gptvq_layer_result_release(&identity);
      }
  free(w);
  free(h);
}

/* Best assignment of one row by trying all, H plus damping */
static double brute_force(size_t cols, size_t d, size_t k, const float *w, const double *h,
                          const double *book) {
  size_t blocks = cols / d, total = 1;
  for (size_t b = 0; b < blocks; b++) total *= k;
  double least = INFINITY, e[8];
  for (size_t code = 0; code < total; code++) {
    for (size_t b = 0, rest = code; b < blocks; b++, rest /= k)
      for (size_t j = 0; j < d; j++) e[b * d + j] = (double)w[b * d + j] - book[rest % k * d + j];
    double loss = row_loss(cols, e, h);
    if (loss < least) least = loss;
  }
  return least;
}

static double picked_loss(size_t cols, size_t d, const float *w, const double *h, const double *book,
                          const uint16_t *picks) {
  double e[8];
  for (size_t c = 0; c < cols; c++) e[c] = (double)w[c] - book[picks[c / d] * d + c % d];
  return row_loss(cols, e, h);
}

/* Tiny layers: no result below the exhaustive minimum; with a diagonal H equal to it, and with a beam that
 * prunes nothing; re-assigned rows are where no single sub-vector can move; and on average greedy + descent
 * closes most of the gap of plain rounding. */
static void tiny_layers_against_brute_force(void **state) {
  (void)state;
  double sums[5] = {0.0};
  for (uint64_t seed = 1; seed <= 60; seed++) {
    enum { ROWS = 2, COLS = 4 };
    float *w = random_weights(ROWS, COLS, seed);
    double *h = random_hessian(COLS, 6, seed + 1000), book[16];
    bool is_diagonal = seed % 3 == 0;
    if (is_diagonal)
      for (size_t i = 0; i < COLS * COLS; i++) h[i] = i % (COLS + 1) == 0 ? h[i] : 0.0;
    for (unsigned d = 1; d <= 2; d++)
      for (unsigned bits = 1; bits <= 2; bits++) {
        for (int variant = 0; variant < 4; variant++) { /* rounding, feedback, feedback and descent, beam */
          gptvq_quantize_options o = small_options(d, bits, ROWS * COLS);
          o.act_order = 0;
          o.codebook_update = 0;
          o.feedback = variant > 0;
          o.reassign_rounds = variant == 2 ? 50 : 0;
          o.beam = variant == 3 ? 64 : 1;
          bool exact = is_diagonal || (variant == 3 && pow(1u << bits, COLS / d) <= 64.0);
          gptvq_layer_result r = solve(ROWS, COLS, w, h, &o);
          read_codebook(&r.packed, book);
          double hd[COLS * COLS];
          memcpy(hd, h, sizeof hd);
          damp(COLS, hd, o.damping);
          for (size_t row = 0; row < ROWS; row++) {
            uint16_t picks[8];
            read_row(&r.packed, row, picks);
            double best = brute_force(COLS, d, (size_t)1 << bits, w + row * COLS, hd, book);
            double got = picked_loss(COLS, d, w + row * COLS, hd, book, picks);
            assert_true(got >= best * (1.0 - 1e-9));
            if (exact && got > best * (1.0 + 1e-5))
              fail_msg("seed %d: %g instead of %g", (int)seed, got, best);
            if (variant == 2)
              for (size_t b = 0; b < COLS / d; b++) {
                uint16_t keep = picks[b];
                for (size_t m = 0; m < (size_t)1 << bits; m++) {
                  picks[b] = (uint16_t)m;
                  assert_true(picked_loss(COLS, d, w + row * COLS, hd, book, picks) >= got * (1.0 - 1e-4));
                }
                picks[b] = keep;
              }
            sums[variant] += got / best;
            sums[4] += 1.0;
          }
          gptvq_layer_result_release(&r);
        }
      }
    free(w);
    free(h);
  }
  for (int i = 0; i < 4; i++) sums[i] /= sums[4] / 4.0;
  assert_true(sums[1] < sums[0]);
  assert_true(sums[2] < sums[1]);
  assert_true(sums[2] < 1.2);
  assert_true(sums[3] < 1.01);
}

/* Layers whose loss is a small part of what their weights give: inputs with much in common, weights with a
 * mean. The loss does not rise and is reported truly, either way: slopes come from errors, not from
 * differences of large numbers; gains, of systems made in fp32, are hundreds of times what is left. A
 * centroid that no weight has, or that only dead columns have, stays as it is (up to the rounding of a
 * codebook). */
static void update_of_small_losses(void **state) {
  (void)state;
  enum { ROWS = 64, COLS = 256 };
  float *w = random_weights(ROWS, COLS, 31);
  double *h = random_hessian(COLS, 512, 32), rows[ROWS], loss;
  for (size_t i = 0; i < ROWS * COLS; i++) w[i] = 0.02f * w[i] + 1.0f;
  for (size_t i = 0; i < COLS; i++)
    for (size_t j = 0; j < COLS; j++) h[i * COLS + j] = i == 5 || j == 5 ? 0.0 : h[i * COLS + j] + 300.0;
  for (unsigned bits = 3; bits <= 5; bits++) {
    gptvq_quantize_options o = small_options(1, bits, 16 * COLS);
    o.codebook_bits = 16;
    gptvq_factor *f;
    gptvq_error err;
    assert_int_equal(make_factor("test", COLS, h, &o, NULL, &f, &err), GPTVQ_OK);
    const gptvq_resolved r = resolved(&o);
    for (int direct = 0; direct < 2; direct++) {
      gptvq_arena arena;
      gptvq_vq q = open_layer(ROWS, COLS, w, f, &r, &arena);
      assert_true(gptvq_vq_is_direct(&q));
      size_t place = 0; /* of column 5 */
      while (q.factor->order[place] != 5) place++;
      /* one centroid for the dead column alone, one for nothing */
      float *book = gptvq_vq_codebook(&q, 0, 0);
      for (size_t row = 0; row < q.shape.group_rows; row++)
        for (size_t b = 0; b < q.blocks; b++) {
          uint16_t *index = q.index + row * q.blocks + b;
          *index = (uint16_t)(b == place ? 0 : *index < 2 ? 2 : *index);
        }
      const float only_dead = book[0], unused = book[1];
      const double before = layer_loss(&q, rows);
      assert_int_equal(direct ? gptvq_vq_update_direct(&q, &loss, &err)
                              : gptvq_vq_update_gradients(&q, &loss, &err),
                       GPTVQ_OK);
      const double now = layer_loss(&q, rows);
      assert_true(now <= before);
      assert_true(fabs(now - loss) <= 1e-3 * now);
      const float step = ldexpf(fabsf(book[2]) + 1.0f, -10); /* fp16 of a number near the scale */
      assert_true(fabsf(book[0] - only_dead) <= step && fabsf(book[1] - unused) <= step);
      gptvq_arena_destroy(&arena);
    }
    gptvq_factor_destroy(f);
  }
  free(w);
  free(h);
}

/* Either way the update ends near the solution of the normal equations (dense, in double, made here): the
 * loss exceeds the minimum by no more than rounding the codebooks to fp16 can cost and 0.1 % (it stops where
 * it expects to gain 0.03 % more). Re-assignment and update never raise the loss, and report it truly. */
static void update_solves_the_normal_equations(void **state) {
  (void)state;
  enum { ROWS = 8, COLS = 32, K = 4 };
  float *w = random_weights(ROWS, COLS, 21);
  double *h = random_hessian(COLS, 64, 22), rows[ROWS];
  for (unsigned variant = 0; variant < 12; variant++) {
    const unsigned d = 1u << variant % 3, scale_block = variant / 3 % 2 * 8;
    const bool direct = variant >= 6;
    gptvq_quantize_options o = small_options(d, 2, 4 * 16); /* stripes of 4 rows, two column groups */
    o.group_cols = 16;
    o.codebook_bits = 16;
    o.scale_block = scale_block;
    gptvq_factor *f;
    gptvq_error err;
    assert_int_equal(make_factor("test", COLS, h, &o, NULL, &f, &err), GPTVQ_OK);
    gptvq_arena arena;
    const gptvq_resolved r = resolved(&o);
    gptvq_vq q = open_layer(ROWS, COLS, w, f, &r, &arena);
    double before = layer_loss(&q, rows), after, gain;
    assert_true(gptvq_vq_is_direct(&q));
    assert_int_equal(direct ? gptvq_vq_update_direct(&q, &after, &err)
                            : gptvq_vq_update_gradients(&q, &after, &err),
                     GPTVQ_OK);
    assert_true(after <= before);
    double now = layer_loss(&q, rows), minimum = 0.0, rounding = 0.0;
    assert_true(fabs(now - after) <= 1e-5 * after);
    for (size_t stripe = 0; stripe < q.stripes; stripe++) {
      enum { MAX = 2 * K * 4 };
      size_t n = q.groups * q.k * d;
      double a[MAX * MAX] = {0}, b[MAX] = {0}, constant = 0.0,
                     *solution = gptvq_alloc_zero(n, sizeof *solution);
      for (size_t row = stripe * q.shape.group_rows; row < (stripe + 1) * q.shape.group_rows; row++)
        for (size_t i = 0; i < COLS; i++) {
          size_t gi = i / 16, vi = (gi * K + q.index[row * q.blocks + i / d]) * d + i % d;
          double si = (double)gptvq_vq_scale(&q, row, i / d), wi = (double)q.target[row * COLS + i];
          for (size_t j = 0; j < COLS; j++) {
            size_t vj = (j / 16 * K + q.index[row * q.blocks + j / d]) * d + j % d;
            double hij = (double)f->h[i * COLS + j] + (i == j ? f->ridge : 0.0),
                   wj = (double)q.target[row * COLS + j];
            a[vi * n + vj] += si * (double)gptvq_vq_scale(&q, row, j / d) * hij;
            b[vi] += si * hij * wj;
            constant += wi * hij * wj;
          }
        }
      double trace = 0.0, largest = 0.0;
      for (size_t i = 0; i < n; i++) trace += a[i * n + i];
      for (size_t i = 0; i < n; i++)
        a[i * n + i] += a[i * n + i] == 0.0 ? 1.0 : 1e-12 * trace; /* unused centroids */
      double copy[MAX * MAX];
      memcpy(copy, a, sizeof a);
      invert(n, copy);
      for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) solution[i] += copy[i * n + j] * b[j];
      minimum += constant;
      for (size_t i = 0; i < n; i++) {
        minimum -= b[i] * solution[i];
        largest = fmax(largest, fabs(solution[i]));
      }
      /* fp16 codes of numbers up to 1 times the scale: an error of at most 2⁻¹¹ · scale (scale ≤ 1.01 ·
       * largest) per value */
      rounding += trace * (double)n * pow(largest * 1.01 * 0x1p-11, 2.0);
      free(solution);
    }
    assert_true(now >= minimum * (1.0 - 1e-5));
    if (now > minimum + rounding + 1e-3 * minimum)
      fail_msg("d %u: %g instead of %g (before %g)", d, now, minimum, before);
    for (int sweep = 0; sweep < 6; sweep++) {
      if (sweep % 2 == 0) assert_int_equal(gptvq_vq_reassign(&q, &gain, &err), GPTVQ_OK);
      else assert_int_equal(gptvq_vq_search(&q, &gain, &err), GPTVQ_OK);
      after = layer_loss(&q, rows);
      assert_true(gain >= 0.0);
      assert_true(fabs((now - after) - gain) <= 1e-5 * now);
      now = after;
    }
    gptvq_arena_destroy(&arena);
    gptvq_factor_destroy(f);
  }
  free(w);
  free(h);
}

/* After a sweep that moved values the gradient that followed them is the one that is made anew, up to what
 * products of so many terms are rounded by: those of the columns, and of all that moved. */
static void gradients_follow(void **state) {
  (void)state;
  enum { ROWS = 24, COLS = 203 };
  float *w = random_weights(ROWS, COLS, 51);
  double *h = random_hessian(COLS, 400, 52), largest = 0.0;
  for (size_t i = 0; i < ROWS * COLS; i++) largest = fmax(largest, fabs((double)w[i]));
  for (unsigned variant = 0; variant < 6; variant++) {
    const unsigned d = 1u << variant % 3; /* then a trellis, and block scales */
    gptvq_quantize_options o = small_options(d, 3, 8 * COLS);
    if (variant == 3) {
      gptvq_quantize_options_init(&o);
      o.code = GPTVQ_CODE_TRELLIS;
      o.bits = 2.25;
      o.allocate = GPTVQ_ALLOCATE_UNIFORM;
    }
    if (variant > 3) o.scale_block = 16;
    gptvq_factor *f;
    gptvq_error err = {.message = ""};
    assert_int_equal(make_factor("test", COLS, h, &o, NULL, &f, &err), GPTVQ_OK);
    const gptvq_resolved r = resolved(&o);
    gptvq_arena arena;
    gptvq_vq q = open_layer(ROWS, COLS, w, f, &r, &arena);
    const size_t n = q.padded;
    float *followed = gptvq_alloc(ROWS * n, sizeof *followed);
    for (int sweep = 0; sweep < 2; sweep++) {
      double gain;
      if (sweep == 0 && q.step_bits > 0) continue;
      assert_int_equal(sweep == 0 ? gptvq_vq_reassign(&q, &gain, &err) : gptvq_vq_search(&q, &gain, &err),
                       GPTVQ_OK);
      assert_true(gain > 0.0 && q.has_gradient);
      memcpy(followed, q.error, ROWS * n * sizeof *followed);
      q.has_gradient = false;
      assert_int_equal(gptvq_vq_gradient(&q, &err), GPTVQ_OK);
      for (size_t i = 0; i < ROWS * n; i++) {
        double bound = 2.0 * largest * gptvq_factor_ridge(f, i % n);
        for (size_t k = 0; k < n; k++)
          bound += 2.0 * largest * fabs((double)q.factor->h[k * n + i % n]); /* errors, before and after */
        bound *= 2.0 * (double)(2 * n + 2) * 0x1p-24;
        if (fabs((double)followed[i] - (double)q.error[i]) > bound)
          fail_msg("variant %u, sweep %d: %g followed, %g made anew, bound %g", variant, sweep,
                   (double)followed[i], (double)q.error[i], bound);
      }
    }
    free(followed);
    gptvq_arena_destroy(&arena);
    gptvq_factor_destroy(f);
  }
  free(w);
  free(h);
}

/* The reported error is that of the stored values, for all kinds of settings; each ingredient lowers it. */
static void reported_error_is_the_stored_one(void **state) {
  (void)state;
  enum { ROWS = 40, COLS = 301 };
  float *w = random_weights(ROWS, COLS, 31);
  double *h = random_hessian(COLS, 600, 32), last = 1.0;
  for (int variant = 0; variant < 8; variant++) {
    gptvq_quantize_options o = small_options(variant == 5 ? 1 : variant == 6 ? 4 : 2, 4, 2048);
    o.feedback = variant > 0;
    o.codebook_update = variant > 1;
    o.reassign_rounds = variant > 2 ? 3 : 0;
    o.act_order = variant > 3 ? variant % 3 : 0;
    o.scale_block = variant == 7 ? 16 : 0;
    o.codebook_bits = variant == 4 ? 16 : 8;
    gptvq_layer_result r = solve(ROWS, COLS, w, h, &o);
    double truth = relative_error(&r.packed, w, h);
    if (fabs(r.error - truth) > 1e-4 * truth)
      fail_msg("variant %d: %g reported, %g stored", variant, r.error, truth);
    if (variant < 4) {
      assert_true(r.error < last);
      last = r.error;
    }
    assert_int_equal(r.packed.permutation != NULL, o.act_order == 1);
    if (r.packed.permutation != NULL) {
      bool seen[COLS] = {false};
      for (size_t c = 0; c < COLS; c++) {
        assert_in_range(r.packed.permutation[c], 0, COLS - 1);
        assert_false(seen[r.packed.permutation[c]]);
        seen[r.packed.permutation[c]] = true;
      }
    }
    gptvq_layer_result_release(&r);
  }
  free(w);
  free(h);
}

/* The published diagonal metric: look-ups as the diagonal says, and worse or equal in the loss on correlated
 * columns. */
static void diagonal_metric_is_the_published_one(void **state) {
  (void)state;
  enum { ROWS = 3, COLS = 2 }; /* one sub-vector: no feedback to muddy the comparison */
  for (uint64_t seed = 1; seed < 30; seed++) {
    float *w = random_weights(ROWS, COLS, seed);
    double *h = random_hessian(COLS, 3, seed), book[8];
    gptvq_quantize_options o = small_options(2, 1, 8);
    o.exact_metric = 0;
    o.act_order = 0;
    o.codebook_update = 0;
    o.reassign_rounds = 0;
    gptvq_layer_result r = solve(ROWS, COLS, w, h, &o);
    read_codebook(&r.packed, book);
    damp(COLS, h, o.damping);
    for (size_t row = 0; row < ROWS; row++) {
      uint16_t got[8], want[8];
      read_row(&r.packed, row, got);
      textbook_row(COLS, 2, 2, w + row * COLS, h, book, true, want);
      assert_int_equal(got[0], want[0]);
    }
    gptvq_layer_result_release(&r);
    free(w);
    free(h);
  }
}

/* One and three threads, and every CPU level of this machine: the same bytes. */
static void bytes_depend_on_neither_threads_nor_cpu(void **state) {
  (void)state;
  enum { ROWS = 70, COLS = 520 };
  float *w = random_weights(ROWS, COLS, 41);
  double *h = random_hessian(COLS, 300, 42);
  static const gptvq_method methods[] = {GPTVQ_METHOD_GPTVQ, GPTVQ_METHOD_GPTQ, GPTVQ_METHOD_KMEANS,
                                         GPTVQ_METHOD_RTN};
  for (size_t i = 0; i < 6; i++) {
    gptvq_quantize_options o;
    gptvq_quantize_options_init(&o);
    o.method = i < 4 ? methods[i] : GPTVQ_METHOD_GPTVQ;
    o.bits = 2.25;
    o.dim = i == 4 ? 1 : 2;
    o.act_order = i == 5 ? 1 : 2;
    o.scale_block = i == 5 ? 64 : 0;
    o.em_init = i == 4 ? GPTVQ_INIT_KMEANSPP : GPTVQ_INIT_MAHALANOBIS;
    gptvq_set_threads(1);
    gptvq_layer_result one = solve(ROWS, COLS, w, h, &o);
    gptvq_set_threads(3);
    gptvq_layer_result three = solve(ROWS, COLS, w, h, &o);
    assert_same_bytes(&one, &three);
    assert_true(one.error == three.error);
    static const char *const levels[] = {"ref", "avx2", "avx512"};
    for (size_t level = 0; level < 3; level++) {
      if (gptvq_set_cpu(levels[level], NULL) != GPTVQ_OK) continue;
      gptvq_layer_result other = solve(ROWS, COLS, w, h, &o);
      assert_same_bytes(&one, &other);
      gptvq_layer_result_release(&other);
    }
    assert_int_equal(gptvq_set_cpu(NULL, NULL), GPTVQ_OK);
    gptvq_layer_result_release(&one);
    gptvq_layer_result_release(&three);
  }
  gptvq_set_threads(0);
  free(w);
  free(h);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(loop_is_the_textbook_recursion),
                                     cmocka_unit_test(without_feedback_it_is_kmeans),
                                     cmocka_unit_test(tiny_layers_against_brute_force),
                                     cmocka_unit_test(update_solves_the_normal_equations),
                                     cmocka_unit_test(gradients_follow),
                                     cmocka_unit_test(update_of_small_losses),
                                     cmocka_unit_test(reported_error_is_the_stored_one),
                                     cmocka_unit_test(diagonal_metric_is_the_published_one),
                                     cmocka_unit_test(bytes_depend_on_neither_threads_nor_cpu)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
