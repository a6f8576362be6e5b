/* Arithmetic, comparison and formatting with Python's rules. */
#include "text/template/run.h"

#include "text/template/strings.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

_Noreturn static void fail_operands(gptvq_tpl *t, gptvq_string operation, gptvq_value a, gptvq_value b) {
  if (a.kind == GPTVQ_UNDEFINED) gptvq_tpl_fail_undefined(t, a);
  if (b.kind == GPTVQ_UNDEFINED) gptvq_tpl_fail_undefined(t, b);
  gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "unsupported operand types for %.*s: '%s' and '%s'",
                 (int)operation.size, operation.data, gptvq_tpl_type_name(a), gptvq_tpl_type_name(b));
}

_Noreturn static void fail_zero(gptvq_tpl *t) { gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "division by zero"); }

/* ---- numbers ---- */

static gptvq_value int_power(gptvq_tpl *t, int64_t base, int64_t exponent) {
  int64_t result = 1;
  bool fits = true;
  if (exponent < 0 && base == 0) fail_zero(t);
  if (exponent < 0) return gptvq_float(pow((double)base, (double)exponent));
  if (base == 0 || base == 1) return gptvq_int(exponent == 0 ? 1 : base);
  if (base == -1) return gptvq_int(exponent % 2 == 0 ? 1 : -1);
  for (; exponent > 0 && fits; exponent--) fits = !__builtin_mul_overflow(result, base, &result);
  if (!fits) gptvq_tpl_fail(t, GPTVQ_ERROR_UNSUPPORTED, "an integer of more than 64 bits");
  return gptvq_int(result);
}

static gptvq_value int_binary(gptvq_tpl *t, gptvq_string operation, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  if (gptvq_string_is(operation, "+")) {
    overflow = __builtin_add_overflow(a, b, &result);
  } else if (gptvq_string_is(operation, "-")) {
    overflow = __builtin_sub_overflow(a, b, &result);
  } else if (gptvq_string_is(operation, "*")) {
    overflow = __builtin_mul_overflow(a, b, &result);
  } else if (gptvq_string_is(operation, "**")) {
    return int_power(t, a, b);
  } else {
    if (b == 0) fail_zero(t);
    if (gptvq_string_is(operation, "/")) return gptvq_float((double)a / (double)b);
    if (b == -1) { /* INT64_MIN / -1 does not fit */
      overflow = __builtin_sub_overflow((int64_t)0, a, &result);
      if (gptvq_string_is(operation, "%")) return gptvq_int(0);
    } else {
      int64_t quotient = a / b, rest = a % b;
      bool down = rest != 0 && (rest < 0) != (b < 0); /* Python rounds down */
      result = gptvq_string_is(operation, "//") ? quotient - down : rest + (down ? b : 0);
    }
  }
  if (overflow) gptvq_tpl_fail(t, GPTVQ_ERROR_UNSUPPORTED, "an integer of more than 64 bits");
  return gptvq_int(result);
}

static gptvq_value float_binary(gptvq_tpl *t, gptvq_string operation, double a, double b) {
  if (gptvq_string_is(operation, "+")) return gptvq_float(a + b);
  if (gptvq_string_is(operation, "-")) return gptvq_float(a - b);
  if (gptvq_string_is(operation, "*")) return gptvq_float(a * b);
  if (gptvq_string_is(operation, "**")) return gptvq_float(pow(a, b));
  if (b == 0) fail_zero(t);
  if (gptvq_string_is(operation, "/")) return gptvq_float(a / b);
  double rest = fmod(a, b);
  if (rest != 0 && (rest < 0) != (b < 0)) rest += b;
  return gptvq_float(gptvq_string_is(operation, "%") ? rest : floor((a - rest) / b + 0.5));
}

/* ---- texts and lists ---- */

static gptvq_value add_lists(gptvq_tpl *t, gptvq_kind kind, const gptvq_list *a, const gptvq_list *b) {
  gptvq_value out = gptvq_tpl_sequence(t, kind, a->count + b->count);
  for (size_t i = 0; i < a->count; i++) out.as.list->items[i] = a->items[i];
  for (size_t i = 0; i < b->count; i++) out.as.list->items[a->count + i] = b->items[i];
  return out;
}

