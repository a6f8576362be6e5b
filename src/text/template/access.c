/* Attributes, subscripts and slices, as jinja2's immutable sandbox allows them. */
#include "text/template/run.h"

#include "text/template/strings.h"

/* ---- methods of containers ---- */

static gptvq_value dict_get(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  static const char *const names[] = {"key", "default"};
  gptvq_value values[] = {gptvq_none(), gptvq_none()};
  gptvq_tpl_bind(t, "dict.get", args, names, 1, 2, values);
  const gptvq_value *found = gptvq_tpl_dict_find(t, self.as.dict, values[0]);
  return found != NULL ? *found : values[1];
}

static gptvq_value dict_view(gptvq_tpl *t, gptvq_value self, const gptvq_args *args, bool keys, bool items) {
  const gptvq_dict *dict = self.as.dict;
  gptvq_tpl_bind(t, "dict.items", args, NULL, 0, 0, NULL);
  gptvq_value out = gptvq_tpl_sequence(t, GPTVQ_VIEW, dict->count);
  for (size_t i = 0; i < dict->count; i++) {
    gptvq_value both = keys ? dict->keys[i] : dict->values[i];
    if (items) {
      both = gptvq_tpl_sequence(t, GPTVQ_TUPLE, 2);
      both.as.list->items[0] = dict->keys[i];
      both.as.list->items[1] = dict->values[i];
    }
    out.as.list->items[i] = both;
  }
  return out;
}
static gptvq_value dict_items(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  return dict_view(t, self, args, false, true);
}
static gptvq_value dict_keys(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  return dict_view(t, self, args, true, false);
}
static gptvq_value dict_values(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  return dict_view(t, self, args, false, false);
}

static gptvq_value same(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  gptvq_tpl_bind(t, "copy", args, NULL, 0, 0, NULL);
  return self; /* nothing can change either of them */
}

static gptvq_value list_count(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  static const char *const names[] = {"value"};
  gptvq_value value = gptvq_none();
  int64_t count = 0;
  gptvq_tpl_bind(t, "count", args, names, 1, 1, &value);
  for (size_t i = 0; i < self.as.list->count; i++) count += gptvq_tpl_equal(t, self.as.list->items[i], value);
  return gptvq_int(count);
}

static gptvq_value list_index(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  static const char *const names[] = {"value"};
  gptvq_value value = gptvq_none();
  gptvq_tpl_bind(t, "index", args, names, 1, 1, &value);
  for (size_t i = 0; i < self.as.list->count; i++)
    if (gptvq_tpl_equal(t, self.as.list->items[i], value)) return gptvq_int((int64_t)i);
  gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "a value is not in the list");
}

static gptvq_value loop_cycle(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  if (args->positional == 0) gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "no items for cycling given");
  return args->values[self.as.loop->index % args->positional];
}

static gptvq_value loop_changed(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  gptvq_loop *loop = self.as.loop;
  gptvq_value now = gptvq_tpl_sequence(t, GPTVQ_TUPLE, args->positional);
  for (size_t i = 0; i < args->positional; i++) now.as.list->items[i] = args->values[i];
  if (loop->has_changed && gptvq_tpl_equal(t, loop->changed, now)) return gptvq_bool(false);
  loop->changed = now;
  loop->has_changed = true;
  return gptvq_bool(true);
}

static const gptvq_method dict_methods[] = {{.name = "get", .call = dict_get},
                                            {.name = "items", .call = dict_items},
                                            {.name = "keys", .call = dict_keys},
                                            {.name = "values", .call = dict_values},
                                            {.name = "copy", .call = same},
                                            {.name = "fromkeys"},
                                            {.name = NULL}},
                          list_methods[] = {{.name = "count", .call = list_count},
                                            {.name = "index", .call = list_index},
                                            {.name = "copy", .call = same},
                                            {.name = NULL}},
                          loop_methods[] = {{.name = "cycle", .call = loop_cycle},
                                            {.name = "changed", .call = loop_changed},
                                            {.name = NULL}};

static const gptvq_method *method_of(gptvq_value of, gptvq_string name) {
  const gptvq_method *methods = NULL;
  if (of.kind == GPTVQ_TEXT) return gptvq_tpl_text_method(name);
  if (of.kind == GPTVQ_DICT) methods = dict_methods;
  if (of.kind == GPTVQ_LIST || of.kind == GPTVQ_TUPLE || of.kind == GPTVQ_RANGE) methods = list_methods;
  if (of.kind == GPTVQ_TUPLE && gptvq_string_is(name, "copy")) return NULL;
  if (of.kind == GPTVQ_LOOP) methods = loop_methods;
  for (; methods != NULL && methods->name != NULL; methods++)
    if (gptvq_string_is(name, methods->name)) return methods;
  return NULL;
}

