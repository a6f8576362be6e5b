/* The two halves of a decoder block: attention and (mixture-of-experts) MLP, each with its norms and
 * residual. */
#include "base/file.h"
#include "base/memory.h"
#include "model/layer/gate.h"
#include "model/layer/latent.h"
#include "model/layer/norm.h"
#include "model/layer/output_gate.h"
#include "model/layer/vector.h"
#include "model/workspace.h"

#include <string.h>

static gptvq_status check_rows(const gptvq_workspace *workspace, const gptvq_block *block, size_t n,
                               gptvq_error *err) {
  if (n <= workspace->max_rows) return GPTVQ_OK;
  return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                    "block %zu: %zu tokens in one call, but the workspace is for %zu", block->index, n,
                    workspace->max_rows);
}

static gptvq_status capture_inputs(gptvq_capture capture, void *context, const gptvq_block *block,
                                   const size_t *linears, size_t count, const float *x, size_t n, size_t ldx,
                                   gptvq_error *err) {
  return capture == NULL ? GPTVQ_OK : capture(context, block, linears, count, x, n, ldx, err);
}

/* w->norm = what a half reads, normalised where a norm stands before it; false: it is not to be had. */
static bool half_inputs(const gptvq_model *model, const gptvq_block *block, gptvq_workspace *w,
                        gptvq_norm_place before, size_t n, const float *x) {
  const gptvq_config *c = &model->config;
  const float *gain = block->norms[before];
  return gain != NULL ? gptvq_norm_rows(n, c->hidden, x, gain, (float)c->rms_norm_eps, w->norm)
                      : gptvq_copy_rows(n, c->hidden, x, w->norm);
}

gptvq_status gptvq_fail_half_inputs(const gptvq_model *model, const gptvq_block *block, bool mlp,
                                    gptvq_error *err) {
  if (mlp) return gptvq_fail_numbers(model, block, "the attention", err);
  return block->index == 0 ? gptvq_fail_numbers(model, NULL, "the embedding", err)
                           : gptvq_fail_numbers(model, &model->blocks[block->index - 1], "the MLP", err);
}

/* x += what a half has left in w->sum, normalised where a norm stands behind it, and scaled. */
static gptvq_status add_output(const gptvq_model *model, const gptvq_block *block, gptvq_workspace *w,
                               gptvq_norm_place behind, size_t n, float *x, gptvq_error *err) {
  const gptvq_config *c = &model->config;
  const float *gain = block->norms[behind];
  if (gain != NULL && !gptvq_norm_rows(n, c->hidden, w->sum, gain, (float)c->rms_norm_eps, w->sum))
    return gptvq_fail_numbers(model, block, behind == GPTVQ_NORM_MLP_OUT ? "the MLP" : "the attention", err);
  gptvq_add_rows(n, c->hidden, (float)c->residual_scale, w->sum, x);
  return GPTVQ_OK;
}

/* Between the first linears and the last one, rows of `width` values in w->wide: the attention, or the delta
 * net, into w->heads. */
static gptvq_status run_core(const gptvq_model *model, const gptvq_block *block, gptvq_workspace *w,
                             const gptvq_attention_text *texts, size_t count, size_t n, size_t width,
                             gptvq_error *err) {
  const gptvq_config *c = &model->config;
  size_t heads = c->heads * c->head_dim;
  if (block->delta != NULL) return gptvq_delta_core(model, block, w, texts, count, n, err);
  if (!block->output_gate) return gptvq_attention_core(model, block, w, texts, count, n, w->wide, width, err);
  gptvq_split_gates(n, c->heads, c->head_dim, width, w->wide, w->heads);
  GPTVQ_TRY(gptvq_attention_core(model, block, w, texts, count, n, w->wide + heads, width, err));
  gptvq_apply_gates(n, heads, width, w->wide, w->heads);
  return GPTVQ_OK;
}

