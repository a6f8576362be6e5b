/* `bits` as a ceiling: what a run stores of all linears, counted from the bytes it has written, is never
 * more; no smaller group would do; the smallest size is said where nothing does. */
#define _GNU_SOURCE
#include "tiny_model.h"

#include "quant/layer/solver.h"
#include "quant/plan/ceiling.h"
#include "quant/plan/sensitivity.h"
#include "quant/run/resume.h"

#include <gptvq/gptvq.h>
#include <math.h>

static int make_scratch(void **state) {
  (void)state;
  if (tiny_enter_scratch() != 0) return -1;
  tiny_write(&tiny_llama, "llama");
  tiny_write(&tiny_mixtral, "mixtral");
  return 0;
}

static gptvq_quantize_options quick(gptvq_method method, unsigned dim, double bits) {
  gptvq_quantize_options o;
  gptvq_quantize_options_init(&o);
  o.method = method;
  o.dim = dim;
  o.bits = bits;
  o.em_iterations = 1;
  o.group_cols = 24; /* 64 columns are 24 + 24 + 16: groups of several widths */
  o.judge_tokens = 0;
  o.force = 1;
  return o;
}

static double stored(const gptvq_model *model, const gptvq_resolved *options) {
  double bytes = 0.0, values = 0.0;
  for (size_t b = 0; b < model->config.layers; b++)
    for (size_t i = 0; i < model->blocks[b].linear_count; i++) {
      const gptvq_linear *linear = &model->blocks[b].linears[i];
      gptvq_packed_shape shape;
      gptvq_packed_sizes sizes;
      ok(gptvq_layer_shape(linear->rows, linear->cols, options, &shape, err));
      gptvq_packed_measure(&shape, &sizes);
      bytes += (double)sizes.stored_bytes;
      values += (double)linear->rows * (double)linear->cols;
    }
  return 8.0 * bytes / values;
}

/* The index is the longest, its group the smallest that there are. */
static void check_tight(const char *name, const gptvq_quantize_options *given) {
  gptvq_model *model;
  gptvq_resolved chosen, other;
  ok(gptvq_model_open(name, NULL, &model, err));
  ok(gptvq_resolve(given, &chosen, err));
  ok(gptvq_ceiling_settle(model, &chosen, err));
  const gptvq_quantize_options *o = &chosen.options;
  assert_true(stored(model, &chosen) <= given->bits);
  const double largest = gptvq_is_uniform(o) ? 0.5 : 1 - 1.0 / 32; /* steps are of a 64th, or 64 columns */
  for (size_t group = o->group_size / 2; group <= (size_t)(largest * (double)o->group_size); group++)
    if (group >= 8 && gptvq_resolve_sizes(&chosen, o->index_bits, group, &other, NULL) == GPTVQ_OK &&
        stored(model, &other) <= given->bits)
      fail_msg("%s, %g bits: groups of %zu do, %zu are taken", name, given->bits, group, o->group_size);
  if (given->index_bits == 0)
    for (unsigned b = o->index_bits + 1; b <= (gptvq_is_uniform(o) ? 8 : 12); b++)
      if (gptvq_resolve_sizes(&chosen, b, given->group_size != 0 ? given->group_size : GPTVQ_MAX_GROUP,
                              &other, NULL) == GPTVQ_OK &&
          stored(model, &other) <= given->bits)
        fail_msg("%s, %g bits: indices of %u bits do, %u are taken", name, given->bits, b, o->index_bits);
  assert_true(gptvq_allocation_spare(model, &chosen) == 0);
  if (!gptvq_is_uniform(o)) { /* sizes by layer have all of it */
    gptvq_quantize_options several = *given;
    several.method = GPTVQ_METHOD_GPTVQ;
    several.allocate = GPTVQ_ALLOCATE_SENSITIVITY;
    ok(gptvq_resolve(&several, &other, err));
    ok(gptvq_ceiling_settle(model, &other, err));
    const double spare = (double)gptvq_allocation_spare(model, &other),
                 values = (double)model->info.linear_values;
    assert_true(fabs(stored(model, &other) + 8.0 * spare / values - given->bits) < 8.0 / values * 1.001);
  }
  gptvq_resolved again = chosen; /* once is enough */
  ok(gptvq_ceiling_settle(model, &again, err));
  assert_memory_equal(&again, &chosen, sizeof chosen);
  gptvq_model_close(model);
}

