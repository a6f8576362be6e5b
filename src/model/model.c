#include "base/json.h"
#include "base/memory.h"
#include "base/sized.h"
#include "checkpoint/names.h"
#include "linalg/gemm_bf16.h"
#include "model/layer/rope.h"
#include "model/loader.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* By their names in config.json. */
static const char *const activations[] = {[GPTVQ_SILU] = "silu", [GPTVQ_GELU_TANH] = "gelu_pytorch_tanh"};

static bool has_bias(gptvq_bias_rule rule, bool config) {
  return rule == GPTVQ_BIAS_ALWAYS || (rule == GPTVQ_BIAS_CONFIG && config);
}

/* Layers that read the same input were given the same column order: they share one permutation, and then one
 * prepared input. */
static void share_permutation(const gptvq_linear *first, gptvq_linear *other) {
  if (!first->is_packed || !other->is_packed) return;
  const uint32_t *a = first->packed.permutation, *b = other->packed.permutation;
  if (a != NULL && b != NULL && memcmp(a, b, first->cols * sizeof *a) == 0) other->packed.permutation = a;
}

/* What the family calls the readers of an input of such a block. */
static const gptvq_arch_linears *readers_of(const gptvq_model *model, bool delta, gptvq_block_input input) {
  return delta && input <= GPTVQ_INPUT_O ? &model->arch->delta.linears[input] : &model->arch->linears[input];
}

static const char *reader_name(gptvq_model *model, const gptvq_block *block, gptvq_block_input input,
                               size_t part, size_t expert) {
  char text[GPTVQ_TENSOR_NAME];
  if (block->delta != NULL && input <= GPTVQ_INPUT_O)
    gptvq_block_name(block->index, model->arch->delta.linears[input].names[part], "", text);
  else if (input == GPTVQ_INPUT_QKV && part == 0 && model->arch->direct_q != NULL &&
           model->config.latent.q_rank == 0)
    gptvq_block_name(block->index, model->arch->direct_q, "", text);
  else gptvq_linear_name(model->arch, block->index, input, part, expert, text);
  return gptvq_model_name(model, text);
}

/* Loads the linears of one input side by side; widths of the parts are in `rows`, or their sum when they are
 * fused into one. */
static gptvq_status load_group(gptvq_model *model, gptvq_block *block, gptvq_block_input input, size_t expert,
                               const size_t *rows, size_t parts, size_t cols, bool bias,
                               gptvq_linear_group *group, gptvq_error *err) {
  group->count = gptvq_linear_parts(readers_of(model, block->delta != NULL, input));
  group->width = 0;
  for (size_t i = 0; i < parts; i++) group->width += rows[i];
  size_t offset = 0;
  for (size_t i = 0; i < group->count; i++) {
    size_t width = group->count == 1 ? group->width : rows[i];
    const char *name = reader_name(model, block, input, i, expert);
    if (name == NULL) return gptvq_fail_memory(err, "tensor names", GPTVQ_TENSOR_NAME);
    group->linear[i] = block->linear_count;
    group->offset[i] = offset;
    offset += width;
    GPTVQ_TRY(gptvq_load_linear(model, name, width, cols, bias, &block->linears[block->linear_count++], err));
    if (i > 0) share_permutation(&block->linears[group->linear[0]], &block->linears[group->linear[i]]);
  }
  return GPTVQ_OK;
}

/* A linear back to the residual stream. */
static gptvq_status load_output(gptvq_model *model, gptvq_block *block, gptvq_block_input input,
                                size_t expert, size_t cols, bool bias, size_t *index, gptvq_error *err) {
  gptvq_linear_group group;
  GPTVQ_TRY(load_group(model, block, input, expert, &model->config.hidden, 1, cols, bias, &group, err));
  *index = group.linear[0];
  return GPTVQ_OK;
}

/* A matrix of a block that stays as it is. */
static gptvq_status load_small(gptvq_model *model, const gptvq_block *block, const char *of, size_t rows,
                               const char *why, gptvq_linear *out, gptvq_error *err) {
  char text[GPTVQ_TENSOR_NAME];
  const char *name = gptvq_model_name(model, gptvq_block_name(block->index, of, "", text));
  if (name == NULL) return gptvq_fail_memory(err, "tensor names", sizeof text);
  return gptvq_load_dense(model, name, rows, model->config.hidden, why, out, err);
}

