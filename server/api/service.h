/* server/api/service.h: what all requests are answered with. Immutable while there are requests. */
#ifndef GPTVQ_SERVER_API_SERVICE_H
#define GPTVQ_SERVER_API_SERVICE_H

#include "server/scheduler.h"

typedef struct gptvq_service {
  const gptvq_model *model;
  const gptvq_tokenizer *tokenizer;
  const gptvq_chat *chat; /* NULL: `no_chat` says why there is none */
  char no_chat[512];
  const char *name;            /* of the model, for clients */
  size_t ctx, vocab, queue;    /* tokens of a text; of the vocabulary; jobs of a request at most */
  int32_t bos, eos;            /* -1: none */
  int32_t end_of_turn, anchor; /* of answers in a chat; a token that others are shown behind */
  size_t anchor_size;          /* bytes of its text */
  double timeout;              /* seconds of a request; 0: any */
  int64_t created;             /* seconds since 1970 */
  gptvq_scheduler *scheduler;
} gptvq_service;

/* Fills vocab, bos, eos, end_of_turn and the anchor; the rest is there already. */
gptvq_status gptvq_service_look(gptvq_service *service, gptvq_error *err);
/* The text that a token adds to others, special ones too (gptvq_free); U+FFFD for parts of characters. NULL:
 * out of memory. */
char *gptvq_service_token(const gptvq_service *service, int32_t id, size_t *size);

#endif
