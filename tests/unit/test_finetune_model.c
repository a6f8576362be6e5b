/* Fine-tuning of models: the differentiable block is the model's own block, and fine-tuning inside
 * gptvq_quantize. */
#include "tiny_model.h"
#include "train/train.h"
#include "base/memory.h"

#include <float.h>
#include <gptvq/gptvq.h>
#include <unistd.h>

static const gptvq_model_options in_fp32 = {.size = sizeof in_fp32, .compute = GPTVQ_COMPUTE_FP32};

static int make_scratch(void **state) {
  (void)state;
  if (tiny_enter_scratch() != 0) return -1;
  gptvq_set_threads(1); /* the work is too little to share out */
  tiny_write(&tiny_llama, "llama");
  tiny_write(&tiny_mixtral, "mixtral");
  tiny_write_corpus("corpus.txt", 4000);
  return 0;
}

/* Both are chains of a handful of fp32 sums of at most 64 products: 2 · CHAIN · 64 · ε of the largest value
 * around. */
enum { LENGTH = 40, CHAIN = 8, WIDTH = 64 };

static void compare_block(const char *name, const gptvq_model *model, const gptvq_block *block,
                          gptvq_workspace *workspace, float *x) {
  size_t hidden = model->config.hidden, n = LENGTH * hidden;
  gptvq_ft_dims dims;
  gptvq_ft_params params;
  gptvq_ft_workspace own;
  float *rope;
  ok(gptvq_ft_dims_create(model, block, LENGTH, &dims, &rope, err));
  ok(gptvq_ft_params_create(&dims, block, GPTVQ_F32, &params, err));
  ok(gptvq_ft_workspace_create(&dims, 1, LENGTH, false, GPTVQ_COMPUTE_FP32, &own, err));
  gptvq_ft_params_fill(&params, &own.weights);
  const float *y = gptvq_ft_forward(&dims, &own.weights, own.tape, LENGTH, x);
  float *expected = gptvq_alloc(n, sizeof *expected);
  assert_non_null(expected);
  memcpy(expected, x, n * sizeof *x);
  ok(gptvq_block_attention(model, block, workspace, 0, 0, LENGTH, expected, GPTVQ_RUN_ALL, NULL, NULL, err));
  ok(gptvq_block_mlp(model, block, workspace, LENGTH, expected, GPTVQ_RUN_ALL, NULL, NULL, err));
  float largest = 0;
  for (size_t i = 0; i < n; i++) largest = fmaxf(largest, fabsf(expected[i]));
  for (size_t i = 0; i < n; i++)
    if (!(fabsf(y[i] - expected[i]) <= 2 * CHAIN * WIDTH * FLT_EPSILON * largest))
      fail_msg("%s, block %zu: output %zu is %.9g, not %.9g", name, block->index, i, (double)y[i],
               (double)expected[i]);
  memcpy(x, expected, n * sizeof *x);
  free(expected);
  gptvq_ft_workspace_destroy(&own);
  gptvq_ft_params_release(&params);
  free(rope);
}

