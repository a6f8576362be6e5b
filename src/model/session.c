#include "base/memory.h"
#include "model/forward.h"
#include "model/layer/norm.h"
#include "model/layer/vector.h"
#include "model/session.h"

#include <string.h>

/* Tokens per pass: enough for the matrix products to run at full speed, few enough that activations stay
 * small. */
enum { PASS_ROWS = 512 };

gptvq_status gptvq_embed(const gptvq_model *model, const int32_t *tokens, size_t n, float *x,
                         gptvq_error *err) {
  const gptvq_linear *table = &model->embedding;
  size_t hidden = table->cols;
  const float scale = (float)model->config.embedding_scale;
  for (size_t i = 0; i < n; i++)
    if (tokens[i] < 0 || (size_t)tokens[i] >= table->rows)
      return gptvq_fail(err, GPTVQ_ERROR_DATA, "token id %d is outside the vocabulary of %zu", (int)tokens[i],
                        table->rows);
  for (size_t i = 0; i < n; i++, x += hidden) {
    gptvq_linear_decode_rows(table, (size_t)tokens[i], (size_t)tokens[i] + 1, x);
    if (!GPTVQ_MULTI_PICK(gptvq_all_finite)(hidden, x))
      return gptvq_fail(err, GPTVQ_ERROR_NUMERIC,
                        "%s%s: NaN or infinity in the row of token %d: the file is damaged", table->name,
                        table->is_packed ? "" : ".weight", (int)tokens[i]);
    if (scale != 1.0f)
      for (size_t h = 0; h < hidden; h++) x[h] *= scale;
  }
  return GPTVQ_OK;
}

gptvq_status gptvq_final_norm(const gptvq_model *model, size_t n, const float *x, float *norm,
                              gptvq_error *err) {
  const gptvq_config *c = &model->config;
  if (gptvq_norm_rows(n, c->hidden, x, model->final_norm, (float)c->rms_norm_eps, norm)) return GPTVQ_OK;
  return gptvq_fail_numbers(model, &model->blocks[c->layers - 1], "the MLP", err);
}

gptvq_status gptvq_head(const gptvq_model *model, gptvq_workspace *workspace, size_t n, const float *x,
                        float *logits, gptvq_error *err) {
  return gptvq_head_on(model, NULL, workspace, n, x, logits, err);
}

gptvq_status gptvq_head_on(const gptvq_model *model, const gptvq_forward *forward, gptvq_workspace *workspace,
                           size_t n, const float *x, float *logits, gptvq_error *err) {
  size_t hidden = model->config.hidden, vocab = model->config.vocab, zero = 0;
  const gptvq_linear *head = &model->head;
  forward = gptvq_forward_takes(forward, model, NULL, false);
  for (size_t begin = 0; begin < n; begin += workspace->max_rows) {
    size_t rows = gptvq_min_size(workspace->max_rows, n - begin);
    GPTVQ_TRY(gptvq_final_norm(model, rows, x + begin * hidden, workspace->norm, err));
    if (forward != NULL)
      GPTVQ_TRY(forward->head(forward, model, rows, workspace->norm, logits + begin * vocab, err));
    else
      GPTVQ_TRY(gptvq_linears_forward(&head, &zero, 1, model->compute, rows, workspace->norm, hidden,
                                      logits + begin * vocab, vocab, &workspace->scratch, err));
    gptvq_scale_values(rows * vocab, (float)model->config.logit_scale, logits + begin * vocab);
    if (!GPTVQ_MULTI_PICK(gptvq_all_finite)(rows * vocab, logits + begin * vocab))
      return gptvq_fail_numbers(model, NULL, "the output head", err);
    if (model->config.logit_cap > 0.0)
      gptvq_cap_values(rows * vocab, (float)model->config.logit_cap, logits + begin * vocab);
  }
  return GPTVQ_OK;
}

static size_t pass_rows(size_t max_tokens) { return gptvq_min_size(max_tokens, PASS_ROWS); }

size_t gptvq_session_estimate(const gptvq_model *model, size_t max_tokens) {
  size_t rows = pass_rows(max_tokens);
  gptvq_context *before = gptvq_context_use(model->context);
  size_t bytes = gptvq_workspace_bytes(model, model->config.layers, rows, max_tokens);
  size_t states = gptvq_saturated_size(gptvq_workspace_states(model, model->config.layers), sizeof(float));
  (void)gptvq_context_use(before);
  return gptvq_add(bytes, sizeof(gptvq_session) + rows * model->config.hidden * sizeof(float), &bytes)
             ? gptvq_saturated_sum(bytes, gptvq_saturated_size(states, 2))
             : SIZE_MAX;
}

