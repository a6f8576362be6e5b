/* model/arch/config: config.json, general keys, old and new spellings, and values that make no sense. */
#include "config_fixture.h"

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
      cmocka_unit_test(sliding_windows),
      cmocka_unit_test(keys_of_other_families),
      cmocka_unit_test(families),
      cmocka_unit_test(harmless_keys),
      cmocka_unit_test(nonsense_is_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
