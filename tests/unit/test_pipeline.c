/* quant: whole models through gptvq_quantize and gptvq_export_hf. */
#include "quant/plan/memory.h"
#include "quant/plan/time.h"
#include "tiny_model.h"
#include "base/memory.h"
#include "eval/eval.h"
#include "quant/run/pipeline.h"

#include <gptvq/gptvq.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

static const gptvq_model_options in_fp32 = {.size = sizeof in_fp32, .compute = GPTVQ_COMPUTE_FP32};

static int make_scratch(void **state) {
  (void)state;
  if (tiny_enter_scratch() != 0) return -1;
  tiny_write(&tiny_llama, "llama");
  tiny_write(&tiny_mixtral, "mixtral");
  tiny_write_corpus("corpus.txt", 4000);
  return 0;
}

/* Bytes of everything named LINEAR.*, counted from the tensors of the folder, biases, sinks and the vectors
 * of delta nets aside. */
static uint64_t linear_bytes(const char *folder) {
  gptvq_checkpoint *checkpoint;
  uint64_t bytes = 0;
  ok(gptvq_checkpoint_open(folder, NULL, &checkpoint, err));
  for (size_t i = 0; i < gptvq_checkpoint_tensor_count(checkpoint); i++) {
    const gptvq_tensor *tensor = gptvq_checkpoint_tensor_at(checkpoint, i);
    const char *dot = strrchr(tensor->name, '.');
    if (strcmp(dot, ".A_log") == 0 || strcmp(dot, ".dt_bias") == 0) continue;
    const bool small = strstr(dot, "bias") != NULL || strcmp(dot, ".sinks") == 0;
    if (strcmp(dot, ".weight") != 0 && !small) bytes += tensor->bytes;
  }
  gptvq_checkpoint_close(checkpoint);
  return bytes;
}

/* The loss is that of random weights, which nothing compresses well: 4 bits leave about 10 % per layer in
 * amplitude, and 2 blocks of 4 such steps add up to less than 50 %. 3-bit 2-D VQ: about twice that. A wrong
 * tensor gives more than 100 %. */
static void every_architecture_and_method(void **state) {
  (void)state;
  const tiny_model *models[] = {
      &tiny_llama,     &tiny_tied,    &tiny_mixtral,     &tiny_qwen2,     &tiny_qwen3,      &tiny_phi3,
      &tiny_gemma2,    &tiny_smollm3, &tiny_gemma3,      &tiny_olmo3,     &tiny_exaone4,    &tiny_qwen3_moe,
      &tiny_qwen2_moe, &tiny_olmoe,   &tiny_granite,     &tiny_glm4,      &tiny_ministral3, &tiny_gpt_oss,
      &tiny_deepseek,  &tiny_qwen3_5, &tiny_qwen3_5_moe, &tiny_qwen3_next};
  const gptvq_method methods[] = {GPTVQ_METHOD_GPTVQ, GPTVQ_METHOD_GPTQ, GPTVQ_METHOD_RTN,
                                  GPTVQ_METHOD_KMEANS};
  for (size_t m = 0; m < sizeof models / sizeof models[0]; m++) {
    tiny_write(models[m], "any");
    for (size_t method = 0; method < 4; method++) {
      gptvq_quantize_options o = tiny_quantize_options(methods[method]);
      gptvq_quantize_report report = {.size = sizeof report};
      if (methods[method] == GPTVQ_METHOD_RTN || methods[method] == GPTVQ_METHOD_KMEANS) o.calib = NULL;
      o.force = 1;
      ok(gptvq_quantize("any", "any-packed", &o, NULL, &report, err));
      gptvq_free(report.expert_tokens);
      double distance = tiny_logit_distance("any-packed", "any"), bound = o.index_bits == 4 ? 0.5 : 0.8;
      if (!(distance < bound))
        fail_msg("%s, method %zu: logits are off by %g", models[m]->architecture, method, distance);
      uint64_t bytes = linear_bytes("any-packed");
      assert_int_equal(report.linear_bytes, bytes);
      assert_true(report.bits_per_value == 8.0 * (double)bytes / (double)report.linear_values);
      assert_true(report.mean_error > 0 && report.mean_error < 0.3);
      assert_true(report.peak_bytes > 0);
      assert_true(report.cpu_seconds > 0 && report.cpu_seconds < 100.0 * report.seconds);
      assert_false(gptvq_path_exists("any-packed.partial"));
      assert_false(gptvq_path_exists("any-packed/resume.json"));
      assert_true(gptvq_path_exists("any-packed/tokenizer.json"));

      gptvq_model *packed;
      gptvq_model_info info = {.size = sizeof info};
      ok(gptvq_model_open("any-packed", &in_fp32, &packed, err));
      gptvq_model_get_info(packed, &info);
      assert_true(info.packed);
      assert_int_equal(info.linear_bytes, bytes);
      assert_null(strchr(gptvq_model_quantization_json(packed), '/'));
      assert_non_null(strstr(gptvq_model_quantization_json(packed), "bits_per_value"));
      gptvq_model_close(packed);

      /* every weight is rounded once to bf16: 2^-9 relative each, and no more than a few times that in the
       * end, unless a token's choice of experts is so close that it goes another way, where all may change
       * for it: two of the 40 are √(2 / 40) */
      const double limit = models[m]->sparse ? 0.23 : 0.03;
      ok(gptvq_export_hf("any-packed", "any-hf", 1, NULL, err));
      distance = tiny_logit_distance("any-hf", "any-packed");
      if (!(distance < limit))
        fail_msg("%s, method %zu: the export is off by %g", models[m]->architecture, method, distance);
      ok(gptvq_model_open("any-hf", &in_fp32, &packed, err));
      gptvq_model_get_info(packed, &info);
      assert_false(info.packed);
      assert_null(gptvq_model_quantization_json(packed));
      gptvq_model_close(packed);
    }
    ok(gptvq_remove_tree("any", err));
  }
}

