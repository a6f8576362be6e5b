/* Each of the backend's functions on the shim, or on a card, against the CPU's. The kernels do the CPU's
 * operations in the CPU's order: with the CPU's products (take_cpu_products) the bits have to be the same. A
 * card's own products are compared by themselves. */
#include "counted_upload.h"
#include "cuda_fixture.h"
#include "calib/mismatch.h"
#include "cuda/cuda.h"
#include "linalg/solve/cholesky.h"

typedef struct copy { /* of all that the functions change */
  float *work, *error, *centroids;
  uint16_t *index, *codebook_scales;
  char *codes;
  uint8_t *scale_codes;
  size_t n, errors, books, tiles, indices, scales, code_bytes;
  unsigned searches;
} copy;

static void *duplicate(const void *from, size_t bytes) {
  void *to = gptvq_alloc(bytes, 1);
  return bytes > 0 ? memcpy(to, from, bytes) : to;
}

static copy take_copy(const gptvq_vq *q) {
  copy c = {.n = q->rows * q->padded,
            .errors = q->error != NULL ? q->rows * q->padded : 0,
            .tiles = q->stripes * q->groups,
            .indices = q->rows * q->blocks,
            .scales = q->scale_block ? q->rows * q->scale_blocks : 0,
            .searches = q->searches};
  c.books = c.tiles * q->k * q->dim;
  c.code_bytes = c.books * q->shape.codebook_bits / 8;
  c.work = duplicate(q->work, c.n * sizeof *c.work);
  c.error = duplicate(q->error, c.errors * sizeof *c.error);
  c.centroids = duplicate(q->centroids, c.books * sizeof *c.centroids);
  c.index = duplicate(q->index, c.indices * sizeof *c.index);
  c.codebook_scales = duplicate(q->codebook_scales, c.tiles * sizeof *c.codebook_scales);
  c.codes = duplicate(q->codes, c.code_bytes);
  c.scale_codes = duplicate(q->scale_codes, c.scales);
  return c;
}
static void release_copy(copy *c) {
  free(c->work);
  free(c->error);
  free(c->centroids);
  free(c->index);
  free(c->codebook_scales);
  free(c->codes);
  free(c->scale_codes);
}
static void restore(gptvq_vq *q, const copy *c) {
  memcpy(q->work, c->work, c->n * sizeof *c->work);
  if (c->errors > 0) memcpy(q->error, c->error, c->errors * sizeof *c->error);
  memcpy(q->centroids, c->centroids, c->books * sizeof *c->centroids);
  memcpy(q->index, c->index, c->indices * sizeof *c->index);
  memcpy(q->codebook_scales, c->codebook_scales, c->tiles * sizeof *c->codebook_scales);
  memcpy(q->codes, c->codes, c->code_bytes);
  if (c->scales > 0) memcpy(q->scale_codes, c->scale_codes, c->scales);
  q->searches = c->searches;
  q->has_product = q->has_gradient = false; /* each makes its own */
}

/* All but work, which both may destroy. */
static void assert_same(const gptvq_vq *q, const copy *c, size_t number) {
  if (memcmp(q->index, c->index, c->indices * sizeof *c->index) != 0) {
    size_t at = 0, count = 0;
    for (size_t i = c->indices; i-- > 0;)
      if (q->index[i] != c->index[i]) at = i, count++;
    fail_msg("case %zu: %zu indices differ, first %zu of row %zu: %u, on the CPU %u", number, count,
             at % q->blocks, at / q->blocks, q->index[at], c->index[at]);
  }
  if (c->errors > 0) assert_memory_equal(q->error, c->error, c->errors * sizeof *c->error);
  for (size_t i = 0; i < c->books; i++)
    if (memcmp(&q->centroids[i], &c->centroids[i], sizeof(float)) != 0)
      fail_msg("case %zu: centroid %zu is %.9g, on the CPU %.9g", number, i / q->dim, (double)q->centroids[i],
               (double)c->centroids[i]);
  assert_memory_equal(q->codebook_scales, c->codebook_scales, c->tiles * sizeof *c->codebook_scales);
  assert_memory_equal(q->codes, c->codes, c->code_bytes);
  if (c->scales > 0) assert_memory_equal(q->scale_codes, c->scale_codes, c->scales);
  assert_int_equal(q->searches, c->searches);
}