/* `which`: an expert's number, GPTVQ_MLP_DENSE or GPTVQ_MLP_SHARED. */
static gptvq_status load_mlp(gptvq_model *model, gptvq_block *block, size_t which, size_t width,
                             gptvq_mlp *mlp, gptvq_error *err) {
  const gptvq_config *c = &model->config;
  const gptvq_arch *arch = model->arch;
  const size_t widths[2] = {width, width};
  const bool bias = has_bias(arch->linears[GPTVQ_INPUT_GATE_UP].bias, c->mlp_bias),
             down_bias = has_bias(arch->linears[GPTVQ_INPUT_DOWN].bias, c->mlp_bias);
  GPTVQ_TRY(
      load_group(model, block, GPTVQ_INPUT_GATE_UP, which, widths, 2, c->hidden, bias, &mlp->input, err));
  return load_output(model, block, GPTVQ_INPUT_DOWN, which, width, down_bias, &mlp->down, err);
}

static gptvq_status load_mlps(gptvq_model *model, gptvq_block *block, gptvq_error *err) {
  const gptvq_config *c = &model->config;
  const gptvq_arch *arch = model->arch;
  if (!gptvq_layer_has_experts(model, block->index))
    return load_mlp(model, block, GPTVQ_MLP_DENSE, c->intermediate, &block->mlps[0], err);
  GPTVQ_TRY(load_small(model, block, arch->router, c->experts, "a router: small, and decides", &block->router,
                       err));
  if (arch->router_bias) {
    char text[GPTVQ_TENSOR_NAME];
    GPTVQ_TRY(gptvq_load_vector(model, gptvq_block_name(block->index, arch->router, ".bias", text),
                                c->experts, &block->router.bias, err));
  }
  if (arch->router_correction != NULL) {
    char text[GPTVQ_TENSOR_NAME];
    GPTVQ_TRY(gptvq_load_vector(model, gptvq_block_name(block->index, arch->router_correction, "", text),
                                c->experts, &block->router_correction, err));
  }
  for (size_t e = 0; e < c->experts; e++)
    GPTVQ_TRY(load_mlp(model, block, e, c->expert_intermediate, &block->mlps[e], err));
  if (c->shared_intermediate == 0) return GPTVQ_OK;
  if (arch->shared_gate != NULL)
    GPTVQ_TRY(load_small(model, block, arch->shared_gate, 1, "a gate of one row", &block->shared_gate, err));
  return load_mlp(model, block, GPTVQ_MLP_SHARED, c->shared_intermediate, &block->mlps[c->experts], err);
}

static gptvq_status load_attention(gptvq_model *model, gptvq_block *block, gptvq_error *err) {
  const gptvq_config *c = &model->config;
  const gptvq_arch *arch = model->arch;
  const gptvq_latent *l = &c->latent;
  const size_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
  const bool bias = has_bias(arch->linears[GPTVQ_INPUT_QKV].bias, c->attention_bias),
             out_bias = has_bias(arch->linears[GPTVQ_INPUT_O].bias, c->attention_out_bias);
  if (l->kv_rank == 0) {
    const size_t widths[GPTVQ_MAX_PARTS] = {arch->output_gate ? 2 * q : q, kv, kv};
    block->output_gate = arch->output_gate;
    GPTVQ_TRY(load_group(model, block, GPTVQ_INPUT_QKV, 0, widths, GPTVQ_MAX_PARTS, c->hidden, bias,
                         &block->qkv, err));
    return load_output(model, block, GPTVQ_INPUT_O, 0, q, out_bias, &block->o, err);
  }
  const size_t widths[2] = {l->q_rank > 0 ? l->q_rank : q, l->kv_rank + l->rotated},
               made = c->heads * (l->plain + l->values);
  if (l->q_rank == 0 && bias)
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "%s/config.json: attention_bias is not supported without q_lora_rank",
                      gptvq_checkpoint_folder(model->checkpoint));
  GPTVQ_TRY(load_group(model, block, GPTVQ_INPUT_QKV, 0, widths, 2, c->hidden, bias, &block->qkv, err));
  if (l->q_rank > 0)
    GPTVQ_TRY(load_group(model, block, GPTVQ_INPUT_Q_B, 0, &q, 1, l->q_rank, false, &block->q_b, err));
  GPTVQ_TRY(load_group(model, block, GPTVQ_INPUT_KV_B, 0, &made, 1, l->kv_rank, false, &block->kv_b, err));
  return load_output(model, block, GPTVQ_INPUT_O, 0, c->heads * l->values, out_bias, &block->o, err);
}

