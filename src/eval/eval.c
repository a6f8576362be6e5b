/* Perplexity: exp of the mean negative log likelihood of each token given those before it in its window. */
#include "eval/eval.h"

#include "base/clock.h"
#include "base/memory.h"
#include "base/sized.h"
#include "base/threads.h"
#include "eval/losses.h"
#include "model/layer/vector.h"
#include "text/judge.h"

#include <math.h>
#include <string.h>

/* ---- scores of rows: threads fill arrays, sums are taken afterwards in order ---- */

typedef struct row_score {
  double nll_a, nll_b, kl; /* nats */
  bool agree;
} row_score;

typedef struct row_job {
  const float *a, *b; /* logits [n × vocab]; b is NULL for one model */
  size_t vocab;
  const int32_t *targets;
  row_score *scores;
} row_job;

/* The first of the largest. */
static size_t argmax(const float *x, size_t count) {
  const float largest = GPTVQ_MULTI_PICK(gptvq_max)(count, x);
  size_t at = 0;
  while (at + 1 < count && x[at] != largest) at++;
  return at;
}

static void score_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const row_job *job = context;
  for (size_t row = begin; row < end; row++) {
    const float *a = job->a + row * job->vocab;
    row_score *score = &job->scores[row];
    double total_a = gptvq_log_sum_exp(a, job->vocab);
    score->nll_a = total_a - (double)a[job->targets[row]];
    if (job->b == NULL) continue;
    const float *b = job->b + row * job->vocab;
    double total_b = gptvq_log_sum_exp(b, job->vocab);
    score->nll_b = total_b - (double)b[job->targets[row]];
    score->kl = GPTVQ_MULTI_PICK(gptvq_divergence)(job->vocab, a, total_a, b, total_b);
    score->agree = argmax(a, job->vocab) == argmax(b, job->vocab);
  }
}

/* ---- sums over the text ---- */

typedef struct sums {
  double nll_a, nll_b;
  double kl_mean, kl_squares, kl_max; /* running mean and sum of squared deviations (Welford) */
  uint64_t count, agree;
} sums;

/* Scores of finite logits (gptvq_head) are finite. */
static void add_scores(sums *total, const row_score *scores, size_t n, bool two) {
  for (size_t i = 0; i < n; i++) {
    const row_score *score = &scores[i];
    total->nll_a += score->nll_a;
    total->count++;
    if (!two) continue;
    total->nll_b += score->nll_b;
    double delta = score->kl - total->kl_mean;
    total->kl_mean += delta / (double)total->count;
    total->kl_squares += delta * (score->kl - total->kl_mean);
    if (score->kl > total->kl_max) total->kl_max = score->kl;
    total->agree += score->agree;
  }
}

typedef struct between_context {
  const gptvq_callbacks *callbacks;
  const char *phase;
  size_t done, total;
  double value;
} between_context;

/* Between two blocks nothing has changed that could be shown, but a request to stop is heard. */
static gptvq_status between_blocks(void *context, gptvq_error *err) {
  between_context *c = context;
  return gptvq_report_progress(c->callbacks, c->phase, "", c->done, c->total, c->value, err);
}

typedef struct measurement {
  gptvq_windows windows;
  size_t together;          /* windows that go through the blocks together */
  size_t vocab, rows;       /* rows whose logits are looked at together */
  gptvq_runner *runners[2]; /* the second NULL for one model */
  row_score *scores;        /* [rows] */
} measurement;

/* The scores of window `number`, the `slot`th of those that went through the blocks. */
static gptvq_status score_window(const measurement *m, size_t number, size_t slot, sums *total,
                                 gptvq_error *err) {
  const gptvq_windows *windows = &m->windows;
  gptvq_runner *a = m->runners[0], *b = m->runners[1];
  const int32_t *tokens = windows->ids + number * windows->ctx;
  for (size_t row = windows->first; row + 1 < windows->ctx; row += m->rows) {
    size_t n = gptvq_min_size(m->rows, windows->ctx - 1 - row);
    row_job job = {.vocab = m->vocab, .targets = tokens + row + 1, .scores = m->scores};
    GPTVQ_TRY(gptvq_runner_logits(a, slot, row, n, &job.a, err));
    if (b != NULL) GPTVQ_TRY(gptvq_runner_logits(b, slot, row, n, &job.b, err));
    gptvq_parallel_for(n, 4, score_rows, &job);
    add_scores(total, m->scores, n, b != NULL);
  }
  return GPTVQ_OK;
}

