#include "model/arch/granite.h"

#include <string.h>

/* Those of Mamba layers, of experts and of the training stand in the files of models without them, too. */
static const char *const own_keys[] = {GPTVQ_GRANITE_KEYS,
                                       "init_method",
                                       "layers_block_type",
                                       "logits_to_keep",
                                       "mamba_chunk_size",
                                       "mamba_conv_bias",
                                       "mamba_d_conv",
                                       "mamba_d_head",
                                       "mamba_d_state",
                                       "mamba_expand",
                                       "mamba_n_groups",
                                       "mamba_n_heads",
                                       "mamba_proj_bias",
                                       "normalization_function",
                                       "position_embedding_type",
                                       "shared_intermediate_size",
                                       "time_step_limit",
                                       NULL};

/* All layers have to be attention. */
static gptvq_status check_layers(const gptvq_config_source *source, const gptvq_config *c, gptvq_error *err) {
  const json_t *types = gptvq_config_value(source, "layer_types");
  if (types == NULL) types = gptvq_config_value(source, "layers_block_type");
  for (size_t i = 0; i < c->layers; i++) {
    const char *type = json_string_value(json_array_get(types, i));
    if (type == NULL || (strcmp(type, "attention") != 0 && strcmp(type, "full_attention") != 0))
      return gptvq_fail(
          err, GPTVQ_ERROR_UNSUPPORTED,
          "%s/%s: layer_types[%zu] is %s: of Granite 4 only models of attention alone are supported, "
          "none with Mamba layers",
          source->folder, source->file, i, type != NULL ? type : "linear_attention");
  }
  return GPTVQ_OK;
}

static gptvq_status read_own(const gptvq_config_source *source, gptvq_config *c, gptvq_error *err) {
  char positions[32] = "none", norm[32] = "rmsnorm";
  GPTVQ_TRY(gptvq_granite_keys(source, c, err));
  GPTVQ_TRY(check_layers(source, c, err));
  if (c->experts > 0)
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "%s/%s: num_local_experts %zu: Granite 4 with experts is not supported", source->folder,
                      source->file, c->experts);
  GPTVQ_TRY(gptvq_config_text(source, "position_embedding_type", positions, sizeof positions, err));
  GPTVQ_TRY(gptvq_config_text(source, "normalization_function", norm, sizeof norm, err));
  if (strcmp(positions, "rope") != 0 || strcmp(norm, "rmsnorm") != 0)
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "%s/%s: position_embedding_type %s with normalization_function %s is not supported; "
                      "supported: rope with rmsnorm",
                      source->folder, source->file, positions, norm);
  return GPTVQ_OK;
}

const gptvq_arch gptvq_arch_granite4 = {
    .name = "GraniteMoeHybrid",
    .model_type = "granitemoehybrid",
    .config = {.rms_norm_eps = 1e-6,
               .rope_theta = 1e4,
               .max_positions = 2048,
               .intermediate_key = "shared_intermediate_size",
               .own_keys = own_keys,
               .read_own = read_own},
    .norms = {GPTVQ_PRE_NORMS},
    .linears = {[GPTVQ_INPUT_QKV] = {GPTVQ_SPLIT_QKV, GPTVQ_BIAS_CONFIG},
                [GPTVQ_INPUT_O] = {GPTVQ_O_PROJ, GPTVQ_BIAS_CONFIG},
                [GPTVQ_INPUT_GATE_UP] = {{"shared_mlp.input_linear"}, GPTVQ_BIAS_NEVER},
                [GPTVQ_INPUT_DOWN] = {{"shared_mlp.output_linear"}, GPTVQ_BIAS_NEVER}},
};
