/* Paths, tables and scales of the trellis code, and layers solved with it. */
#include "quant/layer/beam.h"
#include "quant/layer/trellis.h"
#include "solver_fixture.h"

#include <gptvq/context.h>

static gptvq_quantize_options trellis_options(unsigned bits) {
  gptvq_quantize_options o;
  gptvq_quantize_options_init(&o);
  o.code = GPTVQ_CODE_TRELLIS;
  o.allocate = GPTVQ_ALLOCATE_UNIFORM;
  o.bits = bits + 0.25;
  return o;
}

enum { STATES = GPTVQ_TRELLIS_STATES, TABLE = GPTVQ_TRELLIS_TABLE };

/* ---- paths ---- */

/* Least cost over all paths of `columns` columns from a prefix on (−1: any) to a prefix (−1: any). */
static double least_cost(unsigned k, size_t columns, const float *table, const float *x, const float *weight,
                         int start, int end) {
  size_t prefixes = (size_t)STATES >> k, paths = (size_t)1 << (k * columns);
  double least = INFINITY;
  for (size_t first = 0; first < prefixes; first++)
    for (size_t path = 0; (start < 0 || (size_t)start == first) && path < paths; path++) {
      size_t state = first;
      double cost = 0.0;
      for (size_t c = 0; c < columns; c++) {
        state = (state << k | (path >> k * c & (((size_t)1 << k) - 1))) % STATES;
        double delta = (double)x[c] - (double)table[state];
        cost += delta * delta * (double)weight[c];
      }
      if (end >= 0 && (state & (prefixes - 1)) != (size_t)end) continue;
      if (cost < least) least = cost;
    }
  return least;
}

static void paths_are_the_best(void **state) {
  (void)state;
  enum { COLUMNS = 4, WIDTH = 2, ROWS = GPTVQ_TRELLIS_ROWS };
  uint64_t random = 3;
  for (unsigned k = 2; k <= 3; k++) {
    float table[GPTVQ_TRELLIS_STATES], x[COLUMNS * ROWS], row[COLUMNS], weight[COLUMNS], t[COLUMNS],
        scale[COLUMNS];
    const float *tables[COLUMNS];
    uint8_t states[COLUMNS * ROWS], *scratch = gptvq_alloc((size_t)COLUMNS * ROWS, (size_t)STATES >> k);
    size_t prefixes = (size_t)STATES >> k;
    for (size_t s = 0; s < STATES; s++) table[s] = (float)gauss(&random);
    for (size_t i = 0; i < COLUMNS * ROWS; i++) x[i] = (float)gauss(&random);
    for (size_t c = 0; c < COLUMNS; c++) {
      t[c] = (float)(0.5 + gptvq_random_unit(&random));
      weight[c] = t[c] * t[c];
      scale[c] = 1.0f;
      tables[c] = table;
    }
    GPTVQ_MULTI_PICK(gptvq_viterbi)(k, COLUMNS, table, x, weight, states, scratch);
    uint8_t base[COLUMNS * ROWS];
    GPTVQ_MULTI_FOR(gptvq_viterbi, 0)(k, COLUMNS, table, x, weight, base, scratch);
    assert_memory_equal(base, states, sizeof base);
    gptvq_arena arena = {0};
    gptvq_error err;
    size_t bytes = GPTVQ_MULTI_PICK(gptvq_path_scratch)(k, WIDTH);
    assert_int_equal(gptvq_arena_create(&arena, bytes + 64, "test", &err), GPTVQ_OK);
    void *memory = gptvq_arena_take(&arena, bytes, 1);
    for (size_t r = 0; r < ROWS; r++) {
      double cost = 0.0;
      for (size_t c = 0; c < COLUMNS; c++) {
        size_t s = states[c * ROWS + r];
        if (c > 0) assert_int_equal(s >> k, states[(c - 1) * ROWS + r] & (prefixes - 1));
        double delta = (double)x[c * ROWS + r] - (double)table[s];
        cost += delta * delta * (double)weight[c];
        row[c] = x[c * ROWS + r];
      }
      double least = least_cost(k, COLUMNS, table, row, weight, -1, -1);
      assert_true(fabs(cost - least) <= 1e-5 * least);
      for (int ends = 0; ends < 4; ends++) {
        uint16_t found[COLUMNS];
        float error[COLUMNS];
        int start = ends & 1 ? (int)(r % prefixes) : -1, end = ends & 2 ? (int)((r * 5 + 1) % prefixes) : -1;
        gptvq_path path = {k, COLUMNS, WIDTH, tables, scale, t, t, NULL, 0, start, end};
        double got = GPTVQ_MULTI_PICK(gptvq_find_path)(&path, row, found, error, memory);
        least = least_cost(k, COLUMNS, table, row, weight, start, end);
        if (!(fabs(got - least) <= 1e-5 * least))
          fail_msg("row %zu, ends %d: %g, not %g", r, ends, got, least);
        if (end >= 0) assert_int_equal(found[COLUMNS - 1] & (prefixes - 1), end);
        if (start >= 0) assert_int_equal(found[0] >> k, start);
      }
    }
    gptvq_arena_destroy(&arena);
    free(scratch);
  }
}