static gptvq_status run(const measurement *m, const gptvq_callbacks *callbacks, sums *total,
                        gptvq_error *err) {
  const gptvq_windows *windows = &m->windows;
  gptvq_runner *a = m->runners[0], *b = m->runners[1];
  between_context between = {callbacks, b != NULL ? "compare" : "evaluate", 0, windows->count, NAN};
  GPTVQ_TRY(between_blocks(&between, err));
  for (size_t first = 0; first < windows->count; first += m->together) {
    const size_t count = gptvq_min_size(m->together, windows->count - first);
    const int32_t *tokens = windows->ids + first * windows->ctx;
    GPTVQ_TRY(gptvq_runner_windows(a, tokens, count, between_blocks, &between, err));
    if (b != NULL) GPTVQ_TRY(gptvq_runner_windows(b, tokens, count, between_blocks, &between, err));
    for (size_t slot = 0; slot < count; slot++) {
      GPTVQ_TRY(score_window(m, first + slot, slot, total, err));
      between.done = first + slot + 1;
      between.value = b != NULL ? total->kl_mean : exp(total->nll_a / (double)total->count);
      GPTVQ_TRY(between_blocks(&between, err));
    }
  }
  return GPTVQ_OK;
}

/* ---- the two entry points ---- */

/* Logits may be finite, and so far apart that their perplexity is not. */
static gptvq_status check_finite(const gptvq_model *const models[2], const gptvq_compare_result *result,
                                 gptvq_error *err) {
  const double losses[2] = {result->nll_a, result->nll_b},
               perplexities[2] = {result->perplexity_a, result->perplexity_b};
  for (size_t i = 0; i < 2 && models[i] != NULL; i++)
    if (!isfinite(perplexities[i]))
      return gptvq_fail(
          err, GPTVQ_ERROR_NUMERIC,
          "%s: the perplexity overflows, with a mean loss of %g nats per token: the logits, outputs "
          "of %s.weight, are too large",
          gptvq_checkpoint_folder(models[i]->checkpoint), losses[i], models[i]->head.name);
  return GPTVQ_OK;
}

typedef struct bytes {
  const char *text;
  size_t size;
} bytes;

/* models: the second NULL for one */
static gptvq_status measure_windows(const gptvq_model *const models[2], const gptvq_forward *forward,
                                    const gptvq_windows *windows, const gptvq_callbacks *callbacks,
                                    gptvq_compare_result *result, gptvq_error *err) {
  double start = gptvq_clock();
  measurement m = {.windows = *windows, .vocab = models[0]->config.vocab};
  m.together = windows->count;
  sums total = {0};
  gptvq_status status;
  for (size_t i = 0; i < 2 && models[i] != NULL; i++)
    m.together = gptvq_runner_together(models[i], windows->ctx, m.together, forward != NULL);
  for (size_t i = 0; i < 2 && models[i] != NULL; i++)
    GPTVQ_TRY_GOTO(gptvq_runner_create(models[i], forward, m.windows.ctx, m.together, &m.runners[i], err));
  m.rows = gptvq_runner_rows_of(models[0], m.windows.ctx).logits;
  m.scores = gptvq_alloc_zero(m.rows, sizeof *m.scores);
  if (m.scores == NULL) {
    status = gptvq_fail_memory(err, "scores", m.rows * sizeof *m.scores);
    goto done;
  }
  GPTVQ_TRY_GOTO(run(&m, callbacks, &total, err));
  double count = (double)total.count;
  result->tokens = total.count;
  result->windows = m.windows.count;
  result->ctx = m.windows.ctx;
  result->score_from = m.windows.first;
  result->seconds = gptvq_clock() - start;
  result->nll_a = total.nll_a / count;
  result->perplexity_a = exp(result->nll_a);
  result->nll_b = total.nll_b / count;
  result->perplexity_b = exp(result->nll_b);
  result->kl_mean = total.kl_mean;
  result->kl_stderr = total.count > 1 ? sqrt(total.kl_squares / (count - 1) / count) : 0;
  result->kl_max = total.kl_max;
  result->top1_agreement = (double)total.agree / count;
  status = check_finite(models, result, err);
done:
  free(m.scores);
  for (size_t i = 0; i < 2; i++) gptvq_runner_destroy(m.runners[i]);
  return status;
}

gptvq_status gptvq_compare_windows(const gptvq_model *a, const gptvq_model *b, const gptvq_forward *forward,
                                   const gptvq_windows *windows, const gptvq_callbacks *callbacks,
                                   gptvq_compare_result *result, gptvq_error *err) {
  return measure_windows((const gptvq_model *const[2]){a, b}, forward, windows, callbacks, result, err);
}