/* Half of W x is (W / 2) x, to the bit: halves scaled by a half are quantized, the mismatch of their stream
 * made up for, as halves of weights half as large are. */
static void scaled_halves_are_scaled_weights(void **state) {
  (void)state;
  tiny_model scaled = tiny_granite, weights = tiny_granite;
  scaled.keys = "\"residual_multiplier\": 0.5";
  weights.keys = NULL;
  weights.outputs = 0.5;
  tiny_write(&scaled, "scaled");
  tiny_write(&weights, "weights");
  assert_true(tiny_logit_distance("scaled", "weights") == 0.0);
  gptvq_quantize_options o = tiny_quantize_options(GPTVQ_METHOD_GPTVQ);
  assert_true(o.mismatch_stream > 0);
  ok(gptvq_quantize("scaled", "scaled-packed", &o, NULL, NULL, err));
  ok(gptvq_quantize("weights", "weights-packed", &o, NULL, NULL, err));
  assert_true(tiny_logit_distance("scaled-packed", "scaled") > 0.0);
  assert_true(tiny_logit_distance("scaled-packed", "weights-packed") == 0.0);
}

/* The fixtures that transformers wrote: shards, windows, rope variants, biases, experts under their real
 * names. */
static void every_golden_model(void **state) {
  (void)state;
  const char *root = TEST_SOURCE_DIR "/tests/golden/model";
  DIR *dir = opendir(root);
  size_t models = 0;
  assert_non_null(dir);
  for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
    char *folder = gptvq_join_path(root, entry->d_name);
    if (entry->d_name[0] != '.' && gptvq_is_folder(folder)) {
      gptvq_quantize_options o = tiny_quantize_options(GPTVQ_METHOD_GPTVQ);
      gptvq_quantize_report report = {.size = sizeof report};
      gptvq_error error = {0};
      gptvq_model *model, *original;
      gptvq_session *session;
      o.calib = "self";
      o.calib_samples = 4;
      o.calib_length = 32;
      o.group_size = 256;
      o.force = 1;
      if (gptvq_quantize(folder, "golden", &o, NULL, &report, &error) != GPTVQ_OK)
        fail_msg("%s: %s", entry->d_name, error.message);
      gptvq_free(report.expert_tokens);
      ok(gptvq_export_hf("golden", "golden-hf", 1, NULL, err));
      ok(gptvq_model_open("golden", &in_fp32, &model, err));
      ok(gptvq_model_open(folder, &in_fp32, &original, err));
      assert_int_equal(report.layers, gptvq_model_layer_count(original));
      assert_int_equal(model->info.parameters, original->info.parameters);
      assert_int_equal(model->info.linear_values, original->info.linear_values);
      float *logits = calloc(model->config.vocab, sizeof *logits);
      const int32_t tokens[3] = {3, 1, 2};
      ok(gptvq_session_create(model, 3, &session, err));
      ok(gptvq_session_forward(session, tokens, 3, logits, 0, err));
      for (size_t i = 0; i < model->config.vocab; i++) assert_true(isfinite(logits[i]));
      free(logits);
      gptvq_session_destroy(session);
      gptvq_model_close(original);
      gptvq_model_close(model);
      models++;
    }
    free(folder);
  }
  closedir(dir);
  assert_true(models >= 10);
}

static void threads_do_not_change_a_byte(void **state) {
  (void)state;
  for (int self = 0; self < 2; self++) {
    gptvq_quantize_options o = tiny_quantize_options(GPTVQ_METHOD_GPTVQ);
    if (self) o.calib = "self";
    o.force = 1;
    gptvq_set_threads(1);
    ok(gptvq_quantize("mixtral", "one", &o, NULL, NULL, err));
    gptvq_set_threads(2);
    ok(gptvq_quantize("mixtral", "two", &o, NULL, NULL, err));
    gptvq_set_threads(3);
    o.seed++;
    ok(gptvq_quantize("mixtral", "three", &o, NULL, NULL, err));
    gptvq_set_threads(0);
    assert_same_folder("one", "two");
    assert_true(tiny_logit_distance("one", "three") > 0); /* another seed is another calibration */
  }
}

