#include "text/template/run.h"

static gptvq_value lookup(gptvq_tpl *t, gptvq_string name) {
  for (const gptvq_scope *scope = t->scope; scope != NULL; scope = scope->parent) {
    const gptvq_value *value = gptvq_tpl_dict_find_text(t, scope->names, name);
    if (value != NULL) return *value;
  }
  return gptvq_tpl_global(t, name);
}

/* ---- arguments ---- */

typedef struct collected {
  gptvq_args args;
  size_t room;
} collected;

static void collect(gptvq_tpl *t, collected *c, gptvq_string name, gptvq_value value) {
  if (c->args.count == c->room) {
    size_t room = gptvq_max_size(4, 2 * c->room);
    gptvq_value *values = gptvq_tpl_alloc(t, room, sizeof *values);
    gptvq_string *names = gptvq_tpl_alloc(t, room, sizeof *names);
    for (size_t i = 0; i < c->args.count; i++) {
      values[i] = c->args.values[i];
      names[i] = c->args.names[i];
    }
    c->args.values = values;
    c->args.names = names;
    c->room = room;
  }
  c->args.values[c->args.count] = value;
  c->args.names[c->args.count++] = name;
  if (name.size == 0) c->args.positional = c->args.count;
}

gptvq_args gptvq_tpl_eval_arguments(gptvq_tpl *t, const gptvq_nodes *items) {
  collected c = {.room = 0};
  for (int named = 0; named < 2; named++) { /* *spread may stand behind a name=value */
    for (size_t i = 0; i < items->count; i++) {
      const gptvq_node *item = items->items[i];
      bool is_named = item->kind == GPTVQ_NODE_KEYWORD || item->kind == GPTVQ_NODE_SPREAD_KEYWORDS;
      if (is_named != (named == 1)) continue;
      gptvq_value value = gptvq_tpl_eval(t, is_named || item->kind == GPTVQ_NODE_SPREAD ? item->a : item);
      if (item->kind == GPTVQ_NODE_SPREAD) {
        gptvq_list list = gptvq_tpl_iterate(t, value);
        for (size_t k = 0; k < list.count; k++) collect(t, &c, GPTVQ_STRING(""), list.items[k]);
      } else if (item->kind == GPTVQ_NODE_SPREAD_KEYWORDS) {
        if (value.kind != GPTVQ_DICT)
          gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "argument after ** must be a mapping");
        for (size_t k = 0; k < value.as.dict->count; k++) {
          gptvq_value key = value.as.dict->keys[k];
          if (key.kind != GPTVQ_TEXT || key.as.text.size == 0)
            gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "keywords must be strings");
          collect(t, &c, key.as.text, value.as.dict->values[k]);
        }
      } else {
        collect(t, &c, is_named ? item->name : GPTVQ_STRING(""), value);
      }
    }
  }
  return c.args;
}

/* ---- kinds of nodes ---- */

static gptvq_value eval_items(gptvq_tpl *t, const gptvq_node *node) {
  gptvq_value out =
      gptvq_tpl_sequence(t, node->kind == GPTVQ_NODE_LIST ? GPTVQ_LIST : GPTVQ_TUPLE, node->items.count);
  for (size_t i = 0; i < node->items.count; i++)
    out.as.list->items[i] = gptvq_tpl_eval(t, node->items.items[i]);
  return out;
}

static gptvq_value eval_dict(gptvq_tpl *t, const gptvq_node *node) {
  gptvq_value out = gptvq_tpl_dict_new(t, GPTVQ_DICT);
  for (size_t i = 0; i < node->items.count; i += 2) {
    gptvq_value key = gptvq_tpl_eval(t, node->items.items[i]);
    gptvq_tpl_dict_set(t, out.as.dict, key, gptvq_tpl_eval(t, node->items.items[i + 1]));
  }
  return out;
}

static gptvq_value eval_slice(gptvq_tpl *t, const gptvq_node *node) {
  gptvq_value of = gptvq_tpl_eval(t, node->a), bounds[3];
  for (size_t i = 0; i < 3; i++)
    bounds[i] = node->items.items[i] != NULL ? gptvq_tpl_eval(t, node->items.items[i]) : gptvq_none();
  return gptvq_tpl_get_slice(t, of, bounds);
}

static gptvq_value eval_call(gptvq_tpl *t, const gptvq_node *node) {
  gptvq_value callee = gptvq_tpl_eval(t, node->a);
  gptvq_args args = gptvq_tpl_eval_arguments(t, &node->items);
  t->line = node->line;
  return gptvq_tpl_call(t, callee, &args);
}

static gptvq_value eval_filter(gptvq_tpl *t, const gptvq_node *node, gptvq_value subject) {
  gptvq_args args = gptvq_tpl_eval_arguments(t, &node->items);
  t->line = node->line;
  return gptvq_tpl_filter(t, node->name, subject, &args);
}

gptvq_value gptvq_tpl_eval_filters(gptvq_tpl *t, const gptvq_node *filters, gptvq_value subject) {
  if (filters == NULL) return subject;
  gptvq_tpl_deeper(t);
  subject = eval_filter(t, filters, gptvq_tpl_eval_filters(t, filters->a, subject));
  t->depth--;
  return subject;
}

