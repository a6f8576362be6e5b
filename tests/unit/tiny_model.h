/* Tiny random models of every architecture, written with the library's own writer, and helpers for folders.
 */
#ifndef TINY_MODEL_H
#define TINY_MODEL_H

#include "base/file.h"
#include "base/half.h"
#include "base/random.h"
#include "checkpoint/checkpoint.h"

#include <dirent.h>
#include <gptvq/gptvq.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

enum {
  TINY_HIDDEN = 64,
  TINY_MLP = 96,
  TINY_HEADS = 4,
  TINY_KV = 2,
  TINY_HEAD = 16,
  TINY_VOCAB = 96,
  TINY_EXPERTS = 4,
  TINY_EXPERT_MLP = 48,
  TINY_SHARED_MLP = 80,
  TINY_Q_RANK = 24,
  TINY_KV_RANK = 32
};

typedef struct tiny_model {
  const char *architecture;
  size_t layers;
  int tied, fused, experts, qkv_bias, qk_norm;
  int hybrid;   /* Qwen3.5: gated delta nets in all layers but the last one, whose attention is gated;
                   2: Qwen3-Next's, whose linears are fused */
  int behind;   /* norms behind both halves; 2: none before them */
  int less_one; /* what is stored of a gain */
  int window, wide_qk_norm;
  const char *keys; /* more of config.json */
  int glm4;         /* norms behind both halves under names of its own, gate and up fused */
  int sparse;   /* experts as Qwen's mixtures have them, layer 1 without; 2: an MLP beside them with a gate;
                   6: that in all layers */
  int deepseek; /* latent attention, with experts */
  int gpt_oss;  /* sinks, biases, a window in every other layer; with experts */
  const char *bad_name; /* one number of the tensor whose name contains this is replaced by `bad` */
  float bad;
  double outputs;          /* o_proj and down_proj are multiplied by it; 0: by 1 */
  const char *scaled_name; /* all numbers of the tensors whose names contain this are multiplied by `scale` */
  double scale;
} tiny_model;

static const tiny_model tiny_llama = {.architecture = "LlamaForCausalLM", .layers = 3};
static const tiny_model tiny_tied = {.architecture = "LlamaForCausalLM", .layers = 2, .tied = 1};
static const tiny_model tiny_mixtral = {
    .architecture = "MixtralForCausalLM", .layers = 2, .experts = TINY_EXPERTS};
static const tiny_model tiny_qwen2 = {.architecture = "Qwen2ForCausalLM", .layers = 2, .qkv_bias = 1};
static const tiny_model tiny_qwen3 = {.architecture = "Qwen3ForCausalLM", .layers = 2, .qk_norm = 1};
static const tiny_model tiny_gemma2 = {.architecture = "Gemma2ForCausalLM",
                                       .layers = 2,
                                       .tied = 1,
                                       .behind = 1,
                                       .less_one = 1,
                                       .window = 12,
                                       .keys =
                                           "\"query_pre_attn_scalar\": 24, \"attn_logit_softcapping\": 4.0, "
                                           "\"final_logit_softcapping\": 20.0"};
static const tiny_model tiny_gemma3 = {.architecture = "Gemma3ForCausalLM",
                                       .layers = 2,
                                       .tied = 1,
                                       .qk_norm = 1,
                                       .behind = 1,
                                       .less_one = 1,
                                       .window = 12,
                                       .keys =
                                           "\"query_pre_attn_scalar\": 24, \"sliding_window_pattern\": 2, "
                                           "\"rope_local_base_freq\": 100.0, "
                                           "\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 8.0}"};
static const tiny_model tiny_olmo3 = {.architecture = "Olmo3ForCausalLM",
                                      .layers = 2,
                                      .qk_norm = 1,
                                      .wide_qk_norm = 1,
                                      .behind = 2,
                                      .window = 12,
                                      .keys = "\"layer_types\": [\"full_attention\", \"sliding_attention\"]"};
static const tiny_model tiny_exaone4 = {.architecture = "Exaone4ForCausalLM",
                                        .layers = 2,
                                        .qk_norm = 1,
                                        .behind = 2,
                                        .window = 12,
                                        .keys = "\"sliding_window_pattern\": 2"};
static const tiny_model tiny_smollm3 = {
    .architecture = "SmolLM3ForCausalLM", .layers = 2, .tied = 1, .keys = "\"no_rope_layer_interval\": 2"};
