/* model/session.h: a running text, as session.c and batch.c see it. */
#ifndef GPTVQ_MODEL_SESSION_H
#define GPTVQ_MODEL_SESSION_H

#include "model/workspace.h"

#include <stdatomic.h>

struct gptvq_session {
  const gptvq_model *model;
  gptvq_workspace *workspace;
  size_t max_tokens, position, pass_rows;
  /* In models with states: those at `position` and those that the next call leaves, or while none has come
   * since, those at `before`; and those at `kept`, where the last prompt ended. SIZE_MAX: they are of no
   * position. Else NULL. */
  float *states, *other_states; /* the workspace's own and the first of `spare` */
  float *kept_states;           /* the second */
  float *spare;
  size_t before, kept;
  float *x; /* [pass_rows × hidden] */
  atomic_bool cancelled;
};

/* Could the tokens be appended? GPTVQ_ERROR_ARGUMENT: there is no room; GPTVQ_ERROR_DATA: an id outside of
 * the vocabulary. */
gptvq_status gptvq_session_check(const gptvq_session *session, const int32_t *tokens, size_t count,
                                 gptvq_error *err);

/* Around what appends tokens: a call that fails in between leaves the session as it was. The first pass of
 * several begins, each later one goes on. */
void gptvq_session_begin(gptvq_session *session);
void gptvq_session_go_on(gptvq_session *session);
void gptvq_session_commit(gptvq_session *session, size_t count);

#endif