static gptvq_status load_norms(gptvq_model *model, gptvq_block *block, gptvq_error *err) {
  for (gptvq_norm_place i = 0; i < GPTVQ_NORMS; i++) {
    char text[GPTVQ_TENSOR_NAME];
    if (model->arch->norms[i] == NULL || gptvq_norm_size(model, i) == 0) continue;
    if (block->delta != NULL && (i == GPTVQ_NORM_Q || i == GPTVQ_NORM_K)) continue;
    GPTVQ_TRY(gptvq_load_norm(model, gptvq_block_name(block->index, model->arch->norms[i], ".weight", text),
                              gptvq_norm_size(model, i), &block->norms[i], err));
  }
  return GPTVQ_OK;
}

/* [columns × 1 × kernel] in the checkpoint, [kernel × columns] here. */
static gptvq_status load_taps(gptvq_model *model, const char *name, const float **out, gptvq_error *err) {
  const gptvq_delta_sizes *sizes = &model->config.delta;
  const size_t columns = gptvq_delta_columns(sizes), dims[3] = {columns, 1, sizes->kernel};
  const float *stored;
  GPTVQ_TRY(gptvq_load_values(model, name, 3, dims, &stored, err));
  GPTVQ_TRY(gptvq_note_tensors(model, gptvq_checkpoint_find(model->checkpoint, name), 1, true,
                               "the taps of a convolution, a few a column", err));
  float *taps = gptvq_model_alloc(model, sizes->kernel, columns * sizeof *taps);
  if (taps == NULL) return gptvq_fail_memory(err, name, gptvq_saturated_size(columns, sizeof *taps));
  for (size_t c = 0; c < columns; c++)
    for (size_t k = 0; k < sizes->kernel; k++) taps[k * columns + c] = stored[c * sizes->kernel + k];
  *out = taps;
  return GPTVQ_OK;
}

static gptvq_status load_delta(gptvq_model *model, gptvq_block *block, gptvq_error *err) {
  const gptvq_arch_delta *names = &model->arch->delta;
  const gptvq_delta_sizes *sizes = &model->config.delta;
  gptvq_delta_net *net = block->delta;
  static const char why[] = "a small matrix whose rounding would go on with the state";
  const size_t outputs = gptvq_delta_outputs(sizes), widths[2] = {gptvq_delta_columns(sizes), outputs};
  char text[GPTVQ_TENSOR_NAME];
  GPTVQ_TRY(
      load_group(model, block, GPTVQ_INPUT_QKV, 0, widths, 2, model->config.hidden, false, &block->qkv, err));
  GPTVQ_TRY(load_output(model, block, GPTVQ_INPUT_O, 0, outputs, false, &block->o, err));
  GPTVQ_TRY(load_small(model, block, names->decay, sizes->value_heads, why, &net->decay, err));
  GPTVQ_TRY(load_small(model, block, names->beta, sizes->value_heads, why, &net->beta, err));
  gptvq_delta_weights *w = &net->weights;
  GPTVQ_TRY(load_taps(model, gptvq_block_name(block->index, names->taps, "", text), &w->taps, err));
  GPTVQ_TRY(gptvq_load_vector(model, gptvq_block_name(block->index, names->time_bias, "", text),
                              sizes->value_heads, &w->time_bias, err));
  GPTVQ_TRY(gptvq_load_vector(model, gptvq_block_name(block->index, names->norm, "", text), sizes->value_dim,
                              &w->norm, err));
  GPTVQ_TRY(gptvq_load_vector(model, gptvq_block_name(block->index, names->rate, "", text),
                              sizes->value_heads, &w->rate, err));
  for (size_t h = 0; h < sizes->value_heads; h++) {
    float *rate = (float *)(uintptr_t)&w->rate[h];
    *rate = -expf(*rate);
    if (!isfinite(*rate))
      return gptvq_fail(err, GPTVQ_ERROR_NUMERIC, "%s: %s is too large at element %zu",
                        gptvq_checkpoint_folder(model->checkpoint), text, h);
  }
  return GPTVQ_OK;
}