/* The attention of n tokens of `count` texts, as far as `stop` says. */
static gptvq_status run_attention(const gptvq_model *model, const gptvq_block *block, gptvq_workspace *w,
                                  const gptvq_attention_text *texts, size_t count, size_t n, float *x,
                                  gptvq_stop stop, gptvq_capture capture, void *context, gptvq_error *err) {
  const gptvq_config *c = &model->config;
  if (!half_inputs(model, block, w, GPTVQ_NORM_ATTENTION, n, x))
    return gptvq_fail_half_inputs(model, block, false, err);
  GPTVQ_TRY(capture_inputs(capture, context, block, block->qkv.linear, block->qkv.count, w->norm, n,
                           c->hidden, err));
  if (stop == GPTVQ_STOP_AT_INPUT || n == 0) return GPTVQ_OK;
  const bool latent = c->latent.kv_rank > 0, shared = latent && texts->latent;
  const size_t width = latent ? gptvq_latent_width(c, shared) : block->qkv.width,
               heads = block->linears[block->o].cols;
  const float *outputs = w->heads;
  if (latent) GPTVQ_TRY(gptvq_latent_forward(model, block, w, count, n, shared, capture, context, err));
  else
    GPTVQ_TRY(gptvq_group_forward(model, block, &block->qkv, w, n, w->norm, c->hidden, w->wide, width, err));
  GPTVQ_TRY(run_core(model, block, w, texts, count, n, width, err));
  if (shared) { /* the rows are done with */
    const gptvq_latent_rows rows = gptvq_latent_rows_of(model, w, count, n);
    gptvq_latent_expand(&rows, w->heads, w->wide);
    outputs = w->wide;
  } else if (latent) gptvq_latent_outputs(&c->latent, c->heads, n, w->heads);
  GPTVQ_TRY(capture_inputs(capture, context, block, &block->o, 1, outputs, n, heads, err));
  if (stop == GPTVQ_STOP_AT_OUTPUT) return GPTVQ_OK;
  const gptvq_linear_group output = {.count = 1, .linear = {block->o}, .width = c->hidden};
  GPTVQ_TRY(gptvq_group_forward(model, block, &output, w, n, outputs, heads, w->sum, c->hidden, err));
  return add_output(model, block, w, GPTVQ_NORM_ATTENTION_OUT, n, x, err);
}

gptvq_status gptvq_block_attention(const gptvq_model *model, const gptvq_block *block,
                                   gptvq_workspace *workspace, size_t layer, size_t position, size_t n,
                                   float *x, gptvq_stop stop, gptvq_capture capture, void *context,
                                   gptvq_error *err) {
  gptvq_attention_text text;
  GPTVQ_TRY(check_rows(workspace, block, n, err));
  GPTVQ_TRY(gptvq_workspace_text(model, block, workspace, layer, position, 0, n, &text, err));
  return run_attention(model, block, workspace, &text, 1, n, x, stop, capture, context, err);
}

gptvq_status gptvq_block_attention_step(const gptvq_model *model, const gptvq_block *block,
                                        gptvq_workspace *workspace, const gptvq_attention_text *texts,
                                        size_t count, size_t n, float *x, gptvq_error *err) {
  GPTVQ_TRY(check_rows(workspace, block, n, err));
  return run_attention(model, block, workspace, texts, count, n, x, GPTVQ_RUN_ALL, NULL, NULL, err);
}

/* One MLP on x[n × hidden] into out[n × hidden], which is written only when it runs to the end; out may be x.
 */
static gptvq_status run_mlp(const gptvq_model *model, const gptvq_block *block, const gptvq_mlp *mlp,
                            gptvq_workspace *w, size_t n, const float *x, float *out, gptvq_stop stop,
                            gptvq_capture capture, void *context, gptvq_error *err) {
  size_t hidden = model->config.hidden, width = mlp->input.width;
  GPTVQ_TRY(capture_inputs(capture, context, block, mlp->input.linear, mlp->input.count, x, n, hidden, err));
  if (stop == GPTVQ_STOP_AT_INPUT) return GPTVQ_OK;
  GPTVQ_TRY(gptvq_group_forward(model, block, &mlp->input, w, n, x, hidden, w->wide, width, err));
  gptvq_gate_rows(block->activation, n, width, w->wide);
  GPTVQ_TRY(capture_inputs(capture, context, block, &mlp->down, 1, w->wide, n, width, err));
  if (stop == GPTVQ_STOP_AT_OUTPUT) return GPTVQ_OK;
  const gptvq_linear_group down = {.count = 1, .linear = {mlp->down}, .width = hidden};
  return gptvq_group_forward(model, block, &down, w, n, w->wide, width, out, hidden, err);
}

/* The MLP beside the experts, on all tokens. */
static gptvq_status run_shared(const gptvq_model *model, const gptvq_block *block, gptvq_workspace *w,
                               size_t n, gptvq_stop stop, gptvq_capture capture, void *context,
                               gptvq_error *err) {
  size_t hidden = model->config.hidden, zero = 0;
  gptvq_routing *r = &w->routing;
  const gptvq_linear *gate = &block->shared_gate;
  if (gate->weights != NULL)
    GPTVQ_TRY(gptvq_linears_forward(&gate, &zero, 1, GPTVQ_COMPUTE_FP32, n, w->norm, hidden, r->logits, 1,
                                    &w->scratch, err));
  const size_t members = gptvq_route_everyone(r, n, gate->weights != NULL ? r->logits : NULL);
  GPTVQ_TRY(run_mlp(model, block, &block->mlps[r->experts], w, n, w->norm, r->gathered, stop, capture,
                    context, err));
  if (stop == GPTVQ_RUN_ALL) gptvq_route_scatter(r, members, w->sum);
  return GPTVQ_OK;
}

/* Has the MLP to run? */
static bool is_wanted(const gptvq_workspace *w, size_t mlp, gptvq_stop stop) {
  return stop == GPTVQ_RUN_ALL || w->wanted == NULL || w->wanted[mlp];
}

