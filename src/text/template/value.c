#include "text/template/value.h"

#include "text/template/strings.h"

#include <math.h>

/* ---- making ---- */

gptvq_value gptvq_tpl_sequence(gptvq_tpl *t, gptvq_kind kind, size_t count) {
  gptvq_list *list = gptvq_tpl_alloc(t, 1, sizeof *list);
  *list = (gptvq_list){.items = gptvq_tpl_alloc(t, count, sizeof *list->items), .count = count};
  return (gptvq_value){kind, {.list = list}};
}

gptvq_value gptvq_tpl_undefined(gptvq_tpl *t, gptvq_absent absent) {
  gptvq_absent *kept = gptvq_tpl_alloc(t, 1, sizeof *kept);
  *kept = absent;
  return (gptvq_value){GPTVQ_UNDEFINED, {.absent = kept}};
}

gptvq_value gptvq_tpl_dict_new(gptvq_tpl *t, gptvq_kind kind) {
  gptvq_dict *dict = gptvq_tpl_alloc(t, 1, sizeof *dict);
  memset(dict, 0, sizeof *dict);
  return (gptvq_value){kind, {.dict = dict}};
}

static void check_hashable(gptvq_tpl *t, gptvq_value key) {
  gptvq_tpl_work(t, 0);
  if (key.kind == GPTVQ_LIST || key.kind == GPTVQ_DICT || key.kind == GPTVQ_VIEW)
    gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "unhashable type: '%s'", gptvq_tpl_type_name(key));
  if (key.kind != GPTVQ_TUPLE) return;
  gptvq_tpl_deeper(t);
  for (size_t i = 0; i < key.as.list->count; i++) check_hashable(t, key.as.list->items[i]);
  t->depth--;
}

gptvq_value *gptvq_tpl_dict_find(gptvq_tpl *t, const gptvq_dict *dict, gptvq_value key) {
  check_hashable(t, key);
  for (size_t i = 0; i < dict->count; i++)
    if (gptvq_tpl_equal(t, dict->keys[i], key)) return &dict->values[i];
  return NULL;
}

gptvq_value *gptvq_tpl_dict_find_text(gptvq_tpl *t, const gptvq_dict *dict, gptvq_string key) {
  return gptvq_tpl_dict_find(t, dict, gptvq_text(key));
}

static void append(gptvq_tpl *t, gptvq_dict *dict, gptvq_value key, gptvq_value value) {
  if (dict->count == dict->room) {
    size_t room = gptvq_max_size(4, 2 * dict->room);
    gptvq_value *keys = gptvq_tpl_alloc(t, room, sizeof *keys),
                *values = gptvq_tpl_alloc(t, room, sizeof *keys);
    for (size_t i = 0; i < dict->count; i++) {
      keys[i] = dict->keys[i];
      values[i] = dict->values[i];
    }
    dict->keys = keys;
    dict->values = values;
    dict->room = room;
  }
  dict->keys[dict->count] = key;
  dict->values[dict->count++] = value;
}

void gptvq_tpl_dict_set(gptvq_tpl *t, gptvq_dict *dict, gptvq_value key, gptvq_value value) {
  gptvq_value *there = gptvq_tpl_dict_find(t, dict, key);
  if (there != NULL) *there = value;
  else append(t, dict, key, value);
}

static gptvq_value copied_text(gptvq_tpl *t, const char *data, size_t size) {
  char *copy = gptvq_tpl_alloc(t, size, 1);
  if (size > 0) memcpy(copy, data, size);
  return gptvq_text_of(copy, size);
}

gptvq_value gptvq_tpl_from_json(gptvq_tpl *t, const json_t *json) {
  gptvq_value out = gptvq_none();
  gptvq_tpl_deeper(t);
  switch (json_typeof(json)) {
  case JSON_NULL: break;
  case JSON_TRUE:
  case JSON_FALSE: out = gptvq_bool(json_is_true(json)); break;
  case JSON_INTEGER: out = gptvq_int(json_integer_value(json)); break;
  case JSON_REAL: out = gptvq_float(json_real_value(json)); break;
  case JSON_STRING: out = copied_text(t, json_string_value(json), json_string_length(json)); break;
  case JSON_ARRAY:
    out = gptvq_tpl_sequence(t, GPTVQ_LIST, json_array_size(json));
    for (size_t i = 0; i < json_array_size(json); i++)
      out.as.list->items[i] = gptvq_tpl_from_json(t, json_array_get(json, i));
    break;
  case JSON_OBJECT: {
    const char *key;
    json_t *value;
    out = gptvq_tpl_dict_new(t, GPTVQ_DICT);
    json_object_foreach((json_t *)(uintptr_t)json, key, value) /* all different: no need to look */
        append(t, out.as.dict, copied_text(t, key, strlen(key)), gptvq_tpl_from_json(t, value));
    break;
  }
  }
  t->depth--;
  return out;
}

/* ---- asking ---- */

