#include "model/arch/arch.h"

static const char *const keys[] = {"clip_qkv", "norm_topk_prob", "num_experts", NULL};

static gptvq_status read_own(const gptvq_config_source *source, gptvq_config *c, gptvq_error *err) {
  bool normalised = false;
  if (gptvq_config_value(source, "clip_qkv") != NULL)
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED, "%s/%s: clip_qkv is not supported: only null is",
                      source->folder, source->file);
  GPTVQ_TRY(gptvq_config_bool(source, "norm_topk_prob", &normalised, err));
  c->router.keeps_sum = !normalised;
  return GPTVQ_OK;
}

const gptvq_arch gptvq_arch_olmoe = {
    .name = "Olmoe",
    .model_type = "olmoe",
    .config = {.rms_norm_eps = 1e-5,
               .rope_theta = 1e4,
               .max_positions = 4096,
               .experts = 64,
               .experts_per_token = 8,
               .experts_key = "num_experts",
               .own_keys = keys,
               .read_own = read_own},
    .norms = {GPTVQ_PRE_NORMS, GPTVQ_QK_NORMS},
    .wide_qk_norms = true,
    .linears[GPTVQ_INPUT_QKV] = {GPTVQ_SPLIT_QKV, GPTVQ_BIAS_CONFIG},
    .linears[GPTVQ_INPUT_O] = {GPTVQ_O_PROJ, GPTVQ_BIAS_CONFIG},
    GPTVQ_EXPERT_LINEARS,
};
