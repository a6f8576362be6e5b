/* model/arch/config: config.json of the families, old and new spellings, and values that make no sense. */
#include "model/arch/config.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

/* One quote character in these texts stands for a double quote, so that they can be read. */
static json_t *parse_text(const char *text) {
  char json[4096];
  size_t n = strlen(text);
  assert_true(n < sizeof json);
  for (size_t i = 0; i <= n; i++) json[i] = text[i] == '\'' ? '"' : text[i];
  json_error_t where;
  json_t *value = json_loads(json, 0, &where);
  if (value == NULL) fail_msg("%s: %s", where.text, json);
  return value;
}

/* base with the keys of `changes` put over it; a key with the value 'absent' is removed */
static gptvq_status parse(const char *base, const char *changes, const char *generation, gptvq_config *out,
                          gptvq_error *err) {
  json_t *config = parse_text(base), *over = parse_text(changes), *value;
  const char *key;
  json_object_foreach(over, key, value) {
    const char *text = json_string_value(value);
    if (text != NULL && strcmp(text, "absent") == 0) json_object_del(config, key);
    else json_object_set(config, key, value);
  }
  json_t *second = generation != NULL ? parse_text(generation) : NULL;
  gptvq_status status = gptvq_config_parse("some/model", config, second, out, err);
  json_decref(second);
  json_decref(over);
  json_decref(config);
  return status;
}

static gptvq_config accept(const char *base, const char *changes, const char *generation) {
  gptvq_error err;
  gptvq_config config;
  if (parse(base, changes, generation, &config, &err) != GPTVQ_OK) fail_msg("%s: %s", changes, err.message);
  return config;
}

static const char llama[] =
    "{'architectures': ['LlamaForCausalLM'], 'hidden_size': 64, 'intermediate_size': 96,"
    "'num_hidden_layers': 3, 'num_attention_heads': 8, 'vocab_size': 100,"
    "'max_position_embeddings': 512, 'rms_norm_eps': 1e-5}";

static void defaults_of_llama(void **state) {
  (void)state;
  gptvq_config c = accept(llama, "{}", NULL);
  assert_string_equal(c.architecture, "LlamaForCausalLM");
  assert_int_equal(c.hidden, 64);
  assert_int_equal(c.intermediate, 96);
  assert_int_equal(c.layers, 3);
  assert_int_equal(c.heads, 8);
  assert_int_equal(c.kv_heads, 8);
  assert_int_equal(c.head_dim, 8);
  assert_int_equal(c.vocab, 100);
  assert_int_equal(c.max_positions, 512);
  assert_true(c.rms_norm_eps == 1e-5);
  assert_false(c.tie_embeddings || c.attention_bias || c.attention_out_bias || c.mlp_bias);
  assert_int_equal(c.sliding_window, 0);
  for (size_t i = 0; i < 3; i++) assert_false(c.layer_slides[i]);
  assert_int_equal(c.experts, 0);
  assert_string_equal(c.hidden_act, "silu");
  assert_int_equal(c.rope.type, GPTVQ_ROPE_DEFAULT);
  assert_true(c.rope.theta == 10000.0 && c.rope.partial_rotary_factor == 1.0);
  assert_int_equal(c.bos, -1);
  assert_int_equal(c.eos_count, 0);
  assert_string_equal(c.dtype, "");
  gptvq_config_release(&c);
  /* a first LLaMA's config: no context length, no kv heads, null where newer ones have values */
  c = accept(llama,
             "{'max_position_embeddings': 'absent', 'rms_norm_eps': 'absent', 'head_dim': null,"
             "'num_key_value_heads': null, 'rope_scaling': null, 'sliding_window': null, 'hidden_act': null}",
             NULL);
  assert_int_equal(c.max_positions, 2048);
  assert_true(c.rms_norm_eps == 1e-6);
  assert_int_equal(c.kv_heads, 8);
  gptvq_config_release(&c);
}

static void explicit_values(void **state) {
  (void)state;
  gptvq_config c = accept(llama,
                          "{'num_key_value_heads': 2, 'head_dim': 32, 'tie_word_embeddings': true,"
                          "'attention_bias': true, 'mlp_bias': true, 'torch_dtype': 'bfloat16',"
                          "'hidden_act': 'gelu', 'bos_token_id': 1, 'eos_token_id': 2}",
                          NULL);
  assert_int_equal(c.kv_heads, 2);
  assert_int_equal(c.head_dim, 32);
  assert_true(c.tie_embeddings && c.attention_bias && c.attention_out_bias && c.mlp_bias);
  assert_string_equal(c.dtype, "bfloat16");
  assert_string_equal(c.hidden_act, "gelu");
  assert_int_equal(c.bos, 1);
  assert_int_equal(c.eos_count, 1);
  assert_int_equal(c.eos[0], 2);
  gptvq_config_release(&c);
  c = accept(llama, "{'dtype': 'float16', 'eos_token_id': [7, 8, 9], 'bos_token_id': -1}", NULL);
  assert_string_equal(c.dtype, "float16");
  assert_int_equal(c.bos, -1);
  assert_int_equal(c.eos_count, 3);
  assert_int_equal(c.eos[2], 9);
  gptvq_config_release(&c);
  /* the generation config wins, where it says something */
  c = accept(llama, "{'eos_token_id': 2, 'bos_token_id': 1}", "{'eos_token_id': [5, 6]}");
  assert_int_equal(c.bos, 1);
  assert_int_equal(c.eos_count, 2);
  assert_int_equal(c.eos[0], 5);
  gptvq_config_release(&c);
  c = accept(llama, "{'eos_token_id': 2}", "{'eos_token_id': [11, 12, 13, 14, 15, 16, 17, 18, 19, -1, 20]}");
  assert_int_equal(c.eos_count, 10); /* any number; -1 is none */
  for (int i = 0; i < 10; i++) assert_int_equal(c.eos[i], 11 + i);
  gptvq_config_release(&c);
  c = accept(llama, "{'eos_token_id': 2}", "{'eos_token_id': null}");
  assert_int_equal(c.eos[0], 2);
  gptvq_config_release(&c);
}