#define TINY_DELTA_KEYS \
  "\"linear_num_key_heads\": 2, \"linear_num_value_heads\": 4, \"linear_key_head_dim\": 8, " \
  "\"linear_value_head_dim\": 12, \"full_attention_interval\": 2"
static const tiny_model tiny_qwen3_5 = {.architecture = "Qwen3_5ForCausalLM",
                                        .layers = 2,
                                        .qk_norm = 1,
                                        .less_one = 1,
                                        .hybrid = 1,
                                        .keys = TINY_DELTA_KEYS};
#define TINY_SHARED_KEYS "\"moe_intermediate_size\": 48, \"shared_expert_intermediate_size\": 80, "
static const tiny_model tiny_qwen3_5_moe = {.architecture = "Qwen3_5MoeForCausalLM",
                                            .layers = 2,
                                            .qk_norm = 1,
                                            .less_one = 1,
                                            .hybrid = 1,
                                            .sparse = 6,
                                            .keys = TINY_SHARED_KEYS TINY_DELTA_KEYS};
static const tiny_model tiny_qwen3_next = {.architecture = "Qwen3NextForCausalLM",
                                           .layers = 2,
                                           .qk_norm = 1,
                                           .less_one = 1,
                                           .hybrid = 2,
                                           .sparse = 2,
                                           .keys =
                                               TINY_SHARED_KEYS TINY_DELTA_KEYS ", \"mlp_only_layers\": [1]"};
static const tiny_model tiny_qwen3_moe = {
    .architecture = "Qwen3MoeForCausalLM",
    .layers = 2,
    .qk_norm = 1,
    .sparse = 1,
    .keys = "\"moe_intermediate_size\": 48, \"mlp_only_layers\": [1], \"norm_topk_prob\": true"};
static const tiny_model tiny_qwen2_moe = {
    .architecture = "Qwen2MoeForCausalLM",
    .layers = 2,
    .qkv_bias = 1,
    .sparse = 2,
    .keys = "\"moe_intermediate_size\": 48, \"mlp_only_layers\": [1], \"norm_topk_prob\": true, "
            "\"shared_expert_intermediate_size\": 80"};
static const tiny_model tiny_olmoe = {.architecture = "OlmoeForCausalLM",
                                      .layers = 2,
                                      .qk_norm = 1,
                                      .wide_qk_norm = 1,
                                      .sparse = 3,
                                      .keys = "\"norm_topk_prob\": false"};
static const tiny_model tiny_gpt_oss = {.architecture = "GptOssForCausalLM",
                                        .layers = 2,
                                        .qkv_bias = 1,
                                        .sparse = 4,
                                        .gpt_oss = 1,
                                        .window = 12,
                                        .keys = "\"rope_scaling\": {\"type\": \"default\"}"};
static const tiny_model tiny_deepseek = {
    .architecture = "DeepseekV3ForCausalLM",
    .layers = 2,
    .sparse = 5,
    .deepseek = 1,
    .keys = "\"moe_intermediate_size\": 48, \"first_k_dense_replace\": 1, \"n_group\": 2, \"topk_group\": 1, "
            "\"q_lora_rank\": 24, \"kv_lora_rank\": 32, \"qk_nope_head_dim\": 8, \"qk_rope_head_dim\": 8, "
            "\"v_head_dim\": 16"};
static const tiny_model tiny_phi3 = {.architecture = "Phi3ForCausalLM", .layers = 2, .fused = 1};

static const tiny_model tiny_granite = {
    .architecture = "GraniteForCausalLM",
    .layers = 2,
    .tied = 1,
    .keys = "\"embedding_multiplier\": 6.0, \"attention_multiplier\": 0.125, \"residual_multiplier\": 0.4, "
            "\"logits_scaling\": 2.0"};
static const tiny_model tiny_glm4 = {
    .architecture = "Glm4ForCausalLM", .layers = 2, .qkv_bias = 1, .glm4 = 1};
static const tiny_model tiny_ministral3 = {
    .architecture = "Ministral3ForCausalLM",
    .layers = 2,
    .keys = "\"rope_parameters\": {\"rope_type\": \"yarn\", \"rope_theta\": 1000.0, \"factor\": 8.0, "
            "\"original_max_position_embeddings\": 16, \"llama_4_scaling_beta\": 0.1}"};

