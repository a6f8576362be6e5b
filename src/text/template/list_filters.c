/* Filters of lists and dicts. */
#include "text/template/run.h"

#include "text/template/strings.h"

/* ---- keys: what sort, map(attribute=…), … look at ---- */

/* value.a.0.b for "a.0.b"; of None the value itself. `absent`: instead of what is undefined, unless it is
 * None. */
static gptvq_value path_of(gptvq_tpl *t, gptvq_value value, gptvq_value path, gptvq_value absent) {
  if (path.kind == GPTVQ_NONE) return value;
  if (path.kind != GPTVQ_TEXT) return gptvq_tpl_get_item(t, value, path);
  gptvq_list parts = *gptvq_tpl_split(t, path.as.text, GPTVQ_STRING("."), -1, false).as.list;
  for (size_t i = 0; i < parts.count; i++) {
    gptvq_string part = parts.items[i].as.text;
    int64_t index = 0;
    bool number = part.size > 0 && part.size < 10;
    for (size_t k = 0; k < part.size && number; k++) {
      number = part.data[k] >= '0' && part.data[k] <= '9';
      index = index * 10 + (part.data[k] - '0');
    }
    value = gptvq_tpl_get_item(t, value, number ? gptvq_int(index) : parts.items[i]);
    if (absent.kind != GPTVQ_NONE && value.kind == GPTVQ_UNDEFINED) value = absent;
  }
  return value;
}

static gptvq_value folded(gptvq_tpl *t, gptvq_value v, bool case_sensitive) {
  if (case_sensitive || v.kind != GPTVQ_TEXT) return v;
  return gptvq_text(gptvq_tpl_change_case(t, v.as.text, GPTVQ_CASE_LOWER));
}

/* The order of items by their keys, equal ones as they were (reversed, too); a merge of ever longer runs. */
static size_t *sorted_order(gptvq_tpl *t, const gptvq_value *keys, size_t count, bool reverse) {
  size_t *from = gptvq_tpl_alloc(t, count, sizeof *from), *to = gptvq_tpl_alloc(t, count, sizeof *to);
  for (size_t i = 0; i < count; i++) from[i] = i;
  for (size_t run = 1; run < count; run *= 2) {
    for (size_t begin = 0; begin < count; begin += 2 * run) {
      size_t middle = gptvq_min_size(begin + run, count), end = gptvq_min_size(begin + 2 * run, count),
             a = begin, b = middle;
      for (size_t i = begin; i < end; i++) {
        bool left = b == end;
        if (a < middle && b < end) {
          int order = gptvq_tpl_order(t, keys[from[a]], keys[from[b]]);
          left = reverse ? order >= 0 : order <= 0;
        }
        to[i] = left ? from[a++] : from[b++];
      }
    }
    size_t *other = from;
    from = to;
    to = other;
  }
  return from;
}

static gptvq_value in_order(gptvq_tpl *t, const gptvq_value *items, const gptvq_value *keys, size_t count,
                            bool reverse) {
  size_t *order = sorted_order(t, keys, count, reverse);
  gptvq_value out = gptvq_tpl_sequence(t, GPTVQ_LIST, count);
  for (size_t i = 0; i < count; i++) out.as.list->items[i] = items[order[i]];
  return out;
}

static gptvq_value filter_sort(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  static const char *const names[] = {"reverse", "case_sensitive", "attribute"};
  gptvq_value values[] = {gptvq_bool(false), gptvq_bool(false), gptvq_none()};
  gptvq_tpl_bind(t, "sort", args, names, 0, 3, values);
  gptvq_list list = gptvq_tpl_iterate(t, self), paths = {.items = &values[2], .count = 1};
  gptvq_value *keys = gptvq_tpl_alloc(t, list.count, sizeof *keys);
  if (values[2].kind == GPTVQ_TEXT)
    paths = *gptvq_tpl_split(t, values[2].as.text, GPTVQ_STRING(","), -1, false).as.list;
  for (size_t i = 0; i < list.count; i++) {
    keys[i] = gptvq_tpl_sequence(t, GPTVQ_LIST, paths.count);
    for (size_t k = 0; k < paths.count; k++)
      keys[i].as.list->items[k] =
          folded(t, path_of(t, list.items[i], paths.items[k], gptvq_none()), gptvq_tpl_truth(values[1]));
  }
  return in_order(t, list.items, keys, list.count, gptvq_tpl_truth(values[0]));
}

