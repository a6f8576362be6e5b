/* Perplexity and KL divergence against a naive computation over the logits of sessions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <gptvq/gptvq.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "eval/eval.h"

static const gptvq_model_options in_fp32 = {.size = sizeof in_fp32, .compute = GPTVQ_COMPUTE_FP32};

#define EXAMPLE TEST_SOURCE_DIR "/examples/stories-4m"

static gptvq_model *model_a, *model_b; /* B: the same weights, a larger epsilon in every norm */
static gptvq_tokenizer *tokenizer;
static char *text;
static size_t text_size;
static char folder[] = "gptvq-test-XXXXXX";
static const char *const linked[] = {"model.safetensors", "tokenizer.json", "tokenizer_config.json", NULL};

static char *read_whole(const char *path, size_t *size) {
  FILE *file = fopen(path, "rb");
  assert_non_null(file);
  char *data = malloc(1 << 20);
  assert_non_null(data);
  *size = fread(data, 1, (1 << 20) - 1, file);
  data[*size] = '\0';
  fclose(file);
  return data;
}

static void in_folder(const char *name, char path[256]) { (void)snprintf(path, 256, "%s/%s", folder, name); }

static int setup(void **state) {
  (void)state;
  gptvq_error err;
  char path[256], source[512];
  assert_non_null(mkdtemp(folder));
  for (size_t i = 0; linked[i] != NULL; i++) {
    in_folder(linked[i], path);
    (void)snprintf(source, sizeof source, EXAMPLE "/%s", linked[i]);
    assert_int_equal(symlink(source, path), 0);
  }
  size_t size;
  char *config = read_whole(EXAMPLE "/config.json", &size);
  char *epsilon = strstr(config, "1e-05");
  assert_non_null(epsilon);
  memcpy(epsilon, "1e-01", 5);
  in_folder("config.json", path);
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(config, 1, size, file), size);
  assert_int_equal(fclose(file), 0);
  free(config);
  assert_int_equal(gptvq_model_open(EXAMPLE, &in_fp32, &model_a, &err), GPTVQ_OK);
  assert_int_equal(gptvq_model_open(folder, &in_fp32, &model_b, &err), GPTVQ_OK);
  assert_int_equal(gptvq_tokenizer_open(EXAMPLE, &tokenizer, &err), GPTVQ_OK);
  text = read_whole(TEST_SOURCE_DIR "/examples/text/eval.txt", &text_size);
  return 0;
}

static int teardown(void **state) {
  (void)state;
  char path[256];
  for (size_t i = 0; linked[i] != NULL; i++) {
    in_folder(linked[i], path);
    (void)unlink(path);
  }
  in_folder("config.json", path);
  (void)unlink(path);
  (void)rmdir(folder);
  gptvq_tokenizer_close(tokenizer);
  gptvq_model_close(model_a);
  gptvq_model_close(model_b);
  free(text);
  return 0;
}

/* ---- the naive computation: whole windows through a session, textbook formulas in long double ---- */

static long double log_sum(const float *logits, size_t vocab) {
  long double sum = 0;
  for (size_t i = 0; i < vocab; i++) sum += expl((long double)logits[i]);
  return logl(sum);
}

typedef struct naive {
  double nll[2], kl, kl_stderr, kl_max, agreement;
  size_t count;
} naive;