#define ok(expression) \
  do { \
    gptvq_error err_ = {0}; \
    gptvq_error *err = &err_; \
    gptvq_status status_ = (expression); \
    if (status_ != GPTVQ_OK) fail_msg("%s: %s", gptvq_status_name(status_), err_.message); \
  } while (0)

typedef struct tiny_tensor {
  char name[96];
  size_t rank, dims[3];
  float centre, spread; /* uniform numbers in centre ± spread */
  int zero_row;         /* >= 0: that row is zero (a router row that never wins) */
} tiny_tensor;

typedef struct tiny_list {
  tiny_tensor tensors[256];
  size_t count;
} tiny_list;

static inline void tiny_add(tiny_list *list, size_t rows, size_t cols, float centre, float spread,
                            const char *format, ...) {
  tiny_tensor *tensor = &list->tensors[list->count++];
  assert_true(list->count <= 256);
  *tensor = (tiny_tensor){
      .rank = cols > 0 ? 2 : 1, .dims = {rows, cols}, .centre = centre, .spread = spread, .zero_row = -1};
  va_list args;
  va_start(args, format);
  (void)vsnprintf(tensor->name, sizeof tensor->name, format, args);
  va_end(args);
}

/* 2 key heads of 8, 4 value heads of 12, 4 taps. */
static inline void tiny_delta(const tiny_model *m, tiny_list *list, const char *layer) {
  const size_t h = TINY_HIDDEN, columns = 2 * 2 * 8 + 4 * 12;
  if (m->hybrid == 2) {
    tiny_add(list, columns + 4 * 12, h, 0, 0.2f, "%s.linear_attn.in_proj_qkvz.weight", layer);
    tiny_add(list, 2 * 4, h, 0, 0.2f, "%s.linear_attn.in_proj_ba.weight", layer);
  } else {
    tiny_add(list, columns, h, 0, 0.2f, "%s.linear_attn.in_proj_qkv.weight", layer);
    tiny_add(list, 4 * 12, h, 0, 0.2f, "%s.linear_attn.in_proj_z.weight", layer);
    tiny_add(list, 4, h, 0, 0.2f, "%s.linear_attn.in_proj_a.weight", layer);
    tiny_add(list, 4, h, 0, 0.2f, "%s.linear_attn.in_proj_b.weight", layer);
  }
  tiny_add(list, 4, 0, -1, 0.5f, "%s.linear_attn.A_log", layer);
  tiny_add(list, 4, 0, 0, 0.5f, "%s.linear_attn.dt_bias", layer);
  tiny_add(list, 12, 0, 1, 0.1f, "%s.linear_attn.norm.weight", layer);
  tiny_add(list, columns, 4, 0, 1.0f, "%s.linear_attn.conv1d.weight", layer);
  tiny_tensor *taps = &list->tensors[list->count - 1];
  taps->rank = 3;
  taps->dims[1] = 1;
  taps->dims[2] = 4;
  tiny_add(list, h, 4 * 12, 0, 0.2f, "%s.linear_attn.out_proj.weight", layer);
}

static inline void tiny_add_mlp(tiny_list *list, size_t mlp, const char *prefix) {
  tiny_add(list, mlp, TINY_HIDDEN, 0, 0.2f, "%sgate_proj.weight", prefix);
  tiny_add(list, mlp, TINY_HIDDEN, 0, 0.2f, "%sup_proj.weight", prefix);
  tiny_add(list, TINY_HIDDEN, mlp, 0, 0.2f, "%sdown_proj.weight", prefix);
}

/* Heads of half rotated and half plain values. */
static inline void tiny_add_latent(const char *p, tiny_list *list) {
  const size_t h = TINY_HIDDEN, q = TINY_HEADS * TINY_HEAD, half = TINY_HEAD / 2;
  tiny_add(list, TINY_Q_RANK, h, 0, 0.2f, "%s.self_attn.q_a_proj.weight", p);
  tiny_add(list, TINY_Q_RANK, 0, 1, 0.1f, "%s.self_attn.q_a_layernorm.weight", p);
  tiny_add(list, q, TINY_Q_RANK, 0, 0.2f, "%s.self_attn.q_b_proj.weight", p);
  tiny_add(list, TINY_KV_RANK + half, h, 0, 0.2f, "%s.self_attn.kv_a_proj_with_mqa.weight", p);
  tiny_add(list, TINY_KV_RANK, 0, 1, 0.1f, "%s.self_attn.kv_a_layernorm.weight", p);
  tiny_add(list, TINY_HEADS * (half + TINY_HEAD), TINY_KV_RANK, 0, 0.2f, "%s.self_attn.kv_b_proj.weight", p);
}

