/* Codebook compression: the decomposition, sorting, the alternating fit, and whole layers with factored
 * codebooks. */
#include "linalg/solve/svd.h"
#include "solver_fixture.h"

enum { TILES = 60, K = 8 };

int openblas_get_num_threads(void);

static gptvq_status decompose(size_t rows, size_t cols, size_t rank, double *c, double *left, double *right,
                              gptvq_error *err) {
  gptvq_arena arena;
  assert_int_equal(gptvq_arena_create(&arena, gptvq_svd_bytes(rows, cols), "svd", err), GPTVQ_OK);
  gptvq_status status = gptvq_svd(rows, cols, rank, c, left, right, &arena, err);
  assert_int_equal(arena.used, 0);
  gptvq_arena_destroy(&arena);
  return status;
}

/* K-means comes to the decomposition before any matrix product has told OpenBLAS to leave threads to us: how
 * it cuts its sums would depend on the machine's cores. The first test of this program. */
static void decomposition_uses_one_thread(void **state) {
  (void)state;
  gptvq_error err;
  double c[4] = {3.0, 1.0, 1.0, 2.0}, left[4], right[4];
  assert_int_equal(decompose(2, 2, 2, c, left, right, &err), GPTVQ_OK);
  assert_int_equal(openblas_get_num_threads(), 1);
}

/* |c − left right| at full rank: a backward stable decomposition is within a small multiple of (rows + cols)
 * · ε · ‖c‖; at lower ranks the error is orthogonal to what is kept, and falls with the rank. */
static void decomposition_is_exact_at_full_rank(void **state) {
  (void)state;
  gptvq_error err;
  double c[TILES * K], copy[TILES * K], left[TILES * K], right[K * K], norm = 0.0, last = INFINITY;
  uint64_t seed = 1;
  for (size_t i = 0; i < TILES * K; i++) {
    c[i] = (double)(i % K) - 3.5 + 0.3 * gauss(&seed);
    norm += c[i] * c[i];
  }
  for (size_t rank = 1; rank <= K; rank++) {
    memcpy(copy, c, sizeof c);
    assert_int_equal(decompose(TILES, K, rank, copy, left, right, &err), GPTVQ_OK);
    double squares = 0.0, kept = 0.0, rounding = 4.0 * (TILES + K) * 0x1p-52 * sqrt(norm);
    for (size_t t = 0; t < TILES; t++)
      for (size_t m = 0; m < K; m++) {
        double sum = 0.0;
        for (size_t r = 0; r < rank; r++) sum += left[t * rank + r] * right[r * K + m];
        squares += (c[t * K + m] - sum) * (c[t * K + m] - sum);
        kept += sum * sum;
        if (rank == K) assert_true(fabs(c[t * K + m] - sum) <= rounding);
      }
    assert_true(fabs(norm - kept - squares) <= rounding * sqrt(norm)); /* Pythagoras */
    assert_true(squares < last);
    last = squares;
    for (size_t a = 0; a < rank; a++)
      for (size_t b = 0; b <= a; b++) {
        double dot = 0.0;
        for (size_t m = 0; m < K; m++) dot += right[a * K + m] * right[b * K + m];
        assert_true(fabs(dot - (a == b)) <= 8.0 * K * 0x1p-52);
      }
  }
  assert_int_equal(decompose(3, K, 4, copy, left, right, &err), GPTVQ_ERROR_INTERNAL);
  for (size_t i = 0; i < 3 * K; i++) copy[i] = c[i]; /* fewer codebooks than centroids */
  assert_int_equal(decompose(3, K, 3, copy, left, right, &err), GPTVQ_OK);
  for (size_t i = 0; i < 3 * K; i++) {
    double sum = 0.0;
    for (size_t r = 0; r < 3; r++) sum += left[i / K * 3 + r] * right[r * K + i % K];
    assert_true(fabs(c[i] - sum) <= 4.0 * (3 + K) * 0x1p-52 * sqrt(norm));
  }
}

/* A layer after the GPTVQ loop */
typedef struct layer {
  gptvq_resolved options;
  gptvq_factor *factor;
  gptvq_arena arena;
  gptvq_vq q;
} layer;

static void make_layer(layer *l, size_t rows, size_t cols, unsigned rank, unsigned scale_block,
                       const double *h) {
  gptvq_error err = {.message = ""};
  float *w = random_weights(rows, cols, 5);
  memset(l, 0, sizeof *l);
  gptvq_quantize_options o = small_options(1, 3, 64);
  o.group_cols = 32;
  o.svd_rank = rank;
  o.scale_block = scale_block;
  l->options = resolved(&o);
  if (h != NULL) assert_int_equal(make_factor("test", cols, h, &o, NULL, &l->factor, &err), GPTVQ_OK);
  l->q = open_layer(rows, cols, w, l->factor, &l->options, &l->arena);
  free(w);
}