static naive compute_naively(size_t ctx, size_t windows, size_t score_from, bool two) {
  gptvq_error err;
  int32_t *ids;
  size_t count;
  const size_t vocab = 1024;
  assert_int_equal(gptvq_tokenizer_encode(tokenizer, text, text_size, 0, &ids, &count, &err), GPTVQ_OK);
  assert_true(windows * ctx <= count);
  long double nll[2] = {0, 0}, *kl = calloc(windows * ctx, sizeof *kl), kl_sum = 0, squares = 0;
  float *logits[2] = {malloc(ctx * vocab * sizeof(float)), malloc(ctx * vocab * sizeof(float))};
  assert_true(kl != NULL && logits[0] != NULL && logits[1] != NULL);
  naive result = {.count = 0};
  size_t agree = 0;
  for (size_t w = 0; w < windows; w++) {
    const int32_t *window = ids + w * ctx;
    for (size_t m = 0; m < (two ? 2 : 1); m++) {
      gptvq_session *session;
      assert_int_equal(gptvq_session_create(m == 0 ? model_a : model_b, ctx, &session, &err), GPTVQ_OK);
      assert_int_equal(gptvq_session_forward(session, window, ctx, logits[m], 1, &err), GPTVQ_OK);
      gptvq_session_destroy(session);
    }
    for (size_t p = score_from; p + 1 < ctx; p++) {
      const float *a = logits[0] + p * vocab, *b = logits[1] + p * vocab;
      long double sum_a = log_sum(a, vocab);
      nll[0] += sum_a - (long double)a[window[p + 1]];
      if (two) {
        long double sum_b = log_sum(b, vocab);
        nll[1] += sum_b - (long double)b[window[p + 1]];
        size_t best_a = 0, best_b = 0;
        for (size_t i = 0; i < vocab; i++) {
          long double log_p = (long double)a[i] - sum_a;
          kl[result.count] += expl(log_p) * (log_p - ((long double)b[i] - sum_b));
          if (a[i] > a[best_a]) best_a = i;
          if (b[i] > b[best_b]) best_b = i;
        }
        agree += best_a == best_b;
        kl_sum += kl[result.count];
        if ((double)kl[result.count] > result.kl_max) result.kl_max = (double)kl[result.count];
      }
      result.count++;
    }
  }
  long double n = (long double)result.count;
  for (size_t i = 0; i < result.count; i++) squares += (kl[i] - kl_sum / n) * (kl[i] - kl_sum / n);
  for (size_t m = 0; m < 2; m++) result.nll[m] = (double)(nll[m] / n);
  result.kl = (double)(kl_sum / n);
  result.kl_stderr = (double)(sqrtl(squares / (n - 1)) / sqrtl(n));
  result.agreement = (double)agree / (double)result.count;
  free(kl);
  free(logits[0]);
  free(logits[1]);
  gptvq_free(ids);
  return result;
}

/* Both paths compute logits of size about 20 in fp32; rows may be grouped differently. A logit is the end of
 * a chain of 9 sums (embedding, 4 × 2 residuals) and products of at most 768 terms whose rounding errors add
 * up like random walks: √768 · 9 · ε · 20 ≈ 3e-4 for one logit at worst, and independent over the hundreds of
 * predictions averaged here. */
#define LOGIT_BOUND 3e-4

static void check_perplexity(size_t ctx, size_t windows, size_t score_from) {
  gptvq_eval_options options;
  gptvq_eval_options_init(&options);
  options.ctx = ctx;
  options.max_windows = windows;
  options.score_from = score_from;
  gptvq_eval_result result = {.size = sizeof result};
  gptvq_error err;
  assert_int_equal(gptvq_eval_text(model_a, tokenizer, text, text_size, &options, NULL, &result, &err),
                   GPTVQ_OK);
  naive expected = compute_naively(ctx, windows, score_from, false);
  assert_int_equal(result.tokens, expected.count);
  assert_int_equal(result.tokens, windows * (ctx - 1 - score_from));
  assert_int_equal(result.windows, windows);
  assert_int_equal(result.ctx, ctx);
  assert_int_equal(result.score_from, score_from);
  assert_true(fabs(result.nll - expected.nll[0]) <= LOGIT_BOUND / sqrt((double)expected.count));
  assert_true(fabs(result.perplexity - exp(result.nll)) <= 1e-14 * result.perplexity);
}

