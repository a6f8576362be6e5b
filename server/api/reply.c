/* The whole answer of a call in one piece. */
#include "base/json.h"
#include "server/api/maker.h"

#include <stdlib.h>

static json_t *choice(gptvq_maker *m, const gptvq_call *call, size_t index) {
  const gptvq_job *job = &call->request->jobs[index];
  const char *text = job->text_size > 0 ? job->text : "";
  json_t *choice = json_object();
  gptvq_make_set(m, choice, "index", json_integer((json_int_t)index));
  if (call->chat) {
    json_t *message = json_object();
    gptvq_make_set(m, message, "role", json_string("assistant"));
    gptvq_make_set(m, message, "content", json_stringn(text, job->text_size));
    gptvq_make_set(m, message, "refusal", json_null());
    gptvq_make_set(m, choice, "message", message);
  } else if (call->echo) {
    gptvq_make_set(m, choice, "text", gptvq_make_echo(m, call, index, text, job->text_size));
  } else {
    gptvq_make_set(m, choice, "text", json_stringn(text, job->text_size));
  }
  gptvq_make_set(m, choice, "logprobs", gptvq_make_logprobs(m, call, index, 0, job->generated, true));
  gptvq_make_set(m, choice, "finish_reason", gptvq_make_finish(job->finish));
  return choice;
}

char *gptvq_call_reply(const gptvq_call *call) {
  gptvq_maker m = {call->service, false};
  json_t *reply = gptvq_make_head(&m, call, call->chat ? "chat.completion" : "text_completion");
  for (size_t i = 0; i < call->request->count; i++)
    gptvq_make_append(&m, json_object_get(reply, "choices"), choice(&m, call, i));
  gptvq_make_set(&m, reply, "usage", gptvq_make_usage(&m, call));
  char *text = m.failed ? NULL : gptvq_json_dump(reply, JSON_COMPACT | JSON_REAL_PRECISION(9));
  json_decref(reply);
  return text;
}
