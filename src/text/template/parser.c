/* Statements, by the grammar of jinja2.parser; what only makes sense for templates that name other templates
 * (include, import, extends, block) is refused. */
#include "text/template/parser.h"

/* ---- tokens and nodes ---- */

gptvq_node *gptvq_tpl_node_new(gptvq_parser *p, gptvq_node_kind kind) {
  gptvq_node *node = gptvq_tpl_alloc(p->t, 1, sizeof *node);
  memset(node, 0, sizeof *node);
  node->kind = kind;
  node->line = p->at->line;
  return node;
}

void gptvq_tpl_nodes_add(gptvq_parser *p, gptvq_nodes *nodes, gptvq_node *node) {
  if (nodes->count == nodes->room) {
    size_t room = gptvq_max_size(4, 2 * nodes->room);
    gptvq_node **items = gptvq_tpl_alloc(p->t, room, sizeof *items);
    if (nodes->count > 0) memcpy(items, nodes->items, nodes->count * sizeof *items);
    nodes->items = items;
    nodes->room = room;
  }
  nodes->items[nodes->count++] = node;
}

static bool at_token(const gptvq_parser *p, gptvq_token_kind kind, const char *text) {
  return p->at->kind == kind && gptvq_string_is(p->at->text, text);
}
bool gptvq_tpl_at_operator(const gptvq_parser *p, const char *text) {
  return at_token(p, GPTVQ_TOKEN_OPERATOR, text);
}
bool gptvq_tpl_at_name(const gptvq_parser *p, const char *text) {
  return at_token(p, GPTVQ_TOKEN_NAME, text);
}
bool gptvq_tpl_skip_operator(gptvq_parser *p, const char *text) {
  bool there = gptvq_tpl_at_operator(p, text);
  p->at += there;
  return there;
}
bool gptvq_tpl_skip_name(gptvq_parser *p, const char *text) {
  bool there = gptvq_tpl_at_name(p, text);
  p->at += there;
  return there;
}

void gptvq_tpl_fail_token(gptvq_parser *p, const char *expected) {
  p->t->line = p->at->line;
  gptvq_tpl_fail(p->t, GPTVQ_ERROR_FORMAT, "expected %s before '%.*s'", expected,
                 (int)gptvq_min_size(p->at->text.size, 60), p->at->text.data);
}

void gptvq_tpl_expect(gptvq_parser *p, const char *operator_text) {
  char quoted[8] = "'";
  if (gptvq_tpl_skip_operator(p, operator_text)) return;
  gptvq_tpl_fail_token(p, strcat(strcat(quoted, operator_text), "'"));
}

gptvq_string gptvq_tpl_expect_name(gptvq_parser *p) {
  if (p->at->kind != GPTVQ_TOKEN_NAME) gptvq_tpl_fail_token(p, "a name");
  return p->at++->text;
}

void gptvq_tpl_nest(gptvq_parser *p) {
  p->t->line = p->at->line;
  if (++p->nesting > GPTVQ_TPL_MAX_NESTING)
    gptvq_tpl_fail(p->t, GPTVQ_ERROR_UNSUPPORTED, "more than %d levels of expressions and blocks",
                   GPTVQ_TPL_MAX_NESTING);
}

/* ---- bodies ---- */

static gptvq_node *parse_statement(gptvq_parser *p);

static void end_tag(gptvq_parser *p) {
  if (p->at->kind != GPTVQ_TOKEN_BLOCK_END) gptvq_tpl_fail_token(p, "'%}'");
  p->at++;
}

static bool at_one_of(const gptvq_parser *p, const char *const *names) {
  for (; *names != NULL; names++)
    if (gptvq_tpl_at_name(p, *names)) return true;
  return false;
}

/* Statements up to one of the tags `ends` (NULL: up to the end of the template), whose name is then the
 * current token. */