/* Experts one after the other, each on the tokens that chose it; their outputs are added in the order of the
 * experts, those of the MLP beside them last. */
static gptvq_status run_experts(const gptvq_model *model, const gptvq_block *block, gptvq_workspace *w,
                                size_t n, gptvq_stop stop, gptvq_capture capture, void *context,
                                gptvq_error *err) {
  const size_t hidden = model->config.hidden, zero = 0, router_input = GPTVQ_ROUTER_INPUT;
  gptvq_routing *r = &w->routing;
  const gptvq_linear *router = &block->router;
  GPTVQ_TRY(capture_inputs(capture, context, block, &router_input, 1, w->norm, n, hidden, err));
  /* in fp32 always: it is small, and a rounded choice between experts is not a rounding error */
  GPTVQ_TRY(gptvq_linears_forward(&router, &zero, 1, GPTVQ_COMPUTE_FP32, n, w->norm, hidden, r->logits,
                                  r->experts, &w->scratch, err));
  if (!GPTVQ_MULTI_PICK(gptvq_all_finite)(n * r->experts, r->logits))
    return gptvq_fail_numbers(model, block, "the router", err);
  r->correction = block->router_correction;
  if (!gptvq_route(r, n))
    return gptvq_fail(err, GPTVQ_ERROR_INTERNAL, "block %zu: %zu experts a token, but there are only %zu",
                      block->index, r->used, r->experts);
  memset(w->sum, 0, n * hidden * sizeof(float));
  for (size_t e = 0; e < r->experts; e++) {
    if (!is_wanted(w, e, stop)) continue;
    size_t members = gptvq_route_gather(r, e, n, w->norm);
    /* the expert's outputs replace its gathered inputs */
    GPTVQ_TRY(run_mlp(model, block, &block->mlps[e], w, members, r->gathered, r->gathered, stop, capture,
                      context, err));
    if (stop == GPTVQ_RUN_ALL) gptvq_route_scatter(r, members, w->sum);
  }
  return block->mlp_count > r->experts && is_wanted(w, r->experts, stop)
             ? run_shared(model, block, w, n, stop, capture, context, err)
             : GPTVQ_OK;
}

gptvq_status gptvq_block_mlp(const gptvq_model *model, const gptvq_block *block, gptvq_workspace *workspace,
                             size_t n, float *x, gptvq_stop stop, gptvq_capture capture, void *context,
                             gptvq_error *err) {
  gptvq_workspace *w = workspace;
  GPTVQ_TRY(check_rows(w, block, n, err));
  if (!half_inputs(model, block, w, GPTVQ_NORM_MLP, n, x))
    return gptvq_fail_half_inputs(model, block, true, err);
  if (gptvq_block_routes(block)) GPTVQ_TRY(run_experts(model, block, w, n, stop, capture, context, err));
  else GPTVQ_TRY(run_mlp(model, block, &block->mlps[0], w, n, w->norm, w->sum, stop, capture, context, err));
  return stop == GPTVQ_RUN_ALL ? add_output(model, block, w, GPTVQ_NORM_MLP_OUT, n, x, err) : GPTVQ_OK;
}

gptvq_status gptvq_block_output(const gptvq_model *model, const gptvq_block *block,
                                gptvq_workspace *workspace, bool mlp, size_t n, const float *input, float *x,
                                gptvq_error *err) {
  size_t hidden = model->config.hidden, index = mlp ? block->mlps[0].down : block->o;
  const gptvq_linear_group output = {.count = 1, .linear = {index}, .width = hidden};
  GPTVQ_TRY(check_rows(workspace, block, n, err));
  GPTVQ_TRY(gptvq_group_forward(model, block, &output, workspace, n, input, block->linears[index].cols,
                                workspace->sum, hidden, err));
  return add_output(model, block, workspace, mlp ? GPTVQ_NORM_MLP_OUT : GPTVQ_NORM_ATTENTION_OUT, n, x, err);
}

void gptvq_linear_rest(const gptvq_linear *linear) {
  if (!linear->is_packed) {
    gptvq_mapping_rest(linear->weights, linear->rows * linear->cols * gptvq_dtype_size(linear->dtype));
    return;
  }
  gptvq_packed_sizes sizes;
  gptvq_packed_measure(&linear->packed.shape, &sizes);
  gptvq_mapping_rest(linear->packed.indices, sizes.index_bytes);
}

void gptvq_block_rest(const gptvq_block *block) {
  for (size_t i = 0; i < block->linear_count; i++) gptvq_linear_rest(&block->linears[i]);
}

void gptvq_model_rest(const gptvq_model *model) {
  for (size_t t = 0; t < gptvq_checkpoint_tensor_count(model->checkpoint); t++) {
    const gptvq_tensor *tensor = gptvq_checkpoint_tensor_at(model->checkpoint, t);
    gptvq_mapping_rest(tensor->data, tensor->bytes);
  }
}
