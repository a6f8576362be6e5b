#include "eval/eval.h"

#include "base/memory.h"
#include "eval/losses.h"
#include "model/layer/vector.h"
#include "model/workspace.h"

#include <math.h>
#include <string.h>

enum {
  BLOCK_ROWS = 1024, /* rows that go through a block together: bounds its scratch memory for long windows */
  LOGIT_ROWS = 256,  /* rows of logits at most … */
  LOGIT_FLOATS = 16 << 20,   /* … and 64 MB of them at most */
  TOGETHER_TOKENS = 1 << 16, /* of windows that share one copy of a block's weights to a device … */
  TOGETHER_BYTES = 1 << 30   /* … and of their hidden states */
};

gptvq_runner_rows gptvq_runner_rows_of(const gptvq_model *model, size_t ctx) {
  const size_t most = gptvq_max_size(1, LOGIT_FLOATS / model->config.vocab);
  return (gptvq_runner_rows){gptvq_min_size(ctx, BLOCK_ROWS),
                             gptvq_min_size(gptvq_min_size(ctx, LOGIT_ROWS), most)};
}

size_t gptvq_runner_together(const gptvq_model *model, size_t ctx, size_t windows, bool device) {
  const size_t bytes = gptvq_saturated_size(ctx, gptvq_saturated_size(model->config.hidden, sizeof(float))),
               most = gptvq_min_size(TOGETHER_TOKENS / ctx, TOGETHER_BYTES / bytes);
  return device ? gptvq_max_size(1, gptvq_min_size(windows, most)) : 1;
}

size_t gptvq_runner_bytes(const gptvq_model *model, size_t ctx, size_t together) {
  const gptvq_config *c = &model->config;
  const gptvq_runner_rows rows = gptvq_runner_rows_of(model, ctx);
  const size_t numbers =
      gptvq_saturated_sum(gptvq_saturated_size(together, gptvq_saturated_size(ctx, c->hidden)),
                          gptvq_saturated_size(rows.logits, c->vocab));
  return gptvq_saturated_sum(gptvq_workspace_bytes(model, 1, rows.block, ctx),
                             gptvq_saturated_size(numbers, sizeof(float)));
}

struct gptvq_runner {
  const gptvq_model *model;
  const gptvq_forward *forward; /* or NULL */
  gptvq_workspace *workspace;
  gptvq_runner_rows rows;
  size_t ctx, hidden, x_size, logits_size; /* numbers */
  float *x;                                /* [together × ctx × hidden] */
  float *logits;                           /* [rows.logits × vocab] */
};

gptvq_status gptvq_runner_create(const gptvq_model *model, const gptvq_forward *forward, size_t ctx,
                                 size_t together, gptvq_runner **out, gptvq_error *err) {
  const gptvq_config *c = &model->config;
  *out = NULL;
  gptvq_runner *runner = gptvq_alloc_zero(1, sizeof *runner);
  if (runner == NULL) return gptvq_fail_memory(err, "evaluation", sizeof *runner);
  runner->model = model;
  runner->forward = forward;
  runner->ctx = ctx;
  runner->hidden = c->hidden;
  runner->rows = gptvq_runner_rows_of(model, ctx);
  gptvq_status status = GPTVQ_OK;
  if (!gptvq_mul(ctx, c->hidden, &runner->x_size) || !gptvq_mul(together, runner->x_size, &runner->x_size) ||
      !gptvq_mul(runner->rows.logits, c->vocab, &runner->logits_size)) {
    status = gptvq_fail_memory(err, "the hidden states of a window", SIZE_MAX);
    goto done;
  }
  runner->x = gptvq_alloc(runner->x_size, sizeof(float));
  runner->logits = gptvq_alloc(runner->logits_size, sizeof(float));
  if (runner->x == NULL || runner->logits == NULL) {
    status = gptvq_fail_memory(err, "the hidden states and logits of a window",
                               gptvq_saturated_size(runner->x_size + runner->logits_size, sizeof(float)));
    goto done;
  }
  status = gptvq_workspace_create(model, 1, runner->rows.block, ctx, &runner->workspace, err);
done:
  if (status != GPTVQ_OK) gptvq_runner_destroy(runner);
  else *out = runner;
  return status;
}

