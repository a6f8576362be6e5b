/* Evaluation on the shim (or a card, device_fixture.h): the scores of the same halves and heads run by hand,
 * those of the CPU within what another order of sums does, groups of windows, memory. */
#include "cuda/forward.h"
#include "cuda/shim/shim.h"
#include "device_fixture.h"
#include "eval/device/device.h"
#include "tiny_model.h"

enum { CTX = 66, WINDOWS = 2, MODELS = 9 };

enum { LOGITS = (CTX - 1) * TINY_VOCAB };

static const char *const folders[MODELS] = {"llama", "tied",  "qwen2",  "qwen3", "olmo3",
                                            "fused", "mixed", "gemma2", "packed"};
static const gptvq_compute computes[] = {GPTVQ_COMPUTE_FP32, GPTVQ_COMPUTE_BF16};

static gptvq_device *device;
static gptvq_cuda_forward *owner;
static const gptvq_forward *forward;
static int32_t tokens[WINDOWS * CTX];
static const gptvq_windows windows = {tokens, WINDOWS, CTX, 0};

static int make_scratch(void **state) {
  (void)state;
  static const tiny_model fused = {.architecture = "Phi3ForCausalLM", .layers = 2, .fused = 1};
  const tiny_model *const models[] = {&tiny_llama, &tiny_tied, &tiny_qwen2,   &tiny_qwen3,
                                      &tiny_olmo3, &fused,     &tiny_mixtral, &tiny_gemma2};
  if (tiny_enter_scratch() != 0) return -1;
  for (size_t i = 0; i + 1 < MODELS; i++) tiny_write(models[i], folders[i]);
  gptvq_quantize_options o = tiny_quantize_options(GPTVQ_METHOD_RTN);
  o.head_bits = 8;
  ok(gptvq_quantize("llama", "packed", &o, NULL, NULL, err));
  uint64_t random = 7;
  for (size_t i = 0; i < WINDOWS * CTX; i++) tokens[i] = (int32_t)gptvq_random_below(&random, TINY_VOCAB);
  ok(open_test_device(&device, err));
  ok(gptvq_cuda_forward_create(device, NULL, &owner, err));
  forward = gptvq_cuda_forward_table(owner);
  return 0;
}

static int drop_scratch(void **state) {
  size_t free_bytes, total;
  const bool all = on_test_card() || (device->memory(device, &free_bytes, &total, NULL) == GPTVQ_OK &&
                                      free_bytes == total && gptvq_shim_pinned(device) == 0);
  gptvq_cuda_forward_destroy(owner);
  device->close(device);
  return tiny_drop_scratch(state) != 0 || !all ? -1 : 0;
}

static gptvq_model *open_model(const char *folder, gptvq_compute compute) {
  const gptvq_model_options options = {.size = sizeof options, .compute = compute};
  gptvq_model *model;
  ok(gptvq_model_open(folder, &options, &model, err));
  return model;
}

/* ---- by hand ---- */

/* Logits of a window, those that predict, half after half on the device or with `on` NULL on the CPU. noise:
 * root mean square of relative changes to the embeddings. */
static void run_by_hand(const gptvq_model *model, const gptvq_forward *on, const int32_t *ids, double noise,
                        float *logits) {
  gptvq_workspace *workspace;
  float x[CTX * TINY_HIDDEN];
  uint64_t random = 5;
  ok(gptvq_workspace_create(model, 1, CTX, CTX, &workspace, err));
  ok(gptvq_embed(model, ids, CTX, x, err));
  for (size_t i = 0; i < CTX * TINY_HIDDEN && noise > 0.0; i++)
    x[i] *= (float)(1.0 + noise * sqrt(3.0) * (2.0 * gptvq_random_unit(&random) - 1.0));
  for (size_t half = 0; half < 2 * model->config.layers; half++) {
    const bool mlp = half % 2 == 1;
    const gptvq_forward_half h = {model, &model->blocks[half / 2], mlp, GPTVQ_RUN_ALL, workspace};
    const gptvq_forward *taker = gptvq_forward_takes(on, model, h.block, mlp);
    if (taker != NULL) ok(taker->run(taker, &h, CTX, x, NULL, err));
    else if (mlp) ok(gptvq_block_mlp(model, h.block, workspace, CTX, x, h.stop, NULL, NULL, err));
    else ok(gptvq_block_attention(model, h.block, workspace, 0, 0, CTX, x, h.stop, NULL, NULL, err));
  }
  ok(gptvq_head_on(model, on, workspace, CTX - 1, x, logits, err));
  if (on != NULL) on->rest(on);
  gptvq_workspace_destroy(workspace);
}

