/* train/guide.h: gradients of the loss against finite differences, and what becomes of them. */
#include "tiny_model.h"
#include "base/memory.h"
#include "linalg/gemm_bf16.h"
#include "train/guide.h"

#include <gptvq/gptvq.h>
#include <unistd.h>

static const gptvq_model_options in_fp32 = {.size = sizeof in_fp32, .compute = GPTVQ_COMPUTE_FP32};
static const gptvq_standing alone = {NULL, 0, 1};

static const struct {
  const char *folder;
  const tiny_model *model;
} models[] = {{"llama", &tiny_llama},          {"qwen3", &tiny_qwen3},         {"phi3", &tiny_phi3},
              {"gemma2", &tiny_gemma2},        {"granite", &tiny_granite},     {"glm4", &tiny_glm4},
              {"smollm3", &tiny_smollm3},      {"olmo3", &tiny_olmo3},         {"mixtral", &tiny_mixtral},
              {"qwen2-moe", &tiny_qwen2_moe},  {"qwen3-moe", &tiny_qwen3_moe}, {"olmoe", &tiny_olmoe},
              {"gpt-oss", &tiny_gpt_oss},      {"deepseek", &tiny_deepseek},   {"qwen3_5", &tiny_qwen3_5},
              {"qwen3-next", &tiny_qwen3_next}};
enum { MODELS = sizeof models / sizeof models[0] };

static int make_scratch(void **state) {
  (void)state;
  if (tiny_enter_scratch() != 0) return -1;
  for (size_t i = 0; i < MODELS; i++) tiny_write(models[i].model, models[i].folder);
  return 0;
}

/* −log p(token 1 | token 0) */
static double pair_loss(const gptvq_model *model, const int32_t tokens[2]) {
  float logits[TINY_VOCAB];
  gptvq_session *session;
  double sum = 0;
  ok(gptvq_session_create(model, 1, &session, err));
  ok(gptvq_session_forward(session, tokens, 1, logits, 0, err));
  gptvq_session_destroy(session);
  for (size_t i = 0; i < TINY_VOCAB; i++) sum += exp((double)logits[i] - (double)logits[tokens[1]]);
  return log(sum);
}

/* One window of two tokens: the loss depends on token 0 alone, so that adding to a linear's bias adds to the
 * output z_0i alone and dL/dbias_i is the gradient that the guide squares. Central differences of step s on
 * fp32 logits: error about 2^-20 / s + s² / 6 · third derivative. */
static void squares_match_finite_differences(void **state) {
  (void)state;
  const int32_t tokens[2] = {17, 40};
  const float step = 0.02f;
  for (size_t f = 0; f < MODELS; f++) {
    gptvq_model *model;
    gptvq_guide guide;
    ok(gptvq_model_open(models[f].folder, &in_fp32, &model, err));
    ok(gptvq_guide_create(model, &(gptvq_token_windows){1, 2, tokens}, 1.0, (size_t)1 << 20, NULL, &alone,
                          &guide, err));
    assert_true(fabs(guide.loss - pair_loss(model, tokens)) < 1e-4);
    for (size_t b = 0; b < model->config.layers; b++) {
      gptvq_block *block = &model->blocks[b];
      for (size_t i = 0; i < block->linear_count; i++) {
        gptvq_linear *linear = &block->linears[i];
        /* sessions apply it to queries and sums, without a bias, which it never has (test_finetune has it) */
        if (block->kv_b.count > 0 && i == block->kv_b.linear[0]) continue;
        float bias[4 * TINY_MLP] = {0};
        double sum = 0;
        assert_true(linear->rows <= sizeof bias / sizeof bias[0]);
        const float *before = linear->bias;
        if (before != NULL) memcpy(bias, before, linear->rows * sizeof *bias);
        linear->bias = bias;
        for (size_t r = 0; r < linear->rows; r++) {
          const float start = bias[r];
          bias[r] = start + step;
          double up = pair_loss(model, tokens);
          bias[r] = start - step;
          double down = pair_loss(model, tokens);
          bias[r] = start;
          double gradient = (up - down) / (2.0 * (double)step);
          sum += gradient * gradient;
        }
        linear->bias = before;
        /* the second token adds nothing: the mean over two tokens */
        double expected = sum / (double)linear->rows / 2.0, got = guide.energy[b][i];
        if (fabs(got - expected) > 0.02 * expected + 1e-8)
          fail_msg("%s: %g instead of %g", linear->name, got, expected);
      }
      for (gptvq_block_input input = 0; input < guide.inputs; input++) {
        if (gptvq_input_count(block, input) == 0) continue;
        const float *weight = gptvq_guide_weights(&guide, b, input);
        assert_true(fabsf(weight[0] - 2.0f) < 1e-6f && weight[1] == 0.0f);
      }
    }
    gptvq_guide_release(&guide);
    gptvq_model_close(model);
  }
}

/* Some twenty factors, of the products that lead to a gradient, are rounded by up to 2^-9 each,
 * independently: √20 · 2^-9 of it, so twice that of its square. At most eight times as much, as a linear's
 * gradients can be what is left of larger ones. */