typedef struct watcher {
  size_t stop_after, layers; /* cancels when this layer is done */
  size_t stop_at, events;    /* cancels at this call, whatever it reports */
  char warnings[4096];
} watcher;

static int watch_progress(void *user, const gptvq_progress *progress) {
  watcher *w = user;
  if (++w->events == w->stop_at) return 1;
  if (strcmp(progress->phase, "quantize") != 0 || isnan(progress->value))
    return 0; /* NaN: a calibration pass */
  assert_true(progress->value >= 0);
  assert_int_equal(progress->done, progress->done <= progress->total ? progress->done : 0);
  w->layers++;
  return w->layers == w->stop_after;
}

static void watch_log(void *user, gptvq_log_level level, const char *line) {
  watcher *w = user;
  size_t used = strlen(w->warnings);
  if (level == GPTVQ_LOG_WARNING) (void)snprintf(w->warnings + used, sizeof w->warnings - used, "%s\n", line);
}

static gptvq_status watched(const char *in, const char *out, const gptvq_quantize_options *o, watcher *w,
                            gptvq_quantize_report *report, gptvq_error *error) {
  gptvq_callbacks callbacks = {sizeof callbacks, w, watch_log, watch_progress};
  return gptvq_quantize(in, out, o, &callbacks, report, error);
}

enum { LAYERS = 21, PER_BLOCK = 7 }; /* of the tiny Llama */

static void interrupted_and_resumed_ends_with_the_same_bytes(void **state) {
  (void)state;
  for (int variant = 0; variant < 4; variant++) {
    gptvq_quantize_options o = tiny_quantize_options(variant == 3 ? GPTVQ_METHOD_KMEANS : GPTVQ_METHOD_GPTVQ);
    gptvq_error error;
    o.true_sequential = variant != 1;
    gptvq_quantize_report whole = {.size = sizeof whole};
    if (variant == 2) { /* what the model writes is kept, for calibration and for the end */
      o.calib_self = 0.5;
      o.judge_tokens = 96;
    }
    ok(gptvq_quantize("llama", "whole", &o, NULL, &whole, err));
    const uint64_t judged = variant == 2 ? 2 * 47 : 0;
    assert_true(whole.loss_text.tokens == judged && whole.loss_self.tokens == judged &&
                !whole.loss_text.seen);
    const size_t stops[] = {8, 17, 1, 7, 14, 21};
    for (size_t s = 0; s < (variant == 0 ? 6u : 2u); s++) {
      watcher w = {.stop_after = stops[s]};
      gptvq_quantize_report report = {.size = sizeof report};
      assert_int_equal(watched("llama", "cut", &o, &w, NULL, &error), GPTVQ_ERROR_CANCELLED);
      assert_int_equal(w.layers, stops[s]);
      assert_false(gptvq_path_exists("cut"));
      size_t finished = (stops[s] - 1) / PER_BLOCK;
      if (finished == 0)
        assert_false(gptvq_path_exists("cut.partial")); /* nothing to resume: nothing stays */
      else assert_true(gptvq_path_exists("cut.partial/resume.json"));
      o.resume = 1;
      if (finished > 0)
        tiny_write_text("cut.partial", "model-00004-of-00004.safetensors.tmp.4711",
                        "what a killed process leaves");
      w = (watcher){0};
      ok(watched("llama", "cut", &o, &w, &report, err));
      assert_int_equal(w.layers, LAYERS - finished * PER_BLOCK);
      assert_int_equal(report.blocks_resumed, finished);
      assert_int_equal(report.layers, LAYERS);
      assert_memory_equal(&report.loss_text, &whole.loss_text, sizeof whole.loss_text);
      assert_memory_equal(&report.loss_self, &whole.loss_self, sizeof whole.loss_self);
      assert_same_folder("whole", "cut");
      assert_false(gptvq_path_exists("cut.partial"));
      ok(gptvq_remove_tree("cut", err));
      o.resume = 0;
    }
    /* in the middle of calibration passes: 6 (or 2) of them with 6 windows, and 7 layers, make 43 (or 19)
     * calls a block */
    const size_t calls[] = {2, 30, 45, 55};
    for (size_t s = 0; variant < 2 && s < sizeof calls / sizeof calls[0]; s++) {
      watcher w = {.stop_at = calls[s]};
      assert_int_equal(watched("llama", "cut", &o, &w, NULL, &error), GPTVQ_ERROR_CANCELLED);
      o.resume = 1;
      ok(gptvq_quantize("llama", "cut", &o, NULL, NULL, err));
      o.resume = 0;
      assert_same_folder("whole", "cut");
      ok(gptvq_remove_tree("cut", err));
    }
    ok(gptvq_remove_tree("whole", err));
  }
}

