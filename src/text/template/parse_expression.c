/* Expressions, by the grammar of jinja2.parser. */
#include "text/template/parser.h"

#include <string.h>

static gptvq_node *pair(gptvq_parser *p, gptvq_node_kind kind, gptvq_string name, gptvq_node *a,
                        gptvq_node *b) {
  gptvq_node *node = gptvq_tpl_node_new(p, kind);
  node->line = a->line;
  node->name = name;
  node->a = a;
  node->b = b;
  return node;
}

static gptvq_node *constant(gptvq_parser *p, gptvq_value value) {
  gptvq_node *node = gptvq_tpl_node_new(p, GPTVQ_NODE_CONST);
  node->value = value;
  return node;
}

/* ---- primaries ---- */

static void note_use(gptvq_parser *p, gptvq_string name) {
  for (size_t i = 0; i < p->macros; i++) {
    if (gptvq_string_is(name, "caller")) p->macro[i]->takes_caller = true;
    if (gptvq_string_is(name, "kwargs")) p->macro[i]->takes_keywords = true;
    if (gptvq_string_is(name, "varargs")) p->macro[i]->takes_rest = true;
  }
}

static gptvq_node *parse_name(gptvq_parser *p) {
  gptvq_string name = p->at->text;
  gptvq_node *node = NULL;
  if (gptvq_string_is(name, "true") || gptvq_string_is(name, "True")) node = constant(p, gptvq_bool(true));
  else if (gptvq_string_is(name, "false") || gptvq_string_is(name, "False"))
    node = constant(p, gptvq_bool(false));
  else if (gptvq_string_is(name, "none") || gptvq_string_is(name, "None")) node = constant(p, gptvq_none());
  if (node == NULL) {
    node = gptvq_tpl_node_new(p, GPTVQ_NODE_NAME);
    node->name = name;
    note_use(p, name);
  }
  p->at++;
  return node;
}

static gptvq_node *parse_string(gptvq_parser *p) {
  gptvq_node *node = constant(p, gptvq_text(p->at->text));
  p->at++;
  if (p->at->kind != GPTVQ_TOKEN_STRING) return node;
  gptvq_builder b = {0}; /* several in a row are one */
  gptvq_tpl_build(p->t, &b, node->value.as.text.data, node->value.as.text.size);
  for (; p->at->kind == GPTVQ_TOKEN_STRING; p->at++)
    gptvq_tpl_build(p->t, &b, p->at->text.data, p->at->text.size);
  node->value = gptvq_text(gptvq_tpl_built(&b));
  return node;
}

static gptvq_node *parse_brackets(gptvq_parser *p) {
  bool dict = gptvq_tpl_skip_operator(p, "{");
  const char *close = dict ? "}" : "]";
  gptvq_node *node = gptvq_tpl_node_new(p, dict ? GPTVQ_NODE_DICT : GPTVQ_NODE_LIST);
  if (!dict) gptvq_tpl_expect(p, "[");
  while (!gptvq_tpl_at_operator(p, close)) {
    if (node->items.count > 0) gptvq_tpl_expect(p, ",");
    if (gptvq_tpl_at_operator(p, close)) break;
    gptvq_tpl_nodes_add(p, &node->items, gptvq_tpl_parse_expression(p));
    if (!dict) continue;
    gptvq_tpl_expect(p, ":");
    gptvq_tpl_nodes_add(p, &node->items, gptvq_tpl_parse_expression(p));
  }
  gptvq_tpl_expect(p, close);
  return node;
}

static bool at_tuple_end(const gptvq_parser *p, const char *stop) {
  return p->at->kind == GPTVQ_TOKEN_PRINT_END || p->at->kind == GPTVQ_TOKEN_BLOCK_END ||
         gptvq_tpl_at_operator(p, ")") || (stop != NULL && gptvq_tpl_at_name(p, stop));
}

static gptvq_node *parse_items(gptvq_parser *p, bool choice, const char *stop, bool may_be_empty) {
  gptvq_nodes items = {0};
  bool tuple = false;
  gptvq_node *node = gptvq_tpl_node_new(p, GPTVQ_NODE_TUPLE);
  for (;;) {
    if (items.count > 0) gptvq_tpl_expect(p, ",");
    if (at_tuple_end(p, stop)) break;
    gptvq_tpl_nodes_add(p, &items, choice ? gptvq_tpl_parse_expression(p) : gptvq_tpl_parse_or(p));
    if (!gptvq_tpl_at_operator(p, ",")) break;
    tuple = true;
  }
  if (!tuple && items.count > 0) return items.items[0];
  if (!tuple && !may_be_empty) gptvq_tpl_fail_token(p, "an expression");
  node->items = items;
  return node;
}