/* The search as the header says it, paths in full: kept[width][prefixes] with costs, weights and states. */
typedef struct kept {
  float cost, w[GPTVQ_BATCH], error[GPTVQ_BATCH];
  uint16_t state[GPTVQ_BATCH];
} kept;

static double plain_search(const gptvq_path *path, const float *w, uint16_t *state, float *error) {
  const unsigned k = path->step_bits;
  const size_t prefixes = (size_t)STATES >> k, all = path->width * prefixes;
  kept *now = gptvq_alloc_zero(all, sizeof *now), *next = gptvq_alloc_zero(all, sizeof *next), *swap;
  for (size_t i = 0; i < all; i++) {
    now[i].cost = i < prefixes && (path->start < 0 || (size_t)path->start == i) ? 0.0f : INFINITY;
    memcpy(now[i].w, w, path->columns * sizeof *w);
  }
  for (size_t c = 0; c < path->columns; c++, swap = now, now = next, next = swap) {
    const float scale = path->scale[c], inverse = scale > 0.0f ? 1.0f / scale : 0.0f,
                weight = path->lookup[c] * scale * path->lookup[c] * scale;
    for (size_t i = 0; i < all; i++) next[i].cost = INFINITY;
    for (size_t i = 0; i < path->width * STATES; i++) {
      const size_t s = i % STATES;
      const kept *from = &now[i / STATES * prefixes + (s >> k)];
      const float delta = from->w[c] * inverse - path->table[c][s],
                  cost = from->cost + delta * delta * weight;
      kept carried = *from, other;
      carried.cost = cost;
      carried.state[c] = (uint16_t)s;
      carried.error[c] = (from->w[c] - path->table[c][s] * scale) * path->metric[c];
      for (size_t j = c + 1; path->u != NULL && j < path->columns; j++)
        carried.w[j] = from->w[j] - carried.error[c] * path->u[c * path->u_stride + j];
      for (size_t rank = 0; rank < path->width; rank++) { /* a path that gives way is inserted further on */
        kept *place = &next[rank * prefixes + s % prefixes];
        if (!(carried.cost < place->cost)) continue;
        other = *place;
        *place = carried;
        carried = other;
      }
    }
  }
  const kept *best = &now[path->end < 0 ? 0 : path->end];
  for (size_t p = 0; path->end < 0 && p < prefixes; p++)
    if (now[p].cost < best->cost) best = &now[p];
  double sum = best->cost < INFINITY ? 0.0 : INFINITY;
  memcpy(state, best->state, path->columns * sizeof *state);
  memcpy(error, best->error, path->columns * sizeof *error);
  for (size_t c = path->columns; c-- > 0;) sum += (double)error[c] * (double)error[c];
  free(now);
  free(next);
  return sum;
}