typedef gptvq_status (*step)(gptvq_vq *q, size_t group, gptvq_span batch, gptvq_error *err);
static gptvq_status codebooks(gptvq_vq *q, size_t group, gptvq_span batch, gptvq_error *err) {
  return batch.begin == q->group[group].start ? q->backend->codebooks(q, group, err) : GPTVQ_OK;
}
static gptvq_status assign(gptvq_vq *q, size_t group, gptvq_span batch, gptvq_error *err) {
  return q->backend->assign(q, group, batch, err);
}

/* The step in all groups and batches, on the CPU and on the shim, from the same state. */
static void compare(const fixture *f, size_t number, step function) {
  const layer_case *c = &layer_cases[number];
  layer_input in = make_input(c);
  gptvq_arena arena;
  gptvq_error err = {.message = ""};
  gptvq_vq q = open_layer(c->rows, c->cols, in.w, in.factor, &in.options, &arena);
  memcpy(q.work, q.target, q.rows * q.padded * sizeof *q.work);
  if (q.error != NULL) memset(q.error, 0, q.rows * q.padded * sizeof *q.error);
  memset(q.index, 0, q.rows * q.blocks * sizeof *q.index);
  for (size_t g = 0; g < q.groups; g++) {
    const size_t stop = q.group[g].start + q.group[g].width;
    for (gptvq_span batch = {q.group[g].start, 0}; batch.begin < stop; batch.begin = batch.end) {
      batch.end = gptvq_min_size(stop, batch.begin + 48);
      copy before = take_copy(&q);
      q.backend = &gptvq_cpu_backend;
      assert_int_equal(function(&q, g, batch, &err), GPTVQ_OK);
      copy expected = take_copy(&q);
      for (int reverse = 0; reverse < 2; reverse++) {
        restore(&q, &before);
        gptvq_shim_reverse(f->device, reverse);
        q.backend = gptvq_cuda_backend(f->cuda);
        if (function(&q, g, batch, &err) != GPTVQ_OK) fail_msg("case %zu: %s", number, err.message);
        assert_same(&q, &expected, number);
      }
      release_copy(&before);
      release_copy(&expected);
    }
  }
  gptvq_arena_destroy(&arena);
  release_input(&in);
}

static void assignments_are_the_cpus(void **state) {
  (void)state;
  fixture f = open_fixture();
  for (size_t i = 0; i < LAYER_CASES; i++) compare(&f, i, assign);
  close_fixture(&f);
}

static void codebooks_are_the_cpus(void **state) {
  (void)state;
  fixture f = open_fixture();
  for (size_t i = 0; i < LAYER_CASES; i++) compare(&f, i, codebooks);
  close_fixture(&f);
}

typedef gptvq_status (*sweep)(gptvq_vq *q, double *value, gptvq_error *err);
static gptvq_status reassign(gptvq_vq *q, double *gain, gptvq_error *err) {
  *gain = 0.0;
  return q->step_bits > 0 ? GPTVQ_OK : q->backend->reassign(q, gain, err);
}
static gptvq_status search(gptvq_vq *q, double *gain, gptvq_error *err) {
  return q->backend->search(q, gain, err);
}
static gptvq_status update(gptvq_vq *q, double *loss, gptvq_error *err) {
  return q->backend == &gptvq_cpu_backend && q->step_bits == 0 ? gptvq_vq_update_gradients(q, loss, err)
                                                               : q->backend->update(q, loss, err);
}

/* Σ |E| (|H| + ridge) |E|ᵀ: products of E with H, made anew or followed, are off by a part of it */
static double absolute_loss(gptvq_vq *q) {
  gptvq_error err;
  double sum = 0.0;
  q->backend = &gptvq_cpu_backend;
  assert_int_equal(gptvq_vq_gradient(q, &err), GPTVQ_OK);
  for (size_t row = 0; row < q->rows; row++)
    for (size_t i = 0; i < q->padded; i++)
      for (size_t j = 0; j < q->padded; j++) {
        const double h =
            fabs((double)q->factor->h[i * q->padded + j]) + (i == j ? gptvq_factor_ridge(q->factor, i) : 0.0);
        sum += fabs((double)q->work[row * q->padded + i]) * h * fabs((double)q->work[row * q->padded + j]);
      }
  return sum;
}

/* The same for what goes over the whole layer. Gains are sums over rows or over stripes, in another order, of
 * differences of losses, each a product of as many terms as there are columns and values that moved: at most
 * 2 columns of fp32. Did anything change? */
