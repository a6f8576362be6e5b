#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *gptvq_status_name(gptvq_status status) {
  switch (status) {
  case GPTVQ_OK: return "GPTVQ_OK";
  case GPTVQ_ERROR_INTERNAL: return "GPTVQ_ERROR_INTERNAL";
  case GPTVQ_ERROR_ARGUMENT: return "GPTVQ_ERROR_ARGUMENT";
  case GPTVQ_ERROR_IO: return "GPTVQ_ERROR_IO";
  case GPTVQ_ERROR_FORMAT: return "GPTVQ_ERROR_FORMAT";
  case GPTVQ_ERROR_UNSUPPORTED: return "GPTVQ_ERROR_UNSUPPORTED";
  case GPTVQ_ERROR_NUMERIC: return "GPTVQ_ERROR_NUMERIC";
  case GPTVQ_ERROR_MEMORY: return "GPTVQ_ERROR_MEMORY";
  case GPTVQ_ERROR_DATA: return "GPTVQ_ERROR_DATA";
  case GPTVQ_ERROR_CANCELLED: return "GPTVQ_ERROR_CANCELLED";
  }
  return "GPTVQ_ERROR_UNKNOWN";
}

const char *gptvq_log_level_name(gptvq_log_level level) {
  switch (level) {
  case GPTVQ_LOG_INFO: return "info";
  case GPTVQ_LOG_WARNING: return "warning";
  }
  return "unknown";
}

const char *gptvq_version(void) { return GPTVQ_VERSION; }

/* A file or tensor name may hold anything: keep the message on one line. */
static void flatten(char *text) {
  for (; *text != '\0'; text++) {
    unsigned char c = (unsigned char)*text;
    if (c < 0x20 || c == 0x7f) *text = '?';
  }
}

gptvq_status gptvq_fail(gptvq_error *err, gptvq_status status, const char *format, ...) {
  if (err != NULL) {
    va_list args;
    va_start(args, format);
    char message[sizeof err->message]; /* the arguments may point into err->message itself */
    (void)vsnprintf(message, sizeof message, format, args);
    va_end(args);
    flatten(message);
    err->status = status;
    memcpy(err->message, message, sizeof message);
  }
  return status;
}

gptvq_status gptvq_fail_memory(gptvq_error *err, const char *context, size_t bytes) {
  if (bytes == SIZE_MAX)
    return gptvq_fail(err, GPTVQ_ERROR_MEMORY, "out of memory: the size of %s overflows", context);
  return gptvq_fail(err, GPTVQ_ERROR_MEMORY, "out of memory: %s needs %zu bytes", context, bytes);
}

void gptvq_log(const gptvq_callbacks *callbacks, gptvq_log_level level, const char *format, ...) {
  if (callbacks == NULL || callbacks->log == NULL) return;
  char line[1024];
  va_list args;
  va_start(args, format);
  (void)vsnprintf(line, sizeof line, format, args);
  va_end(args);
  flatten(line);
  callbacks->log(callbacks->user, level, line);
}

gptvq_status gptvq_report_progress(const gptvq_callbacks *callbacks, const char *phase, const char *item,
                                   size_t done, size_t total, double value, gptvq_error *err) {
  if (callbacks == NULL || callbacks->progress == NULL) return GPTVQ_OK;
  gptvq_progress progress = {sizeof progress, phase, item, done, total, value};
  if (callbacks->progress(callbacks->user, &progress) != 0)
    return gptvq_fail(err, GPTVQ_ERROR_CANCELLED, "stopped on request during %s", phase);
  return GPTVQ_OK;
}