static void a_partial_run_is_not_lost_or_mixed_up(void **state) {
  (void)state;
  gptvq_quantize_options o = tiny_quantize_options(GPTVQ_METHOD_GPTVQ), other;
  gptvq_error error;
  watcher w = {.stop_after = 10};
  assert_int_equal(watched("llama", "p", &o, &w, NULL, &error), GPTVQ_ERROR_CANCELLED);
  /* without --resume or --force it stays as it is */
  assert_int_equal(gptvq_quantize("llama", "p", &o, NULL, NULL, &error), GPTVQ_ERROR_IO);
  assert_non_null(strstr(error.message, "`resume`"));
  other = o;
  other.resume = 1;
  other.index_bits = 5;
  assert_int_equal(gptvq_quantize("llama", "p", &other, NULL, NULL, &error), GPTVQ_ERROR_ARGUMENT);
  assert_non_null(strstr(error.message, "`index_bits` was 6, is now 5"));
  other = o;
  other.resume = 1;
  other.calib_length = 47;
  assert_int_equal(gptvq_quantize("llama", "p", &other, NULL, NULL, &error), GPTVQ_ERROR_ARGUMENT);
  assert_non_null(strstr(error.message, "`calib_length` was 48, is now 47"));
  tiny_write_corpus("corpus2.txt", 3999);
  other = o;
  other.resume = 1;
  other.calib = "corpus2.txt";
  assert_int_equal(gptvq_quantize("llama", "p", &other, NULL, NULL, &error), GPTVQ_ERROR_ARGUMENT);
  assert_non_null(strstr(error.message, "other tokens"));
  other = o;
  other.resume = 1;
  tiny_model changed = tiny_llama; /* the same config and shapes, other weights */
  changed.bad_name = "layers.2.input_layernorm";
  changed.bad = 0.25f;
  tiny_write(&changed, "sibling");
  assert_int_equal(gptvq_quantize("sibling", "p", &other, NULL, NULL, &error), GPTVQ_ERROR_ARGUMENT);
  assert_non_null(strstr(error.message, "model.tensors"));
  assert_true(gptvq_path_exists("p.partial/model-00001-of-00004.safetensors"));
  /* cut again, and again, and it still ends the same */
  w = (watcher){.stop_after = 9};
  assert_int_equal(watched("llama", "p", &other, &w, NULL, &error), GPTVQ_ERROR_CANCELLED);
  ok(gptvq_quantize("llama", "p", &other, NULL, NULL, err));
  ok(gptvq_quantize("llama", "whole", &o, NULL, NULL, err));
  assert_same_folder("whole", "p");
  /* --force starts over and replaces */
  w = (watcher){.stop_after = 10};
  o.force = 1;
  assert_int_equal(watched("llama", "p", &o, &w, NULL, &error), GPTVQ_ERROR_CANCELLED);
  assert_same_folder("whole", "p"); /* the old output is untouched until the end */
  o.seed = 99;
  ok(gptvq_quantize("llama", "p", &o, NULL, NULL, err));
  assert_true(tiny_logit_distance("whole", "p") > 0);
  /* a folder that is not ours is left alone */
  ok(gptvq_make_folder("q.partial", err));
  tiny_write_text("q.partial", "thesis.doc", "years of work");
  assert_int_equal(gptvq_quantize("llama", "q", &o, NULL, NULL, &error), GPTVQ_ERROR_IO);
  assert_true(gptvq_path_exists("q.partial/thesis.doc"));
}

static void expect_refused(const char *in, const char *out, const gptvq_quantize_options *o,
                           gptvq_status expected, const char *message) {
  gptvq_error error = {0};
  bool existed = gptvq_path_exists(out);
  char partial[256];
  (void)snprintf(partial, sizeof partial, "%s.partial", out);
  gptvq_status status = gptvq_quantize(in, out, o, NULL, NULL, &error);
  if (status != expected || strstr(error.message, message) == NULL)
    fail_msg("%s -> %s: %s \"%s\", expected %s with \"%s\"", in, out, gptvq_status_name(status),
             error.message, gptvq_status_name(expected), message);
  assert_true(gptvq_path_exists(out) == existed);
  assert_false(gptvq_path_exists(partial));
}