static gptvq_value repeat(gptvq_tpl *t, gptvq_value v, int64_t times) {
  size_t count = times > 0 ? (size_t)times : 0;
  if (v.kind == GPTVQ_TEXT) {
    gptvq_builder b = {0};
    for (size_t i = 0; i < count && v.as.text.size > 0; i++)
      gptvq_tpl_build(t, &b, v.as.text.data, v.as.text.size);
    return gptvq_text(gptvq_tpl_built(&b));
  }
  size_t total;
  if (!gptvq_mul(v.as.list->count, count, &total)) total = SIZE_MAX / 2;
  gptvq_value out = gptvq_tpl_sequence(t, v.kind, total);
  for (size_t i = 0; i < total; i++) out.as.list->items[i] = v.as.list->items[i % v.as.list->count];
  return out;
}

static bool repeats(gptvq_value v) {
  return v.kind == GPTVQ_TEXT || v.kind == GPTVQ_LIST || v.kind == GPTVQ_TUPLE;
}

gptvq_value gptvq_tpl_binary(gptvq_tpl *t, gptvq_string operation, gptvq_value a, gptvq_value b) {
  int64_t x = 0, y = 0;
  bool left = gptvq_as_int(a, &x), right = gptvq_as_int(b, &y);
  if (left && right) return int_binary(t, operation, x, y);
  if (gptvq_is_number(a) && gptvq_is_number(b))
    return float_binary(t, operation, gptvq_tpl_as_double(a), gptvq_tpl_as_double(b));
  if (gptvq_string_is(operation, "+") && a.kind == b.kind) {
    if (a.kind == GPTVQ_LIST || a.kind == GPTVQ_TUPLE) return add_lists(t, a.kind, a.as.list, b.as.list);
    if (a.kind == GPTVQ_TEXT) {
      gptvq_builder both = {0};
      gptvq_tpl_build(t, &both, a.as.text.data, a.as.text.size);
      gptvq_tpl_build(t, &both, b.as.text.data, b.as.text.size);
      return gptvq_text(gptvq_tpl_built(&both));
    }
  }
  if (gptvq_string_is(operation, "*") && repeats(a) && right) return repeat(t, a, y);
  if (gptvq_string_is(operation, "*") && repeats(b) && left) return repeat(t, b, x);
  if (gptvq_string_is(operation, "%") && a.kind == GPTVQ_TEXT && b.kind != GPTVQ_UNDEFINED) {
    gptvq_list one = {.items = &b, .count = 1};
    return gptvq_text(gptvq_tpl_percent(t, a.as.text, b.kind == GPTVQ_TUPLE ? b.as.list : &one));
  }
  fail_operands(t, operation, a, b);
}

bool gptvq_tpl_compare(gptvq_tpl *t, const char *operation, gptvq_value a, gptvq_value b) {
  if (strcmp(operation, "==") == 0) return gptvq_tpl_equal(t, a, b);
  if (strcmp(operation, "!=") == 0) return !gptvq_tpl_equal(t, a, b);
  if (strcmp(operation, "in") == 0) return gptvq_tpl_contains(t, b, a);
  if (strcmp(operation, "not in") == 0) return !gptvq_tpl_contains(t, b, a);
  int order = gptvq_tpl_order(t, a, b);
  if (strcmp(operation, "<") == 0) return order < 0;
  if (strcmp(operation, "<=") == 0) return order <= 0;
  return strcmp(operation, ">") == 0 ? order > 0 : order >= 0;
}

/* ---- formats ---- */