static inline void tiny_add_sparse(const tiny_model *m, size_t layer, const char *p, tiny_list *list) {
  char prefix[64];
  (void)snprintf(prefix, sizeof prefix, "%s.mlp.", p);
  if ((layer == 1 && m->sparse < 3) || (layer == 0 && m->deepseek)) {
    tiny_add_mlp(list, TINY_MLP, prefix);
    return;
  }
  tiny_add(list, TINY_EXPERTS, TINY_HIDDEN, 0, 0.2f, "%s.mlp.%s.weight", p, m->gpt_oss ? "router" : "gate");
  list->tensors[list->count - 1].zero_row = TINY_EXPERTS; /* see tiny_write */
  for (size_t e = 0; e < TINY_EXPERTS; e++) {
    (void)snprintf(prefix, sizeof prefix, "%s.mlp.experts.%zu.", p, e);
    tiny_add_mlp(list, m->sparse < 3 || m->sparse > 4 ? TINY_EXPERT_MLP : TINY_MLP, prefix);
    if (!m->gpt_oss) continue;
    tiny_add(list, TINY_MLP, 0, 0, 0.2f, "%sgate_proj.bias", prefix);
    tiny_add(list, TINY_MLP, 0, 0, 0.2f, "%sup_proj.bias", prefix);
    tiny_add(list, TINY_HIDDEN, 0, 0, 0.2f, "%sdown_proj.bias", prefix);
  }
  if (m->gpt_oss) tiny_add(list, TINY_EXPERTS, 0, 0, 0.01f, "%s.mlp.router.bias", p);
  if (m->deepseek) {
    tiny_add(list, TINY_EXPERTS, 0, 0, 0.2f, "%s.mlp.gate.e_score_correction_bias", p);
    (void)snprintf(prefix, sizeof prefix, "%s.mlp.shared_experts.", p);
    tiny_add_mlp(list, TINY_EXPERT_MLP, prefix);
  }
  if (m->sparse != 2 && m->sparse != 6) return;
  (void)snprintf(prefix, sizeof prefix, "%s.mlp.shared_expert.", p);
  tiny_add_mlp(list, TINY_SHARED_MLP, prefix);
  tiny_add(list, 1, TINY_HIDDEN, 0, 0.2f, "%s.mlp.shared_expert_gate.weight", p);
}

