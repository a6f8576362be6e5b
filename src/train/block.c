/* Fine-tuning of one block of a model. */
#include "train/finetune.h"

#include "base/clock.h"
#include "base/memory.h"
#include "model/rope.h"
#include "train/train.h"

gptvq_status gptvq_ft_check(const gptvq_block *block, gptvq_error *err) {
  if (!gptvq_block_routes(block)) return GPTVQ_OK;
  return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                    "gradients through mixture-of-experts blocks are not supported");
}

gptvq_status gptvq_ft_dims_create(const gptvq_model *model, const gptvq_block *block, size_t length,
                                  gptvq_ft_dims *dims, float **tables, gptvq_error *err) {
  const gptvq_config *c = &model->config;
  size_t half = gptvq_rope_half(c);
  *tables = NULL;
  GPTVQ_TRY(gptvq_ft_check(block, err));
  float *cosines = gptvq_alloc(length * half, 2 * sizeof(float));
  if (cosines == NULL)
    return gptvq_fail_memory(err, "fine-tuning: rotation tables",
                             gptvq_saturated_size(length * half, 2 * sizeof(float)));
  *dims = (gptvq_ft_dims){
      .hidden = c->hidden,
      .heads = c->heads,
      .kv_heads = c->kv_heads,
      .head_dim = c->head_dim,
      .intermediate = block->mlps[0].input.width / 2,
      .length = length,
      .sliding_window = block->slides ? c->sliding_window : 0,
      .eps = (float)c->rms_norm_eps,
      .has_norm = {true, true, block->norms[GPTVQ_NORM_Q] != NULL, block->norms[GPTVQ_NORM_K] != NULL},
      .rotary = 2 * half,
      .cosine = cosines,
      .sine = cosines + length * half};
  gptvq_rope_tables(c, length, cosines, cosines + length * half);
  for (size_t i = 0; i < block->qkv.count; i++)
    if (block->linears[block->qkv.linear[i]].bias != NULL) dims->has_bias[GPTVQ_FT_QKV] = true;
  for (size_t i = 0; i < block->mlps[0].input.count; i++)
    if (block->linears[block->mlps[0].input.linear[i]].bias != NULL) dims->has_bias[GPTVQ_FT_GATE_UP] = true;
  dims->has_bias[GPTVQ_FT_O] = block->linears[block->o].bias != NULL;
  dims->has_bias[GPTVQ_FT_DOWN] = block->linears[block->mlps[0].down].bias != NULL;
  *tables = cosines;
  return GPTVQ_OK;
}

gptvq_status gptvq_finetune_block(const gptvq_model *model, gptvq_block *block, gptvq_dtype vector_dtype,
                                  size_t windows, size_t length, const float *inputs, const float *targets,
                                  const gptvq_finetune_options *options, const gptvq_callbacks *callbacks,
                                  gptvq_finetune_result *result, gptvq_error *err) {
  const double start = gptvq_clock();
  *result = (gptvq_finetune_result){0};
  gptvq_ft_dims dims;
  gptvq_ft_params params;
  float *tables;
  GPTVQ_TRY(gptvq_ft_dims_create(model, block, length, &dims, &tables, err));
  gptvq_status status = gptvq_ft_params_create(&dims, block, vector_dtype, &params, err);
  if (status == GPTVQ_OK) {
    if (options->index_rate > 0)
      status =
          gptvq_ft_indices_create(&params, &model->blocks[block->index], (float)options->index_pull, err);
    if (status == GPTVQ_OK)
      status = gptvq_ft_train(&params, windows, inputs, targets, options, callbacks, result, err);
    gptvq_ft_params_release(&params);
  }
  free(tables);
  result->seconds = gptvq_clock() - start;
  return status;
}
