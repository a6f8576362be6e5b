/* Statements: output, control flow, assignments, macros. Scopes are those of jinja2: bodies of loops, macros,
 * blocks have their own, which see those around them; an `if` has none. */
#include "text/template/run.h"

typedef enum flow { GO_ON, LEAVE_LOOP, NEXT_ROUND } flow;

static flow run_body(gptvq_tpl *t, const gptvq_nodes *body);

static gptvq_scope *scope_new(gptvq_tpl *t, gptvq_scope *parent) {
  gptvq_scope *scope = gptvq_tpl_alloc(t, 1, sizeof *scope);
  *scope = (gptvq_scope){.parent = parent, .names = gptvq_tpl_dict_new(t, GPTVQ_DICT).as.dict};
  return scope;
}

static void define(gptvq_tpl *t, gptvq_scope *scope, gptvq_string name, gptvq_value value) {
  gptvq_tpl_dict_set(t, scope->names, gptvq_text(name), value);
}

/* What body prints, in a scope of its own inside of `scope`. */
static gptvq_string capture(gptvq_tpl *t, const gptvq_nodes *body, gptvq_scope *scope) {
  gptvq_builder text = {0}, *out = t->out;
  gptvq_scope *outer = t->scope;
  t->out = &text;
  t->scope = scope;
  (void)run_body(t, body);
  t->scope = outer;
  t->out = out;
  return gptvq_tpl_built(&text);
}

/* ---- assignments ---- */

static void assign_member(gptvq_tpl *t, const gptvq_node *target, gptvq_value value) {
  gptvq_node name = {.kind = GPTVQ_NODE_NAME, .line = target->line, .name = target->name};
  gptvq_value space = gptvq_tpl_eval(t, &name);
  gptvq_string member = target->value.as.text;
  if (space.kind != GPTVQ_NAMESPACE)
    gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "cannot assign attribute on non-namespace object");
  if (member.data[0] == '_')
    gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "attributes of a namespace cannot begin with an underscore");
  gptvq_tpl_dict_set(t, space.as.dict, target->value, value);
}

static void assign(gptvq_tpl *t, gptvq_scope *scope, const gptvq_node *target, gptvq_value value) {
  if (target->kind == GPTVQ_NODE_NAME) {
    define(t, scope, target->name, value);
  } else if (target->kind == GPTVQ_NODE_MEMBER) {
    assign_member(t, target, value);
  } else {
    gptvq_list list = gptvq_tpl_iterate(t, value);
    if (list.count != target->items.count)
      gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "%s values to unpack (expected %zu, got %zu)",
                     list.count < target->items.count ? "not enough" : "too many", target->items.count,
                     list.count);
    for (size_t i = 0; i < list.count; i++) assign(t, scope, target->items.items[i], list.items[i]);
  }
}

/* ---- loops ---- */

/* The items that the loop's own condition lets through. */
static gptvq_list filtered_items(gptvq_tpl *t, const gptvq_node *node, gptvq_list items) {
  gptvq_value kept = gptvq_tpl_sequence(t, GPTVQ_LIST, items.count);
  gptvq_scope *outer = t->scope;
  size_t count = 0;
  for (size_t i = 0; i < items.count; i++) {
    t->scope = scope_new(t, outer);
    assign(t, t->scope, node->a, items.items[i]);
    if (gptvq_tpl_truth(gptvq_tpl_eval(t, node->c))) kept.as.list->items[count++] = items.items[i];
  }
  t->scope = outer;
  kept.as.list->count = count;
  return *kept.as.list;
}

static void run_for(gptvq_tpl *t, const gptvq_node *node) {
  gptvq_loop *loop = gptvq_tpl_alloc(t, 1, sizeof *loop);
  gptvq_list items = gptvq_tpl_iterate(t, gptvq_tpl_eval(t, node->b));
  gptvq_scope *outer = t->scope;
  if (node->c != NULL) items = filtered_items(t, node, items);
  *loop = (gptvq_loop){.items = items};
  for (size_t i = 0; i < items.count; i++) {
    loop->index = i;
    t->scope = scope_new(t, outer);
    assign(t, t->scope, node->a, items.items[i]);
    define(t, t->scope, GPTVQ_STRING("loop"), (gptvq_value){GPTVQ_LOOP, {.loop = loop}});
    flow how = run_body(t, &node->body);
    t->scope = outer;
    if (how == LEAVE_LOOP) return;
  }
  if (items.count > 0 || node->other.count == 0) return;
  t->scope = scope_new(t, outer);
  (void)run_body(t, &node->other);
  t->scope = outer;
}