static double score(const float *logits, int32_t target) {
  return gptvq_log_sum_exp(logits, TINY_VOCAB) - (double)logits[target];
}

/* Means over all predictions of a's loss, and of KL(a ‖ b). */
static void score_by_hand(const float *a, const float *b, double *nll, double *kl) {
  *nll = *kl = 0.0;
  for (size_t w = 0; w < WINDOWS; w++)
    for (size_t p = 0; p + 1 < CTX; p++) {
      const float *x = a + w * LOGITS + p * TINY_VOCAB, *y = b + w * LOGITS + p * TINY_VOCAB;
      *nll += score(x, tokens[w * CTX + p + 1]);
      for (int32_t i = 0; i < TINY_VOCAB; i++) *kl += exp(-score(x, i)) * (score(y, i) - score(x, i));
    }
  *nll /= WINDOWS * (CTX - 1);
  *kl /= WINDOWS * (CTX - 1);
}

/* ‖found − expected‖ / ‖expected‖, and the largest difference. */
static double distance(const float *found, const float *expected, size_t n, double *most) {
  double wrong = 0.0, all = 0.0;
  *most = 0.0;
  for (size_t i = 0; i < n; i++) {
    const double d = fabs((double)found[i] - (double)expected[i]);
    wrong += d * d;
    all += (double)expected[i] * (double)expected[i];
    *most = fmax(*most, d);
  }
  return sqrt(wrong / all);
}

static gptvq_compare_result evaluate(const gptvq_model *a, const gptvq_model *b, const gptvq_forward *on) {
  gptvq_compare_result result = {.size = sizeof result};
  ok(gptvq_compare_windows(a, b, on, &windows, NULL, &result, err));
  return result;
}

/* ---- tests ---- */

/* Each half, and the head, is 2^-18 of what it adds (2^-10 in bf16) from the CPU's: tests/cuda/
 * test_cuda_forward.c. What a half adds is at most a stream's worth, and such a change is carried on to the
 * logits as a change of the embeddings is, which goes the longest way: by how much it grows there is measured
 * on the CPU. So logits are (halves + 1) times as far off at most; a loss, the difference of two functions
 * that change no more than the logits do, by twice their largest difference. */
