/* Whole runs of a tiny model on the shim, beside the CPU's: quality, the same bytes again, and a run that
 * changes its device between blocks. */
#include "tiny_model.h"

static const gptvq_model_options in_fp32 = {.size = sizeof in_fp32, .compute = GPTVQ_COMPUTE_FP32};
static const tiny_model tiny_two = {.architecture = "LlamaForCausalLM", .layers = 2};
enum { LAYERS = 14 };

static int make_scratch(void **state) {
  (void)state;
  if (tiny_enter_scratch() != 0) return -1;
  tiny_write(&tiny_two, "model");
  tiny_write_corpus("corpus.txt", 4000);
  return 0;
}

static gptvq_quantize_options options_on(const char *device) {
  gptvq_quantize_options o = tiny_quantize_options(GPTVQ_METHOD_GPTVQ);
  o.beam = 1; /* more take long on the shim */
  o.em_iterations = 2;
  o.dim = 4;
  o.index_bits = 5;
  o.device = device;
  o.calib_compute = GPTVQ_COMPUTE_FP32; /* on any processor */
  return o;
}

static void errors_of(const char *folder, double errors[LAYERS]) {
  gptvq_model *model;
  ok(gptvq_model_open(folder, &in_fp32, &model, err));
  assert_int_equal(gptvq_model_layer_count(model), LAYERS);
  for (size_t i = 0; i < LAYERS; i++) {
    gptvq_layer_info info = {.size = sizeof info};
    gptvq_model_get_layer(model, i, &info);
    errors[i] = info.error;
  }
  gptvq_model_close(model);
}

static void check_stages(const gptvq_quantize_report *r, bool on_device, bool corrects) {
  for (size_t s = 0; s < r->stage_count; s++) {
    const double seconds = r->stage_device_seconds[s];
    const char *name = r->stages[s].name;
    const bool never = strcmp(name, "writing") == 0;
    const bool device = strcmp(name, "forward, quantized") == 0 || strcmp(name, "Hessians") == 0 ||
                        strcmp(name, "factorisation") == 0 || strcmp(name, "loop") == 0 ||
                        strcmp(name, "k-means") == 0 || (corrects && strcmp(name, "mismatch") == 0);
    assert_true(seconds <= 1.01 * r->stages[s].seconds + 1e-3);
    if (!on_device || never) assert_true(seconds == 0.0);
    if (on_device && device) assert_true(seconds > 0.0);
  }
}

/* By how much the logits' distance of two runs on the CPU differs that have other windows: three standard
 * deviations of a difference, relative, from some seeds. */
static double other_draws(gptvq_quantize_options o) {
  enum { SEEDS = 6 };
  double sum = 0.0, squares = 0.0;
  o.device = "cpu";
  for (int seed = 1; seed <= SEEDS; seed++) {
    o.seed = (uint64_t)seed;
    ok(gptvq_quantize("model", "on-seed", &o, NULL, NULL, err));
    const double distance = tiny_logit_distance("on-seed", "model");
    sum += distance;
    squares += distance * distance;
  }
  const double mean = sum / SEEDS, variance = (squares - sum * mean) / (SEEDS - 1);
  return 3.0 * sqrt(2.0 * variance) / mean;
}

/* Without mismatch, in fp32 and with all layers of a block calibrated on the original's inputs, the Hessians
 * of the first block are the CPU's but for the order of fp32 sums (1e-6), and its errors within 1 %: a tie
 * that falls the other way is no loss. It moves the inputs of what comes behind (the next block; with
 * mismatch, as is the default, all layers behind q, k and v), which is another draw of their errors: on so
 * few tokens a few per cent for one layer, less for the mean of all; the logits' distance from the original's
 * then is that of another draw, such as other windows are. */