/* ---- macros ---- */

static gptvq_value macro_value(gptvq_tpl *t, const gptvq_node *node) {
  gptvq_macro *macro = gptvq_tpl_alloc(t, 1, sizeof *macro);
  *macro = (gptvq_macro){.node = node, .scope = t->scope};
  return (gptvq_value){GPTVQ_MACRO, {.macro = macro}};
}

/* Takes the argument called `name` out of those left; NULL: there is none. */
static const gptvq_value *take_named(const gptvq_args *args, bool *used, gptvq_string name) {
  for (size_t i = args->positional; i < args->count; i++) {
    if (used[i] || !gptvq_same_string(args->names[i], name)) continue;
    used[i] = true;
    return &args->values[i];
  }
  return NULL;
}

static void bind_parameters(gptvq_tpl *t, const gptvq_node *node, gptvq_scope *scope, const gptvq_args *args,
                            bool *used) {
  bool has_caller = false;
  for (size_t i = 0; i < node->items.count; i++) {
    const gptvq_node *parameter = node->items.items[i];
    const gptvq_value *given =
        i < args->positional ? &args->values[i] : take_named(args, used, parameter->name);
    gptvq_value value;
    if (given != NULL) value = *given;
    else if (parameter->a != NULL)
      value = gptvq_tpl_eval(t, parameter->a); /* sees the parameters before it */
    else value = gptvq_tpl_undefined(t, (gptvq_absent){.why = GPTVQ_NO_ARGUMENT, .what = parameter->name});
    define(t, scope, parameter->name, value);
    has_caller = has_caller || gptvq_string_is(parameter->name, "caller");
  }
  if (!node->takes_caller || has_caller) return;
  const gptvq_value *caller = take_named(args, used, GPTVQ_STRING("caller"));
  define(t, scope, GPTVQ_STRING("caller"),
         caller != NULL ? *caller
                        : gptvq_tpl_undefined(t, (gptvq_absent){.why = GPTVQ_NO_REASON,
                                                                .what = GPTVQ_STRING("No caller defined")}));
}

static void bind_rest(gptvq_tpl *t, const gptvq_node *node, gptvq_scope *scope, const gptvq_args *args,
                      const bool *used) {
  int size = (int)gptvq_min_size(node->name.size, 60);
  gptvq_value keywords = gptvq_tpl_dict_new(t, GPTVQ_DICT);
  for (size_t i = args->positional; i < args->count; i++) {
    if (used[i]) continue;
    if (!node->takes_keywords)
      gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "macro '%.*s' takes no keyword argument '%.*s'", size,
                     node->name.data, (int)gptvq_min_size(args->names[i].size, 60), args->names[i].data);
    gptvq_tpl_dict_set(t, keywords.as.dict, gptvq_text(args->names[i]), args->values[i]);
  }
  if (node->takes_keywords) define(t, scope, GPTVQ_STRING("kwargs"), keywords);
  size_t known = gptvq_min_size(args->positional, node->items.count), more = args->positional - known;
  if (more > 0 && !node->takes_rest)
    gptvq_tpl_fail(t, GPTVQ_ERROR_DATA, "macro '%.*s' takes not more than %zu argument(s)", size,
                   node->name.data, node->items.count);
  if (!node->takes_rest) return;
  gptvq_value rest = gptvq_tpl_sequence(t, GPTVQ_TUPLE, more);
  for (size_t i = 0; i < more; i++) rest.as.list->items[i] = args->values[known + i];
  define(t, scope, GPTVQ_STRING("varargs"), rest);
}

gptvq_string gptvq_tpl_run_macro(gptvq_tpl *t, const gptvq_macro *macro, const gptvq_args *args) {
  gptvq_scope *scope = scope_new(t, macro->scope), *outer = t->scope;
  bool *used = gptvq_tpl_alloc(t, args->count, sizeof *used);
  for (size_t i = 0; i < args->count; i++) used[i] = false;
  t->scope = scope;
  bind_parameters(t, macro->node, scope, args, used);
  bind_rest(t, macro->node, scope, args, used);
  t->scope = outer;
  return capture(t, &macro->node->body, scope);
}