static gptvq_status measure_here(const gptvq_model *const models[2], const gptvq_tokenizer *tokenizer,
                                 bytes input, const gptvq_eval_options *options,
                                 const gptvq_callbacks *callbacks, gptvq_compare_result *result,
                                 gptvq_error *err) {
  double start = gptvq_clock();
  size_t vocab = models[0]->config.vocab;
  gptvq_windows windows;
  const char *name = options->name != NULL ? options->name : "the text";
  bool warned =
      gptvq_text_warn(callbacks, name, input.text, input.size, NULL, 0); /* even if it is too short */
  GPTVQ_TRY(gptvq_windows_create(models[0], tokenizer, input.text, input.size, options, &windows, err));
  if (!warned) gptvq_text_warn(callbacks, name, NULL, 0, windows.ids, windows.count * windows.ctx);
  gptvq_status status = GPTVQ_OK;
  for (size_t i = 0; i < windows.count * windows.ctx && status == GPTVQ_OK; i++)
    if (windows.ids[i] < 0 || (size_t)windows.ids[i] >= vocab)
      status = gptvq_fail(err, GPTVQ_ERROR_DATA,
                          "the text's token %zu has id %ld, but the model's vocabulary has %zu entries: does "
                          "the tokenizer belong "
                          "to the model?",
                          i, (long)windows.ids[i], vocab);
  const gptvq_forward *forward = options->device != NULL ? options->device->forward : NULL;
  if (status == GPTVQ_OK) status = measure_windows(models, forward, &windows, callbacks, result, err);
  result->seconds = gptvq_clock() - start;
  gptvq_free(windows.ids);
  return status;
}

/* In the context of the first model. *own is zero where this fails. */
static gptvq_status measure(const gptvq_model *const models[2], const gptvq_tokenizer *tokenizer, bytes input,
                            const gptvq_eval_options *options, const gptvq_callbacks *callbacks,
                            gptvq_compare_result *own, gptvq_error *err) {
  gptvq_eval_options o = {.size = sizeof o};
  gptvq_callbacks c = {.size = sizeof c};
  *own = (gptvq_compare_result){.size = sizeof *own};
  GPTVQ_TRY(GPTVQ_TAKE(gptvq_eval_options, options, &o, err));
  GPTVQ_TRY(GPTVQ_TAKE(gptvq_callbacks, callbacks, &c, err));
  gptvq_context *before = gptvq_context_use(models[0]->context);
  gptvq_status status = measure_here(models, tokenizer, input, &o, &c, own, err);
  if (status != GPTVQ_OK) *own = (gptvq_compare_result){.size = sizeof *own};
  (void)gptvq_context_use(before);
  return status;
}

gptvq_status gptvq_eval_text(const gptvq_model *model, const gptvq_tokenizer *tokenizer, const char *text,
                             size_t size, const gptvq_eval_options *options, const gptvq_callbacks *callbacks,
                             gptvq_eval_result *result, gptvq_error *err) {
  gptvq_compare_result both;
  GPTVQ_TRY(gptvq_check_result("gptvq_eval_result", result, err));
  gptvq_status status = measure((const gptvq_model *const[2]){model, NULL}, tokenizer, (bytes){text, size},
                                options, callbacks, &both, err);
  const gptvq_eval_result own = {.nll = both.nll_a,
                                 .perplexity = both.perplexity_a,
                                 .tokens = both.tokens,
                                 .windows = both.windows,
                                 .ctx = both.ctx,
                                 .score_from = both.score_from,
                                 .seconds = both.seconds};
  gptvq_give_struct(&own, sizeof own, result);
  return status;
}

gptvq_status gptvq_compare_text(const gptvq_model *a, const gptvq_model *b, const gptvq_tokenizer *tokenizer,
                                const char *text, size_t size, const gptvq_eval_options *options,
                                const gptvq_callbacks *callbacks, gptvq_compare_result *result,
                                gptvq_error *err) {
  gptvq_compare_result own;
  GPTVQ_TRY(gptvq_check_result("gptvq_compare_result", result, err));
  if (a->config.vocab != b->config.vocab)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "the models cannot be compared: the first has a vocabulary of %zu, the second of %zu",
                      a->config.vocab, b->config.vocab);
  gptvq_status status = measure((const gptvq_model *const[2]){a, b}, tokenizer, (bytes){text, size}, options,
                                callbacks, &own, err);
  gptvq_give_struct(&own, sizeof own, result);
  return status;
}