static gptvq_status create(const gptvq_model *model, size_t max_tokens, gptvq_session **out,
                           gptvq_error *err) {
  gptvq_session *session = calloc(1, sizeof *session);
  if (session == NULL) return gptvq_fail_memory(err, "a session", sizeof *session);
  session->model = model;
  session->max_tokens = max_tokens;
  session->pass_rows = pass_rows(max_tokens);
  gptvq_status status = gptvq_workspace_create(model, model->config.layers, session->pass_rows, max_tokens,
                                               &session->workspace, err);
  if (status == GPTVQ_OK) {
    session->x = gptvq_alloc(session->pass_rows * model->config.hidden, sizeof(float));
    size_t states = gptvq_workspace_states(model, model->config.layers);
    if (states > 0) session->spare = gptvq_alloc(states, 2 * sizeof *session->spare);
    session->states = session->workspace->own_states;
    session->other_states = session->spare;
    session->kept_states = session->spare != NULL ? session->spare + states : NULL;
    session->before = session->kept = SIZE_MAX;
    if (session->x == NULL || (states > 0 && session->spare == NULL))
      status = gptvq_fail_memory(err, "a session", gptvq_session_estimate(model, max_tokens));
  }
  if (status != GPTVQ_OK) {
    gptvq_session_destroy(session);
    return status;
  }
  *out = session;
  return GPTVQ_OK;
}

gptvq_status gptvq_session_create(const gptvq_model *model, size_t max_tokens, gptvq_session **out,
                                  gptvq_error *err) {
  *out = NULL;
  gptvq_context *before = gptvq_context_use(model->context);
  gptvq_status status = create(model, max_tokens, out, err);
  (void)gptvq_context_use(before);
  return status;
}

void gptvq_session_destroy(gptvq_session *session) {
  if (session == NULL) return;
  gptvq_workspace_destroy(session->workspace);
  free(session->spare);
  free(session->x);
  free(session);
}

void gptvq_session_reset(gptvq_session *session) {
  session->position = 0;
  session->before = session->kept = SIZE_MAX;
  atomic_store(&session->cancelled, false);
}

void gptvq_session_cancel(gptvq_session *session) { atomic_store(&session->cancelled, true); }

static void swap_states(gptvq_session *session) {
  float *states = session->states;
  session->states = session->other_states;
  session->other_states = states;
}

static size_t states_of(const gptvq_session *session) {
  return gptvq_workspace_states(session->model, session->model->config.layers);
}

/* The farthest position up to `position` that the session can go back to. */
static size_t reachable(const gptvq_session *session, size_t position) {
  size_t best = 0;
  if (session->states == NULL || position == session->position) return position;
  if (session->before <= position) best = session->before;
  if (session->kept <= position) best = gptvq_max_size(best, session->kept);
  return best;
}

/* To one that reachable has named. */
static void go_back(gptvq_session *session, size_t position) {
  if (session->states != NULL && position < session->position && position > 0) {
    if (position == session->before) swap_states(session);
    else memcpy(session->states, session->kept_states, states_of(session) * sizeof *session->states);
  }
  if (position < session->position) session->before = SIZE_MAX;
  if (position < session->kept) session->kept = SIZE_MAX;
  session->position = position;
}

static gptvq_status check_position(const gptvq_session *session, size_t position, gptvq_error *err) {
  if (position <= session->position) return GPTVQ_OK;
  return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "cannot go back to position %zu: the session is at %zu",
                    position, session->position);
}

gptvq_status gptvq_session_truncate(gptvq_session *session, size_t position, gptvq_error *err) {
  GPTVQ_TRY(check_position(session, position, err));
  if (reachable(session, position) != position)
    return gptvq_fail(
        err, GPTVQ_ERROR_UNSUPPORTED,
        "cannot go back to position %zu: a %s has states of the last call's beginning and of the "
        "last prompt's end only; gptvq_session_rewind goes as far as it can",
        position, session->model->config.architecture);
  go_back(session, position);
  return GPTVQ_OK;
}

gptvq_status gptvq_session_rewind(gptvq_session *session, size_t position, size_t *reached,
                                  gptvq_error *err) {
  GPTVQ_TRY(check_position(session, position, err));
  go_back(session, reachable(session, position));
  if (reached != NULL) *reached = session->position;
  return GPTVQ_OK;
}

void gptvq_session_begin(gptvq_session *session) {
  if (session->states == NULL) return;
  session->before = SIZE_MAX;
  session->workspace->state = session->states;
  session->workspace->next_state = session->other_states;
}

void gptvq_session_go_on(gptvq_session *session) {
  session->workspace->state = session->workspace->next_state;
}

void gptvq_session_commit(gptvq_session *session, size_t count) {
  if (session->states != NULL) {
    session->before = session->position;
    swap_states(session);
    if (count > GPTVQ_BATCH_TOKENS) { /* a prompt, to which single tokens are going to be added */
      session->kept = session->position + count;
      memcpy(session->kept_states, session->states, states_of(session) * sizeof *session->states);
    }
  }
  session->position += count;
}

