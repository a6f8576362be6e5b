/* model/arch/config: rotations and how they are stretched. */
#include "config_fixture.h"

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

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(rope_of_both_spellings),
      cmocka_unit_test(yarn_and_dynamic),
      cmocka_unit_test(longrope_of_phi3),
      cmocka_unit_test(ropes_of_layers),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