static void rope_of_both_spellings(void **state) {
  (void)state;
  static const char *const spellings[] = {
      "{'rope_theta': 5e5, 'rope_scaling': {'rope_type': 'llama3', 'factor': 8.0, 'low_freq_factor': 1.0,"
      "'high_freq_factor': 4.0, 'original_max_position_embeddings': 128}}",
      "{'rope_parameters': {'rope_theta': 500000, 'rope_type': 'llama3', 'factor': 8, 'low_freq_factor': 1,"
      "'high_freq_factor': 4, 'original_max_position_embeddings': 128}}",
      /* rope_scaling takes the place of rope_parameters; rope_type wins over type, what is inside over what
         is beside */
      "{'rope_theta': 77.0, 'rope_parameters': {'rope_theta': 78.0, 'type': 'linear', 'factor': 2.0}, "
      "'rope_scaling': {'rope_theta': 5e5, 'type': 'default', 'rope_type': 'llama3', 'factor': 8.0, "
      "'low_freq_factor': 1.0, 'high_freq_factor': 4.0, 'original_max_position_embeddings': 128}}"};
  for (size_t i = 0; i < 3; i++) {
    gptvq_config c = accept(llama, spellings[i], NULL);
    assert_int_equal(c.rope.type, GPTVQ_ROPE_LLAMA3);
    assert_true(c.rope.theta == 5e5 && c.rope.factor == 8.0);
    assert_true(c.rope.low_freq_factor == 1.0 && c.rope.high_freq_factor == 4.0);
    assert_int_equal(c.rope.original_max_positions, 128);
    gptvq_config_release(&c);
  }
  gptvq_config c = accept(llama, "{'rope_scaling': {'type': 'linear', 'factor': 2.5}}", NULL);
  assert_int_equal(c.rope.type, GPTVQ_ROPE_LINEAR);
  assert_true(c.rope.factor == 2.5);
  gptvq_config_release(&c);
  c = accept(llama, "{'architectures': ['Phi3ForCausalLM'], 'partial_rotary_factor': 0.75}", NULL);
  assert_true(c.rope.partial_rotary_factor == 0.75);
  gptvq_config_release(&c);
  c = accept(llama, "{'rope_parameters': {'rope_theta': 1e6, 'partial_rotary_factor': 0.5}}", NULL);
  assert_true(c.rope.theta == 1e6 && c.rope.partial_rotary_factor == 1.0); /* Phi-3's alone */
  gptvq_config_release(&c);
  c = accept(llama,
             "{'architectures': ['Phi3ForCausalLM'], 'rope_parameters': {'rope_theta': 1e6, "
             "'partial_rotary_factor': 0.5}}",
             NULL);
  assert_true(c.rope.theta == 1e6 && c.rope.partial_rotary_factor == 0.5);
  assert_int_equal(c.rope.type, GPTVQ_ROPE_DEFAULT);
  gptvq_config_release(&c);
}

static void yarn_and_dynamic(void **state) {
  (void)state;
  gptvq_config c = accept(llama,
                          "{'rope_theta': 1e6, 'rope_scaling': {'type': 'yarn', 'factor': 4.0, "
                          "'original_max_position_embeddings': 128}}",
                          NULL);
  assert_int_equal(c.rope.type, GPTVQ_ROPE_YARN);
  assert_int_equal(c.rope.original_max_positions, 128);
  assert_true(c.rope.factor == 4.0 && c.rope.beta_fast == 32.0 && c.rope.beta_slow == 1.0 && c.rope.truncate);
  assert_true(fabs(c.rope.attention_factor - (0.1 * log(4.0) + 1.0)) < 1e-15);
  gptvq_config_release(&c);
  c = accept(
      llama,
      "{'rope_parameters': {'rope_type': 'yarn', 'factor': null, 'original_max_position_embeddings': "
      "128, 'beta_fast': 8, 'beta_slow': 0.5, 'truncate': false, 'mscale': 0.7, 'mscale_all_dim': 0.5}}",
      NULL);
  assert_true(c.rope.factor == 4.0 && c.rope.beta_fast == 8.0 && c.rope.beta_slow == 0.5 && !c.rope.truncate);
  assert_true(fabs(c.rope.attention_factor - (0.07 * log(4.0) + 1.0) / (0.05 * log(4.0) + 1.0)) < 1e-15);
  gptvq_config_release(&c);
  c = accept(llama, "{'rope_scaling': {'type': 'yarn', 'factor': 2, 'mscale': 1, 'attention_factor': 1.5}}",
             NULL);
  assert_int_equal(c.rope.original_max_positions, 512);
  assert_true(c.rope.attention_factor == 1.5);
  gptvq_config_release(&c);
  c = accept(llama, "{'rope_scaling': {'type': 'dynamic', 'factor': 2}}", NULL);
  assert_int_equal(c.rope.type, GPTVQ_ROPE_DYNAMIC);
  assert_true(c.rope.factor == 2.0 && c.rope.original_max_positions == 512);
  gptvq_config_release(&c);
}

static void longrope_of_phi3(void **state) {
  (void)state;
  static const char *const names[] = {"'type': 'longrope'", "'rope_type': 'longrope'", "'type': 'su'",
                                      "'type': 'yarn'"};
  for (size_t i = 0; i < 4; i++) {
    char changes[512];
    (void)snprintf(changes, sizeof changes,
                   "{'architectures': ['Phi3ForCausalLM'], 'original_max_position_embeddings': 256, "
                   "'sliding_window': 100,"
                   "'rope_scaling': {%s, 'short_factor': [1, 1.5, 2.0], 'long_factor': [4, 5, 6]}, "
                   "'partial_rotary_factor': 0.75}",
                   names[i]);
    gptvq_config c = accept(llama, changes, NULL);
    assert_int_equal(c.rope.type, GPTVQ_ROPE_LONGROPE);
    assert_int_equal(c.rope.original_max_positions, 256);
    assert_true(c.rope.factor == 2.0 && c.rope.attention_factor == 0.0);
    assert_true(c.rope.short_factor[1] == 1.5 && c.rope.long_factor[2] == 6.0);
    assert_int_equal(c.sliding_window, 100);
    assert_true(c.layer_slides[0] && c.layer_slides[2]);
    gptvq_config_release(&c);
  }
  gptvq_config c =
      accept(llama,
             "{'rope_parameters': {'rope_type': 'longrope', 'original_max_position_embeddings': 64,"
             "'attention_factor': 1.25, 'short_factor': [1,1,1,1], 'long_factor': [1,2,3,4]}}",
             NULL);
  assert_int_equal(c.rope.original_max_positions, 64);
  assert_true(c.rope.attention_factor == 1.25);
  gptvq_config_release(&c);
}

static void sliding_windows(void **state) {
  (void)state;
  gptvq_config c = accept(llama, "{'architectures': ['MistralForCausalLM'], 'sliding_window': 128}", NULL);
  assert_int_equal(c.sliding_window, 128);
  for (size_t i = 0; i < 3; i++) assert_true(c.layer_slides[i]);
  gptvq_config_release(&c);
  c = accept(llama, "{'architectures': ['MistralForCausalLM'], 'sliding_window': null}", NULL);
  assert_int_equal(c.sliding_window, 0);
  gptvq_config_release(&c);
  c = accept(llama, "{'architectures': ['MistralForCausalLM']}", NULL); /* what the architecture assumes */
  assert_int_equal(c.sliding_window, 4096);
  gptvq_config_release(&c);

  static const char *const off[] = {
      "{'architectures': ['Qwen2ForCausalLM'], 'sliding_window': 128}",
      "{'architectures': ['Qwen2ForCausalLM'], 'sliding_window': 128, 'use_sliding_window': false, "
      "'max_window_layers': 0}",
      "{'architectures': ['Qwen2ForCausalLM'], 'sliding_window': 128, 'use_sliding_window': true}", /* from
                                                                                                       layer
                                                                                                       28 on
                                                                                                     */
      "{'architectures': ['Qwen3ForCausalLM'], 'sliding_window': null, 'use_sliding_window': true, "
      "'max_window_layers': 0}",
      "{'architectures': ['Qwen2ForCausalLM'], 'sliding_window': 128, 'use_sliding_window': true,"
      "'layer_types': ['full_attention', 'full_attention', 'full_attention']}"};
  for (size_t i = 0; i < sizeof off / sizeof off[0]; i++) {
    c = accept(llama, off[i], NULL);
    assert_int_equal(c.sliding_window, 0);
    for (size_t j = 0; j < 3; j++) assert_false(c.layer_slides[j]);
    gptvq_config_release(&c);
  }
  static const char *const last_two[] = {
      "{'architectures': ['Qwen2ForCausalLM'], 'sliding_window': 128, 'use_sliding_window': true, "
      "'max_window_layers': 1}",
      "{'architectures': ['Qwen3ForCausalLM'], 'sliding_window': 128, 'use_sliding_window': true,"
      "'layer_types': ['full_attention', 'sliding_attention', 'sliding_attention'], 'max_window_layers': "
      "28}"};
  for (size_t i = 0; i < 2; i++) {
    c = accept(llama, last_two[i], NULL);
    assert_int_equal(c.sliding_window, 128);
    assert_false(c.layer_slides[0]);
    assert_true(c.layer_slides[1] && c.layer_slides[2]);
    gptvq_config_release(&c);
  }
}

