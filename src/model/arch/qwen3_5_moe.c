#include "model/arch/qwen3_5.h"

static const char *const own_keys[] = {
    GPTVQ_QWEN3_5_KEYS,      "mlp_only_layers", /* whatever it says: all layers have experts */
    "moe_intermediate_size", "num_experts",     "shared_expert_intermediate_size", NULL};

enum { DEFAULT_SHARED = 512, MAX_INTERMEDIATE = 1 << 22 };

gptvq_status gptvq_config_read_qwen3_5_moe(const gptvq_config_source *source, gptvq_config *c,
                                           gptvq_error *err) {
  c->shared_intermediate = DEFAULT_SHARED;
  GPTVQ_TRY(gptvq_config_size(source, "shared_expert_intermediate_size", 1, MAX_INTERMEDIATE,
                              &c->shared_intermediate, err));
  return gptvq_config_read_qwen3_5(source, c, err);
}

const gptvq_arch gptvq_arch_qwen3_5_moe = {
    .name = "Qwen3_5Moe",
    .model_type = "qwen3_5_moe_text",
    .config = {GPTVQ_QWEN3_5_RULES, .mrope = true,
               .intermediate_key = "moe_intermediate_size", /* there is no other MLP */
               .experts = 256, .experts_per_token = 8, .experts_key = "num_experts", .own_keys = own_keys,
               .read_own = gptvq_config_read_qwen3_5_moe},
    GPTVQ_QWEN3_5_PIECES,
    GPTVQ_EXPERT_LINEARS,
    .shared = "mlp.shared_expert.",
    .shared_gate = "mlp.shared_expert_gate",
};