static bool eval_test(gptvq_tpl *t, const gptvq_node *node) {
  gptvq_value subject = gptvq_tpl_eval(t, node->a);
  gptvq_args args = gptvq_tpl_eval_arguments(t, &node->items);
  t->line = node->line;
  return gptvq_tpl_test(t, node->name, subject, &args);
}

static bool eval_compare(gptvq_tpl *t, const gptvq_node *node) {
  gptvq_value left = gptvq_tpl_eval(t, node->a);
  for (size_t i = 0; i < node->items.count; i++) {
    const gptvq_node *compared = node->items.items[i];
    gptvq_value right = gptvq_tpl_eval(t, compared->a);
    char operation[8] = "";
    memcpy(operation, compared->name.data, gptvq_min_size(compared->name.size, sizeof operation - 1));
    if (!gptvq_tpl_compare(t, operation, left, right)) return false;
    left = right;
  }
  return true;
}

static gptvq_value eval_choice(gptvq_tpl *t, const gptvq_node *node) {
  if (gptvq_tpl_truth(gptvq_tpl_eval(t, node->b))) return gptvq_tpl_eval(t, node->a);
  if (node->c != NULL) return gptvq_tpl_eval(t, node->c);
  return gptvq_tpl_undefined(
      t, (gptvq_absent){.why = GPTVQ_NO_REASON,
                        .what = GPTVQ_STRING("an inline if-expression was false and has no else section")});
}

static gptvq_value eval_concat(gptvq_tpl *t, const gptvq_node *node) {
  gptvq_builder b = {0};
  for (size_t i = 0; i < node->items.count; i++)
    gptvq_tpl_build_str(t, &b, gptvq_tpl_eval(t, node->items.items[i]));
  return gptvq_text(gptvq_tpl_built(&b));
}

static gptvq_value eval_sign(gptvq_tpl *t, const gptvq_node *node) {
  gptvq_value v = gptvq_tpl_eval(t, node->a);
  bool minus = gptvq_string_is(node->name, "-");
  int64_t x;
  if (v.kind == GPTVQ_UNDEFINED) gptvq_tpl_fail_undefined(t, v);
  if (v.kind == GPTVQ_FLOAT) return gptvq_float(minus ? -v.as.real : v.as.real);
  if (!gptvq_as_int(v, &x))
    gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "bad operand type for unary: '%s'", gptvq_tpl_type_name(v));
  if (minus && x == INT64_MIN) gptvq_tpl_fail(t, GPTVQ_ERROR_UNSUPPORTED, "an integer of more than 64 bits");
  return gptvq_int(minus ? -x : x);
}

static gptvq_value eval_node(gptvq_tpl *t, const gptvq_node *node) {
  gptvq_value left;
  switch (node->kind) {
  case GPTVQ_NODE_CONST: return node->value;
  case GPTVQ_NODE_NAME: return lookup(t, node->name);
  case GPTVQ_NODE_LIST:
  case GPTVQ_NODE_TUPLE: return eval_items(t, node);
  case GPTVQ_NODE_DICT: return eval_dict(t, node);
  case GPTVQ_NODE_ATTRIBUTE: return gptvq_tpl_get_attribute(t, gptvq_tpl_eval(t, node->a), node->name);
  case GPTVQ_NODE_ITEM:
    left = gptvq_tpl_eval(t, node->a);
    return gptvq_tpl_get_item(t, left, gptvq_tpl_eval(t, node->b));
  case GPTVQ_NODE_SLICE: return eval_slice(t, node);
  case GPTVQ_NODE_CALL: return eval_call(t, node);
  case GPTVQ_NODE_FILTER: return eval_filter(t, node, gptvq_tpl_eval(t, node->a));
  case GPTVQ_NODE_TEST: return gptvq_bool(eval_test(t, node));
  case GPTVQ_NODE_NOT: return gptvq_bool(!gptvq_tpl_truth(gptvq_tpl_eval(t, node->a)));
  case GPTVQ_NODE_AND:
    left = gptvq_tpl_eval(t, node->a);
    return gptvq_tpl_truth(left) ? gptvq_tpl_eval(t, node->b) : left;
  case GPTVQ_NODE_OR:
    left = gptvq_tpl_eval(t, node->a);
    return gptvq_tpl_truth(left) ? left : gptvq_tpl_eval(t, node->b);
  case GPTVQ_NODE_CHOICE: return eval_choice(t, node);
  case GPTVQ_NODE_COMPARE: return gptvq_bool(eval_compare(t, node));
  case GPTVQ_NODE_CONCAT: return eval_concat(t, node);
  case GPTVQ_NODE_BINARY:
    left = gptvq_tpl_eval(t, node->a);
    return gptvq_tpl_binary(t, node->name, left, gptvq_tpl_eval(t, node->b));
  case GPTVQ_NODE_SIGN: return eval_sign(t, node);
  default: gptvq_tpl_fail(t, GPTVQ_ERROR_INTERNAL, "a statement where an expression should be");
  }
}

gptvq_value gptvq_tpl_eval(gptvq_tpl *t, const gptvq_node *node) {
  gptvq_tpl_deeper(t);
  gptvq_tpl_work(t, 0);
  t->line = node->line;
  gptvq_value value = eval_node(t, node);
  t->depth--;
  return value;
}