static void release_layer(layer *l) {
  gptvq_arena_destroy(&l->arena);
  gptvq_factor_destroy(l->factor);
}

static void sorting_changes_no_value(void **state) {
  (void)state;
  enum { ROWS = 24, COLS = 80 };
  double *h = random_hessian(COLS, 200, 7);
  layer l;
  gptvq_error err;
  make_layer(&l, ROWS, COLS, 3, 0, h);
  float *before = gptvq_alloc(ROWS * COLS, sizeof *before), *after = gptvq_alloc(ROWS * COLS, sizeof *after),
        *codes = gptvq_alloc(K, sizeof *codes);
  gptvq_vq_decode(&l.q, l.q.centroids, before);
  assert_int_equal(gptvq_vq_sort(&l.q, &err), GPTVQ_OK);
  gptvq_vq_decode(&l.q, l.q.centroids, after);
  assert_memory_equal(before, after, ROWS * COLS * sizeof *before);
  for (size_t tile = 0; tile < l.q.stripes * l.q.groups; tile++) {
    gptvq_expand_codebook((int8_t *)l.q.codes + tile * K, K, 8, l.q.codebook_scales[tile], codes);
    assert_memory_equal(codes, l.q.centroids + tile * K, K * sizeof *codes);
    for (size_t m = 1; m < K; m++) assert_true(codes[m - 1] <= codes[m]);
  }
  free(before);
  free(after);
  free(codes);
  free(h);
  release_layer(&l);
}

/* Each half round lowers the loss; the fit is never below the optimum of free codebooks, and at full rank
 * reaches it. */
static void the_fit_never_raises_the_loss(void **state) {
  (void)state;
  enum { ROWS = 40, COLS = 96, ROUNDS = 6 };
  double *h = random_hessian(COLS, 300, 11);
  gptvq_error err;
  for (unsigned variant = 0; variant < 8; variant++) {
    static const unsigned ranks[] = {1, 2, 4, K};
    unsigned rank = ranks[variant % 4];
    layer l;
    make_layer(&l, ROWS, COLS, rank, variant == 1 ? 16 : 0, variant < 4 ? h : NULL);
    size_t tiles = l.q.stripes * l.q.groups, n = tiles * K;
    assert_int_equal(tiles, 20 * 3);
    assert_int_equal(gptvq_vq_sort(&l.q, &err), GPTVQ_OK);
    double *whole = gptvq_alloc(n, sizeof *whole), *left = gptvq_alloc(n, sizeof *left),
           *right = gptvq_alloc(K * K, sizeof *right);
    double *free_left = gptvq_alloc(n, sizeof *free_left),
           *identity = gptvq_alloc_zero(K * K, sizeof *identity);
    double trace[2 * ROUNDS + 1], best[3];
    for (size_t i = 0; i < n; i++) whole[i] = free_left[i] = (double)l.q.centroids[i];
    assert_int_equal(decompose(tiles, K, rank, whole, left, right, &err), GPTVQ_OK);
    /* free codebooks: the left factor alone, with the identity as the right one */
    for (size_t m = 0; m < K; m++) identity[m * K + m] = 1.0;
    unsigned short_rank = l.q.shape.svd_rank;
    l.q.shape.svd_rank = K;
    assert_int_equal(gptvq_vq_fit_factors(&l.q, free_left, identity, 1, best, &err), GPTVQ_OK);
    l.q.shape.svd_rank = short_rank;
    assert_int_equal(gptvq_vq_fit_factors(&l.q, left, right, ROUNDS, trace, &err), GPTVQ_OK);
    double end = trace[0];
    assert_true(best[1] < best[0]);
    for (size_t i = 1; i <= 2 * ROUNDS; i++) {
      if (isnan(trace[i])) break;
      assert_true(trace[i] < end);
      end = trace[i];
    }
    assert_true(end < trace[0]);
    assert_true(end > best[1] * (1.0 - 2e-3)); /* conjugate gradients stop where they expect to gain 3e-4 of
                                                  the loss, in each of two halves */
    if (rank == K) assert_true(end < best[1] * (1.0 + 2e-3));
    if (rank < K) assert_true(trace[0] > best[0] * (1.0 + 1e-3)); /* truncation costs something */
    /* stored: not worse than the plain rounded decomposition */
    double loss, start, *rows = gptvq_alloc(ROWS, sizeof *rows);
    for (size_t i = 0; i < n; i++) l.q.centroids[i] = 0.0f;
    for (size_t tile = 0; tile < tiles; tile++)
      gptvq_expand_codebook((int8_t *)l.q.codes + tile * K, K, 8, l.q.codebook_scales[tile],
                            l.q.centroids + tile * K);
    assert_int_equal(gptvq_vq_compress(&l.q, &err), GPTVQ_OK);
    start = layer_loss(&l.q, rows);
    assert_int_equal(gptvq_vq_update_factors(&l.q, &loss, &err), GPTVQ_OK);
    assert_true(loss <= start && loss < 1.02 * end); /* int8 codebooks and factors */
    double again = layer_loss(&l.q, rows);
    assert_true(fabs(again - loss) <= 1e-12 * loss);
    free(rows);
    free(whole);
    free(left);
    free(right);
    free(free_left);
    free(identity);
    release_layer(&l);
  }
  free(h);
}