static inline void tiny_tensors(const tiny_model *m, tiny_list *list) {
  size_t q = TINY_HEADS * TINY_HEAD, kv = TINY_KV * TINY_HEAD, h = TINY_HIDDEN, mlp = TINY_MLP;
  tiny_add(list, TINY_VOCAB, h, 0, 1.0f, "model.embed_tokens.weight");
  if (!m->tied) tiny_add(list, TINY_VOCAB, h, 0, 0.2f, "lm_head.weight");
  const float gain = m->less_one ? 0 : 1;
  tiny_add(list, h, 0, gain, 0.1f, "model.norm.weight");
  for (size_t l = 0; l < m->layers; l++) {
    char p[40];
    (void)snprintf(p, sizeof p, "model.layers.%zu", l);
    if (m->behind < 2) tiny_add(list, h, 0, gain, 0.1f, "%s.input_layernorm.weight", p);
    tiny_add(list, h, 0, gain, 0.1f, "%s.post_attention_layernorm.weight", p);
    if (m->glm4) {
      tiny_add(list, h, 0, gain, 0.1f, "%s.post_self_attn_layernorm.weight", p);
      tiny_add(list, h, 0, gain, 0.1f, "%s.post_mlp_layernorm.weight", p);
    }
    if (m->behind == 1) tiny_add(list, h, 0, gain, 0.1f, "%s.pre_feedforward_layernorm.weight", p);
    if (m->behind > 0) tiny_add(list, h, 0, gain, 0.1f, "%s.post_feedforward_layernorm.weight", p);
    const bool delta = m->hybrid && l + 1 < m->layers;
    if (delta) {
      tiny_delta(m, list, p);
    } else if (m->deepseek) {
      tiny_add_latent(p, list);
    } else if (m->fused) {
      tiny_add(list, q + 2 * kv, h, 0, 0.2f, "%s.self_attn.qkv_proj.weight", p);
    } else {
      tiny_add(list, m->hybrid ? 2 * q : q, h, 0, 0.2f, "%s.self_attn.q_proj.weight", p);
      tiny_add(list, kv, h, 0, 0.2f, "%s.self_attn.k_proj.weight", p);
      tiny_add(list, kv, h, 0, 0.2f, "%s.self_attn.v_proj.weight", p);
    }
    if (m->qkv_bias) {
      tiny_add(list, q, 0, 0, 0.2f, "%s.self_attn.q_proj.bias", p);
      tiny_add(list, kv, 0, 0, 0.2f, "%s.self_attn.k_proj.bias", p);
      tiny_add(list, kv, 0, 0, 0.2f, "%s.self_attn.v_proj.bias", p);
    }
    if (m->gpt_oss) {
      tiny_add(list, h, 0, 0, 0.2f, "%s.self_attn.o_proj.bias", p);
      tiny_add(list, TINY_HEADS, 0, 0, 1.0f, "%s.self_attn.sinks", p);
    }
    if (m->qk_norm && !delta) {
      tiny_add(list, m->wide_qk_norm ? q : TINY_HEAD, 0, gain, 0.1f, "%s.self_attn.q_norm.weight", p);
      tiny_add(list, m->wide_qk_norm ? kv : TINY_HEAD, 0, gain, 0.1f, "%s.self_attn.k_norm.weight", p);
    }
    if (!delta) tiny_add(list, h, q, 0, 0.2f, "%s.self_attn.o_proj.weight", p);
    if (m->sparse) {
      tiny_add_sparse(m, l, p, list);
    } else if (m->experts) {
      tiny_add(list, TINY_EXPERTS, h, 0, 0.2f, "%s.block_sparse_moe.gate.weight", p);
      list->tensors[list->count - 1].zero_row =
          TINY_EXPERTS; /* see tiny_write: a router with an expert that never wins */
      for (size_t e = 0; e < TINY_EXPERTS; e++) {
        tiny_add(list, mlp, h, 0, 0.2f, "%s.block_sparse_moe.experts.%zu.w1.weight", p, e);
        tiny_add(list, mlp, h, 0, 0.2f, "%s.block_sparse_moe.experts.%zu.w3.weight", p, e);
        tiny_add(list, h, mlp, 0, 0.2f, "%s.block_sparse_moe.experts.%zu.w2.weight", p, e);
      }
    } else {
      if (m->fused || m->glm4) {
        tiny_add(list, 2 * mlp, h, 0, 0.2f, "%s.mlp.gate_up_proj.weight", p);
      } else {
        tiny_add(list, mlp, h, 0, 0.2f, "%s.mlp.gate_proj.weight", p);
        tiny_add(list, mlp, h, 0, 0.2f, "%s.mlp.up_proj.weight", p);
      }
      tiny_add(list, h, mlp, 0, 0.2f, "%s.mlp.down_proj.weight", p);
    }
  }
}

static inline void tiny_write_text(const char *folder, const char *name, const char *text) {
  char *path = gptvq_join_path(folder, name);
  ok(gptvq_write_file(path, text, strlen(text), err));
  free(path);
}

/* Byte-level, no merges: the printable ASCII characters from '!' on are tokens 2 … 95. */
static inline void tiny_write_tokenizer(const char *folder) {
  char text[4096], vocab[2048];
  size_t used = 0;
  for (int c = '!'; c <= '~'; c++)
    used += (size_t)snprintf(vocab + used, sizeof vocab - used, ", \"%s%c\": %d",
                             c == '"' || c == '\\' ? "\\" : "", c, c - '!' + 2);
  (void)snprintf(
      text, sizeof text,
      "{\"version\": \"1.0\", \"added_tokens\": [], \"normalizer\": null, \"pre_tokenizer\": {\"type\": "
      "\"ByteLevel\","
      " \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": false}, \"post_processor\": null,"
      " \"decoder\": {\"type\": \"ByteLevel\"}, \"model\": {\"type\": \"BPE\", \"vocab\": {\"<s>\": 0, "
      "\"</s>\": 1%s},"
      " \"merges\": []}}\n",
      vocab);
  tiny_write_text(folder, "tokenizer.json", text);
}

