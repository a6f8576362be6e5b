/* model/arch/qwen3_5.h: what Qwen3-Next and the families of Qwen3.5 share. */
#ifndef GPTVQ_MODEL_ARCH_QWEN3_5_H
#define GPTVQ_MODEL_ARCH_QWEN3_5_H

#include "model/arch/arch.h"

#define GPTVQ_QWEN3_5_KEYS \
  "attn_output_gate", "full_attention_interval", "linear_conv_kernel_dim", "linear_key_head_dim", \
      "linear_num_key_heads", "linear_num_value_heads", "linear_value_head_dim", \
      "mamba_ssm_dtype",       /* of the states: fp32 here */ \
      "mtp_num_hidden_layers", /* heads that are left out */ \
      "mtp_use_dedicated_embeddings"

#define GPTVQ_QWEN3_5_RULES \
  .rms_norm_eps = 1e-6, .rope_theta = 1e4, .max_positions = 32768, .head_dim = 256, \
  .partial_rotation = true, .partial_rotary_factor = 0.25, .linear_layers = true

#define GPTVQ_QWEN3_5_PIECES \
  .norms = {GPTVQ_PRE_NORMS, GPTVQ_QK_NORMS}, .norm_offset = 1.0f, \
  .linears[GPTVQ_INPUT_QKV] = {GPTVQ_SPLIT_QKV, GPTVQ_BIAS_CONFIG}, \
  .linears[GPTVQ_INPUT_O] = {GPTVQ_O_PROJ, GPTVQ_BIAS_CONFIG}, .output_gate = true, \
  .delta = {.linears = {[GPTVQ_INPUT_QKV] = {{"linear_attn.in_proj_qkv", "linear_attn.in_proj_z"}, \
                                             GPTVQ_BIAS_NEVER}, \
                        [GPTVQ_INPUT_O] = {{"linear_attn.out_proj"}, GPTVQ_BIAS_NEVER}}, \
            .decay = "linear_attn.in_proj_a", \
            .beta = "linear_attn.in_proj_b", \
            .taps = "linear_attn.conv1d.weight", \
            .rate = "linear_attn.A_log", \
            .time_bias = "linear_attn.dt_bias", \
            .norm = "linear_attn.norm.weight"}, \
  .skipped = {"mtp.", "heads that guess tokens after the next"}

/* attn_output_gate and hidden_act have to be what the computation is. */
gptvq_status gptvq_config_read_qwen3_5(const gptvq_config_source *source, gptvq_config *config,
                                       gptvq_error *err);
/* The same, and shared_expert_intermediate_size. */
gptvq_status gptvq_config_read_qwen3_5_moe(const gptvq_config_source *source, gptvq_config *config,
                                           gptvq_error *err);

#endif
