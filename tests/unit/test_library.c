/* What every public header promises: the version, names of enums, zeroed options, NULL that may be destroyed.
 */
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

static void values_have_names(void **state) {
  (void)state;
  assert_string_equal(gptvq_method_name(GPTVQ_METHOD_GPTVQ), "gptvq");
  assert_string_equal(gptvq_method_name(GPTVQ_METHOD_GPTQ), "gptq");
  assert_string_equal(gptvq_method_name(GPTVQ_METHOD_RTN), "rtn");
  assert_string_equal(gptvq_method_name(GPTVQ_METHOD_KMEANS), "kmeans");
  assert_string_equal(gptvq_method_name((gptvq_method)4), "unknown");
  assert_string_equal(gptvq_compute_name(GPTVQ_COMPUTE_AUTO), "auto");
  assert_string_equal(gptvq_compute_name(GPTVQ_COMPUTE_FP32), "fp32");
  assert_string_equal(gptvq_compute_name(GPTVQ_COMPUTE_BF16), "bf16");
  assert_string_equal(gptvq_compute_name(GPTVQ_COMPUTE_INT8), "int8");
  assert_string_equal(gptvq_compute_name((gptvq_compute)4), "unknown");
  assert_string_equal(gptvq_status_name(GPTVQ_OK), "GPTVQ_OK");
  assert_string_equal(gptvq_status_name(GPTVQ_ERROR_CANCELLED), "GPTVQ_ERROR_CANCELLED");
  assert_string_equal(gptvq_status_name((gptvq_status)99), "GPTVQ_ERROR_UNKNOWN");
}

/* tests/cli/library.sh compares the list with the headers. */
static void null_may_be_destroyed(void **state) {
  (void)state;
  gptvq_model_close(NULL);
  gptvq_session_destroy(NULL);
  gptvq_packed_layer_destroy(NULL);
  gptvq_tokenizer_close(NULL);
  gptvq_chat_close(NULL);
  gptvq_text_stream_destroy(NULL);
  gptvq_free(NULL);
}

static void zero_means_the_defaults(void **state) {
  (void)state;
  assert_int_equal(GPTVQ_COMPUTE_AUTO, 0);
  gptvq_eval_options eval, zero_eval = {0};
  memset(&eval, 0xa5, sizeof eval);
  gptvq_eval_options_init(&eval);
  assert_true(eval.ctx == zero_eval.ctx && eval.max_windows == zero_eval.max_windows &&
              eval.score_from == zero_eval.score_from && eval.bos == zero_eval.bos &&
              eval.name == zero_eval.name);
  const gptvq_model_options zero = {0};
  const gptvq_model_options *options[] = {&zero, NULL};
  for (size_t i = 0; i < 2; i++) {
    gptvq_model *model;
    gptvq_model_info info;
    gptvq_error err;
    assert_int_equal(gptvq_model_open(TEST_SOURCE_DIR "/tests/golden/model/llama", options[i], &model, &err),
                     GPTVQ_OK);
    gptvq_model_get_info(model, &info);
    assert_int_equal(info.compute, GPTVQ_COMPUTE_FP32); /* an original; test_layer.c has a packed one */
    assert_int_not_equal(info.head_bits, 8);
    gptvq_model_close(model);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(headers_and_library_are_of_one_version), cmocka_unit_test(values_have_names),
      cmocka_unit_test(null_may_be_destroyed), cmocka_unit_test(zero_means_the_defaults)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
