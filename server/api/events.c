/* The answer of a call as server-sent events: one for what each job has new, as OpenAI's streams have them.
 */
#include "base/json.h"
#include "server/api/maker.h"

#include <stdlib.h>
#include <string.h>

typedef struct events {
  gptvq_maker m;
  gptvq_call *call;
  char *text;
  size_t size, room;
} events;

static void append(events *e, const char *text, size_t size) {
  if (e->room - e->size < size) {
    size_t room = 2 * (e->room + size);
    char *larger = realloc(e->text, room);
    if (larger == NULL) {
      e->m.failed = true;
      return;
    }
    e->text = larger;
    e->room = room;
  }
  memcpy(e->text + e->size, text, size);
  e->size += size;
}

/* data: TEXT; takes text. */
static void add_event(events *e, char *text) {
  if (text == NULL) e->m.failed = true;
  else {
    append(e, "data: ", 6);
    append(e, text, strlen(text));
    append(e, "\n\n", 2);
  }
  free(text);
}

static json_t *head(events *e) {
  return gptvq_make_head(&e->m, e->call, e->call->chat ? "chat.completion.chunk" : "text_completion");
}

static void add_json(events *e, json_t *json) {
  add_event(e, json != NULL ? gptvq_json_dump(json, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL);
  json_decref(json);
}

/* An event about one job; takes the values. */
static void add_choice(events *e, size_t index, json_t *text, json_t *logprobs, json_t *finish) {
  json_t *event = head(e), *choice = json_object();
  gptvq_make_set(&e->m, choice, "index", json_integer((json_int_t)index));
  gptvq_make_set(&e->m, choice, e->call->chat ? "delta" : "text", text);
  gptvq_make_set(&e->m, choice, "logprobs", logprobs);
  gptvq_make_set(&e->m, choice, "finish_reason", finish);
  gptvq_make_append(&e->m, json_object_get(event, "choices"), choice);
  add_json(e, event);
}

static json_t *delta(events *e, const char *role, const char *text, size_t size) {
  json_t *delta = json_object();
  if (role != NULL) gptvq_make_set(&e->m, delta, "role", json_string(role));
  if (text != NULL) gptvq_make_set(&e->m, delta, "content", json_stringn(text, size));
  return delta;
}

/* What comes before the first token. */
static void add_beginning(events *e, size_t index) {
  gptvq_call *call = e->call;
  gptvq_sent *sent = &call->sent[index];
  const gptvq_job *job = &call->request->jobs[index];
  if (call->chat) add_choice(e, index, delta(e, "assistant", "", 0), json_null(), json_null());
  else if (call->echo) {
    if (call->logprobs && job->prompt_scores.count == 0 && job->finish == GPTVQ_FINISH_NONE) return;
    add_choice(e, index, gptvq_make_echo(&e->m, call, index, "", 0),
               gptvq_make_logprobs(&e->m, call, index, 0, 0, true), json_null());
  }
  sent->begun = true;
}

static void add_error(events *e, const gptvq_error *why) {
  gptvq_api_error error;
  (void)gptvq_api_fail_as(&error, why);
  add_event(e, gptvq_api_error_text(&error));
}

/* Under the request's lock. */
static void add_news(events *e, size_t index) {
  gptvq_call *call = e->call;
  gptvq_sent *sent = &call->sent[index];
  const gptvq_job *job = &call->request->jobs[index];
  if (sent->finished) return;
  if (!sent->begun) add_beginning(e, index);
  if (!sent->begun) return;
  bool finished = job->finish != GPTVQ_FINISH_NONE;
  if (job->ready > sent->text || (call->logprobs && job->ready_tokens > sent->tokens)) {
    const char *text = job->text + sent->text;
    size_t size = job->ready - sent->text;
    add_choice(e, index, call->chat ? delta(e, NULL, text, size) : json_stringn(size > 0 ? text : "", size),
               gptvq_make_logprobs(&e->m, call, index, sent->tokens, job->ready_tokens, false), json_null());
    sent->text = job->ready;
    sent->tokens = job->ready_tokens;
  }
  if (!finished) return;
  sent->finished = true;
  if (job->finish == GPTVQ_FINISH_FAILED) add_error(e, &job->error);
  else
    add_choice(e, index, call->chat ? json_object() : json_string(""), json_null(),
               gptvq_make_finish(job->finish));
}

char *gptvq_call_events(gptvq_call *call, size_t *size) {
  events e = {.m = {call->service, false}, .call = call};
  bool all = true;
  (void)pthread_mutex_lock(&call->request->lock);
  for (size_t i = 0; i < call->request->count; i++) {
    add_news(&e, i);
    all = all && call->sent[i].finished;
  }
  (void)pthread_mutex_unlock(&call->request->lock);
  if (all && !call->done) {
    if (call->usage) {
      json_t *event = head(&e);
      gptvq_make_set(&e.m, event, "usage", gptvq_make_usage(&e.m, call));
      add_json(&e, event);
    }
    append(&e, "data: [DONE]\n\n", 14);
    call->done = true;
  }
  *size = e.size;
  if (!e.m.failed && e.text == NULL) e.text = calloc(1, 1);
  if (!e.m.failed) return e.text;
  free(e.text);
  return NULL;
}