static gptvq_nodes parse_body(gptvq_parser *p, const char *const *ends) {
  gptvq_nodes body = {0};
  const gptvq_token *begin = p->at;
  gptvq_tpl_nest(p);
  for (;;) {
    gptvq_node *node;
    switch (p->at->kind) {
    case GPTVQ_TOKEN_DATA:
      node = gptvq_tpl_node_new(p, GPTVQ_NODE_DATA);
      node->name = p->at++->text;
      break;
    case GPTVQ_TOKEN_PRINT_BEGIN:
      node = gptvq_tpl_node_new(p, GPTVQ_NODE_PRINT);
      p->at++;
      gptvq_tpl_nodes_add(p, &node->items, gptvq_tpl_parse_tuple(p, true, NULL));
      if (p->at->kind != GPTVQ_TOKEN_PRINT_END) gptvq_tpl_fail_token(p, "'}}'");
      p->at++;
      break;
    case GPTVQ_TOKEN_BLOCK_BEGIN:
      p->at++;
      if (ends != NULL && at_one_of(p, ends)) {
        p->nesting--;
        return body;
      }
      node = parse_statement(p);
      end_tag(p);
      break;
    default:
      if (ends == NULL) return body;
      p->t->line = begin->line;
      gptvq_tpl_fail(p->t, GPTVQ_ERROR_FORMAT, "a block that begins here has no {%% %s %%}", ends[0]);
    }
    gptvq_tpl_nodes_add(p, &body, node);
  }
}

/* The rest of a tag, and the statements up to one of `ends`. */
static gptvq_nodes parse_block(gptvq_parser *p, const char *const *ends) {
  (void)gptvq_tpl_skip_operator(p, ":");
  end_tag(p);
  return parse_body(p, ends);
}

static gptvq_nodes parse_block_to(gptvq_parser *p, const char *end) {
  const char *const ends[] = {end, NULL};
  gptvq_nodes body = parse_block(p, ends);
  p->at++;
  return body;
}

/* ---- targets ---- */

static gptvq_node *parse_one_target(gptvq_parser *p, bool members) {
  bool name = p->at->kind == GPTVQ_TOKEN_NAME;
  gptvq_node *node = gptvq_tpl_parse_primary(p);
  if (name && members && gptvq_tpl_skip_operator(p, ".")) {
    node->kind = GPTVQ_NODE_MEMBER;
    node->value = gptvq_text(gptvq_tpl_expect_name(p));
  }
  bool fine =
      node->kind == GPTVQ_NODE_NAME || node->kind == GPTVQ_NODE_MEMBER || node->kind == GPTVQ_NODE_TUPLE;
  for (size_t i = 0; fine && node->kind == GPTVQ_NODE_TUPLE && i < node->items.count; i++)
    fine = node->items.items[i]->kind == GPTVQ_NODE_NAME;
  if (!fine) gptvq_tpl_fail_token(p, "a name to assign to");
  return node;
}

/* a, or a, b, … up to `stop` (an operator or a name) */
static gptvq_node *parse_target(gptvq_parser *p, bool members, const char *stop) {
  gptvq_node *first = parse_one_target(p, members);
  if (!gptvq_tpl_at_operator(p, ",")) return first;
  gptvq_node *node = gptvq_tpl_node_new(p, GPTVQ_NODE_TUPLE);
  gptvq_tpl_nodes_add(p, &node->items, first);
  while (gptvq_tpl_skip_operator(p, ",") && !gptvq_tpl_at_name(p, stop) && !gptvq_tpl_at_operator(p, stop))
    gptvq_tpl_nodes_add(p, &node->items, parse_one_target(p, members));
  return node;
}

/* ---- statements ---- */

static gptvq_node *parse_set(gptvq_parser *p, gptvq_node *node) {
  node->a = parse_target(p, true, "=");
  if (gptvq_tpl_skip_operator(p, "=")) {
    node->kind = GPTVQ_NODE_SET;
    node->b = gptvq_tpl_parse_tuple(p, true, NULL);
    return node;
  }
  node->kind = GPTVQ_NODE_SET_BODY;
  node->b = gptvq_tpl_parse_filters(p, NULL);
  node->body = parse_block_to(p, "endset");
  return node;
}