static void refusals_leave_nothing_behind(void **state) {
  (void)state;
  gptvq_quantize_options o = tiny_quantize_options(GPTVQ_METHOD_RTN), bad;
  ok(gptvq_quantize("llama", "done", &o, NULL, NULL, err));
  expect_refused("llama", "done", &o, GPTVQ_ERROR_IO, "`force`");
  expect_refused("done", "again", &o, GPTVQ_ERROR_UNSUPPORTED, "already quantized");
  expect_refused("absent", "out", &o, GPTVQ_ERROR_IO, "absent");
  expect_refused("llama", "absent/out", &o, GPTVQ_ERROR_IO, "absent/out");
  expect_refused("corpus.txt", "out", &o, GPTVQ_ERROR_IO, "not a model folder");
  bad = o;
  bad.bits = -1;
  expect_refused("llama", "out", &bad, GPTVQ_ERROR_ARGUMENT, "bits");
  bad = tiny_quantize_options(GPTVQ_METHOD_GPTVQ);
  bad.calib = "corpus.txt:0";
  expect_refused("llama", "out", &bad, GPTVQ_ERROR_ARGUMENT, "`calib`");
  bad.calib = "absent.txt";
  expect_refused("llama", "out", &bad, GPTVQ_ERROR_IO, "absent.txt");
  tiny_write_text(".", "empty.txt", "");
  bad.calib = "empty.txt";
  expect_refused("llama", "out", &bad, GPTVQ_ERROR_DATA, "0 tokens, at least 48");
  tiny_write_corpus("short.txt", 47);
  bad.calib = "short.txt";
  expect_refused("llama", "out", &bad, GPTVQ_ERROR_DATA, "47 tokens, one window needs 48");
  bad.calib = "corpus.txt";
  bad.calib_samples = 0;
  expect_refused("llama", "out", &bad, GPTVQ_ERROR_ARGUMENT, "`calib_samples`");
  bad.calib_samples = SIZE_MAX / 4;
  expect_refused("llama", "out", &bad, GPTVQ_ERROR_ARGUMENT, "`calib_samples`");
  bad.memory_limit = (size_t)1 << 20;
  bad.calib_samples = 4;
  expect_refused("llama", "out", &bad, GPTVQ_ERROR_ARGUMENT, "`memory_limit`");
  bad.memory_limit = 0;
  bad.calib_samples = 1;
  bad.calib_length = 129;
  expect_refused("llama", "out", &bad, GPTVQ_ERROR_ARGUMENT, "context of 128");
}

static void numbers_that_are_not_finite_stop_the_run(void **state) {
  (void)state;
  gptvq_quantize_options o = tiny_quantize_options(GPTVQ_METHOD_GPTVQ);
  tiny_model m = tiny_llama;
  m.bad_name = "layers.0.mlp.up_proj";
  m.bad = NAN;
  tiny_write(&m, "nan");
  /* the first layers only: an early NaN must be found by whoever sees it first, and nothing stays */
  gptvq_error error = {0};
  assert_int_equal(gptvq_quantize("nan", "nan-out", &o, NULL, NULL, &error), GPTVQ_ERROR_NUMERIC);
  assert_non_null(strstr(error.message, "model.layers.0.mlp.up_proj"));
  assert_false(gptvq_path_exists("nan-out.partial"));
  /* finite weights, infinite activations in block 1: block 0 is done and stays */
  m.bad_name = "layers.1.input_layernorm";
  m.bad = 3e38f;
  ok(gptvq_remove_tree("nan", err));
  tiny_write(&m, "nan");
  assert_int_equal(gptvq_quantize("nan", "nan-out", &o, NULL, NULL, &error), GPTVQ_ERROR_NUMERIC);
  assert_non_null(strstr(error.message, "model.layers.1.self_attn.q_proj"));
  assert_true(gptvq_path_exists("nan-out.partial/model-00001-of-00004.safetensors"));
  assert_false(gptvq_path_exists("nan-out.partial/model-00002-of-00004.safetensors"));
}

static void thin_calibration_is_said(void **state) {
  (void)state;
  gptvq_quantize_options o = tiny_quantize_options(GPTVQ_METHOD_GPTVQ);
  gptvq_error error;
  static watcher w;
  o.calib_samples = 1;
  o.calib_length = 16;
  if (watched("mixtral", "thin", &o, &w, NULL, &error) != GPTVQ_OK) fail_msg("%s", error.message);
  assert_non_null(strstr(
      w.warnings, "only 16 calibration tokens for the 64 input columns of model.layers.0.self_attn.q_proj"));
  assert_non_null(strstr(w.warnings,
                         "no calibration token reaches model.layers.0.block_sparse_moe.experts.3.w1, "
                         "model.layers.0.block_sparse_moe.experts.3.w3"));
  assert_non_null(
      strstr(w.warnings, "no calibration token reaches model.layers.1.block_sparse_moe.experts.3.w2"));
  assert_non_null(strstr(w.warnings,
                         "block 0: 3 of 4 experts saw fewer calibration tokens than their 64 input "
                         "columns; the fewest, "));
  assert_true(tiny_logit_distance("thin", "mixtral") < 1.0); /* a complete model all the same */
}

