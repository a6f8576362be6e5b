/* model/session.h: a running text, as session.c and batch.c see it. */
#ifndef GPTVQ_MODEL_SESSION_H
#define GPTVQ_MODEL_SESSION_H

#include "model/workspace.h"

#include <stdatomic.h>

struct gptvq_session {
  const gptvq_model *model;
  gptvq_workspace *workspace;
  size_t max_tokens, position, pass_rows;
  float *x; /* [pass_rows × hidden] */
  atomic_bool cancelled;
};

/* Could the tokens be appended? GPTVQ_ERROR_ARGUMENT: there is no room; GPTVQ_ERROR_DATA: an id outside of
 * the vocabulary. */
gptvq_status gptvq_session_check(const gptvq_session *session, const int32_t *tokens, size_t count,
                                 gptvq_error *err);

#endif
