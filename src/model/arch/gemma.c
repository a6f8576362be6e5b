#include "model/arch/gemma.h"

#include <math.h>
#include <string.h>

gptvq_status gptvq_gemma_keys(const gptvq_config_source *source, gptvq_config *c, gptvq_error *err) {
  bool bidirectional = false;
  GPTVQ_TRY(gptvq_config_bool(source, "use_bidirectional_attention", &bidirectional, err));
  if (bidirectional)
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED, "%s/%s: use_bidirectional_attention is not supported",
                      source->folder, source->file);
  strcpy(c->hidden_act, "gelu_pytorch_tanh"); /* whatever hidden_act says: in the first configs "gelu" */
  GPTVQ_TRY(gptvq_config_text(source, "hidden_activation", c->hidden_act, sizeof c->hidden_act, err));
  c->embedding_scale = sqrt((double)c->hidden);
  return GPTVQ_OK;
}

gptvq_status gptvq_gemma_cap(const gptvq_config_source *source, const char *key, double initial, double *cap,
                             gptvq_error *err) {
  *cap = json_is_null(json_object_get(source->object, key)) ? 0.0 : initial;
  return gptvq_config_number(source, key, 1e-3, 1e6, cap, err);
}

static const char *const own_keys[] = {"hidden_activation", "use_bidirectional_attention", NULL};

const gptvq_arch gptvq_arch_gemma = {
    .name = "Gemma",
    .model_type = "gemma",
    .config = {.rms_norm_eps = 1e-6,
               .rope_theta = 1e4,
               .max_positions = 8192,
               .head_dim = 256,
               .tie_embeddings = true,
               .own_keys = own_keys,
               .read_own = gptvq_gemma_keys},
    .norms = {GPTVQ_PRE_NORMS},
    .norm_offset = 1.0f,
    .linears = {GPTVQ_SPLIT_LINEARS(GPTVQ_BIAS_CONFIG, GPTVQ_BIAS_NEVER)},
};