static void forward_is_the_models_block(void **state) {
  (void)state;
  static const char *const names[] = {"llama",
                                      "llama-head-dim-bias",
                                      "llama-linear-rope",
                                      "llama3-rope",
                                      "llama-yarn",
                                      "granite",
                                      "granite4",
                                      "seed-oss",
                                      "glm4",
                                      "ministral3",
                                      "llama-dynamic-rope",
                                      "mistral",
                                      "phi3",
                                      "phi3-longrope",
                                      "qwen2",
                                      "qwen2-window",
                                      "qwen3",
                                      "mixtral",
                                      "qwen3-moe",
                                      "qwen2-moe",
                                      "olmoe",
                                      "gpt-oss",
                                      "deepseek-v2",
                                      "deepseek-v2-lite",
                                      "deepseek-v3",
                                      "deepseek-v3-plain",
                                      "qwen3_5",
                                      "qwen3_5-inner",
                                      "qwen3_5-moe",
                                      "qwen3-next-dense"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    char path[512];
    gptvq_model *model;
    gptvq_workspace *workspace;
    (void)snprintf(path, sizeof path, "%s/tests/golden/model/%s", TEST_SOURCE_DIR, names[i]);
    ok(gptvq_model_open(path, &in_fp32, &model, err));
    ok(gptvq_workspace_create(model, 1, LENGTH, LENGTH, &workspace, err));
    int32_t tokens[LENGTH];
    uint64_t random = i;
    for (size_t t = 0; t < LENGTH; t++) tokens[t] = (int32_t)gptvq_random_below(&random, model->config.vocab);
    float *x = gptvq_alloc(LENGTH * model->config.hidden, sizeof *x);
    assert_non_null(x);
    ok(gptvq_embed(model, tokens, LENGTH, x, err));
    for (size_t b = 0; b < model->config.layers; b++)
      compare_block(names[i], model, &model->blocks[b], workspace, x);
    free(x);
    gptvq_workspace_destroy(workspace);
    gptvq_model_close(model);
  }
}

/* ---- gptvq_quantize with fine-tuning ---- */

static gptvq_quantize_options tuned_options(gptvq_method method) {
  gptvq_quantize_options o = tiny_quantize_options(method);
  o.index_bits = method == GPTVQ_METHOD_GPTQ ? 3 : 4;
  o.beam = 1;
  o.calib_samples = 16;
  o.finetune_steps = 40;
  o.finetune_batch = 2;
  o.finetune_rate = method == GPTVQ_METHOD_GPTQ ? 0.001 : 0.01; /* few tokens for many scales */
  return o;
}

/* KL divergence of two folders on the corpus, by the evaluation's own code */
static double divergence(const char *a, const char *b) {
  gptvq_model *models[2];
  gptvq_tokenizer *tokenizer;
  gptvq_eval_options options;
  gptvq_compare_result result = {.size = sizeof result};
  char *text;
  size_t size;
  ok(gptvq_model_open(a, &in_fp32, &models[0], err));
  ok(gptvq_model_open(b, &in_fp32, &models[1], err));
  ok(gptvq_tokenizer_open(a, &tokenizer, err));
  ok(gptvq_read_file("corpus.txt", 1 << 20, &text, &size, err));
  gptvq_eval_options_init(&options);
  options.ctx = 48;
  ok(gptvq_compare_text(models[0], models[1], tokenizer, text, size, &options, NULL, &result, err));
  free(text);
  gptvq_tokenizer_close(tokenizer);
  for (size_t i = 0; i < 2; i++) gptvq_model_close(models[i]);
  return result.kl_mean;
}

/* Is that tensor the same in both folders? The types must be. */
static bool same_tensor(const char *a, const char *b, const char *name) {
  gptvq_checkpoint *checkpoints[2];
  ok(gptvq_checkpoint_open(a, NULL, &checkpoints[0], err));
  ok(gptvq_checkpoint_open(b, NULL, &checkpoints[1], err));
  const gptvq_tensor *x = gptvq_checkpoint_find(checkpoints[0], name),
                     *y = gptvq_checkpoint_find(checkpoints[1], name);
  assert_true(x != NULL && y != NULL && x->type == y->type && x->bytes == y->bytes);
  bool same = memcmp(x->data, y->data, x->bytes) == 0;
  for (size_t i = 0; i < 2; i++) gptvq_checkpoint_close(checkpoints[i]);
  return same;
}

/* The best parameters on the held-out windows are kept, those of the start among them: no model can lose
 * there. How much one gains from 768 tokens is chance (some seeds: nothing), so the gain is asked of all of
 * them together. */
