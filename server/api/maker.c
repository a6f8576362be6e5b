#define _GNU_SOURCE /* memmem */
#include "server/api/maker.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void gptvq_make_set(gptvq_maker *m, json_t *object, const char *key, json_t *value) {
  if (json_object_set_new(object, key, value) != 0) m->failed = true;
}

void gptvq_make_append(gptvq_maker *m, json_t *array, json_t *value) {
  if (json_array_append_new(array, value) != 0) m->failed = true;
}

json_t *gptvq_make_head(gptvq_maker *m, const gptvq_call *call, const char *kind) {
  json_t *head = json_object();
  gptvq_make_set(m, head, "id", json_string(call->id));
  gptvq_make_set(m, head, "object", json_string(kind));
  gptvq_make_set(m, head, "created", json_integer((json_int_t)call->created));
  gptvq_make_set(m, head, "model", json_string(call->service->name));
  gptvq_make_set(m, head, "choices", json_array());
  return head;
}

json_t *gptvq_make_finish(gptvq_finish finish) {
  if (finish == GPTVQ_FINISH_STOP) return json_string("stop");
  if (finish == GPTVQ_FINISH_LENGTH) return json_string("length");
  return json_null();
}

json_t *gptvq_make_usage(gptvq_maker *m, const gptvq_call *call) {
  size_t prompt = 0, cached = 0, made = 0;
  for (size_t i = 0; i < call->request->count; i++) {
    const gptvq_job *job = &call->request->jobs[i];
    made += job->sampled;
    if (i % call->n != 0) continue; /* the same prompt again */
    prompt += job->prompt_count;
    cached += job->cached;
  }
  json_t *usage = json_object(), *details = json_object();
  gptvq_make_set(m, usage, "prompt_tokens", json_integer((json_int_t)prompt));
  gptvq_make_set(m, usage, "completion_tokens", json_integer((json_int_t)made));
  gptvq_make_set(m, usage, "total_tokens", json_integer((json_int_t)(prompt + made)));
  gptvq_make_set(m, details, "cached_tokens", json_integer((json_int_t)cached));
  gptvq_make_set(m, usage, "prompt_tokens_details", details);
  return usage;
}

/* ---- texts ---- */

static size_t characters(const char *text, size_t size) {
  size_t count = 0;
  for (size_t i = 0; i < size; i++) count += ((unsigned char)text[i] & 0xc0) != 0x80;
  return count;
}

static json_t *token_text(gptvq_maker *m, int32_t id) {
  size_t size;
  char *text = gptvq_service_token(m->service, id, &size);
  json_t *string = text != NULL ? json_stringn(text, size) : NULL;
  if (string == NULL) m->failed = true;
  gptvq_free(text);
  return string;
}

/* The text of a prompt's tokens (gptvq_free), and in offsets[prompt_count], unless NULL, the characters
 * before each. */
static char *prompt_text(gptvq_maker *m, const gptvq_job *job, size_t *offsets, size_t *size) {
  gptvq_error err;
  gptvq_text_stream *stream = NULL;
  const char *piece;
  size_t more, at = 0;
  char *text = NULL;
  bool fine = gptvq_text_stream_create(m->service->tokenizer, 1, &stream, &err) == GPTVQ_OK;
  for (size_t i = 0; fine && offsets != NULL && i < job->prompt_count; i++) {
    offsets[i] = at;
    fine = gptvq_text_stream_push(stream, job->ids[i], &piece, &more, &err) == GPTVQ_OK;
    if (fine) at += characters(piece, more);
  }
  gptvq_text_stream_destroy(stream);
  fine = fine && gptvq_tokenizer_decode(m->service->tokenizer, job->ids, job->prompt_count, 1, &text, size,
                                        &err) == GPTVQ_OK;
  if (!fine) m->failed = true;
  return text;
}

/* As it was given, or as its tokens say; the caller frees with gptvq_free what *own says. */
static const char *given_text(gptvq_maker *m, const gptvq_call *call, size_t job, char **own, size_t *size) {
  const gptvq_given *given = call->given != NULL ? &call->given[job / call->n] : NULL;
  *own = NULL;
  *size = 0;
  if (given == NULL || given->text == NULL)
    return *own = prompt_text(m, &call->request->jobs[job], NULL, size);
  *size = given->size;
  return given->text;
}

json_t *gptvq_make_echo(gptvq_maker *m, const gptvq_call *call, size_t job, const char *behind, size_t size) {
  char *own;
  size_t before;
  const char *text = given_text(m, call, job, &own, &before);
  char *all = text != NULL ? malloc(before + size + 1) : NULL;
  json_t *string = NULL;
  if (all != NULL) {
    memcpy(all, text, before);
    if (size > 0) memcpy(all + before, behind, size);
    string = json_stringn(all, before + size);
  }
  free(all);
  gptvq_free(own);
  if (string == NULL) m->failed = true;
  return string;
}

/* ---- log probabilities ---- */