static gptvq_value filter_dictsort(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  static const char *const names[] = {"case_sensitive", "by", "reverse"};
  gptvq_value values[] = {gptvq_bool(false), gptvq_text(GPTVQ_STRING("key")), gptvq_bool(false)};
  gptvq_tpl_bind(t, "dictsort", args, names, 0, 3, values);
  gptvq_string by = gptvq_tpl_want_text(t, values[1], "by");
  if (!gptvq_string_is(by, "key") && !gptvq_string_is(by, "value"))
    gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "dictsort is by 'key' or by 'value'");
  if (self.kind == GPTVQ_UNDEFINED) gptvq_tpl_fail_undefined(t, self);
  if (self.kind != GPTVQ_DICT) gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "dictsort: a dict is required");
  const gptvq_dict *dict = self.as.dict;
  gptvq_value *pairs = gptvq_tpl_alloc(t, dict->count, sizeof *pairs),
              *keys = gptvq_tpl_alloc(t, dict->count, sizeof *keys);
  for (size_t i = 0; i < dict->count; i++) {
    pairs[i] = gptvq_tpl_sequence(t, GPTVQ_TUPLE, 2);
    pairs[i].as.list->items[0] = dict->keys[i];
    pairs[i].as.list->items[1] = dict->values[i];
    keys[i] =
        folded(t, gptvq_string_is(by, "key") ? dict->keys[i] : dict->values[i], gptvq_tpl_truth(values[0]));
  }
  return in_order(t, pairs, keys, dict->count, gptvq_tpl_truth(values[2]));
}

static gptvq_value filter_unique(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  static const char *const names[] = {"case_sensitive", "attribute"};
  gptvq_value values[] = {gptvq_bool(false), gptvq_none()};
  gptvq_tpl_bind(t, "unique", args, names, 0, 2, values);
  gptvq_list list = gptvq_tpl_iterate(t, self);
  gptvq_value out = gptvq_tpl_sequence(t, GPTVQ_ITERATOR, list.count),
              seen = gptvq_tpl_dict_new(t, GPTVQ_DICT);
  size_t count = 0;
  for (size_t i = 0; i < list.count; i++) {
    gptvq_value key =
        folded(t, path_of(t, list.items[i], values[1], gptvq_none()), gptvq_tpl_truth(values[0]));
    if (gptvq_tpl_dict_find(t, seen.as.dict, key) != NULL) continue;
    gptvq_tpl_dict_set(t, seen.as.dict, key, gptvq_none());
    out.as.list->items[count++] = list.items[i];
  }
  out.as.list->count = count;
  return out;
}

static gptvq_value extreme(gptvq_tpl *t, gptvq_value self, const gptvq_args *args, bool greatest) {
  static const char *const names[] = {"case_sensitive", "attribute"};
  gptvq_value values[] = {gptvq_bool(false), gptvq_none()}, best = gptvq_none(), best_key = gptvq_none();
  gptvq_tpl_bind(t, greatest ? "max" : "min", args, names, 0, 2, values);
  gptvq_list list = gptvq_tpl_iterate(t, self);
  for (size_t i = 0; i < list.count; i++) {
    gptvq_value key =
        folded(t, path_of(t, list.items[i], values[1], gptvq_none()), gptvq_tpl_truth(values[0]));
    int order = i == 0 ? 0 : gptvq_tpl_order(t, key, best_key);
    if (i > 0 && (greatest ? order <= 0 : order >= 0)) continue;
    best = list.items[i];
    best_key = key;
  }
  if (list.count > 0) return best;
  return gptvq_tpl_undefined(t,
                             (gptvq_absent){.why = GPTVQ_NO_REASON,
                                            .what = GPTVQ_STRING("No aggregated item, sequence was empty.")});
}
static gptvq_value filter_min(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  return extreme(t, self, args, false);
}
static gptvq_value filter_max(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  return extreme(t, self, args, true);
}

/* ---- items ---- */

static gptvq_value filter_first(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  gptvq_tpl_bind(t, "first", args, NULL, 0, 0, NULL);
  gptvq_list list = gptvq_tpl_iterate(t, self);
  if (list.count > 0) return list.items[0];
  return gptvq_tpl_undefined(
      t, (gptvq_absent){.why = GPTVQ_NO_REASON, .what = GPTVQ_STRING("No first item, sequence was empty.")});
}

static gptvq_value filter_last(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  gptvq_tpl_bind(t, "last", args, NULL, 0, 0, NULL);
  if (self.kind == GPTVQ_ITERATOR)
    gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "last of a generator: make it a list first");
  gptvq_list list = gptvq_tpl_iterate(t, self);
  if (list.count > 0) return list.items[list.count - 1];
  return gptvq_tpl_undefined(
      t, (gptvq_absent){.why = GPTVQ_NO_REASON, .what = GPTVQ_STRING("No last item, sequence was empty.")});
}