gptvq_status gptvq_session_copy(const gptvq_session *from, size_t positions, gptvq_session *to,
                                gptvq_error *err) {
  if (from == to || from->model != to->model || from->max_tokens != to->max_tokens)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "a session can be copied to another one of the same model and size only");
  if (positions > from->position)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "cannot copy %zu positions: the session is at %zu",
                      positions, from->position);
  const size_t states = states_of(from);
  const bool now = positions == from->position;
  if (states > 0 && positions > 0 && !now && positions != from->kept)
    return gptvq_fail(
        err, GPTVQ_ERROR_UNSUPPORTED,
        "cannot copy the first %zu of %zu positions: a %s has states of its last position and of "
        "the last prompt's end only",
        positions, from->position, from->model->config.architecture);
  gptvq_workspace_copy_cache(from->model, from->workspace, positions, to->workspace);
  if (states > 0 && positions > 0)
    memcpy(to->states, now ? from->states : from->kept_states, states * sizeof *to->states);
  to->before = to->kept = SIZE_MAX;
  if (from->kept <= positions) {
    memcpy(to->kept_states, from->kept_states, states * sizeof *to->states);
    to->kept = from->kept;
  }
  to->position = positions;
  return GPTVQ_OK;
}

gptvq_status gptvq_session_fork(const gptvq_session *session, gptvq_session **out, gptvq_error *err) {
  GPTVQ_TRY(gptvq_session_create(session->model, session->max_tokens, out, err));
  return gptvq_session_copy(session, session->position, *out, err);
}

size_t gptvq_session_position(const gptvq_session *session) { return session->position; }

gptvq_status gptvq_session_check(const gptvq_session *session, const int32_t *tokens, size_t count,
                                 gptvq_error *err) {
  size_t vocab = session->model->config.vocab;
  if (count > session->max_tokens - session->position)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "%zu tokens at position %zu do not fit a session of %zu positions", count,
                      session->position, session->max_tokens);
  for (size_t i = 0; i < count; i++)
    if (tokens[i] < 0 || (size_t)tokens[i] >= vocab)
      return gptvq_fail(err, GPTVQ_ERROR_DATA, "token id %d is outside the vocabulary of %zu", (int)tokens[i],
                        vocab);
  return GPTVQ_OK;
}

/* The n tokens at `position` through all blocks; hidden states are left in session->x. */
static gptvq_status run_pass(gptvq_session *session, size_t position, const int32_t *tokens, size_t n,
                             gptvq_error *err) {
  const gptvq_model *model = session->model;
  GPTVQ_TRY(gptvq_embed(model, tokens, n, session->x, err));
  for (size_t i = 0; i < model->config.layers; i++) {
    const gptvq_block *block = &model->blocks[i];
    if (atomic_exchange(&session->cancelled, false))
      return gptvq_fail(err, GPTVQ_ERROR_CANCELLED, "stopped on request at position %zu", position);
    GPTVQ_TRY(gptvq_block_attention(model, block, session->workspace, i, position, n, session->x,
                                    GPTVQ_RUN_ALL, NULL, NULL, err));
    GPTVQ_TRY(
        gptvq_block_mlp(model, block, session->workspace, n, session->x, GPTVQ_RUN_ALL, NULL, NULL, err));
  }
  return GPTVQ_OK;
}

static gptvq_status forward(gptvq_session *session, const int32_t *tokens, size_t count, float *logits,
                            int all_logits, gptvq_error *err) {
  const gptvq_model *model = session->model;
  size_t hidden = model->config.hidden, vocab = model->config.vocab;
  if (count == 0 && logits != NULL && !all_logits)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "no tokens: there is nothing to predict from");
  GPTVQ_TRY(gptvq_session_check(session, tokens, count, err)); /* before anything is computed */
  if (count == 0) return GPTVQ_OK;
  gptvq_session_begin(session);
  for (size_t begin = 0; begin < count; begin += session->pass_rows) {
    size_t n = gptvq_min_size(session->pass_rows, count - begin);
    GPTVQ_TRY(run_pass(session, session->position + begin, tokens + begin, n, err));
    gptvq_session_go_on(session);
    if (logits == NULL) continue;
    if (all_logits)
      GPTVQ_TRY(gptvq_head(model, session->workspace, n, session->x, logits + begin * vocab, err));
    else if (begin + n == count)
      GPTVQ_TRY(gptvq_head(model, session->workspace, 1, session->x + (n - 1) * hidden, logits, err));
  }
  gptvq_session_commit(session, count);
  return GPTVQ_OK;
}

gptvq_status gptvq_session_forward(gptvq_session *session, const int32_t *tokens, size_t count, float *logits,
                                   int all_logits, gptvq_error *err) {
  gptvq_context *before = gptvq_context_use(session->model->context);
  gptvq_status status = forward(session, tokens, count, logits, all_logits, err);
  (void)gptvq_context_use(before);
  return status;
}