static bool compare_sweep(const fixture *f, size_t number, sweep function) {
  const layer_case *c = &layer_cases[number];
  if (c->no_data) return false;
  layer_input in = make_input(c);
  gptvq_arena arena;
  gptvq_error err = {.message = ""};
  gptvq_vq q = open_layer(c->rows, c->cols, in.w, in.factor, &in.options, &arena);
  double cpu, shim;
  q.searches = (unsigned)number; /* boundaries of batches alternate */
  copy before = take_copy(&q);
  const double bound = function == update ? 2.0 * (double)(q.rows * q.blocks) * 0x1p-53
                                          : 4.0 * (double)q.padded * 0x1p-24 * absolute_loss(&q);
  restore(&q, &before);
  assert_int_equal(function(&q, &cpu, &err), GPTVQ_OK);
  copy expected = take_copy(&q);
  for (int reverse = 0; reverse < 2; reverse++) {
    restore(&q, &before);
    gptvq_shim_reverse(f->device, reverse);
    q.backend = gptvq_cuda_backend(f->cuda);
    if (function(&q, &shim, &err) != GPTVQ_OK) fail_msg("case %zu: %s", number, err.message);
    memcpy(q.error, expected.error, expected.errors * sizeof *q.error); /* is nobody's */
    assert_same(&q, &expected, number);
    assert_true(fabs(shim - cpu) <= bound * (function == update ? fabs(cpu) : 1.0));
  }
  release_copy(&before);
  release_copy(&expected);
  gptvq_arena_destroy(&arena);
  release_input(&in);
  return cpu > 0.0;
}

static void sweeps_are_the_cpus(void **state) {
  (void)state;
  fixture f = open_fixture();
  take_cpu_products(&f);
  const sweep functions[] = {update, reassign, search};
  for (size_t function = 0; function < 3; function++) {
    size_t changes = 0;
    for (size_t i = 0; i < LAYER_CASES; i++) changes += compare_sweep(&f, i, functions[function]);
    assert_in_range(changes, LAYER_CASES / 3, LAYER_CASES); /* not of nothing */
  }
  close_fixture(&f);
}

/* times_hessian and feedback, also in pieces of a device with little memory. A sum of k products in another
 * order, on a card, is 2 γ_k Σ |terms| from the CPU's. */
static void products_are_the_cpus(void **state) {
  (void)state;
  enum { ROWS = 37, COLS = 90 };
  const layer_case c = {
      .dim = 2, .index_bits = 3, .beam = 1, .rows = ROWS, .cols = COLS, .group_size = 512, .group_cols = 96};
  layer_input in = make_input(&c);
  gptvq_arena arena;
  gptvq_error err = {.message = ""};
  gptvq_vq q = open_layer(c.rows, c.cols, in.w, in.factor, &in.options, &arena);
  float *expected = gptvq_alloc(ROWS, COLS * sizeof *expected), *got = gptvq_alloc(ROWS, COLS * sizeof *got);
  for (int little = 0; little < (on_test_card() ? 1 : 2); little++) {
    const bool same = !on_test_card();
    fixture f = open_fixture();
    /* one of H and U, the ridge, and some rows */
    if (little) gptvq_shim_limit(f.device, (COLS * COLS + COLS + 24 * COLS) * sizeof(float));
    q.backend = gptvq_cuda_backend(f.cuda);
    assert_int_equal(gptvq_vq_times_hessian(&q, ROWS, q.target, expected, &err), GPTVQ_OK);
    if (q.backend->times_hessian(&q, ROWS, q.target, got, &err) != GPTVQ_OK) fail_msg("%s", err.message);
    for (size_t i = 0; i < ROWS * COLS; i++) {
      double bound = 0.0;
      for (size_t k = 0; k < COLS; k++)
        bound += fabs((double)q.target[i / COLS * COLS + k] * (double)in.factor->h[k * COLS + i % COLS]);
      bound += in.factor->ridge * fabs((double)q.target[i]);
      assert_true(fabs((double)got[i] - (double)expected[i]) <=
                  (same ? 0.0 : 2.0 * (COLS + 2) * 0x1p-24 * bound));
    }
    const gptvq_span from = {8, 40}, to = {40, 78};
    memcpy(expected, q.target, ROWS * COLS * sizeof *expected);
    memcpy(got, q.target, ROWS * COLS * sizeof *got);
    assert_int_equal(
        gptvq_cpu_backend.feedback(&gptvq_cpu_backend, in.factor, ROWS, from, to, q.error, expected, &err),
        GPTVQ_OK);
    if (q.backend->feedback(q.backend, in.factor, ROWS, from, to, q.error, got, &err) != GPTVQ_OK)
      fail_msg("%s", err.message);
    for (size_t i = 0; i < ROWS * COLS; i++) {
      double bound = fabs((double)q.target[i]);
      for (size_t k = from.begin; k < from.end; k++)
        bound += fabs((double)q.error[i / COLS * COLS + k] * (double)in.factor->u[k * COLS + i % COLS]);
      assert_true(fabs((double)got[i] - (double)expected[i]) <= (same ? 0.0 : 2.0 * 34 * 0x1p-24 * bound));
    }
    close_fixture(&f);
  }
  free(expected);
  free(got);
  gptvq_arena_destroy(&arena);
  release_input(&in);
}

