/* Evaluations that stay with a packed folder. */
#include "base/file.h"
#include "base/json.h"
#include "checkpoint/record.h"
#include "eval/eval.h"

#include <unistd.h>

gptvq_status gptvq_record_evaluation(const char *packed_dir, const char *evaluation, size_t size,
                                     gptvq_error *err) {
  json_t *record = NULL;
  json_error_t where;
  if (packed_dir == NULL)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "gptvq_record_evaluation needs a packed folder");
  GPTVQ_TRY(gptvq_record_load(packed_dir, &record, err));
  if (evaluation == NULL) {
    json_decref(record);
    return access(packed_dir, W_OK) == 0 ? GPTVQ_OK : gptvq_fail_errno(err, "write to", packed_dir);
  }
  json_t *object = gptvq_json_parse(evaluation, size, JSON_REJECT_DUPLICATES, &where);
  gptvq_status status = GPTVQ_OK;
  if (object == NULL && gptvq_json_no_memory(&where)) status = gptvq_fail_memory(err, "an evaluation", 0);
  else if (!json_is_object(object) || !json_is_string(json_object_get(object, "text")))
    status = gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "an evaluation is a JSON object that names its \"text\"");
  if (status == GPTVQ_OK) status = gptvq_record_add(record, json_incref(object), err);
  if (status == GPTVQ_OK) status = gptvq_record_save(packed_dir, record, err);
  json_decref(object);
  json_decref(record);
  return status;
}
