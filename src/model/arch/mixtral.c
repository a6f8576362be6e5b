#include "model/arch/arch.h"

const gptvq_arch gptvq_arch_mixtral = {
    .name = "Mixtral",
    .model_type = "mixtral",
    .config = {.rms_norm_eps = 1e-5,
               .rope_theta = 1e6,
               .max_positions = 131072,
               .experts = 8,
               .experts_per_token = 2},
    .norms = {GPTVQ_PRE_NORMS},
    .linears = {[GPTVQ_INPUT_QKV] = {GPTVQ_SPLIT_QKV, GPTVQ_BIAS_NEVER},
                [GPTVQ_INPUT_O] = {GPTVQ_O_PROJ, GPTVQ_BIAS_NEVER},
                [GPTVQ_INPUT_GATE_UP] = {{"w1", "w3"}, GPTVQ_BIAS_NEVER},
                [GPTVQ_INPUT_DOWN] = {{"w2"}, GPTVQ_BIAS_NEVER}},
    .router = "block_sparse_moe.gate",
    .experts = "block_sparse_moe.experts.%zu.",
    .slides = true,
};
