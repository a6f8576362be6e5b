/* gptvq/eval.h: perplexity and KL divergence on text, multiple choice. */
#ifndef GPTVQ_EVAL_H
#define GPTVQ_EVAL_H

#include <gptvq/model.h>
#include <gptvq/tokenizer.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A card that blocks of models run on, and their output head: docs/GPU.md. */
typedef struct gptvq_eval_device gptvq_eval_device;

typedef struct gptvq_eval_options {
  size_t size;
  size_t ctx;         /* tokens per window; 0 = min(2048, the model's context) */
  size_t max_windows; /* 0 = all */
  size_t score_from;  /* only predictions made at positions >= this are scored: the logits there, for the next
                       * token. 0 = all  ctx - 1 of a window; ctx / 2 is llama.cpp's protocol */
  int bos;            /* 1: the tokenizer's template is applied to the text once. Default 0 */
  const char *name;   /* what warnings call the text, such as its file; NULL (default): "the text" */
  const gptvq_eval_device *device; /* opened for these models, or for larger ones; NULL (default): the CPU */
} gptvq_eval_options;
static inline void gptvq_eval_options_init(gptvq_eval_options *options) { GPTVQ_INIT(options); }

/* What `device` names, "cpu", "cuda", "cuda:1", "auto", "shim", as for gptvq_quantize, for evaluating models
 * a and b (or NULL) in windows of options->ctx tokens (options NULL: the default). Says in the log which it
 * is, and what of the forward passes the CPU does. It is used by one call at a time; results are the same
 * from run to run, but not the CPU's to the last digit. Part of libgptvq, not of libgptvq-runtime.
 * GPTVQ_ERROR_ARGUMENT: no such name; GPTVQ_ERROR_UNSUPPORTED and GPTVQ_ERROR_MEMORY: the card will not do,
 * and why. On success the caller closes *out. */
GPTVQ_API gptvq_status gptvq_eval_device_open(const char *device, const gptvq_model *a, const gptvq_model *b,
                                              const gptvq_eval_options *options,
                                              const gptvq_callbacks *callbacks, gptvq_eval_device **out,
                                              gptvq_error *err);
/* "cpu", "shim", "cuda:0"; lives as long as the device. NULL: "cpu". */
GPTVQ_API const char *gptvq_eval_device_name(const gptvq_eval_device *device);
GPTVQ_API void gptvq_eval_device_close(gptvq_eval_device *device); /* NULL is fine */

typedef struct gptvq_eval_result {
  size_t size;
  double nll, perplexity; /* mean negative log likelihood (nats) per scored token; its exp */
  uint64_t tokens;        /* scored predictions */
  size_t windows, ctx, score_from;
  double seconds;
} gptvq_eval_result;
static inline void gptvq_eval_result_init(gptvq_eval_result *result) { GPTVQ_INIT(result); }

typedef struct gptvq_compare_result {
  size_t size;
  double nll_a, perplexity_a, nll_b, perplexity_b; /* as in gptvq_eval_result, and so on */
  uint64_t tokens;
  size_t windows, ctx, score_from;
  double seconds;
  double kl_mean, kl_stderr, kl_max; /* KL(A ‖ B) per scored token, nats */
  double top1_agreement;             /* fraction of scored positions with the same argmax */
} gptvq_compare_result;
static inline void gptvq_compare_result_init(gptvq_compare_result *result) { GPTVQ_INIT(result); }

/* Tokenizes the whole text once, cuts it into non-overlapping windows of ctx tokens (a shorter rest is
 * dropped, as is usual; fewer than one window: GPTVQ_ERROR_DATA with both numbers), predicts each window from
 * its own start. What gptvq_text_judge says of the text is logged as a warning. GPTVQ_ERROR_NUMERIC: as
 * gptvq_session_forward, and a perplexity that overflows. */
GPTVQ_API gptvq_status gptvq_eval_text(const gptvq_model *model, const gptvq_tokenizer *tokenizer,
                                       const char *text, size_t size, const gptvq_eval_options *options,
                                       const gptvq_callbacks *callbacks, gptvq_eval_result *result,
                                       gptvq_error *err);

/* Both models on the same windows; they must have the same vocabulary size. */
GPTVQ_API gptvq_status gptvq_compare_text(const gptvq_model *a, const gptvq_model *b,
                                          const gptvq_tokenizer *tokenizer, const char *text, size_t size,
                                          const gptvq_eval_options *options, const gptvq_callbacks *callbacks,
                                          gptvq_compare_result *result, gptvq_error *err);

typedef struct gptvq_task_result {
  size_t size;
  double accuracy, accuracy_stderr;           /* by log likelihood; standard error of the mean */
  double accuracy_norm, accuracy_norm_stderr; /* by log likelihood per character of the choice */
  uint64_t questions, choices;
  size_t ctx;
  uint64_t cut; /* choices whose question lost its beginning, for the context is too short */
  double seconds;
} gptvq_task_result;
static inline void gptvq_task_result_init(gptvq_task_result *result) { GPTVQ_INIT(result); }

/* Multiple choice. text[size]: JSON lines {"question": TEXT, "choices": [TEXT, …], "answer": number from 0,
 * letter from A, or the text}. Each choice is scored behind its question and a space; the likeliest is the
 * model's answer, the first among equals. Tokens, truncation (the beginning goes) and both accuracies are
 * those of lm-evaluation-harness for tasks of type multiple_choice, on its local-completions. Of the options
 * count: ctx (0 = min(2047, the model's context)), max_windows (questions), bos (before each question), name.
 * GPTVQ_ERROR_DATA names the line. */
GPTVQ_API gptvq_status gptvq_eval_task(const gptvq_model *model, const gptvq_tokenizer *tokenizer,
                                       const char *text, size_t size, const gptvq_eval_options *options,
                                       const gptvq_callbacks *callbacks, gptvq_task_result *result,
                                       gptvq_error *err);

/* Keeps an evaluation of PACKED_DIR in its gptvq.json (docs/FORMAT.md, section 7), for gptvq_export_report.
 * evaluation[size]: a JSON object with "text" (its name) and what `gptvq eval --json` or `compare --json`
 * print. It takes the place of one of the same text and windows. NULL: only checks, before the work, that
 * gptvq.json can be read and the folder written to. One process at a time. GPTVQ_ERROR_ARGUMENT: no such
 * object; GPTVQ_ERROR_FORMAT: gptvq.json is damaged; GPTVQ_ERROR_UNSUPPORTED: it is of a later version. */
GPTVQ_API gptvq_status gptvq_record_evaluation(const char *packed_dir, const char *evaluation, size_t size,
                                               gptvq_error *err);

#ifdef __cplusplus
}
#endif
#endif