static void scores_are_those_of_the_halves(void **state) {
  (void)state;
  static float logits[3][WINDOWS * LOGITS]; /* on the CPU, on the device, disturbed */
  for (size_t i = 0; i < MODELS; i++)
    for (size_t c = 0; c < 2; c++) {
      const double noise = 0x1p-10, half = c == 0 ? 0x1p-18 : 0x1p-10;
      double most, ignored, nll, kl;
      gptvq_model *model = open_model(folders[i], computes[c]);
      for (size_t w = 0; w < WINDOWS; w++) {
        run_by_hand(model, NULL, tokens + w * CTX, 0.0, logits[0] + w * LOGITS);
        run_by_hand(model, forward, tokens + w * CTX, 0.0, logits[1] + w * LOGITS);
      }
      model->compute = GPTVQ_COMPUTE_FP32;
      float plain[LOGITS];
      run_by_hand(model, NULL, tokens, 0.0, plain);
      run_by_hand(model, NULL, tokens, noise, logits[2]);
      model->compute = computes[c];
      const double growth = fmax(1.0, distance(logits[2], plain, LOGITS, &ignored) / noise),
                   bound = half * growth * (2.0 * (double)model->config.layers + 1.0),
                   far = distance(logits[1], logits[0], WINDOWS * LOGITS, &most);
      if (!(far <= bound)) fail_msg("%s: logits %g off, not %g", folders[i], far, bound);
      const gptvq_compare_result cpu = evaluate(model, NULL, NULL), found = evaluate(model, NULL, forward),
                                 again = evaluate(model, NULL, forward);
      score_by_hand(logits[1], logits[1], &nll, &kl);
      if (!(fabs(found.nll_a - nll) <= 1e-12 * nll)) /* sums of 200 doubles in another order */
        fail_msg("%s: a loss of %.15g, by hand %.15g", folders[i], found.nll_a, nll);
      if (!(fabs(found.nll_a - cpu.nll_a) <= 2.0 * most))
        fail_msg("%s: a loss of %.15g, on the CPU %.15g", folders[i], found.nll_a, cpu.nll_a);
      assert_true(memcmp(&found.nll_a, &again.nll_a, sizeof found.nll_a) == 0);
      gptvq_model_close(model);
    }
}

static void two_models_take_turns(void **state) {
  (void)state;
  static float logits[2][WINDOWS * LOGITS];
  double nll, kl;
  gptvq_model *a = open_model("llama", GPTVQ_COMPUTE_FP32), *b = open_model("packed", GPTVQ_COMPUTE_FP32);
  for (size_t w = 0; w < WINDOWS; w++) {
    run_by_hand(a, forward, tokens + w * CTX, 0.0, logits[0] + w * LOGITS);
    run_by_hand(b, forward, tokens + w * CTX, 0.0, logits[1] + w * LOGITS);
  }
  score_by_hand(logits[0], logits[1], &nll, &kl);
  gptvq_set_threads(1);
  const gptvq_compare_result one = evaluate(a, b, forward);
  gptvq_set_threads(2);
  const gptvq_compare_result two = evaluate(a, b, forward);
  assert_true(kl > 1e-4);
  assert_true(fabs(one.kl_mean - kl) <= 1e-12 + 1e-10 * kl); /* each term's logarithms have 2^-52 · 10 */
  assert_true(memcmp(&one.kl_mean, &two.kl_mean, sizeof one.kl_mean) == 0);
  assert_true(one.nll_a == two.nll_a && one.nll_b == two.nll_b && one.kl_max == two.kl_max);
  assert_true(evaluate(a, a, forward).kl_mean == 0.0);
  gptvq_model_close(a);
  gptvq_model_close(b);
}

/* Longer than what a workspace or an MLP takes at once: attention sees the whole window. Logits are off as
 * above, and are of the size of such a loss. */
static void windows_may_be_long(void **state) {
  (void)state;
  enum { LONG = 1100 };
  static int32_t ids[LONG];
  uint64_t random = 3;
  for (size_t i = 0; i < LONG; i++) ids[i] = (int32_t)gptvq_random_below(&random, TINY_VOCAB);
  const gptvq_windows one = {ids, 1, LONG, LONG - 90};
  gptvq_compare_result results[2] = {{.size = sizeof results[0]}, {.size = sizeof results[1]}};
  gptvq_model *model = open_model("tied", GPTVQ_COMPUTE_FP32);
  for (size_t i = 0; i < 2; i++)
    ok(gptvq_compare_windows(model, NULL, i == 0 ? NULL : forward, &one, NULL, &results[i], err));
  if (!(fabs(results[1].nll_a - results[0].nll_a) <= 2.0 * 5.0 * 0x1p-18 * results[0].nll_a))
    fail_msg("a loss of %.12g, on the CPU %.12g", results[1].nll_a, results[0].nll_a);
  gptvq_model_close(model);
}