/* What a reader will make of the factors is what the solver reports; sizes follow the formula; no thread
 * count changes a byte. */
static void layers_with_factors(void **state) {
  (void)state;
  enum { ROWS = 37, COLS = 100 };
  double *h = random_hessian(COLS, 250, 13);
  float *w = random_weights(ROWS, COLS, 17);
  for (unsigned variant = 0; variant < 8; variant++) {
    gptvq_quantize_options o = small_options(1, variant == 1 ? 4 : 2, 96);
    o.group_cols = 48;
    o.svd_rank = variant == 1 ? 7 : 2;
    if (variant == 2) o.codebook_bits = 16;
    if (variant == 3) o.act_order = 1;
    if (variant == 4) o.scale_block = 16;
    if (variant == 5) o.method = GPTVQ_METHOD_KMEANS;
    if (variant == 6) o.codebook_update = 0;
    if (variant == 7) o.group_size = 1 << 16; /* 3 codebooks for rank 4 */
    if (variant == 7) o.svd_rank = 4;
    const double *data = variant == 5 ? NULL : h;
    gptvq_layer_result r = solve(ROWS, COLS, w, data, &o);
    const gptvq_packed *p = &r.packed;
    gptvq_packed_sizes s;
    gptvq_packed_measure(&p->shape, &s);
    size_t tiles = s.codebook_scales, k = (size_t)1 << p->shape.index_bits,
           rank = variant == 7 ? 3 : o.svd_rank;
    assert_int_equal(p->shape.svd_rank, rank);
    assert_int_equal(s.stored_bytes, s.index_bytes + tiles * rank + rank * k + 4 * rank +
                                         s.block_scale_bytes + (variant == 4 ? 8 : 0) +
                                         (variant == 3 ? 2 * COLS : 0));
    char *codes = gptvq_alloc(s.codebook_bytes, 1);
    uint16_t *scales = gptvq_alloc(tiles, sizeof *scales);
    gptvq_codebooks_from_factors(tiles, k, rank, p->codebook_left, p->codebook_right, p->factor_scales,
                                 p->shape.codebook_bits, codes, scales);
    assert_memory_equal(codes, p->codebooks, s.codebook_bytes);
    assert_memory_equal(scales, p->codebook_scales, 2 * tiles);
    free(codes);
    free(scales);
    double error = relative_error(p, w, data);
    assert_true(fabs(error - r.error) <= 1e-4 * error);
    o.svd_rank = 0;
    gptvq_layer_result plain = solve(ROWS, COLS, w, data, &o);
    assert_true(r.error < 1.6 * plain.error);
    if (variant == 0) assert_true(r.error > 0.9 * plain.error);
    gptvq_layer_result_release(&plain);
    o.svd_rank = variant == 1 ? 7 : variant == 7 ? 4 : 2;
    for (int threads = 1; threads <= 3; threads += 2) {
      gptvq_set_threads(threads);
      gptvq_layer_result other = solve(ROWS, COLS, w, data, &o);
      assert_same_bytes(&r, &other);
      gptvq_layer_result_release(&other);
    }
    gptvq_set_threads(0);
    gptvq_layer_result_release(&r);
  }
  free(h);
  free(w);
}

/* At full rank only the rounding of the factors is left, and what their alternating updates leave to gain,
 * where the codebook's is exact. Weights times a power of two give the same codes. */
