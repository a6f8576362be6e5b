#include "model/arch/granite.h"

static const char *const own_keys[] = {GPTVQ_GRANITE_KEYS, NULL};

const gptvq_arch gptvq_arch_granite = {
    .name = "Granite",
    .model_type = "granite",
    .config = {.rms_norm_eps = 1e-6,
               .rope_theta = 1e4,
               .max_positions = 2048,
               .own_keys = own_keys,
               .read_own = gptvq_granite_keys},
    .norms = {GPTVQ_PRE_NORMS},
    .linears = {GPTVQ_SPLIT_LINEARS(GPTVQ_BIAS_CONFIG, GPTVQ_BIAS_CONFIG)},
};
