/* Calls, and the functions that every template has. */
#include "text/template/run.h"

#include "text/template/strings.h"

#include <time.h>

gptvq_value gptvq_tpl_call(gptvq_tpl *t, gptvq_value callee, const gptvq_args *args) {
  if (callee.kind == GPTVQ_UNDEFINED) gptvq_tpl_fail_undefined(t, callee);
  gptvq_tpl_deeper(t);
  gptvq_value out;
  if (callee.kind == GPTVQ_MACRO) {
    out = gptvq_text(gptvq_tpl_run_macro(t, callee.as.macro, args));
  } else if (callee.kind == GPTVQ_FUNCTION || callee.kind == GPTVQ_METHOD) {
    const gptvq_method *method = callee.as.method;
    if (method->call == NULL)
      gptvq_tpl_fail(t, GPTVQ_ERROR_UNSUPPORTED, "%s() is not supported", method->name);
    out = method->call(t, method->self, args);
  } else {
    gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "'%s' object is not callable", gptvq_tpl_type_name(callee));
  }
  t->depth--;
  return out;
}

/* ---- arguments ---- */

void gptvq_tpl_bind(gptvq_tpl *t, const char *function, const gptvq_args *args, const char *const *names,
                    size_t required, size_t most, gptvq_value *values) {
  uint64_t given = 0;
  if (args->positional > most)
    gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "%s takes at most %zu arguments, got %zu", function, most,
                   args->positional);
  for (size_t i = 0; i < args->count; i++) {
    size_t at = i < args->positional ? i : 0;
    while (i >= args->positional && at < most && !gptvq_string_is(args->names[i], names[at])) at++;
    if (at == most)
      gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "%s has no argument '%.*s'", function,
                     (int)gptvq_min_size(args->names[i].size, 60), args->names[i].data);
    if (given >> at & 1)
      gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "%s got the argument '%s' twice", function, names[at]);
    given |= (uint64_t)1 << at;
    values[at] = args->values[i];
  }
  for (size_t i = 0; i < required; i++)
    if (!(given >> i & 1))
      gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "%s needs the argument '%s'", function, names[i]);
}

int64_t gptvq_tpl_want_int(gptvq_tpl *t, gptvq_value v, const char *what) {
  int64_t x;
  if (v.kind == GPTVQ_UNDEFINED) gptvq_tpl_fail_undefined(t, v);
  if (!gptvq_as_int(v, &x))
    gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "%s must be an integer, not %s", what, gptvq_tpl_type_name(v));
  return x;
}

gptvq_string gptvq_tpl_want_text(gptvq_tpl *t, gptvq_value v, const char *what) {
  if (v.kind == GPTVQ_UNDEFINED) gptvq_tpl_fail_undefined(t, v);
  if (v.kind != GPTVQ_TEXT)
    gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "%s must be a string, not %s", what, gptvq_tpl_type_name(v));
  return v.as.text;
}

/* ---- global functions ---- */

static gptvq_value call_range(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  static const char *const names[] = {"start", "stop", "step"};
  enum { MOST = 100000 }; /* jinja2's */
  gptvq_value values[] = {gptvq_none(), gptvq_none(), gptvq_int(1)};
  (void)self;
  gptvq_tpl_bind(t, "range", args, names, 1, 3, values);
  int64_t first = gptvq_tpl_want_int(t, values[0], "a bound of range"), from = args->count > 1 ? first : 0,
          to = args->count > 1 ? gptvq_tpl_want_int(t, values[1], "a bound of range") : first,
          step = gptvq_tpl_want_int(t, values[2], "the step of range");
  if (step == 0) gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "range() arg 3 must not be zero");
  if (args->count != args->positional)
    gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "range() takes no keyword arguments");
  uint64_t way = step > 0 ? (uint64_t)to - (uint64_t)from : (uint64_t)from - (uint64_t)to,
           stride = step > 0 ? (uint64_t)step : -(uint64_t)step, count = 0;
  if (step > 0 ? to > from : from > to) count = (way - 1) / stride + 1;
  if (count > MOST) gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "a range of more than %d items", MOST);
  gptvq_value out = gptvq_tpl_sequence(t, GPTVQ_RANGE, count);
  for (size_t i = 0; i < count; i++)
    out.as.list->items[i] = gptvq_int((int64_t)((uint64_t)from + (uint64_t)i * (uint64_t)step));
  return out;
}

