/* model/arch/config: keys of single families. */
#include "config_fixture.h"

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

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(keys_of_gemma2),
      cmocka_unit_test(keys_of_granite),
      cmocka_unit_test(keys_of_seed_glm_and_ministral),
      cmocka_unit_test(keys_of_gemma3),
      cmocka_unit_test(keys_of_qwen3_5),
      cmocka_unit_test(keys_of_qwen3_5_moe),
      cmocka_unit_test(keys_of_qwen3_next),
      cmocka_unit_test(keys_of_mixtures),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
