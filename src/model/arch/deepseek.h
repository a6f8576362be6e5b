/* model/arch/deepseek.h: what DeepSeek-V2 and V3 share. */
#ifndef GPTVQ_MODEL_ARCH_DEEPSEEK_H
#define GPTVQ_MODEL_ARCH_DEEPSEEK_H

#include "model/arch/arch.h"

#define GPTVQ_DEEPSEEK_KEYS \
  "ep_size", "first_k_dense_replace", "kv_lora_rank", "moe_intermediate_size", "moe_layer_freq", "n_group", \
      "n_routed_experts", "n_shared_experts", "norm_topk_prob", "num_experts", "num_mtp_layers", \
      "num_nextn_predict_layers", "q_lora_rank", "qk_head_dim", "qk_nope_head_dim", "qk_rope_head_dim", \
      "routed_scaling_factor", "scoring_func", "seq_aux", "topk_group", "topk_method", "v_head_dim"

#define GPTVQ_DEEPSEEK_RULES \
  .rms_norm_eps = 1e-6, .rope_theta = 1e4, .experts_per_token = 8, .experts_key = "n_routed_experts", \
  .scores_grow = true

#define GPTVQ_DEEPSEEK_PIECES \
  .norms = {GPTVQ_PRE_NORMS, GPTVQ_LATENT_NORMS}, GPTVQ_LATENT_LINEARS, \
  .linears[GPTVQ_INPUT_O] = {GPTVQ_O_PROJ, GPTVQ_BIAS_CONFIG}, GPTVQ_EXPERT_LINEARS, \
  .shared = "mlp.shared_experts."

/* latent, layers and router of V2, or of the third. */
gptvq_status gptvq_config_read_deepseek(const gptvq_config_source *source, bool third, gptvq_config *config,
                                        gptvq_error *err);

#endif
