#include "text/template/run.h"

#include "text/template/strings.h"

/* A test of one value; `argument`, where it takes one. */
typedef bool (*test)(gptvq_tpl *t, gptvq_value v, gptvq_value argument);

#define KIND_TEST(name, condition) \
  static bool is_##name(gptvq_tpl *t, gptvq_value v, gptvq_value argument) { \
    (void)t; \
    (void)argument; \
    return condition; \
  }
KIND_TEST(defined, v.kind != GPTVQ_UNDEFINED)
KIND_TEST(undefined, v.kind == GPTVQ_UNDEFINED)
KIND_TEST(none, v.kind == GPTVQ_NONE)
KIND_TEST(boolean, v.kind == GPTVQ_BOOL)
KIND_TEST(true, v.kind == GPTVQ_BOOL && v.as.boolean)
KIND_TEST(false, v.kind == GPTVQ_BOOL && !v.as.boolean)
KIND_TEST(integer, v.kind == GPTVQ_INT)
KIND_TEST(float, v.kind == GPTVQ_FLOAT)
KIND_TEST(number, gptvq_is_number(v))
KIND_TEST(string, v.kind == GPTVQ_TEXT)
KIND_TEST(mapping, v.kind == GPTVQ_DICT)
KIND_TEST(callable, v.kind >= GPTVQ_MACRO || v.kind == GPTVQ_LOOP || v.kind == GPTVQ_UNDEFINED)
/* Undefined has a length and subscripts, too */
KIND_TEST(sequence, v.kind == GPTVQ_UNDEFINED || v.kind == GPTVQ_TEXT || v.kind == GPTVQ_DICT ||
                        v.kind == GPTVQ_LIST || v.kind == GPTVQ_TUPLE || v.kind == GPTVQ_RANGE)
KIND_TEST(iterable, v.kind == GPTVQ_UNDEFINED || v.kind == GPTVQ_TEXT || v.kind == GPTVQ_DICT ||
                        v.kind == GPTVQ_LOOP || gptvq_is_sequence(v))
KIND_TEST(lower, gptvq_tpl_has_case(t, gptvq_tpl_str(t, v), GPTVQ_CASE_LOWER))
KIND_TEST(upper, gptvq_tpl_has_case(t, gptvq_tpl_str(t, v), GPTVQ_CASE_UPPER))

#define COMPARING_TEST(name, operation) \
  static bool is_##name(gptvq_tpl *t, gptvq_value v, gptvq_value argument) { \
    return gptvq_tpl_compare(t, operation, v, argument); \
  }
COMPARING_TEST(equal, "==")
COMPARING_TEST(unequal, "!=")
COMPARING_TEST(less, "<")
COMPARING_TEST(at_most, "<=")
COMPARING_TEST(greater, ">")
COMPARING_TEST(at_least, ">=")
COMPARING_TEST(in, "in")

static bool leaves(gptvq_tpl *t, gptvq_value v, gptvq_value by, int64_t rest) {
  return gptvq_tpl_equal(t, gptvq_tpl_binary(t, GPTVQ_STRING("%"), v, by), gptvq_int(rest));
}
static bool is_even(gptvq_tpl *t, gptvq_value v, gptvq_value argument) {
  (void)argument;
  return leaves(t, v, gptvq_int(2), 0);
}
static bool is_odd(gptvq_tpl *t, gptvq_value v, gptvq_value argument) {
  (void)argument;
  return leaves(t, v, gptvq_int(2), 1);
}
static bool is_divisible(gptvq_tpl *t, gptvq_value v, gptvq_value argument) {
  return leaves(t, v, argument, 0);
}

static bool is_same(gptvq_tpl *t, gptvq_value v, gptvq_value argument) {
  if (v.kind != argument.kind) return false;
  if (v.kind <= GPTVQ_TEXT) return gptvq_tpl_equal(t, v, argument);
  return v.as.list == argument.as.list;
}

static const struct {
  const char *name;
  test call;
  size_t arguments;
} tests[] = {{"defined", is_defined, 0},
             {"undefined", is_undefined, 0},
             {"none", is_none, 0},
             {"boolean", is_boolean, 0},
             {"true", is_true, 0},
             {"false", is_false, 0},
             {"integer", is_integer, 0},
             {"float", is_float, 0},
             {"number", is_number, 0},
             {"string", is_string, 0},
             {"mapping", is_mapping, 0},
             {"sequence", is_sequence, 0},
             {"iterable", is_iterable, 0},
             {"callable", is_callable, 0},
             {"lower", is_lower, 0},
             {"upper", is_upper, 0},
             {"even", is_even, 0},
             {"odd", is_odd, 0},
             {"divisibleby", is_divisible, 1},
             {"sameas", is_same, 1},
             {"in", is_in, 1},
             {"equalto", is_equal, 1},
             {"eq", is_equal, 1},
             {"==", is_equal, 1},
             {"ne", is_unequal, 1},
             {"!=", is_unequal, 1},
             {"lt", is_less, 1},
             {"<", is_less, 1},
             {"lessthan", is_less, 1},
             {"le", is_at_most, 1},
             {"<=", is_at_most, 1},
             {"gt", is_greater, 1},
             {">", is_greater, 1},
             {"greaterthan", is_greater, 1},
             {"ge", is_at_least, 1},
             {">=", is_at_least, 1}};

bool gptvq_tpl_test(gptvq_tpl *t, gptvq_string name, gptvq_value subject, const gptvq_args *args) {
  static const char *const names[] = {"other"};
  for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
    if (!gptvq_string_is(name, tests[i].name)) continue;
    gptvq_value argument = gptvq_none();
    gptvq_tpl_bind(t, tests[i].name, args, names, tests[i].arguments, tests[i].arguments, &argument);
    return tests[i].call(t, subject, argument);
  }
  gptvq_tpl_fail(t, GPTVQ_ERROR_UNSUPPORTED, "the test '%.*s' is not supported",
                 (int)gptvq_min_size(name.size, 60), name.data);
}
