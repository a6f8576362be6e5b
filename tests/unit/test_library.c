/* What every public header promises: the version, names of enums, zeroed options, NULL that may be destroyed.
 */
#include "linalg/gemm_bf16.h"

#include <gptvq/gptvq.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static void headers_and_library_are_of_one_version(void **state) {
  (void)state;
  char version[64];
  (void)snprintf(version, sizeof version, "%d.%d.%d", GPTVQ_VERSION_MAJOR, GPTVQ_VERSION_MINOR,
                 GPTVQ_VERSION_PATCH);
  assert_string_equal(gptvq_version(), version); /* CMake's */
  assert_int_equal(GPTVQ_VERSION_NUMBER,
                   10000 * GPTVQ_VERSION_MAJOR + 100 * GPTVQ_VERSION_MINOR + GPTVQ_VERSION_PATCH);
}

/* name: gptvq_…_name of a value */
#define CHECK_NAMES(name, type, ...) \
  do { \
    static const char *const names_[] = {__VA_ARGS__, "unknown"}; \
    for (size_t i = 0; i < sizeof names_ / sizeof names_[0]; i++) \
      assert_string_equal(name((type)i), names_[i]); \
    assert_string_equal(name((type)-1), "unknown"); \
  } while (0)

static void values_have_names(void **state) {
  (void)state;
  CHECK_NAMES(gptvq_compute_name, gptvq_compute, "auto", "fp32", "bf16", "int8");
  CHECK_NAMES(gptvq_method_name, gptvq_method, "gptvq", "gptq", "rtn", "kmeans");
  CHECK_NAMES(gptvq_em_init_name, gptvq_em_init, "mahalanobis", "kmeans++", "cdf");
  CHECK_NAMES(gptvq_recipe_name, gptvq_recipe, "default", "paper");
  CHECK_NAMES(gptvq_field_type_name, gptvq_field_type, "switch", "int", "unsigned", "size", "seed", "double",
              "enum", "text", "bytes", "word");
  CHECK_NAMES(gptvq_field_identity_name, gptvq_field_identity, "none", "always", "nonzero", "data");
  CHECK_NAMES(gptvq_text_kind_name, gptvq_text_kind, "plain", "foreign", "wrapped", "repeated");
  CHECK_NAMES(gptvq_log_level_name, gptvq_log_level, "info", "warning");
  assert_string_equal(gptvq_compute_name(GPTVQ_COMPUTE_INT8), "int8");
  assert_string_equal(gptvq_method_name(GPTVQ_METHOD_KMEANS), "kmeans");
  assert_string_equal(gptvq_em_init_name(GPTVQ_INIT_CDF), "cdf");
  assert_string_equal(gptvq_recipe_name(GPTVQ_RECIPE_PAPER), "paper");
  assert_string_equal(gptvq_field_type_name(GPTVQ_FIELD_TEXT), "text");
  assert_string_equal(gptvq_field_identity_name(GPTVQ_IDENTITY_DATA), "data");
  assert_string_equal(gptvq_text_kind_name(GPTVQ_TEXT_REPEATED), "repeated");
  assert_string_equal(gptvq_log_level_name(GPTVQ_LOG_WARNING), "warning");
  assert_string_equal(gptvq_status_name(GPTVQ_OK), "GPTVQ_OK");
  assert_string_equal(gptvq_status_name(GPTVQ_ERROR_CANCELLED), "GPTVQ_ERROR_CANCELLED");
  assert_string_equal(gptvq_status_name((gptvq_status)99), "GPTVQ_ERROR_UNKNOWN");
}

static void names_have_values(void **state) {
  (void)state;
  gptvq_error err;
  for (int i = GPTVQ_COMPUTE_AUTO; i <= GPTVQ_COMPUTE_INT8; i++) {
    gptvq_compute compute = (gptvq_compute)99;
    assert_int_equal(gptvq_compute_from_name(gptvq_compute_name((gptvq_compute)i), &compute, &err), GPTVQ_OK);
    assert_int_equal(compute, i);
    assert_int_equal(gptvq_compute_from_name("fp8", &compute, &err), GPTVQ_ERROR_ARGUMENT);
    assert_int_equal(compute, i);
  }
  for (int i = GPTVQ_RECIPE_DEFAULT; i <= GPTVQ_RECIPE_PAPER; i++) {
    gptvq_recipe recipe = (gptvq_recipe)99;
    assert_int_equal(gptvq_recipe_from_name(gptvq_recipe_name((gptvq_recipe)i), &recipe, &err), GPTVQ_OK);
    assert_int_equal(recipe, i);
    assert_int_equal(gptvq_recipe_from_name("unknown", &recipe, &err), GPTVQ_ERROR_ARGUMENT);
    assert_int_equal(recipe, i);
  }
}

/* tests/cli/library.sh compares the list with the headers. */
static void null_may_be_destroyed(void **state) {
  (void)state;
  gptvq_model_close(NULL);
  gptvq_session_destroy(NULL);
  gptvq_batch_destroy(NULL);
  gptvq_packed_layer_destroy(NULL);
  gptvq_tokenizer_close(NULL);
  gptvq_chat_close(NULL);
  gptvq_text_stream_destroy(NULL);
  gptvq_context_destroy(NULL);
  gptvq_eval_device_close(NULL);
  gptvq_free(NULL);
}

static void zero_means_the_defaults(void **state) {
  (void)state;
  assert_int_equal(GPTVQ_COMPUTE_AUTO, 0);
  gptvq_eval_options eval, zero_eval = {.size = sizeof zero_eval};
  memset(&eval, 0xa5, sizeof eval);
  gptvq_eval_options_init(&eval);
  assert_true(eval.ctx == zero_eval.ctx && eval.max_windows == zero_eval.max_windows &&
              eval.score_from == zero_eval.score_from && eval.bos == zero_eval.bos &&
              eval.name == zero_eval.name && eval.device == zero_eval.device);
  const gptvq_model_options zero = {.size = sizeof zero};
  const gptvq_model_options *options[] = {&zero, NULL};
  for (size_t i = 0; i < 2; i++) {
    gptvq_model *model;
    gptvq_model_info info = {.size = sizeof info};
    gptvq_error err;
    assert_int_equal(gptvq_model_open(TEST_SOURCE_DIR "/tests/golden/model/llama", options[i], &model, &err),
                     GPTVQ_OK);
    gptvq_model_get_info(model, &info);
    /* a bf16 original; test_layer.c has a packed one */
    assert_int_equal(info.compute, gptvq_gemm_bf16_available() ? GPTVQ_COMPUTE_BF16 : GPTVQ_COMPUTE_FP32);
    assert_int_not_equal(info.head_bits, 8);
    gptvq_model_close(model);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(headers_and_library_are_of_one_version),
                                     cmocka_unit_test(values_have_names), cmocka_unit_test(names_have_values),
                                     cmocka_unit_test(null_may_be_destroyed),
                                     cmocka_unit_test(zero_means_the_defaults)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