double gptvq_tpl_as_double(gptvq_value v) {
  if (v.kind == GPTVQ_FLOAT) return v.as.real;
  return v.kind == GPTVQ_BOOL ? (double)v.as.boolean : (double)v.as.integer;
}

const char *gptvq_tpl_type_name(gptvq_value v) {
  static const char *const names[] = {[GPTVQ_UNDEFINED] = "Undefined", [GPTVQ_NONE] = "NoneType",
                                      [GPTVQ_BOOL] = "bool",           [GPTVQ_INT] = "int",
                                      [GPTVQ_FLOAT] = "float",         [GPTVQ_TEXT] = "str",
                                      [GPTVQ_LIST] = "list",           [GPTVQ_TUPLE] = "tuple",
                                      [GPTVQ_RANGE] = "range",         [GPTVQ_VIEW] = "dict_view",
                                      [GPTVQ_ITERATOR] = "generator",  [GPTVQ_DICT] = "dict",
                                      [GPTVQ_NAMESPACE] = "Namespace", [GPTVQ_LOOP] = "LoopContext",
                                      [GPTVQ_MACRO] = "Macro",         [GPTVQ_FUNCTION] = "function",
                                      [GPTVQ_METHOD] = "method"};
  return names[v.kind];
}

void gptvq_tpl_fail_undefined(gptvq_tpl *t, gptvq_value v) {
  const gptvq_absent *a = v.as.absent;
  int size = (int)gptvq_min_size(a->what.size, 200);
  switch (a->why) {
  case GPTVQ_NO_VARIABLE: gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "'%.*s' is undefined", size, a->what.data);
  case GPTVQ_NO_ATTRIBUTE:
    gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "'%s%s' has no attribute '%.*s'", a->object,
                   strcmp(a->object, "None") == 0 ? "" : " object", size, a->what.data);
  case GPTVQ_NO_ELEMENT:
    gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "%s object has no element %.*s", a->object, size, a->what.data);
  case GPTVQ_NO_ARGUMENT:
    gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "parameter '%.*s' was not provided", size, a->what.data);
  case GPTVQ_UNSAFE:
    gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "access to attribute '%.*s' of '%s' object is unsafe", size,
                   a->what.data, a->object);
  default: gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "%.*s", size, a->what.data);
  }
}

bool gptvq_tpl_truth(gptvq_value v) {
  switch (v.kind) {
  case GPTVQ_UNDEFINED:
  case GPTVQ_NONE: return false;
  case GPTVQ_BOOL: return v.as.boolean;
  case GPTVQ_INT: return v.as.integer != 0;
  case GPTVQ_FLOAT: return v.as.real != 0;
  case GPTVQ_TEXT: return v.as.text.size > 0;
  case GPTVQ_LIST:
  case GPTVQ_TUPLE:
  case GPTVQ_RANGE:
  case GPTVQ_VIEW: return v.as.list->count > 0;
  case GPTVQ_DICT: return v.as.dict->count > 0;
  default: return true; /* an iterator, too, whatever is in it */
  }
}

static bool equal_numbers(gptvq_value a, gptvq_value b) {
  int64_t x, y;
  if (gptvq_as_int(a, &x) && gptvq_as_int(b, &y)) return x == y;
  return gptvq_tpl_as_double(a) == gptvq_tpl_as_double(b);
}

static bool equal_lists(gptvq_tpl *t, const gptvq_list *a, const gptvq_list *b) {
  if (a->count != b->count) return false;
  for (size_t i = 0; i < a->count; i++)
    if (!gptvq_tpl_equal(t, a->items[i], b->items[i])) return false;
  return true;
}

static bool equal_dicts(gptvq_tpl *t, const gptvq_dict *a, const gptvq_dict *b) {
  if (a->count != b->count) return false;
  for (size_t i = 0; i < a->count; i++) {
    const gptvq_value *other = gptvq_tpl_dict_find(t, b, a->keys[i]);
    if (other == NULL || !gptvq_tpl_equal(t, a->values[i], *other)) return false;
  }
  return true;
}

bool gptvq_tpl_equal(gptvq_tpl *t, gptvq_value a, gptvq_value b) {
  gptvq_tpl_work(t, 0);
  if (gptvq_is_number(a) && gptvq_is_number(b)) return equal_numbers(a, b);
  if (a.kind != b.kind) return false;
  bool equal = false;
  gptvq_tpl_deeper(t);
  switch (a.kind) {
  case GPTVQ_UNDEFINED:
  case GPTVQ_NONE: equal = true; break;
  case GPTVQ_TEXT:
    equal = a.as.text.size == b.as.text.size && gptvq_tpl_begins(t, a.as.text.data, b.as.text);
    break;
  case GPTVQ_LIST:
  case GPTVQ_TUPLE:
  case GPTVQ_RANGE: equal = equal_lists(t, a.as.list, b.as.list); break;
  case GPTVQ_DICT: equal = equal_dicts(t, a.as.dict, b.as.dict); break;
  default: equal = a.as.list == b.as.list; /* the same object */
  }
  t->depth--;
  return equal;
}