static void test_perplexity_equals_naive(void **state) {
  (void)state;
  check_perplexity(2, 40, 0); /* one prediction a window */
  check_perplexity(33, 7, 0);
  check_perplexity(64, 5, 32);
  check_perplexity(64, 5, 62); /* only the last prediction */
  check_perplexity(300, 2, 0); /* more rows than logits are computed for at a time */
}

static void test_window_longer_than_block_rows(void **state) {
  (void)state;
  check_perplexity(1100, 1, 900);
}

static void test_compare_equals_naive(void **state) {
  (void)state;
  gptvq_eval_options options = {.size = sizeof options, .ctx = 40, .max_windows = 2, .score_from = 8};
  gptvq_compare_result result = {.size = sizeof result};
  gptvq_error err;
  assert_int_equal(
      gptvq_compare_text(model_a, model_b, tokenizer, text, text_size, &options, NULL, &result, &err),
      GPTVQ_OK);
  naive expected = compute_naively(40, 2, 8, true);
  assert_int_equal(result.tokens, expected.count);
  assert_true(fabs(result.nll_a - expected.nll[0]) <= LOGIT_BOUND);
  assert_true(fabs(result.nll_b - expected.nll[1]) <= LOGIT_BOUND);
  /* KL is a difference of log probabilities averaged under p: at most twice the error of the logits */
  assert_true(expected.kl > 0.1); /* the models differ: an accident cannot pass */
  assert_true(fabs(result.kl_mean - expected.kl) <= 2 * LOGIT_BOUND);
  assert_true(fabs(result.kl_max - expected.kl_max) <= 4 * LOGIT_BOUND);
  assert_true(fabs(result.kl_stderr - expected.kl_stderr) <= 4 * LOGIT_BOUND);
  assert_true(fabs(result.top1_agreement - expected.agreement) < 1e-12);
  assert_true(result.top1_agreement > 0.3 && result.top1_agreement < 1.0);
}

static void test_model_against_itself(void **state) {
  (void)state;
  gptvq_eval_options options = {.size = sizeof options, .ctx = 50, .max_windows = 3};
  gptvq_compare_result result = {.size = sizeof result};
  gptvq_error err;
  assert_int_equal(
      gptvq_compare_text(model_a, model_a, tokenizer, text, text_size, &options, NULL, &result, &err),
      GPTVQ_OK);
  assert_true(result.kl_mean == 0.0 && result.kl_max == 0.0 && result.kl_stderr == 0.0);
  assert_true(result.top1_agreement == 1.0);
  assert_true(result.nll_a == result.nll_b);
  gptvq_eval_result alone = {.size = sizeof alone};
  assert_int_equal(gptvq_eval_text(model_a, tokenizer, text, text_size, &options, NULL, &alone, &err),
                   GPTVQ_OK);
  assert_true(alone.nll == result.nll_a);
}

static void test_threads_change_nothing(void **state) {
  (void)state;
  gptvq_eval_options options = {.size = sizeof options, .ctx = 300, .max_windows = 2};
  gptvq_compare_result one = {.size = sizeof one}, three = {.size = sizeof three};
  gptvq_error err;
  gptvq_set_threads(1);
  assert_int_equal(
      gptvq_compare_text(model_a, model_b, tokenizer, text, text_size, &options, NULL, &one, &err), GPTVQ_OK);
  gptvq_set_threads(3);
  assert_int_equal(
      gptvq_compare_text(model_a, model_b, tokenizer, text, text_size, &options, NULL, &three, &err),
      GPTVQ_OK);
  gptvq_set_threads(0);
  one.seconds = three.seconds = 0;
  assert_memory_equal(&one, &three, sizeof one);
}

static gptvq_status evaluate(size_t size, gptvq_eval_options options, gptvq_error *err) {
  gptvq_eval_result result = {.size = sizeof result};
  return gptvq_eval_text(model_a, tokenizer, text, size, &options, NULL, &result, err);
}