/* use_sliding_window and max_window_layers are keys of Qwen alone; layer_types of Qwen and Mistral. */
static void keys_of_other_families(void **state) {
  (void)state;
  static const char *const names[] = {"Mistral", "Mixtral", "Phi3", "Llama"};
  for (size_t i = 0; i < 4; i++) {
    char changes[512];
    (void)snprintf(changes, sizeof changes,
                   "{'architectures': ['%sForCausalLM'], 'sliding_window': 16, 'use_sliding_window': false, "
                   "'max_window_layers': 2%s}",
                   names[i], i > 0 ? ", 'layer_types': ['linear_attention']" : "");
    gptvq_config c = accept(llama, changes, NULL);
    assert_int_equal(c.sliding_window, 16); /* the model of a Llama has no use for it */
    for (size_t j = 0; j < 3; j++) assert_true(c.layer_slides[j]);
    gptvq_config_release(&c);
  }
  gptvq_config c = accept(llama,
                          "{'architectures': ['MistralForCausalLM'], 'sliding_window': 16, 'layer_types': "
                          "['full_attention', 'sliding_attention', 'full_attention']}",
                          NULL);
  assert_int_equal(c.sliding_window, 16);
  assert_true(!c.layer_slides[0] && c.layer_slides[1] && !c.layer_slides[2]);
  gptvq_config_release(&c);
}

static void families(void **state) {
  (void)state;
  gptvq_config c =
      accept(llama,
             "{'architectures': ['MixtralForCausalLM'], 'num_local_experts': 4, 'num_experts_per_tok': 3,"
             "'rms_norm_eps': 'absent'}",
             NULL);
  assert_int_equal(c.experts, 4);
  assert_int_equal(c.experts_per_token, 3);
  assert_true(c.rms_norm_eps == 1e-5 && c.rope.theta == 1e6);
  gptvq_config_release(&c);
  c = accept(llama, "{'architectures': ['MixtralForCausalLM']}", NULL);
  assert_int_equal(c.experts, 8);
  assert_int_equal(c.experts_per_token, 2);
  gptvq_config_release(&c);
  c = accept(llama, "{'architectures': ['Qwen3ForCausalLM']}", NULL);
  assert_int_equal(c.head_dim, 128);
  gptvq_config_release(&c);
  c = accept(llama, "{'architectures': ['Qwen2ForCausalLM']}", NULL);
  assert_int_equal(c.head_dim, 8);
  gptvq_config_release(&c);
}

static void keys_of_gemma2(void **state) {
  (void)state;
  gptvq_config c = accept(
      llama, "{'architectures': ['Gemma2ForCausalLM'], 'hidden_act': 'relu', 'rms_norm_eps': 'absent'}",
      NULL);
  assert_string_equal(c.hidden_act, "gelu_pytorch_tanh");
  assert_true(c.tie_embeddings && c.head_dim == 256 && c.rms_norm_eps == 1e-6 && c.rope.theta == 1e4);
  assert_true(c.query_scalar == 256.0 && c.attention_cap == 50.0 && c.logit_cap == 30.0);
  assert_true(c.embedding_scale == 8.0 && c.sliding_window == 4096);
  assert_true(c.layer_slides[0] && !c.layer_slides[1] && c.layer_slides[2]);
  gptvq_config_release(&c);
  c = accept(
      llama,
      "{'architectures': ['Gemma2ForCausalLM'], 'hidden_activation': 'silu', 'tie_word_embeddings': false,"
      "'attn_logit_softcapping': null, 'final_logit_softcapping': 12, 'query_pre_attn_scalar': 144,"
      "'layer_types': ['full_attention', 'sliding_attention', 'sliding_attention']}",
      NULL);
  assert_string_equal(c.hidden_act, "silu");
  assert_true(!c.tie_embeddings && c.query_scalar == 144.0 && c.attention_cap == 0.0 && c.logit_cap == 12.0);
  assert_true(!c.layer_slides[0] && c.layer_slides[1] && c.layer_slides[2]);
  gptvq_config_release(&c);
}

static void keys_of_granite(void **state) {
  (void)state;
  gptvq_config c = accept(llama, "{'architectures': ['GraniteForCausalLM']}", NULL);
  assert_true(c.query_scalar == 1.0 && c.embedding_scale == 1.0 && c.residual_scale == 1.0 &&
              c.logit_scale == 1.0);
  gptvq_config_release(&c);
  c = accept(llama,
             "{'architectures': ['GraniteForCausalLM'], 'attention_multiplier': 0.015625, "
             "'embedding_multiplier': 12, 'residual_multiplier': 0.22, 'logits_scaling': 8}",
             NULL);
  assert_true(c.query_scalar == 4096.0 && c.embedding_scale == 12.0 && c.residual_scale == 0.22 &&
              c.logit_scale == 0.125);
  gptvq_config_release(&c);
  c = accept(llama,
             "{'architectures': ['GraniteMoeHybridForCausalLM'], 'shared_intermediate_size': 80, "
             "'num_local_experts': 0, 'num_experts_per_tok': 0, 'position_embedding_type': 'rope', "
             "'layer_types': ['attention', 'full_attention', 'attention'], 'mamba_d_conv': 4}",
             NULL);
  assert_int_equal(c.intermediate, 80);
  gptvq_config_release(&c);
}

static void keys_of_seed_glm_and_ministral(void **state) {
  (void)state;
  gptvq_config c = accept(llama, "{'architectures': ['SeedOssForCausalLM']}", NULL);
  assert_true(c.attention_bias && !c.attention_out_bias && !c.mlp_bias && c.head_dim == 128);
  gptvq_config_release(&c);
  c = accept(llama,
             "{'architectures': ['SeedOssForCausalLM'], 'attention_bias': false, 'attention_out_bias': true}",
             NULL);
  assert_true(!c.attention_bias && c.attention_out_bias);
  gptvq_config_release(&c);
  c = accept(llama, "{'architectures': ['Glm4ForCausalLM'], 'head_dim': 16, 'rms_norm_eps': 'absent'}", NULL);
  assert_true(c.attention_bias && c.rope.partial_rotary_factor == 0.5 && c.rms_norm_eps == 1.5625e-7);
  gptvq_config_release(&c);
  c = accept(llama,
             "{'architectures': ['Ministral3ForCausalLM'], 'rope_parameters': {'type': 'yarn', 'factor': 16, "
             "'original_max_position_embeddings': 32, 'max_position_embeddings': 512, "
             "'llama_4_scaling_beta': 0.1}}",
             NULL);
  assert_true(c.rope.query_growth == 0.1 && c.rope.original_max_positions == 32);
  gptvq_config_release(&c);
}

