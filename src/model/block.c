/* The two halves of a decoder block: attention and (mixture-of-experts) MLP, each with its pre-norm and
 * residual. */
#include "base/memory.h"
#include "base/threads.h"
#include "model/vector.h"
#include "model/workspace.h"

#include <assert.h>
#include <math.h>
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

/* The attention's normalised inputs. When they are not to be had, what came before is to blame. */
static gptvq_status attention_inputs(const gptvq_model *model, const gptvq_block *block, gptvq_workspace *w,
                                     size_t n, const float *x, gptvq_error *err) {
  const gptvq_config *c = &model->config;
  if (gptvq_norm_rows(n, c->hidden, x, block->norms[GPTVQ_NORM_ATTENTION], (float)c->rms_norm_eps, w->norm))
    return GPTVQ_OK;
  return block->index == 0 ? gptvq_fail_numbers(model, NULL, "the embedding", err)
                           : gptvq_fail_numbers(model, &model->blocks[block->index - 1], "the MLP", err);
}

gptvq_status gptvq_block_attention(const gptvq_model *model, const gptvq_block *block,
                                   gptvq_workspace *workspace, size_t layer, size_t position, size_t n,
                                   float *x, gptvq_stop stop, gptvq_capture capture, void *context,
                                   gptvq_error *err) {
  const gptvq_config *c = &model->config;
  gptvq_workspace *w = workspace;
  GPTVQ_TRY(check_rows(w, block, n, err));
  if (layer >= w->layers || position > w->max_positions || n > w->max_positions - position)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "block %zu: positions %zu … %zu, but the session is for %zu",
                      block->index, position, position + n, w->max_positions);
  GPTVQ_TRY(attention_inputs(model, block, w, n, x, err));
  GPTVQ_TRY(capture_inputs(capture, context, block, block->qkv.linear, block->qkv.count, w->norm, n,
                           c->hidden, err));
  if (stop == GPTVQ_STOP_AT_INPUT || n == 0) return GPTVQ_OK;
  size_t width = block->qkv.width, heads = c->heads * c->head_dim;
  GPTVQ_TRY(gptvq_group_forward(model, block, &block->qkv, w, n, w->norm, c->hidden, w->wide, width, err));
  gptvq_attention_core(model, block, w, layer, position, n, w->wide, width);
  GPTVQ_TRY(capture_inputs(capture, context, block, &block->o, 1, w->heads, n, heads, err));
  if (stop == GPTVQ_STOP_AT_OUTPUT) return GPTVQ_OK;
  const gptvq_linear_group output = {.count = 1, .linear = {block->o}, .width = c->hidden};
  GPTVQ_TRY(gptvq_group_forward(model, block, &output, w, n, w->heads, heads, w->sum, c->hidden, err));
  gptvq_add_rows(n, c->hidden, w->sum, x);
  return GPTVQ_OK;
}

gptvq_status gptvq_block_attention_step(const gptvq_model *model, const gptvq_block *block,
                                        gptvq_workspace *workspace, size_t layer, size_t position,
                                        size_t sequences, float *x, gptvq_error *err) {
  const gptvq_config *c = &model->config;
  gptvq_workspace *w = workspace;
  size_t width = block->qkv.width, heads = c->heads * c->head_dim;
  GPTVQ_TRY(check_rows(w, block, sequences, err));
  if (sequences == 0) return GPTVQ_OK;
  if (layer >= w->layers / sequences || position >= w->max_positions)
    return gptvq_fail(
        err, GPTVQ_ERROR_ARGUMENT,
        "block %zu: position %zu of %zu texts, but there is room for %zu positions and %zu caches",
        block->index, position, sequences, w->max_positions, w->layers);
  GPTVQ_TRY(attention_inputs(model, block, w, sequences, x, err));
  GPTVQ_TRY(
      gptvq_group_forward(model, block, &block->qkv, w, sequences, w->norm, c->hidden, w->wide, width, err));
  gptvq_attention_step(model, block, w, layer, position, sequences, w->wide, width);
  const gptvq_linear_group output = {.count = 1, .linear = {block->o}, .width = c->hidden};
  GPTVQ_TRY(
      gptvq_group_forward(model, block, &output, w, sequences, w->heads, heads, w->sum, c->hidden, err));
  gptvq_add_rows(sequences, c->hidden, w->sum, x);
  return GPTVQ_OK;
}

typedef struct gate_job {
  float *wide;
  size_t width;
} gate_job;

static void gate_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const gate_job *job = context;
  for (size_t i = begin; i < end; i++) {
    float *gate = job->wide + i * job->width;
    GPTVQ_MULTI_PICK(gptvq_silu_mul)(job->width / 2, gate, gate + job->width / 2);
  }
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
  gate_job job = {w->wide, width};
  gptvq_parallel_for(n, 4, gate_rows, &job);
  GPTVQ_TRY(capture_inputs(capture, context, block, &mlp->down, 1, w->wide, n, width, err));
  if (stop == GPTVQ_STOP_AT_OUTPUT) return GPTVQ_OK;
  const gptvq_linear_group down = {.count = 1, .linear = {mlp->down}, .width = hidden};
  return gptvq_group_forward(model, block, &down, w, n, w->wide, width, out, hidden, err);
}