/* More windows than go through a block together: those behind are no others'. Of this model the device takes
 * the head alone, so that it does not take long. */
static void groups_of_windows_are_one_text(void **state) {
  (void)state;
  enum { SHORT = 64, MANY = 1030 };
  gptvq_model *model = open_model("gemma2", GPTVQ_COMPUTE_FP32);
  const size_t together = gptvq_runner_together(model, SHORT, MANY, true);
  assert_true(together < MANY && together > MANY / 2);
  assert_int_equal(gptvq_runner_together(model, SHORT, MANY, false), 1);
  assert_int_equal(gptvq_runner_together(model, SHORT, 3, true), 3);
  assert_int_equal(gptvq_runner_together(model, (size_t)1 << 24, 3, true), 1);
  int32_t *ids = malloc(MANY * SHORT * sizeof *ids);
  assert_non_null(ids);
  uint64_t random = 3;
  for (size_t i = 0; i < MANY * SHORT; i++) ids[i] = (int32_t)gptvq_random_below(&random, TINY_VOCAB);
  const gptvq_windows parts[3] = {
      {ids, MANY, SHORT, 0}, {ids, MANY / 2, SHORT, 0}, {ids + MANY / 2 * SHORT, MANY - MANY / 2, SHORT, 0}};
  double nll[3];
  for (size_t i = 0; i < 3; i++) {
    gptvq_compare_result result = {.size = sizeof result};
    ok(gptvq_compare_windows(model, NULL, forward, &parts[i], NULL, &result, err));
    assert_int_equal(result.tokens, parts[i].count * (SHORT - 1));
    nll[i] = result.nll_a * (double)parts[i].count;
  }
  assert_true(fabs(nll[1] + nll[2] - nll[0]) <= 1e-11 * nll[0]); /* 65,000 doubles, 2^-53 each */
  free(ids);
  gptvq_model_close(model);
}

/* What is asked for fits into what is said to be needed; less is an error that leaves nothing behind. */
static void memory_is_what_was_said(void **state) {
  (void)state;
  if (on_test_card()) skip();
  gptvq_model *a = open_model("llama", GPTVQ_COMPUTE_FP32), *b = open_model("packed", GPTVQ_COMPUTE_FP32);
  const size_t vectors = 4 * CTX * TINY_HIDDEN * sizeof(float), /* gains, rotations */
      bytes = gptvq_eval_device_bytes(a, b, CTX);
  size_t free_bytes, total;
  assert_true(gptvq_eval_device_bytes(a, NULL, CTX) <= bytes);
  for (int enough = 0; enough < 2; enough++) {
    gptvq_compare_result result = {.size = sizeof result};
    gptvq_error error = {.message = ""};
    gptvq_shim_limit(device, enough ? bytes + vectors : bytes / 4);
    assert_int_equal(gptvq_compare_windows(a, b, forward, &windows, NULL, &result, &error),
                     enough ? GPTVQ_OK : GPTVQ_ERROR_MEMORY);
    ok(device->memory(device, &free_bytes, &total, err));
    assert_int_equal(free_bytes, total);
    assert_int_equal(gptvq_shim_pinned(device), 0);
  }
  gptvq_shim_limit(device, SIZE_MAX);
  gptvq_model_close(a);
  gptvq_model_close(b);
}

/* ---- the public functions ---- */

typedef struct heard {
  size_t count;
  char lines[8][200];
} heard;

static void hear(void *user, gptvq_log_level level, const char *message) {
  heard *h = user;
  (void)level;
  assert_true(h->count < 8);
  (void)snprintf(h->lines[h->count++], sizeof h->lines[0], "%s", message);
}

