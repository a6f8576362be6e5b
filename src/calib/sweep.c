#include "calib/sweep.h"

#include "base/memory.h"
#include "model/workspace.h"

#include <math.h>
#include <string.h>

gptvq_status gptvq_keep_input(void *context, const gptvq_observed *in, gptvq_error *err) {
  (void)err;
  const gptvq_kept *kept = context;
  if (in->window >= kept->windows) return GPTVQ_OK;
  float *values = kept->values + in->window * in->rows * in->cols;
  for (size_t t = 0; t < in->rows; t++)
    memcpy(values + t * in->cols, in->x + t * in->ldx, in->cols * sizeof *values);
  return GPTVQ_OK;
}

typedef struct audience {
  const gptvq_sweep *sweep;
  const gptvq_pass *pass;
  gptvq_observed in; /* window and stream stand */
} audience;

/* Products of queries with keys, and with values, of all tokens of a window. */
static double attention_flop(const gptvq_config *c, const gptvq_attention *how, size_t length) {
  double full = (double)gptvq_min_size(length, how->window), pairs = full * (full + 1.0) / 2.0;
  pairs += ((double)length - full) * full; /* of those that see a whole window */
  return 4.0 * pairs * (double)(c->heads * c->head_dim);
}

/* What it takes to apply linears to n rows, and to get to their inputs. */
static double forward_flop(const audience *a, const gptvq_block *block, const size_t *linears, size_t count,
                           size_t n) {
  const gptvq_pass *pass = a->pass;
  if (linears[0] == GPTVQ_ROUTER_INPUT)
    return 2.0 * (double)n * (double)(block->router.rows * block->router.cols);
  bool output = linears[0] == block->o;
  for (size_t e = 0; e < block->mlp_count; e++) output = output || linears[0] == block->mlps[e].down;
  bool last_half = !pass->mlp || (linears[0] != block->o && linears[0] != block->qkv.linear[0]);
  double flop = linears[0] == block->o
                    ? attention_flop(&a->sweep->model->config, &block->attention, a->sweep->length)
                    : 0.0;
  if (last_half && pass->stop == (output ? GPTVQ_STOP_AT_OUTPUT : GPTVQ_STOP_AT_INPUT)) return flop;
  for (size_t i = 0; i < count; i++)
    flop +=
        2.0 * (double)n * (double)block->linears[linears[i]].rows * (double)block->linears[linears[i]].cols;
  return flop;
}

/* gptvq_capture */
static gptvq_status show(void *context, const gptvq_block *block, const size_t *linears, size_t count,
                         const float *x, size_t n, size_t ldx, gptvq_error *err) {
  audience *a = context;
  if (count == 0 || n == 0) return GPTVQ_OK;
  gptvq_stages *stages = a->sweep->stages;
  if (stages != NULL) gptvq_stage_count(stages, forward_flop(a, block, linears, count, n));
  const bool routed = linears[0] != GPTVQ_ROUTER_INPUT && gptvq_block_routes(block) &&
                      linears[0] >= block->mlps[0].input.linear[0]; /* those of the attention come first */
  const gptvq_routing *routing = &a->sweep->workspace->routing;
  a->in.x = x;
  a->in.rows = n;
  a->in.cols = linears[0] != GPTVQ_ROUTER_INPUT ? block->linears[linears[0]].cols : block->router.cols;
  a->in.ldx = ldx;
  a->in.tokens = routed ? routing->members : NULL;
  a->in.shares = routed ? routing->member_share : NULL;
  for (size_t i = 0; i < a->pass->observer_count; i++) {
    const gptvq_observer *observer = &a->pass->observers[i];
    if (observer->linear != linears[0]) continue;
    gptvq_stage before = gptvq_stage_enter(stages, observer->stage);
    gptvq_stage_count(stages, observer->row_flop * (double)n);
    GPTVQ_TRY(observer->on_input(observer->context, &a->in, err));
    (void)gptvq_stage_enter(stages, before);
  }
  return GPTVQ_OK;
}

/* Attention has to run to its end for the MLP's inputs, on a copy where x is to stay. */
static bool needs_copy(const gptvq_pass *pass) {
  return pass->attention && pass->mlp && pass->stop != GPTVQ_RUN_ALL;
}

static gptvq_status run_window(const gptvq_sweep *s, const gptvq_pass *pass, size_t window, float *copy,
                               gptvq_error *err) {
  size_t values = s->length * s->model->config.hidden;
  const gptvq_kept *kept = pass->kept;
  float *x = pass->x + window * values;
  if (kept != NULL && window < kept->windows) {
    gptvq_stage_count(s->stages, 2.0 * (double)(values * kept->cols));
    return gptvq_block_output(s->model, pass->block, s->workspace, pass->mlp, s->length,
                              kept->values + window * s->length * kept->cols, x, err);
  }
  if (needs_copy(pass)) x = memcpy(copy, x, values * sizeof *x);
  audience a = {s, pass, {.window = window, .stream = x}};
  if (pass->attention)
    GPTVQ_TRY(gptvq_block_attention(s->model, pass->block, s->workspace, 0, 0, s->length, x,
                                    pass->mlp ? GPTVQ_RUN_ALL : pass->stop, show, &a, err));
  if (pass->mlp)
    GPTVQ_TRY(gptvq_block_mlp(s->model, pass->block, s->workspace, s->length, x, pass->stop, show, &a, err));
  return GPTVQ_OK;
}

gptvq_status gptvq_sweep_block(const gptvq_sweep *s, const gptvq_pass *passes, size_t count,
                               gptvq_error *err) {
  size_t values = s->length * s->model->config.hidden;
  float *copy = NULL;
  gptvq_status status = GPTVQ_OK;
  for (size_t i = 0; i < count; i++) {
    if (copy != NULL || !needs_copy(&passes[i])) continue;
    copy = gptvq_alloc(values, sizeof *copy);
    if (copy == NULL) return gptvq_fail_memory(err, "calibration activations", values * sizeof *copy);
  }
  for (size_t w = 0; w < s->windows; w++) {
    for (size_t i = 0; i < count; i++) {
      gptvq_stage before = gptvq_stage_enter(s->stages, passes[i].stage);
      GPTVQ_TRY_GOTO(run_window(s, &passes[i], w, copy, err));
      (void)gptvq_stage_enter(s->stages, before);
    }
    GPTVQ_TRY_GOTO(gptvq_report_progress(s->callbacks, s->phase, s->item, s->done + (w + 1) * s->step,
                                         s->total, NAN, err));
  }
done:
  free(copy);
  return status;
}
