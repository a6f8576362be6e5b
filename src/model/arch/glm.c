#include "model/arch/arch.h"

const gptvq_arch gptvq_arch_glm = {
    .name = "Glm",
    .model_type = "glm",
    .config = {.rms_norm_eps = 1.5625e-7,
               .rope_theta = 1e4,
               .max_positions = 131072,
               .head_dim = 128,
               .attention_bias = true,
               .partial_rotation = true,
               .partial_rotary_factor = 0.5},
    .norms = {GPTVQ_PRE_NORMS},
    .linears = {[GPTVQ_INPUT_QKV] = {GPTVQ_SPLIT_QKV, GPTVQ_BIAS_CONFIG},
                [GPTVQ_INPUT_O] = {GPTVQ_O_PROJ, GPTVQ_BIAS_NEVER},
                [GPTVQ_INPUT_GATE_UP] = {{"mlp.gate_up_proj"}, GPTVQ_BIAS_NEVER},
                [GPTVQ_INPUT_DOWN] = {GPTVQ_DOWN_PROJ, GPTVQ_BIAS_NEVER}},
    .rotates_neighbours = true,
};
