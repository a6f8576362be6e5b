#include "calib/sweep.h"

#include "base/memory.h"
#include "linalg/gemm_bf16.h"
#include "model/workspace.h"

#include <math.h>
#include <string.h>

gptvq_status gptvq_keep_input(void *context, const gptvq_observed *in, gptvq_error *err) {
  const gptvq_kept *kept = context;
  if (in->slot >= kept->inputs.windows) return GPTVQ_OK;
  return gptvq_stream_write_rows(&kept->inputs, in->slot, in->cols, in->x, in->ldx, err);
}

typedef struct audience {
  const gptvq_sweep *sweep;
  const gptvq_pass *pass;
  gptvq_observed in; /* window and stream stand */
} audience;

double gptvq_attention_flop(const gptvq_config *c, const gptvq_attention *how, size_t length) {
  double full = (double)gptvq_min_size(length, how->window), pairs = full * (full + 1.0) / 2.0;
  pairs += ((double)length - full) * full; /* of those that see a whole window */
  return 4.0 * pairs * (double)(c->heads * c->head_dim);
}

gptvq_precision gptvq_calibration_precision(const gptvq_model *model) {
  return model->compute == GPTVQ_COMPUTE_BF16 && gptvq_gemm_bf16_available() ? GPTVQ_IN_BF16 : GPTVQ_IN_FP32;
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
                    ? gptvq_attention_flop(&a->sweep->model->config, &block->attention, a->sweep->length)
                    : 0.0;
  if (last_half && pass->stop == (output ? GPTVQ_STOP_AT_OUTPUT : GPTVQ_STOP_AT_INPUT)) return flop;
  for (size_t i = 0; i < count; i++)
    flop +=
        2.0 * (double)n * (double)block->linears[linears[i]].rows * (double)block->linears[linears[i]].cols;
  return flop;
}

/* gptvq_forward_watch */
static bool is_read(void *context, size_t linear) {
  const audience *a = context;
  for (size_t i = 0; i < a->pass->observer_count; i++)
    if (a->pass->observers[i].linear == linear && !a->pass->observers[i].passes_on) return true;
  return false;
}

/* gptvq_capture */
static gptvq_status show(void *context, const gptvq_block *block, const size_t *linears, size_t count,
                         const float *x, size_t n, size_t ldx, gptvq_error *err) {
  audience *a = context;
  if (count == 0 || n == 0) return GPTVQ_OK;
  gptvq_stages *stages = a->sweep->stages;
  if (stages != NULL)
    gptvq_stage_count(stages, gptvq_calibration_precision(a->sweep->model),
                      forward_flop(a, block, linears, count, n));
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
    gptvq_stage_count(stages, gptvq_calibration_precision(a->sweep->model), observer->row_flop * (double)n);
    GPTVQ_TRY(observer->on_input(observer->context, &a->in, err));
    (void)gptvq_stage_enter(stages, before);
  }
  return GPTVQ_OK;
}

/* Which MLPs of the pass's block have observers: [mlp_count], only of blocks with experts; the caller frees.
 */
static gptvq_status wanted_mlps(const gptvq_pass *pass, bool **wanted, gptvq_error *err) {
  const gptvq_block *block = pass->block;
  *wanted = NULL;
  if (!pass->mlp || pass->stop == GPTVQ_RUN_ALL || !gptvq_block_routes(block)) return GPTVQ_OK;
  *wanted = calloc(block->mlp_count, sizeof **wanted);
  if (*wanted == NULL) return gptvq_fail_memory(err, "a block", block->mlp_count * sizeof **wanted);
  for (size_t e = 0; e < block->mlp_count; e++)
    for (size_t i = 0; i < pass->observer_count; i++)
      if (pass->observers[i].linear == block->mlps[e].down ||
          pass->observers[i].linear == block->mlps[e].input.linear[0])
        (*wanted)[e] = true;
  return GPTVQ_OK;
}

static gptvq_forward_half half_of(const gptvq_sweep *s, const gptvq_pass *pass, bool mlp, gptvq_stop stop) {
  return (gptvq_forward_half){s->model, pass->block, mlp, stop, s->workspace};
}

/* One half of a window as far as `stop` says. */
static gptvq_status run_half(audience *a, bool mlp, gptvq_stop stop, float *x, gptvq_error *err) {
  const gptvq_sweep *s = a->sweep;
  const gptvq_block *block = a->pass->block;
  const gptvq_forward *forward = gptvq_forward_takes(s->forward, s->model, block, mlp);
  if (forward != NULL) {
    const gptvq_forward_half half = half_of(s, a->pass, mlp, stop);
    const gptvq_forward_watch watch = {show, is_read, a};
    return forward->run(forward, &half, s->length, x, &watch, err);
  }
  if (mlp) return gptvq_block_mlp(s->model, block, s->workspace, s->length, x, stop, show, a, err);
  return gptvq_block_attention(s->model, block, s->workspace, 0, 0, s->length, x, stop, show, a, err);
}

static gptvq_status run_output(const gptvq_sweep *s, const gptvq_pass *pass, const float *input, float *x,
                               gptvq_error *err) {
  const gptvq_forward *forward = gptvq_forward_takes(s->forward, s->model, pass->block, pass->mlp);
  const gptvq_forward_half half = half_of(s, pass, pass->mlp, GPTVQ_RUN_ALL);
  if (forward != NULL) return forward->output(forward, &half, s->length, input, x, err);
  return gptvq_block_output(s->model, pass->block, s->workspace, pass->mlp, s->length, input, x, err);
}

/* One window, which is the streams' number `slot`, through one pass, from x[length × hidden]; kept: [length ×
 * kept->cols] scratch. */