static gptvq_node *parse_for(gptvq_parser *p, gptvq_node *node) {
  static const char *const ends[] = {"endfor", "else", NULL};
  node->kind = GPTVQ_NODE_FOR;
  node->a = parse_target(p, false, "in");
  if (!gptvq_tpl_skip_name(p, "in")) gptvq_tpl_fail_token(p, "'in'");
  node->b = gptvq_tpl_parse_tuple(p, false, "recursive");
  if (gptvq_tpl_skip_name(p, "if")) node->c = gptvq_tpl_parse_expression(p);
  if (gptvq_tpl_at_name(p, "recursive"))
    gptvq_tpl_fail(p->t, GPTVQ_ERROR_UNSUPPORTED, "recursive loops are not supported");
  p->loops++;
  node->body = parse_block(p, ends);
  p->loops--;
  if (gptvq_string_is(p->at++->text, "else")) node->other = parse_block_to(p, "endfor");
  return node;
}

static gptvq_node *parse_if(gptvq_parser *p, gptvq_node *node) {
  static const char *const ends[] = {"endif", "elif", "else", NULL};
  for (gptvq_node *branch = node;;) { /* an elif is an if in the else: its depth does not count */
    branch->kind = GPTVQ_NODE_IF;
    branch->a = gptvq_tpl_parse_tuple(p, false, NULL);
    branch->body = parse_block(p, ends);
    gptvq_string end = p->at++->text;
    if (gptvq_string_is(end, "else")) branch->other = parse_block_to(p, "endif");
    if (!gptvq_string_is(end, "elif")) return node;
    gptvq_node *next = gptvq_tpl_node_new(p, GPTVQ_NODE_IF);
    gptvq_tpl_nodes_add(p, &branch->other, next);
    branch = next;
  }
}

static gptvq_node *parse_with(gptvq_parser *p, gptvq_node *node) {
  node->kind = GPTVQ_NODE_WITH;
  while (p->at->kind != GPTVQ_TOKEN_BLOCK_END) {
    if (node->items.count > 0) gptvq_tpl_expect(p, ",");
    gptvq_tpl_nodes_add(p, &node->items, parse_one_target(p, false));
    gptvq_tpl_expect(p, "=");
    gptvq_tpl_nodes_add(p, &node->items, gptvq_tpl_parse_expression(p));
  }
  node->body = parse_block_to(p, "endwith");
  return node;
}

static void parse_parameters(gptvq_parser *p, gptvq_node *node) {
  bool defaults = false;
  gptvq_tpl_expect(p, "(");
  while (!gptvq_tpl_at_operator(p, ")")) {
    if (node->items.count > 0) gptvq_tpl_expect(p, ",");
    gptvq_node *parameter = gptvq_tpl_node_new(p, GPTVQ_NODE_NAME);
    parameter->name = gptvq_tpl_expect_name(p);
    if (gptvq_tpl_skip_operator(p, "=")) parameter->a = gptvq_tpl_parse_expression(p);
    else if (defaults) gptvq_tpl_fail_token(p, "a default, as the parameters before have one,");
    defaults = defaults || parameter->a != NULL;
    gptvq_tpl_nodes_add(p, &node->items, parameter);
  }
  gptvq_tpl_expect(p, ")");
}

/* The body of a macro or call: loops outside of it cannot be broken out of. */
static void parse_macro_body(gptvq_parser *p, gptvq_node *node, const char *end) {
  size_t loops = p->loops;
  p->loops = 0;
  if (p->macros == GPTVQ_TPL_MAX_NESTING) gptvq_tpl_fail_token(p, "fewer macros inside of macros");
  p->macro[p->macros++] = node;
  node->body = parse_block_to(p, end);
  p->macros--;
  p->loops = loops;
}

