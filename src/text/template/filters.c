/* Filters of texts and numbers, and the way to all filters. */
#include "text/template/run.h"

#include "text/template/strings.h"
#include "text/utf8.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>

/* What is not a text counts as its str(), as with markupsafe.soft_str. */
static gptvq_value as_text(gptvq_tpl *t, gptvq_value v) { return gptvq_text(gptvq_tpl_str(t, v)); }

/* ---- texts ---- */

static gptvq_value filter_string(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  gptvq_tpl_bind(t, "string", args, NULL, 0, 0, NULL);
  return as_text(t, self);
}

static gptvq_value filter_upper(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  gptvq_tpl_bind(t, "upper", args, NULL, 0, 0, NULL);
  return gptvq_text(gptvq_tpl_change_case(t, gptvq_tpl_str(t, self), GPTVQ_CASE_UPPER));
}
static gptvq_value filter_lower(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  gptvq_tpl_bind(t, "lower", args, NULL, 0, 0, NULL);
  return gptvq_text(gptvq_tpl_change_case(t, gptvq_tpl_str(t, self), GPTVQ_CASE_LOWER));
}
static gptvq_value filter_capitalize(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  gptvq_tpl_bind(t, "capitalize", args, NULL, 0, 0, NULL);
  return gptvq_text(gptvq_tpl_change_case(t, gptvq_tpl_str(t, self), GPTVQ_CASE_CAPITAL));
}

/* jinja2 has words of its own: they begin behind white space and -({[< */
static gptvq_value filter_title(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  gptvq_builder b = {0};
  gptvq_tpl_bind(t, "title", args, NULL, 0, 0, NULL);
  gptvq_string s = gptvq_tpl_str(t, self);
  for (size_t at = 0, size; at < s.size;) {
    size_t end = at, first = gptvq_char_size(s.data[at]);
    while (end < s.size) {
      uint32_t c = gptvq_utf8_get(s.data + end, &size);
      if (gptvq_tpl_is_python_space(c) || (c < 0x80 && c != 0 && strchr("-({[<", (int)c) != NULL)) break;
      end += size;
    }
    if (end == at) {
      gptvq_tpl_build(t, &b, s.data + at, first);
      at += first;
      continue;
    }
    gptvq_string head = gptvq_tpl_change_case(t, gptvq_part(s, at, at + first), GPTVQ_CASE_UPPER),
                 tail = gptvq_tpl_change_case(t, gptvq_part(s, at + first, end), GPTVQ_CASE_LOWER);
    gptvq_tpl_build(t, &b, head.data, head.size);
    gptvq_tpl_build(t, &b, tail.data, tail.size);
    at = end;
  }
  return gptvq_text(gptvq_tpl_built(&b));
}

static gptvq_value filter_trim(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  static const char *const names[] = {"chars"};
  gptvq_value chars = gptvq_none();
  gptvq_tpl_bind(t, "trim", args, names, 0, 1, &chars);
  gptvq_string s = gptvq_tpl_str(t, self), what = chars.kind == GPTVQ_NONE
                                                      ? GPTVQ_STRING("")
                                                      : gptvq_tpl_want_text(t, chars, "what to trim");
  if (chars.kind == GPTVQ_TEXT && what.size == 0) return gptvq_text(s);
  return gptvq_text(gptvq_tpl_strip(t, s, what, true, true));
}

static gptvq_value filter_replace(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  static const char *const names[] = {"old", "new", "count"};
  gptvq_value values[] = {gptvq_none(), gptvq_none(), gptvq_none()};
  gptvq_tpl_bind(t, "replace", args, names, 2, 3, values);
  int64_t most = values[2].kind == GPTVQ_NONE ? -1 : gptvq_tpl_want_int(t, values[2], "count");
  return gptvq_text(gptvq_tpl_replace(t, gptvq_tpl_str(t, self), gptvq_tpl_str(t, values[0]),
                                      gptvq_tpl_str(t, values[1]), most));
}

