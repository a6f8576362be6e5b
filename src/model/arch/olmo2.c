#include "model/arch/arch.h"

const gptvq_arch gptvq_arch_olmo2 = {
    .name = "Olmo2",
    .model_type = "olmo2",
    .config = {.rms_norm_eps = 1e-5, .rope_theta = 1e4, .max_positions = 2048},
    .norms = {GPTVQ_POST_NORMS, GPTVQ_QK_NORMS},
    .wide_qk_norms = true,
    .linears = {GPTVQ_SPLIT_LINEARS(GPTVQ_BIAS_CONFIG, GPTVQ_BIAS_NEVER)},
};
