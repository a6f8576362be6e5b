/* server/api/maker.h: the JSON of answers, in pieces that replies and events share. What cannot be made for
 * want of memory shows at the end. */
#ifndef GPTVQ_SERVER_API_MAKER_H
#define GPTVQ_SERVER_API_MAKER_H

#include "server/api/call.h"

typedef struct gptvq_maker {
  const gptvq_service *service;
  bool failed;
} gptvq_maker;

/* Takes value. */
void gptvq_make_set(gptvq_maker *m, json_t *object, const char *key, json_t *value);
void gptvq_make_append(gptvq_maker *m, json_t *array, json_t *value);
/* {"id": …, "object": …, "created": …, "model": …, "choices": []} */
json_t *gptvq_make_head(gptvq_maker *m, const gptvq_call *call, const char *kind);
/* Tokens [begin, end) of a job's answer: as completions have logprobs, with those of the prompt before them
 * where prompt is set, or as chats have them. */
json_t *gptvq_make_logprobs(gptvq_maker *m, const gptvq_call *call, size_t job, size_t begin, size_t end,
                            bool prompt);
/* What the prompt of a job says: as it was given, or its tokens' text. */
json_t *gptvq_make_echo(gptvq_maker *m, const gptvq_call *call, size_t job, const char *behind, size_t size);
/* "stop", "length", or null */
json_t *gptvq_make_finish(gptvq_finish finish);
json_t *gptvq_make_usage(gptvq_maker *m, const gptvq_call *call);

#endif