static void keys_of_gemma3(void **state) {
  (void)state;
  /* Google's text_config of a model that sees leaves out heads, their size and the vocabulary */
  gptvq_config c = accept(
      llama,
      "{'architectures': ['Gemma3ForCausalLM'], 'num_attention_heads': 'absent', 'vocab_size': 'absent',"
      "'hidden_size': 2560, 'sliding_window': 1024, 'num_hidden_layers': 34, 'rms_norm_eps': 'absent',"
      "'max_position_embeddings': 'absent', 'rope_scaling': {'factor': 8.0, 'rope_type': 'linear'}}",
      NULL);
  assert_true(c.heads == 8 && c.kv_heads == 4 && c.head_dim == 256 && c.vocab == 262208);
  assert_true(c.max_positions == 131072 && c.tie_embeddings && c.query_scalar == 256.0 && c.logit_cap == 0.0);
  assert_true(c.rope.type == GPTVQ_ROPE_LINEAR && c.rope.factor == 8.0 && c.rope.theta == 1e6);
  assert_true(c.local_rope.type == GPTVQ_ROPE_DEFAULT && c.local_rope.theta == 1e4);
  for (size_t i = 0; i < 34; i++) {
    assert_int_equal(c.layer_slides[i], i % 6 != 5);
    assert_int_equal(c.layer_rope[i], i % 6 != 5 ? GPTVQ_USE_LOCAL_ROPE : GPTVQ_USE_ROPE);
  }
  gptvq_config_release(&c);
  /* the newer form: parameters by kind of layer */
  c = accept(llama,
             "{'architectures': ['Gemma3ForCausalLM'], 'layer_types': ['full_attention', 'full_attention', "
             "'sliding_attention'], 'sliding_window': 16, 'rope_theta': 7.0, 'rope_local_base_freq': 8.0,"
             "'rope_parameters': {'full_attention': {'rope_type': 'linear', 'factor': 4, 'rope_theta': 500},"
             "'sliding_attention': {'rope_type': 'default'}}}",
             NULL);
  assert_true(c.rope.type == GPTVQ_ROPE_LINEAR && c.rope.factor == 4.0 && c.rope.theta == 500.0);
  assert_true(c.local_rope.type == GPTVQ_ROPE_DEFAULT && c.local_rope.theta == 8.0);
  assert_true(c.layer_rope[1] == GPTVQ_USE_ROPE && c.layer_rope[2] == GPTVQ_USE_LOCAL_ROPE);
  gptvq_config_release(&c);
}

