#include "model/arch/arch.h"

static const char *const own_keys[] = {"attention_out_bias", NULL};

static gptvq_status read_own(const gptvq_config_source *source, gptvq_config *c, gptvq_error *err) {
  c->attention_out_bias = false;
  return gptvq_config_bool(source, "attention_out_bias", &c->attention_out_bias, err);
}

const gptvq_arch gptvq_arch_seed_oss = {
    .name = "SeedOss",
    .model_type = "seed_oss",
    .config = {.rms_norm_eps = 1e-6,
               .rope_theta = 1e4,
               .max_positions = 524288,
               .head_dim = 128,
               .attention_bias = true,
               .own_keys = own_keys,
               .read_own = read_own},
    .norms = {GPTVQ_PRE_NORMS},
    .linears = {GPTVQ_SPLIT_LINEARS(GPTVQ_BIAS_CONFIG, GPTVQ_BIAS_CONFIG)},
};