/* A file that may not grow beyond 4 KiB stands for a full disk. */
static void a_full_disk_leaves_nothing(void **state) {
  (void)state;
  struct rlimit before, low;
  gptvq_quantize_options o = tiny_quantize_options(GPTVQ_METHOD_RTN);
  gptvq_error error = {0};
  ok(gptvq_quantize("llama", "for-export", &o, NULL, NULL, err));
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
  void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
  low = before;
  low.rlim_cur = 4096;
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
  gptvq_status status = gptvq_quantize("llama", "full", &o, NULL, NULL, &error);
  gptvq_status exported = gptvq_export_hf("for-export", "full-hf", 0, NULL, NULL);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
  (void)signal(SIGXFSZ, handler);
  assert_int_equal(status, GPTVQ_ERROR_IO);
  assert_non_null(strstr(error.message, "model-00001-of-00004.safetensors"));
  assert_false(gptvq_path_exists("full"));
  assert_false(gptvq_path_exists("full.partial"));
  assert_int_equal(exported, GPTVQ_ERROR_IO);
  assert_false(gptvq_path_exists("full-hf"));
  assert_false(gptvq_path_exists("full-hf.partial"));
}

static void export_refuses_what_it_cannot_do(void **state) {
  (void)state;
  gptvq_error error = {0};
  gptvq_quantize_options o = tiny_quantize_options(GPTVQ_METHOD_RTN);
  assert_int_equal(gptvq_export_hf("llama", "e", 0, NULL, &error), GPTVQ_ERROR_ARGUMENT);
  assert_non_null(strstr(error.message, "not a packed model"));
  ok(gptvq_quantize("llama", "e", &o, NULL, NULL, err));
  assert_int_equal(gptvq_export_hf("e", "llama", 0, NULL, &error), GPTVQ_ERROR_IO);
  assert_non_null(strstr(error.message, "`force`"));
  assert_int_equal(gptvq_export_hf("e", "e", 1, NULL, &error), GPTVQ_ERROR_ARGUMENT);
  /* what comes out is the decoded weights, rounded once, under the original's tensors */
  ok(gptvq_export_hf("e", "e-hf", 0, NULL, err));
  gptvq_checkpoint *original, *exported;
  gptvq_model *packed;
  ok(gptvq_checkpoint_open("llama", NULL, &original, err));
  ok(gptvq_checkpoint_open("e-hf", NULL, &exported, err));
  ok(gptvq_model_open("e", &in_fp32, &packed, err));
  assert_int_equal(gptvq_checkpoint_tensor_count(original), gptvq_checkpoint_tensor_count(exported));
  for (size_t i = 0; i < gptvq_checkpoint_tensor_count(original); i++) {
    const gptvq_tensor *a = gptvq_checkpoint_tensor_at(original, i),
                       *b = gptvq_checkpoint_tensor_at(exported, i);
    assert_string_equal(a->name, b->name);
    assert_int_equal(a->type, b->type);
    assert_int_equal(a->bytes, b->bytes);
  }
  const gptvq_linear *linear = &packed->blocks[1].linears[packed->blocks[1].o];
  static float weights[TINY_HIDDEN * TINY_HEADS * TINY_HEAD];
  static uint16_t rounded[TINY_HIDDEN * TINY_HEADS * TINY_HEAD];
  gptvq_linear_decode(linear, weights);
  const gptvq_tensor *tensor = gptvq_checkpoint_find(exported, "model.layers.1.self_attn.o_proj.weight");
  assert_int_equal(tensor->bytes, sizeof rounded);
  memcpy(rounded, tensor->data, sizeof rounded);
  for (size_t i = 0; i < linear->rows * linear->cols; i++)
    assert_int_equal(rounded[i], gptvq_float_to_bf16(weights[i]));
  gptvq_model_close(packed);
  gptvq_checkpoint_close(exported);
  gptvq_checkpoint_close(original);
}

/* Without data no Hessian counts. The text is written with as many windows together as an explicit limit
 * leaves room for; what is free at the moment does not change them, but the pages that stay. No budget is
 * raised to keep a limit. */
