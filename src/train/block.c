/* Fine-tuning of one block of a model. */
#include "train/finetune.h"

#include "base/clock.h"
#include "base/memory.h"
#include "model/layer/rope.h"
#include "train/train.h"

static void describe_experts(const gptvq_config *c, const gptvq_block *block, gptvq_ft_dims *dims) {
  if (!gptvq_block_routes(block)) return;
  dims->experts = c->experts;
  dims->used = c->experts_per_token;
  dims->router = c->router;
  dims->router_correction = block->router_correction;
  dims->router_bias = block->router.bias != NULL;
  if (block->mlp_count == c->experts) return;
  dims->shared_intermediate = gptvq_mlp_width(&block->mlps[c->experts]);
  dims->shared_gate = block->shared_gate.weights != NULL;
}

gptvq_ft_dims gptvq_ft_dims_of(const gptvq_model *model, const gptvq_block *block, size_t length) {
  const gptvq_config *c = &model->config;
  const gptvq_rope *rope = gptvq_config_rope(c, block->rope);
  gptvq_ft_dims dims = {.hidden = c->hidden,
                        .heads = c->heads,
                        .kv_heads = c->kv_heads,
                        .head_dim = c->head_dim,
                        .intermediate = gptvq_mlp_width(&block->mlps[0]),
                        .mlp_count = block->mlp_count,
                        .length = length,
                        .attention = block->attention,
                        .output_gate = block->output_gate,
                        .latent = c->latent,
                        .activation = block->activation,
                        .residual_scale = (float)c->residual_scale,
                        .norm_offset = model->arch->norm_offset,
                        .eps = (float)c->rms_norm_eps,
                        .rotary = rope != NULL ? 2 * gptvq_rope_half(c, rope) : 0};
  if (block->delta != NULL) {
    dims.delta = c->delta;
    dims.net = block->delta->weights;
    dims.rotary = 0;
  }
  describe_experts(c, block, &dims);
  for (gptvq_norm_place n = 0; n < GPTVQ_NORMS; n++) dims.has_norm[n] = block->norms[n] != NULL;
  for (gptvq_block_input i = 0; i < GPTVQ_ALL_INPUTS; i++) {
    if (gptvq_input_count(block, i) == 0) continue;
    const gptvq_linear_group readers = gptvq_input_readers(block, i, 0);
    for (size_t r = 0; r < readers.count; r++)
      if (block->linears[readers.linear[r]].bias != NULL) dims.has_bias[i] = true;
  }
  return dims;
}

gptvq_status gptvq_ft_dims_create(const gptvq_model *model, const gptvq_block *block, size_t length,
                                  gptvq_ft_dims *dims, float **tables, gptvq_error *err) {
  *tables = NULL;
  *dims = gptvq_ft_dims_of(model, block, length);
  if (dims->rotary == 0) return GPTVQ_OK;
  const size_t half = dims->rotary / 2;
  float *cosines = gptvq_alloc(length * half, 2 * sizeof(float));
  if (cosines == NULL)
    return gptvq_fail_memory(err, "fine-tuning: rotation tables",
                             gptvq_saturated_size(length * half, 2 * sizeof(float)));
  dims->cosine = cosines;
  dims->sine = cosines + length * half;
  gptvq_rope_tables(&model->config, gptvq_config_rope(&model->config, block->rope), length, cosines,
                    cosines + length * half);
  *tables = cosines;
  return GPTVQ_OK;
}

double gptvq_ft_index_bytes(const gptvq_block *block, const gptvq_finetune_options *options) {
  double weights = 0;
  for (size_t i = 0; i < block->linear_count; i++)
    weights += (double)block->linears[i].rows * (double)block->linears[i].cols;
  return options->index_rate > 0 ? 16.0 * weights : 0.0;
}

double gptvq_finetune_block_peak(const gptvq_model *model, const gptvq_block *block, size_t length,
                                 double linears, const gptvq_finetune_options *options) {
  const gptvq_ft_dims dims = gptvq_ft_dims_of(model, block, length);
  const size_t micro =
      gptvq_min_size(gptvq_max_size(1, options->max_tokens / length), gptvq_max_size(options->batch, 1));
  return linears + GPTVQ_FT_VALUE_BYTES * (double)gptvq_ft_vector_values(&dims) +
         gptvq_ft_index_bytes(block, options) +
         (double)gptvq_ft_workspace_bytes(&dims, micro * length, true, options->compute) +
         sizeof(float) * 3.0 * (double)(micro * length) * (double)dims.hidden;
}

gptvq_status gptvq_finetune_block(const gptvq_model *model, gptvq_block *block,
                                  const gptvq_block_windows *windows, const gptvq_finetune_options *options,
                                  const gptvq_callbacks *callbacks, gptvq_finetune_result *result,
                                  gptvq_error *err) {
  const double start = gptvq_clock();
  *result = (gptvq_finetune_result){0};
  gptvq_ft_dims dims;
  gptvq_ft_params params;
  float *tables;
  GPTVQ_TRY(gptvq_ft_dims_create(model, block, windows->length, &dims, &tables, err));
  gptvq_status status = gptvq_ft_params_create(&dims, block, options->vector_dtype, &params, err);
  if (status == GPTVQ_OK) {
    if (options->index_rate > 0)
      status =
          gptvq_ft_indices_create(&params, &model->blocks[block->index], (float)options->index_pull, err);
    if (status == GPTVQ_OK)
      status = gptvq_ft_train(&params, windows->count, windows->inputs, windows->targets, options, callbacks,
                              result, err);
    gptvq_ft_params_release(&params);
  }
  free(tables);
  result->seconds = gptvq_clock() - start;
  return status;
}
