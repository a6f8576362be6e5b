#include "model/arch/arch.h"

#include <math.h>

/* experts_per_token and initial_context_length repeat other keys. */
static const char *const own_keys[] = {"experts_per_token", "initial_context_length", "num_experts",
                                       "swiglu_alpha",      "swiglu_limit",           NULL};

/* Numbers of the activation that no model has changed. */
static gptvq_status need_number(const gptvq_config_source *source, const char *key, float value,
                                gptvq_error *err) {
  double number = (double)value;
  GPTVQ_TRY(gptvq_config_number(source, key, 0.0, 1e6, &number, err));
  if (fabs(number - (double)value) < 1e-6) return GPTVQ_OK;
  return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED, "%s/%s: %s %g is not supported: only %g is", source->folder,
                    source->file, key, number, (double)value);
}

static gptvq_status read_own(const gptvq_config_source *source, gptvq_config *c, gptvq_error *err) {
  GPTVQ_TRY(need_number(source, "swiglu_alpha", GPTVQ_SWIGLU_ALPHA, err));
  GPTVQ_TRY(need_number(source, "swiglu_limit", GPTVQ_SWIGLU_LIMIT, err));
  c->attention_bias = true;
  GPTVQ_TRY(gptvq_config_bool(source, "attention_bias", &c->attention_bias, err));
  c->attention_out_bias = c->attention_bias;
  if (gptvq_config_value(source, "rope_parameters") == NULL)
    GPTVQ_TRY(gptvq_config_need(source, "rope_scaling", err)); /* no default of ours: it is a yarn */
  gptvq_config_full_every(source, 2, c);
  return GPTVQ_OK;
}

const gptvq_arch gptvq_arch_gpt_oss = {
    .name = "GptOss",
    .model_type = "gpt_oss",
    .config = {.rms_norm_eps = 1e-5,
               .rope_theta = 150000.0,
               .max_positions = 131072,
               .head_dim = 64,
               .sliding_window = 128,
               .experts = 128,
               .experts_per_token = 4,
               .experts_key = "num_experts",
               .layer_types = true,
               .own_keys = own_keys,
               .read_own = read_own},
    .norms = {GPTVQ_PRE_NORMS},
    .linears = {[GPTVQ_INPUT_QKV] = {GPTVQ_SPLIT_QKV, GPTVQ_BIAS_CONFIG},
                [GPTVQ_INPUT_O] = {GPTVQ_O_PROJ, GPTVQ_BIAS_CONFIG},
                [GPTVQ_INPUT_GATE_UP] = {{"gate_proj", "up_proj"}, GPTVQ_BIAS_ALWAYS},
                [GPTVQ_INPUT_DOWN] = {{"down_proj"}, GPTVQ_BIAS_ALWAYS}},
    .router = "mlp.router",
    .router_bias = true,
    .experts = "mlp.experts.%zu.",
    .all_experts = GPTVQ_EXPERTS_WOVEN,
    .clamped_swiglu = true,
    .sinks = "self_attn.sinks",
    .slides = true,
};