/* Attributes that Python's object has and the sandbox hides. */
static bool is_hidden(gptvq_value of, gptvq_string name) {
  static const char *const of_lists[] = {"append", "clear",  "pop",    "reverse", "insert",
                                         "sort",   "extend", "remove", NULL};
  static const char *const of_dicts[] = {"clear", "pop", "popitem", "setdefault", "update", NULL};
  static const char *const none[] = {NULL};
  const char *const *names = of.kind == GPTVQ_LIST ? of_lists : of.kind == GPTVQ_DICT ? of_dicts : none;
  for (; *names != NULL; names++)
    if (gptvq_string_is(name, *names)) return true;
  return name.size > 4 && memcmp(name.data, "__", 2) == 0 && memcmp(name.data + name.size - 2, "__", 2) == 0;
}

/* ---- attributes ---- */

static gptvq_value loop_attribute(gptvq_tpl *t, const gptvq_loop *loop, gptvq_string name, bool *found) {
  int64_t index = (int64_t)loop->index, count = (int64_t)loop->items.count;
  *found = true;
  if (gptvq_string_is(name, "index")) return gptvq_int(index + 1);
  if (gptvq_string_is(name, "index0")) return gptvq_int(index);
  if (gptvq_string_is(name, "revindex")) return gptvq_int(count - index);
  if (gptvq_string_is(name, "revindex0")) return gptvq_int(count - index - 1);
  if (gptvq_string_is(name, "first")) return gptvq_bool(index == 0);
  if (gptvq_string_is(name, "last")) return gptvq_bool(index + 1 == count);
  if (gptvq_string_is(name, "length")) return gptvq_int(count);
  if (gptvq_string_is(name, "depth")) return gptvq_int(1);
  if (gptvq_string_is(name, "depth0")) return gptvq_int(0);
  bool previous = gptvq_string_is(name, "previtem");
  if (previous || gptvq_string_is(name, "nextitem")) {
    if (previous ? index > 0 : index + 1 < count) return loop->items.items[previous ? index - 1 : index + 1];
    return gptvq_tpl_undefined(t, (gptvq_absent){.why = GPTVQ_NO_REASON,
                                                 .what = previous ? GPTVQ_STRING("there is no previous item")
                                                                  : GPTVQ_STRING("there is no next item")});
  }
  *found = false;
  return gptvq_none();
}

/* What Python's getattr finds; false: nothing. */
static bool own_attribute(gptvq_tpl *t, gptvq_value of, gptvq_string name, gptvq_value *out) {
  bool found = false;
  if (of.kind == GPTVQ_UNDEFINED) gptvq_tpl_fail_undefined(t, of);
  if (of.kind == GPTVQ_NAMESPACE) {
    const gptvq_value *value = gptvq_tpl_dict_find_text(t, of.as.dict, name);
    if (value != NULL) *out = *value;
    return value != NULL;
  }
  if (of.kind == GPTVQ_LOOP) *out = loop_attribute(t, of.as.loop, name, &found);
  if (of.kind == GPTVQ_MACRO && gptvq_string_is(name, "name")) {
    *out = gptvq_text(of.as.macro->node->name);
    found = true;
  }
  const gptvq_method *method = found ? NULL : method_of(of, name);
  if (method != NULL) {
    gptvq_method *bound = gptvq_tpl_alloc(t, 1, sizeof *bound);
    *bound = (gptvq_method){.name = method->name, .call = method->call, .self = of};
    *out = (gptvq_value){GPTVQ_METHOD, {.method = bound}};
    return true;
  }
  if (found || !is_hidden(of, name)) return found;
  *out = gptvq_tpl_undefined(
      t, (gptvq_absent){.why = GPTVQ_UNSAFE, .what = name, .object = gptvq_tpl_type_name(of)});
  return true;
}

static gptvq_value no_attribute(gptvq_tpl *t, gptvq_value of, gptvq_string name) {
  const char *object = of.kind == GPTVQ_NONE ? "None" : gptvq_tpl_type_name(of);
  return gptvq_tpl_undefined(t, (gptvq_absent){.why = GPTVQ_NO_ATTRIBUTE, .what = name, .object = object});
}

gptvq_value gptvq_tpl_get_attribute(gptvq_tpl *t, gptvq_value of, gptvq_string name) {
  gptvq_value out;
  if (own_attribute(t, of, name, &out)) return out;
  const gptvq_value *value = of.kind == GPTVQ_DICT ? gptvq_tpl_dict_find_text(t, of.as.dict, name) : NULL;
  return value != NULL ? *value : no_attribute(t, of, name);
}

/* ---- subscripts ---- */

static bool has_subscripts(gptvq_value v) {
  return v.kind == GPTVQ_LIST || v.kind == GPTVQ_TUPLE || v.kind == GPTVQ_RANGE;
}