static void rounded_products_give_the_same(void **state) {
  (void)state;
  enum { LENGTH = 24 };
  int32_t tokens[LENGTH];
  uint64_t random = 3;
  gptvq_model_options rounded = {.size = sizeof rounded, .compute = GPTVQ_COMPUTE_BF16};
  for (size_t i = 0; i < LENGTH; i++) tokens[i] = (int32_t)gptvq_random_below(&random, TINY_VOCAB);
  const gptvq_token_windows windows = {1, LENGTH, tokens};
  for (size_t f = 0; f < MODELS; f++) {
    if (models[f].model->experts > 0 || models[f].model->sparse || models[f].model->gpt_oss ||
        models[f].model->deepseek)
      continue; /* a token may go to others */
    gptvq_model *model[2];
    gptvq_guide guide[2];
    bool differs = false;
    for (int i = 0; i < 2; i++) {
      ok(gptvq_model_open(models[f].folder, i == 0 ? &in_fp32 : &rounded, &model[i], err));
      ok(gptvq_guide_create(model[i], &windows, 0.5, (size_t)1 << 24, NULL, &alone, &guide[i], err));
    }
    for (size_t b = 0; b < guide[0].blocks; b++)
      for (size_t i = 0; i < model[0]->blocks[b].linear_count; i++) {
        const double plain = guide[0].energy[b][i], other = guide[1].energy[b][i];
        differs |= plain != other;
        if (!(fabs(plain - other) <= 8.0 * 2.0 * sqrt(20.0) * 0x1p-9 * plain))
          fail_msg("%s: %s: %g in bf16, %g in fp32", models[f].folder, model[0]->blocks[b].linears[i].name,
                   other, plain);
      }
    assert_true(differs == gptvq_gemm_bf16_available());
    for (int i = 0; i < 2; i++) {
      gptvq_guide_release(&guide[i]);
      gptvq_model_close(model[i]);
    }
  }
}

/* Same bytes whatever the threads, and whatever the number of windows at a time; means of 1; power 0 is no
 * weighting. */
static void weights_are_deterministic_and_normalised(void **state) {
  (void)state;
  enum { SAMPLES = 5, LENGTH = 20 };
  int32_t tokens[SAMPLES * LENGTH];
  uint64_t random = 3;
  gptvq_model *model;
  gptvq_guide guides[3], flat;
  for (size_t i = 0; i < SAMPLES * LENGTH; i++) tokens[i] = (int32_t)gptvq_random_below(&random, TINY_VOCAB);
  const gptvq_token_windows windows = {SAMPLES, LENGTH, tokens};
  ok(gptvq_model_open("llama", &in_fp32, &model, err));
  for (int i = 0; i < 3; i++) {
    gptvq_set_threads(i == 0 ? 1 : 3);
    ok(gptvq_guide_create(model, &windows, 0.5, i == 2 ? 1 : (size_t)1 << 24, NULL, &alone, &guides[i], err));
  }
  size_t rows = guides[0].blocks * guides[0].inputs, bytes = rows * SAMPLES * LENGTH * sizeof(float);
  for (int i = 1; i < 3; i++) assert_memory_equal(guides[i].weights, guides[0].weights, bytes);
  for (size_t row = 0; row < rows; row++) {
    double sum = 0;
    for (size_t t = 0; t < SAMPLES * LENGTH; t++)
      sum += (double)guides[0].weights[row * SAMPLES * LENGTH + t];
    assert_true(fabs(sum / (SAMPLES * LENGTH) - 1.0) < 1e-5);
  }
  ok(gptvq_guide_create(model, &windows, 0.0, (size_t)1 << 24, NULL, &alone, &flat, err));
  for (size_t i = 0; i < rows * SAMPLES * LENGTH; i++) assert_true(flat.weights[i] == 1.0f);
  gptvq_guide_release(&flat);
  for (int i = 0; i < 3; i++) gptvq_guide_release(&guides[i]);
  gptvq_model_close(model);
}

/* A finite loss whose squared gradients fp32 does not hold must not weigh all tokens equally, or with NaN. */
static void overflow_is_named(void **state) {
  (void)state;
  const int32_t tokens[4] = {1, 2, 3, 4};
  gptvq_model *model;
  gptvq_guide guide;
  gptvq_error failure;
  tiny_model m = tiny_llama;
  m.scaled_name = "lm_head";
  m.scale = 1e25;
  tiny_write(&m, "steep");
  ok(gptvq_model_open("steep", &in_fp32, &model, err));
  assert_int_equal(gptvq_guide_create(model, &(gptvq_token_windows){1, 4, tokens}, 0.5, 1 << 20, NULL, &alone,
                                      &guide, &failure),
                   GPTVQ_ERROR_NUMERIC);
  assert_non_null(strstr(failure.message, "the gradients of the loss"));
  gptvq_model_close(model);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(squares_match_finite_differences),
      cmocka_unit_test(rounded_products_give_the_same),
      cmocka_unit_test(weights_are_deterministic_and_normalised),
      cmocka_unit_test(overflow_is_named),
  };
  return cmocka_run_group_tests(tests, make_scratch, tiny_drop_scratch);
}