static gptvq_value filter_list(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  gptvq_tpl_bind(t, "list", args, NULL, 0, 0, NULL);
  gptvq_value out = gptvq_tpl_sequence(t, GPTVQ_LIST, 0);
  *out.as.list = gptvq_tpl_iterate(t, self);
  out.as.list->taken = 0;
  return out;
}

static gptvq_value filter_items(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  gptvq_tpl_bind(t, "items", args, NULL, 0, 0, NULL);
  if (self.kind == GPTVQ_UNDEFINED) return gptvq_tpl_sequence(t, GPTVQ_ITERATOR, 0);
  if (self.kind != GPTVQ_DICT) gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "Can only get item pairs from a mapping.");
  gptvq_value out = gptvq_tpl_call(t, gptvq_tpl_get_attribute(t, self, GPTVQ_STRING("items")), args);
  out.kind = GPTVQ_ITERATOR;
  return out;
}

static gptvq_value filter_reverse(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  gptvq_tpl_bind(t, "reverse", args, NULL, 0, 0, NULL);
  gptvq_list list = gptvq_tpl_iterate(t, self);
  gptvq_value out =
      gptvq_tpl_sequence(t, self.kind == GPTVQ_ITERATOR ? GPTVQ_LIST : GPTVQ_ITERATOR, list.count);
  gptvq_builder b = {0};
  for (size_t i = 0; i < list.count; i++) {
    gptvq_value item = list.items[list.count - 1 - i];
    out.as.list->items[i] = item;
    if (self.kind == GPTVQ_TEXT) gptvq_tpl_build(t, &b, item.as.text.data, item.as.text.size);
  }
  return self.kind == GPTVQ_TEXT ? gptvq_text(gptvq_tpl_built(&b)) : out;
}

static gptvq_value filter_join(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  static const char *const names[] = {"d", "attribute"};
  gptvq_value values[] = {gptvq_text(GPTVQ_STRING("")), gptvq_none()};
  gptvq_builder b = {0};
  gptvq_tpl_bind(t, "join", args, names, 0, 2, values);
  gptvq_list list = gptvq_tpl_iterate(t, self);
  for (size_t i = 0; i < list.count; i++) {
    if (i > 0) gptvq_tpl_build_str(t, &b, values[0]);
    gptvq_tpl_build_str(t, &b, path_of(t, list.items[i], values[1], gptvq_none()));
  }
  return gptvq_text(gptvq_tpl_built(&b));
}

static gptvq_value filter_sum(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  static const char *const names[] = {"attribute", "start"};
  gptvq_value values[] = {gptvq_none(), gptvq_int(0)};
  gptvq_tpl_bind(t, "sum", args, names, 0, 2, values);
  gptvq_list list = gptvq_tpl_iterate(t, self);
  if (values[1].kind == GPTVQ_TEXT) gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "sum() can't sum strings");
  for (size_t i = 0; i < list.count; i++)
    values[1] =
        gptvq_tpl_binary(t, GPTVQ_STRING("+"), values[1], path_of(t, list.items[i], values[0], gptvq_none()));
  return values[1];
}

static gptvq_value filter_batch(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  static const char *const names[] = {"linecount", "fill_with"};
  gptvq_value values[] = {gptvq_none(), gptvq_none()};
  gptvq_tpl_bind(t, "batch", args, names, 1, 2, values);
  gptvq_list list = gptvq_tpl_iterate(t, self);
  int64_t wanted = gptvq_tpl_want_int(t, values[0], "the size of a batch");
  if (wanted <= 0) gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "the size of a batch must be positive");
  size_t size = (uint64_t)wanted > list.count ? gptvq_max_size(list.count, 1) : (size_t)wanted;
  bool fills = values[1].kind != GPTVQ_NONE;
  if (fills) size = gptvq_min_size((size_t)wanted, (size_t)1 << 24);
  gptvq_value out = gptvq_tpl_sequence(t, GPTVQ_ITERATOR, gptvq_ceil_div(list.count, size));
  for (size_t i = 0; i < out.as.list->count; i++) {
    size_t here = gptvq_min_size(size, list.count - i * size);
    gptvq_value part = gptvq_tpl_sequence(t, GPTVQ_LIST, fills ? size : here);
    for (size_t k = 0; k < part.as.list->count; k++)
      part.as.list->items[k] = k < here ? list.items[i * size + k] : values[1];
    out.as.list->items[i] = part;
  }
  return out;
}