/* Every level finds what the plain search finds, bit for bit. */
static void levels_find_the_same(void **state) {
  (void)state;
  static const size_t lengths[] = {1, 7, 40, GPTVQ_BATCH};
  uint64_t random = 11;
  float w[GPTVQ_BATCH], t[GPTVQ_BATCH], scale[GPTVQ_BATCH], tables[2][GPTVQ_TRELLIS_STATES];
  const float *table[GPTVQ_BATCH];
  float *u = gptvq_alloc_zero(GPTVQ_BATCH, GPTVQ_BATCH * sizeof *u);
  for (size_t c = 0; c < GPTVQ_BATCH; c++) {
    w[c] = (float)gauss(&random);
    t[c] = (float)(0.5 + gptvq_random_unit(&random));
    scale[c] = c == 5 ? 0.0f : (float)(0.5 + gptvq_random_unit(&random));
    table[c] = tables[c > 20];
    for (size_t j = c; j < GPTVQ_BATCH; j++) u[c * GPTVQ_BATCH + j] = (float)(0.2 * gauss(&random));
  }
  for (size_t i = 0; i < 2 * GPTVQ_TRELLIS_STATES; i++)
    tables[i / GPTVQ_TRELLIS_STATES][i % GPTVQ_TRELLIS_STATES] = (float)gauss(&random);
  for (unsigned variant = 0; variant < 3 * 4 * 4; variant++) {
    const unsigned k = 2 + variant % 3;
    const size_t width = 1 + variant / 3 % 4, n = lengths[variant / 12], prefixes = (size_t)STATES >> k;
    gptvq_path path = {k, n, width, table, scale, t, t, variant % 5 == 0 ? NULL : u, GPTVQ_BATCH, -1, -1};
    if (variant % 2) path.start = (int)(variant * 7 % prefixes);
    if (variant % 4 < 2 && n > 1) path.end = (int)(variant * 5 % prefixes);
    uint16_t expected[GPTVQ_BATCH], found[GPTVQ_BATCH];
    float expected_error[GPTVQ_BATCH], error[GPTVQ_BATCH];
    double sum = plain_search(&path, w, expected, expected_error);
    const gptvq_cpu_features levels[] = {0, GPTVQ_CPU_AVX2, GPTVQ_CPU_AVX2 | GPTVQ_CPU_AVX512};
    for (size_t level = 0; level < 3; level++) {
      gptvq_cpu_features features = levels[level];
      if ((gptvq_cpu() & features) != features) continue;
      size_t bytes = GPTVQ_MULTI_FOR(gptvq_path_scratch, features)(k, width);
      char *memory = gptvq_alloc(bytes, 1);
      memset(memory, 0xff, bytes);
      double got = GPTVQ_MULTI_FOR(gptvq_find_path, features)(&path, w, found, error, memory);
      if (got != sum || (sum < INFINITY && (memcmp(found, expected, n * sizeof *found) != 0 ||
                                            memcmp(error, expected_error, n * sizeof *error) != 0)))
        fail_msg("k %u, %zu columns, width %zu, start %d, end %d, level %zu: %g, not %g", k, n, width,
                 path.start, path.end, level, got, sum);
      free(memory);
    }
  }
  free(u);
}

/* ---- tables ---- */

/* Each round's objective is not above the one before; trained tables beat independent codes of normal numbers
 * (Lloyd and Max: 0.1175, 0.0345, 0.0095) and not what is possible (4^−k), on numbers that they have not
 * seen. */
static void tables_of_normal_numbers(void **state) {
  (void)state;
  static const double most[] = {0.0810, 0.0230, 0.0066};
  enum { ROWS = 64, COLUMNS = 256 };
  float *x = gptvq_alloc(ROWS, COLUMNS * sizeof *x), weight[COLUMNS], row_weight[ROWS];
  uint64_t random = 5;
  for (size_t i = 0; i < ROWS * COLUMNS; i++) x[i] = (float)gauss(&random);
  for (size_t i = 0; i < COLUMNS; i++) weight[i] = 1.0f;
  for (size_t i = 0; i < ROWS; i++) row_weight[i] = 1.0f;
  for (unsigned k = 2; k <= 4; k++) {
    const gptvq_trellis_points p = {k, ROWS, COLUMNS, x, weight, row_weight};
    float tables[TABLE];
    gptvq_arena arena = {0};
    gptvq_error err;
    assert_int_equal(gptvq_arena_create(&arena, gptvq_trellis_em_bytes(&p), "test", &err), GPTVQ_OK);
    memcpy(tables, gptvq_gaussian_tables[k - 2], sizeof tables);
    double loss, next;
    assert_int_equal(gptvq_trellis_em(&p, 1, NULL, tables, &loss, &arena, &err), GPTVQ_OK);
    if (!(loss < most[k - 2] && loss > pow(4.0, -(double)k))) fail_msg("%u bits: %g", k, loss);
    for (int round = 0; round < 8; round++) {
      assert_int_equal(gptvq_trellis_em(&p, 1, NULL, tables, &next, &arena, &err), GPTVQ_OK);
      assert_true(next <= loss * (1.0 + 1e-6));
      loss = next;
    }
    gptvq_arena_destroy(&arena);
  }
  free(x);
}