/* Layers that are not rotated, or not stretched. */
static void ropes_of_layers(void **state) {
  (void)state;
  static const struct {
    const char *changes;
    gptvq_rope_use use[3];
    bool slides[3];
  } cases[] = {
      {"{'architectures': ['SmolLM3ForCausalLM'], 'no_rope_layer_interval': 2}",
       {GPTVQ_USE_ROPE, GPTVQ_USE_NO_ROPE, GPTVQ_USE_ROPE},
       {false}},
      {"{'architectures': ['SmolLM3ForCausalLM'], 'no_rope_layers': [0, 1, 1], 'sliding_window': 8, "
       "'use_sliding_window': true}",
       {GPTVQ_USE_NO_ROPE, GPTVQ_USE_ROPE, GPTVQ_USE_ROPE},
       {true, false, false}},
      {"{'architectures': ['Exaone4ForCausalLM'], 'sliding_window_pattern': 2}",
       {GPTVQ_USE_ROPE, GPTVQ_USE_NO_ROPE, GPTVQ_USE_ROPE},
       {true, false, true}},
      {"{'architectures': ['Exaone4ForCausalLM'], 'sliding_window': null, 'sliding_window_pattern': null}",
       {GPTVQ_USE_ROPE, GPTVQ_USE_ROPE, GPTVQ_USE_ROPE},
       {false}},
      /* a window of no layer is a window all the same */
      {"{'architectures': ['Exaone4ForCausalLM'], 'sliding_window': 8, 'sliding_window_pattern': 'LLLG',"
       "'layer_types': ['full_attention', 'full_attention', 'full_attention']}",
       {GPTVQ_USE_NO_ROPE, GPTVQ_USE_NO_ROPE, GPTVQ_USE_NO_ROPE},
       {false}},
      {"{'architectures': ['Olmo3ForCausalLM'], 'layer_types': ['sliding_attention', 'full_attention', "
       "'full_attention'], 'rope_scaling': {'rope_type': 'yarn', 'factor': 8}}",
       {GPTVQ_USE_LOCAL_ROPE, GPTVQ_USE_ROPE, GPTVQ_USE_ROPE},
       {true, false, false}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    gptvq_config c = accept(llama, cases[i].changes, NULL);
    for (size_t l = 0; l < 3; l++)
      if (c.layer_rope[l] != cases[i].use[l] || c.layer_slides[l] != cases[i].slides[l])
        fail_msg("%s: layer %zu: rope %d, window %d", cases[i].changes, l, (int)c.layer_rope[l],
                 (int)c.layer_slides[l]);
    gptvq_config_release(&c);
  }
  gptvq_config c = accept(llama,
                          "{'architectures': ['Olmo3ForCausalLM'], 'rope_theta': 300.0, 'rope_scaling': "
                          "{'rope_type': 'yarn', 'factor': 8, 'attention_factor': 1.2}}",
                          NULL);
  assert_true(c.rope.type == GPTVQ_ROPE_YARN && c.rope.theta == 300.0 && c.rope.attention_factor == 1.2);
  assert_true(c.local_rope.type == GPTVQ_ROPE_DEFAULT && c.local_rope.theta == 300.0);
  assert_true(c.sliding_window == 4096 && c.layer_slides[2]);
  gptvq_config_release(&c);
}

static void harmless_keys(void **state) {
  (void)state;
  /* a hub's config, with keys of training, generation and tools */
  gptvq_config c = accept(llama,
                          "{'_name_or_path': '/x', 'transformers_version': '4.31.0', 'use_cache': true, "
                          "'pad_token_id': 0, 'initializer_range': 0.02, 'pretraining_tp': 1, "
                          "'attention_dropout': 0.1, 'is_llama_config': true, 'rope_interleaved': false, "
                          "'transformers.js_config': {'dtype': 'q4'}, 'pruned_heads': {}, "
                          "'unsloth_fixed': true, 'max_length': 20, 'attn_scale_nobody_knows': null}",
                          NULL);
  assert_int_equal(c.layers, 3);
  gptvq_config_release(&c);
}

static void keys_of_qwen3_5(void **state) {
  (void)state;
  static const char base[] =
      "{'architectures': ['Qwen3_5ForCausalLM'], 'model_type': 'qwen3_5_text', 'hidden_size': 64,"
      "'intermediate_size': 96, 'num_hidden_layers': 5, 'num_attention_heads': 8, 'vocab_size': 100}";
  gptvq_config c = accept(base, "{}", NULL);
  const gptvq_delta_sizes *d = &c.delta;
  assert_true(c.head_dim == 256 && c.rms_norm_eps == 1e-6 && c.rope.theta == 1e4 && !c.tie_embeddings);
  assert_true(c.rope.partial_rotary_factor == 0.25 && c.sliding_window == 0);
  assert_true(d->key_heads == 16 && d->value_heads == 32 && d->key_dim == 128 && d->value_dim == 128);
  assert_int_equal(d->kernel, 4);
  for (size_t i = 0; i < 5; i++) assert_int_equal(c.layer_is_delta[i], i != 3);
  gptvq_config_release(&c);
  c = accept(base,
             "{'layer_types': ['full_attention', 'linear_attention', 'linear_attention', 'full_attention',"
             "'linear_attention'], 'linear_num_key_heads': 2, 'linear_num_value_heads': 6,"
             "'linear_key_head_dim': 32, 'linear_value_head_dim': 48, 'linear_conv_kernel_dim': 3,"
             "'attn_output_gate': true, 'rope_parameters': {'mrope_interleaved': true, 'mrope_section': "
             "[11, 11, 10], 'rope_theta': 10000000, 'partial_rotary_factor': 0.5, 'rope_type': 'default'}}",
             NULL);
  d = &c.delta;
  for (size_t i = 0; i < 5; i++) assert_int_equal(c.layer_is_delta[i], i != 0 && i != 3);
  assert_true(d->key_heads == 2 && d->value_heads == 6 && d->key_dim == 32 && d->value_dim == 48);
  assert_true(d->kernel == 3 && c.rope.theta == 1e7 && c.rope.partial_rotary_factor == 0.5);
  gptvq_config_release(&c);
  c = accept(llama, "{}", NULL);
  assert_true(c.layer_is_delta == NULL);
  gptvq_config_release(&c);
  static const struct {
    const char *changes, *words;
    gptvq_status status;
  } cases[] = {
      {"{'attn_output_gate': false}", "attn_output_gate false", GPTVQ_ERROR_UNSUPPORTED},
      {"{'hidden_act': 'gelu_pytorch_tanh'}", "hidden_act gelu_pytorch_tanh", GPTVQ_ERROR_UNSUPPORTED},
      {"{'linear_num_value_heads': 24}", "not a multiple of linear_num_key_heads 16", GPTVQ_ERROR_FORMAT},
      {"{'linear_conv_kernel_dim': 17}", "linear_conv_kernel_dim", GPTVQ_ERROR_FORMAT},
      {"{'linear_key_head_dim': 513}", "linear_key_head_dim", GPTVQ_ERROR_FORMAT},
      {"{'layer_types': ['linear_attention']}", "= 5", GPTVQ_ERROR_FORMAT},
      {"{'layer_types': ['full_attention', 'linear_attention', 'linear_attention', 'sliding_attention',"
       "'linear_attention']}",
       "layer_types[3] is sliding_attention", GPTVQ_ERROR_UNSUPPORTED},
      {"{'rope_parameters': {'rope_type': 'mrope'}}", "rope type mrope", GPTVQ_ERROR_UNSUPPORTED},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    gptvq_error err;
    assert_int_equal(parse(base, cases[i].changes, NULL, &c, &err), cases[i].status);
    if (strstr(err.message, cases[i].words) == NULL) fail_msg("%s: %s", cases[i].changes, err.message);
  }
}

static void keys_of_qwen3_5_moe(void **state) {
  (void)state;
  static const char base[] =
      "{'architectures': ['Qwen3_5MoeForCausalLM'], 'model_type': 'qwen3_5_moe_text', 'hidden_size': 64,"
      "'moe_intermediate_size': 24, 'num_hidden_layers': 5, 'num_attention_heads': 8, 'vocab_size': 100}";
  gptvq_config c = accept(base, "{}", NULL);
  assert_true(c.experts == 256 && c.experts_per_token == 8 && c.expert_intermediate == 24);
  assert_true(c.shared_intermediate == 512 && !c.router.keeps_sum && c.head_dim == 256);
  for (size_t i = 0; i < 5; i++) assert_true(c.layer_is_delta[i] == (i != 3) && !c.layer_dense[i]);
  gptvq_config_release(&c);
  c = accept(base,
             "{'num_experts': 6, 'num_experts_per_tok': 3, 'shared_expert_intermediate_size': 40,"
             "'mlp_only_layers': [1], 'attn_output_gate': true}",
             NULL);
  assert_true(c.experts == 6 && c.experts_per_token == 3 && c.shared_intermediate == 40 && !c.layer_dense[1]);
  gptvq_config_release(&c);
  gptvq_error err;
  assert_int_equal(parse(base, "{'norm_topk_prob': false}", NULL, &c, &err), GPTVQ_ERROR_UNSUPPORTED);
  assert_non_null(strstr(err.message, "norm_topk_prob"));
  assert_int_equal(parse(base, "{'moe_intermediate_size': null}", NULL, &c, &err), GPTVQ_ERROR_FORMAT);
  assert_non_null(strstr(err.message, "moe_intermediate_size"));
  assert_int_equal(parse(base, "{'attn_output_gate': false}", NULL, &c, &err), GPTVQ_ERROR_UNSUPPORTED);
}

static void keys_of_qwen3_next(void **state) {
  (void)state;
  static const char base[] =
      "{'architectures': ['Qwen3NextForCausalLM'], 'model_type': 'qwen3_next', 'hidden_size': 64,"
      "'intermediate_size': 96, 'moe_intermediate_size': 24, 'num_hidden_layers': 5,"
      "'num_attention_heads': 8, 'vocab_size': 100}";
  gptvq_config c = accept(base, "{}", NULL);
  assert_true(c.experts == 512 && c.experts_per_token == 10 && c.expert_intermediate == 24);
  assert_true(c.shared_intermediate == 512 && !c.router.keeps_sum && c.head_dim == 256);
  assert_true(c.intermediate == 96 && c.rope.partial_rotary_factor == 0.25 && c.delta.value_heads == 32);
  for (size_t i = 0; i < 5; i++) assert_true(c.layer_is_delta[i] == (i != 3) && !c.layer_dense[i]);
  gptvq_config_release(&c);
  c = accept(base,
             "{'norm_topk_prob': false, 'mlp_only_layers': [4], 'decoder_sparse_step': 2,"
             "'shared_expert_intermediate_size': 40, 'partial_rotary_factor': 0.5, 'rope_scaling': null,"
             "'full_attention_interval': 2}",
             NULL);
  assert_true(c.router.keeps_sum && c.shared_intermediate == 40 && c.rope.partial_rotary_factor == 0.5);
  for (size_t i = 0; i < 5; i++)
    assert_true(c.layer_is_delta[i] == (i % 2 == 0) && c.layer_dense[i] == (i % 2 == 0));
  gptvq_config_release(&c);
  gptvq_error err;
  assert_int_equal(parse(base, "{'hidden_act': 'gelu_pytorch_tanh'}", NULL, &c, &err),
                   GPTVQ_ERROR_UNSUPPORTED);
}

static void keys_of_mixtures(void **state) {
  (void)state;
  gptvq_config c =
      accept(llama, "{'architectures': ['Qwen3MoeForCausalLM'], 'moe_intermediate_size': 24}", NULL);
  assert_true(c.experts == 128 && c.experts_per_token == 8 && c.expert_intermediate == 24 &&
              c.intermediate == 96);
  assert_true(c.router.keeps_sum && c.shared_intermediate == 0 && c.sliding_window == 0);
  for (size_t i = 0; i < 3; i++) assert_false(c.layer_dense[i]);
  gptvq_config_release(&c);
  c = accept(llama,
             "{'architectures': ['Qwen3MoeForCausalLM'], 'moe_intermediate_size': 24, 'num_experts': 6,"
             "'num_experts_per_tok': 3, 'norm_topk_prob': true, 'decoder_sparse_step': 2,"
             "'mlp_only_layers': [1, 7], 'sliding_window': 9, 'use_sliding_window': false}",
             NULL);
  assert_true(c.experts == 6 && c.experts_per_token == 3 && !c.router.keeps_sum);
  assert_true(c.layer_dense[0] && c.layer_dense[1] && c.layer_dense[2]);
  gptvq_config_release(&c);
  c = accept(llama,
             "{'architectures': ['Qwen2MoeForCausalLM'], 'moe_intermediate_size': 24, 'num_local_experts': 6,"
             "'shared_expert_intermediate_size': 40}",
             NULL);
  assert_true(c.experts == 6 && c.experts_per_token == 4 && c.shared_intermediate == 40 && c.attention_bias);
  gptvq_config_release(&c);
  c = accept(llama, "{'architectures': ['OlmoeForCausalLM'], 'norm_topk_prob': false, 'clip_qkv': null}",
             NULL);
  assert_true(c.experts == 64 && c.expert_intermediate == 96 && c.router.keeps_sum && c.kv_heads == 8);
  gptvq_config_release(&c);
  c = accept(llama,
             "{'architectures': ['GptOssForCausalLM'], 'swiglu_limit': 7.0, 'num_local_experts': 8,"
             "'rope_scaling': {'rope_type': 'yarn', 'factor': 32.0, 'truncate': false,"
             "'original_max_position_embeddings': 4096}}",
             NULL);
  assert_true(c.experts == 8 && c.experts_per_token == 4 && c.head_dim == 64 && c.attention_out_bias);
  assert_true(c.layer_slides[0] && !c.layer_slides[1] && c.layer_slides[2] && c.sliding_window == 128);
  gptvq_config_release(&c);
  c = accept(llama,
             "{'architectures': ['DeepseekV2ForCausalLM'], 'q_lora_rank': null, 'moe_intermediate_size': 24,"
             "'num_experts_per_tok': 6, 'first_k_dense_replace': 1, 'topk_method': 'greedy', 'n_group': 1,"
             "'moe_layer_freq': 1, 'rope_scaling': {'type': 'yarn', 'factor': 40, 'mscale': 0.707,"
             "'mscale_all_dim': 0.707, 'original_max_position_embeddings': 4096}}",
             NULL);
  assert_true(c.latent.q_rank == 0 && c.latent.kv_rank == 512 && c.head_dim == 192 && c.latent.values == 128);
  assert_true(c.experts == 64 && c.shared_intermediate == 48 && c.layer_dense[0] && !c.layer_dense[1]);
  assert_true(c.router.keeps_sum && !c.router.sigmoid && c.router.groups == 1 && !c.latent.halves);
  /* (0.1 · 0.707 · ln 40 + 1)⁴ = 2.52691 */
  assert_true(fabs(c.query_scalar - 192.0 / 2.52691) < 1e-2);
  gptvq_config_release(&c);
  c = accept(llama,
             "{'architectures': ['DeepseekV3ForCausalLM'], 'moe_intermediate_size': 24, 'topk_group': 4,"
             "'num_experts_per_tok': 8, 'n_routed_experts': 256, 'scoring_func': 'sigmoid',"
             "'topk_method': 'noaux_tc', 'num_nextn_predict_layers': 1, 'routed_scaling_factor': 2.5}",
             NULL);
  assert_true(c.latent.q_rank == 1536 && c.router.sigmoid && !c.router.keeps_sum && c.router.scale == 2.5);
  assert_true(c.router.groups == 8 && c.router.used_groups == 4 && c.further_layers == 1);
  gptvq_config_release(&c);
  c = accept(llama, "{'architectures': ['MixtralForCausalLM']}", NULL);
  assert_true(!c.router.keeps_sum && c.expert_intermediate == 96);
  gptvq_config_release(&c);
}

static void nonsense_is_refused(void **state) {
  (void)state;
  static const struct {
    const char *changes;
    gptvq_status status;
    const char *words[2];
  } cases[] = {
      {"{'architectures': 'absent'}", GPTVQ_ERROR_FORMAT, {"architectures"}},
      {"{'architectures': []}", GPTVQ_ERROR_FORMAT, {"architectures"}},
      {"{'architectures': 'Llama'}", GPTVQ_ERROR_FORMAT, {"architectures"}},
      {"{'architectures': ['an architecture whose name is far too long to be one of those that exist']}",
       GPTVQ_ERROR_FORMAT,
       {"architectures"}},
      {"{'hidden_size': 'absent'}", GPTVQ_ERROR_FORMAT, {"hidden_size is missing"}},
      {"{'hidden_size': null}", GPTVQ_ERROR_FORMAT, {"hidden_size is missing"}},
      {"{'hidden_size': 'wide'}", GPTVQ_ERROR_FORMAT, {"hidden_size is not a whole number"}},
      {"{'hidden_size': 64.0}", GPTVQ_ERROR_FORMAT, {"hidden_size is not a whole number"}},
      {"{'hidden_size': 0}", GPTVQ_ERROR_FORMAT, {"hidden_size is 0"}},
      {"{'hidden_size': -64}", GPTVQ_ERROR_FORMAT, {"hidden_size is -64"}},
      {"{'hidden_size': 9223372036854775807}", GPTVQ_ERROR_FORMAT, {"hidden_size is 9223372036854775807"}},
      {"{'intermediate_size': 0}", GPTVQ_ERROR_FORMAT, {"intermediate_size"}},
      {"{'num_hidden_layers': 0}", GPTVQ_ERROR_FORMAT, {"num_hidden_layers is 0"}},
      {"{'num_hidden_layers': 1000000000}", GPTVQ_ERROR_FORMAT, {"num_hidden_layers"}},
      {"{'num_attention_heads': 0}", GPTVQ_ERROR_FORMAT, {"num_attention_heads"}},
      {"{'num_attention_heads': 7}", GPTVQ_ERROR_FORMAT, {"not a multiple of num_attention_heads 7"}},
      {"{'num_key_value_heads': 3}", GPTVQ_ERROR_FORMAT, {"num_key_value_heads 3"}},
      {"{'num_key_value_heads': 16}", GPTVQ_ERROR_FORMAT, {"num_key_value_heads 16"}},
      {"{'num_key_value_heads': 0}", GPTVQ_ERROR_FORMAT, {"num_key_value_heads"}},
      {"{'head_dim': 0}", GPTVQ_ERROR_FORMAT, {"head_dim"}},
      {"{'head_dim': 7}", GPTVQ_ERROR_FORMAT, {"7 dimensions"}},
      {"{'vocab_size': -1}", GPTVQ_ERROR_FORMAT, {"vocab_size"}},
      {"{'max_position_embeddings': 0}", GPTVQ_ERROR_FORMAT, {"max_position_embeddings"}},
      {"{'rms_norm_eps': 0}", GPTVQ_ERROR_FORMAT, {"rms_norm_eps"}},
      {"{'rms_norm_eps': -1e-5}", GPTVQ_ERROR_FORMAT, {"rms_norm_eps"}},
      {"{'rms_norm_eps': 10}", GPTVQ_ERROR_FORMAT, {"rms_norm_eps"}},
      {"{'rms_norm_eps': '1e-5'}", GPTVQ_ERROR_FORMAT, {"rms_norm_eps is not a number"}},
      {"{'tie_word_embeddings': 1}", GPTVQ_ERROR_FORMAT, {"tie_word_embeddings"}},
      {"{'hidden_act': 3}", GPTVQ_ERROR_FORMAT, {"hidden_act"}},
      {"{'sliding_window': -1}", GPTVQ_ERROR_FORMAT, {"sliding_window"}},
      {"{'architectures': ['Qwen3ForCausalLM'], 'layer_types': ['full_attention']}",
       GPTVQ_ERROR_FORMAT,
       {"layer_types", "= 3"}},
      {"{'architectures': ['Qwen2ForCausalLM'], 'layer_types': "
       "['full_attention', 'sliding_attention', 'full_attention']}",
       GPTVQ_ERROR_FORMAT,
       {"layer_types[1]", "no sliding_window"}},
      {"{'architectures': ['MistralForCausalLM'], 'layer_types': "
       "['full_attention', 'linear_attention', 'full_attention']}",
       GPTVQ_ERROR_UNSUPPORTED,
       {"layer_types[1] is linear_attention"}},
      {"{'architectures': ['Gemma2ForCausalLM'], 'use_bidirectional_attention': true}",
       GPTVQ_ERROR_UNSUPPORTED,
       {"use_bidirectional_attention"}},
      {"{'architectures': ['Gemma2ForCausalLM'], 'final_logit_softcapping': 0}",
       GPTVQ_ERROR_FORMAT,
       {"final_logit_softcapping"}},
      {"{'architectures': ['GptOssForCausalLM'], 'swiglu_limit': 5.0}",
       GPTVQ_ERROR_UNSUPPORTED,
       {"swiglu_limit 5"}},
      {"{'architectures': ['GptOssForCausalLM']}", GPTVQ_ERROR_FORMAT, {"rope_scaling is missing"}},
      {"{'architectures': ['DeepseekV2ForCausalLM'], 'moe_intermediate_size': 8, 'num_experts_per_tok': 2,"
       "'topk_method': 'noaux_tc'}",
       GPTVQ_ERROR_UNSUPPORTED,
       {"topk_method noaux_tc"}},
      {"{'architectures': ['DeepseekV3ForCausalLM'], 'moe_intermediate_size': 8, 'num_experts_per_tok': 8,"
       "'n_group': 7}",
       GPTVQ_ERROR_FORMAT,
       {"n_group 7"}},
      {"{'architectures': ['OlmoeForCausalLM'], 'clip_qkv': 8}", GPTVQ_ERROR_UNSUPPORTED, {"clip_qkv"}},
      {"{'architectures': ['Qwen3MoeForCausalLM']}",
       GPTVQ_ERROR_FORMAT,
       {"moe_intermediate_size is missing"}},
      {"{'architectures': ['Qwen3MoeForCausalLM'], 'moe_intermediate_size': 8, 'mlp_only_layers': [-1]}",
       GPTVQ_ERROR_FORMAT,
       {"mlp_only_layers[0]"}},
      {"{'architectures': ['Qwen2MoeForCausalLM'], 'moe_intermediate_size': 8, 'use_sliding_window': true}",
       GPTVQ_ERROR_UNSUPPORTED,
       {"use_sliding_window"}},
      {"{'attn_logit_softcapping': 50}", /* Gemma 2's key, not Llama's */
       GPTVQ_ERROR_UNSUPPORTED,
       {"attn_logit_softcapping is not a key that is known for LlamaForCausalLM"}},
      {"{'architectures': ['GraniteForCausalLM'], 'logits_scaling': 0}",
       GPTVQ_ERROR_FORMAT,
       {"logits_scaling"}},
      {"{'architectures': ['GraniteMoeHybridForCausalLM'], 'shared_intermediate_size': 8}",
       GPTVQ_ERROR_UNSUPPORTED,
       {"layer_types[0] is linear_attention"}},
      {"{'architectures': ['GraniteMoeHybridForCausalLM'], 'shared_intermediate_size': 8, 'layer_types': "
       "['attention', 'mamba', 'attention']}",
       GPTVQ_ERROR_UNSUPPORTED,
       {"layer_types[1] is mamba"}},
      {"{'architectures': ['GraniteMoeHybridForCausalLM'], 'shared_intermediate_size': 8, 'layer_types': "
       "['attention', 'attention', 'attention']}",
       GPTVQ_ERROR_UNSUPPORTED,
       {"position_embedding_type none"}},
      {"{'architectures': ['GraniteMoeHybridForCausalLM']}",
       GPTVQ_ERROR_FORMAT,
       {"shared_intermediate_size is missing"}},
      {"{'architectures': ['Ministral3ForCausalLM']}", GPTVQ_ERROR_FORMAT, {"rope_parameters is missing"}},
      {"{'rope_scaling': {'type': 'yarn', 'factor': 2, 'llama_4_scaling_beta': 0.1}}",
       GPTVQ_ERROR_UNSUPPORTED,
       {"llama_4_scaling_beta"}},
      {"{'rope_interleaved': true}", GPTVQ_ERROR_UNSUPPORTED, {"rope_interleaved"}},
      {"{'scale_of_everything': 2}", GPTVQ_ERROR_UNSUPPORTED, {"scale_of_everything"}},
      {"{'rope_scaling': {'type': 'linear', 'factor': 2, 'mrope_section': [1, 2]}}",
       GPTVQ_ERROR_UNSUPPORTED,
       {"rope_scaling.mrope_section"}},
      {"{'architectures': ['Gemma3ForCausalLM'], 'attn_logit_softcapping': 50}",
       GPTVQ_ERROR_UNSUPPORTED,
       {"attn_logit_softcapping"}},
      {"{'architectures': ['Gemma3ForCausalLM'], 'rope_parameters': {'full_attention': {}, 'rope_theta': 5}}",
       GPTVQ_ERROR_UNSUPPORTED,
       {"rope_parameters.rope_theta"}},
      {"{'architectures': ['Olmo3ForCausalLM'], 'rope_parameters': {'sliding_attention': 5}}",
       GPTVQ_ERROR_FORMAT,
       {"rope_parameters.sliding_attention is not an object"}},
      {"{'architectures': ['Gemma3ForCausalLM'], 'rope_parameters': {'full_attention': {'factor': 'x', "
       "'type': 'linear'}}}",
       GPTVQ_ERROR_FORMAT,
       {"rope_parameters.full_attention.factor"}},
      {"{'architectures': ['SmolLM3ForCausalLM'], 'no_rope_layers': [1, 0]}",
       GPTVQ_ERROR_FORMAT,
       {"no_rope_layers", "= 3"}},
      {"{'architectures': ['SmolLM3ForCausalLM'], 'no_rope_layers': [1, 0, 2]}",
       GPTVQ_ERROR_FORMAT,
       {"no_rope_layers[2]"}},
      {"{'architectures': ['SmolLM3ForCausalLM'], 'sliding_window': 8, 'layer_types': "
       "['full_attention', 'sliding_attention', 'full_attention']}",
       GPTVQ_ERROR_FORMAT,
       {"layer_types[1]", "use_sliding_window"}},
      {"{'architectures': ['Exaone4ForCausalLM'], 'sliding_window_pattern': 'LLLG'}",
       GPTVQ_ERROR_UNSUPPORTED,
       {"sliding_window_pattern as text"}},
      {"{'num_local_experts': 4}", GPTVQ_ERROR_FORMAT, {"num_experts_per_tok is missing"}},
      {"{'num_local_experts': 4, 'num_experts_per_tok': 5}",
       GPTVQ_ERROR_FORMAT,
       {"num_experts_per_tok is 5"}},
      {"{'architectures': ['MixtralForCausalLM'], 'num_local_experts': 0}",
       GPTVQ_ERROR_FORMAT,
       {"num_local_experts"}},
      {"{'rope_theta': 0}", GPTVQ_ERROR_FORMAT, {"rope_theta"}},
      {"{'rope_theta': -1e4}", GPTVQ_ERROR_FORMAT, {"rope_theta"}},
      {"{'rope_scaling': 2}", GPTVQ_ERROR_FORMAT, {"rope_scaling is not an object"}},
      {"{'rope_parameters': []}", GPTVQ_ERROR_FORMAT, {"rope_parameters is not an object"}},
      {"{'rope_parameters': {'full_attention': {}}}",
       GPTVQ_ERROR_UNSUPPORTED,
       {"rope_parameters.full_attention"}},
      {"{'rope_scaling': {'type': 'dynamic'}}", GPTVQ_ERROR_FORMAT, {"rope_scaling.factor is missing"}},
      {"{'head_dim': 2, 'rope_scaling': {'type': 'dynamic', 'factor': 2}}",
       GPTVQ_ERROR_FORMAT,
       {"more than two rotated dimensions"}},
      {"{'rope_theta': 1, 'rope_scaling': {'type': 'yarn', 'factor': 2}}",
       GPTVQ_ERROR_FORMAT,
       {"rope_theta 1 is not above 1"}},
      {"{'rope_scaling': {'type': 'yarn', 'factor': 2, 'beta_fast': -1}}",
       GPTVQ_ERROR_FORMAT,
       {"rope_scaling.beta_fast is -1"}},
      {"{'rope_scaling': {'type': 'yarn', 'factor': 2, 'truncate': 1}}",
       GPTVQ_ERROR_FORMAT,
       {"rope_scaling.truncate"}},
      {"{'rope_scaling': {'rope_type': 'axial'}}",
       GPTVQ_ERROR_UNSUPPORTED,
       {"rope type axial is not supported"}},
      {"{'rope_parameters': {'rope_type': 'default'}, 'rope_scaling': {'type': 'axial', 'factor': 2}}",
       GPTVQ_ERROR_UNSUPPORTED,
       {"rope type axial is not supported"}},
      {"{'rope_parameters': {'rope_type': 'default'}, 'rope_scaling': {'chunked_attention': {}}}",
       GPTVQ_ERROR_UNSUPPORTED,
       {"rope_scaling.chunked_attention"}},
      {"{'rope_parameters': {'rope_type': 'default'}, 'rope_scaling': 'linear'}",
       GPTVQ_ERROR_FORMAT,
       {"rope_scaling is not an object"}},
      {"{'rope_scaling': {'type': 'linear'}}", GPTVQ_ERROR_FORMAT, {"rope_scaling.factor is missing"}},
      {"{'rope_scaling': {'type': 'linear', 'factor': 0}}", GPTVQ_ERROR_FORMAT, {"rope_scaling.factor"}},
      {"{'rope_scaling': {'rope_type': 'llama3', 'factor': 8, 'low_freq_factor': 4, 'high_freq_factor': 4,"
       "'original_max_position_embeddings': 128}}",
       GPTVQ_ERROR_FORMAT,
       {"high_freq_factor"}},
      {"{'rope_scaling': {'rope_type': 'llama3', 'factor': 8, 'low_freq_factor': 1, 'high_freq_factor': 4,"
       "'original_max_position_embeddings': 0}}",
       GPTVQ_ERROR_FORMAT,
       {"rope_scaling.original_max_position_embeddings is 0"}},
      {"{'max_position_embeddings': 1, 'rope_scaling': {'type': 'longrope', 'short_factor': [1,1,1,1],"
       "'long_factor': [1,1,1,1]}}",
       GPTVQ_ERROR_FORMAT,
       {"original_max_position_embeddings is missing"}},
      {"{'original_max_position_embeddings': 64, 'rope_scaling': {'type': 'longrope', 'short_factor': "
       "[1,1,1], 'long_factor': [1,1,1,1]}}",
       GPTVQ_ERROR_FORMAT,
       {"short_factor is not a list of 4"}},
      {"{'original_max_position_embeddings': 64, 'rope_scaling': {'type': 'longrope', 'short_factor': "
       "[1,1,1,1], 'long_factor': [1,1,0,1]}}",
       GPTVQ_ERROR_FORMAT,
       {"long_factor[2]"}},
      {"{'original_max_position_embeddings': 64, 'rope_scaling': {'type': 'longrope', 'short_factor': "
       "[1,1,1,1], 'long_factor': [1,'x',1,1]}}",
       GPTVQ_ERROR_FORMAT,
       {"long_factor[1]"}},
      {"{'architectures': ['Phi3ForCausalLM'], 'partial_rotary_factor': 0.4}",
       GPTVQ_ERROR_FORMAT,
       {"partial_rotary_factor 0.4"}},
      {"{'rope_scaling': {'type': 'linear', 'factor': 2}, 'partial_rotary_factor': 0.5}",
       GPTVQ_ERROR_UNSUPPORTED,
       {"partial_rotary_factor 0.5 beside a RoPE scaling"}},
      {"{'partial_rotary_factor': 2}", GPTVQ_ERROR_FORMAT, {"partial_rotary_factor"}},
      {"{'bos_token_id': 'a'}", GPTVQ_ERROR_FORMAT, {"bos_token_id"}},
      {"{'eos_token_id': -2}", GPTVQ_ERROR_FORMAT, {"eos_token_id"}},
      {"{'eos_token_id': [1, 4294967296]}", GPTVQ_ERROR_FORMAT, {"eos_token_id"}},
      {"{'eos_token_id': [1,2,3,4,5,6,7,8,9,-2]}", GPTVQ_ERROR_FORMAT, {"eos_token_id"}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    gptvq_error err = {GPTVQ_OK, ""};
    gptvq_config config;
    gptvq_status status = parse(llama, cases[i].changes, NULL, &config, &err);
    if (status == GPTVQ_OK) gptvq_config_release(&config);
    if (status != cases[i].status)
      fail_msg("%s: %s: %s", cases[i].changes, gptvq_status_name(status), err.message);
    assert_null(config.layer_slides);
    assert_non_null(strstr(err.message, "some/model/config.json: "));
    for (size_t w = 0; w < 2 && cases[i].words[w] != NULL; w++)
      if (strstr(err.message, cases[i].words[w]) == NULL)
        fail_msg("%s: \"%s\" is not in: %s", cases[i].changes, cases[i].words[w], err.message);
  }
  gptvq_error err;
  gptvq_config config;
  assert_int_equal(parse(llama, "{}", "{'eos_token_id': 'x'}", &config, &err), GPTVQ_ERROR_FORMAT);
  assert_non_null(strstr(err.message, "some/model/generation_config.json: eos_token_id"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(defaults_of_llama),
      cmocka_unit_test(explicit_values),
      cmocka_unit_test(rope_of_both_spellings),
      cmocka_unit_test(yarn_and_dynamic),
      cmocka_unit_test(longrope_of_phi3),
      cmocka_unit_test(sliding_windows),
      cmocka_unit_test(keys_of_other_families),
      cmocka_unit_test(families),
      cmocka_unit_test(keys_of_gemma2),
      cmocka_unit_test(keys_of_gemma3),
      cmocka_unit_test(ropes_of_layers),
      cmocka_unit_test(keys_of_granite),
      cmocka_unit_test(keys_of_seed_glm_and_ministral),
      cmocka_unit_test(harmless_keys),
      cmocka_unit_test(keys_of_mixtures),
      cmocka_unit_test(keys_of_qwen3_5),
      cmocka_unit_test(keys_of_qwen3_5_moe),
      cmocka_unit_test(keys_of_qwen3_next),
      cmocka_unit_test(nonsense_is_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
