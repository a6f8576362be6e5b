#include "model/arch/arch.h"

const gptvq_arch gptvq_arch_qwen3 = {
    .name = "Qwen3",
    .model_type = "qwen3",
    .config = {.rms_norm_eps = 1e-6,
               .rope_theta = 1e4,
               .max_positions = 32768,
               .head_dim = 128,
               .sliding_window = 4096,
               .layer_types = true,
               .window_switch = true},
    .norms = {GPTVQ_PRE_NORMS, GPTVQ_QK_NORMS},
    .linears = {GPTVQ_SPLIT_LINEARS(GPTVQ_BIAS_CONFIG, GPTVQ_BIAS_NEVER)},
    .slides = true,
};
