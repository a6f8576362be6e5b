#include "model/arch/qwen3_5.h"

static const char *const own_keys[] = {GPTVQ_QWEN3_5_KEYS,
                                       "decoder_sparse_step",
                                       "mlp_only_layers",
                                       "moe_intermediate_size",
                                       "norm_topk_prob",
                                       "num_experts",
                                       "shared_expert_intermediate_size",
                                       NULL};

static gptvq_status read_own(const gptvq_config_source *source, gptvq_config *c, gptvq_error *err) {
  GPTVQ_TRY(gptvq_config_read_sparse(source, c, err));
  if (gptvq_config_value(source, "norm_topk_prob") == NULL) c->router.keeps_sum = false;
  return gptvq_config_read_qwen3_5_moe(source, c, err);
}

const gptvq_arch gptvq_arch_qwen3_next = {
    .name = "Qwen3Next",
    .model_type = "qwen3_next",
    .config = {GPTVQ_QWEN3_5_RULES, .experts = 512, .experts_per_token = 10, .experts_key = "num_experts",
               .own_keys = own_keys, .read_own = read_own},
    GPTVQ_QWEN3_5_PIECES,
    .woven_delta = true,
    GPTVQ_EXPERT_LINEARS,
    .shared = "mlp.shared_expert.",
    .shared_gate = "mlp.shared_expert_gate",
};
