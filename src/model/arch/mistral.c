#include "model/arch/arch.h"

const gptvq_arch gptvq_arch_mistral = {
    .name = "Mistral",
    .model_type = "mistral",
    .config = {.rms_norm_eps = 1e-6,
               .rope_theta = 1e4,
               .max_positions = 131072,
               .sliding_window = 4096,
               .layer_types = true},
    .norms = {GPTVQ_PRE_NORMS},
    .linears = {GPTVQ_SPLIT_LINEARS(GPTVQ_BIAS_NEVER, GPTVQ_BIAS_NEVER)},
    .slides = true,
};