static void architectures_gain(void **state) {
  (void)state;
  double sum_before = 0, sum_after = 0;
  const tiny_model *models[] = {&tiny_llama,   &tiny_tied,      &tiny_qwen2,     &tiny_qwen3,
                                &tiny_phi3,    &tiny_gemma2,    &tiny_smollm3,   &tiny_gemma3,
                                &tiny_olmo3,   &tiny_exaone4,   &tiny_granite,   &tiny_glm4,
                                &tiny_mixtral, &tiny_qwen2_moe, &tiny_qwen3_moe, &tiny_olmoe,
                                &tiny_gpt_oss, &tiny_deepseek,  &tiny_qwen3_5,   &tiny_qwen3_next};
  for (size_t m = 0; m < sizeof models / sizeof models[0]; m++)
    for (int uniform = 0; uniform < (m == 0 ? 2 : 1); uniform++) {
      gptvq_quantize_options o = tuned_options(uniform ? GPTVQ_METHOD_GPTQ : GPTVQ_METHOD_GPTVQ);
      gptvq_quantize_report plain = {.size = sizeof plain}, tuned = {.size = sizeof tuned};
      tiny_write(models[m], "any");
      o.force = 1;
      o.mismatch = o.mismatch_stream = 0; /* with 768 tokens it learns them by heart */
      ok(gptvq_quantize("any", "tuned", &o, NULL, &tuned, err));
      o.finetune_steps = 0;
      ok(gptvq_quantize("any", "plain", &o, NULL, &plain, err));
      gptvq_free(plain.expert_tokens);
      gptvq_free(tuned.expert_tokens);
      assert_true(isnan(plain.finetune_before) && isnan(plain.finetune_after));
      if (!(tuned.finetune_after <= tuned.finetune_before))
        fail_msg("%s, uniform %d: held-out KL rose from %g to %g", models[m]->architecture, uniform,
                 tuned.finetune_before, tuned.finetune_after);
      assert_true(tuned.bits_per_value == plain.bits_per_value && tuned.linear_bytes == plain.linear_bytes);
      sum_before += divergence("any", "plain");
      sum_after += divergence("any", "tuned");
      assert_true(same_tensor("plain", "tuned", "model.embed_tokens.weight"));
      assert_false(gptvq_path_exists("tuned/finetuned"));
      if (tuned.finetune_after == tuned.finetune_before) continue; /* left as it was */
      assert_false(same_tensor("plain", "tuned", "model.norm.weight"));
      if (models[m]->behind < 2)
        assert_false(same_tensor("plain", "tuned", "model.layers.0.input_layernorm.weight"));
      assert_false(same_tensor("plain", "tuned", "model.layers.1.post_attention_layernorm.weight"));
      if (models[m]->qk_norm)
        assert_false(same_tensor("plain", "tuned", "model.layers.1.self_attn.k_norm.weight"));
      if (models[m]->behind)
        assert_false(same_tensor("plain", "tuned", "model.layers.0.post_feedforward_layernorm.weight"));
      if (models[m]->qkv_bias)
        assert_false(same_tensor("plain", "tuned", "model.layers.1.self_attn.q_proj.bias"));
    }
  if (!(sum_after < 0.97 * sum_before))
    fail_msg("KL %g became %g, all models together", sum_before, sum_after);
}

/* What a resumed run reads back is what the first one computed with: gains made of weights of any type stay
 * the same when they are stored as weights again. */
static void gains_survive_their_types(void **state) {
  (void)state;
  const gptvq_arch *arch = gptvq_find_arch("Gemma2ForCausalLM");
  uint64_t random = 1;
  for (size_t i = 0; i < 200000; i++) {
    const gptvq_dtype dtype = (const gptvq_dtype[]){GPTVQ_F32, GPTVQ_F16, GPTVQ_BF16}[i % 3];
    float value =
        (float)((4.0 * gptvq_random_unit(&random) - 1.5) * exp2(-24.0 * gptvq_random_unit(&random)));
    float gain = gptvq_ft_round(dtype, 0.0f, value);
    gptvq_weights_to_gains(arch, 1, &gain);
    float again = gptvq_ft_round(dtype, 0.0f, gptvq_gain_to_weight(arch, gain));
    gptvq_weights_to_gains(arch, 1, &again);
    assert_true(again == gain && gptvq_ft_round(dtype, arch->norm_offset, gain) == gain);
  }
}