static void quality_is_the_cpu_s(void **state) {
  (void)state;
  static const char *const devices[] = {"cpu", "shim"};
  for (int chained = 0; chained < 2; chained++) {
    gptvq_quantize_report reports[2] = {{.size = sizeof reports[0]}, {.size = sizeof reports[0]}};
    double errors[2][LAYERS], distance[2], most = 0.0;
    for (int i = 0; i < 2; i++) {
      gptvq_quantize_options o = options_on(devices[i]);
      char folder[16];
      (void)snprintf(folder, sizeof folder, "on-%s", devices[i]);
      o.true_sequential = chained;
      if (!chained) o.mismatch = o.mismatch_stream = 0.0;
      if (!chained) o.calib_compute = GPTVQ_COMPUTE_FP32;
      o.force = 1;
      ok(gptvq_quantize("model", folder, &o, NULL, &reports[i], err));
      assert_string_equal(reports[i].device, devices[i]);
      check_stages(&reports[i], i == 1, chained);
      errors_of(folder, errors[i]);
      distance[i] = tiny_logit_distance(folder, "model");
      if (i == 0) most = other_draws(o);
    }
    for (size_t l = 0; l < (chained ? 3 : LAYERS / 2); l++) /* q, k and v come first */
      if (!(fabs(errors[1][l] / errors[0][l] - 1.0) < 0.01))
        fail_msg("layer %zu: error %g on the shim, %g on the CPU", l, errors[1][l], errors[0][l]);
    const double mean = reports[1].mean_error / reports[0].mean_error, logits = distance[1] / distance[0];
    if (!(fabs(mean - 1.0) < 0.05 && fabs(logits - 1.0) < most))
      fail_msg("mean errors %g of the CPU's, logits' distance %g, off by %g at most", mean, logits, most);
    print_message("logits' distance %g of the CPU's; other windows move it by %g at most\n", logits, most);
  }
}

typedef struct stopper {
  gptvq_callbacks callbacks;
  size_t layers;
} stopper;

static int stop(void *user, const gptvq_progress *progress) {
  stopper *s = user;
  return strcmp(progress->phase, "quantize") == 0 && progress->value == progress->value && ++s->layers > 7;
}

/* The first block on `first`, the second one on `second`, into `folder`. */
static void run_on_two(const char *first, const char *second, const char *folder) {
  gptvq_quantize_options o = options_on(first);
  gptvq_quantize_report report = {.size = sizeof report};
  stopper s = {.callbacks = {.size = sizeof s.callbacks, .user = &s, .progress = stop}};
  assert_int_equal(gptvq_quantize("model", folder, &o, &s.callbacks, NULL, NULL), GPTVQ_ERROR_CANCELLED);
  o.device = second;
  o.resume = 1;
  ok(gptvq_quantize("model", folder, &o, NULL, &report, err));
  assert_int_equal(report.blocks_resumed, 1);
  assert_string_equal(report.device, second);
}

/* After quality_is_the_cpu_s. */
static void a_run_may_change_its_device(void **state) {
  (void)state;
  double errors[3][LAYERS];
  run_on_two("shim", "shim", "shim-shim");
  assert_same_folder("shim-shim", "on-shim"); /* again, with an interruption: the same bytes */
  run_on_two("shim", "cpu", "shim-cpu");
  assert_same_file("shim-cpu/model-00001-of-00003.safetensors", "on-shim/model-00001-of-00003.safetensors");
  run_on_two("cpu", "shim", "cpu-shim");
  assert_same_file("cpu-shim/model-00001-of-00003.safetensors", "on-cpu/model-00001-of-00003.safetensors");
  errors_of("on-cpu", errors[0]);
  errors_of("shim-cpu", errors[1]);
  errors_of("cpu-shim", errors[2]);
  for (int i = 1; i < 3; i++) {
    double mean[2] = {0, 0};
    for (size_t l = 0; l < LAYERS; l++) {
      mean[0] += errors[0][l];
      mean[1] += errors[i][l];
    }
    assert_true(fabs(mean[1] / mean[0] - 1.0) < 0.05); /* as above */
  }
}