static size_t count_mlps(const gptvq_model *model, size_t layer) {
  const gptvq_config *c = &model->config;
  if (!gptvq_layer_has_experts(model, layer)) return 1;
  return c->experts + (c->shared_intermediate > 0 ? 1 : 0);
}

static size_t count_linears(const gptvq_model *model, size_t layer) {
  const bool delta = gptvq_layer_is_delta(model, layer);
  size_t parts[GPTVQ_ALL_INPUTS];
  for (gptvq_block_input i = 0; i < GPTVQ_ALL_INPUTS; i++)
    parts[i] = gptvq_linear_parts(readers_of(model, delta, i));
  if (model->config.latent.q_rank == 0) parts[GPTVQ_INPUT_Q_B] = 0;
  return parts[GPTVQ_INPUT_QKV] + parts[GPTVQ_INPUT_Q_B] + parts[GPTVQ_INPUT_KV_B] + parts[GPTVQ_INPUT_O] +
         count_mlps(model, layer) * (parts[GPTVQ_INPUT_GATE_UP] + parts[GPTVQ_INPUT_DOWN]);
}

static gptvq_status load_block(gptvq_model *model, gptvq_block *block, gptvq_error *err) {
  const gptvq_config *c = &model->config;
  const gptvq_arch *arch = model->arch;
  const size_t linears = count_linears(model, block->index);
  block->mlp_count = count_mlps(model, block->index);
  block->mlps = gptvq_model_alloc(model, block->mlp_count, sizeof *block->mlps);
  block->linears = gptvq_model_alloc(model, linears, sizeof *block->linears);
  if (block->mlps == NULL || block->linears == NULL)
    return gptvq_fail_memory(err, "the list of linears",
                             gptvq_saturated_size(linears, sizeof *block->linears));
  if (gptvq_layer_is_delta(model, block->index)) {
    block->delta = gptvq_model_alloc(model, 1, sizeof *block->delta);
    if (block->delta == NULL) return gptvq_fail_memory(err, "a block", sizeof *block->delta);
  }
  const bool slides = arch->slides && c->sliding_window > 0 && c->layer_slides[block->index];
  block->attention = (gptvq_attention){.window = slides ? c->sliding_window : SIZE_MAX,
                                       .scale = 1.0f / sqrtf((float)c->query_scalar),
                                       .cap = (float)c->attention_cap,
                                       .neighbours = arch->rotates_neighbours,
                                       .query_growth = (float)c->rope.query_growth,
                                       .query_period = c->rope.original_max_positions,
                                       .wide_norms = arch->wide_qk_norms};
  block->rope = c->layer_rope[block->index];
  if (arch->sinks != NULL) {
    char text[GPTVQ_TENSOR_NAME];
    GPTVQ_TRY(gptvq_load_vector(model, gptvq_block_name(block->index, arch->sinks, "", text), c->heads,
                                &block->attention.sinks, err));
  }
  block->activation = arch->clamped_swiglu                                  ? GPTVQ_SWIGLU_CLAMPED
                      : strcmp(c->hidden_act, activations[GPTVQ_SILU]) == 0 ? GPTVQ_SILU
                                                                            : GPTVQ_GELU_TANH;
  GPTVQ_TRY(load_norms(model, block, err));
  GPTVQ_TRY(block->delta != NULL ? load_delta(model, block, err) : load_attention(model, block, err));
  return load_mlps(model, block, err);
}

gptvq_linear_group gptvq_input_readers(const gptvq_block *block, gptvq_block_input input, size_t mlp) {
  switch (input) {
  case GPTVQ_INPUT_QKV: return block->qkv;
  case GPTVQ_INPUT_Q_B: return block->q_b;
  case GPTVQ_INPUT_KV_B: return block->kv_b;
  case GPTVQ_INPUT_GATE_UP: return block->mlps[mlp].input;
  case GPTVQ_INPUT_O: return (gptvq_linear_group){.count = 1, .linear = {block->o}};
  default: return (gptvq_linear_group){.count = 1, .linear = {block->mlps[mlp].down}};
  }
}