void gptvq_runner_destroy(gptvq_runner *runner) {
  if (runner == NULL) return;
  if (runner->forward != NULL) runner->forward->rest(runner->forward);
  if (runner->workspace != NULL) gptvq_workspace_destroy(runner->workspace);
  free(runner->x);
  free(runner->logits);
  free(runner);
}

/* A window through one half of a block. A device's attention takes it whole, all else takes rows.block rows
 * at a time. */
static gptvq_status run_half(const gptvq_runner *runner, const gptvq_block *block, bool mlp, float *x,
                             gptvq_error *err) {
  const gptvq_model *model = runner->model;
  const gptvq_forward *forward = gptvq_forward_takes(runner->forward, model, block, mlp);
  const gptvq_forward_half half = {model, block, mlp, GPTVQ_RUN_ALL, runner->workspace};
  if (forward != NULL && !mlp) return forward->run(forward, &half, runner->ctx, x, NULL, err);
  for (size_t row = 0; row < runner->ctx; row += runner->rows.block) {
    const size_t n = gptvq_min_size(runner->rows.block, runner->ctx - row);
    float *at = x + row * runner->hidden;
    if (forward != NULL) GPTVQ_TRY(forward->run(forward, &half, n, at, NULL, err));
    else if (mlp)
      GPTVQ_TRY(gptvq_block_mlp(model, block, runner->workspace, n, at, GPTVQ_RUN_ALL, NULL, NULL, err));
    else
      GPTVQ_TRY(gptvq_block_attention(model, block, runner->workspace, 0, row, n, at, GPTVQ_RUN_ALL, NULL,
                                      NULL, err));
  }
  return GPTVQ_OK;
}

/* Block after block rather than token after token: the weights of a block are decoded once per BLOCK_ROWS
 * tokens, or copied to a device once for all windows, and one block's keys and values are all the cache there
 * is. */
gptvq_status gptvq_runner_windows(gptvq_runner *runner, const int32_t *tokens, size_t count,
                                  gptvq_between between, void *context, gptvq_error *err) {
  const gptvq_forward *forward = runner->forward;
  const size_t values = runner->ctx * runner->hidden;
  GPTVQ_TRY(gptvq_embed(runner->model, tokens, count * runner->ctx, runner->x, err));
  if (forward != NULL) {
    forward->drop(forward); /* heads of the windows before */
    forward->prepare(forward, runner->x, runner->x_size * sizeof *runner->x);
  }
  for (size_t layer = 0; layer < runner->model->config.layers; layer++) {
    const gptvq_block *block = &runner->model->blocks[layer];
    for (size_t w = 0; w < count; w++) {
      GPTVQ_TRY(run_half(runner, block, false, runner->x + w * values, err));
      GPTVQ_TRY(run_half(runner, block, true, runner->x + w * values, err));
      if (between != NULL) GPTVQ_TRY(between(context, err));
    }
    gptvq_block_rest(block);
    if (forward != NULL) forward->drop(forward);
  }
  return GPTVQ_OK;
}

gptvq_status gptvq_runner_logits(gptvq_runner *runner, size_t window, size_t begin, size_t n,
                                 const float **logits, gptvq_error *err) {
  const gptvq_forward *forward = runner->forward;
  const float *x = runner->x + (window * runner->ctx + begin) * runner->hidden;
  *logits = runner->logits;
  if (forward != NULL)
    forward->prepare(forward, runner->logits, runner->logits_size * sizeof *runner->logits);
  return gptvq_head_on(runner->model, forward, runner->workspace, n, x, runner->logits, err);
}

double gptvq_log_sum_exp(const float *logits, size_t count) {
  const double largest = (double)GPTVQ_MULTI_PICK(gptvq_max)(count, logits);
  return largest + log(GPTVQ_MULTI_PICK(gptvq_exp_total)(count, logits, largest));
}
