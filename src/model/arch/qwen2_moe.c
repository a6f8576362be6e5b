#include "model/arch/arch.h"

static const char *const keys[] = {
    "decoder_sparse_step", "mlp_only_layers", "moe_intermediate_size",           "norm_topk_prob",
    "num_experts",         "qkv_bias",        "shared_expert_intermediate_size", NULL};

enum { DEFAULT_SHARED = 5632, MAX_INTERMEDIATE = 1 << 22 };

static gptvq_status read_own(const gptvq_config_source *source, gptvq_config *c, gptvq_error *err) {
  c->shared_intermediate = DEFAULT_SHARED;
  GPTVQ_TRY(gptvq_config_size(source, "shared_expert_intermediate_size", 1, MAX_INTERMEDIATE,
                              &c->shared_intermediate, err));
  c->attention_bias = true;
  GPTVQ_TRY(gptvq_config_bool(source, "qkv_bias", &c->attention_bias, err));
  return gptvq_config_read_sparse(source, c, err);
}

const gptvq_arch gptvq_arch_qwen2_moe = {
    .name = "Qwen2Moe",
    .model_type = "qwen2_moe",
    .config = {.rms_norm_eps = 1e-6,
               .rope_theta = 1e4,
               .max_positions = 32768,
               .experts = 60,
               .experts_per_token = 4,
               .experts_key = "num_experts",
               .own_keys = keys,
               .read_own = read_own},
    .norms = {GPTVQ_PRE_NORMS},
    .linears[GPTVQ_INPUT_QKV] = {GPTVQ_SPLIT_QKV, GPTVQ_BIAS_CONFIG},
    .linears[GPTVQ_INPUT_O] = {GPTVQ_O_PROJ, GPTVQ_BIAS_NEVER},
    GPTVQ_EXPERT_LINEARS,
    .shared = "mlp.shared_expert.",
    .shared_gate = "mlp.shared_expert_gate",
};