static gptvq_value filter_indent(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  static const char *const names[] = {"width", "first", "blank"};
  gptvq_value values[] = {gptvq_int(4), gptvq_bool(false), gptvq_bool(false)};
  gptvq_builder b = {0}, with_end = {0}, spaces = {0};
  gptvq_tpl_bind(t, "indent", args, names, 0, 3, values);
  gptvq_string s = gptvq_tpl_want_text(t, self, "what to indent");
  if (values[0].kind == GPTVQ_TEXT) gptvq_tpl_build_str(t, &spaces, values[0]);
  else
    for (int64_t i = gptvq_tpl_want_int(t, values[0], "width"); i > 0; i--)
      gptvq_tpl_build_text(t, &spaces, " ");
  gptvq_tpl_build(t, &with_end, s.data, s.size);
  gptvq_tpl_build_text(t, &with_end, "\n");
  gptvq_value lines = gptvq_tpl_split_lines(t, gptvq_tpl_built(&with_end), false);
  for (size_t i = 0; i < lines.as.list->count; i++) {
    gptvq_string line = lines.as.list->items[i].as.text;
    bool indents = i == 0 ? gptvq_tpl_truth(values[1]) : line.size > 0 || gptvq_tpl_truth(values[2]);
    if (i > 0) gptvq_tpl_build_text(t, &b, "\n");
    if (indents) gptvq_tpl_build(t, &b, spaces.data, spaces.size);
    gptvq_tpl_build(t, &b, line.data, line.size);
  }
  return gptvq_text(gptvq_tpl_built(&b));
}

static gptvq_value filter_escape(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  static const struct {
    char c;
    const char *by;
  } escapes[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'\'', "&#39;"}, {'"', "&#34;"}};
  gptvq_builder b = {0};
  gptvq_tpl_bind(t, "escape", args, NULL, 0, 0, NULL);
  gptvq_string s = gptvq_tpl_str(t, self);
  for (size_t at = 0; at < s.size; at++) {
    const char *by = NULL;
    for (size_t i = 0; i < sizeof escapes / sizeof *escapes; i++)
      if (s.data[at] == escapes[i].c) by = escapes[i].by;
    if (by != NULL) gptvq_tpl_build_text(t, &b, by);
    else gptvq_tpl_build(t, &b, s.data + at, 1);
  }
  return gptvq_text(gptvq_tpl_built(&b));
}

static gptvq_value filter_format(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  gptvq_list values = {.items = args->values, .count = args->positional};
  if (args->count > args->positional)
    gptvq_tpl_fail(t, GPTVQ_ERROR_UNSUPPORTED, "format with named values is not supported");
  return gptvq_text(gptvq_tpl_percent(t, gptvq_tpl_str(t, self), &values));
}

static gptvq_value filter_tojson(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  static const char *const names[] = {"ensure_ascii", "indent", "separators", "sort_keys"};
  gptvq_value values[] = {gptvq_bool(false), gptvq_none(), gptvq_none(), gptvq_bool(false)};
  gptvq_builder b = {0}, indent = {0};
  gptvq_tpl_bind(t, "tojson", args, names, 0, 4, values);
  gptvq_json_style style = {.ascii = gptvq_tpl_truth(values[0]),
                            .sorted = gptvq_tpl_truth(values[3]),
                            .lines = values[1].kind != GPTVQ_NONE,
                            .item_end = GPTVQ_STRING(", "),
                            .key_end = GPTVQ_STRING(": ")};
  if (style.lines) {
    if (values[1].kind == GPTVQ_TEXT) gptvq_tpl_build_str(t, &indent, values[1]);
    else
      for (int64_t i = gptvq_tpl_want_int(t, values[1], "indent"); i > 0; i--)
        gptvq_tpl_build_text(t, &indent, " ");
    style.indent = gptvq_tpl_built(&indent);
    style.item_end = GPTVQ_STRING(",");
  }
  if (values[2].kind != GPTVQ_NONE) {
    gptvq_list pair = gptvq_tpl_iterate(t, values[2]);
    if (pair.count != 2) gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "tojson: separators must be two strings");
    style.item_end = gptvq_tpl_want_text(t, pair.items[0], "a separator");
    style.key_end = gptvq_tpl_want_text(t, pair.items[1], "a separator");
  }
  gptvq_tpl_build_json(t, &b, self, &style);
  return gptvq_text(gptvq_tpl_built(&b));
}