/* Sums of stored entries stay within ±127 and come within a step and a half of those of the values. */
static void stored_tables_add_up(void **state) {
  (void)state;
  uint64_t random = 13;
  for (int variant = 0; variant < 200; variant++) {
    float values[TABLE], stored[TABLE];
    int8_t codes[TABLE];
    uint16_t scale;
    const double sizes[2] = {variant % 5 == 0 ? 0.0 : 1.0, variant % 7 == 0 ? 0.0 : exp(gauss(&random))},
                 shift = variant % 3 == 0 ? 3.0 * gauss(&random) : 0.0;
    for (size_t i = 0; i < TABLE; i++)
      values[i] = (float)(sizes[i / (TABLE / 2)] * gauss(&random) + (i < TABLE / 2 ? shift : -shift));
    gptvq_round_trellis_tables(values, codes, &scale);
    gptvq_expand_codebook(codes, TABLE, 8, scale, stored);
    for (size_t i = 0; i < TABLE / 2; i++)
      for (size_t j = TABLE / 2; j < TABLE; j++) {
        const int sum = codes[i] + codes[j];
        assert_true(sum >= -127 && sum <= 127);
        const double off =
            fabs((double)stored[i] + (double)stored[j] - (double)values[i] - (double)values[j]);
        assert_true(off <= 1.5 * (double)gptvq_bf16_to_float(scale) / 127.0 + 1e-6 * (1.0 + fabs(shift)));
      }
  }
}

/* ---- layers ---- */

static void stages_lower_the_loss(void **state) {
  (void)state;
  enum { ROWS = 40, COLS = 300 };
  float *w = random_weights(ROWS, COLS, 6);
  double *h = random_hessian(COLS, 500, 7), row_loss[ROWS];
  gptvq_quantize_options o = trellis_options(2);
  const gptvq_resolved r = resolved(&o);
  gptvq_factor *f = NULL;
  gptvq_error err = {.message = ""};
  assert_int_equal(make_factor("test", COLS, h, &o, NULL, &f, &err), GPTVQ_OK);
  gptvq_arena arena = {0};
  gptvq_vq q = open_layer(ROWS, COLS, w, f, &r, &arena);
  double before = layer_loss(&q, row_loss), loss = 0.0, gain = 0.0;
  for (int round = 0; round < 3; round++) {
    assert_int_equal(gptvq_trellis_update_scales(&q, &loss, &err), GPTVQ_OK);
    assert_true(loss <= before);
    assert_true(fabs(layer_loss(&q, row_loss) - loss) <= 1e-5 * loss);
    before = loss;
    assert_int_equal(gptvq_vq_search(&q, &gain, &err), GPTVQ_OK);
    assert_true(gain > 0.0);
    loss = layer_loss(&q, row_loss);
    assert_true(fabs(before - gain - loss) <= 1e-4 * before);
    before = loss;
    for (size_t row = 0; row < ROWS; row++)
      for (size_t c = 0; c < COLS; c++)
        assert_int_equal(q.index[row * q.blocks + c] >> 2, gptvq_trellis_prefix(&q, row, c));
  }
  gptvq_arena_destroy(&arena);
  gptvq_factor_destroy(f);
  free(w);
  free(h);
}

/* What the code is for: on a layer of normal weights at 0.08 bits less than the vector codes at 2.125. */
static void beats_vector_codes(void **state) {
  (void)state;
  enum { ROWS = 256, COLS = 256 };
  float *w = random_weights(ROWS, COLS, 8);
  double *h = random_hessian(COLS, 600, 9), error[3], bits[3];
  for (unsigned i = 0; i < 3; i++) {
    gptvq_quantize_options o = trellis_options(2);
    if (i > 0) {
      gptvq_quantize_options_init(&o);
      o.dim = 2 * i;
      o.bits = 2.125;
    }
    gptvq_layer_result result = solve(ROWS, COLS, w, h, &o);
    gptvq_packed_sizes sizes;
    gptvq_packed_measure(&result.packed.shape, &sizes);
    bits[i] = 8.0 * (double)sizes.stored_bytes / (ROWS * COLS);
    error[i] = relative_error(&result.packed, w, h);
    assert_true(fabs(error[i] - result.error) <= 1e-4 * error[i]);
    gptvq_layer_result_release(&result);
  }
  if (!(bits[0] < 2.048 && error[0] < 0.88 * error[1] && error[0] < 0.97 * error[2]))
    fail_msg("trellis %g at %g bits, 2-D %g at %g, 4-D %g at %g", error[0], bits[0], error[1], bits[1],
             error[2], bits[2]);
  free(w);
  free(h);
}

/* Shapes of any kind, with an order and without, with data and without; the same bytes from any number of
 * threads. */