/* In the loop of a trellis errors of earlier batches are on the device already, and feedback takes these; not
 * another layer's, and not where memory is too short for all of them. */
static void errors_stay_on_the_device(void **state) {
  (void)state;
  const layer_case c = {
      .trellis = true, .index_bits = 4, .beam = 2, .rows = 20, .cols = 96, .group_cols = 32};
  layer_input in = make_input(&c);
  gptvq_arena arena;
  gptvq_error err = {.message = ""};
  gptvq_vq q = open_layer(c.rows, c.cols, in.w, in.factor, &in.options, &arena);
  float *expected = gptvq_alloc(c.rows, c.cols * sizeof *expected);
  double *bound = gptvq_alloc(c.rows, c.cols * sizeof *bound);
  enum { TIGHT = 68 << 10 }; /* U takes 36 KiB: when it comes, all else has to go */
  for (int little = 0; little < (on_test_card() ? 1 : 2); little++) {
    const bool same = !on_test_card();
    fixture f = open_fixture();
    upload = f.device->upload;
    f.device->upload = counted_upload;
    if (little) gptvq_shim_limit(f.device, TIGHT);
    q.backend = gptvq_cuda_backend(f.cuda);
    memcpy(q.work, q.target, c.rows * c.cols * sizeof *q.work);
    for (size_t g = 0; g < 3; g++) {
      const gptvq_span from = {0, 32 * g}, to = {32 * g, 32 * g + 32};
      for (size_t i = 0; i < c.rows * c.cols; i++) bound[i] = fabs((double)q.work[i]);
      for (size_t i = 0; i < c.rows * c.cols; i++)
        for (size_t k = from.begin; k < from.end; k++)
          bound[i] +=
              fabs((double)q.error[i / c.cols * c.cols + k] * (double)in.factor->u[k * c.cols + i % c.cols]);
      memcpy(expected, q.work, c.rows * c.cols * sizeof *expected);
      assert_int_equal(
          gptvq_feed_back(&gptvq_cpu_backend, in.factor, c.rows, from, to, q.error, expected, &err),
          GPTVQ_OK);
      uploaded = 0;
      if (g > 0 &&
          q.backend->feedback(q.backend, in.factor, c.rows, from, to, q.error, q.work, &err) != GPTVQ_OK)
        fail_msg("%s", err.message);
      if (g == 2) /* the weights, and the errors where they were lost */
        assert_int_equal(uploaded, c.rows * (32 + (little ? from.end : 0)) * sizeof(float));
      for (size_t i = 0; i < c.rows * c.cols; i++) /* as above */
        assert_true(fabs((double)q.work[i] - (double)expected[i]) <=
                    (same ? 0.0 : 2.0 * (double)(from.end + 2) * 0x1p-24 * bound[i]));
      if (q.backend->assign(&q, g, to, &err) != GPTVQ_OK) fail_msg("%s", err.message);
    }
    /* the loop is over: whoever has the array now sends it */
    uploaded = 0;
    assert_int_equal(q.backend->feedback(q.backend, in.factor, c.rows, (gptvq_span){0, 64},
                                         (gptvq_span){64, 96}, q.error, q.work, &err),
                     GPTVQ_OK);
    assert_int_equal(uploaded, c.rows * 96 * sizeof(float));
    close_fixture(&f);
  }
  free(expected);
  free(bound);
  gptvq_arena_destroy(&arena);
  release_input(&in);
}

