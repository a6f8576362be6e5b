#include "model/arch/arch.h"

/* Phi-4-mini's files have these, which nothing reads */
static const char *const own_keys[] = {"full_attn_mod", "interpolate_factor", NULL};

const gptvq_arch gptvq_arch_phi3 = {
    .name = "Phi3",
    .model_type = "phi3",
    .config = {.rms_norm_eps = 1e-5,
               .rope_theta = 1e4,
               .max_positions = 4096,
               .partial_rotation = true,
               .own_keys = own_keys,
               .original_positions = 4096},
    .norms = {GPTVQ_PRE_NORMS},
    .linears = {[GPTVQ_INPUT_QKV] = {{"self_attn.qkv_proj"}, GPTVQ_BIAS_NEVER},
                [GPTVQ_INPUT_O] = {GPTVQ_O_PROJ, GPTVQ_BIAS_NEVER},
                [GPTVQ_INPUT_GATE_UP] = {{"mlp.gate_up_proj"}, GPTVQ_BIAS_NEVER},
                [GPTVQ_INPUT_DOWN] = {GPTVQ_DOWN_PROJ, GPTVQ_BIAS_NEVER}},
    .slides = true,
};
