#include "server/api/error.h"

#include "base/json.h"

#include <stdarg.h>
#include <stdio.h>

bool gptvq_api_fail(gptvq_api_error *error, unsigned http, const char *code, const char *param,
                    const char *format, ...) {
  va_list args;
  error->http = http;
  error->code = code;
  error->param = param;
  va_start(args, format);
  (void)vsnprintf(error->message, sizeof error->message, format, args);
  va_end(args);
  for (char *c = error->message; *c != '\0'; c++)
    if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
  return false;
}

bool gptvq_api_no_memory(gptvq_api_error *error) {
  return gptvq_api_fail(error, 503, "out_of_memory", NULL, "the server is out of memory");
}

bool gptvq_api_fail_as(gptvq_api_error *error, const gptvq_error *why) {
  unsigned http = 500;
  switch (why->status) {
  case GPTVQ_ERROR_ARGUMENT:
  case GPTVQ_ERROR_DATA:
  case GPTVQ_ERROR_UNSUPPORTED: http = 400; break;
  case GPTVQ_ERROR_MEMORY: return gptvq_api_no_memory(error);
  case GPTVQ_ERROR_CANCELLED: http = 504; break;
  default: break;
  }
  return gptvq_api_fail(error, http, http == 504 ? "timeout" : NULL, NULL, "%s", why->message);
}

static const char *type_of(unsigned http) {
  switch (http) {
  case 401: return "authentication_error";
  case 403: return "permission_error";
  case 429:
  case 503: return "overloaded_error";
  default: return http >= 500 ? "server_error" : "invalid_request_error";
  }
}

char *gptvq_api_error_text(const gptvq_api_error *error) {
  json_t *message = json_string(error->message); /* a quoted piece of a text may be cut within a character */
  if (message == NULL) message = json_string("the request cannot be answered");
  json_t *all = json_pack("{s:{s:o,s:s,s:s?,s:s?}}", "error", "message", message, "type",
                          type_of(error->http), "param", error->param, "code", error->code);
  char *text = all != NULL ? gptvq_json_dump(all, JSON_COMPACT) : NULL;
  json_decref(all);
  return text;
}