/* ---- numbers ---- */

/* A text as a number the way int() and float() read it; false: it is none. */
static bool parse_number(gptvq_tpl *t, gptvq_string s, gptvq_value *out) {
  char text[64];
  s = gptvq_tpl_strip(t, s, GPTVQ_STRING(""), true, true);
  if (s.size == 0) return false;
  bool real = false;
  size_t size = 0;
  for (size_t i = 0; i < s.size; i++) {
    char c = s.data[i];
    if (c == '_' && i > 0 && i + 1 < s.size && s.data[i + 1] != '_') continue;
    if (strchr("+-.eE", c) == NULL && (c < '0' || c > '9')) return false;
    real = real || c == '.' || c == 'e' || c == 'E';
    if (size < sizeof text) text[size++] = c;
  }
  if (size == sizeof text) gptvq_tpl_fail(t, GPTVQ_ERROR_UNSUPPORTED, "a number of too many digits");
  text[size] = '\0';
  if (memchr(text, '\0', size) != NULL) return false;
  char *end, *point = strchr(text, '.');
  if (point != NULL) *point = *localeconv()->decimal_point; /* what strtod reads */
  if (!real) {
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (errno == ERANGE) gptvq_tpl_fail(t, GPTVQ_ERROR_UNSUPPORTED, "an integer of more than 64 bits");
    *out = gptvq_int(value);
  } else {
    *out = gptvq_float(strtod(text, &end));
  }
  return *end == '\0';
}

static gptvq_value filter_int(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  static const char *const names[] = {"default", "base"};
  gptvq_value values[] = {gptvq_int(0), gptvq_int(10)}, number = self;
  int64_t x;
  gptvq_tpl_bind(t, "int", args, names, 0, 2, values);
  if (gptvq_tpl_want_int(t, values[1], "base") != 10)
    gptvq_tpl_fail(t, GPTVQ_ERROR_UNSUPPORTED, "int with another base than 10 is not supported");
  if (self.kind == GPTVQ_UNDEFINED) gptvq_tpl_fail_undefined(t, self);
  if (self.kind == GPTVQ_TEXT && !parse_number(t, self.as.text, &number)) return values[0];
  if (gptvq_as_int(number, &x)) return gptvq_int(x);
  if (number.kind != GPTVQ_FLOAT || !(fabs(number.as.real) < 9e18)) return values[0];
  return gptvq_int((int64_t)number.as.real);
}

static gptvq_value filter_float(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  static const char *const names[] = {"default"};
  gptvq_value absent = gptvq_float(0), number = self;
  gptvq_tpl_bind(t, "float", args, names, 0, 1, &absent);
  if (self.kind == GPTVQ_UNDEFINED) gptvq_tpl_fail_undefined(t, self);
  if (self.kind == GPTVQ_TEXT && !parse_number(t, self.as.text, &number)) return absent;
  return gptvq_is_number(number) ? gptvq_float(gptvq_tpl_as_double(number)) : absent;
}

static gptvq_value filter_abs(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  int64_t x;
  gptvq_tpl_bind(t, "abs", args, NULL, 0, 0, NULL);
  if (self.kind == GPTVQ_FLOAT) return gptvq_float(fabs(self.as.real));
  x = gptvq_tpl_want_int(t, self, "a number");
  return x < 0 ? gptvq_tpl_binary(t, GPTVQ_STRING("-"), gptvq_int(0), gptvq_int(x)) : gptvq_int(x);
}

