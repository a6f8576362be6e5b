/* One step of several sessions: rows of all their tokens go through the blocks together, each sees its own
 * session's keys and values. */
#include "base/memory.h"
#include "model/session.h"

#include <string.h>

/* A session's step takes the ways of multiplying and of attention that gptvq_session_forward takes for it. */
_Static_assert((int)GPTVQ_BATCH_TOKENS <= (int)GPTVQ_MATVEC_TOKENS, "as many tokens have the numbers of one");

/* Prompts of at least so many tokens go the way of many in every layer (gptvq_packed_few_tokens,
 * GPTVQ_ATTENTION_FEW), as they do alone. */
enum { PROMPT_TOKENS = 24 };

struct gptvq_batch {
  const gptvq_model *model;
  gptvq_workspace *workspace; /* of rows; the caches are the sessions' */
  size_t max_tokens;
  float *x;                    /* [max_tokens × hidden] */
  gptvq_attention_text *texts; /* [max_tokens] */
};

/* The arguments of a step. */
typedef struct step {
  size_t count, tokens; /* sessions, tokens of all */
  gptvq_session *const *sessions;
  const int32_t *const *ids;
  const size_t *counts;
  bool prompts; /* each of PROMPT_TOKENS and more */
} step;

size_t gptvq_batch_estimate(const gptvq_model *model, size_t max_tokens) {
  gptvq_context *before = gptvq_context_use(model->context);
  const size_t bytes = gptvq_workspace_bytes(model, 1, max_tokens, 1);
  (void)gptvq_context_use(before);
  const size_t row = model->config.hidden * sizeof(float) + sizeof(gptvq_attention_text);
  return gptvq_saturated_sum(gptvq_saturated_sum(bytes, sizeof(gptvq_batch)),
                             gptvq_saturated_size(max_tokens, row));
}

static gptvq_status create(const gptvq_model *model, size_t max_tokens, gptvq_batch **out, gptvq_error *err) {
  gptvq_batch *batch = calloc(1, sizeof *batch);
  if (batch == NULL) return gptvq_fail_memory(err, "a batch", sizeof *batch);
  batch->model = model;
  batch->max_tokens = max_tokens;
  gptvq_status status = gptvq_workspace_create(model, 1, max_tokens, 1, &batch->workspace, err);
  if (status == GPTVQ_OK) {
    size_t row = model->config.hidden * sizeof(float);
    batch->x = gptvq_alloc(max_tokens, row);
    batch->texts = gptvq_alloc(max_tokens, sizeof *batch->texts);
    if (batch->x == NULL || batch->texts == NULL)
      status = gptvq_fail_memory(err, "a batch", gptvq_batch_estimate(model, max_tokens));
  }
  if (status != GPTVQ_OK) gptvq_batch_destroy(batch);
  else *out = batch;
  return status;
}

gptvq_status gptvq_batch_create(const gptvq_model *model, size_t max_tokens, gptvq_batch **out,
                                gptvq_error *err) {
  *out = NULL;
  gptvq_context *before = gptvq_context_use(model->context);
  gptvq_status status = create(model, max_tokens, out, err);
  (void)gptvq_context_use(before);
  return status;
}

void gptvq_batch_destroy(gptvq_batch *batch) {
  if (batch == NULL) return;
  gptvq_workspace_destroy(batch->workspace);
  free(batch->x);
  free(batch->texts);
  free(batch);
}

/* Does the way of many give each row the numbers that it has in whatever company, to the bit? Our own
 * products of int8 codes do. */
static bool rows_are_apart(const gptvq_linear *linear) {
  if (!linear->is_packed) return false;
  const size_t few = gptvq_packed_few_tokens(&linear->packed.shape);
  return few == SIZE_MAX || (few < PROMPT_TOKENS && gptvq_packed_has_gemm_i8(&linear->packed.shape));
}

size_t gptvq_batch_prompt_tokens(const gptvq_model *model) {
  const gptvq_config *c = &model->config;
  if (model->compute != GPTVQ_COMPUTE_INT8 || c->experts > 0 || c->latent.kv_rank > 0 ||
      gptvq_workspace_states(model, c->layers) > 0)
    return 0;
  gptvq_context *before = gptvq_context_use(model->context);
  bool apart = true;
  for (size_t b = 0; b < c->layers; b++)
    for (size_t i = 0; i < model->blocks[b].linear_count; i++)
      apart = apart && rows_are_apart(&model->blocks[b].linears[i]);
  (void)gptvq_context_use(before);
  return apart ? PROMPT_TOKENS : 0;
}

