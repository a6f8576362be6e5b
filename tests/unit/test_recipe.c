/* Ingredients that look at the whole model, through gptvq_quantize: allocation of bits, guided Hessians,
 * mismatch correction. */
#include "tiny_model.h"

#include "quant/plan/memory.h"

#include <gptvq/gptvq.h>
#include <unistd.h>

static const gptvq_model_options in_fp32 = {.size = sizeof in_fp32, .compute = GPTVQ_COMPUTE_FP32};

static int make_scratch(void **state) {
  (void)state;
  if (tiny_enter_scratch() != 0) return -1;
  tiny_write(&tiny_llama, "llama");
  tiny_write(&tiny_mixtral, "mixtral");
  tiny_write_corpus("corpus.txt", 4000);
  return 0;
}

static gptvq_quantize_options recipe_options(void) {
  gptvq_quantize_options o = tiny_quantize_options(GPTVQ_METHOD_GPTVQ);
  o.index_bits = 4;
  o.beam = 2;
  o.force = 1;
  return o;
}

typedef struct watcher {
  size_t layers, stop_after;
  char warnings[2048];
} watcher;
static int watch_progress(void *user, const gptvq_progress *progress) {
  watcher *w = user;
  return !isnan(progress->value) && ++w->layers == w->stop_after;
}
static void watch_log(void *user, gptvq_log_level level, const char *line) {
  watcher *w = user;
  size_t used = strlen(w->warnings);
  if (level == GPTVQ_LOG_WARNING) (void)snprintf(w->warnings + used, sizeof w->warnings - used, "%s\n", line);
}
static gptvq_status watched(const char *in, const char *out, const gptvq_quantize_options *o, watcher *w,
                            gptvq_quantize_report *report, gptvq_error *err) {
  const gptvq_callbacks callbacks = {sizeof callbacks, w, watch_log, watch_progress};
  return gptvq_quantize(in, out, o, &callbacks, report, err);
}

/* How many different index widths a folder has. */
static size_t index_widths(const char *folder) {
  gptvq_model *model;
  unsigned seen = 0;
  ok(gptvq_model_open(folder, &in_fp32, &model, err));
  for (size_t i = 0; i < gptvq_model_layer_count(model); i++) {
    gptvq_layer_info info = {.size = sizeof info};
    gptvq_model_get_layer(model, i, &info);
    seen |= 1u << info.index_bits;
  }
  gptvq_model_close(model);
  size_t count = 0;
  for (; seen != 0; seen >>= 1) count += seen & 1;
  return count;
}

/* Windows of all parts, none twice, and of both sources where these take turns. */
static void sizes_are_chosen_by_windows_of_every_source(void **state) {
  (void)state;
  for (size_t windows = 1; windows <= 40; windows++)
    for (size_t count = 1; count <= windows; count++) {
      size_t odd = 0, next = 0;
      for (size_t i = 0; i < count; i++) {
        const size_t window = gptvq_allocation_window(i, count, windows);
        assert_true(window >= next && window < windows);
        next = window + 1;
        odd += window % 2;
      }
      if (count >= 4 && windows >= 2 * count) assert_true(odd > 0 && odd < count);
    }
}

static void allocation_stays_within_the_bytes_of_equal_sizes(void **state) {
  (void)state;
  gptvq_quantize_options o = recipe_options();
  gptvq_quantize_report equal = {.size = sizeof equal}, allocated = {.size = sizeof allocated};
  o.allocate = 0;
  ok(gptvq_quantize("llama", "equal", &o, NULL, &equal, err));
  o.allocate = 1;
  ok(gptvq_quantize("llama", "allocated", &o, NULL, &allocated, err));
  assert_true(allocated.linear_bytes <= equal.linear_bytes);
  assert_true(allocated.linear_bytes > equal.linear_bytes * 9 / 10);
  assert_int_equal(index_widths("equal"), 1);
  assert_true(index_widths("allocated") > 1);
}

/* A trellis: any number of bits, within a layer's step of it; whole ones are equal sizes. */
static void trellis_layers_share_fractions_of_bits(void **state) {
  (void)state;
  static const double bits[] = {2.18, 2.75, 3.75}; /* the smallest is 2.1787 */
  double loss = INFINITY;
  for (size_t i = 0; i < 3; i++) {
    gptvq_quantize_options o = recipe_options();
    gptvq_quantize_report report = {.size = sizeof report};
    o.index_bits = 0;
    o.group_size = 0;
    o.dim = 0;
    o.bits = bits[i];
    o.code = GPTVQ_CODE_TRELLIS;
    o.allocate = 1;
    ok(gptvq_quantize("llama", "trellis", &o, NULL, &report, err));
    const double least = bits[i] - 0.35; /* of 14 layers the largest has an eighth of the weights */
    if (!(report.bits_per_value <= bits[i] && report.bits_per_value > least))
      fail_msg("%g bits asked for, %g stored", bits[i], report.bits_per_value);
    assert_true(report.mean_error < loss);
    loss = report.mean_error;
    assert_int_equal(index_widths("trellis") > 1, i > 0);
  }
}

