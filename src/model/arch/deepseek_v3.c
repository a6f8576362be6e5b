#include "model/arch/arch.h"

static gptvq_status read_own(const gptvq_config_source *source, gptvq_config *c, gptvq_error *err) {
  return gptvq_config_read_deepseek(source, true, c, err);
}

const gptvq_arch gptvq_arch_deepseek_v3 = {
    .name = "DeepseekV3",
    .model_type = "deepseek_v3",
    .config = {.rms_norm_eps = 1e-6,
               .rope_theta = 1e4,
               .max_positions = 4096,
               .experts = 256,
               .experts_per_token = 8,
               .experts_key = "n_routed_experts",
               .own_keys = gptvq_deepseek_keys,
               .read_own = read_own},
    .norms = {GPTVQ_PRE_NORMS, GPTVQ_LATENT_NORMS},
    GPTVQ_LATENT_LINEARS,
    .linears[GPTVQ_INPUT_O] = {GPTVQ_O_PROJ, GPTVQ_BIAS_CONFIG},
    GPTVQ_EXPERT_LINEARS,
    .shared = "mlp.shared_experts.",
    .router_correction = "mlp.gate.e_score_correction_bias",
};