/* dict(…) and namespace(…): one mapping or pairs, and named values */
static gptvq_value make_dict(gptvq_tpl *t, gptvq_kind kind, const gptvq_args *args) {
  gptvq_value out = gptvq_tpl_dict_new(t, kind);
  if (args->positional > 1)
    gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "dict expected at most 1 argument, got %zu", args->positional);
  if (args->positional == 1 && args->values[0].kind == GPTVQ_UNDEFINED)
    gptvq_tpl_fail_undefined(t, args->values[0]);
  if (args->positional == 1 && args->values[0].kind == GPTVQ_DICT) {
    const gptvq_dict *from = args->values[0].as.dict;
    for (size_t i = 0; i < from->count; i++)
      gptvq_tpl_dict_set(t, out.as.dict, from->keys[i], from->values[i]);
  } else if (args->positional == 1) {
    gptvq_list pairs = gptvq_tpl_iterate(t, args->values[0]);
    for (size_t i = 0; i < pairs.count; i++) {
      gptvq_list pair = gptvq_tpl_iterate(t, pairs.items[i]);
      if (pair.count != 2) gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "dict(): item %zu is no pair", i);
      gptvq_tpl_dict_set(t, out.as.dict, pair.items[0], pair.items[1]);
    }
  }
  for (size_t i = args->positional; i < args->count; i++)
    gptvq_tpl_dict_set(t, out.as.dict, gptvq_text(args->names[i]), args->values[i]);
  return out;
}

static gptvq_value call_dict(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  (void)self;
  return make_dict(t, GPTVQ_DICT, args);
}

static gptvq_value call_namespace(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  (void)self;
  gptvq_value out = make_dict(t, GPTVQ_NAMESPACE, args);
  for (size_t i = 0; i < out.as.dict->count; i++) {
    gptvq_value key = out.as.dict->keys[i];
    if (key.kind == GPTVQ_TEXT && key.as.text.size > 0 && key.as.text.data[0] == '_')
      gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "attributes of a namespace cannot begin with an underscore");
  }
  return out;
}

static gptvq_value call_raise(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  static const char *const names[] = {"message"};
  gptvq_value message = gptvq_none();
  (void)self;
  gptvq_tpl_bind(t, "raise_exception", args, names, 1, 1, &message);
  gptvq_string text = gptvq_tpl_str(t, message);
  t->line = 0; /* it is the conversation that is at fault, not this line */
  gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "the template refuses the conversation: %.*s",
                 (int)gptvq_min_size(text.size, 600), text.data);
}

static gptvq_value call_strftime(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  static const char *const names[] = {"format"};
  gptvq_value format = gptvq_none();
  char pattern[256], text[1024];
  struct tm local;
  time_t now = t->now != 0 ? (time_t)t->now : time(NULL);
  (void)self;
  gptvq_tpl_bind(t, "strftime_now", args, names, 1, 1, &format);
  gptvq_string wanted = gptvq_tpl_want_text(t, format, "the format of strftime_now");
  if (wanted.size == 0) return gptvq_text(GPTVQ_STRING(""));
  if (wanted.size >= sizeof pattern || memchr(wanted.data, '\0', wanted.size) != NULL)
    gptvq_tpl_fail(t, GPTVQ_ERROR_UNSUPPORTED, "this format of strftime_now is not supported");
  memcpy(pattern, wanted.data, wanted.size);
  pattern[wanted.size] = '\0';
  if (localtime_r(&now, &local) == NULL) gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "the time is out of range");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
  size_t size = strftime(text, sizeof text, pattern, &local);
#pragma GCC diagnostic pop
  if (size == 0) gptvq_tpl_fail(t, GPTVQ_ERROR_UNSUPPORTED, "this format of strftime_now is not supported");
  gptvq_builder b = {0};
  gptvq_tpl_build(t, &b, text, size);
  return gptvq_text(gptvq_tpl_built(&b));
}

gptvq_value gptvq_tpl_global(gptvq_tpl *t, gptvq_string name) {
  static const gptvq_method functions[] = {{.name = "range", .call = call_range},
                                           {.name = "dict", .call = call_dict},
                                           {.name = "namespace", .call = call_namespace},
                                           {.name = "raise_exception", .call = call_raise},
                                           {.name = "strftime_now", .call = call_strftime},
                                           {.name = "cycler"},
                                           {.name = "joiner"},
                                           {.name = "lipsum"}};
  for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
    if (gptvq_string_is(name, functions[i].name))
      return (gptvq_value){GPTVQ_FUNCTION, {.method = &functions[i]}};
  return gptvq_tpl_undefined(t, (gptvq_absent){.why = GPTVQ_NO_VARIABLE, .what = name});
}
