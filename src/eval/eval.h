/* eval/eval.h: what perplexity and comparison share: windows of a text, logits of a window, scores of a row.
 */
#ifndef GPTVQ_EVAL_EVAL_H
#define GPTVQ_EVAL_EVAL_H

#include <gptvq/eval.h>

#include "base/status.h"
#include "model/model_internal.h"

/* The text as windows of ctx tokens, one after the other. */
typedef struct gptvq_windows {
  int32_t *ids; /* owned; release with gptvq_free */
  size_t count, ctx;
  size_t first; /* first scored position: the logits there predict token first + 1; ctx - 1 - first
                   predictions a window */
} gptvq_windows;

/* Checks the options against the model (ctx and score_from) and tokenizes. GPTVQ_ERROR_ARGUMENT: options that
 * make no sense; GPTVQ_ERROR_DATA: less than one window of text. */
gptvq_status gptvq_windows_create(const gptvq_model *model, const gptvq_tokenizer *tokenizer,
                                  const char *text, size_t size, const gptvq_eval_options *options,
                                  gptvq_windows *out, gptvq_error *err);

/* Runs one model over windows. Memory: the hidden states of one window, the keys and values of one block, and
 * the logits of a few rows, whatever the vocabulary. */
typedef struct gptvq_runner gptvq_runner;
gptvq_status gptvq_runner_create(const gptvq_model *model, size_t ctx, gptvq_runner **out, gptvq_error *err);
/* Bytes of one, the model aside, of which a block at a time is in memory (gptvq_block_rest); SIZE_MAX on
 * overflow. */
size_t gptvq_runner_bytes(const gptvq_model *model, size_t ctx);
void gptvq_runner_destroy(gptvq_runner *runner); /* NULL is fine */
/* Called between blocks, with the context given; a failure ends the run. */
typedef gptvq_status (*gptvq_between)(void *context, gptvq_error *err);
/* Hidden states of tokens[ctx], from position 0. */
gptvq_status gptvq_runner_window(gptvq_runner *runner, const int32_t *tokens, gptvq_between between,
                                 void *context, gptvq_error *err);
/* Rows whose logits fit the runner's buffer. */
size_t gptvq_runner_rows(const gptvq_runner *runner);
/* Logits [n × vocab] at positions [begin, begin + n) of the window, n <= gptvq_runner_rows; valid until the
 * next call. */
gptvq_status gptvq_runner_logits(gptvq_runner *runner, size_t begin, size_t n, const float **logits,
                                 gptvq_error *err);

/* Both models on windows that are there already: as gptvq_compare_text. callbacks may be NULL. */
gptvq_status gptvq_compare_windows(const gptvq_model *a, const gptvq_model *b, const gptvq_windows *windows,
                                   const gptvq_callbacks *callbacks, gptvq_compare_result *result,
                                   gptvq_error *err);

/* log Σ exp(logits), in double; NaN when any logit is NaN or +infinity. */
double gptvq_log_sum_exp(const float *logits, size_t count);

#endif