static gptvq_status load_blocks(gptvq_model *model, gptvq_error *err) {
  const gptvq_config *c = &model->config;
  gptvq_model_parts *parts = model->owned;
  /* every layer and expert needs tensors of its own: refuses absurd numbers before memory is asked for;
     layers and experts are few enough for their products */
  size_t tensors = gptvq_checkpoint_tensor_count(model->checkpoint), total = 0;
  for (size_t i = 0; i < c->layers; i++) total += count_linears(model, i);
  if (total > tensors)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                      "%s: config.json describes %zu layers of %zu matrices, but there are only %zu tensors",
                      gptvq_checkpoint_folder(model->checkpoint), c->layers, total / c->layers, tensors);
  parts->stored = gptvq_model_alloc(model, total, sizeof *parts->stored);
  parts->stored_room = total;
  model->blocks = gptvq_model_alloc(model, c->layers, sizeof *model->blocks);
  if (parts->stored == NULL || model->blocks == NULL)
    return gptvq_fail_memory(err, "the list of layers", gptvq_saturated_size(total, sizeof *parts->stored));
  size_t kinds[2] = {0, 0};
  for (size_t i = 0; i < c->layers; i++) {
    model->blocks[i].index = i;
    GPTVQ_TRY(load_block(model, &model->blocks[i], err));
    model->blocks[i].ordinal = kinds[model->blocks[i].delta != NULL]++;
  }
  return GPTVQ_OK;
}

static gptvq_status check_config(const gptvq_model *model, const char *folder, gptvq_error *err) {
  const gptvq_config *c = &model->config;
  if (strcmp(c->hidden_act, activations[GPTVQ_SILU]) != 0 &&
      strcmp(c->hidden_act, activations[GPTVQ_GELU_TANH]) != 0)
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "%s/config.json: hidden_act %s is not supported; supported: %s, %s", folder,
                      c->hidden_act, activations[GPTVQ_SILU], activations[GPTVQ_GELU_TANH]);
  if (c->hidden == 0 || c->layers == 0 || c->heads == 0 || c->kv_heads == 0 || c->head_dim == 0 ||
      c->vocab == 0 || c->intermediate == 0 || c->heads % c->kv_heads != 0 ||
      (c->experts > 0 && c->experts_per_token == 0))
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                      "%s/config.json: sizes of zero, or heads that the key-value heads do not divide",
                      folder);
  return gptvq_rope_check(c, folder, err);
}

/* quantization_config: ours is kept as text; that of another tool cannot be read. */
static gptvq_status read_quantization(gptvq_model *model, const char *folder, gptvq_error *err) {
  gptvq_model_parts *parts = model->owned;
  const json_t *quantization =
      json_object_get(gptvq_checkpoint_config(model->checkpoint), "quantization_config");
  if (gptvq_checkpoint_is_original(model->checkpoint)) return GPTVQ_OK;
  const char *method = json_string_value(json_object_get(quantization, "quant_method"));
  if (method == NULL || strcmp(method, "gptvq") != 0)
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "%s/config.json: the weights are already quantized (quant_method %s); gptvq reads "
                      "original or its own folders",
                      folder, method == NULL ? "unknown" : method);
  parts->quantization = gptvq_json_dump(quantization, JSON_INDENT(2));
  return parts->quantization == NULL ? gptvq_fail_memory(err, "quantization_config", 0) : GPTVQ_OK;
}

static void fill_info(gptvq_model *model) {
  const gptvq_config *c = &model->config;
  gptvq_model_info *info = &model->info;
  memcpy(info->architecture, c->architecture, sizeof info->architecture);
  info->family = model->arch->name;
  info->layers = c->layers;
  info->hidden = c->hidden;
  info->intermediate = c->intermediate;
  info->heads = c->heads;
  info->kv_heads = c->kv_heads;
  info->head_dim = c->head_dim;
  info->vocab = c->vocab;
  info->max_positions = c->max_positions;
  info->experts = c->experts;
  info->bos = c->bos;
  info->eos = c->eos;
  info->eos_count = c->eos_count;
  const uint64_t bytes = gptvq_checkpoint_bytes(model->checkpoint) - info->beside_bytes;
  info->other_bytes = bytes - info->linear_bytes;
  info->bits_per_value = 8.0 * (double)info->linear_bytes / (double)info->linear_values;
  info->model_bits_per_value = 8.0 * (double)bytes / (double)info->parameters;
}

