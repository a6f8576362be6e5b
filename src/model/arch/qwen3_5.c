#include "model/arch/qwen3_5.h"

#include <string.h>

static const char *const own_keys[] = {GPTVQ_QWEN3_5_KEYS, "mlp_only_layers", /* all of them are */
                                       NULL};

gptvq_status gptvq_config_read_qwen3_5(const gptvq_config_source *source, gptvq_config *c, gptvq_error *err) {
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
    .config = {GPTVQ_QWEN3_5_RULES, .mrope = true, .own_keys = own_keys,
               .read_own = gptvq_config_read_qwen3_5},
    GPTVQ_QWEN3_5_PIECES,
    .linears[GPTVQ_INPUT_GATE_UP] = {GPTVQ_SPLIT_GATE_UP, GPTVQ_BIAS_NEVER},
    .linears[GPTVQ_INPUT_DOWN] = {GPTVQ_DOWN_PROJ, GPTVQ_BIAS_NEVER},
};