/* `count` random characters of that tokenizer */
static inline void tiny_write_corpus(const char *path, size_t count) {
  char *text = malloc(count + 1);
  uint64_t state = 11;
  assert_non_null(text);
  for (size_t i = 0; i < count; i++) text[i] = (char)('!' + gptvq_random_below(&state, 94));
  ok(gptvq_write_file(path, text, count, err));
  free(text);
}

/* bf16 weights; router rows u, −u, 0, 0: with two experts per token the fourth never wins (ties go to the
 * lower index). */
static inline void tiny_write(const tiny_model *m, const char *folder) {
  static tiny_list list;
  list.count = 0;
  tiny_tensors(m, &list);
  ok(gptvq_make_folder(folder, err));
  char *path = gptvq_join_path(folder, "model.safetensors");
  gptvq_st_writer *writer;
  ok(gptvq_st_writer_create(path, &writer, err));
  for (size_t t = 0; t < list.count; t++)
    ok(gptvq_st_writer_declare(writer, list.tensors[t].name, GPTVQ_T_BF16, list.tensors[t].rank,
                               list.tensors[t].dims, err));
  uint64_t state = 42;
  for (size_t t = 0; t < list.count; t++) {
    const tiny_tensor *tensor = &list.tensors[t];
    size_t cols = (tensor->rank > 1 ? tensor->dims[1] : 1) * (tensor->rank > 2 ? tensor->dims[2] : 1),
           count = tensor->dims[0] * cols;
    uint16_t *values = calloc(count, sizeof *values);
    assert_non_null(values);
    bool scaled = m->scaled_name != NULL && strstr(tensor->name, m->scaled_name) != NULL;
    const bool outputs = m->outputs != 0 && (strstr(tensor->name, "o_proj") != NULL ||
                                             strstr(tensor->name, "down_proj") != NULL);
    for (size_t i = 0; i < count; i++) {
      float value = tensor->centre + tensor->spread * (float)(2.0 * gptvq_random_unit(&state) - 1.0);
      if (outputs) value = (float)((double)value * m->outputs);
      values[i] = gptvq_float_to_bf16(scaled ? (float)((double)value * m->scale) : value);
    }
    if (tensor->zero_row >= 0)
      for (size_t i = 0; i < cols; i++) {
        values[cols + i] = values[i] ^ 0x8000u;
        for (size_t row = 2; row < tensor->dims[0]; row++) values[row * cols + i] = 0;
      }
    if (m->bad_name != NULL && strstr(tensor->name, m->bad_name) != NULL)
      values[count / 2] = gptvq_float_to_bf16(m->bad);
    ok(gptvq_st_writer_write(writer, values, count * sizeof *values, err));
    free(values);
  }
  ok(gptvq_st_writer_commit(writer, err));
  free(path);
  char config[2048], window[24] = "null";
  if (m->window > 0) (void)snprintf(window, sizeof window, "%d", m->window);
  (void)snprintf(
      config, sizeof config,
      "{\"architectures\": [\"%s\"], \"hidden_size\": %d, \"intermediate_size\": %d, \"num_hidden_layers\": "
      "%zu,"
      " \"num_attention_heads\": %d, \"num_key_value_heads\": %d, \"head_dim\": %d, \"vocab_size\": %d,"
      " \"max_position_embeddings\": 128, \"rms_norm_eps\": 1e-5, \"hidden_act\": \"silu\","
      " \"tie_word_embeddings\": %s, \"rope_theta\": 10000.0, \"bos_token_id\": 0, \"eos_token_id\": 1,"
      " \"num_local_experts\": %d, \"num_experts_per_tok\": 2, \"sliding_window\": %s, \"dtype\": "
      "\"bfloat16\"%s%s}\n",
      m->architecture, TINY_HIDDEN, TINY_MLP, m->layers, TINY_HEADS, m->deepseek ? TINY_HEADS : TINY_KV,
      TINY_HEAD, TINY_VOCAB, m->tied ? "true" : "false", TINY_EXPERTS, window, m->keys != NULL ? ", " : "",
      m->keys != NULL ? m->keys : "");
  tiny_write_text(folder, "config.json", config);
  tiny_write_tokenizer(folder);
  tiny_write_text(folder, "generation_config.json", "{\"bos_token_id\": 0, \"eos_token_id\": 1}\n");
}