static void full_rank_costs_rounding_only(void **state) {
  (void)state;
  enum { ROWS = 32, COLS = 128 };
  double *h = random_hessian(COLS, 300, 19);
  float *w = random_weights(ROWS, COLS, 23);
  gptvq_quantize_options o = small_options(1, 2, 128);
  o.reassign_rounds = 0;
  gptvq_layer_result plain = solve(ROWS, COLS, w, h, &o);
  o.svd_rank = 4;
  gptvq_layer_result full = solve(ROWS, COLS, w, h, &o);
  if (fabs(full.error / plain.error - 1.0) > 0.02)
    fail_msg("%g with factors of full rank, %g without", full.error, plain.error);
  static const int exponents[] = {-60, 40, 90};
  for (size_t i = 0; i < 3; i++) {
    float *scaled = gptvq_alloc(ROWS * COLS, sizeof *scaled);
    for (size_t j = 0; j < ROWS * COLS; j++) scaled[j] = ldexpf(w[j], exponents[i]);
    gptvq_layer_result r = solve(ROWS, COLS, scaled, h, &o);
    for (size_t t = 0; t < 4; t++)
      assert_true(r.packed.factor_scales[t] > 0.0f && isfinite(r.packed.factor_scales[t]));
    assert_true(fabs(r.error / full.error - 1.0) < 1e-3);
    gptvq_layer_result_release(&r);
    free(scaled);
  }
  gptvq_layer_result_release(&plain);
  gptvq_layer_result_release(&full);
  memset(w, 0, ROWS * COLS * sizeof *w); /* nothing to decompose */
  gptvq_layer_result zero = solve(ROWS, COLS, w, h, &o);
  assert_true(zero.error == 0.0);
  gptvq_layer_result_release(&zero);
  free(h);
  free(w);
}

static void refused(gptvq_quantize_options o, const char *words) {
  gptvq_error err = {.message = ""};
  assert_int_equal(gptvq_quantize_options_resolve(&o, &err), GPTVQ_ERROR_ARGUMENT);
  if (strstr(err.message, words) == NULL || strstr(err.message, "svd_rank") == NULL)
    fail_msg("message: %s", err.message);
}

static void options_and_sizes(void **state) {
  (void)state;
  gptvq_error err;
  gptvq_quantize_options o, plain;
  gptvq_quantize_options_init(&plain);
  plain.dim = 1;
  plain.bits = 2.125;
  plain.svd_rank = 2;
  o = plain;
  assert_int_equal(gptvq_quantize_options_resolve(&o, &err), GPTVQ_OK);
  assert_int_equal(o.index_bits, 2);
  assert_int_equal(o.group_size, 128); /* 2 · 8 / 0.125 */
  assert_true(fabs(o.bits - 2.125) < 1e-12);
  gptvq_packed_shape shape;
  gptvq_packed_sizes sizes;
  const gptvq_resolved r = resolved(&o);
  assert_int_equal(gptvq_layer_shape(4096, 4096, &r, &shape, &err), GPTVQ_OK);
  gptvq_packed_measure(&shape, &sizes);
  double exact = 8.0 * (double)sizes.stored_bytes / (4096.0 * 4096.0);
  assert_true(fabs(exact - 2.125 - (2.0 * 4 * 8 + 2 * 32) / (4096.0 * 4096.0)) < 1e-12);
  o = plain;
  o.bits = 3.125;
  o.svd_rank = 4;
  assert_int_equal(gptvq_quantize_options_resolve(&o, &err), GPTVQ_OK);
  assert_int_equal(o.index_bits, 3);
  assert_int_equal(o.group_size, 256);
  o = plain;
  o.dim = 2;
  refused(o, "`dim` 2");
  o = plain;
  o.svd_rank = 5;
  refused(o, "4 centroids");
  o.svd_rank = 257;
  refused(o, "257");
  o = plain;
  o.bits = 0.0;
  o.index_bits = 9;
  o.group_size = 1 << 16;
  refused(o, "512 centroids");
  for (int method = 1; method <= 2; method++) {
    o = plain;
    o.method = (gptvq_method)method;
    refused(o, "no codebooks");
  }
  o = plain;
  o.finetune_steps = 1;
  refused(o, "fine-tuning");
  o = plain;
  o.finetune_block_steps = 1;
  refused(o, "fine-tuning");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(decomposition_uses_one_thread),
                                     cmocka_unit_test(decomposition_is_exact_at_full_rank),
                                     cmocka_unit_test(sorting_changes_no_value),
                                     cmocka_unit_test(the_fit_never_raises_the_loss),
                                     cmocka_unit_test(layers_with_factors),
                                     cmocka_unit_test(full_rank_costs_rounding_only),
                                     cmocka_unit_test(options_and_sizes)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
