/* server/api/call.h: a request to /v1/completions or /v1/chat/completions, from its body to its answer. */
#ifndef GPTVQ_SERVER_API_CALL_H
#define GPTVQ_SERVER_API_CALL_H

#include "server/api/error.h"
#include "server/api/service.h"

#include <jansson.h>

/* What of a job's answer has been sent as events. */
typedef struct gptvq_sent {
  size_t text, tokens; /* bytes, tokens */
  bool begun, finished;
} gptvq_sent;

/* A text that a prompt was given as. */
typedef struct gptvq_given {
  const char *text; /* NULL: as token ids; lives as long as the body */
  size_t size;
} gptvq_given;

enum { GPTVQ_CALL_SCORES = 1 << 20 }; /* log probabilities of prompts, alternatives included, in a reply */

typedef struct gptvq_call {
  const gptvq_service *service;
  bool chat;
  json_t *body;
  bool stream, usage, echo, logprobs; /* usage: in the last event */
  size_t prompts, n;                  /* jobs: n of each prompt, those of a prompt follow each other */
  size_t scored;                      /* log probabilities of prompts so far */
  gptvq_given *given;                 /* [prompts]; NULL for chats */
  gptvq_request *request;
  char id[40];
  int64_t created;  /* seconds since 1970 */
  gptvq_sent *sent; /* [prompts × n] */
  bool done;        /* all events are out */
} gptvq_call;

/* Reads a body, of which nothing is kept. On failure *call is empty. */
bool gptvq_call_read(const gptvq_service *service, bool chat, const char *body, size_t size, gptvq_call *call,
                     gptvq_api_error *error);
/* When the scheduler does not have its request any more. */
void gptvq_call_release(gptvq_call *call);

/* Have all jobs finished? */
bool gptvq_call_finished(const gptvq_call *call);
/* The first job that failed, as an error; true: none did. All have finished. */
bool gptvq_call_check(const gptvq_call *call, gptvq_api_error *error);
/* The answer of a call whose jobs have all finished: JSON to be released with free(); NULL: out of memory. */
char *gptvq_call_reply(const gptvq_call *call);
/* What has been added since the last time, as server-sent events, to be released with free(); *size 0: there
 * is nothing new. After the last one call->done is true. NULL: out of memory. */
char *gptvq_call_events(gptvq_call *call, size_t *size);

/* ---- reading, in pieces ---- */

/* call->request of prompts × n jobs, their seeds, and all that both kinds of call have. */
bool gptvq_call_options(gptvq_call *call, gptvq_api_error *error);
/* The ids of a prompt for its n jobs; takes ids (malloc), also when it fails. */
bool gptvq_call_prompt(gptvq_call *call, size_t prompt, int32_t *ids, size_t count, gptvq_api_error *error);
bool gptvq_call_prompts(gptvq_call *call, gptvq_api_error *error);  /* of completions */
bool gptvq_call_messages(gptvq_call *call, gptvq_api_error *error); /* of chats */

#endif
