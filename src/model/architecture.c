#include "model/architecture.h"

#include <stdio.h>
#include <string.h>

#define SPLIT_QKV \
  { "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", NULL }
#define PLAIN_MLP .experts = "", .gate_up = {"mlp.gate_proj", "mlp.up_proj", NULL}, .down = "mlp.down_proj"

static const gptvq_architecture table[] = {
    {.name = "LlamaForCausalLM",
     .qkv = SPLIT_QKV,
     .o = "self_attn.o_proj",
     PLAIN_MLP,
     .qkv_bias = GPTVQ_BIAS_CONFIG,
     .o_bias = GPTVQ_BIAS_CONFIG,
     .mlp_bias = GPTVQ_BIAS_CONFIG},
    {.name = "MistralForCausalLM", .qkv = SPLIT_QKV, .o = "self_attn.o_proj", PLAIN_MLP, .slides = true},
    {.name = "MixtralForCausalLM",
     .qkv = SPLIT_QKV,
     .o = "self_attn.o_proj",
     .router = "block_sparse_moe.gate",
     .experts = "block_sparse_moe.experts.%zu.",
     .gate_up = {"w1", "w3", NULL},
     .down = "w2",
     .slides = true},
    {.name = "Qwen2ForCausalLM",
     .qkv = SPLIT_QKV,
     .o = "self_attn.o_proj",
     PLAIN_MLP,
     .qkv_bias = GPTVQ_BIAS_ALWAYS,
     .slides = true},
    {.name = "Qwen3ForCausalLM",
     .qkv = SPLIT_QKV,
     .o = "self_attn.o_proj",
     PLAIN_MLP,
     .qkv_bias = GPTVQ_BIAS_CONFIG,
     .o_bias = GPTVQ_BIAS_CONFIG,
     .qk_norm = true,
     .slides = true},
    {.name = "Phi3ForCausalLM",
     .qkv = {"self_attn.qkv_proj", NULL},
     .o = "self_attn.o_proj",
     .experts = "",
     .gate_up = {"mlp.gate_up_proj", NULL},
     .down = "mlp.down_proj",
     .slides = true},
};
enum { ARCHITECTURES = sizeof table / sizeof table[0] };

gptvq_status gptvq_find_architecture(const char *folder, const char *name, const gptvq_architecture **out,
                                     gptvq_error *err) {
  char supported[512] = "";
  for (size_t i = 0; i < ARCHITECTURES; i++) {
    if (strcmp(table[i].name, name) == 0) {
      *out = &table[i];
      return GPTVQ_OK;
    }
    size_t used = strlen(supported);
    snprintf(supported + used, sizeof supported - used, "%s%s", i == 0 ? "" : ", ", table[i].name);
  }
  return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                    "%s/config.json: architecture %s is not supported; supported: %s", folder, name,
                    supported);
}
