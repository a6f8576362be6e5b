/* server/api/error.h: errors as OpenAI's clients know them. */
#ifndef GPTVQ_SERVER_API_ERROR_H
#define GPTVQ_SERVER_API_ERROR_H

#include <gptvq/status.h>
#include <stdbool.h>

typedef struct gptvq_api_error {
  unsigned http;     /* status code */
  const char *code;  /* "context_length_exceeded", or NULL */
  const char *param; /* the member of the request that is wrong, or NULL; a constant */
  char message[640]; /* one line */
} gptvq_api_error;

/* Always false. */
bool gptvq_api_fail(gptvq_api_error *error, unsigned http, const char *code, const char *param,
                    const char *format, ...) __attribute__((format(printf, 5, 6)));
/* What the library could not do with what a client sent, or the server for its own reasons. */
bool gptvq_api_fail_as(gptvq_api_error *error, const gptvq_error *why);
bool gptvq_api_no_memory(gptvq_api_error *error);

/* {"error": {…}}, to be released with free(); NULL: out of memory. */
char *gptvq_api_error_text(const gptvq_api_error *error);

#endif