/* The experts of the `used` largest of finite `logits`, lowest expert first among equals, and their shares of
 * the sum of the probabilities, which is about 1 at least: the largest one's exponential. */
static void choose_experts(size_t experts, size_t used, float *logits, uint32_t *chosen, float *share) {
  float *probabilities = logits, sum = 0.0f;
  GPTVQ_MULTI_PICK(gptvq_exp_sum)(experts, GPTVQ_MULTI_PICK(gptvq_max)(experts, logits), probabilities);
  for (size_t i = 0; i < used; i++) {
    size_t best = experts;
    for (size_t e = 0; e < experts; e++) /* whatever the values, no expert twice: those chosen are negative */
      if (!(probabilities[e] < 0.0f) && (best == experts || probabilities[e] > probabilities[best])) best = e;
    assert(best < experts);
    chosen[i] = (uint32_t)best;
    share[i] = probabilities[best];
    sum += share[i];
    probabilities[best] = -1.0f;
  }
  for (size_t i = 0; i < used; i++) share[i] /= sum;
}

/* Experts one after the other, each on the tokens that chose it; their outputs are added in the order of the
 * experts. */
static gptvq_status run_experts(const gptvq_model *model, const gptvq_block *block, gptvq_workspace *w,
                                size_t n, gptvq_stop stop, gptvq_capture capture, void *context,
                                gptvq_error *err) {
  const gptvq_config *c = &model->config;
  size_t hidden = c->hidden, experts = block->mlp_count, used = c->experts_per_token, zero = 0;
  const gptvq_linear *router = &block->router;
  /* in fp32 always: it is small, and a rounded choice between experts is not a rounding error */
  GPTVQ_TRY(gptvq_linears_forward(&router, &zero, 1, GPTVQ_COMPUTE_FP32, n, w->norm, hidden, w->routing,
                                  experts, &w->scratch, err));
  if (!GPTVQ_MULTI_PICK(gptvq_all_finite)(n * experts, w->routing))
    return gptvq_fail_numbers(model, block, "the router", err);
  for (size_t i = 0; i < n; i++)
    choose_experts(experts, used, w->routing + i * experts, w->chosen + i * used, w->share + i * used);
  memset(w->sum, 0, n * hidden * sizeof(float));
  for (size_t e = 0; e < experts; e++) {
    size_t members = 0;
    for (size_t i = 0; i < n * used; i++) {
      if (w->chosen[i] != e) continue;
      assert(members < w->max_rows); /* of the gathered arrays: each token chose the expert once at most */
      w->members[members] = (uint32_t)(i / used);
      w->member_share[members] = w->share[i];
      memcpy(w->gathered + members * hidden, w->norm + i / used * hidden, hidden * sizeof(float));
      members++;
    }
    /* the expert's outputs replace its gathered inputs */
    GPTVQ_TRY(run_mlp(model, block, &block->mlps[e], w, members, w->gathered, w->gathered, stop, capture,
                      context, err));
    if (stop != GPTVQ_RUN_ALL) continue;
    for (size_t m = 0; m < members; m++) GPTVQ_MULTI_PICK(gptvq_add_scaled)
    (hidden, w->member_share[m], w->gathered + m * hidden, w->sum + w->members[m] * hidden);
  }
  return GPTVQ_OK;
}

gptvq_status gptvq_block_mlp(const gptvq_model *model, const gptvq_block *block, gptvq_workspace *workspace,
                             size_t n, float *x, gptvq_stop stop, gptvq_capture capture, void *context,
                             gptvq_error *err) {
  const gptvq_config *c = &model->config;
  gptvq_workspace *w = workspace;
  GPTVQ_TRY(check_rows(w, block, n, err));
  if (!gptvq_norm_rows(n, c->hidden, x, block->norms[GPTVQ_NORM_MLP], (float)c->rms_norm_eps, w->norm))
    return gptvq_fail_numbers(model, block, "the attention", err);
  if (gptvq_block_routes(block)) GPTVQ_TRY(run_experts(model, block, w, n, stop, capture, context, err));
  else GPTVQ_TRY(run_mlp(model, block, &block->mlps[0], w, n, w->norm, w->sum, stop, capture, context, err));
  if (stop == GPTVQ_RUN_ALL) gptvq_add_rows(n, c->hidden, w->sum, x);
  return GPTVQ_OK;
}

gptvq_status gptvq_block_output(const gptvq_model *model, const gptvq_block *block,
                                gptvq_workspace *workspace, bool mlp, size_t n, const float *input, float *x,
                                gptvq_error *err) {
  size_t hidden = model->config.hidden, index = mlp ? block->mlps[0].down : block->o;
  const gptvq_linear_group output = {.count = 1, .linear = {index}, .width = hidden};
  GPTVQ_TRY(check_rows(workspace, block, n, err));
  GPTVQ_TRY(gptvq_group_forward(model, block, &output, workspace, n, input, block->linears[index].cols,
                                workspace->sum, hidden, err));
  gptvq_add_rows(n, hidden, workspace->sum, x);
  return GPTVQ_OK;
}
