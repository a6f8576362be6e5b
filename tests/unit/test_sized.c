/* Structs that grow: programs compiled for an older version, whose structs are shorter, and for a newer one.
 */
#include "tiny_model.h"

#include <stddef.h>

/* A struct as a program of another version has it: `size` bytes that the library may read or write, and what
 * lies behind them. */
#define OTHER(type) \
  struct { \
    type known; \
    unsigned char behind[64]; \
  }

static gptvq_error error;

static void refused(gptvq_status status, const char *words) {
  assert_int_equal(status, GPTVQ_ERROR_ARGUMENT);
  if (strstr(error.message, words) == NULL) fail_msg("'%s' does not say '%s'", error.message, words);
}

static gptvq_status opens(const gptvq_model_options *options) {
  gptvq_model *model;
  gptvq_status status = gptvq_model_open("llama", options, &model, &error);
  gptvq_model_close(model);
  return status;
}

static void members_beyond_the_size_are_defaults(void **state) {
  (void)state;
  gptvq_model_options options = {.size = offsetof(gptvq_model_options, head_bits), .head_bits = 5};
  assert_int_equal(opens(&options), GPTVQ_OK);
  options.size = sizeof options;
  refused(opens(&options), "5 bits");
}

static void what_was_not_initialised_is_refused(void **state) {
  (void)state;
  static const size_t sizes[] = {0, 1, sizeof(size_t), SIZE_MAX};
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    const gptvq_model_options options = {.size = sizes[i]};
    refused(opens(&options), "gptvq_model_options_init");
    const gptvq_callbacks callbacks = {.size = sizes[i]};
    const gptvq_model_options with = {.size = sizeof with, .callbacks = &callbacks};
    refused(opens(&with), "gptvq_callbacks_init");
    refused(gptvq_export_hf("llama", "out", 0, &callbacks, &error), "gptvq_callbacks_init");
    gptvq_quantize_options o = tiny_quantize_options(GPTVQ_METHOD_RTN);
    gptvq_quantize_report report = {.size = sizes[i]};
    refused(gptvq_quantize("llama", "out", &o, NULL, &report, &error), "gptvq_quantize_report_init");
    refused(gptvq_quantize("llama", "out", &o, &callbacks, NULL, &error), "gptvq_callbacks_init");
    o.size = sizes[i];
    refused(gptvq_quantize("llama", "out", &o, NULL, NULL, &error), "gptvq_quantize_options_init");
    refused(gptvq_quantize_options_resolve(&o, &error), "gptvq_quantize_options_init");
    refused(gptvq_quantize_options_set(&o, "dim", "1", &error), "gptvq_quantize_options_init");
    gptvq_packed_layer *layer;
    float one = 1.0f;
    refused(gptvq_pack_layer("x", 1, 1, &one, NULL, &o, NULL, &layer, &error), "gptvq_quantize_options_init");
    assert_null(layer);
    gptvq_sampler sampler = {.size = sizes[i], .top_p = 1.0f};
    int32_t token;
    refused(gptvq_sample(&sampler, &one, 1, &token, &error), "gptvq_sampler_init");
    gptvq_model_info info = {.size = sizes[i]};
    gptvq_model *model;
    ok(gptvq_model_open("llama", NULL, &model, err));
    gptvq_model_get_info(model, &info); /* cannot say so, and writes nothing */
    assert_int_equal(info.size, sizes[i]);
    assert_int_equal(info.layers, 0);
    gptvq_model_close(model);
  }
  assert_false(gptvq_path_exists("out"));
  assert_false(gptvq_path_exists("out.partial"));
}

static void newer_members_are_refused_where_they_are_set(void **state) {
  (void)state;
  OTHER(gptvq_model_options) options = {.known = {.size = sizeof options}};
  assert_int_equal(opens(&options.known), GPTVQ_OK);
  for (size_t i = 0; i < sizeof options.behind; i += sizeof options.behind - 1) {
    options.behind[i] = 1;
    refused(opens(&options.known), "newer version");
    options.behind[i] = 0;
  }
  OTHER(gptvq_quantize_options) o = {.known = tiny_quantize_options(GPTVQ_METHOD_RTN)};
  o.known.size = sizeof o;
  ok(gptvq_quantize("llama", "newer", &o.known, NULL, NULL, err));
  o.behind[7] = 1;
  refused(gptvq_quantize("llama", "none", &o.known, NULL, NULL, &error), "newer version");
}

