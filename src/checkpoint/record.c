#include "checkpoint/record.h"
#include "base/file.h"
#include "base/json.h"
#include "checkpoint/output.h"
#include "checkpoint/output_files.h"
#include "checkpoint/safetensors.h"

#include <stdlib.h>
#include <string.h>

json_t *gptvq_record_new(void) {
  return json_pack("{s:i, s:s, s:[]}", "format", GPTVQ_RECORD_FORMAT, "gptvq_version", gptvq_version(),
                   "evaluations");
}

static gptvq_status check(const char *path, const json_t *record, gptvq_error *err) {
  const json_t *format = json_object_get(record, "format"), *list = json_object_get(record, "evaluations");
  bool fine = json_is_integer(format) && json_is_array(list);
  for (size_t i = 0; fine && i < json_array_size(list); i++) fine = json_is_object(json_array_get(list, i));
  if (!fine)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                      "%s is damaged or not gptvq's: remove it, the model runs without", path);
  if (json_integer_value(format) != GPTVQ_RECORD_FORMAT)
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "%s has format %" JSON_INTEGER_FORMAT ", not %d; update gptvq", path,
                      json_integer_value(format), GPTVQ_RECORD_FORMAT);
  return GPTVQ_OK;
}

gptvq_status gptvq_record_load(const char *folder, json_t **record, gptvq_error *err) {
  char *path = gptvq_join_path(folder, GPTVQ_RECORD_NAME);
  *record = NULL;
  if (path == NULL) return gptvq_fail_memory(err, folder, strlen(folder));
  gptvq_status status = GPTVQ_OK;
  if (gptvq_path_exists(path)) {
    status = gptvq_load_json(path, 64 << 20, record, err);
    if (status == GPTVQ_OK) status = check(path, *record, err);
  } else {
    *record = gptvq_record_new();
    if (*record == NULL) status = gptvq_fail_memory(err, path, 64);
  }
  free(path);
  if (status == GPTVQ_OK) return GPTVQ_OK;
  json_decref(*record);
  *record = NULL;
  return status;
}

gptvq_status gptvq_record_save(const char *folder, const json_t *record, gptvq_error *err) {
  char *path = gptvq_join_path(folder, GPTVQ_RECORD_NAME);
  if (path == NULL) return gptvq_fail_memory(err, folder, strlen(folder));
  gptvq_status status = gptvq_write_json(path, record, err);
  free(path);
  return status;
}

/* Of the same text and windows, and both with a KL divergence or both without? */
static bool same(const json_t *a, const json_t *b) {
  static const char *const keys[] = {"text", "ctx", "score_from", "max_windows"};
  if ((json_object_get(a, "kl_mean") == NULL) != (json_object_get(b, "kl_mean") == NULL)) return false;
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    json_t *x = json_object_get(a, keys[i]), *y = json_object_get(b, keys[i]);
    if (x != y && (x == NULL || y == NULL || !json_equal(x, y))) return false;
  }
  return true;
}

gptvq_status gptvq_record_add(json_t *record, json_t *evaluation, gptvq_error *err) {
  json_t *list = json_object_get(record, "evaluations");
  if (evaluation == NULL) return gptvq_fail_memory(err, "an evaluation", 256);
  for (size_t i = json_array_size(list); i-- > 0;)
    if (same(json_array_get(list, i), evaluation)) (void)json_array_remove(list, i);
  return json_array_append_new(list, evaluation) == 0 ? GPTVQ_OK
                                                      : gptvq_fail_memory(err, "an evaluation", 256);
}