static void files_keep_within(void **state) {
  (void)state;
  static const double sizes[] = {1.9, 2.125, 2.25, 2.5, 3.125, 4.25, 5.0};
  static const char *const models[] = {"llama", "mixtral"};
  for (size_t m = 0; m < 2; m++)
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
      for (unsigned dim = 0; dim <= 4; dim += dim < 2 ? 1 : 2) { /* 0: uniform codes */
        gptvq_quantize_options o = quick(dim == 0 ? GPTVQ_METHOD_RTN : GPTVQ_METHOD_KMEANS, dim, sizes[i]);
        gptvq_quantize_report report = {.size = sizeof report};
        ok(gptvq_quantize(models[m], "packed", &o, NULL, &report, err));
        if (!(report.bits_per_value <= sizes[i]))
          fail_msg("%s, dim %u: %g bits are %.4f", models[m], dim, sizes[i], report.bits_per_value);
        check_tight(models[m], &o);
        o.nominal = 1;
        gptvq_resolved nominal;
        ok(gptvq_resolve(&o, &nominal, err));
        assert_true(nominal.ceiling == 0.0);
        o.nominal = 0;
        if (dim == 4 || sizes[i] > 3.2) continue; /* so short an index leaves more than codebooks may take */
        const unsigned longest = (unsigned)((dim == 0 ? 1.0 : dim) * (sizes[i] - 0.6));
        o.index_bits = longest < 3 ? longest : 3;
        check_tight(models[m], &o);
      }
}

/* Streams of a trellis take their bits and scales; what is left is shared out by layer. */
static void streams_keep_within(void **state) {
  (void)state;
  gptvq_model *model;
  ok(gptvq_model_open("llama", NULL, &model, err));
  for (int hundredths = 200; hundredths < 500; hundredths++) {
    const double bits = hundredths / 100.0;
    gptvq_quantize_options o = quick(GPTVQ_METHOD_GPTVQ, 0, bits);
    gptvq_resolved r, sizes[3];
    gptvq_error error = {.message = ""};
    o.code = GPTVQ_CODE_TRELLIS;
    o.index_bits = 2;
    o.group_cols = 256;
    o.bits = 0;
    ok(gptvq_resolve(&o, &r, err));
    for (unsigned b = 2; b <= 4; b++) ok(gptvq_resolve_sizes(&r, b, 0, &sizes[b - 2], err));
    o.bits = bits;
    o.index_bits = 0;
    ok(gptvq_resolve(&o, &r, err));
    const double smallest = stored(model, &sizes[0]);
    char text[32];
    (void)snprintf(text, sizeof text, "the smallest is %.4f", ceil(1e4 * smallest) / 1e4);
    if (bits < smallest) {
      assert_int_equal(gptvq_ceiling_settle(model, &r, &error), GPTVQ_ERROR_ARGUMENT);
      if (strstr(error.message, text) == NULL) fail_msg("%s", error.message);
      continue;
    }
    ok(gptvq_ceiling_settle(model, &r, err));
    unsigned most = 2;
    for (unsigned b = 3; b <= 4; b++)
      if (stored(model, &sizes[b - 2]) <= bits) most = b;
    assert_int_equal(r.options.index_bits, most);
    assert_int_equal(r.options.allocate, most < 4 && bits > smallest + 0.02 ? GPTVQ_ALLOCATE_SENSITIVITY
                                                                            : GPTVQ_ALLOCATE_UNIFORM);
  }
  gptvq_model_close(model);
}

/* Where layers have one size and scales leave no room for the whole part of `bits`, vectors are chosen. */
static void a_bit_is_not_left_unused(void **state) {
  (void)state;
  gptvq_model *model;
  size_t vectors = 0, streams = 0;
  ok(gptvq_model_open("llama", NULL, &model, err));
  for (int thousandths = 2200; thousandths <= 4450; thousandths += 5) {
    gptvq_quantize_options o = quick(GPTVQ_METHOD_KMEANS, 0, thousandths / 1000.0);
    gptvq_resolved r, stream, vector;
    if (thousandths % 2 != 0) {
      o.method = GPTVQ_METHOD_GPTVQ;
      o.allocate = GPTVQ_ALLOCATE_UNIFORM;
    }
    o.group_cols = 256;
    o.code = GPTVQ_CODE_AUTO;
    ok(gptvq_resolve(&o, &r, err));
    if (r.options.code != GPTVQ_CODE_TRELLIS) continue;
    ok(gptvq_ceiling_settle(model, &r, err));
    o.code = GPTVQ_CODE_TRELLIS;
    ok(gptvq_resolve(&o, &stream, err));
    ok(gptvq_ceiling_settle(model, &stream, err));
    o.code = GPTVQ_CODE_VQ;
    ok(gptvq_resolve(&o, &vector, err));
    ok(gptvq_ceiling_settle(model, &vector, err));
    const bool fits = stream.options.index_bits == (unsigned)o.bits;
    const gptvq_resolved *expected = fits ? &stream : &vector;
    ++*(fits ? &streams : &vectors);
    assert_int_equal(r.options.code, expected->options.code);
    assert_int_equal(r.options.dim, expected->options.dim);
    assert_int_equal(r.options.index_bits, expected->options.index_bits);
    assert_int_equal(r.options.group_size, expected->options.group_size);
    assert_int_equal(r.options.head_bits, expected->options.head_bits);
    assert_true(stored(model, &r) <= o.bits && stored(model, &r) > o.bits - 0.5);
  }
  assert_true(vectors > 0 && streams > 0);
  gptvq_model_close(model);
}