/* x H xᵀ: a product of n terms in fp32, (n + 1) 2⁻²⁴ of its magnitudes; whole and in pieces. */
static void row_losses_are_exact_enough(void **state) {
  (void)state;
  enum { ROWS = 37, COLS = 280, PARTS = 2 };
  const layer_case c = {
      .dim = 2, .index_bits = 3, .beam = 1, .rows = ROWS, .cols = COLS, .group_size = 512, .group_cols = 64};
  layer_input in = make_input(&c);
  for (int little = 0; little < (on_test_card() ? 1 : 2); little++) {
    gptvq_error err = {.message = ""};
    double out[ROWS];
    fixture f = open_fixture();
    /* H, the ridge, and ten rows */
    if (little)
      gptvq_shim_limit(f.device, ((COLS * COLS + COLS + 10 * 2 * COLS) * sizeof(float) +
                                  10 * PARTS * sizeof(double) + (PARTS + 1) * sizeof(uint32_t)) *
                                     17 / 16);
    const gptvq_backend *backend = gptvq_cuda_backend(f.cuda);
    if (backend->row_losses(backend, in.factor, ROWS, in.w, out, &err) != GPTVQ_OK)
      fail_msg("%s", err.message);
    assert_int_equal(f.device->crowded, little);
    for (size_t r = 0; r < ROWS; r++) {
      const float *x = in.w + r * COLS;
      double expected = 0.0, magnitude = 0.0;
      for (size_t i = 0; i < COLS; i++)
        for (size_t j = 0; j < COLS; j++) {
          const double product = (double)x[i] * (double)in.factor->h[i * COLS + j] * (double)x[j];
          expected += product;
          magnitude += fabs(product);
        }
      assert_true(fabs(out[r] - expected) <= (COLS + 1) * 0x1p-24 * magnitude);
    }
    close_fixture(&f);
  }
  release_input(&in);
}

/* By the definition: map is divided in place. */
static void divide_on_host(const gptvq_factor *factor, size_t rows, const float *weights, double share,
                           float *map) {
  const gptvq_factored factored = gptvq_factor_arrays(factor);
  gptvq_error err = {.message = ""};
  gptvq_mismatch m = {.cols = factor->cols, .rows = rows, .tokens = 1, .inputs_share = share, .map = map};
  if (gptvq_mismatch_divide(&m, &factored, weights, "test", &err) != GPTVQ_OK) fail_msg("%s", err.message);
}

/* (map − α W H) Uᵀ U of a layer's factor with a phantom, whole, in pieces, and with H and U one after the
 * other, where U has no room beside H, or rows have none beside both: the same bits on the shim. Each way
 * adds up at most n + 1, n and n products in fp32: 2 (3 n + 6) 2⁻²⁴ of the product of the magnitudes. */
