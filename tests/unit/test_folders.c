/* config.json as people have it means to us what it means to transformers
 * (tests/golden/eval/make_folders.py). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <gptvq/gptvq.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/file.h"

static const gptvq_model_options in_fp32 = {.size = sizeof in_fp32, .compute = GPTVQ_COMPUTE_FP32};

#define EXAMPLE TEST_SOURCE_DIR "/examples/stories-4m"

static char folder[] = "gptvq-test-XXXXXX", config_path[64], weights_path[64];

static int setup(void **state) {
  (void)state;
  assert_non_null(mkdtemp(folder));
  (void)snprintf(config_path, sizeof config_path, "%s/config.json", folder);
  (void)snprintf(weights_path, sizeof weights_path, "%s/model.safetensors", folder);
  assert_int_equal(symlink(EXAMPLE "/model.safetensors", weights_path), 0);
  return 0;
}

static int teardown(void **state) {
  (void)state;
  return unlink(config_path) | unlink(weights_path) | rmdir(folder);
}

static void configs_mean_what_they_mean_to_transformers(void **state) {
  (void)state;
  const gptvq_eval_options options = {.size = sizeof options, .ctx = 256, .max_windows = 2};
  gptvq_error err;
  gptvq_tokenizer *tokenizer;
  char *text;
  size_t size, i;
  json_t *cases = json_load_file(TEST_SOURCE_DIR "/tests/golden/eval/folders.json", 0, NULL), *one;
  assert_true(json_array_size(cases) > 0);
  assert_int_equal(gptvq_tokenizer_open(EXAMPLE, &tokenizer, &err), GPTVQ_OK);
  assert_int_equal(gptvq_read_file(TEST_SOURCE_DIR "/examples/text/eval.txt", 1 << 20, &text, &size, &err),
                   GPTVQ_OK);
  json_array_foreach(cases, i, one) {
    const char *name = json_string_value(json_object_get(one, "name"));
    double nll = json_number_value(json_object_get(one, "nll"));
    json_t *config = json_load_file(EXAMPLE "/config.json", 0, NULL);
    assert_int_equal(json_object_update(config, json_object_get(one, "changes")), 0);
    assert_int_equal(json_dump_file(config, config_path, 0), 0);
    json_decref(config);
    gptvq_model *model;
    gptvq_eval_result result = {.size = sizeof result};
    if (gptvq_model_open(folder, &in_fp32, &model, &err) != GPTVQ_OK ||
        gptvq_eval_text(model, tokenizer, text, size, &options, NULL, &result, &err) != GPTVQ_OK)
      fail_msg("%s: %s", name, err.message);
    gptvq_model_close(model);
    print_message("%-42s %.7f, transformers %.7f\n", name, result.nll, nll);
    if (!(fabs(result.nll - nll) <= 1e-5 * nll)) fail_msg("%s: nll %.7f, not %.7f", name, result.nll, nll);
  }
  json_decref(cases);
  free(text);
  gptvq_tokenizer_close(tokenizer);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(configs_mean_what_they_mean_to_transformers)};
  return cmocka_run_group_tests(tests, setup, teardown);
}
