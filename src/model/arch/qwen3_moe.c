#include "model/arch/arch.h"

/* The last three stand in some folders, and nothing reads them: what they say is how the family is. */
static const char *const keys[] = {"decoder_sparse_step",
                                   "mlp_only_layers",
                                   "moe_intermediate_size",
                                   "norm_topk_prob",
                                   "num_experts",
                                   "qkv_bias",
                                   "shared_expert_intermediate_size",
                                   "use_qk_norm",
                                   NULL};

const gptvq_arch gptvq_arch_qwen3_moe = {
    .name = "Qwen3Moe",
    .model_type = "qwen3_moe",
    .config = {.rms_norm_eps = 1e-6,
               .rope_theta = 1e4,
               .max_positions = 32768,
               .experts = 128,
               .experts_per_token = 8,
               .experts_key = "num_experts",
               .own_keys = keys,
               .read_own = gptvq_config_read_sparse},
    .norms = {GPTVQ_PRE_NORMS, GPTVQ_QK_NORMS},
    .linears[GPTVQ_INPUT_QKV] = {GPTVQ_SPLIT_QKV, GPTVQ_BIAS_CONFIG},
    .linears[GPTVQ_INPUT_O] = {GPTVQ_O_PROJ, GPTVQ_BIAS_CONFIG},
    GPTVQ_EXPERT_LINEARS,
};