static void mismatches_are_divided(void **state) {
  (void)state;
  enum { ROWS = 37, COLS = 89, N = 90, SMALL = ROWS * COLS };
  const layer_case c = {
      .dim = 2, .index_bits = 3, .beam = 1, .rows = ROWS, .cols = COLS, .group_size = 512, .group_cols = 96};
  layer_input in = make_input(&c);
  const gptvq_factor *factor = in.factor;
  static float map[SMALL], expected[SMALL], got[SMALL], whole[2][SMALL];
  static double bounds[SMALL];
  const double share = 0.75;
  uint64_t seed = 4;
  assert_int_equal(factor->padded, N);
  for (size_t i = 0; i < SMALL; i++) map[i] = (float)(gptvq_random_unit(&seed) - 0.5);
  enum { WHOLE, PIECES, NOT_BOTH, NO_ROW };
  static const struct {
    int way;
    bool takes;
  } cases[] = {{WHOLE, false}, {WHOLE, true},    {PIECES, false},
               {PIECES, true}, {NOT_BOTH, true}, {NO_ROW, true}};
  for (int which = 0; which < (on_test_card() ? 2 : 6); which++) {
    const int way = cases[which].way;
    const bool takes = cases[which].takes;
    const float *weights = takes ? in.w : NULL;
    const size_t square = N * N * sizeof(float), piece = 9 * (2 * N + COLS) * sizeof(float),
                 orders = (2 * N + COLS) * sizeof(uint32_t), much = takes && way == PIECES ? 2 : 1;
    gptvq_error err = {.message = ""};
    fixture f = open_fixture();
    if (way == NO_ROW) gptvq_shim_limit(f.device, 2 * square + N * sizeof(float) + 64);
    else if (way != WHOLE) gptvq_shim_limit(f.device, (much * square + piece + orders) * 17 / 16);
    memcpy(expected, map, sizeof map);
    memcpy(got, map, sizeof map);
    divide_on_host(factor, ROWS, weights, takes ? share : 0.0, expected);
    const gptvq_backend *backend = gptvq_cuda_backend(f.cuda);
    if (backend->divide(backend, factor, ROWS, weights, share, got, &err) != GPTVQ_OK)
      fail_msg("%s", err.message);
    assert_int_equal(f.device->crowded, way != WHOLE);
    assert_non_null(f.cuda->factor.u);
    assert_int_equal(f.cuda->factor.h != NULL, takes && way != NOT_BOTH && way != NO_ROW);
    if (way == WHOLE) memcpy(whole[takes], got, sizeof got);
    assert_memory_equal(got, whole[takes], sizeof got);
    memset(bounds, 0, sizeof bounds);
    for (size_t r = 0; r < ROWS; r++) {
      double mean[N] = {0}, half[N] = {0}, out[N] = {0};
      for (size_t i = 0; i < N; i++) {
        if (factor->order[i] == GPTVQ_NO_COLUMN) continue;
        const size_t at = r * COLS + factor->order[i];
        mean[i] += fabs((double)map[at]);
        for (size_t j = 0; j < N && takes; j++)
          mean[j] += share / factor->scale * fabs((double)in.w[at] * (double)factor->h[i * N + j]);
      }
      for (size_t i = 0; i < N; i++)
        for (size_t k = i; k < N; k++) half[i] += mean[k] * fabs((double)factor->u[i * N + k]);
      for (size_t i = 0; i < N; i++)
        for (size_t k = i; k < N; k++) out[k] += half[i] * fabs((double)factor->u[i * N + k]);
      for (size_t i = 0; i < N; i++) {
        if (factor->order[i] == GPTVQ_NO_COLUMN) continue;
        const size_t at = r * COLS + factor->order[i];
        const double bound = 2.0 * (3 * N + 6) * 0x1p-24 * factor->scale * out[i];
        if (!(fabs((double)got[at] - (double)expected[at]) <= bound))
          fail_msg("%d, row %zu, column %u: %.9g instead of %.9g, bound %.2g", which, r, factor->order[i],
                   (double)got[at], (double)expected[at], bound);
      }
    }
    close_fixture(&f);
  }
  release_input(&in);
}

/* A map that weights were multiplied by goes where U, orders, a buffer or pieces of rows need its room. */
static void maps_make_room(void **state) {
  (void)state;
  enum {
    ROWS = 37,
    COLS = 90,
    SIDE = 96,
    U = COLS * COLS * sizeof(float),
    MAP = SIDE * SIDE * sizeof(float)
  };
  if (on_test_card()) skip(); /* only the shim's memory can be limited */
  const layer_case c = {
      .dim = 2, .index_bits = 3, .beam = 1, .rows = ROWS, .cols = COLS, .group_size = 512, .group_cols = 96};
  layer_input in = make_input(&c);
  static const size_t beside[] = {SIZE_MAX, U - 1, U + 16, MAP - 1, 0}; /* bytes, beside the map */
  static float square[SIDE * SIDE], row[SIDE], whole[ROWS * COLS], got[ROWS * COLS];
  for (int which = 0; which < 5; which++) {
    gptvq_error err = {.message = ""};
    gptvq_cuda_linalg *linalg;
    void *buffer;
    fixture f = open_fixture();
    gptvq_cuda_destroy(f.cuda);
    assert_int_equal(gptvq_cuda_linalg_create(f.device, false, &linalg, &err), GPTVQ_OK);
    assert_int_equal(gptvq_cuda_create(f.device, linalg, &f.cuda, &err), GPTVQ_OK);
    const gptvq_linalg *l = gptvq_cuda_linalg_table(linalg);
    const gptvq_backend *backend = gptvq_cuda_backend(f.cuda);
    assert_int_equal(l->add_mapped(l, 1, SIDE, 1.0, square, row, &err), GPTVQ_OK);
    if (which > 0) gptvq_shim_limit(f.device, MAP + beside[which]);
    memcpy(got, in.w, sizeof got);
    if (which == 3)
      assert_int_equal(gptvq_cuda_reserve(f.cuda, GPTVQ_CUDA_ROWS, 1, MAP, &buffer, &err), GPTVQ_OK);
    else if (which == 4) assert_int_equal(gptvq_cuda_piece(f.cuda, 2, 1, MAP / 4, 0), 2);
    else if (backend->divide(backend, in.factor, ROWS, NULL, 0.0, got, &err) != GPTVQ_OK)
      fail_msg("%d: %s", which, err.message);
    if (which == 0) memcpy(whole, got, sizeof got);
    if (which < 3) assert_memory_equal(got, whole, sizeof got);
    assert_int_equal(f.device->crowded, which > 0);
    assert_int_equal(gptvq_cuda_linalg_drop_map(linalg), which == 0); /* it is gone already, or not */
    gptvq_cuda_linalg_destroy(linalg);
    close_fixture(&f);
  }
  release_input(&in);
}