/* The text model in the place of one that holds it beside a vision tower. */
static gptvq_status take_inner(gptvq_model *model, const char *folder, gptvq_error *err) {
  gptvq_model_parts *parts = model->owned;
  json_t *inner;
  GPTVQ_TRY(gptvq_config_inner(folder, gptvq_checkpoint_config(model->checkpoint), &inner, err));
  parts->inside = inner != NULL;
  if (inner != NULL) gptvq_checkpoint_set_config(model->checkpoint, inner);
  return GPTVQ_OK;
}

/* Of each key head in_proj_qkvz has the rows of q, k, and the v and z of its value heads; in_proj_ba
 * likewise. */
static gptvq_status unweave_delta(gptvq_model *model, gptvq_error *err) {
  const gptvq_delta_sizes *d = &model->config.delta;
  const size_t heads = d->value_heads / d->key_heads, values = heads * d->value_dim;
  const gptvq_woven kinds[] = {{.ending = ".linear_attn.in_proj_qkvz.weight",
                                .parts = {".linear_attn.in_proj_qkv.weight", ".linear_attn.in_proj_z.weight"},
                                .groups = d->key_heads,
                                .rows = {d->key_dim, d->key_dim, values, values},
                                .first_sections = 3},
                               {.ending = ".linear_attn.in_proj_ba.weight",
                                .parts = {".linear_attn.in_proj_b.weight", ".linear_attn.in_proj_a.weight"},
                                .groups = d->key_heads,
                                .rows = {heads, heads},
                                .first_sections = 1}};
  return gptvq_checkpoint_unweave(model->checkpoint, kinds, sizeof kinds / sizeof kinds[0], err);
}

static gptvq_status load_model(gptvq_model *model, const char *folder, gptvq_error *err) {
  gptvq_model_parts *parts = model->owned;
  GPTVQ_TRY(gptvq_checkpoint_open(folder, parts->callbacks, &model->checkpoint, err));
  GPTVQ_TRY(take_inner(model, folder, err));
  const json_t *json = gptvq_checkpoint_config(model->checkpoint);
  gptvq_config *c = &model->config;
  char architecture[64];
  GPTVQ_TRY(gptvq_config_architecture(folder, json, architecture, err));
  model->arch = gptvq_find_arch(architecture);
  if (model->arch == NULL) return gptvq_fail_arch(folder, architecture, err);
  const char *stated = json_string_value(json_array_get(json_object_get(json, "architectures"), 0));
  if (stated == NULL || strcmp(stated, architecture) != 0)
    gptvq_log(parts->callbacks, GPTVQ_LOG_WARNING,
              "%s/config.json: architectures %s%s: the model is read as %s", folder,
              stated != NULL ? "says " : "is missing", stated != NULL ? stated : "", architecture);
  GPTVQ_TRY(gptvq_config_parse(folder, json, gptvq_checkpoint_generation_config(model->checkpoint), c, err));
  if (model->arch->router == NULL) c->experts = c->experts_per_token = 0;
  GPTVQ_TRY(check_config(model, folder, err));
  GPTVQ_TRY(gptvq_checkpoint_split_experts(model->checkpoint, model->arch->all_experts, err));
  if (model->arch->woven_delta) GPTVQ_TRY(unweave_delta(model, err));
  GPTVQ_TRY(read_quantization(model, folder, err));
  parts->used =
      gptvq_model_alloc(model, gptvq_checkpoint_tensor_count(model->checkpoint), sizeof *parts->used);
  if (parts->used == NULL)
    return gptvq_fail_memory(err, "the list of tensors", gptvq_checkpoint_tensor_count(model->checkpoint));
  GPTVQ_TRY(gptvq_load_embedding(model, err));
  GPTVQ_TRY(gptvq_load_head(model, err));
  GPTVQ_TRY(gptvq_load_norm(model, GPTVQ_NAME_FINAL_NORM ".weight", c->hidden, &model->final_norm, err));
  GPTVQ_TRY(load_blocks(model, err));
  GPTVQ_TRY(gptvq_drop_extra(model, err));
  fill_info(model);
  return GPTVQ_OK;
}

const char *gptvq_compute_name(gptvq_compute compute) {
  switch (compute) {
  case GPTVQ_COMPUTE_AUTO: return "auto";
  case GPTVQ_COMPUTE_FP32: return "fp32";
  case GPTVQ_COMPUTE_BF16: return "bf16";
  case GPTVQ_COMPUTE_INT8: return "int8";
  }
  return "unknown";
}