static gptvq_node *parse_macro(gptvq_parser *p, gptvq_node *node) {
  node->kind = GPTVQ_NODE_MACRO;
  node->name = gptvq_tpl_expect_name(p);
  parse_parameters(p, node);
  parse_macro_body(p, node, "endmacro");
  return node;
}

static gptvq_node *parse_caller(gptvq_parser *p, gptvq_node *node) {
  node->kind = GPTVQ_NODE_CALLER;
  node->name = GPTVQ_STRING("caller");
  if (gptvq_tpl_at_operator(p, "(")) parse_parameters(p, node);
  node->a = gptvq_tpl_parse_expression(p);
  if (node->a->kind != GPTVQ_NODE_CALL) gptvq_tpl_fail_token(p, "a call");
  parse_macro_body(p, node, "endcall");
  return node;
}

static gptvq_node *parse_filtered(gptvq_parser *p, gptvq_node *node) {
  node->kind = GPTVQ_NODE_FILTERED;
  node->a = gptvq_tpl_parse_filters(p, gptvq_tpl_parse_filter(p, NULL));
  node->body = parse_block_to(p, "endfilter");
  return node;
}

static gptvq_node *parse_generation(gptvq_parser *p, gptvq_node *node) {
  node->kind = GPTVQ_NODE_SCOPED;
  parse_macro_body(p, node, "endgeneration");
  return node;
}

static gptvq_node *parse_print(gptvq_parser *p, gptvq_node *node) {
  node->kind = GPTVQ_NODE_PRINT;
  while (p->at->kind != GPTVQ_TOKEN_BLOCK_END) {
    if (node->items.count > 0) gptvq_tpl_expect(p, ",");
    gptvq_tpl_nodes_add(p, &node->items, gptvq_tpl_parse_expression(p));
  }
  return node;
}

static gptvq_node *parse_jump(gptvq_parser *p, gptvq_node *node) {
  bool leaves = gptvq_string_is(p->at[-1].text, "break");
  if (p->loops == 0) gptvq_tpl_fail_token(p, "a loop around 'break' or 'continue'");
  node->kind = leaves ? GPTVQ_NODE_BREAK : GPTVQ_NODE_CONTINUE;
  return node;
}

static gptvq_node *parse_statement(gptvq_parser *p) {
  static const struct {
    const char *name;
    gptvq_node *(*parse)(gptvq_parser *p, gptvq_node *node);
  } statements[] = {{"if", parse_if},         {"for", parse_for},
                    {"set", parse_set},       {"macro", parse_macro},
                    {"call", parse_caller},   {"filter", parse_filtered},
                    {"with", parse_with},     {"generation", parse_generation},
                    {"print", parse_print},   {"break", parse_jump},
                    {"continue", parse_jump}, {"include", NULL},
                    {"import", NULL},         {"from", NULL},
                    {"extends", NULL},        {"block", NULL},
                    {"autoescape", NULL}};
  gptvq_node *node = gptvq_tpl_node_new(p, GPTVQ_NODE_SCOPED);
  p->t->line = p->at->line;
  gptvq_string name = gptvq_tpl_expect_name(p);
  int size = (int)gptvq_min_size(name.size, 60);
  for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
    if (!gptvq_string_is(name, statements[i].name)) continue;
    if (statements[i].parse != NULL) return statements[i].parse(p, node);
    gptvq_tpl_fail(p->t, GPTVQ_ERROR_UNSUPPORTED, "{%% %.*s %%} is not supported", size, name.data);
  }
  gptvq_tpl_fail(p->t, GPTVQ_ERROR_FORMAT, "unknown or misplaced tag '%.*s'", size, name.data);
}

gptvq_nodes gptvq_tpl_parse(gptvq_tpl *t, gptvq_string source) {
  gptvq_parser p = {.t = t, .at = gptvq_tpl_lex(t, source)};
  gptvq_nodes body = parse_body(&p, NULL);
  t->line = 0;
  return body;
}