gptvq_node *gptvq_tpl_parse_tuple(gptvq_parser *p, bool choice, const char *stop) {
  return parse_items(p, choice, stop, false);
}

gptvq_node *gptvq_tpl_parse_primary(gptvq_parser *p) {
  switch (p->at->kind) {
  case GPTVQ_TOKEN_NAME: return parse_name(p);
  case GPTVQ_TOKEN_STRING: return parse_string(p);
  case GPTVQ_TOKEN_NUMBER: return constant(p, p->at++->number);
  default: break;
  }
  if (gptvq_tpl_at_operator(p, "[") || gptvq_tpl_at_operator(p, "{")) return parse_brackets(p);
  if (!gptvq_tpl_skip_operator(p, "(")) gptvq_tpl_fail_token(p, "an expression");
  gptvq_node *node = parse_items(p, true, NULL, true);
  gptvq_tpl_expect(p, ")");
  return node;
}

/* ---- what follows a primary ---- */

static void parse_arguments(gptvq_parser *p, gptvq_nodes *out) {
  bool keywords = false, spread = false, spread_keywords = false;
  gptvq_tpl_expect(p, "(");
  while (!gptvq_tpl_at_operator(p, ")")) {
    if (out->count > 0) gptvq_tpl_expect(p, ",");
    if (gptvq_tpl_at_operator(p, ")")) break;
    gptvq_node *node = gptvq_tpl_node_new(p, GPTVQ_NODE_SPREAD);
    bool wrong = spread_keywords;
    if (gptvq_tpl_skip_operator(p, "*")) {
      wrong |= spread;
      spread = true;
      node->a = gptvq_tpl_parse_expression(p);
    } else if (gptvq_tpl_skip_operator(p, "**")) {
      spread_keywords = true;
      node->kind = GPTVQ_NODE_SPREAD_KEYWORDS;
      node->a = gptvq_tpl_parse_expression(p);
    } else if (p->at->kind == GPTVQ_TOKEN_NAME && p->at[1].kind == GPTVQ_TOKEN_OPERATOR &&
               gptvq_string_is(p->at[1].text, "=")) {
      keywords = true;
      node->kind = GPTVQ_NODE_KEYWORD;
      node->name = p->at->text;
      p->at += 2;
      node->a = gptvq_tpl_parse_expression(p);
    } else {
      wrong |= keywords || spread;
      node = gptvq_tpl_parse_expression(p);
    }
    if (wrong) gptvq_tpl_fail_token(p, "arguments in another order (positional ones first)");
    gptvq_tpl_nodes_add(p, out, node);
  }
  gptvq_tpl_expect(p, ")");
}

static gptvq_node *parse_subscript(gptvq_parser *p, gptvq_node *of) {
  gptvq_node *node = pair(p, GPTVQ_NODE_ITEM, GPTVQ_STRING(""), of, NULL);
  if (!gptvq_tpl_at_operator(p, ":") && !gptvq_tpl_at_operator(p, "]"))
    node->b = gptvq_tpl_parse_expression(p);
  if (!gptvq_tpl_at_operator(p, ":")) {
    if (!gptvq_tpl_at_operator(p, "]") || node->b == NULL) { /* none or several are a tuple */
      gptvq_node *tuple = gptvq_tpl_node_new(p, GPTVQ_NODE_TUPLE);
      if (node->b != NULL) gptvq_tpl_nodes_add(p, &tuple->items, node->b);
      while (gptvq_tpl_skip_operator(p, ",") && !gptvq_tpl_at_operator(p, "]"))
        gptvq_tpl_nodes_add(p, &tuple->items, gptvq_tpl_parse_expression(p));
      node->b = tuple;
    }
    gptvq_tpl_expect(p, "]");
    return node;
  }
  node->kind = GPTVQ_NODE_SLICE;
  gptvq_tpl_nodes_add(p, &node->items, node->b);
  node->b = NULL;
  for (size_t i = 1; i < 3; i++) {
    bool there =
        gptvq_tpl_skip_operator(p, ":") && !gptvq_tpl_at_operator(p, ":") && !gptvq_tpl_at_operator(p, "]");
    gptvq_tpl_nodes_add(p, &node->items, there ? gptvq_tpl_parse_expression(p) : NULL);
  }
  gptvq_tpl_expect(p, "]");
  return node;
}