/* A ceiling above all sizes: the largest of them. */
static void any_ceiling_will_do(void **state) {
  (void)state;
  static const struct {
    gptvq_method method;
    gptvq_code code;
    unsigned dim, index_bits, group_size, svd_rank;
    double bits;
    unsigned settled;
  } cases[] = {
      {GPTVQ_METHOD_RTN, GPTVQ_CODE_AUTO, 0, 0, 0, 0, 10.0, 8},
      {GPTVQ_METHOD_RTN, GPTVQ_CODE_AUTO, 0, 0, 64, 0, 10.0, 8},
      {GPTVQ_METHOD_RTN, GPTVQ_CODE_AUTO, 0, 4, 0, 0, 16.0, 4},
      {GPTVQ_METHOD_KMEANS, GPTVQ_CODE_TRELLIS, 0, 0, 0, 0, 5.0, 4},
      {GPTVQ_METHOD_KMEANS, GPTVQ_CODE_VQ, 2, 0, 0, 0, 8.5, 0},
      {GPTVQ_METHOD_KMEANS, GPTVQ_CODE_VQ, 2, 4, 0, 0, 9.0, 4},
      {GPTVQ_METHOD_KMEANS, GPTVQ_CODE_VQ, 4, 0, 8, 0, 12.0, 0},
      {GPTVQ_METHOD_KMEANS, GPTVQ_CODE_VQ, 1, 0, 0, 1, 16.0, 8},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    gptvq_quantize_options o = quick(cases[i].method, cases[i].dim, cases[i].bits);
    gptvq_quantize_report report = {.size = sizeof report};
    gptvq_model *model;
    gptvq_resolved r;
    o.code = cases[i].code;
    o.index_bits = cases[i].index_bits;
    o.group_size = cases[i].group_size;
    o.svd_rank = cases[i].svd_rank;
    ok(gptvq_model_open("llama", NULL, &model, err));
    ok(gptvq_resolve(&o, &r, err));
    ok(gptvq_ceiling_settle(model, &r, err));
    gptvq_model_close(model);
    if (cases[i].settled != 0) assert_int_equal(r.options.index_bits, cases[i].settled);
    ok(gptvq_quantize("llama", "large", &o, NULL, &report, err));
    assert_true(report.bits_per_value <= o.bits);
  }
}

/* Equal sizes, but more or less for the layers together: another run. */
static void what_layers_share_is_in_the_identity(void **state) {
  (void)state;
  gptvq_model *model;
  gptvq_resolved a, b;
  json_t *first, *second;
  gptvq_quantize_options o = quick(GPTVQ_METHOD_GPTVQ, 2, 2.25);
  o.allocate = GPTVQ_ALLOCATE_SENSITIVITY;
  ok(gptvq_model_open("llama", NULL, &model, err));
  ok(gptvq_resolve(&o, &a, err));
  ok(gptvq_ceiling_settle(model, &a, err));
  o.bits = 2.2499;
  ok(gptvq_resolve(&o, &b, err));
  ok(gptvq_ceiling_settle(model, &b, err));
  assert_int_equal(a.options.index_bits, b.options.index_bits);
  assert_int_equal(a.options.group_size, b.options.group_size);
  ok(gptvq_run_identity(model, &a, &first, err));
  ok(gptvq_run_identity(model, &b, &second, err));
  assert_false(json_equal(first, second));
  json_decref(second);
  ok(gptvq_run_identity(model, &a, &second, err));
  assert_true(json_equal(first, second));
  json_decref(first);
  json_decref(second);
  gptvq_model_close(model);
}

static void the_smallest_size_is_said(void **state) {
  (void)state;
  gptvq_error error = {.message = ""};
  gptvq_quantize_options o = quick(GPTVQ_METHOD_KMEANS, 2, 2.1);
  o.index_bits = 4;
  o.codebook_bits = 16;
  assert_int_equal(gptvq_quantize("llama", "none", &o, NULL, NULL, &error), GPTVQ_ERROR_ARGUMENT);
  const char *said = strstr(error.message, "the smallest is ");
  assert_non_null(said);
  gptvq_quantize_report report = {.size = sizeof report};
  o.bits = strtod(said + strlen("the smallest is "), NULL);
  ok(gptvq_quantize("llama", "least", &o, NULL, &report, err));
  assert_true(report.bits_per_value <= o.bits && report.bits_per_value > o.bits - 1e-4);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(files_keep_within),
      cmocka_unit_test(streams_keep_within),
      cmocka_unit_test(a_bit_is_not_left_unused),
      cmocka_unit_test(any_ceiling_will_do),
      cmocka_unit_test(what_layers_share_is_in_the_identity),
      cmocka_unit_test(the_smallest_size_is_said),
  };
  return cmocka_run_group_tests(tests, make_scratch, tiny_drop_scratch);
}
