/* JSON where every allocation inside jansson fails in turn: what is read and written is whole, or memory is
 * named as the reason. */
#include "base/file.h"
#include "base/json.h"
#include "checkpoint/safetensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static size_t until_failure; /* 0: never */

static void *fragile_malloc(size_t size) {
  if (until_failure > 0 && --until_failure == 0) return NULL;
  return malloc(size);
}

/* Keys and numbers grow, so that the reader's buffer has to grow in the middle of each kind of token. */
static const char text[] =
    "{\"a\": 1, \"rather more than sixteen bytes\": [true, null, 0.1234567890123456789012345678901234567890,"
    " \"escaped \\u00e9\\ud83d\\ude00 and longer than all that came before it in this text\", {\"\": {}}],"
    " \"n\": -12345678901234567, \"the longest key of all, so that a buffer of a hundred and twenty-eight "
    "bytes is "
    "not enough to hold the whole of it\": \"\"}";

static void reading(void **state) {
  (void)state;
  json_error_t where;
  json_t *good = gptvq_json_parse(text, sizeof text - 1, JSON_REJECT_DUPLICATES, &where);
  assert_non_null(good);
  assert_int_equal(json_object_size(good), 4);
  size_t failures = 0;
  for (size_t at = 1;; at++) {
    until_failure = at;
    json_t *json = gptvq_json_parse(text, sizeof text - 1, JSON_REJECT_DUPLICATES, &where);
    bool failed = until_failure == 0;
    until_failure = 0;
    assert_int_equal(json == NULL, failed);
    if (!failed) {
      assert_true(json_equal(json, good));
      json_decref(json);
      break;
    }
    assert_true(gptvq_json_no_memory(&where));
    failures++;
  }
  assert_true(failures > 20);
  json_decref(good);
  /* what is wrong is still said, and nothing is kept of it */
  assert_null(gptvq_json_parse("{\"a\": [1, 2", 11, 0, &where));
  assert_false(gptvq_json_no_memory(&where));
}

static void dumping(void **state) {
  (void)state;
  json_error_t where;
  json_t *json = gptvq_json_parse(text, sizeof text - 1, 0, &where);
  char *good = gptvq_json_dump(json, JSON_COMPACT | JSON_SORT_KEYS);
  assert_non_null(good);
  for (bool failed = true; failed;) {
    static size_t at;
    until_failure = ++at;
    char *dumped = gptvq_json_dump(json, JSON_COMPACT | JSON_SORT_KEYS);
    failed = until_failure == 0;
    until_failure = 0;
    if (dumped != NULL) assert_string_equal(dumped, good);
    else assert_true(failed);
    free(dumped);
  }
  free(good);
  json_decref(json);
}

static gptvq_status write_tensors(const char *path, gptvq_error *err) {
  gptvq_st_writer *writer;
  const size_t dims[2] = {2, 4};
  const uint8_t data[16] = {1, 2, 3};
  GPTVQ_TRY(gptvq_st_writer_create(path, &writer, err));
  gptvq_status status = gptvq_st_writer_metadata(writer, "a key of the metadata", "and its value", err);
  for (size_t i = 0; i < 2 && status == GPTVQ_OK; i++)
    status = gptvq_st_writer_declare(writer, i == 0 ? "model.layers.0.first" : "model.layers.1.second",
                                     GPTVQ_T_U8, 2, dims, err);
  if (status == GPTVQ_OK) status = gptvq_st_writer_write(writer, data, sizeof data, err);
  if (status == GPTVQ_OK) return gptvq_st_writer_commit(writer, err);
  gptvq_st_writer_abort(writer);
  return status;
}

static void safetensors(void **state) {
  (void)state;
  char folder[] = "gptvq-json-XXXXXX", path[64];
  assert_non_null(mkdtemp(folder));
  (void)snprintf(path, sizeof path, "%s/out.safetensors", folder);
  gptvq_error err;
  size_t failures = 0;
  for (size_t at = 1;; at++) {
    until_failure = at;
    gptvq_status status = write_tensors(path, &err);
    bool failed = until_failure == 0;
    until_failure = 0;
    if (status != GPTVQ_OK) {
      assert_true(failed);
      assert_int_equal(status, GPTVQ_ERROR_MEMORY);
      assert_false(gptvq_path_exists(path));
      failures++;
      continue;
    }
    gptvq_st_file file;
    if (gptvq_st_open(path, &file, &err) != GPTVQ_OK) fail_msg("allocation %zu: %s", at, err.message);
    assert_int_equal(file.count, 2);
    assert_string_equal(file.tensors[1].name, "model.layers.1.second");
    assert_int_equal(file.tensors[1].data[0], 0);
    assert_string_equal(json_string_value(json_object_get(file.metadata, "a key of the metadata")),
                        "and its value");
    gptvq_st_close(&file);
    assert_int_equal(remove(path), 0);
    if (!failed) break;
  }
  assert_true(failures > 20);
  assert_int_equal(gptvq_remove_tree(folder, &err), GPTVQ_OK);
}

int main(void) {
  json_set_alloc_funcs(fragile_malloc, free);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(reading),
      cmocka_unit_test(dumping),
      cmocka_unit_test(safetensors),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
