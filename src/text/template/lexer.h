/* text/template/lexer.h: a template's source as tokens, cut as jinja2's lexer does with trim_blocks and
 * lstrip_blocks. */
#ifndef GPTVQ_TEXT_TEMPLATE_LEXER_H
#define GPTVQ_TEXT_TEMPLATE_LEXER_H

#include "text/template/value.h"

typedef enum gptvq_token_kind {
  GPTVQ_TOKEN_END,
  GPTVQ_TOKEN_DATA, /* text between tags; in `text` */
  GPTVQ_TOKEN_BLOCK_BEGIN,
  GPTVQ_TOKEN_BLOCK_END,
  GPTVQ_TOKEN_PRINT_BEGIN,
  GPTVQ_TOKEN_PRINT_END,
  GPTVQ_TOKEN_NAME,
  GPTVQ_TOKEN_STRING, /* escapes resolved, in `text` */
  GPTVQ_TOKEN_NUMBER, /* in `number` */
  GPTVQ_TOKEN_OPERATOR
} gptvq_token_kind;

typedef struct gptvq_token {
  gptvq_token_kind kind;
  int line;
  gptvq_string text;
  gptvq_value number;
} gptvq_token;

/* All tokens of a source, GPTVQ_TOKEN_END last. Errors leave through t. */
gptvq_token *gptvq_tpl_lex(gptvq_tpl *t, gptvq_string source);

#endif
