/* Options by their rows: reading, writing, checking, JSON. */
#include "base/sized.h"
#include "quant/options/options.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const void *at(const gptvq_field *field, const gptvq_quantize_options *options) {
  return (const char *)options + field->offset;
}

/* Any member but text and seed. */
static double get_number(const gptvq_field *field, const gptvq_quantize_options *options) {
  const void *member = at(field, options);
  switch (field->type) {
  case GPTVQ_FIELD_SWITCH:
  case GPTVQ_FIELD_INT:
  case GPTVQ_FIELD_ENUM: return *(const int *)member;
  case GPTVQ_FIELD_UNSIGNED: return *(const unsigned *)member;
  case GPTVQ_FIELD_BYTES:
  case GPTVQ_FIELD_SIZE: return (double)*(const size_t *)member;
  case GPTVQ_FIELD_DOUBLE: return *(const double *)member;
  case GPTVQ_FIELD_SEED:
  case GPTVQ_FIELD_WORD:
  case GPTVQ_FIELD_TEXT: break;
  }
  return 0.0;
}

static void put_number(const gptvq_field *field, double value, gptvq_quantize_options *options) {
  void *member = (char *)options + field->offset;
  switch (field->type) {
  case GPTVQ_FIELD_SWITCH:
  case GPTVQ_FIELD_INT:
  case GPTVQ_FIELD_ENUM: *(int *)member = (int)value; break;
  case GPTVQ_FIELD_UNSIGNED: *(unsigned *)member = (unsigned)value; break;
  case GPTVQ_FIELD_BYTES:
  case GPTVQ_FIELD_SIZE: *(size_t *)member = (size_t)value; break;
  case GPTVQ_FIELD_DOUBLE: *(double *)member = value; break;
  case GPTVQ_FIELD_SEED:
  case GPTVQ_FIELD_WORD:
  case GPTVQ_FIELD_TEXT: break;
  }
}

static bool is_text(const gptvq_field *field) {
  return field->type == GPTVQ_FIELD_TEXT || field->type == GPTVQ_FIELD_WORD;
}

static size_t choice_count(const gptvq_field *field) {
  size_t n = 0;
  while (field->choices[n] != NULL) n++;
  return n;
}

static bool is_whole(const gptvq_field *field) { return field->type != GPTVQ_FIELD_DOUBLE; }

/* "gptvq, gptq, rtn or kmeans" */
static void list_choices(const gptvq_field *field, char *text, size_t size) {
  size_t n = choice_count(field), used = 0;
  text[0] = '\0';
  for (size_t i = 0; i < n && used < size; i++)
    used += (size_t)snprintf(text + used, size - used, "%s%s",
                             i == 0      ? ""
                             : i + 1 < n ? ", "
                                         : " or ",
                             field->choices[i]);
}

static gptvq_status check_number(const gptvq_field *field, double value, gptvq_error *err) {
  char list[256];
  if (field->choices != NULL) {
    if (value >= 0 && value < (double)choice_count(field)) return GPTVQ_OK;
    list_choices(field, list, sizeof list);
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "`%s` %.10g is unknown: choose %s", field->name, value,
                      list);
  }
  if (field->type == GPTVQ_FIELD_SWITCH) return GPTVQ_OK;
  if ((value == 0.0 && field->derived != NULL) || (value >= field->min && value <= field->max))
    return GPTVQ_OK;
  return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "`%s` %.10g is not possible: choose %.10g to %.10g%s",
                    field->name, value, field->min, field->max,
                    field->derived != NULL ? ", or 0 for the default" : "");
}

void gptvq_quantize_options_fill(gptvq_quantize_options *options, gptvq_recipe recipe) {
  size_t count;
  const gptvq_field *fields = gptvq_fields(&count);
  gptvq_quantize_options own;
  GPTVQ_INIT(&own);
  for (size_t i = 0; i < count; i++)
    put_number(&fields[i], recipe == GPTVQ_RECIPE_PAPER ? fields[i].paper : fields[i].initial, &own);
  gptvq_give_struct(&own, sizeof own, options);
}

gptvq_status gptvq_options_take(const gptvq_quantize_options *given, gptvq_quantize_options *own,
                                gptvq_error *err) {
  gptvq_quantize_options_init(own);
  return GPTVQ_TAKE(gptvq_quantize_options, given, own, err);
}

gptvq_status gptvq_fields_check(const gptvq_quantize_options *options, gptvq_error *err) {
  size_t count;
  const gptvq_field *fields = gptvq_fields(&count);
  for (size_t i = 0; i < count; i++)
    if (fields[i].type != GPTVQ_FIELD_SEED && !is_text(&fields[i]))
      GPTVQ_TRY(check_number(&fields[i], get_number(&fields[i], options), err));
  gptvq_device_choice device;
  return gptvq_device_parse(options->device, &device, err);
}

/* ---- names ---- */