static gptvq_value filter_attr(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  static const char *const names[] = {"name"};
  gptvq_value name = gptvq_none();
  gptvq_tpl_bind(t, "attr", args, names, 1, 1, &name);
  if (self.kind == GPTVQ_DICT) { /* no key, whatever it is called */
    gptvq_value empty = gptvq_tpl_dict_new(t, GPTVQ_DICT), method;
    method = gptvq_tpl_get_attribute(t, empty, gptvq_tpl_want_text(t, name, "an attribute"));
    if (method.kind != GPTVQ_METHOD) return method;
  }
  return gptvq_tpl_get_attribute(t, self, gptvq_tpl_want_text(t, name, "an attribute"));
}

/* ---- map, select, reject ---- */

/* The arguments without the first `count`. */
static gptvq_args rest(const gptvq_args *args, size_t count) {
  return (gptvq_args){args->values + count, args->names + count, args->count - count,
                      args->positional - count};
}

static gptvq_value filter_map(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  static const char *const names[] = {"attribute", "default"};
  gptvq_value values[] = {gptvq_none(), gptvq_none()};
  gptvq_args more = {0};
  if (!gptvq_tpl_truth(self)) return gptvq_tpl_sequence(t, GPTVQ_ITERATOR, 0); /* whatever the arguments */
  gptvq_list list = gptvq_tpl_iterate(t, self);
  if (args->positional == 0) {
    gptvq_tpl_bind(t, "map", args, names, 1, 2, values);
  } else {
    more = rest(args, 1);
    (void)gptvq_tpl_want_text(t, args->values[0], "the filter of map");
  }
  gptvq_value out = gptvq_tpl_sequence(t, GPTVQ_ITERATOR, list.count);
  for (size_t i = 0; i < list.count; i++)
    out.as.list->items[i] = args->positional == 0
                                ? path_of(t, list.items[i], values[0], values[1])
                                : gptvq_tpl_filter(t, args->values[0].as.text, list.items[i], &more);
  return out;
}

static gptvq_value pick(gptvq_tpl *t, gptvq_value self, const gptvq_args *args, bool by_attribute,
                        bool keep) {
  if (!gptvq_tpl_truth(self)) return gptvq_tpl_sequence(t, GPTVQ_ITERATOR, 0); /* whatever the arguments */
  if (args->positional < by_attribute)
    gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "Missing parameter for attribute name");
  gptvq_list list = gptvq_tpl_iterate(t, self);
  gptvq_value out = gptvq_tpl_sequence(t, GPTVQ_ITERATOR, list.count);
  gptvq_args of_test = rest(args, by_attribute), more = {0};
  bool tests = of_test.positional > 0;
  size_t count = 0;
  if (tests) more = rest(&of_test, 1);
  for (size_t i = 0; i < list.count; i++) {
    gptvq_value value =
        by_attribute ? path_of(t, list.items[i], args->values[0], gptvq_none()) : list.items[i];
    bool has = tests ? gptvq_tpl_test(t, gptvq_tpl_want_text(t, of_test.values[0], "a test"), value, &more)
                     : gptvq_tpl_truth(value);
    if (has == keep) out.as.list->items[count++] = list.items[i];
  }
  out.as.list->count = count;
  return out;
}
static gptvq_value filter_select(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  return pick(t, self, args, false, true);
}
static gptvq_value filter_reject(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  return pick(t, self, args, false, false);
}
static gptvq_value filter_selectattr(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  return pick(t, self, args, true, true);
}
static gptvq_value filter_rejectattr(gptvq_tpl *t, gptvq_value self, const gptvq_args *args) {
  return pick(t, self, args, true, false);
}

const gptvq_named gptvq_tpl_list_filters[] = {{"join", filter_join},
                                              {"first", filter_first},
                                              {"last", filter_last},
                                              {"list", filter_list},
                                              {"items", filter_items},
                                              {"map", filter_map},
                                              {"select", filter_select},
                                              {"reject", filter_reject},
                                              {"selectattr", filter_selectattr},
                                              {"rejectattr", filter_rejectattr},
                                              {"sort", filter_sort},
                                              {"dictsort", filter_dictsort},
                                              {"unique", filter_unique},
                                              {"reverse", filter_reverse},
                                              {"min", filter_min},
                                              {"max", filter_max},
                                              {"sum", filter_sum},
                                              {"batch", filter_batch},
                                              {"attr", filter_attr},
                                              {NULL, NULL}};