_Noreturn static void fail_order(gptvq_tpl *t, gptvq_value a, gptvq_value b) {
  if (a.kind == GPTVQ_UNDEFINED) gptvq_tpl_fail_undefined(t, a);
  if (b.kind == GPTVQ_UNDEFINED) gptvq_tpl_fail_undefined(t, b);
  gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "'%s' and '%s' have no order", gptvq_tpl_type_name(a),
                 gptvq_tpl_type_name(b));
}

int gptvq_tpl_order(gptvq_tpl *t, gptvq_value a, gptvq_value b) {
  int64_t x, y;
  gptvq_tpl_work(t, 0);
  if (gptvq_as_int(a, &x) && gptvq_as_int(b, &y)) return (x > y) - (x < y);
  if (gptvq_is_number(a) && gptvq_is_number(b)) {
    double p = gptvq_tpl_as_double(a), q = gptvq_tpl_as_double(b);
    return (p > q) - (p < q);
  }
  if (a.kind != b.kind) fail_order(t, a, b);
  if (a.kind == GPTVQ_TEXT) { /* UTF-8 sorts as its code points do */
    size_t shorter = gptvq_min_size(a.as.text.size, b.as.text.size);
    gptvq_tpl_work(t, shorter);
    int order = shorter > 0 ? memcmp(a.as.text.data, b.as.text.data, shorter) : 0;
    return order != 0 ? order : (a.as.text.size > b.as.text.size) - (a.as.text.size < b.as.text.size);
  }
  if (a.kind != GPTVQ_LIST && a.kind != GPTVQ_TUPLE) fail_order(t, a, b);
  const gptvq_list *p = a.as.list, *q = b.as.list;
  int order = (p->count > q->count) - (p->count < q->count);
  gptvq_tpl_deeper(t);
  for (size_t i = 0; i < gptvq_min_size(p->count, q->count); i++) {
    if (gptvq_tpl_equal(t, p->items[i], q->items[i])) continue;
    order = gptvq_tpl_order(t, p->items[i], q->items[i]);
    break;
  }
  t->depth--;
  return order;
}

bool gptvq_tpl_contains(gptvq_tpl *t, gptvq_value container, gptvq_value item) {
  if (container.kind == GPTVQ_TEXT) {
    if (item.kind != GPTVQ_TEXT)
      gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "'in <string>' requires string as left operand, not %s",
                     gptvq_tpl_type_name(item));
    return gptvq_tpl_find(t, container.as.text, item.as.text, 0) != SIZE_MAX;
  }
  if (container.kind == GPTVQ_DICT) return gptvq_tpl_dict_find(t, container.as.dict, item) != NULL;
  gptvq_list list = gptvq_tpl_iterate(t, container);
  for (size_t i = 0; i < list.count; i++)
    if (gptvq_tpl_equal(t, list.items[i], item)) return true;
  return false;
}

static gptvq_list items_of(gptvq_tpl *t, gptvq_value v) {
  if (v.kind == GPTVQ_UNDEFINED) return (gptvq_list){0};
  if (v.kind == GPTVQ_DICT) return (gptvq_list){.items = v.as.dict->keys, .count = v.as.dict->count};
  if (v.kind == GPTVQ_ITERATOR) {
    gptvq_list rest = {.items = v.as.list->items + v.as.list->taken,
                       .count = v.as.list->count - v.as.list->taken};
    v.as.list->taken = v.as.list->count;
    return rest;
  }
  if (gptvq_is_sequence(v)) return *v.as.list;
  if (v.kind != GPTVQ_TEXT)
    gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "'%s' object is not iterable", gptvq_tpl_type_name(v));
  gptvq_value out = gptvq_tpl_sequence(t, GPTVQ_LIST, gptvq_tpl_count_chars(t, v.as.text));
  for (size_t i = 0, at = 0; i < out.as.list->count; i++) {
    size_t size = gptvq_char_size(v.as.text.data[at]);
    out.as.list->items[i] = gptvq_text_of(v.as.text.data + at, size);
    at += size;
  }
  return *out.as.list;
}

gptvq_list gptvq_tpl_iterate(gptvq_tpl *t, gptvq_value v) {
  gptvq_list items = items_of(t, v);
  gptvq_tpl_work(t, 64 * items.count); /* whoever asks goes through them, a step each */
  return items;
}

size_t gptvq_tpl_length(gptvq_tpl *t, gptvq_value v) {
  switch (v.kind) {
  case GPTVQ_UNDEFINED: return 0;
  case GPTVQ_TEXT: return gptvq_tpl_count_chars(t, v.as.text);
  case GPTVQ_LIST:
  case GPTVQ_TUPLE:
  case GPTVQ_RANGE:
  case GPTVQ_VIEW: return v.as.list->count;
  case GPTVQ_DICT: return v.as.dict->count;
  default: gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "object of type '%s' has no len()", gptvq_tpl_type_name(v));
  }
}
