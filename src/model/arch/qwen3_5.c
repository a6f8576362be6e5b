#include "model/arch/arch.h"

#include <string.h>

static const char *const own_keys[] = {"attn_output_gate",
                                       "full_attention_interval",
                                       "linear_conv_kernel_dim",
                                       "linear_key_head_dim",
                                       "linear_num_key_heads",
                                       "linear_num_value_heads",
                                       "linear_value_head_dim",
                                       "mamba_ssm_dtype",       /* of the states: fp32 here */
                                       "mlp_only_layers",       /* all of them are */
                                       "mtp_num_hidden_layers", /* heads that are left out */
                                       "mtp_use_dedicated_embeddings",
                                       NULL};

static gptvq_status read_own(const gptvq_config_source *source, gptvq_config *c, gptvq_error *err) {
  bool gate = true;
  GPTVQ_TRY(gptvq_config_bool(source, "attn_output_gate", &gate, err));
  if (!gate)
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED, "%s/%s: attn_output_gate false is not supported",
                      source->folder, source->file);
  if (strcmp(c->hidden_act, "silu") != 0) /* it is the convolution's too */
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "%s/%s: hidden_act %s is not supported beside linear attention; supported: silu",
                      source->folder, source->file, c->hidden_act);
  return GPTVQ_OK;
}

const gptvq_arch gptvq_arch_qwen3_5 = {
    .name = "Qwen3_5",
    .model_type = "qwen3_5_text",
    .config = {.rms_norm_eps = 1e-6,
               .rope_theta = 1e4,
               .max_positions = 32768,
               .head_dim = 256,
               .partial_rotation = true,
               .partial_rotary_factor = 0.25,
               .linear_layers = true,
               .mrope = true,
               .own_keys = own_keys,
               .read_own = read_own},
    .norms = {GPTVQ_PRE_NORMS, GPTVQ_QK_NORMS},
    .norm_offset = 1.0f,
    .linears = {[GPTVQ_INPUT_QKV] = {GPTVQ_SPLIT_QKV, GPTVQ_BIAS_CONFIG},
                [GPTVQ_INPUT_O] = {GPTVQ_O_PROJ, GPTVQ_BIAS_CONFIG},
                [GPTVQ_INPUT_GATE_UP] = {GPTVQ_SPLIT_GATE_UP, GPTVQ_BIAS_NEVER},
                [GPTVQ_INPUT_DOWN] = {GPTVQ_DOWN_PROJ, GPTVQ_BIAS_NEVER}},
    .output_gate = true,
    .delta = {.linears = {[GPTVQ_INPUT_QKV] = {{"linear_attn.in_proj_qkv", "linear_attn.in_proj_z"}},
                          [GPTVQ_INPUT_O] = {{"linear_attn.out_proj"}}},
              .decay = "linear_attn.in_proj_a",
              .beta = "linear_attn.in_proj_b",
              .taps = "linear_attn.conv1d.weight",
              .rate = "linear_attn.A_log",
              .time_bias = "linear_attn.dt_bias",
              .norm = "linear_attn.norm.weight"},
    .skipped = {{"mtp.", "heads that predict further tokens"}},
};