static void same_bytes_for_any_thread_count_and_after_resuming(void **state) {
  (void)state;
  for (int variant = 0; variant < 3; variant++) {
    gptvq_quantize_options o = recipe_options();
    o.allocate = variant != 1;
    o.guide = variant == 0 ? 0.0 : 0.5;
    o.mismatch = variant == 2 ? 0.0 : 1.0;
    gptvq_set_threads(1);
    ok(gptvq_quantize("llama", "one", &o, NULL, NULL, err));
    gptvq_set_threads(3);
    ok(gptvq_quantize("llama", "three", &o, NULL, NULL, err));
    gptvq_set_threads(0);
    assert_same_folder("one", "three");
    watcher w = {.stop_after = 9};
    gptvq_error error;
    gptvq_quantize_report report = {.size = sizeof report};
    assert_int_equal(watched("llama", "cut", &o, &w, NULL, &error), GPTVQ_ERROR_CANCELLED);
    o.resume = 1;
    o.force = 0;
    w = (watcher){0};
    ok(watched("llama", "cut", &o, &w, &report, err));
    assert_int_equal(report.blocks_resumed, 1);
    assert_same_folder("one", "cut");
    ok(gptvq_remove_tree("cut", err));
  }
}

/* Another share is another result; a resumed run must not mix them. */
static void options_belong_to_the_run(void **state) {
  (void)state;
  for (int variant = 0; variant < 4; variant++) {
    gptvq_quantize_options o = recipe_options();
    gptvq_error error;
    watcher w = {.stop_after = 9};
    assert_int_equal(watched("llama", "cut", &o, &w, NULL, &error), GPTVQ_ERROR_CANCELLED);
    o.resume = 1;
    o.force = 0;
    if (variant == 0) o.mismatch = 0.25;
    if (variant == 1) o.mismatch_stream = 0.25;
    if (variant == 2) o.guide = 0.75;
    if (variant == 3) o.allocate = 1;
    assert_int_equal(gptvq_quantize("llama", "cut", &o, NULL, NULL, &error), GPTVQ_ERROR_ARGUMENT);
    ok(gptvq_remove_tree("cut.partial", err));
  }
}

/* Layers of experts get sizes of their own too; those that no token reaches, as the fourth expert's here,
 * keep the options' own. */
static void experts_are_allocated(void **state) {
  (void)state;
  gptvq_quantize_options o = recipe_options();
  gptvq_model *model;
  o.allocate = 1;
  o.guide = 0.5;
  o.force = 1;
  ok(gptvq_quantize("mixtral", "allocated", &o, NULL, NULL, err));
  assert_true(index_widths("allocated") > 1);
  ok(gptvq_quantize_options_resolve(&o, err));
  ok(gptvq_model_open("allocated", NULL, &model, err));
  size_t experts = 0;
  for (size_t i = 0; i < gptvq_model_layer_count(model); i++) {
    gptvq_layer_info layer = {.size = sizeof layer};
    gptvq_model_get_layer(model, i, &layer);
    if (strstr(layer.name, ".experts.3.") == NULL) continue;
    experts++;
    assert_int_equal(layer.index_bits, o.index_bits);
  }
  assert_int_equal(experts, 2 * 3);
  gptvq_model_close(model);
}

static void absurd_values_are_refused(void **state) {
  (void)state;
  for (int variant = 0; variant < 4; variant++) {
    gptvq_quantize_options o = recipe_options();
    gptvq_error error;
    if (variant == 0) o.mismatch = 1.5;
    if (variant == 1) o.mismatch_stream = (double)NAN;
    if (variant == 2) o.guide = -0.1;
    if (variant == 3) o.allocate = 7;
    assert_int_equal(gptvq_quantize_options_resolve(&o, &error), GPTVQ_ERROR_ARGUMENT);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(sizes_are_chosen_by_windows_of_every_source),
      cmocka_unit_test(allocation_stays_within_the_bytes_of_equal_sizes),
      cmocka_unit_test(trellis_layers_share_fractions_of_bits),
      cmocka_unit_test(same_bytes_for_any_thread_count_and_after_resuming),
      cmocka_unit_test(options_belong_to_the_run),
      cmocka_unit_test(experts_are_allocated),
      cmocka_unit_test(absurd_values_are_refused),
  };
  return cmocka_run_group_tests(tests, make_scratch, tiny_drop_scratch);
}