static gptvq_value filter_round(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  static const char *const names[] = {"precision", "method"};
  gptvq_value values[] = {gptvq_int(0), gptvq_text(GPTVQ_STRING("common"))};
  gptvq_tpl_bind(t, "round", args, names, 0, 2, values);
  int64_t precision = gptvq_tpl_want_int(t, values[0], "precision");
  gptvq_string method = gptvq_tpl_want_text(t, values[1], "method");
  if (self.kind == GPTVQ_UNDEFINED) gptvq_tpl_fail_undefined(t, self);
  if (!gptvq_is_number(self)) gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "round: a number is required");
  if (precision < 0 || precision > 15)
    gptvq_tpl_fail(t, GPTVQ_ERROR_UNSUPPORTED, "round to %d digits is not supported", (int)precision);
  double scale = pow(10, (double)precision), x = gptvq_tpl_as_double(self);
  if (gptvq_string_is(method, "ceil")) return gptvq_float(ceil(x * scale) / scale);
  if (gptvq_string_is(method, "floor")) return gptvq_float(floor(x * scale) / scale);
  if (!gptvq_string_is(method, "common"))
    gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "method must be common, ceil or floor");
  if (self.kind != GPTVQ_FLOAT || !isfinite(x) || fabs(x) >= 1e15) return self;
  char text[64]; /* Python rounds the decimal digits, exactly */
  (void)snprintf(text, sizeof text, "%.*f", (int)precision, x);
  return gptvq_float(strtod(text, NULL));
}

/* ---- any value ---- */

static gptvq_value filter_default(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  static const char *const names[] = {"default_value", "boolean"};
  gptvq_value values[] = {gptvq_text(GPTVQ_STRING("")), gptvq_bool(false)};
  gptvq_tpl_bind(t, "default", args, names, 0, 2, values);
  bool absent = self.kind == GPTVQ_UNDEFINED || (gptvq_tpl_truth(values[1]) && !gptvq_tpl_truth(self));
  return absent ? values[0] : self;
}

static gptvq_value filter_length(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  gptvq_tpl_bind(t, "length", args, NULL, 0, 0, NULL);
  return gptvq_int((int64_t)gptvq_tpl_length(t, self));
}

const gptvq_named gptvq_tpl_text_filters[] = {{"string", filter_string},
                                              {"safe", filter_string},
                                              {"upper", filter_upper},
                                              {"lower", filter_lower},
                                              {"title", filter_title},
                                              {"capitalize", filter_capitalize},
                                              {"trim", filter_trim},
                                              {"replace", filter_replace},
                                              {"indent", filter_indent},
                                              {"escape", filter_escape},
                                              {"e", filter_escape},
                                              {"forceescape", filter_escape},
                                              {"format", filter_format},
                                              {"tojson", filter_tojson},
                                              {"int", filter_int},
                                              {"float", filter_float},
                                              {"abs", filter_abs},
                                              {"round", filter_round},
                                              {"default", filter_default},
                                              {"d", filter_default},
                                              {"length", filter_length},
                                              {"count", filter_length},
                                              {NULL, NULL}};

gptvq_value gptvq_tpl_filter(gptvq_tpl *t, gptvq_string name, gptvq_value subject, const gptvq_args *args) {
  const gptvq_named *const tables[] = {gptvq_tpl_text_filters, gptvq_tpl_list_filters};
  for (size_t i = 0; i < 2; i++)
    for (const gptvq_named *filter = tables[i]; filter->name != NULL; filter++) {
      if (!gptvq_string_is(name, filter->name)) continue;
      gptvq_tpl_deeper(t); /* map('map', 'map', …) */
      subject = filter->call(t, subject, args);
      t->depth--;
      return subject;
    }
  gptvq_tpl_fail(t, GPTVQ_ERROR_UNSUPPORTED, "the filter '%.*s' is not supported",
                 (int)gptvq_min_size(name.size, 60), name.data);
}
