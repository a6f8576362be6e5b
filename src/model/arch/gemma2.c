#include "model/arch/arch.h"

#include <math.h>
#include <string.h>

/* A cap: null means none, a key that is not there the family's default. */
static gptvq_status read_cap(const gptvq_config_source *source, const char *key, double initial, double *cap,
                             gptvq_error *err) {
  *cap = json_is_null(json_object_get(source->object, key)) ? 0.0 : initial;
  return gptvq_config_number(source, key, 1e-3, 1e6, cap, err);
}

static gptvq_status read_own(const gptvq_config_source *source, gptvq_config *c, gptvq_error *err) {
  bool bidirectional = false;
  GPTVQ_TRY(gptvq_config_bool(source, "use_bidirectional_attention", &bidirectional, err));
  if (bidirectional)
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED, "%s/%s: use_bidirectional_attention is not supported",
                      source->folder, source->file);
  strcpy(c->hidden_act, "gelu_pytorch_tanh"); /* whatever hidden_act says */
  GPTVQ_TRY(gptvq_config_text(source, "hidden_activation", c->hidden_act, sizeof c->hidden_act, err));
  c->query_scalar = 256.0;
  GPTVQ_TRY(gptvq_config_number(source, "query_pre_attn_scalar", 1e-3, 1e6, &c->query_scalar, err));
  GPTVQ_TRY(read_cap(source, "attn_logit_softcapping", 50.0, &c->attention_cap, err));
  GPTVQ_TRY(read_cap(source, "final_logit_softcapping", 30.0, &c->logit_cap, err));
  c->embedding_scale = sqrt((double)c->hidden);
  if (gptvq_config_value(source, "layer_types") == NULL) /* every other layer, from the first on */
    for (size_t i = 1; i < c->layers; i += 2) c->layer_slides[i] = false;
  return GPTVQ_OK;
}

/* sliding_window_size is in Google's files beside sliding_window, and nothing reads it */
static const char *const own_keys[] = {"attn_logit_softcapping",
                                       "final_logit_softcapping",
                                       "hidden_activation",
                                       "query_pre_attn_scalar",
                                       "sliding_window_size",
                                       "use_bidirectional_attention",
                                       NULL};

const gptvq_arch gptvq_arch_gemma2 = {
    .name = "Gemma2",
    .model_type = "gemma2",
    .config = {.rms_norm_eps = 1e-6,
               .rope_theta = 1e4,
               .max_positions = 8192,
               .head_dim = 256,
               .sliding_window = 4096,
               .tie_embeddings = true,
               .layer_types = true,
               .own_keys = own_keys,
               .read_own = read_own},
    .norms = {[GPTVQ_NORM_ATTENTION] = "input_layernorm",
              [GPTVQ_NORM_ATTENTION_OUT] = "post_attention_layernorm",
              [GPTVQ_NORM_MLP] = "pre_feedforward_layernorm",
              [GPTVQ_NORM_MLP_OUT] = "post_feedforward_layernorm"},
    .norm_offset = 1.0f,
    .linears = {[GPTVQ_INPUT_QKV] = {GPTVQ_SPLIT_QKV, GPTVQ_BIAS_CONFIG},
                [GPTVQ_INPUT_O] = {GPTVQ_O_PROJ, GPTVQ_BIAS_CONFIG},
                [GPTVQ_INPUT_GATE_UP] = {GPTVQ_SPLIT_GATE_UP, GPTVQ_BIAS_NEVER},
                [GPTVQ_INPUT_DOWN] = {GPTVQ_DOWN_PROJ, GPTVQ_BIAS_NEVER}},
    .slides = true,
};