/* How many tokens of session i there may be. */
static gptvq_status check_count(const step *s, size_t i, size_t least, gptvq_error *err) {
  if (s->prompts && s->counts[i] >= least && s->counts[i] <= s->sessions[i]->pass_rows) return GPTVQ_OK;
  if (s->prompts)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "session %zu of the batch: %zu tokens, but prompts together have %zu to %zu each", i,
                      s->counts[i], least, s->sessions[i]->pass_rows);
  if (s->counts[i] > 0 && s->counts[i] <= GPTVQ_BATCH_TOKENS) return GPTVQ_OK;
  return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                    "session %zu of the batch: %zu tokens, but a step takes 1 to %d of each session", i,
                    s->counts[i], GPTVQ_BATCH_TOKENS);
}

/* Before anything is computed; counts the tokens. */
static gptvq_status check(const gptvq_batch *batch, step *s, gptvq_error *err) {
  gptvq_error inner;
  const size_t least = gptvq_batch_prompt_tokens(batch->model);
  s->prompts = least > 0 && s->count > 0 && s->counts[0] >= least;
  for (size_t i = 0; i < s->count; i++) {
    const gptvq_session *session = s->sessions[i];
    if (session->model != batch->model)
      return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "session %zu of the batch is of another model", i);
    for (size_t j = 0; j < i; j++)
      if (s->sessions[j] == session)
        return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "sessions %zu and %zu of the batch are the same", j, i);
    GPTVQ_TRY(check_count(s, i, least, err));
    gptvq_status status = gptvq_session_check(session, s->ids[i], s->counts[i], &inner);
    if (status != GPTVQ_OK) return gptvq_fail(err, status, "session %zu of the batch: %s", i, inner.message);
    s->tokens += s->counts[i];
    if (s->tokens > batch->max_tokens)
      return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "more tokens than the %zu that the batch is for",
                        batch->max_tokens);
  }
  return GPTVQ_OK;
}

static gptvq_status run_block(gptvq_batch *batch, const step *s, size_t layer, gptvq_error *err) {
  const gptvq_model *model = batch->model;
  const gptvq_block *block = &model->blocks[layer];
  size_t row = 0;
  for (size_t i = 0; i < s->count; row += s->counts[i++]) {
    gptvq_session *session = s->sessions[i];
    if (atomic_exchange(&session->cancelled, false))
      return gptvq_fail(err, GPTVQ_ERROR_CANCELLED, "session %zu of the batch: stopped on request", i);
    GPTVQ_TRY(gptvq_workspace_text(model, block, session->workspace, layer, session->position, row,
                                   s->counts[i], &batch->texts[i], err));
  }
  GPTVQ_TRY(gptvq_block_attention_step(model, block, batch->workspace, batch->texts, s->count, s->tokens,
                                       batch->x, err));
  return gptvq_block_mlp(model, block, batch->workspace, s->tokens, batch->x, GPTVQ_RUN_ALL, NULL, NULL, err);
}

static gptvq_status forward(gptvq_batch *batch, step *s, float *logits, gptvq_error *err) {
  const gptvq_model *model = batch->model;
  size_t hidden = model->config.hidden, row = 0;
  GPTVQ_TRY(check(batch, s, err));
  for (size_t i = 0; i < s->count; row += s->counts[i++])
    GPTVQ_TRY(gptvq_embed(model, s->ids[i], s->counts[i], batch->x + row * hidden, err));
  for (size_t i = 0; i < s->count; i++) gptvq_session_begin(s->sessions[i]);
  /* where activations are rounded, another order of the sums can grow to a step of the rounding */
  bool *alone = &batch->workspace->scratch.alone;
  *alone = model->compute != GPTVQ_COMPUTE_FP32 && !s->prompts;
  for (size_t layer = 0; layer < model->config.layers; layer++) GPTVQ_TRY(run_block(batch, s, layer, err));
  if (logits != NULL) {
    row = 0;
    for (size_t i = 0; i < s->count; i++) { /* the last row of each session */
      row += s->counts[i];
      if (row - 1 > i)
        memcpy(batch->x + i * hidden, batch->x + (row - 1) * hidden, hidden * sizeof *batch->x);
    }
    *alone = model->compute != GPTVQ_COMPUTE_FP32;
    GPTVQ_TRY(gptvq_head(model, batch->workspace, s->count, batch->x, logits, err));
  }
  for (size_t i = 0; i < s->count; i++) gptvq_session_commit(s->sessions[i], s->counts[i]);
  return GPTVQ_OK;
}

gptvq_status gptvq_batch_forward(gptvq_batch *batch, size_t count, gptvq_session *const *sessions,
                                 const int32_t *const *tokens, const size_t *counts, float *logits,
                                 gptvq_error *err) {
  step s = {.count = count, .sessions = sessions, .ids = tokens, .counts = counts};
  gptvq_context *before = gptvq_context_use(batch->model->context);
  gptvq_status status = forward(batch, &s, logits, err);
  (void)gptvq_context_use(before);
  return status;
}
