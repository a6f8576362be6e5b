#include "model/arch/gemma.h"

static gptvq_status read_own(const gptvq_config_source *source, gptvq_config *c, gptvq_error *err) {
  GPTVQ_TRY(gptvq_gemma_keys(source, c, err));
  c->query_scalar = 256.0;
  GPTVQ_TRY(gptvq_config_number(source, "query_pre_attn_scalar", 1e-3, 1e6, &c->query_scalar, err));
  GPTVQ_TRY(gptvq_gemma_cap(source, "attn_logit_softcapping", 50.0, &c->attention_cap, err));
  GPTVQ_TRY(gptvq_gemma_cap(source, "final_logit_softcapping", 30.0, &c->logit_cap, err));
  gptvq_config_full_every(source, 2, c);
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
    .norms = {GPTVQ_NORMS_AROUND},
    .norm_offset = 1.0f,
    .linears = {GPTVQ_SPLIT_LINEARS(GPTVQ_BIAS_CONFIG, GPTVQ_BIAS_NEVER)},
    .slides = true,
};
