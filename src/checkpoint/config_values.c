#include "checkpoint/config_values.h"

#include <math.h>
#include <string.h>

const json_t *gptvq_config_value(const gptvq_config_source *source, const char *key) {
  const json_t *value = json_object_get(source->object, key);
  return json_is_null(value) ? NULL : value;
}

gptvq_status gptvq_config_size(const gptvq_config_source *source, const char *key, size_t low, size_t high,
                               size_t *out, gptvq_error *err) {
  const json_t *value = gptvq_config_value(source, key);
  if (value == NULL) return GPTVQ_OK;
  if (!json_is_integer(value))
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s/%s: %s%s is not a whole number", source->folder,
                      source->file, source->prefix, key);
  json_int_t number = json_integer_value(value);
  if (number < 0 || (size_t)number < low || (size_t)number > high)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                      "%s/%s: %s%s is %" JSON_INTEGER_FORMAT ", not between %zu and %zu", source->folder,
                      source->file, source->prefix, key, number, low, high);
  *out = (size_t)number;
  return GPTVQ_OK;
}

gptvq_status gptvq_config_number(const gptvq_config_source *source, const char *key, double low, double high,
                                 double *out, gptvq_error *err) {
  const json_t *value = gptvq_config_value(source, key);
  if (value == NULL) return GPTVQ_OK;
  if (!json_is_number(value))
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s/%s: %s%s is not a number", source->folder, source->file,
                      source->prefix, key);
  double number = json_number_value(value);
  if (!isfinite(number) || number < low || number > high)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s/%s: %s%s is %g, not between %g and %g", source->folder,
                      source->file, source->prefix, key, number, low, high);
  *out = number;
  return GPTVQ_OK;
}

gptvq_status gptvq_config_bool(const gptvq_config_source *source, const char *key, bool *out,
                               gptvq_error *err) {
  const json_t *value = gptvq_config_value(source, key);
  if (value == NULL) return GPTVQ_OK;
  if (!json_is_boolean(value))
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s/%s: %s%s is neither true nor false", source->folder,
                      source->file, source->prefix, key);
  *out = json_is_true(value);
  return GPTVQ_OK;
}

gptvq_status gptvq_config_text(const gptvq_config_source *source, const char *key, char *out, size_t size,
                               gptvq_error *err) {
  const json_t *value = gptvq_config_value(source, key);
  if (value == NULL) return GPTVQ_OK;
  if (!json_is_string(value) || json_string_length(value) >= size)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s/%s: %s%s is not text of at most %zu bytes", source->folder,
                      source->file, source->prefix, key, size - 1);
  memcpy(out, json_string_value(value), json_string_length(value) + 1);
  return GPTVQ_OK;
}

gptvq_status gptvq_config_need(const gptvq_config_source *source, const char *key, gptvq_error *err) {
  if (gptvq_config_value(source, key) != NULL) return GPTVQ_OK;
  return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s/%s: %s%s is missing", source->folder, source->file,
                    source->prefix, key);
}
