/* eval/task.h: questions with choices. */
#ifndef GPTVQ_EVAL_TASK_H
#define GPTVQ_EVAL_TASK_H

#include "base/json.h"
#include "base/status.h"

/* One line of a task; strings belong to json. */
typedef struct gptvq_question {
  json_t *json; /* owned */
  size_t line;  /* from 1 */
  const char *text;
  size_t size;
  const json_t *choices; /* at least two texts */
  size_t answer;         /* number of the right one */
} gptvq_question;

typedef struct gptvq_questions {
  gptvq_question *items; /* [count], owned */
  size_t count;
} gptvq_questions;

/* The first `most` (0: all) questions of a text of JSON lines; empty lines are none. GPTVQ_ERROR_DATA names
 * the line. On success the caller releases *out. */
gptvq_status gptvq_questions_read(const char *name, const char *text, size_t size, size_t most,
                                  gptvq_questions *out, gptvq_error *err);
void gptvq_questions_release(gptvq_questions *questions);

#endif