static void assert_same_shards(const char *a, const char *b) {
  gptvq_checkpoint *checkpoint;
  ok(gptvq_checkpoint_open(a, NULL, &checkpoint, err));
  for (size_t i = 0; i < gptvq_checkpoint_tensor_count(checkpoint); i++)
    assert_true(same_tensor(a, b, gptvq_checkpoint_tensor_at(checkpoint, i)->name));
  gptvq_checkpoint_close(checkpoint);
}

/* Block after block: the held-out error rises in none, falls in most, and so does the divergence of the
 * models together. */
typedef struct block_watch {
  size_t blocks, gains, losses;
} block_watch;

static void watch_blocks(void *user, gptvq_log_level level, const char *line) {
  block_watch *w = user;
  unsigned block;
  double before, after;
  if (level != GPTVQ_LOG_INFO) return;
  if (sscanf(line, "block %u fine-tuned: error on held-out windows %lf -> %lf", &block, &before, &after) != 3)
    return;
  w->blocks++;
  w->gains += after < before;
  w->losses += after > before;
}

static void blocks_gain(void **state) {
  (void)state;
  double sum_before = 0, sum_after = 0;
  size_t blocks = 0, gains = 0;
  const tiny_model *models[] = {&tiny_qwen2, &tiny_qwen3, &tiny_gemma2, &tiny_olmo3};
  for (size_t m = 0; m < sizeof models / sizeof models[0]; m++) {
    gptvq_quantize_options o = tuned_options(GPTVQ_METHOD_GPTVQ);
    block_watch watch = {0};
    gptvq_callbacks callbacks = {.size = sizeof callbacks, .user = &watch, .log = watch_blocks};
    gptvq_quantize_report plain = {.size = sizeof plain}, tuned = {.size = sizeof tuned};
    tiny_write(models[m], "any");
    o.force = 1;
    o.mismatch = o.mismatch_stream = 0;
    o.finetune_steps = 0;
    ok(gptvq_quantize("any", "plain", &o, NULL, &plain, err));
    o.finetune_block_steps = 40;
    ok(gptvq_quantize("any", "tuned", &o, &callbacks, &tuned, err));
    assert_int_equal(watch.blocks, models[m]->layers);
    assert_int_equal(watch.losses, 0);
    blocks += watch.blocks;
    gains += watch.gains;
    assert_true(tuned.linear_bytes == plain.linear_bytes);
    assert_true(same_tensor("plain", "tuned", "model.norm.weight"));
    sum_before += divergence("any", "plain");
    sum_after += divergence("any", "tuned");
    if (watch.gains < watch.blocks) continue; /* a block was left as it was */
    if (models[m]->behind < 2)
      assert_false(same_tensor("plain", "tuned", "model.layers.0.input_layernorm.weight"));
    if (models[m]->qk_norm)
      assert_false(same_tensor("plain", "tuned", "model.layers.1.self_attn.k_norm.weight"));
    if (models[m]->qkv_bias)
      assert_false(same_tensor("plain", "tuned", "model.layers.1.self_attn.q_proj.bias"));
  }
  assert_true(2 * gains > blocks);
  if (!(sum_after < sum_before)) fail_msg("KL %g became %g, all models together", sum_before, sum_after);
}

static int stop_while_tuning(void *user, const gptvq_progress *progress) {
  size_t *looks = user;
  return strcmp(progress->phase, "finetune") == 0 && !isnan(progress->value) && --*looks == 0;
}

static int stop_in_teacher(void *user, const gptvq_progress *progress) {
  (void)user;
  return strcmp(progress->phase, "finetune") == 0 && isnan(progress->value);
}