typedef struct steps {
  size_t progress, size;
} steps;

static int count_step(void *user, const gptvq_progress *progress) {
  ((steps *)user)->progress++;
  ((steps *)user)->size = progress->size;
  return 0;
}

static void older_callbacks_have_no_later_members(void **state) {
  (void)state;
  const gptvq_quantize_options o = tiny_quantize_options(GPTVQ_METHOD_RTN);
  steps s = {0};
  gptvq_callbacks callbacks = {
      .size = offsetof(gptvq_callbacks, progress), .user = &s, .progress = count_step};
  ok(gptvq_quantize("llama", "quiet", &o, &callbacks, NULL, err));
  assert_int_equal(s.progress, 0);
  callbacks.size = sizeof callbacks;
  ok(gptvq_quantize("llama", "heard", &o, &callbacks, NULL, err));
  assert_true(s.progress > 0);
  assert_int_equal(s.size, sizeof(gptvq_progress));
}

static void older_quantize_options_mean_the_same(void **state) {
  (void)state;
  gptvq_quantize_options whole = tiny_quantize_options(GPTVQ_METHOD_GPTVQ), defaults;
  gptvq_quantize_options_init(&defaults);
  whole.calib_self = defaults.calib_self;
  whole.judge_tokens = defaults.judge_tokens;
  gptvq_quantize_options older = whole;
  char value[32];
  older.size = offsetof(gptvq_quantize_options, beam); /* what follows lies outside of the program's struct */
  memset(&older.beam, 0x5a, sizeof older - older.size);
  gptvq_quantize_options before = older;
  ok(gptvq_quantize("llama", "whole", &whole, NULL, NULL, err));
  ok(gptvq_quantize("llama", "older", &older, NULL, NULL, err));
  assert_same_folder("whole", "older");
  ok(gptvq_quantize_options_resolve(&older, err));
  gptvq_quantize_options_fill(&older, GPTVQ_RECIPE_PAPER);
  assert_int_equal(older.size, before.size);
  assert_int_equal(older.reassign_rounds, 0); /* as in the paper */
  refused(gptvq_quantize_options_set(&older, "beam", "2", &error), "`beam` is newer than the program");
  ok(gptvq_quantize_options_set(&older, "damping", "0.5", err));
  assert_true(older.damping == 0.5);
  ok(gptvq_quantize_options_get(&older, "beam", value, sizeof value, err));
  assert_string_equal(value, "4"); /* its default */
  assert_memory_equal(&older.beam, &before.beam, sizeof older - before.size);
}

/* The first `size` bytes of a result are those of the whole one but for the size itself, the others are what
 * they were. */
static void assert_part(const void *part, const void *whole, size_t size, size_t total) {
  const unsigned char *p = part;
  assert_memory_equal(p + sizeof size, (const unsigned char *)whole + sizeof size, size - sizeof size);
  for (size_t i = size; i < total; i++) assert_int_equal(p[i], 0xa5);
}