static void devices_have_names(void **state) {
  (void)state;
  static const char *const said[] = {
      "the CPU does of the forward passes: attention with capped scores, in 2 of 2 blocks",
      "the CPU does of the forward passes: gates other than SiLU, in 2 of 2 blocks"};
  gptvq_model *model = open_model("gemma2", GPTVQ_COMPUTE_FP32);
  gptvq_eval_device *opened;
  heard h = {0};
  const gptvq_callbacks callbacks = {.size = sizeof callbacks, .user = &h, .log = hear};
  ok(gptvq_eval_device_open("shim", model, model, NULL, &callbacks, &opened,
                            err)); /* lines of two are one's */
  assert_string_equal(gptvq_eval_device_name(opened), "shim");
  assert_int_equal(h.count, 3);
  assert_non_null(strstr(h.lines[0], "device: shim"));
  for (size_t i = 0; i < 2; i++) assert_string_equal(h.lines[1 + i], said[i]);
  gptvq_eval_device_close(opened);
  model->compute = GPTVQ_COMPUTE_INT8;
  h.count = 0;
  ok(gptvq_eval_device_open("shim", model, NULL, NULL, &callbacks, &opened, err));
  assert_int_equal(h.count, 3);
  assert_string_equal(h.lines[1], "the CPU does of the forward passes: int8 products, in 2 of 2 blocks");
  assert_string_equal(h.lines[2], "the CPU does of the forward passes: int8 products of the output head");
  gptvq_eval_device_close(opened);
  h.count = 0;
  for (size_t i = 0; i < 2; i++) {
    ok(gptvq_eval_device_open(i == 0 ? "cpu" : NULL, model, NULL, NULL, &callbacks, &opened, err));
    assert_string_equal(gptvq_eval_device_name(opened), "cpu");
    gptvq_eval_device_close(opened);
  }
  assert_int_equal(h.count, 0);
  assert_string_equal(gptvq_eval_device_name(NULL), "cpu");
  assert_int_equal(gptvq_eval_device_open("gpu", model, NULL, NULL, NULL, &opened, NULL),
                   GPTVQ_ERROR_ARGUMENT);
  assert_null(opened);
  gptvq_model_close(model);
}

static void a_text_is_evaluated_there(void **state) {
  (void)state;
  gptvq_model *model = open_model("llama", GPTVQ_COMPUTE_FP32);
  gptvq_tokenizer *tokenizer;
  gptvq_mapping text;
  gptvq_eval_options options = {.size = sizeof options, .ctx = CTX, .max_windows = 2};
  gptvq_eval_device *opened;
  gptvq_eval_result results[2] = {{.size = sizeof results[0]}, {.size = sizeof results[1]}};
  tiny_write_corpus("corpus.txt", 4 * CTX);
  ok(gptvq_map_file("corpus.txt", &text, err));
  ok(gptvq_tokenizer_open("llama", &tokenizer, err));
  ok(gptvq_eval_device_open("shim", model, NULL, &options, NULL, &opened, err));
  for (size_t i = 0; i < 2; i++) {
    options.device = i == 0 ? NULL : opened;
    ok(gptvq_eval_text(model, tokenizer, (const char *)text.data, text.size, &options, NULL, &results[i],
                       err));
  }
  assert_int_equal(results[0].tokens, results[1].tokens);
  assert_true(results[0].nll != results[1].nll); /* it was another one that multiplied */
  assert_true(fabs(results[0].nll - results[1].nll) < 1e-5);
  gptvq_eval_device_close(opened);
  gptvq_tokenizer_close(tokenizer);
  gptvq_unmap_file(&text);
  gptvq_model_close(model);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(scores_are_those_of_the_halves),
                                     cmocka_unit_test(two_models_take_turns),
                                     cmocka_unit_test(windows_may_be_long),
                                     cmocka_unit_test(groups_of_windows_are_one_text),
                                     cmocka_unit_test(memory_is_what_was_said),
                                     cmocka_unit_test(devices_have_names),
                                     cmocka_unit_test(a_text_is_evaluated_there)};
  return cmocka_run_group_tests(tests, make_scratch, drop_scratch);
}