gptvq_status gptvq_compute_from_name(const char *name, gptvq_compute *compute, gptvq_error *err) {
  for (int i = GPTVQ_COMPUTE_AUTO; i <= GPTVQ_COMPUTE_INT8; i++)
    if (strcmp(gptvq_compute_name((gptvq_compute)i), name) == 0) {
      *compute = (gptvq_compute)i;
      return GPTVQ_OK;
    }
  return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                    "compute precision %s is unknown: choose auto, fp32, bf16 or int8", name);
}

/* bf16 inputs where weights are in bf16 and the processor multiplies that: no other weights are rounded. */
static gptvq_compute pick_compute(const gptvq_model *model) {
  if (model->info.packed) return GPTVQ_COMPUTE_INT8;
  const bool bf16 = model->blocks[0].linears[0].dtype == GPTVQ_BF16 && model->head.dtype == GPTVQ_BF16;
  return bf16 && gptvq_gemm_bf16_available() ? GPTVQ_COMPUTE_BF16 : GPTVQ_COMPUTE_FP32;
}

gptvq_status gptvq_model_open(const char *path, const gptvq_model_options *options, gptvq_model **out,
                              gptvq_error *err) {
  *out = NULL;
  gptvq_model_options own = {.size = sizeof own};
  gptvq_callbacks callbacks = {.size = sizeof callbacks};
  GPTVQ_TRY(GPTVQ_TAKE(gptvq_model_options, options, &own, err));
  GPTVQ_TRY(GPTVQ_TAKE(gptvq_callbacks, own.callbacks, &callbacks, err));
  gptvq_compute compute = own.compute;
  if ((unsigned)compute > GPTVQ_COMPUTE_INT8)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "unknown compute precision %d", (int)compute);
  unsigned head_bits = own.head_bits;
  if (head_bits != 0 && head_bits != 8 && head_bits != 16)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "an output head of %u bits is not possible: choose 8 or 16",
                      head_bits);
  gptvq_model *model = calloc(1, sizeof *model);
  gptvq_model_parts *parts = calloc(1, sizeof *parts);
  if (model == NULL || parts == NULL) {
    free(model);
    free(parts);
    return gptvq_fail_memory(err, path, sizeof *model);
  }
  model->owned = parts;
  model->compute = compute;
  model->context = gptvq_context_current();
  parts->callbacks = &callbacks;
  gptvq_status status = load_model(model, path, err);
  if (status != GPTVQ_OK) {
    gptvq_model_close(model);
    return status;
  }
  if (compute == GPTVQ_COMPUTE_AUTO) model->compute = pick_compute(model);
  model->info.compute = model->compute;
  const gptvq_packed_shape *stored = &model->head.packed.shape;
  model->info.head_bits = model->head.is_packed ? (stored->index_bits + stored->dim - 1) / stored->dim
                                                : (unsigned)gptvq_dtype_size(model->head.dtype) * 8;
  if (head_bits == 16 && model->head.is_packed)
    status = gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                        "%s: the output head is stored with %u bits: it cannot be used with 16", path,
                        model->info.head_bits);
  else if (head_bits == 8 || (head_bits == 0 && model->compute == GPTVQ_COMPUTE_INT8)) {
    status = gptvq_quantize_head(model, err);
    if (!model->head.is_packed) model->info.head_bits = 8;
  }
  if (status != GPTVQ_OK) {
    gptvq_model_close(model);
    return status;
  }
  parts->callbacks = NULL;
  *out = model;
  return GPTVQ_OK;
}

void gptvq_model_close(gptvq_model *model) {
  if (model == NULL) return;
  gptvq_model_parts *parts = model->owned;
  while (parts->owned != NULL) {
    gptvq_owned *next = parts->owned->next;
    free(parts->owned->memory);
    free(parts->owned);
    parts->owned = next;
  }
  free(parts->others);
  free(parts->quantization);
  free(parts);
  gptvq_config_release(&model->config);
  gptvq_checkpoint_close(model->checkpoint);
  free(model);
}

void gptvq_model_get_info(const gptvq_model *model, gptvq_model_info *info) {
  gptvq_give_struct(&model->info, sizeof model->info, info);
}

