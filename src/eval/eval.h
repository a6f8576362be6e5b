/* eval/eval.h: what perplexity and comparison share: windows of a text, logits of a window, scores of a row.
 */
#ifndef GPTVQ_EVAL_EVAL_H
#define GPTVQ_EVAL_EVAL_H

#include <gptvq/eval.h>

#include "base/status.h"
#include "model/forward.h"

#include <stdbool.h>

/* Where blocks run beside the CPU; eval/device makes them. */
struct gptvq_eval_device {
  const gptvq_forward *forward; /* NULL: nowhere else */
};

/* The text as windows of ctx tokens, one after the other. */
typedef struct gptvq_windows {
  int32_t *ids; /* owned; release with gptvq_free */
  size_t count, ctx;
  size_t first; /* first scored position: the logits there predict token first + 1; ctx - 1 - first
                   predictions a window */
} gptvq_windows;

/* Tokens of a window: the option's, or what it stands for. */
size_t gptvq_windows_ctx(const gptvq_model *model, const gptvq_eval_options *options);
/* Checks the options against the model (ctx and score_from) and tokenizes. GPTVQ_ERROR_ARGUMENT: options that
 * make no sense; GPTVQ_ERROR_DATA: less than one window of text. */
gptvq_status gptvq_windows_create(const gptvq_model *model, const gptvq_tokenizer *tokenizer,
                                  const char *text, size_t size, const gptvq_eval_options *options,
                                  gptvq_windows *out, gptvq_error *err);

/* Runs one model over windows, some of them together. Memory: their hidden states, the keys and values of one
 * block, and the logits of a few rows, whatever the vocabulary. */
typedef struct gptvq_runner gptvq_runner;
/* forward: runs the halves and the head that it takes, and keeps no other weights meanwhile; NULL: the CPU
 * does all. It is at rest when the runner is destroyed. */
gptvq_status gptvq_runner_create(const gptvq_model *model, const gptvq_forward *forward, size_t ctx,
                                 size_t together, gptvq_runner **out, gptvq_error *err);
/* How many of so many windows go through a block together: one on the CPU, on a device as many as make the
 * copy of its weights worth it. */
size_t gptvq_runner_together(const gptvq_model *model, size_t ctx, size_t windows, bool device);
/* Rows at most that go through the CPU's halves and every MLP at a time, and that get logits. */
typedef struct gptvq_runner_rows {
  size_t block, logits;
} gptvq_runner_rows;
gptvq_runner_rows gptvq_runner_rows_of(const gptvq_model *model, size_t ctx);
/* Bytes of one, the model aside, of which a block at a time is in memory (gptvq_block_rest); SIZE_MAX on
 * overflow. */
size_t gptvq_runner_bytes(const gptvq_model *model, size_t ctx, size_t together);
void gptvq_runner_destroy(gptvq_runner *runner); /* NULL is fine */
/* Called after each window of a block, with the context given; a failure ends the run. */
typedef gptvq_status (*gptvq_between)(void *context, gptvq_error *err);
/* Hidden states of `count` windows, at most those together, tokens[count × ctx], each from position 0. */
gptvq_status gptvq_runner_windows(gptvq_runner *runner, const int32_t *tokens, size_t count,
                                  gptvq_between between, void *context, gptvq_error *err);
/* Logits [n × vocab] at positions [begin, begin + n) of that window of these, n at most
 * gptvq_runner_rows.logits; valid until the next call. */
gptvq_status gptvq_runner_logits(gptvq_runner *runner, size_t window, size_t begin, size_t n,
                                 const float **logits, gptvq_error *err);

/* Both models on windows that are there already: as gptvq_compare_text; b NULL: a alone. forward: as above.
 * callbacks may be NULL. */
gptvq_status gptvq_compare_windows(const gptvq_model *a, const gptvq_model *b, const gptvq_forward *forward,
                                   const gptvq_windows *windows, const gptvq_callbacks *callbacks,
                                   gptvq_compare_result *result, gptvq_error *err);

/* log Σ exp(logits), in double; NaN when any logit is NaN or +infinity. */
double gptvq_log_sum_exp(const float *logits, size_t count);

#endif
