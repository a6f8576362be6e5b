#include "model/arch/arch.h"

const gptvq_arch gptvq_arch_ministral3 = {
    .name = "Ministral3",
    .model_type = "ministral3",
    .config = {.rms_norm_eps = 1e-5,
               .rope_theta = 1e4,
               .max_positions = 262144,
               .head_dim = 128,
               .query_growth = true},
    .norms = {GPTVQ_PRE_NORMS},
    .linears = {GPTVQ_SPLIT_LINEARS(GPTVQ_BIAS_NEVER, GPTVQ_BIAS_NEVER)},
    .slides = true,
};