static gptvq_status run_window(const gptvq_sweep *s, const gptvq_pass *pass, size_t window, size_t slot,
                               float *x, const float *before, float *input, gptvq_error *err) {
  gptvq_status status = GPTVQ_OK;
  bool *wanted;
  const gptvq_kept *kept = pass->kept;
  if (kept != NULL && slot < kept->inputs.windows) {
    gptvq_stage_count(s->stages, gptvq_calibration_precision(s->model),
                      2.0 * (double)(pass->x->values * kept->cols));
    GPTVQ_TRY(gptvq_stream_read(&kept->inputs, slot, input, err));
    return run_output(s, pass, input, x, err);
  }
  audience a = {s, pass, {.window = window, .slot = slot, .stream = x, .before = before}};
  if (pass->attention) GPTVQ_TRY(run_half(&a, false, pass->mlp ? GPTVQ_RUN_ALL : pass->stop, x, err));
  if (pass->attention && pass->mlp) gptvq_stream_round(pass->x, x); /* as in two passes */
  if (!pass->mlp) return GPTVQ_OK;
  GPTVQ_TRY(wanted_mlps(pass, &wanted, err));
  s->workspace->wanted = wanted;
  status = run_half(&a, true, pass->stop, x, err);
  s->workspace->wanted = NULL;
  free(wanted);
  return status;
}

gptvq_status gptvq_embed_windows(const gptvq_model *model, const gptvq_token_windows *windows,
                                 const gptvq_deal *deal, const gptvq_stream *x, gptvq_error *err) {
  const gptvq_deal all = gptvq_deal_of(windows->count, 0, 1);
  float *window = gptvq_alloc(x->values, sizeof *window);
  if (window == NULL)
    return gptvq_fail_memory(err, "calibration activations", gptvq_saturated_size(x->values, sizeof *window));
  gptvq_status status = GPTVQ_OK;
  size_t slot = 0, begin, end;
  if (deal == NULL) deal = &all;
  for (size_t round = 0; round < gptvq_deal_rounds(deal); round++) {
    gptvq_deal_round(deal, round, &begin, &end);
    for (size_t w = begin; w < end && status == GPTVQ_OK; w++) {
      status = gptvq_embed(model, windows->tokens + w * windows->length, windows->length, window, err);
      if (status == GPTVQ_OK) status = gptvq_stream_write(x, slot++, window, err);
    }
  }
  gptvq_linear_rest(&model->embedding);
  free(window);
  return status;
}

size_t gptvq_sweep_bytes(size_t length, size_t hidden, size_t passes, size_t kept_cols) {
  size_t window = gptvq_saturated_sum(gptvq_saturated_size(passes, hidden), kept_cols);
  return gptvq_saturated_size(gptvq_saturated_size(length, window), sizeof(float));
}

typedef struct buffers {
  float *windows, *input; /* [passes][length × hidden]; [length × kept columns] */
} buffers;

/* One window through all passes. */
static gptvq_status pass_window(const gptvq_sweep *s, const gptvq_pass *passes, size_t count, size_t window,
                                size_t slot, const buffers *b, gptvq_error *err) {
  const size_t values = s->length * s->model->config.hidden;
  for (size_t i = 0; i < count; i++) {
    float *x = b->windows + i * values;
    gptvq_stage before = gptvq_stage_enter(s->stages, passes[i].stage);
    GPTVQ_TRY(gptvq_stream_read(passes[i].x, slot, x, err));
    GPTVQ_TRY(run_window(s, &passes[i], window, slot, x, i > 0 ? x - values : NULL, b->input, err));
    if (passes[i].stop == GPTVQ_RUN_ALL) GPTVQ_TRY(gptvq_stream_write(passes[i].x, slot, x, err));
    (void)gptvq_stage_enter(s->stages, before);
  }
  return gptvq_report_progress(s->callbacks, s->phase, s->item, s->done + (slot + 1) * s->step, s->total, NAN,
                               err);
}

static gptvq_status pass_windows(const gptvq_sweep *s, const gptvq_pass *passes, size_t count,
                                 const buffers *b, gptvq_error *err) {
  size_t slot = 0, begin, end;
  const gptvq_deal one = {.windows = s->windows, .groups = 1, .members = 1};
  const gptvq_deal *deal = s->deal != NULL ? s->deal : &one;
  for (size_t round = 0; round < gptvq_deal_rounds(deal); round++) {
    gptvq_deal_round(deal, round, &begin, &end);
    for (size_t w = begin; w < end; w++) GPTVQ_TRY(pass_window(s, passes, count, w, slot++, b, err));
    if (s->on_round != NULL) GPTVQ_TRY(s->on_round(s->round_context, round, err));
  }
  return GPTVQ_OK;
}

gptvq_status gptvq_sweep_block(const gptvq_sweep *s, const gptvq_pass *passes, size_t count,
                               gptvq_error *err) {
  const size_t hidden = s->model->config.hidden, values = s->length * hidden;
  size_t kept_cols = 0;
  for (size_t i = 0; i < count; i++)
    if (passes[i].kept != NULL && passes[i].kept->inputs.windows > 0)
      kept_cols = gptvq_max_size(kept_cols, passes[i].kept->cols);
  const size_t bytes = gptvq_sweep_bytes(s->length, hidden, count, kept_cols);
  float *windows = gptvq_alloc(bytes, 1);
  if (windows == NULL) return gptvq_fail_memory(err, "calibration activations", bytes);
  const buffers b = {windows, windows + count * values};
  if (s->forward != NULL) s->forward->prepare(s->forward, windows, bytes);
  gptvq_status status = pass_windows(s, passes, count, &b, err);
  if (s->forward != NULL) s->forward->rest(s->forward);
  free(windows);
  return status;
}
