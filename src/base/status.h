/* base/status.h: making and forwarding errors inside the library. */
#ifndef GPTVQ_BASE_STATUS_H
#define GPTVQ_BASE_STATUS_H

#include <gptvq/status.h>

/* Writes the message (first failure wins nothing: the last writer does) and returns `status`. err may be
 * NULL. */
gptvq_status gptvq_fail(gptvq_error *err, gptvq_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* "out of memory: CONTEXT needs N bytes" */
gptvq_status gptvq_fail_memory(gptvq_error *err, const char *context, size_t bytes);

/* Returns from the calling function when the expression fails. Use only where nothing needs to be released.
 */
#define GPTVQ_TRY(expression) \
  do { \
    gptvq_status gptvq_try_ = (expression); \
    if (gptvq_try_ != GPTVQ_OK) return gptvq_try_; \
  } while (0)

/* As GPTVQ_TRY, but stores the status in the local variable `status` and jumps to the label `done`. */
#define GPTVQ_TRY_GOTO(expression) \
  do { \
    status = (expression); \
    if (status != GPTVQ_OK) goto done; \
  } while (0)

/* Log and progress helpers; callbacks may be NULL. */
void gptvq_log(const gptvq_callbacks *callbacks, gptvq_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* GPTVQ_OK or GPTVQ_ERROR_CANCELLED with a message. */
gptvq_status gptvq_report_progress(const gptvq_callbacks *callbacks, const char *phase, const char *item,
                                   size_t done, size_t total, double value, gptvq_error *err);
#endif