/* Small whole numbers are exact in any order of sums: in more columns than a panel of U has, in an order of
 * their own with phantoms among them, the CPU's bits. */
static void divisions_are_exact(void **state) {
  (void)state;
  enum { ROWS = 21, COLS = 2101, N = COLS + 2, EACH = 3, HALF = N / 2 };
  const size_t square = (size_t)N * N, all = (size_t)ROWS * COLS;
  float *h = gptvq_alloc_zero(square, sizeof *h), *u = gptvq_alloc_zero(square, sizeof *u),
        *weights = gptvq_alloc(all, sizeof *weights), *map = gptvq_alloc(all, sizeof *map),
        *expected = gptvq_alloc(all, sizeof *expected);
  static uint32_t order[N];
  uint64_t seed = 9;
  assert_true(h != NULL && u != NULL && weights != NULL && map != NULL && expected != NULL);
  for (uint32_t i = 0; i < N; i++) { /* numbers from COLS on: phantoms */
    const uint32_t j = (uint32_t)gptvq_random_below(&seed, i + 1);
    order[i] = order[j];
    order[j] = i;
  }
  for (size_t i = 0; i < N; i++) order[i] = order[i] < COLS ? order[i] : GPTVQ_NO_COLUMN;
  for (size_t i = 0; i < N; i++)
    for (size_t j = i; j < N; j++)
      if (order[i] != GPTVQ_NO_COLUMN && order[j] != GPTVQ_NO_COLUMN)
        h[i * N + j] = h[j * N + i] = (float)gptvq_random_below(&seed, 3) - 1.0f;
  for (size_t i = 0; i < N; i++) {
    u[i * N + i] = 1.0f;
    for (size_t e = 0; e < EACH && i < HALF; e++)
      u[i * N + HALF + gptvq_random_below(&seed, N - HALF)] = (float)gptvq_random_below(&seed, 5) - 2.0f;
  }
  for (size_t i = 0; i < all; i++) {
    weights[i] = (float)gptvq_random_below(&seed, 4);
    map[i] = (float)gptvq_random_below(&seed, 64);
  }
  const gptvq_factor factor = {
      .id = UINT64_MAX, .cols = COLS, .padded = N, .dim = 1, .order = order, .h = h, .u = u, .scale = 0.25};
  fixture f = open_fixture();
  const gptvq_backend *backend = gptvq_cuda_backend(f.cuda);
  for (int takes = 0; takes < 2; takes++) {
    gptvq_error err = {.message = ""};
    memcpy(expected, map, all * sizeof *map);
    divide_on_host(&factor, ROWS, weights, takes ? 0.5 : 0.0, expected);
    if (backend->divide(backend, &factor, ROWS, takes ? weights : NULL, 0.5, map, &err) != GPTVQ_OK)
      fail_msg("%s", err.message);
    assert_memory_equal(map, expected, all * sizeof *map);
    for (size_t i = 0; i < all; i++) map[i] = (float)gptvq_random_below(&seed, 64);
  }
  close_fixture(&f);
  free(h);
  free(u);
  free(weights);
  free(map);
  free(expected);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(assignments_are_the_cpus),
      cmocka_unit_test(codebooks_are_the_cpus),
      cmocka_unit_test(sweeps_are_the_cpus),
      cmocka_unit_test(products_are_the_cpus),
      cmocka_unit_test(errors_stay_on_the_device),
      cmocka_unit_test(mismatches_are_divided),
      cmocka_unit_test(row_losses_are_exact_enough),
      cmocka_unit_test(divisions_are_exact),
      cmocka_unit_test(maps_make_room),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