/* ---- one statement ---- */

static void print(gptvq_tpl *t, gptvq_value value) { gptvq_tpl_build_str(t, t->out, value); }

static void run_with(gptvq_tpl *t, const gptvq_node *node) {
  gptvq_scope *scope = scope_new(t, t->scope), *outer = t->scope;
  for (size_t i = 0; i < node->items.count; i += 2)
    assign(t, scope, node->items.items[i], gptvq_tpl_eval(t, node->items.items[i + 1]));
  t->scope = scope;
  (void)run_body(t, &node->body);
  t->scope = outer;
}

static void run_caller(gptvq_tpl *t, const gptvq_node *node) {
  gptvq_value callee = gptvq_tpl_eval(t, node->a->a);
  gptvq_args args = gptvq_tpl_eval_arguments(t, &node->a->items), more = args;
  more.count = args.count + 1;
  more.values = gptvq_tpl_alloc(t, more.count, sizeof *more.values);
  more.names = gptvq_tpl_alloc(t, more.count, sizeof *more.names);
  for (size_t i = 0; i < args.count; i++) {
    more.values[i] = args.values[i];
    more.names[i] = args.names[i];
  }
  more.values[args.count] = macro_value(t, node);
  more.names[args.count] = GPTVQ_STRING("caller");
  print(t, gptvq_tpl_call(t, callee, &more));
}

static flow run_statement(gptvq_tpl *t, const gptvq_node *node) {
  gptvq_value text;
  t->line = node->line;
  switch (node->kind) {
  case GPTVQ_NODE_DATA: gptvq_tpl_build(t, t->out, node->name.data, node->name.size); break;
  case GPTVQ_NODE_PRINT:
    for (size_t i = 0; i < node->items.count; i++) print(t, gptvq_tpl_eval(t, node->items.items[i]));
    break;
  case GPTVQ_NODE_IF:
    return run_body(t, gptvq_tpl_truth(gptvq_tpl_eval(t, node->a)) ? &node->body : &node->other);
  case GPTVQ_NODE_FOR: run_for(t, node); break;
  case GPTVQ_NODE_SET: assign(t, t->scope, node->a, gptvq_tpl_eval(t, node->b)); break;
  case GPTVQ_NODE_SET_BODY:
    text = gptvq_text(capture(t, &node->body, scope_new(t, t->scope)));
    assign(t, t->scope, node->a, gptvq_tpl_eval_filters(t, node->b, text));
    break;
  case GPTVQ_NODE_WITH: run_with(t, node); break;
  case GPTVQ_NODE_MACRO: define(t, t->scope, node->name, macro_value(t, node)); break;
  case GPTVQ_NODE_CALLER: run_caller(t, node); break;
  case GPTVQ_NODE_FILTERED:
    text = gptvq_text(capture(t, &node->body, scope_new(t, t->scope)));
    print(t, gptvq_tpl_eval_filters(t, node->a, text));
    break;
  case GPTVQ_NODE_SCOPED: print(t, gptvq_text(capture(t, &node->body, scope_new(t, t->scope)))); break;
  case GPTVQ_NODE_BREAK: return LEAVE_LOOP;
  case GPTVQ_NODE_CONTINUE: return NEXT_ROUND;
  default: gptvq_tpl_fail(t, GPTVQ_ERROR_INTERNAL, "an expression where a statement should be");
  }
  return GO_ON;
}

static flow run_body(gptvq_tpl *t, const gptvq_nodes *body) {
  flow how = GO_ON;
  gptvq_tpl_deeper(t);
  for (size_t i = 0; i < body->count && how == GO_ON; i++) {
    gptvq_tpl_work(t, 0);
    how = run_statement(t, body->items[i]);
  }
  t->depth--;
  return how;
}

void gptvq_tpl_run_template(gptvq_tpl *t, const gptvq_nodes *body, gptvq_dict *variables,
                            gptvq_builder *out) {
  gptvq_scope root = {.names = variables};
  t->scope = &root;
  t->out = out;
  (void)run_body(t, body);
  t->scope = NULL;
  t->out = NULL;
}
