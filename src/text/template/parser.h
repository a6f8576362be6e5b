/* text/template/parser.h: what the two halves of the parser share. */
#ifndef GPTVQ_TEXT_TEMPLATE_PARSER_H
#define GPTVQ_TEXT_TEMPLATE_PARSER_H

#include "text/template/lexer.h"
#include "text/template/tree.h"

typedef struct gptvq_parser {
  gptvq_tpl *t;
  const gptvq_token *at;
  size_t nesting, loops;                    /* of blocks and expressions; of loops around the statement */
  gptvq_node *macro[GPTVQ_TPL_MAX_NESTING]; /* the macros around it */
  size_t macros;
} gptvq_parser;

gptvq_node *gptvq_tpl_node_new(gptvq_parser *p, gptvq_node_kind kind);
void gptvq_tpl_nodes_add(gptvq_parser *p, gptvq_nodes *nodes, gptvq_node *node);

/* Is the current token this operator, this name? The second kind goes on when it is. */
bool gptvq_tpl_at_operator(const gptvq_parser *p, const char *text);
bool gptvq_tpl_at_name(const gptvq_parser *p, const char *text);
bool gptvq_tpl_skip_operator(gptvq_parser *p, const char *text);
bool gptvq_tpl_skip_name(gptvq_parser *p, const char *text);
void gptvq_tpl_expect(gptvq_parser *p, const char *operator_text);
gptvq_string gptvq_tpl_expect_name(gptvq_parser *p);
_Noreturn void gptvq_tpl_fail_token(gptvq_parser *p, const char *expected);
void gptvq_tpl_nest(gptvq_parser *p); /* undone by p->nesting-- */

gptvq_node *gptvq_tpl_parse_expression(gptvq_parser *p);
gptvq_node *gptvq_tpl_parse_or(gptvq_parser *p); /* an expression without `if` */
/* Expressions with commas between them are a tuple. choice: with inline ifs. stop: a name that ends it, or
 * NULL */
gptvq_node *gptvq_tpl_parse_tuple(gptvq_parser *p, bool choice, const char *stop);
gptvq_node *gptvq_tpl_parse_primary(gptvq_parser *p);
gptvq_node *gptvq_tpl_parse_filters(gptvq_parser *p, gptvq_node *of); /* | name | name … */
gptvq_node *gptvq_tpl_parse_filter(gptvq_parser *p, gptvq_node *of);  /* name(…) */

#endif
