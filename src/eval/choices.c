/* Multiple choice: of the texts that could follow a question the model finds one the likeliest, in all or for
 * its length. Tokens, truncation and scores are those of lm-evaluation-harness. */
#include "eval/eval.h"

#include "base/clock.h"
#include "base/memory.h"
#include "base/sized.h"
#include "eval/task.h"

#include <math.h>
#include <string.h>

enum { LOGIT_BYTES = 64 << 20 };

typedef struct examination {
  const gptvq_model *model;
  const gptvq_tokenizer *tokenizer;
  const gptvq_callbacks *callbacks;
  const char *name;
  size_t ctx, vocab, rows; /* rows of logits together */
  bool bos;
  int32_t first; /* before choices of an empty question */
  gptvq_session *session;
  int32_t *seen; /* [ctx]: the session's tokens */
  float *logits; /* [rows × vocab] */
  size_t right, right_for_length, choices, cut;
} examination;

/* The tokens of a question with one of its choices; the last `count` - `context` are the choice's. */
typedef struct sequence {
  int32_t *ids; /* owned, from gptvq_tokenizer_encode or malloc */
  size_t count, context;
} sequence;

/* ---- tokens ---- */

/* Spaces at a question's end belong to what follows, as tokens have them. */
static size_t without_spaces(const char *text, size_t size) {
  while (size > 0 && (text[size - 1] == ' ' || (text[size - 1] >= '\t' && text[size - 1] <= '\r') ||
                      (text[size - 1] >= 0x1c && text[size - 1] <= 0x1f)))
    size--;
  return size;
}

/* Behind no question stands a choice behind the token that texts begin with. */
static gptvq_status encode_alone(const examination *e, const char *text, size_t size, sequence *out,
                                 gptvq_error *err) {
  int32_t *ids;
  size_t count;
  GPTVQ_TRY(gptvq_tokenizer_encode(e->tokenizer, text, size, 0, &ids, &count, err));
  out->ids = malloc((count + 1) * sizeof *out->ids);
  if (out->ids != NULL) {
    out->ids[0] = e->first;
    memcpy(out->ids + 1, ids, count * sizeof *ids);
    out->count = count + 1;
    out->context = 1;
  }
  gptvq_free(ids);
  return out->ids != NULL ? GPTVQ_OK : gptvq_fail_memory(err, "a question", count * sizeof *ids);
}

static gptvq_status encode_both(const examination *e, const char *text, size_t size, size_t question,
                                sequence *out, gptvq_error *err) {
  int32_t *context;
  GPTVQ_TRY(gptvq_tokenizer_encode(e->tokenizer, text, without_spaces(text, question), e->bos, &context,
                                   &out->context, err));
  gptvq_free(context);
  return gptvq_tokenizer_encode(e->tokenizer, text, size, e->bos, &out->ids, &out->count, err);
}

static gptvq_status encode(const examination *e, const gptvq_question *q, const json_t *choice, sequence *out,
                           gptvq_error *err) {
  size_t size = json_string_length(choice);
  char *text = malloc(q->size + size + 2);
  if (text == NULL) return gptvq_fail_memory(err, "a question", q->size + size + 2);
  memcpy(text, q->text, q->size);
  text[q->size] = ' ';
  memcpy(text + q->size + 1, json_string_value(choice), size);
  *out = (sequence){.ids = NULL};
  gptvq_status status = without_spaces(q->text, q->size) == 0 && !e->bos
                            ? encode_alone(e, text, q->size + size + 1, out, err)
                            : encode_both(e, text, q->size + size + 1, q->size, out, err);
  free(text);
  if (status != GPTVQ_OK) return status;
  if (out->context == 0 || out->context >= out->count)
    return gptvq_fail(err, GPTVQ_ERROR_DATA, "%s: line %zu: a choice has no tokens of its own", e->name,
                      q->line);
  if (out->count - out->context >= e->ctx)
    return gptvq_fail(err, GPTVQ_ERROR_DATA,
                      "%s: line %zu: a choice of %zu tokens: more than the context of %zu", e->name, q->line,
                      out->count - out->context, e->ctx);
  for (size_t i = 0; i < out->count; i++)
    if (out->ids[i] < 0 || (size_t)out->ids[i] >= e->vocab)
      return gptvq_fail(
          err, GPTVQ_ERROR_DATA,
          "%s: line %zu: token id %ld is outside the model's vocabulary of %zu: does the tokenizer "
          "belong to the model?",
          e->name, q->line, (long)out->ids[i], e->vocab);
  return GPTVQ_OK;
}

