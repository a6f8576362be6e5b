#include "model/arch/arch.h"

const gptvq_arch gptvq_arch_llama = {
    .name = "Llama",
    .model_type = "llama",
    .config = {.rms_norm_eps = 1e-6, .rope_theta = 1e4, .max_positions = 2048},
    .norms = {GPTVQ_PRE_NORMS},
    .linears = {GPTVQ_SPLIT_LINEARS(GPTVQ_BIAS_CONFIG, GPTVQ_BIAS_CONFIG)},
};
