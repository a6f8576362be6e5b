#include "eval/eval.h"

#include "base/memory.h"
#include "model/workspace.h"

#include <math.h>
#include <string.h>

enum {
  BLOCK_ROWS = 1024, /* rows that go through a block together: bounds its scratch memory for long windows */
  LOGIT_ROWS = 256,  /* rows of logits at most … */
  LOGIT_FLOATS = 16 << 20 /* … and 64 MB of them at most */
};

static size_t block_rows(size_t ctx) { return gptvq_min_size(ctx, BLOCK_ROWS); }

static size_t logit_rows(const gptvq_config *c, size_t ctx) {
  return gptvq_max_size(1, gptvq_min_size(gptvq_min_size(ctx, LOGIT_ROWS), LOGIT_FLOATS / c->vocab));
}

size_t gptvq_runner_bytes(const gptvq_model *model, size_t ctx) {
  const gptvq_config *c = &model->config;
  const size_t numbers = gptvq_saturated_sum(gptvq_saturated_size(ctx, c->hidden),
                                             gptvq_saturated_size(logit_rows(c, ctx), c->vocab));
  return gptvq_saturated_sum(gptvq_workspace_bytes(model, 1, block_rows(ctx), ctx),
                             gptvq_saturated_size(numbers, sizeof(float)));
}

struct gptvq_runner {
  const gptvq_model *model;
  gptvq_workspace *workspace;
  size_t ctx, hidden, vocab, layers, block_rows, logit_rows;
  float *x;      /* [ctx × hidden] */
  float *logits; /* [logit_rows × vocab] */
};

gptvq_status gptvq_runner_create(const gptvq_model *model, size_t ctx, gptvq_runner **out, gptvq_error *err) {
  const gptvq_config *c = &model->config;
  *out = NULL;
  gptvq_runner *runner = gptvq_alloc_zero(1, sizeof *runner);
  if (runner == NULL) return gptvq_fail_memory(err, "evaluation", sizeof *runner);
  runner->model = model;
  runner->ctx = ctx;
  runner->hidden = c->hidden;
  runner->vocab = c->vocab;
  runner->layers = c->layers;
  runner->block_rows = block_rows(ctx);
  runner->logit_rows = logit_rows(c, ctx);
  size_t x_size, logits_size;
  gptvq_status status = GPTVQ_OK;
  if (!gptvq_mul(ctx, c->hidden, &x_size) || !gptvq_mul(runner->logit_rows, c->vocab, &logits_size)) {
    status = gptvq_fail_memory(err, "the hidden states of a window", SIZE_MAX);
    goto done;
  }
  runner->x = gptvq_alloc(x_size, sizeof(float));
  runner->logits = gptvq_alloc(logits_size, sizeof(float));
  if (runner->x == NULL || runner->logits == NULL) {
    status = gptvq_fail_memory(err, "the hidden states and logits of a window",
                               gptvq_saturated_size(x_size + logits_size, sizeof(float)));
    goto done;
  }
  status = gptvq_workspace_create(model, 1, runner->block_rows, ctx, &runner->workspace, err);
done:
  if (status != GPTVQ_OK) gptvq_runner_destroy(runner);
  else *out = runner;
  return status;
}

void gptvq_runner_destroy(gptvq_runner *runner) {
  if (runner == NULL) return;
  if (runner->workspace != NULL) gptvq_workspace_destroy(runner->workspace);
  free(runner->x);
  free(runner->logits);
  free(runner);
}

/* Block after block rather than token after token: the weights of a block are decoded once per BLOCK_ROWS
 * tokens, and one block's keys and values are all the cache there is. */
gptvq_status gptvq_runner_window(gptvq_runner *runner, const int32_t *tokens, gptvq_between between,
                                 void *context, gptvq_error *err) {
  GPTVQ_TRY(gptvq_embed(runner->model, tokens, runner->ctx, runner->x, err));
  for (size_t layer = 0; layer < runner->layers; layer++) {
    const gptvq_block *block = &runner->model->blocks[layer];
    for (size_t row = 0; row < runner->ctx; row += runner->block_rows) {
      size_t n = gptvq_min_size(runner->block_rows, runner->ctx - row);
      float *x = runner->x + row * runner->hidden;
      GPTVQ_TRY(gptvq_block_attention(runner->model, block, runner->workspace, 0, row, n, x, GPTVQ_RUN_ALL,
                                      NULL, NULL, err));
      GPTVQ_TRY(
          gptvq_block_mlp(runner->model, block, runner->workspace, n, x, GPTVQ_RUN_ALL, NULL, NULL, err));
    }
    gptvq_block_rest(block);
    if (between != NULL) GPTVQ_TRY(between(context, err));
  }
  return GPTVQ_OK;
}

size_t gptvq_runner_rows(const gptvq_runner *runner) { return runner->logit_rows; }

gptvq_status gptvq_runner_logits(gptvq_runner *runner, size_t begin, size_t n, const float **logits,
                                 gptvq_error *err) {
  *logits = runner->logits;
  return gptvq_head(runner->model, runner->workspace, n, runner->x + begin * runner->hidden, runner->logits,
                    err);
}

double gptvq_log_sum_exp(const float *logits, size_t count) {
  float largest = logits[0];
  for (size_t i = 1; i < count; i++) largest = logits[i] > largest ? logits[i] : largest;
  double sum = 0;
  for (size_t i = 0; i < count; i++) sum += exp((double)logits[i] - (double)largest);
  return (double)largest + log(sum);
}