static gptvq_node *parse_call(gptvq_parser *p, gptvq_node *of) {
  gptvq_node *node = pair(p, GPTVQ_NODE_CALL, GPTVQ_STRING(""), of, NULL);
  node->line = p->at->line;
  parse_arguments(p, &node->items);
  return node;
}

static gptvq_node *parse_postfix(gptvq_parser *p, gptvq_node *node) {
  for (;;) {
    if (gptvq_tpl_skip_operator(p, ".")) {
      if (p->at->kind == GPTVQ_TOKEN_NUMBER && p->at->number.kind == GPTVQ_INT) {
        gptvq_node *index = constant(p, p->at++->number);
        node = pair(p, GPTVQ_NODE_ITEM, GPTVQ_STRING(""), node, index);
      } else {
        node = pair(p, GPTVQ_NODE_ATTRIBUTE, gptvq_tpl_expect_name(p), node, NULL);
      }
    } else if (gptvq_tpl_skip_operator(p, "[")) {
      node = parse_subscript(p, node);
    } else if (gptvq_tpl_at_operator(p, "(")) {
      node = parse_call(p, node);
    } else {
      return node;
    }
  }
}

/* a or a.b.c: no filter or test is called that, but only who comes to it is told */
static gptvq_string parse_dotted_name(gptvq_parser *p) {
  gptvq_builder b = {0};
  gptvq_string name = gptvq_tpl_expect_name(p);
  while (gptvq_tpl_skip_operator(p, ".")) {
    gptvq_string more = gptvq_tpl_expect_name(p);
    if (b.size == 0) gptvq_tpl_build(p->t, &b, name.data, name.size);
    gptvq_tpl_build_text(p->t, &b, ".");
    gptvq_tpl_build(p->t, &b, more.data, more.size);
  }
  return b.size > 0 ? gptvq_tpl_built(&b) : name;
}

gptvq_node *gptvq_tpl_parse_filter(gptvq_parser *p, gptvq_node *of) {
  gptvq_node *node = gptvq_tpl_node_new(p, GPTVQ_NODE_FILTER);
  node->name = parse_dotted_name(p);
  node->a = of;
  if (gptvq_tpl_at_operator(p, "(")) parse_arguments(p, &node->items);
  return node;
}

gptvq_node *gptvq_tpl_parse_filters(gptvq_parser *p, gptvq_node *of) {
  while (gptvq_tpl_skip_operator(p, "|")) of = gptvq_tpl_parse_filter(p, of);
  return of;
}

static gptvq_node *parse_test(gptvq_parser *p, gptvq_node *of) {
  gptvq_node *node = gptvq_tpl_node_new(p, GPTVQ_NODE_TEST);
  bool negated = gptvq_tpl_skip_name(p, "not");
  node->name = parse_dotted_name(p);
  node->a = of;
  if (gptvq_tpl_at_operator(p, "(")) {
    parse_arguments(p, &node->items);
  } else if (p->at->kind == GPTVQ_TOKEN_STRING || p->at->kind == GPTVQ_TOKEN_NUMBER ||
             gptvq_tpl_at_operator(p, "[") || gptvq_tpl_at_operator(p, "{") ||
             (p->at->kind == GPTVQ_TOKEN_NAME && !gptvq_tpl_at_name(p, "else") &&
              !gptvq_tpl_at_name(p, "or") && !gptvq_tpl_at_name(p, "and"))) {
    if (gptvq_tpl_at_name(p, "is")) gptvq_tpl_fail_token(p, "one test: they cannot be chained");
    gptvq_tpl_nodes_add(p, &node->items, parse_postfix(p, gptvq_tpl_parse_primary(p)));
  }
  return negated ? pair(p, GPTVQ_NODE_NOT, GPTVQ_STRING(""), node, NULL) : node;
}

static gptvq_node *parse_unary(gptvq_parser *p, bool with_filters) {
  gptvq_node *node;
  gptvq_tpl_nest(p);
  if (gptvq_tpl_at_operator(p, "-") || gptvq_tpl_at_operator(p, "+")) {
    gptvq_string sign = p->at++->text;
    node = pair(p, GPTVQ_NODE_SIGN, sign, parse_unary(p, false), NULL);
  } else {
    node = gptvq_tpl_parse_primary(p);
  }
  node = parse_postfix(p, node);
  while (with_filters) {
    if (gptvq_tpl_at_operator(p, "|")) node = gptvq_tpl_parse_filters(p, node);
    else if (gptvq_tpl_skip_name(p, "is")) node = parse_test(p, node);
    else if (gptvq_tpl_at_operator(p, "(")) node = parse_call(p, node);
    else break;
  }
  p->nesting--;
  return node;
}