static json_t *number(float value) { return isnan(value) ? json_null() : json_real((double)value); }

/* The lists of a completion's logprobs. */
typedef struct lists {
  json_t *tokens, *logprobs, *top, *offsets;
} lists;

static void add_row(gptvq_maker *m, lists *l, int32_t id, const gptvq_scores *scores, size_t at,
                    size_t offset) {
  json_t *top = isnan(scores->logprobs[at]) ? json_null() : json_object();
  for (size_t i = 0; i < scores->width && json_is_object(top); i++) {
    const gptvq_alternative *one = &scores->top[at * scores->width + i];
    size_t size;
    char *text = gptvq_service_token(m->service, one->id, &size);
    if (text == NULL) m->failed = true;
    else if (json_object_get(top, text) == NULL) /* among equal texts the likeliest */
      gptvq_make_set(m, top, text, number(one->logprob));
    gptvq_free(text);
  }
  gptvq_make_append(m, l->tokens, token_text(m, id));
  gptvq_make_append(m, l->logprobs, number(scores->logprobs[at]));
  gptvq_make_append(m, l->top, top);
  gptvq_make_append(m, l->offsets, json_integer((json_int_t)offset));
}

static json_t *completion_logprobs(gptvq_maker *m, const gptvq_call *call, size_t index, size_t begin,
                                   size_t end, bool prompt) {
  const gptvq_job *job = &call->request->jobs[index];
  lists l = {json_array(), json_array(), json_array(), json_array()};
  json_t *all = json_object();
  size_t before = 0; /* characters of the prompt */
  if (call->echo) {
    char *own;
    size_t size, *offsets = prompt ? malloc(job->prompt_count * sizeof *offsets) : NULL;
    const char *text = given_text(m, call, index, &own, &size);
    before = text != NULL ? characters(text, size) : 0;
    gptvq_free(own);
    if (prompt && offsets != NULL) gptvq_free(prompt_text(m, job, offsets, &size));
    if (prompt && offsets == NULL) m->failed = true;
    for (size_t i = 0; offsets != NULL && i < job->prompt_scores.count; i++)
      add_row(m, &l, job->ids[i], &job->prompt_scores, i, offsets[i]);
    free(offsets);
  }
  for (size_t i = begin, at = 0; i < end; at = job->begins[i++]) {
    before += characters(job->text + at, job->begins[i] - at);
    add_row(m, &l, job->ids[job->prompt_count + i], &job->scores, i, before);
  }
  gptvq_make_set(m, all, "tokens", l.tokens);
  gptvq_make_set(m, all, "token_logprobs", l.logprobs);
  gptvq_make_set(m, all, "top_logprobs", l.top);
  gptvq_make_set(m, all, "text_offset", l.offsets);
  return all;
}

static json_t *bytes_of(gptvq_maker *m, const char *text, size_t size) {
  json_t *bytes = json_array();
  if (memmem(text, size, "\xef\xbf\xbd", 3) != NULL) { /* a part of a character */
    json_decref(bytes);
    return json_null();
  }
  for (size_t i = 0; i < size; i++) gptvq_make_append(m, bytes, json_integer((unsigned char)text[i]));
  return bytes;
}

/* {"token": …, "logprob": …, "bytes": […]} */
static json_t *chat_token(gptvq_maker *m, int32_t id, float logprob) {
  size_t size;
  char *text = gptvq_service_token(m->service, id, &size);
  json_t *token = json_object();
  gptvq_make_set(m, token, "token", text != NULL ? json_stringn(text, size) : NULL);
  gptvq_make_set(m, token, "logprob", number(logprob));
  gptvq_make_set(m, token, "bytes", text != NULL ? bytes_of(m, text, size) : NULL);
  gptvq_free(text);
  return token;
}

static json_t *chat_logprobs(gptvq_maker *m, const gptvq_job *job, size_t begin, size_t end) {
  json_t *content = json_array(), *all = json_object();
  const gptvq_scores *scores = &job->scores;
  for (size_t i = begin; i < end; i++) {
    json_t *token = chat_token(m, job->ids[job->prompt_count + i], scores->logprobs[i]), *top = json_array();
    for (size_t k = 0; k < scores->width; k++) {
      const gptvq_alternative *one = &scores->top[i * scores->width + k];
      gptvq_make_append(m, top, chat_token(m, one->id, one->logprob));
    }
    gptvq_make_set(m, token, "top_logprobs", top);
    gptvq_make_append(m, content, token);
  }
  gptvq_make_set(m, all, "content", content);
  gptvq_make_set(m, all, "refusal", json_null());
  return all;
}

json_t *gptvq_make_logprobs(gptvq_maker *m, const gptvq_call *call, size_t job, size_t begin, size_t end,
                            bool prompt) {
  if (!call->logprobs) return json_null();
  if (call->chat) return chat_logprobs(m, &call->request->jobs[job], begin, end);
  return completion_logprobs(m, call, job, begin, end, prompt);
}