static void format_one(gptvq_tpl *t, gptvq_builder *b, char letter, int precision, gptvq_value v) {
  char text[512];
  int64_t x;
  switch (letter) {
  case 's': gptvq_tpl_build_str(t, b, v); return;
  case 'r': gptvq_tpl_build_repr(t, b, v); return;
  case 'd':
  case 'i':
    if (v.kind == GPTVQ_FLOAT && fabs(v.as.real) < 9e18) v = gptvq_int((int64_t)v.as.real);
    if (!gptvq_as_int(v, &x))
      gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "%%d format: a number is required, not %s", gptvq_tpl_type_name(v));
    (void)snprintf(text, sizeof text, "%" PRId64, x);
    break;
  default:
    if (!gptvq_is_number(v))
      gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "must be a number, not %s", gptvq_tpl_type_name(v));
    (void)snprintf(text, sizeof text, "%.*f", precision, gptvq_tpl_as_double(v));
    for (char *c = text; *c != '\0'; c++)
      if (*c == ',') *c = '.'; /* a locale's decimal point */
  }
  gptvq_tpl_build_text(t, b, text);
}

gptvq_string gptvq_tpl_percent(gptvq_tpl *t, gptvq_string format, const gptvq_list *values) {
  gptvq_builder b = {0};
  size_t used = 0;
  for (size_t at = 0; at < format.size;) {
    const char *sign = memchr(format.data + at, '%', format.size - at);
    size_t plain = sign == NULL ? format.size - at : (size_t)(sign - format.data) - at;
    gptvq_tpl_build(t, &b, format.data + at, plain);
    at += plain + 1;
    if (sign == NULL) break;
    int precision = 6;
    if (at + 1 < format.size && format.data[at] == '.' && format.data[at + 1] >= '0' &&
        format.data[at + 1] <= '9') {
      precision = format.data[at + 1] - '0';
      at += 2;
    }
    char letter = at < format.size ? format.data[at++] : '\0';
    if (letter == '%') {
      gptvq_tpl_build_text(t, &b, "%");
      continue;
    }
    if (letter == '\0' || strchr("srdif", letter) == NULL)
      gptvq_tpl_fail(t, GPTVQ_ERROR_UNSUPPORTED, "a format other than %%s, %%r, %%d, %%f is not supported");
    if (used == values->count) gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "not enough arguments for format string");
    format_one(t, &b, letter, precision, values->items[used++]);
  }
  bool mapping = values->count == 1 && used == 0 && /* Python lets what has subscripts pass */
                 (values->items[0].kind == GPTVQ_DICT || values->items[0].kind == GPTVQ_LIST);
  if (used < values->count && !mapping)
    gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "not all arguments converted during string formatting");
  return gptvq_tpl_built(&b);
}

/* The argument that a replacement field names: {} {0} {name}. */
static gptvq_value field(gptvq_tpl *t, gptvq_string name, const gptvq_args *args, size_t *next) {
  size_t index = name.size == 0 ? (*next)++ : 0;
  bool number = true;
  for (size_t i = 0; i < name.size; i++) {
    number = number && name.data[i] >= '0' && name.data[i] <= '9' && index < 1000;
    if (number) index = index * 10 + (size_t)(name.data[i] - '0');
    if (memchr(".[!:", name.data[i], 4) != NULL)
      gptvq_tpl_fail(t, GPTVQ_ERROR_UNSUPPORTED,
                     "str.format with more than names or numbers in {} is not supported");
  }
  for (size_t i = args->positional; !number && i < args->count; i++)
    if (gptvq_same_string(args->names[i], name)) return args->values[i];
  if (!number || index >= args->positional)
    gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "str.format: no argument for {%.*s}",
                   (int)gptvq_min_size(name.size, 60), name.data);
  return args->values[index];
}

gptvq_value gptvq_tpl_text_format(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  gptvq_string format = self.as.text;
  gptvq_builder b = {0};
  size_t next = 0;
  for (size_t at = 0; at < format.size; at++) {
    char c = format.data[at];
    bool twice = at + 1 < format.size && format.data[at + 1] == c;
    if ((c != '{' && c != '}') || twice) {
      gptvq_tpl_build(t, &b, &c, 1);
      at += c == '{' || c == '}';
      continue;
    }
    const char *end = c == '{' ? memchr(format.data + at, '}', format.size - at) : NULL;
    if (end == NULL) gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "str.format: a single '%c'", c);
    size_t close = (size_t)(end - format.data);
    gptvq_tpl_build_str(t, &b, field(t, gptvq_part(format, at + 1, close), args, &next));
    at = close;
  }
  return gptvq_text(gptvq_tpl_built(&b));
}