/* ---- scores ---- */

/* The session at the end of what it and the text begin with, at most `most` tokens. */
static gptvq_status go_back(examination *e, const int32_t *ids, size_t most, gptvq_error *err) {
  size_t position = gptvq_session_position(e->session), same = 0;
  while (same < gptvq_min_size(position, most) && e->seen[same] == ids[same]) same++;
  gptvq_status status = gptvq_session_truncate(e->session, same, err);
  if (status == GPTVQ_ERROR_UNSUPPORTED) status = gptvq_session_truncate(e->session, 0, err);
  return status;
}

static gptvq_status go_on(examination *e, const int32_t *ids, size_t count, float *logits, gptvq_error *err) {
  size_t position = gptvq_session_position(e->session);
  GPTVQ_TRY(gptvq_session_forward(e->session, ids, count, logits, 1, err));
  memcpy(e->seen + position, ids, count * sizeof *ids);
  return GPTVQ_OK;
}

/* *sum = log likelihood of the choice's tokens, nats. */
static gptvq_status score(examination *e, const sequence *s, double *sum, gptvq_error *err) {
  size_t drop = s->count > e->ctx ? s->count - e->ctx : 0;
  const int32_t *ids = s->ids + drop;
  size_t count = s->count - drop, context = s->context - gptvq_min_size(drop, s->context - 1);
  e->cut += drop > 0;
  GPTVQ_TRY(go_back(e, ids, context - 1, err));
  size_t position = gptvq_session_position(e->session);
  if (position < context - 1) GPTVQ_TRY(go_on(e, ids + position, context - 1 - position, NULL, err));
  *sum = 0;
  for (size_t row = context - 1; row + 1 < count; row += e->rows) {
    size_t n = gptvq_min_size(e->rows, count - 1 - row);
    GPTVQ_TRY(go_on(e, ids + row, n, e->logits, err));
    for (size_t i = 0; i < n; i++) {
      const float *logits = e->logits + i * e->vocab;
      *sum += (double)logits[ids[row + i + 1]] - gptvq_log_sum_exp(logits, e->vocab);
    }
  }
  return GPTVQ_OK;
}

static size_t characters(const json_t *text) {
  const char *bytes = json_string_value(text);
  size_t count = 0;
  for (size_t i = 0; i < json_string_length(text); i++) count += ((unsigned char)bytes[i] & 0xc0) != 0x80;
  return count;
}

static gptvq_status ask(examination *e, const gptvq_question *q, gptvq_error *err) {
  size_t best = 0, best_for_length = 0;
  double most = -INFINITY, most_for_length = -INFINITY;
  for (size_t i = 0; i < json_array_size(q->choices); i++) {
    const json_t *choice = json_array_get(q->choices, i);
    sequence s;
    double sum = 0;
    gptvq_status status = encode(e, q, choice, &s, err);
    if (status == GPTVQ_OK) status = score(e, &s, &sum, err);
    gptvq_free(s.ids);
    if (status != GPTVQ_OK) return status;
    double for_length = sum / (double)characters(choice);
    if (sum > most) best = i;
    if (for_length > most_for_length) best_for_length = i;
    most = fmax(most, sum);
    most_for_length = fmax(most_for_length, for_length);
  }
  e->right += best == q->answer;
  e->right_for_length += best_for_length == q->answer;
  e->choices += json_array_size(q->choices);
  return GPTVQ_OK;
}

/* ---- all questions ---- */

static gptvq_status begin(examination *e, gptvq_error *err) {
  GPTVQ_TRY(gptvq_session_create(e->model, e->ctx, &e->session, err));
  e->rows = gptvq_max_size(1, gptvq_min_size(e->ctx, LOGIT_BYTES / (e->vocab * sizeof(float))));
  e->seen = gptvq_alloc(e->ctx, sizeof *e->seen);
  e->logits = gptvq_alloc(e->rows, e->vocab * sizeof *e->logits);
  if (e->seen != NULL && e->logits != NULL) return GPTVQ_OK;
  return gptvq_fail_memory(err, "questions", e->ctx * sizeof *e->seen + e->rows * e->vocab * sizeof(float));
}