/* ---- operators, tightest first ---- */

static const char *const power[] = {"**", NULL}, *const product[] = {"*", "/", "//", "%", NULL},
                         *const sum[] = {"+", "-", NULL};

static bool at_one_of(const gptvq_parser *p, const char *const *operators) {
  for (; *operators != NULL; operators++)
    if (gptvq_tpl_at_operator(p, *operators)) return true;
  return false;
}

static gptvq_node *parse_power(gptvq_parser *p) {
  gptvq_node *left = parse_unary(p, true);
  while (at_one_of(p, power)) {
    gptvq_string name = p->at++->text;
    left = pair(p, GPTVQ_NODE_BINARY, name, left, parse_unary(p, true));
  }
  return left;
}

static gptvq_node *parse_product(gptvq_parser *p) {
  gptvq_node *left = parse_power(p);
  while (at_one_of(p, product)) {
    gptvq_string name = p->at++->text;
    left = pair(p, GPTVQ_NODE_BINARY, name, left, parse_power(p));
  }
  return left;
}

static gptvq_node *parse_concat(gptvq_parser *p) {
  gptvq_node *first = parse_product(p);
  if (!gptvq_tpl_at_operator(p, "~")) return first;
  gptvq_node *node = gptvq_tpl_node_new(p, GPTVQ_NODE_CONCAT);
  gptvq_tpl_nodes_add(p, &node->items, first);
  while (gptvq_tpl_skip_operator(p, "~")) gptvq_tpl_nodes_add(p, &node->items, parse_product(p));
  return node;
}

static gptvq_node *parse_sum(gptvq_parser *p) {
  gptvq_node *left = parse_concat(p);
  while (at_one_of(p, sum)) {
    gptvq_string name = p->at++->text;
    left = pair(p, GPTVQ_NODE_BINARY, name, left, parse_concat(p));
  }
  return left;
}

static gptvq_node *parse_compare(gptvq_parser *p) {
  static const char *const compared[] = {"==", "!=", "<", "<=", ">", ">=", NULL};
  gptvq_node *first = parse_sum(p), *node = NULL;
  for (;;) {
    gptvq_string name = p->at->text;
    if (at_one_of(p, compared)) {
      p->at++;
    } else if (gptvq_tpl_skip_name(p, "in")) {
      name = GPTVQ_STRING("in");
    } else if (gptvq_tpl_at_name(p, "not") && p->at[1].kind == GPTVQ_TOKEN_NAME &&
               gptvq_string_is(p->at[1].text, "in")) {
      p->at += 2;
      name = GPTVQ_STRING("not in");
    } else {
      return node != NULL ? node : first;
    }
    if (node == NULL) node = pair(p, GPTVQ_NODE_COMPARE, GPTVQ_STRING(""), first, NULL);
    gptvq_tpl_nodes_add(p, &node->items, pair(p, GPTVQ_NODE_COMPARED, name, parse_sum(p), NULL));
  }
}

static gptvq_node *parse_not(gptvq_parser *p) {
  if (!gptvq_tpl_skip_name(p, "not")) return parse_compare(p);
  gptvq_tpl_nest(p);
  gptvq_node *node = pair(p, GPTVQ_NODE_NOT, GPTVQ_STRING(""), parse_not(p), NULL);
  p->nesting--;
  return node;
}

static gptvq_node *parse_and(gptvq_parser *p) {
  gptvq_node *left = parse_not(p);
  while (gptvq_tpl_skip_name(p, "and")) left = pair(p, GPTVQ_NODE_AND, GPTVQ_STRING(""), left, parse_not(p));
  return left;
}

gptvq_node *gptvq_tpl_parse_or(gptvq_parser *p) {
  gptvq_node *left = parse_and(p);
  while (gptvq_tpl_skip_name(p, "or")) left = pair(p, GPTVQ_NODE_OR, GPTVQ_STRING(""), left, parse_and(p));
  return left;
}

gptvq_node *gptvq_tpl_parse_expression(gptvq_parser *p) {
  gptvq_tpl_nest(p);
  gptvq_node *node = gptvq_tpl_parse_or(p);
  while (gptvq_tpl_skip_name(p, "if")) {
    node = pair(p, GPTVQ_NODE_CHOICE, GPTVQ_STRING(""), node, gptvq_tpl_parse_or(p));
    if (gptvq_tpl_skip_name(p, "else")) node->c = gptvq_tpl_parse_expression(p);
  }
  p->nesting--;
  return node;
}