static void any_layer(void **state) {
  (void)state;
  static const size_t shapes[][2] = {{1, 8}, {3, 5}, {17, 40}, {20, 333}, {33, 576}};
  for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
    for (unsigned k = 2; k <= 4; k++)
      for (int data = 0; data < 2; data++) {
        size_t rows = shapes[i][0], cols = shapes[i][1];
        float *w = random_weights(rows, cols, i + 1);
        double *h = data ? random_hessian(cols, 2 * cols, i + 2) : NULL;
        for (size_t c = 0; rows > 1 && c < cols; c++) w[rows / 2 * cols + c] = 0.0f; /* a row of nothing */
        if (data && cols > 8)
          for (size_t c = 0; c < cols; c++) h[3 * cols + c] = h[c * cols + 3] = 0.0; /* a dead column */
        gptvq_quantize_options o = trellis_options(k);
        o.act_order = i % 2 ? 1 : 2;
        o.reassign_rounds = 1;
        o.em_iterations = 5;
        if (!data && i % 2) o.method = GPTVQ_METHOD_KMEANS;
        gptvq_layer_result a, b;
        gptvq_set_threads(1);
        a = solve(rows, cols, w, h, &o);
        gptvq_set_threads(3);
        b = solve(rows, cols, w, h, &o);
        assert_same_bytes(&a, &b);
        assert_int_equal(a.packed.shape.kind, GPTVQ_PACKED_TRELLIS);
        assert_int_equal(a.packed.shape.permuted, data && i % 2);
        double error = relative_error(&a.packed, w, h);
        if (!(error < (k == 2 || rows * cols < 16 ? 0.2 : 0.1)))
          fail_msg("shape %zu, %u bits, data %d: error %g", i, k, data, error);
        gptvq_layer_result_release(&a);
        gptvq_layer_result_release(&b);
        free(w);
        free(h);
      }
}

static void options_are_resolved(void **state) {
  (void)state;
  gptvq_quantize_options o = trellis_options(3);
  gptvq_resolved r = resolved(&o), again = resolved(&r.options);
  assert_int_equal(r.options.index_bits, 3);
  assert_int_equal(r.options.dim, 1);
  assert_true(r.options.bits == 3.0 + 8.0 / 256.0);
  assert_memory_equal(&r.options, &again.options, sizeof r.options);
  static const struct {
    size_t offset;
    const char *words;
  } refused[] = {{offsetof(gptvq_quantize_options, scale_block), "`scale_block`"},
                 {offsetof(gptvq_quantize_options, svd_rank), "`svd_rank`"},
                 {offsetof(gptvq_quantize_options, group_size), "`group_size`"}};
  gptvq_error err;
  for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
    o = trellis_options(2);
    *(unsigned char *)((char *)&o + refused[i].offset) = 8;
    assert_int_equal(gptvq_resolve(&o, &r, &err), GPTVQ_ERROR_ARGUMENT);
    assert_non_null(strstr(err.message, refused[i].words));
  }
  o = trellis_options(2);
  o.finetune_index_rate = 0.001;
  assert_int_equal(gptvq_resolve(&o, &r, &err), GPTVQ_ERROR_ARGUMENT);
  assert_non_null(strstr(err.message, "`finetune_index_rate`"));
  o = trellis_options(2); /* `bits` as asked for where layers share them */
  o.allocate = 1;
  o.bits = 2.5;
  r = resolved(&o);
  assert_true(r.options.index_bits == 2 && r.options.bits == 2.5);
  again = resolved(&r.options);
  assert_memory_equal(&r.options, &again.options, sizeof r.options);
  assert_int_equal(gptvq_resolve_sizes(&r, 4, 0, &again, &err), GPTVQ_OK); /* of one of them */
  assert_true(again.options.index_bits == 4 && again.options.bits == 4.0 + 8.0 / 256.0);
  o.index_bits = 3;
  assert_int_equal(gptvq_resolve(&o, &r, &err), GPTVQ_ERROR_ARGUMENT);
  assert_non_null(strstr(err.message, "`bits` 2.5 is not possible with `index_bits` 3"));
  o = trellis_options(2); /* without data nothing is shared */
  o.allocate = 1;
  o.method = GPTVQ_METHOD_KMEANS;
  assert_true(resolved(&o).options.bits == 2.0 + 8.0 / 256.0);
  o = trellis_options(1);
  assert_int_equal(gptvq_resolve(&o, &r, &err), GPTVQ_ERROR_ARGUMENT);
  assert_non_null(strstr(err.message, "nearest possible size is 2.031"));
  o = trellis_options(2);
  o.method = GPTVQ_METHOD_RTN;
  assert_int_equal(gptvq_resolve(&o, &r, &err), GPTVQ_ERROR_ARGUMENT);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(paths_are_the_best),
      cmocka_unit_test(levels_find_the_same),
      cmocka_unit_test(tables_of_normal_numbers),
      cmocka_unit_test(stored_tables_add_up),
      cmocka_unit_test(stages_lower_the_loss),
      cmocka_unit_test(beats_vector_codes),
      cmocka_unit_test(any_layer),
      cmocka_unit_test(options_are_resolved),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