static void hear(void *user, gptvq_log_level level, const char *message) {
  (void)level;
  if (strstr(message, "of the forward passes") != NULL) (void)snprintf(user, 128, "%s", message);
}

/* What the device does not take, the CPU does: the same bytes again, and it is said. */
static void the_cpu_does_the_rest(void **state) {
  (void)state;
  tiny_write(&tiny_mixtral, "experts");
  for (int i = 0; i < 2; i++) {
    char said[128] = "";
    gptvq_quantize_options o = options_on("shim");
    gptvq_quantize_report report = {.size = sizeof report};
    const gptvq_callbacks callbacks = {.size = sizeof callbacks, .user = said, .log = hear};
    ok(gptvq_quantize("experts", i == 0 ? "experts-shim" : "experts-again", &o, &callbacks, &report, err));
    assert_string_equal(said, "the CPU does of the forward passes: experts, in 2 of 2 blocks");
    check_stages(&report, true, true); /* the attention is the device's */
  }
  assert_same_folder("experts-shim", "experts-again");
}

static int stop_at_judging(void *user, const gptvq_progress *progress) {
  (void)user;
  return strcmp(progress->phase, "compare") == 0;
}

/* The same folder, judged on the CPU and on the shim. Logits of either model are at most m from the CPU's:
 * five times 2^-18, grown twofold (tests/unit/test_device_eval.c), of logits that are products of 64 normed
 * numbers with a gain of 1.1 and 64 of 0.2 at most. A loss is twice as far, and KL = Σ p (log p − log q) as
 * well by log q, and by p 2 m Σ p |log p − log q|, which is at most KL + 2 / e, as t log t >= −1 / e. */
static void a_device_judges_as_the_cpu(void **state) {
  (void)state;
  const double m = 5.0 * 0x1p-18 * 2.0 * (64.0 * 1.1 * 0.2);
  gptvq_quantize_report reports[2] = {{.size = sizeof reports[0]}, {.size = sizeof reports[1]}};
  for (size_t i = 0; i < 2; i++) {
    const gptvq_callbacks callbacks = {.size = sizeof callbacks, .progress = stop_at_judging};
    gptvq_quantize_options o = options_on("cpu");
    const char *folder = i == 0 ? "judged-cpu" : "judged-shim";
    o.judge_tokens = 96;
    if (i == 1) {
      assert_int_equal(gptvq_quantize("model", folder, &o, &callbacks, NULL, NULL), GPTVQ_ERROR_CANCELLED);
      o.device = "shim";
      o.resume = 1;
    }
    ok(gptvq_quantize("model", folder, &o, NULL, &reports[i], err));
  }
  assert_same_folder("judged-cpu", "judged-shim");
  const gptvq_quantize_loss *cpu = &reports[0].loss_text, *shim = &reports[1].loss_text;
  assert_true(cpu->tokens > 0 && cpu->tokens == shim->tokens);
  const double most = 2.0 * m * (1.0 + cpu->kl + 2.0 / exp(1.0));
  assert_true(most < 0.05 * cpu->kl); /* it can tell */
  assert_true(fabs(log(shim->perplexity / cpu->perplexity)) <= 2.0 * m &&
              fabs(log(shim->perplexity_before / cpu->perplexity_before)) <= 2.0 * m &&
              fabs(shim->kl - cpu->kl) <= most);
  size_t judged = 0;
  for (size_t s = 0; s < reports[1].stage_count; s++)
    judged += strcmp(reports[1].stages[s].name, "losses at the end") == 0 &&
              reports[1].stage_device_seconds[s] > 0.0;
  assert_int_equal(judged, 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(quality_is_the_cpu_s), cmocka_unit_test(a_run_may_change_its_device),
      cmocka_unit_test(the_cpu_does_the_rest), cmocka_unit_test(a_device_judges_as_the_cpu)};
  return cmocka_run_group_tests(tests, make_scratch, tiny_drop_scratch);
}
