#include "server/api/fields.h"

#include "base/json.h"

#include <math.h>

const json_t *gptvq_member(const json_t *object, const char *name) {
  const json_t *value = json_object_get(object, name);
  return value == NULL || json_is_null(value) ? NULL : value;
}

bool gptvq_member_number(const json_t *object, const char *name, double min, double max, double *value,
                         gptvq_api_error *error) {
  const json_t *json = gptvq_member(object, name);
  if (json == NULL) return true;
  double number = json_number_value(json);
  if (!json_is_number(json) || !(number >= min && number <= max))
    return gptvq_api_fail(error, 400, NULL, name, "'%s' must be a number from %g to %g", name, min, max);
  *value = number;
  return true;
}

bool gptvq_member_float(const json_t *object, const char *name, double min, double max, float *value,
                        gptvq_api_error *error) {
  double number = (double)*value;
  if (!gptvq_member_number(object, name, min, max, &number, error)) return false;
  *value = (float)number;
  return true;
}

bool gptvq_member_size(const json_t *object, const char *name, size_t min, size_t max, size_t *value,
                       gptvq_api_error *error) {
  const json_t *json = gptvq_member(object, name);
  if (json == NULL) return true;
  json_int_t number = json_integer_value(json);
  if (!json_is_integer(json) || number < 0 || (uint64_t)number < min || (uint64_t)number > max)
    return gptvq_api_fail(error, 400, NULL, name, "'%s' must be a whole number from %zu to %zu", name, min,
                          max);
  *value = (size_t)number;
  return true;
}

bool gptvq_member_bool(const json_t *object, const char *name, bool *value, gptvq_api_error *error) {
  const json_t *json = gptvq_member(object, name);
  if (json == NULL) return true;
  if (!json_is_boolean(json))
    return gptvq_api_fail(error, 400, NULL, name, "'%s' must be true or false", name);
  *value = json_is_true(json);
  return true;
}

bool gptvq_member_id(const json_t *value, const char *name, size_t vocab, int32_t *id,
                     gptvq_api_error *error) {
  json_int_t number = json_integer_value(value);
  if (!json_is_integer(value))
    return gptvq_api_fail(error, 400, NULL, name, "'%s': a token id must be a whole number", name);
  if (number < 0 || (uint64_t)number >= vocab)
    return gptvq_api_fail(error, 400, NULL, name,
                          "'%s': token id %lld is outside the vocabulary of %zu tokens", name,
                          (long long)number, vocab);
  *id = (int32_t)number;
  return true;
}

bool gptvq_member_parse(const char *body, size_t size, json_t **object, gptvq_api_error *error) {
  json_error_t why;
  *object = NULL;
  if (size == 0) return gptvq_api_fail(error, 400, NULL, NULL, "the body is empty: it must be a JSON object");
  json_t *json = gptvq_json_parse(body, size, JSON_ALLOW_NUL, &why);
  if (json == NULL && gptvq_json_no_memory(&why)) return gptvq_api_no_memory(error);
  if (json == NULL)
    return gptvq_api_fail(error, 400, NULL, NULL, "the body is not valid JSON: %s (line %d, column %d)",
                          why.text, why.line, why.column);
  if (!json_is_object(json)) {
    json_decref(json);
    return gptvq_api_fail(error, 400, NULL, NULL, "the body must be a JSON object");
  }
  *object = json;
  return true;
}