const gptvq_field *gptvq_field_find(const char *name) {
  size_t count;
  const gptvq_field *fields = gptvq_fields(&count);
  for (size_t i = 0; i < count; i++)
    if (strcmp(fields[i].name, name) == 0) return &fields[i];
  return NULL;
}

static const char *choice_name(const char *member, int value) {
  const gptvq_field *field = gptvq_field_find(member);
  return value >= 0 && (size_t)value < choice_count(field) ? field->choices[value] : "unknown";
}

const char *gptvq_method_name(gptvq_method method) { return choice_name("method", (int)method); }
const char *gptvq_code_name(gptvq_code code) { return choice_name("code", (int)code); }
const char *gptvq_em_init_name(gptvq_em_init init) { return choice_name("em_init", (int)init); }

const char *gptvq_recipe_name(gptvq_recipe recipe) {
  switch (recipe) {
  case GPTVQ_RECIPE_DEFAULT: return "default";
  case GPTVQ_RECIPE_PAPER: return "paper";
  }
  return "unknown";
}

gptvq_status gptvq_recipe_from_name(const char *name, gptvq_recipe *recipe, gptvq_error *err) {
  for (int i = GPTVQ_RECIPE_DEFAULT; i <= GPTVQ_RECIPE_PAPER; i++)
    if (strcmp(gptvq_recipe_name((gptvq_recipe)i), name) == 0) {
      *recipe = (gptvq_recipe)i;
      return GPTVQ_OK;
    }
  return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "recipe %s is unknown: choose default or paper", name);
}

const char *gptvq_field_type_name(gptvq_field_type type) {
  static const char *const names[] = {"switch", "int",  "unsigned", "size",  "seed",
                                      "double", "enum", "text",     "bytes", "word"};
  return (unsigned)type < sizeof names / sizeof names[0] ? names[type] : "unknown";
}

const char *gptvq_field_identity_name(gptvq_field_identity identity) {
  static const char *const names[] = {"none", "always", "nonzero", "data"};
  return (unsigned)identity < sizeof names / sizeof names[0] ? names[identity] : "unknown";
}

/* ---- by name ---- */

static gptvq_status no_such_field(const char *name, gptvq_error *err) {
  return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "there is no option %s", name);
}

gptvq_status gptvq_bytes_from_text(const char *text, size_t *bytes, gptvq_error *err) {
  static const char units[] = "KMGT";
  char *end;
  double value = strtod(text, &end);
  const char *unit = *end != '\0' ? strchr(units, *end) : NULL;
  if (unit != NULL) value *= exp2(10.0 * (double)(unit - units + 1));
  if (end == text || text[0] == ' ' || (*end != '\0' && (unit == NULL || end[1] != '\0')) ||
      !(value >= 0.0 && value < 9e18))
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "'%s' is not a number of bytes: give one like 20G (K, M, G, T are powers of 1024)",
                      text);
  *bytes = (size_t)value;
  return GPTVQ_OK;
}

static gptvq_status set(const gptvq_field *field, gptvq_quantize_options *options, const char *value,
                        gptvq_error *err) {
  const char *name = field->name;
  void *member = (char *)options + field->offset;
  if (is_text(field)) {
    *(const char **)member = value;
    return GPTVQ_OK;
  }
  for (size_t i = 0; field->choices != NULL && field->choices[i] != NULL; i++)
    if (strcmp(field->choices[i], value) == 0) {
      put_number(field, (double)i, options);
      return GPTVQ_OK;
    }
  char *end;
  errno = 0;
  if (field->type == GPTVQ_FIELD_SEED) {
    uint64_t seed = strtoull(value, &end, 10);
    if (value[0] < '0' || value[0] > '9' || *end != '\0' || errno != 0)
      return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "`%s` '%s' is not a whole number from 0 to %" PRIu64, name,
                        value, UINT64_MAX);
    *(uint64_t *)member = seed;
    return GPTVQ_OK;
  }
  if (field->type == GPTVQ_FIELD_BYTES) {
    size_t bytes;
    if (gptvq_bytes_from_text(value, &bytes, err) != GPTVQ_OK)
      return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "`%s` '%s' is not a number of bytes, such as 20G", name,
                        value);
    GPTVQ_TRY(check_number(field, (double)bytes, err));
    *(size_t *)member = bytes;
    return GPTVQ_OK;
  }
  double number = strtod(value, &end);
  if (end == value || *end != '\0' || !isfinite(number) || (is_whole(field) && number != rint(number)))
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "`%s` '%s' is not a %snumber", name, value,
                      is_whole(field) ? "whole " : "");
  GPTVQ_TRY(check_number(field, number, err));
  put_number(field, field->type == GPTVQ_FIELD_SWITCH && field->choices == NULL ? number != 0 : number,
             options);
  return GPTVQ_OK;
}