static void memory_of_a_plan(const gptvq_model *model, const gptvq_quantize_options *options) {
  gptvq_quantize_options o = *options;
  gptvq_resolved resolved;
  gptvq_memory_plan plain, plan;
  o.method = GPTVQ_METHOD_RTN;
  o.dim = 1;
  o.bits = 4.125;
  o.mismatch = o.mismatch_stream = 0.0;
  ok(gptvq_resolve(&o, &resolved, err));
  gptvq_memory_plan_make(model, &resolved, o.calib_samples, 0.0, 0.0, false, &plain);
  assert_true(plain.peak > 0.0 && plain.peak < 4.0 * 20000.0 * 20000.0);
  /* only of long runs the time is estimated: each weight takes 2 flop a token */
  resolved.options.calib_length = 1;
  resolved.options.calib_samples = (size_t)(4e12 / 2.0 / (double)model->info.linear_values);
  assert_true(gptvq_time_plan_pays(model, &resolved));
  resolved.options.calib_samples = 1;
  assert_false(gptvq_time_plan_pays(model, &resolved));
  o = *options;
  o.calib_samples = 16;
  o.calib = NULL; /* the model writes */
  ok(gptvq_resolve(&o, &resolved, err));
  gptvq_memory_plan_make(model, &resolved, o.calib_samples, 0.0, 0.0, false, &plain);
  for (int all = 0; all < 2; all++) {
    gptvq_memory_plan_make(model, &resolved, o.calib_samples, 0.0, plain.phases[GPTVQ_MEMORY_TEXT] / 2.0,
                           all != 0, &plan);
    assert_int_equal(plan.room.caches < plain.room.caches, all);
    assert_true(plan.phases[GPTVQ_MEMORY_TEXT] < plain.phases[GPTVQ_MEMORY_TEXT] && !plan.room.pages);
    assert_true(plan.guide_budget <= plain.guide_budget && plan.hessian_budget <= plain.hessian_budget);
  }
  gptvq_memory_plan_make(model, &resolved, o.calib_samples, 0.0, 64e9, true, &plan);
  assert_true(plan.room.caches == plain.room.caches && plan.room.pages);
  assert_int_equal(plan.phases[GPTVQ_MEMORY_JUDGE] > 0.0, o.judge_tokens > 0);
  /* to be judged takes both models, a block of each, and their logits */
  o.judge_tokens = 64;
  ok(gptvq_resolve(&o, &resolved, err));
  gptvq_memory_plan_make(model, &resolved, o.calib_samples, 0.0, 64e9, true, &plan);
  assert_true(plan.phases[GPTVQ_MEMORY_JUDGE] >= 2.0 * (double)gptvq_runner_bytes(model, o.calib_length, 1));
  /* the windows that it is judged by are written, too */
  gptvq_memory_plan_make(model, &resolved, o.calib_samples, 0.0, 0.0, false, &plan);
  assert_true(plan.phases[GPTVQ_MEMORY_TEXT] > plain.phases[GPTVQ_MEMORY_TEXT]);
  plain = plan;
  /* of a team: all of the text, some windows of both streams */
  const size_t values = o.calib_length * model->config.hidden;
  const bool half = gptvq_run_keeps_half(&resolved);
  gptvq_memory_plan_make(model, &resolved, 4, 0.0, 0.0, false, &plan);
  assert_true(plan.phases[GPTVQ_MEMORY_TEXT] == plain.phases[GPTVQ_MEMORY_TEXT]);
  assert_true(plain.phases[GPTVQ_MEMORY_BLOCKS] - plan.phases[GPTVQ_MEMORY_BLOCKS] ==
              2.0 * (double)(gptvq_stream_bytes(16, values, half) - gptvq_stream_bytes(4, values, half)));
}

/* The estimate counts what a wide layer needs, the correction's share of it can be saved, and a run that does
 * not fit is told so. */
static void memory_is_estimated(void **state) {
  (void)state;
  gptvq_model *model;
  gptvq_quantize_options o = tiny_quantize_options(GPTVQ_METHOD_GPTVQ), plain;
  gptvq_resolved resolved, without_mismatch;
  ok(gptvq_model_open(TEST_SOURCE_DIR "/tests/golden/model/llama", &in_fp32, &model, err));
  o.calib_length = 32;
  o.calib_samples = 4;
  ok(gptvq_resolve(&o, &resolved, err));
  gptvq_linear *down = &model->blocks[0].linears[model->blocks[0].mlps[0].down];
  down->cols = 20000; /* 4 bytes · cols² for the inverse factor and 8 cols² of Hessian, at least */
  plain = o;
  plain.mismatch = plain.mismatch_stream = 0.0;
  ok(gptvq_resolve(&plain, &without_mismatch, err));
  double square = 20000.0 * 20000.0, with = gptvq_blocks_peak(model, &resolved, true, 0),
         without = gptvq_blocks_peak(model, &without_mismatch, false, 0);
  assert_true(with > 12.0 * square && with < 14.0 * square && with > without);
  assert_true(without > 12.0 * square && without < 14.0 * square);
  o.calib_samples = 8;
  ok(gptvq_resolve(&o, &resolved, err));
  double stream = 4.0 * 4.0 * 32.0 * (double)model->config.hidden;
  assert_true(fabs(gptvq_blocks_peak(model, &resolved, true, 0) - with - 2.0 * stream) <= 1e-9 * with);
  /* factored codebooks: in a layer high enough for solving to be the peak, at least the R × R blocks of all
   * rows of the left factor; whole codebooks take 41 bytes a number (update) */
  gptvq_quantize_options whole = plain, factored;
  whole.dim = 1;
  whole.bits = 0;
  whole.index_bits = 4;
  whole.group_size = 64;
  factored = whole;
  factored.svd_rank = 16;
  gptvq_resolved whole_books, factors;
  ok(gptvq_resolve(&whole, &whole_books, err));
  ok(gptvq_resolve(&factored, &factors, err));
  size_t rows = down->rows;
  down->rows = 60000;
  double tiles = 60000.0 * 20000.0 / 64.0, more = gptvq_blocks_peak(model, &factors, false, 0) -
                                                  gptvq_blocks_peak(model, &whole_books, false, 0);
  assert_true(more > 8.0 * tiles * 16 * 16 - 41.0 * tiles * 16);
  down->rows = rows;
  memory_of_a_plan(model, &o);
  char text[256];
  assert_false(gptvq_memory_warning(5e9, 4e9, 6e9, text, sizeof text));
  assert_false(gptvq_memory_warning(5e9, 4e9, 0.0, text, sizeof text));
  assert_true(gptvq_memory_warning(5e9, 4e9, 4.5e9, text, sizeof text));
  assert_string_equal(text, "this takes about 5.0 GB of memory at its peak, but only 4.5 GB are available: "
                            "4.0 GB with `mismatch` 0 and `mismatch_stream` 0");
  assert_true(gptvq_memory_warning(5e9, 4e9, 3e9, text, sizeof text));
  assert_non_null(strstr(text, "`mismatch_stream` 0 and less with fewer `calib_samples`"));
  assert_true(gptvq_memory_warning(5e9, 5e9, 3e9, text, sizeof text));
  assert_non_null(strstr(text, "3.0 GB are available: give fewer `calib_samples`"));
  gptvq_model_close(model);
}

