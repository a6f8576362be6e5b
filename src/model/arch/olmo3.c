#include "model/arch/arch.h"

static gptvq_status read_own(const gptvq_config_source *source, gptvq_config *c, gptvq_error *err) {
  (void)err;
  gptvq_config_full_every(source, 4, c);
  return GPTVQ_OK;
}

/* OLMo 2 with windows; what stretches its rope is for the other layers only. */
const gptvq_arch gptvq_arch_olmo3 = {
    .name = "Olmo3",
    .model_type = "olmo3",
    .config = {.rms_norm_eps = 1e-5,
               .rope_theta = 5e5,
               .local_theta = "rope_theta",
               .local_rope_theta = 5e5,
               .max_positions = 2048,
               .sliding_window = 4096,
               .layer_types = true,
               .read_own = read_own},
    .norms = {GPTVQ_POST_NORMS, GPTVQ_QK_NORMS},
    .wide_qk_norms = true,
    .linears = {GPTVQ_SPLIT_LINEARS(GPTVQ_BIAS_CONFIG, GPTVQ_BIAS_NEVER)},
    .slides = true,
};