/* Regular files in a folder; 0 when it does not exist. */
static inline size_t file_count(const char *folder) {
  DIR *dir = opendir(folder);
  size_t count = 0;
  if (dir == NULL) return 0;
  for (struct dirent *entry; (entry = readdir(dir)) != NULL;) count += entry->d_name[0] != '.';
  closedir(dir);
  return count;
}

static inline void assert_same_file(const char *a, const char *b) {
  gptvq_mapping x, y;
  ok(gptvq_map_file(a, &x, err));
  ok(gptvq_map_file(b, &y, err));
  if (x.size != y.size || (x.size > 0 && memcmp(x.data, y.data, x.size) != 0))
    fail_msg("%s and %s differ", a, b);
  gptvq_unmap_file(&x);
  gptvq_unmap_file(&y);
}

/* The same file names with the same bytes, but for the model card, which names the original's folder. */
static inline void assert_same_folder(const char *a, const char *b) {
  assert_true(file_count(a) > 0);
  assert_int_equal(file_count(a), file_count(b));
  DIR *dir = opendir(a);
  assert_non_null(dir);
  for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
    if (entry->d_name[0] == '.' || strcmp(entry->d_name, "README.md") == 0 ||
        strcmp(entry->d_name, "gptvq.json") == 0) /* names of folders; times */
      continue;
    char *x = gptvq_join_path(a, entry->d_name), *y = gptvq_join_path(b, entry->d_name);
    assert_same_file(x, y);
    free(x);
    free(y);
  }
  closedir(dir);
}

/* A fresh folder, entered; everything a test program writes lies in it. Set-up and tear-down of a group of
 * tests. */
static char tiny_scratch[] = "gptvq-test-XXXXXX";
static inline int tiny_enter_scratch(void) {
  return mkdtemp(tiny_scratch) == NULL || chdir(tiny_scratch) != 0 ? -1 : 0;
}
static inline int tiny_drop_scratch(void **state) {
  (void)state;
  gptvq_set_threads(0);
  return chdir("..") != 0 || gptvq_remove_tree(tiny_scratch, NULL) != GPTVQ_OK;
}

/* A quick run on corpus.txt; uniform methods with 4 bits, the others with 6 for two weights. */
static inline gptvq_quantize_options tiny_quantize_options(gptvq_method method) {
  gptvq_quantize_options o;
  gptvq_quantize_options_init(&o);
  bool uniform = method == GPTVQ_METHOD_GPTQ || method == GPTVQ_METHOD_RTN;
  o.method = method;
  o.bits = 0;
  o.dim = uniform ? 1 : 2;
  o.index_bits = uniform ? 4 : 6;
  o.group_size = uniform ? 32 : 1024;
  o.em_iterations = 10;
  o.reassign_rounds = 1;
  o.calib = "corpus.txt";
  o.calib_self = 0.0;
  o.judge_tokens = 0;
  o.calib_samples = 6;
  o.calib_length = 48;
  o.seed = 3;
  return o;
}

/* logits[count × vocabulary] of a folder */
static inline void folder_logits(const char *folder, const int32_t *ids, size_t count, float *logits) {
  gptvq_model *model;
  gptvq_session *session;
  ok(gptvq_model_open(
      folder, &(gptvq_model_options){.size = sizeof(gptvq_model_options), .compute = GPTVQ_COMPUTE_FP32},
      &model, err));
  ok(gptvq_session_create(model, count, &session, err));
  ok(gptvq_session_forward(session, ids, count, logits, 1, err));
  gptvq_session_destroy(session);
  gptvq_model_close(model);
}

/* ‖a − b‖ / ‖b‖ over the logits of 40 fixed tokens of two tiny folders; NaN when one of them is not finite */
static inline double tiny_logit_distance(const char *a, const char *b) {
  enum { TOKENS = 40 };
  static float x[TOKENS * TINY_VOCAB], y[TOKENS * TINY_VOCAB];
  int32_t ids[TOKENS];
  uint64_t state = 9;
  for (size_t i = 0; i < TOKENS; i++) ids[i] = (int32_t)gptvq_random_below(&state, TINY_VOCAB);
  folder_logits(a, ids, TOKENS, x);
  folder_logits(b, ids, TOKENS, y);
  double difference = 0, norm = 0;
  for (size_t i = 0; i < TOKENS * TINY_VOCAB; i++) {
    difference += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
    norm += (double)y[i] * (double)y[i];
  }
  return sqrt(difference / norm);
}

#endif
