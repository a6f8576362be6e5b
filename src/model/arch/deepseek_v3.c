#include "model/arch/deepseek.h"

static const char *const own_keys[] = {GPTVQ_DEEPSEEK_KEYS, "rope_interleave", NULL};

static gptvq_status read_own(const gptvq_config_source *source, gptvq_config *c, gptvq_error *err) {
  return gptvq_config_read_deepseek(source, true, c, err);
}

const gptvq_arch gptvq_arch_deepseek_v3 = {
    .name = "DeepseekV3",
    .model_type = "deepseek_v3",
    .config = {GPTVQ_DEEPSEEK_RULES, .max_positions = 4096, .experts = 256, .own_keys = own_keys,
               .read_own = read_own},
    GPTVQ_DEEPSEEK_PIECES,
    .router_correction = "mlp.gate.e_score_correction_bias",
};
