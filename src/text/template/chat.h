/* text/template/chat.h: the templates of a model folder. */
#ifndef GPTVQ_TEXT_TEMPLATE_CHAT_H
#define GPTVQ_TEXT_TEMPLATE_CHAT_H

#include "text/template/tree.h"

#include <gptvq/chat.h>

/* One template, read. */
typedef struct gptvq_template {
  char *name; /* of its file */
  gptvq_tpl tpl;
  gptvq_nodes body;
} gptvq_template;

struct gptvq_chat {
  gptvq_template usual, with_tools; /* with_tools.name NULL: the usual one */
  json_t *tokens;                   /* name -> text */
};

gptvq_status gptvq_template_read(gptvq_template *out, const char *name, const char *source, size_t size,
                                 gptvq_error *err);
void gptvq_template_release(gptvq_template *template);

#endif