static void threads_and_interruptions_change_nothing(void **state) {
  (void)state;
  gptvq_quantize_options o = tuned_options(GPTVQ_METHOD_GPTVQ);
  gptvq_quantize_report whole = {.size = sizeof whole}, report = {.size = sizeof report};
  o.finetune_steps = 40;
  o.finetune_index_rate = 0.02;
  gptvq_set_threads(1);
  ok(gptvq_quantize("llama", "whole", &o, NULL, &whole, err));
  gptvq_set_threads(3);
  ok(gptvq_quantize("llama", "three", &o, NULL, NULL, err));
  assert_same_shards("whole", "three");
  gptvq_set_threads(1);
  o.finetune_index_rate = 0;
  ok(gptvq_quantize("llama", "same-indices", &o, NULL, NULL, err));
  assert_false(same_tensor("whole", "same-indices", "model.layers.1.mlp.up_proj.indices"));
  o.finetune_index_rate = 0.02;
  for (size_t stop = 0; stop <= 2; stop++) {
    gptvq_error error;
    size_t looks = stop;
    gptvq_callbacks callbacks = {.size = sizeof callbacks,
                                 .user = &looks,
                                 .progress = stop == 0 ? stop_in_teacher : stop_while_tuning};
    assert_int_equal(gptvq_quantize("llama", "cut", &o, &callbacks, NULL, &error), GPTVQ_ERROR_CANCELLED);
    assert_true(gptvq_path_exists("cut.partial/resume.json"));
    o.resume = 1;
    ok(gptvq_quantize("llama", "cut", &o, NULL, &report, err));
    assert_int_equal(report.blocks_resumed, 3);
    assert_true(report.finetune_after == whole.finetune_after);
    assert_same_shards("whole", "cut");
    ok(gptvq_remove_tree("cut", err));
    o.resume = 0;
  }
  /* block after block, cut in the second block: its predecessor's norms come back from its shard */
  o = tuned_options(GPTVQ_METHOD_GPTVQ);
  o.finetune_steps = 0;
  o.finetune_block_steps = 40;
  o.force = 1;
  ok(gptvq_quantize("llama", "whole", &o, NULL, NULL, err));
  o.force = 0;
  gptvq_error error;
  size_t looks = 3;
  gptvq_callbacks callbacks = {.size = sizeof callbacks, .user = &looks, .progress = stop_while_tuning};
  assert_int_equal(gptvq_quantize("llama", "cut", &o, &callbacks, NULL, &error), GPTVQ_ERROR_CANCELLED);
  o.resume = 1;
  ok(gptvq_quantize("llama", "cut", &o, NULL, &report, err));
  assert_int_equal(report.blocks_resumed, 1);
  assert_same_shards("whole", "cut");
}

static void refusals(void **state) {
  (void)state;
  gptvq_error error;
  gptvq_quantize_options o = tuned_options(GPTVQ_METHOD_KMEANS);
  o.calib = NULL;
  assert_int_equal(gptvq_quantize("llama", "out", &o, NULL, NULL, &error), GPTVQ_ERROR_ARGUMENT);
  assert_non_null(strstr(error.message, "fine-tuning needs calibration data"));
  o = tuned_options(GPTVQ_METHOD_GPTVQ);
  o.finetune_rate = 0;
  assert_int_equal(gptvq_quantize("llama", "out", &o, NULL, NULL, &error), GPTVQ_ERROR_ARGUMENT);
  assert_non_null(strstr(error.message, "rate"));
  assert_false(gptvq_path_exists("out.partial"));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(forward_is_the_models_block),
                                     cmocka_unit_test(architectures_gain),
                                     cmocka_unit_test(gains_survive_their_types),
                                     cmocka_unit_test(blocks_gain),
                                     cmocka_unit_test(threads_and_interruptions_change_nothing),
                                     cmocka_unit_test(refusals)};
  return cmocka_run_group_tests(tests, make_scratch, tiny_drop_scratch);
}