static void test_errors(void **state) {
  (void)state;
  gptvq_error err;
  assert_int_equal(evaluate(100, (gptvq_eval_options){.size = sizeof(gptvq_eval_options), .ctx = 1}, &err),
                   GPTVQ_ERROR_ARGUMENT);
  assert_int_equal(
      evaluate(100, (gptvq_eval_options){.size = sizeof(gptvq_eval_options), .ctx = SIZE_MAX}, &err),
      GPTVQ_ERROR_ARGUMENT);
  assert_int_equal(
      evaluate(1000, (gptvq_eval_options){.size = sizeof(gptvq_eval_options), .ctx = 8, .score_from = 7},
               &err),
      GPTVQ_ERROR_ARGUMENT);
  assert_int_equal(
      evaluate(1000,
               (gptvq_eval_options){.size = sizeof(gptvq_eval_options), .ctx = 8, .score_from = SIZE_MAX},
               &err),
      GPTVQ_ERROR_ARGUMENT);
  assert_int_equal(evaluate(0, (gptvq_eval_options){.size = sizeof(gptvq_eval_options), .ctx = 8}, &err),
                   GPTVQ_ERROR_DATA);
  int32_t *ids;
  size_t count;
  assert_int_equal(gptvq_tokenizer_encode(tokenizer, text, 100, 0, &ids, &count, &err), GPTVQ_OK);
  gptvq_free(ids);
  assert_int_equal(
      evaluate(100, (gptvq_eval_options){.size = sizeof(gptvq_eval_options), .ctx = count}, &err), GPTVQ_OK);
  assert_int_equal(
      evaluate(100, (gptvq_eval_options){.size = sizeof(gptvq_eval_options), .ctx = count + 1}, &err),
      GPTVQ_ERROR_DATA);
  char expected[64];
  (void)snprintf(expected, sizeof expected, "it has %zu tokens, one window has %zu;", count, count + 1);
  assert_non_null(strstr(err.message, expected));
}

static int stop_at_third(void *user, const gptvq_progress *progress) {
  (void)progress;
  return ++*(int *)user >= 3;
}

static void test_stops_on_request(void **state) {
  (void)state;
  int calls = 0;
  gptvq_callbacks callbacks = {.size = sizeof callbacks, .user = &calls, .progress = stop_at_third};
  gptvq_eval_options options = {.size = sizeof options, .ctx = 50};
  gptvq_eval_result result = {.size = sizeof result};
  gptvq_error err;
  assert_int_equal(gptvq_eval_text(model_a, tokenizer, text, text_size, &options, &callbacks, &result, &err),
                   GPTVQ_ERROR_CANCELLED);
  assert_int_equal(calls, 3);
}

static void test_log_sum_exp(void **state) {
  (void)state;
  const float equal[4] = {1000, 1000, 1000, 1000}, lowest[2] = {-INFINITY, 3}, bad[3] = {1, NAN, 2},
              first[2] = {NAN, 1}, infinite[2] = {INFINITY, 0};
  assert_true(fabs(gptvq_log_sum_exp(equal, 4) - (1000 + log(4))) <= 1e-12);
  assert_true(gptvq_log_sum_exp(lowest, 2) == 3.0);
  assert_true(isnan(gptvq_log_sum_exp(bad, 3)));
  assert_true(isnan(gptvq_log_sum_exp(first, 2)));
  assert_true(isnan(gptvq_log_sum_exp(infinite, 2)));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_perplexity_equals_naive), cmocka_unit_test(test_window_longer_than_block_rows),
      cmocka_unit_test(test_compare_equals_naive),    cmocka_unit_test(test_model_against_itself),
      cmocka_unit_test(test_threads_change_nothing),  cmocka_unit_test(test_errors),
      cmocka_unit_test(test_stops_on_request),        cmocka_unit_test(test_log_sum_exp),
  };
  return cmocka_run_group_tests(tests, setup, teardown);
}