static bool hashable(gptvq_value key) { return key.kind != GPTVQ_LIST && key.kind != GPTVQ_DICT; }

/* Item `index` (negative: from the end) of a text or list; false: there is none. */
static bool item_at(gptvq_tpl *t, gptvq_value of, int64_t index, gptvq_value *out) {
  int64_t count = (int64_t)gptvq_tpl_length(t, of);
  if (index < 0) index += count;
  if (index < 0 || index >= count) return false;
  if (of.kind != GPTVQ_TEXT) {
    *out = of.as.list->items[index];
  } else {
    size_t at = gptvq_tpl_char_offset(t, of.as.text, (size_t)index);
    *out = gptvq_text_of(of.as.text.data + at, gptvq_char_size(of.as.text.data[at]));
  }
  return true;
}

gptvq_value gptvq_tpl_get_item(gptvq_tpl *t, gptvq_value of, gptvq_value key) {
  gptvq_value out;
  int64_t index;
  if (of.kind == GPTVQ_UNDEFINED) gptvq_tpl_fail_undefined(t, of);
  if (of.kind == GPTVQ_DICT && hashable(key)) {
    const gptvq_value *value = gptvq_tpl_dict_find(t, of.as.dict, key);
    if (value != NULL) return *value;
  }
  if ((of.kind == GPTVQ_TEXT || has_subscripts(of)) && gptvq_as_int(key, &index) &&
      item_at(t, of, index, &out))
    return out;
  if (key.kind == GPTVQ_TEXT) {
    if (own_attribute(t, of, key.as.text, &out)) return out;
    return no_attribute(t, of, key.as.text);
  }
  gptvq_string what = key.kind <= GPTVQ_FLOAT ? gptvq_tpl_repr(t, key) : GPTVQ_STRING("of this kind");
  const char *object = of.kind == GPTVQ_NONE ? "None" : gptvq_tpl_type_name(of);
  return gptvq_tpl_undefined(t, (gptvq_absent){.why = GPTVQ_NO_ELEMENT, .what = what, .object = object});
}

/* ---- slices ---- */

static int64_t bound(gptvq_tpl *t, gptvq_value v, int64_t absent, int64_t count, bool backwards) {
  if (v.kind == GPTVQ_NONE) return absent;
  int64_t at = gptvq_tpl_want_int(t, v, "a slice's bound");
  if (at < 0) at = at < -count ? -1 : at + count;
  if (at < 0) return backwards ? -1 : 0;
  return at >= count ? (backwards ? count - 1 : count) : at;
}

gptvq_value gptvq_tpl_get_slice(gptvq_tpl *t, gptvq_value of, const gptvq_value bounds[3]) {
  if (of.kind == GPTVQ_UNDEFINED) gptvq_tpl_fail_undefined(t, of);
  if (of.kind != GPTVQ_TEXT && !has_subscripts(of))
    gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "'%s' object cannot be sliced", gptvq_tpl_type_name(of));
  int64_t count = (int64_t)gptvq_tpl_length(t, of),
          step = bounds[2].kind == GPTVQ_NONE ? 1 : gptvq_tpl_want_int(t, bounds[2], "a slice's step");
  if (step == 0) gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "slice step cannot be zero");
  if (step < -count - 1) step = -count - 1; /* as good, and nothing overflows */
  if (step > count + 1) step = count + 1;
  int64_t from = bound(t, bounds[0], step < 0 ? count - 1 : 0, count, step < 0),
          to = bound(t, bounds[1], step < 0 ? -1 : count, count, step < 0);
  if (of.kind == GPTVQ_TEXT && step == 1) {
    size_t begin = gptvq_tpl_char_offset(t, of.as.text, (size_t)from),
           end = to > from ? gptvq_tpl_char_offset(t, of.as.text, (size_t)to) : begin;
    return gptvq_text(gptvq_part(of.as.text, begin, end));
  }
  int64_t taken =
      step > 0 ? (to > from ? (to - from - 1) / step + 1 : 0) : (from > to ? (from - to - 1) / -step + 1 : 0);
  gptvq_list items = gptvq_tpl_iterate(t, of);
  if (of.kind == GPTVQ_TEXT) {
    gptvq_builder b = {0};
    for (int64_t i = 0; i < taken; i++)
      gptvq_tpl_build(t, &b, items.items[from + i * step].as.text.data,
                      items.items[from + i * step].as.text.size);
    return gptvq_text(gptvq_tpl_built(&b));
  }
  gptvq_value out = gptvq_tpl_sequence(t, of.kind, (size_t)taken);
  for (int64_t i = 0; i < taken; i++) out.as.list->items[i] = items.items[from + i * step];
  return out;
}