/* One Hessian at a time or all of a block at once, inputs of output layers kept (here for two windows of
 * three) or not: the same results. */
static void hessian_budget_does_not_change_results(void **state) {
  (void)state;
  enum { SAMPLES = 3, LENGTH = 48, LINEARS = 16 };
  for (int sequential = 0; sequential < 2; sequential++) {
    gptvq_quantize_options o = tiny_quantize_options(GPTVQ_METHOD_GPTQ);
    o.true_sequential = sequential;
    gptvq_resolved resolved;
    ok(gptvq_resolve(&o, &resolved, err));
    gptvq_model *model;
    ok(gptvq_model_open("mixtral", &in_fp32, &model, err));
    const gptvq_block *block = &model->blocks[0];
    assert_int_equal(block->linear_count, LINEARS);
    static float x[2][SAMPLES * LENGTH * TINY_HIDDEN];
    gptvq_layer_result results[2][LINEARS] = {0};
    for (size_t pass = 0; pass < 2; pass++) {
      gptvq_workspace *workspace;
      ok(gptvq_workspace_create(model, 1, LENGTH, LENGTH, &workspace, err));
      uint64_t random = 5;
      for (size_t i = 0; i < SAMPLES * LENGTH * TINY_HIDDEN; i++)
        x[pass][i] = (float)(gptvq_random_unit(&random) - 0.5);
      const gptvq_stream stream = gptvq_stream_over(SAMPLES, LENGTH * TINY_HIDDEN, x[pass]);
      gptvq_pipeline p = {.model = model,
                          .solver = {.options = &resolved, .backend = &gptvq_cpu_backend},
                          .samples = SAMPLES,
                          .length = LENGTH,
                          .x = &stream,
                          .workspace = workspace,
                          .hessian_budget = pass == 0 ? 1 : SIZE_MAX,
                          .kept_budget = pass == 0 ? 0 : 2 * LENGTH * TINY_HIDDEN * sizeof(float),
                          .layers_total = LINEARS};
      ok(gptvq_pipeline_block(&p, block, results[pass], err));
      assert_int_equal(p.layers_done, LINEARS);
      gptvq_workspace_destroy(workspace);
    }
    assert_memory_equal(x[0], x[1], sizeof x[0]);
    for (size_t i = 0; i < LINEARS; i++) {
      gptvq_packed_sizes sizes;
      gptvq_packed_measure(&results[0][i].packed.shape, &sizes);
      assert_memory_equal(results[0][i].packed.indices, results[1][i].packed.indices, sizes.index_bytes);
      assert_memory_equal(results[0][i].packed.scales, results[1][i].packed.scales, sizes.uniform_scales * 2);
      assert_true(results[0][i].error == results[1][i].error);
      gptvq_layer_result_release(&results[0][i]);
      gptvq_layer_result_release(&results[1][i]);
    }
    gptvq_model_close(model);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_architecture_and_method),
      cmocka_unit_test(scaled_halves_are_scaled_weights),
      cmocka_unit_test(every_golden_model),
      cmocka_unit_test(threads_do_not_change_a_byte),
      cmocka_unit_test(interrupted_and_resumed_ends_with_the_same_bytes),
      cmocka_unit_test(a_partial_run_is_not_lost_or_mixed_up),
      cmocka_unit_test(refusals_leave_nothing_behind),
      cmocka_unit_test(numbers_that_are_not_finite_stop_the_run),
      cmocka_unit_test(thin_calibration_is_said),
      cmocka_unit_test(a_full_disk_leaves_nothing),
      cmocka_unit_test(export_refuses_what_it_cannot_do),
      cmocka_unit_test(memory_is_estimated),
      cmocka_unit_test(hessian_budget_does_not_change_results),
  };
  return cmocka_run_group_tests(tests, make_scratch, tiny_drop_scratch);
}