static void older_results_are_written_as_far_as_they_go(void **state) {
  (void)state;
  gptvq_model *model;
  gptvq_tokenizer *tokenizer;
  gptvq_mapping text;
  ok(gptvq_model_open("llama", NULL, &model, err));
  ok(gptvq_tokenizer_open("llama", &tokenizer, err));
  ok(gptvq_map_file("corpus.txt", &text, err));
  const char *data = (const char *)text.data;

  OTHER(gptvq_model_info) info;
  gptvq_model_info whole_info = {.size = sizeof whole_info};
  gptvq_model_get_info(model, &whole_info);
  for (size_t i = 0; i < 3; i++) { /* older, the same, newer */
    const size_t sizes[] = {offsetof(gptvq_model_info, bos), sizeof info.known, sizeof info};
    memset(&info, 0xa5, sizeof info);
    info.known.size = sizes[i];
    gptvq_model_get_info(model, &info.known);
    assert_int_equal(info.known.size, sizes[i]);
    assert_part(&info, &whole_info, i == 0 ? sizes[i] : sizeof info.known, sizeof info);
  }

  OTHER(gptvq_layer_info) layer;
  gptvq_layer_info whole_layer = {.size = sizeof whole_layer};
  gptvq_model_get_layer(model, 1, &whole_layer);
  memset(&layer, 0xa5, sizeof layer);
  layer.known.size = offsetof(gptvq_layer_info, error);
  gptvq_model_get_layer(model, 1, &layer.known);
  assert_part(&layer, &whole_layer, layer.known.size, sizeof layer);

  const gptvq_eval_options options = {
      .size = offsetof(gptvq_eval_options, score_from), .ctx = 32, .max_windows = 1, .score_from = SIZE_MAX};
  OTHER(gptvq_compare_result) compared;
  gptvq_compare_result whole = {.size = sizeof whole};
  memset(&compared, 0xa5, sizeof compared);
  compared.known.size = offsetof(gptvq_compare_result, windows); /* what comes later differs by seconds */
  ok(gptvq_compare_text(model, model, tokenizer, data, text.size, &options, NULL, &whole, err));
  ok(gptvq_compare_text(model, model, tokenizer, data, text.size, &options, NULL, &compared.known, err));
  assert_part(&compared, &whole, compared.known.size, sizeof compared);
  assert_int_equal(whole.tokens, 31);

  OTHER(gptvq_eval_result) result;
  memset(&result, 0xa5, sizeof result);
  result.known.size = offsetof(gptvq_eval_result, tokens);
  ok(gptvq_eval_text(model, tokenizer, data, text.size, &options, NULL, &result.known, err));
  const gptvq_eval_result one = {.nll = whole.nll_a, .perplexity = whole.perplexity_a};
  assert_part(&result, &one, result.known.size, sizeof result);
  result.known.size = 0;
  refused(gptvq_eval_text(model, tokenizer, data, text.size, &options, NULL, &result.known, &error),
          "gptvq_eval_result_init");

  gptvq_unmap_file(&text);
  gptvq_tokenizer_close(tokenizer);
  gptvq_model_close(model);
}

static void an_older_sampler_goes_on(void **state) {
  (void)state;
  enum { VOCAB = 50, DRAWS = 40 };
  float logits[VOCAB];
  for (size_t i = 0; i < VOCAB; i++) logits[i] = sinf((float)i);
  gptvq_sampler whole, older;
  gptvq_sampler_init(&whole, 7);
  gptvq_sampler_init(&older, 7);
  older.size = offsetof(gptvq_sampler, min_p);
  older.min_p = older.repetition_penalty = NAN;
  older.history_count = SIZE_MAX;
  for (size_t i = 0; i < DRAWS; i++) {
    int32_t a, b;
    ok(gptvq_sample(&whole, logits, VOCAB, &a, err));
    ok(gptvq_sample(&older, logits, VOCAB, &b, err));
    assert_int_equal(a, b);
    assert_true(whole.state == older.state);
  }
}

static int set_up(void **state) {
  (void)state;
  if (tiny_enter_scratch() != 0) return -1;
  tiny_write(&tiny_llama, "llama");
  tiny_write_corpus("corpus.txt", 4000);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(members_beyond_the_size_are_defaults),
                                     cmocka_unit_test(what_was_not_initialised_is_refused),
                                     cmocka_unit_test(newer_members_are_refused_where_they_are_set),
                                     cmocka_unit_test(older_callbacks_have_no_later_members),
                                     cmocka_unit_test(older_quantize_options_mean_the_same),
                                     cmocka_unit_test(older_results_are_written_as_far_as_they_go),
                                     cmocka_unit_test(an_older_sampler_goes_on)};
  return cmocka_run_group_tests(tests, set_up, tiny_drop_scratch);
}