static gptvq_status examine(examination *e, const gptvq_questions *questions, gptvq_error *err) {
  GPTVQ_TRY(begin(e, err));
  for (size_t i = 0; i < questions->count; i++) {
    GPTVQ_TRY(ask(e, &questions->items[i], err));
    GPTVQ_TRY(gptvq_report_progress(e->callbacks, "choose", "", i + 1, questions->count,
                                    (double)e->right / (double)(i + 1), err));
  }
  return GPTVQ_OK;
}

/* Of a mean of n that are 0 or 1, by the sample's variance. */
static double standard_error(double mean, size_t n) {
  return n > 1 ? sqrt(mean * (1 - mean) / (double)(n - 1)) : 0;
}

static gptvq_status run(const gptvq_model *model, const gptvq_tokenizer *tokenizer,
                        const gptvq_questions *questions, const gptvq_eval_options *o,
                        const gptvq_callbacks *callbacks, gptvq_task_result *own, gptvq_error *err) {
  const gptvq_config *c = &model->config;
  double start = gptvq_clock();
  size_t ctx = o->ctx > 0 ? o->ctx : gptvq_min_size(2047, c->max_positions > 0 ? c->max_positions : 2047);
  gptvq_model_info info;
  gptvq_model_info_init(&info);
  gptvq_model_get_info(model, &info);
  int32_t bos = gptvq_tokenizer_bos(tokenizer), eos = gptvq_tokenizer_eos(tokenizer);
  examination e = {.model = model,
                   .tokenizer = tokenizer,
                   .callbacks = callbacks,
                   .name = o->name != NULL ? o->name : "the task",
                   .ctx = ctx,
                   .vocab = c->vocab,
                   .bos = o->bos != 0,
                   .first = bos >= 0        ? bos
                            : eos >= 0      ? eos
                            : info.bos >= 0 ? info.bos
                                            : 0};
  gptvq_status status = examine(&e, questions, err);
  gptvq_session_destroy(e.session);
  free(e.seen);
  free(e.logits);
  if (status != GPTVQ_OK) return status;
  double n = (double)questions->count;
  own->questions = questions->count;
  own->choices = e.choices;
  own->cut = e.cut;
  own->ctx = ctx;
  own->accuracy = (double)e.right / n;
  own->accuracy_stderr = standard_error(own->accuracy, questions->count);
  own->accuracy_norm = (double)e.right_for_length / n;
  own->accuracy_norm_stderr = standard_error(own->accuracy_norm, questions->count);
  own->seconds = gptvq_clock() - start;
  return GPTVQ_OK;
}

gptvq_status gptvq_eval_task(const gptvq_model *model, const gptvq_tokenizer *tokenizer, const char *text,
                             size_t size, const gptvq_eval_options *options, const gptvq_callbacks *callbacks,
                             gptvq_task_result *result, gptvq_error *err) {
  gptvq_eval_options o = {.size = sizeof o};
  gptvq_callbacks c = {.size = sizeof c};
  gptvq_task_result own = {.size = sizeof own};
  gptvq_questions questions;
  GPTVQ_TRY(gptvq_check_result("gptvq_task_result", result, err));
  GPTVQ_TRY(GPTVQ_TAKE(gptvq_eval_options, options, &o, err));
  GPTVQ_TRY(GPTVQ_TAKE(gptvq_callbacks, callbacks, &c, err));
  GPTVQ_TRY(
      gptvq_questions_read(o.name != NULL ? o.name : "the task", text, size, o.max_windows, &questions, err));
  gptvq_context *before = gptvq_context_use(model->context);
  gptvq_status status = run(model, tokenizer, &questions, &o, &c, &own, err);
  (void)gptvq_context_use(before);
  gptvq_questions_release(&questions);
  if (status == GPTVQ_OK) gptvq_give_struct(&own, sizeof own, result);
  return status;
}
