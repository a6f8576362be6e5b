#include "model/arch/arch.h"

static const char *const own_keys[] = {"use_bias", NULL};

static gptvq_status read_own(const gptvq_config_source *source, gptvq_config *c, gptvq_error *err) {
  bool bias = false;
  GPTVQ_TRY(gptvq_config_bool(source, "use_bias", &bias, err));
  c->attention_bias = c->attention_out_bias = c->mlp_bias = bias;
  return GPTVQ_OK;
}

const gptvq_arch gptvq_arch_ernie4_5 = {
    .name = "Ernie4_5",
    .model_type = "ernie4_5",
    .config = {.rms_norm_eps = 1e-5,
               .rope_theta = 5e5,
               .max_positions = 131072,
               .head_dim = 128,
               .tie_embeddings = true,
               .own_keys = own_keys,
               .read_own = read_own},
    .norms = {GPTVQ_PRE_NORMS},
    .linears = {GPTVQ_SPLIT_LINEARS(GPTVQ_BIAS_CONFIG, GPTVQ_BIAS_CONFIG)},
    .rotates_neighbours = true,
};
