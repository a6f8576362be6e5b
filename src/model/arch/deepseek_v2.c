#include "model/arch/deepseek.h"

static const char *const own_keys[] = {GPTVQ_DEEPSEEK_KEYS, NULL};

static gptvq_status read_own(const gptvq_config_source *source, gptvq_config *c, gptvq_error *err) {
  return gptvq_config_read_deepseek(source, false, c, err);
}

const gptvq_arch gptvq_arch_deepseek_v2 = {
    .name = "DeepseekV2",
    .model_type = "deepseek_v2",
    .config = {GPTVQ_DEEPSEEK_RULES, .max_positions = 2048, .experts = 64, .own_keys = own_keys,
               .read_own = read_own},
    GPTVQ_DEEPSEEK_PIECES,
};