gptvq_status gptvq_quantize_options_set(gptvq_quantize_options *options, const char *name, const char *value,
                                        gptvq_error *err) {
  const gptvq_field *field = gptvq_field_find(name);
  if (field == NULL) return no_such_field(name, err);
  gptvq_quantize_options own;
  GPTVQ_TRY(gptvq_options_take(options, &own, err));
  if (field->offset >= options->size)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "`%s` is newer than the program: it was compiled for an older version of gptvq", name);
  GPTVQ_TRY(set(field, &own, value, err));
  gptvq_give_struct(&own, sizeof own, options);
  return GPTVQ_OK;
}

gptvq_status gptvq_quantize_options_get(const gptvq_quantize_options *options, const char *name, char *value,
                                        size_t size, gptvq_error *err) {
  const gptvq_field *field = gptvq_field_find(name);
  if (field == NULL) return no_such_field(name, err);
  gptvq_quantize_options own;
  GPTVQ_TRY(gptvq_options_take(options, &own, err));
  double number = get_number(field, &own);
  int length;
  if (is_text(field)) {
    const char *text = *(const char *const *)at(field, &own);
    length = snprintf(value, size, "%s", text != NULL ? text : "");
  } else if (field->type == GPTVQ_FIELD_SEED) {
    length = snprintf(value, size, "%" PRIu64, *(const uint64_t *)at(field, &own));
  } else if (field->choices != NULL && number >= 0 && number < (double)choice_count(field)) {
    length = snprintf(value, size, "%s", field->choices[(size_t)number]);
  } else {
    length = snprintf(value, size, "%.17g", number);
  }
  if (length >= 0 && (size_t)length < size) return GPTVQ_OK;
  return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "the value of %s does not fit into %zu bytes", name, size);
}

/* ---- devices ---- */

gptvq_status gptvq_device_parse(const char *text, gptvq_device_choice *out, gptvq_error *err) {
  static const char *const names[] = {"cpu", "cuda", "auto", "shim"};
  static const gptvq_device_kind kinds[] = {GPTVQ_ON_CPU, GPTVQ_ON_CUDA, GPTVQ_ON_ANY, GPTVQ_ON_SHIM};
  *out = (gptvq_device_choice){GPTVQ_ON_CPU, 0, false};
  for (size_t i = 0; text != NULL && i < sizeof kinds / sizeof kinds[0]; i++)
    if (strcmp(text, names[i]) == 0) {
      out->kind = kinds[i];
      return GPTVQ_OK;
    }
  if (text == NULL || text[0] == '\0') return GPTVQ_OK;
  if (strncmp(text, "cuda:", 5) == 0 && text[5] >= '0' && text[5] <= '9') {
    char *end;
    errno = 0;
    const unsigned long number = strtoul(text + 5, &end, 10);
    if (*end == '\0' && errno == 0 && number < GPTVQ_MAX_CARDS) {
      *out = (gptvq_device_choice){GPTVQ_ON_CUDA, (unsigned)number, true};
      return GPTVQ_OK;
    }
  }
  return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                    "`device` '%.64s' is unknown: choose cpu, cuda, cuda:N, auto or shim", text);
}

/* ---- JSON ---- */

static json_t *field_json(const gptvq_field *field, const gptvq_quantize_options *options) {
  double number = get_number(field, options);
  switch (field->type) {
  case GPTVQ_FIELD_ENUM:
    return json_string(number >= 0 && number < (double)choice_count(field) ? field->choices[(size_t)number]
                                                                           : "unknown");
  case GPTVQ_FIELD_SWITCH: return json_boolean(number != 0);
  case GPTVQ_FIELD_DOUBLE: return json_real(number);
  case GPTVQ_FIELD_SEED: return json_integer((json_int_t) * (const uint64_t *)at(field, options));
  case GPTVQ_FIELD_WORD:
  case GPTVQ_FIELD_TEXT: {
    const char *text = *(const char *const *)at(field, options);
    return text != NULL ? json_string(text) : json_null();
  }
  case GPTVQ_FIELD_INT:
  case GPTVQ_FIELD_UNSIGNED:
  case GPTVQ_FIELD_BYTES:
  case GPTVQ_FIELD_SIZE: break;
  }
  return json_integer((json_int_t)number);
}

static json_t *collect(const gptvq_quantize_options *options, bool data) {
  size_t count;
  const gptvq_field *fields = gptvq_fields(&count);
  json_t *object = json_object();
  for (size_t i = 0; object != NULL && i < count; i++) {
    const gptvq_field *field = &fields[i];
    bool wanted =
        field->identity == (data ? GPTVQ_IDENTITY_DATA : GPTVQ_IDENTITY_ALWAYS) ||
        (!data && field->identity == GPTVQ_IDENTITY_NONZERO && get_number(field, options) != field->absent);
    if (wanted && json_object_set_new(object, field->name, field_json(field, options)) != 0) {
      json_decref(object);
      object = NULL;
    }
  }
  return object;
}

json_t *gptvq_options_json(const gptvq_resolved *options) { return collect(&options->options, false); }
json_t *gptvq_options_data_json(const gptvq_resolved *options) { return collect(&options->options, true); }
