/* cli/conversation.h: what gptvq chat talks about, and to whom. */
#ifndef GPTVQ_CLI_CONVERSATION_H
#define GPTVQ_CLI_CONVERSATION_H

#include "cli.h"

typedef struct gptvq_conversation {
  gptvq_cli_writer writer;
  const char *system, *template_file; /* options; NULL: none */
  size_t most, context; /* tokens of an answer (0: as many as fit), and of all that is remembered */
  gptvq_chat *chat;
  json_t *messages; /* as the template gets them */
} gptvq_conversation;

/* Exit codes, after an error line. */
int gptvq_conversation_open(gptvq_conversation *c, const char *path);
/* Replaces the system message; empty: there is none. */
int gptvq_conversation_set_system(gptvq_conversation *c, const char *text, size_t size);
void gptvq_conversation_forget(gptvq_conversation *c); /* all messages but the system's */
/* Says something and prints the answer (with json: keeps it), which an interruption ends. On failure the
 * conversation is what it was before, but for turns that were left out. */
int gptvq_conversation_say(gptvq_conversation *c, const char *text, size_t size);
void gptvq_conversation_close(gptvq_conversation *c);

#endif