size_t gptvq_model_layer_count(const gptvq_model *model) {
  return ((const gptvq_model_parts *)model->owned)->stored_count;
}

void gptvq_linear_info(const gptvq_linear *linear, const char *method, uint64_t bytes, double error,
                       gptvq_layer_info *info) {
  static const char *const dense_formats[] = {
      [GPTVQ_F32] = "fp32", [GPTVQ_F16] = "fp16", [GPTVQ_BF16] = "bf16"};
  memset(info, 0, sizeof *info);
  info->name = linear->name;
  info->method = method;
  info->rows = linear->rows;
  info->cols = linear->cols;
  info->bytes = bytes;
  info->bits_per_value = 8.0 * (double)bytes / ((double)linear->rows * (double)linear->cols);
  info->error = error;
  if (!linear->is_packed) {
    info->format = linear->stored != NULL ? linear->stored : dense_formats[linear->dtype];
    info->dim = 1;
    return;
  }
  const gptvq_packed_shape *shape = &linear->packed.shape;
  static const char *const packed_formats[] = {
      [GPTVQ_PACKED_VQ] = "vq", [GPTVQ_PACKED_UNIFORM] = "uniform", [GPTVQ_PACKED_TRELLIS] = "trellis"};
  info->format = packed_formats[shape->kind];
  info->dim = shape->dim;
  info->index_bits = shape->index_bits;
  info->group_rows = shape->group_rows;
  info->group_cols = shape->group_cols;
  info->codebook_bits = shape->kind != GPTVQ_PACKED_UNIFORM ? shape->codebook_bits : 0;
  info->scale_block = shape->scale_block;
  info->svd_rank = shape->svd_rank;
}

void gptvq_model_get_layer(const gptvq_model *model, size_t index, gptvq_layer_info *info) {
  const gptvq_model_parts *parts = model->owned;
  gptvq_layer_info own = {.error = (double)NAN, .name = "", .format = "", .method = ""};
  if (index < parts->stored_count) {
    const gptvq_stored *stored = &parts->stored[index];
    gptvq_linear_info(stored->linear, stored->method, stored->bytes, stored->error, &own);
  }
  gptvq_give_struct(&own, sizeof own, info);
}

gptvq_status gptvq_model_multiply(const gptvq_model *model, size_t layer, gptvq_compute compute, size_t n,
                                  const float *x, float *y, gptvq_error *err) {
  const gptvq_model_parts *parts = model->owned;
  if (layer >= parts->stored_count || (unsigned)compute > GPTVQ_COMPUTE_INT8)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "no layer %zu of %zu, or no precision %d", layer,
                      parts->stored_count, (int)compute);
  const gptvq_linear *linear = parts->stored[layer].linear;
  if (compute == GPTVQ_COMPUTE_AUTO) compute = linear->is_packed ? GPTVQ_COMPUTE_INT8 : GPTVQ_COMPUTE_FP32;
  gptvq_context *before = gptvq_context_use(model->context);
  gptvq_status status = gptvq_linear_forward(linear, compute, n, x, linear->cols, y, linear->rows, err);
  (void)gptvq_context_use(before);
  return status;
}

json_t *gptvq_model_config(const gptvq_model *model) {
  const gptvq_config *c = &model->config;
  json_t *config = json_deep_copy(gptvq_checkpoint_config(model->checkpoint));
  const json_t *list = json_object_get(config, "architectures");
  const char *stated = json_string_value(json_array_get(list, 0));
  bool fine = config != NULL;
  if (((const gptvq_model_parts *)model->owned)->quantization == NULL)
    (void)json_object_del(config, "quantization_config"); /* of numbers that were decoded */
  if (stated == NULL || strcmp(stated, c->architecture) != 0)
    fine = fine && json_object_set_new(config, "architectures", json_pack("[s]", c->architecture)) == 0;
  const json_t *ties = json_object_get(config, "tie_word_embeddings");
  const bool stated_ties = json_is_boolean(ties) ? json_is_true(ties) : model->arch->config.tie_embeddings;
  if (!c->tie_embeddings && stated_ties)
    fine = fine && json_object_set_new(config, "tie_word_embeddings", json_false()) == 0;
  if (fine) return config;
  json_decref(config);
  return NULL;
}

const char *gptvq_model_quantization_json(const gptvq_model *model) {
  return ((const gptvq_model_parts *)model->owned)->quantization;
}
