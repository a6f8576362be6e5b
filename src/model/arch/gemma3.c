#include "model/arch/gemma.h"

static gptvq_status read_own(const gptvq_config_source *source, gptvq_config *c, gptvq_error *err) {
  size_t every = 6;
  GPTVQ_TRY(gptvq_gemma_keys(source, c, err));
  c->query_scalar = 256.0;
  GPTVQ_TRY(gptvq_config_number(source, "query_pre_attn_scalar", 1e-3, 1e6, &c->query_scalar, err));
  GPTVQ_TRY(gptvq_gemma_cap(source, "final_logit_softcapping", 0.0, &c->logit_cap, err));
  GPTVQ_TRY(gptvq_config_size(source, "sliding_window_pattern", 1, SIZE_MAX, &every, err));
  gptvq_config_full_every(source, every, c);
  return GPTVQ_OK;
}

/* _sliding_window_pattern: transformers writes it beside layer_types and does not read it */
static const char *const own_keys[] = {"_sliding_window_pattern",     "final_logit_softcapping",
                                       "hidden_activation",           "query_pre_attn_scalar",
                                       "rope_local_base_freq",        "sliding_window_pattern",
                                       "use_bidirectional_attention", NULL};

const gptvq_arch gptvq_arch_gemma3 = {
    .name = "Gemma3",
    .model_type = "gemma3_text",
    .config = {.rms_norm_eps = 1e-6,
               .rope_theta = 1e6,
               .local_theta = "rope_local_base_freq",
               .local_rope_theta = 1e4,
               .max_positions = 131072,
               /* the configs of models with a vision tower leave these out */
               .heads = 8,
               .kv_heads = 4,
               .head_dim = 256,
               .vocab = 262208,
               .sliding_window = 4096,
               .tie_embeddings = true,
               .layer_types = true,
               .own_keys = own_keys,
               .read_own = read_own},
    .norms = {GPTVQ_NORMS_AROUND, GPTVQ_QK_NORMS},
    .norm_offset = 1.0f,
    .linears = {GPTVQ_SPLIT_LINEARS(GPTVQ_BIAS_CONFIG, GPTVQ_BIAS_NEVER)},
    .slides = true,
};
