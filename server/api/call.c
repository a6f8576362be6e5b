#include "server/api/call.h"

#include "base/clock.h"
#include "server/api/fields.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

static uint64_t random_bits(void) {
  uint64_t bits;
  if (getrandom(&bits, sizeof bits, 0) != (ssize_t)sizeof bits) bits = (uint64_t)time(NULL);
  return bits;
}

/* ---- what both kinds of call have ---- */

/* Members that would change the answer, and that nothing here does. */
static bool refuse(const json_t *body, gptvq_api_error *error) {
  static const char *const names[] = {"tools",         "functions",  "suffix",      "audio",
                                      "prediction",    "grammar",    "guided_json", "guided_regex",
                                      "guided_choice", "json_schema"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    const json_t *value = gptvq_member(body, names[i]);
    bool empty = value == NULL || (json_is_array(value) && json_array_size(value) == 0) ||
                 (json_is_string(value) && json_string_length(value) == 0);
    if (!empty)
      return gptvq_api_fail(error, 400, "unsupported_parameter", names[i], "'%s' is not supported", names[i]);
  }
  const json_t *format = gptvq_member(body, "response_format");
  const char *type = json_string_value(json_object_get(format, "type"));
  if (format != NULL && (type == NULL || strcmp(type, "text") != 0))
    return gptvq_api_fail(error, 400, "unsupported_parameter", "response_format",
                          "'response_format': only {\"type\": \"text\"} is supported: nothing makes the "
                          "model write JSON");
  return true;
}

static bool check_model(const gptvq_call *call, gptvq_api_error *error) {
  const json_t *model = gptvq_member(call->body, "model");
  if (model == NULL) return true;
  if (!json_is_string(model)) return gptvq_api_fail(error, 400, NULL, "model", "'model' must be a string");
  if (strcmp(json_string_value(model), call->service->name) == 0) return true;
  return gptvq_api_fail(error, 404, "model_not_found", "model",
                        "the model '%.200s' does not exist: this server has '%.200s'",
                        json_string_value(model), call->service->name);
}

static bool add_stop(gptvq_job_options *o, const json_t *stop, gptvq_api_error *error) {
  if (!json_is_string(stop))
    return gptvq_api_fail(error, 400, NULL, "stop", "'stop' must be a string or a list of strings");
  if (json_string_length(stop) == 0) return true;
  if (o->stop_count == GPTVQ_JOB_STOPS || json_string_length(stop) > 1024)
    return gptvq_api_fail(error, 400, NULL, "stop", "'stop': at most %d texts of 1024 bytes",
                          (int)GPTVQ_JOB_STOPS);
  o->stops[o->stop_count] = json_string_value(stop);
  o->stop_sizes[o->stop_count++] = json_string_length(stop);
  return true;
}

static bool read_stops(const json_t *body, gptvq_job_options *o, gptvq_api_error *error) {
  const json_t *stop = gptvq_member(body, "stop");
  if (stop == NULL) return true;
  if (!json_is_array(stop)) return add_stop(o, stop, error);
  for (size_t i = 0; i < json_array_size(stop); i++)
    if (!add_stop(o, json_array_get(stop, i), error)) return false;
  return true;
}

static bool read_bias(const gptvq_call *call, gptvq_job_options *o, gptvq_api_error *error) {
  enum { MOST = 1024 };
  static const char name[] = "logit_bias";
  const json_t *biases = gptvq_member(call->body, name);
  size_t count = json_object_size(biases);
  if (biases == NULL || (json_is_object(biases) && count == 0)) return true;
  if (!json_is_object(biases) || count > MOST)
    return gptvq_api_fail(error, 400, NULL, name, "'%s' must be an object of at most %d token ids", name,
                          (int)MOST);
  o->bias = malloc(count * sizeof *o->bias);
  if (o->bias == NULL) return gptvq_api_no_memory(error);
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)(uintptr_t)biases, key, value) {
    char *end;
    long id = strtol(key, &end, 10);
    double add = json_number_value(value);
    if (end == key || *end != '\0' || id < 0 || (size_t)id >= call->service->vocab ||
        !json_is_number(value) || !(add >= -100 && add <= 100))
      return gptvq_api_fail(error, 400, NULL, name, "'%s' must give token ids numbers from -100 to 100",
                            name);
    o->bias[o->bias_count++] = (gptvq_bias){(int32_t)id, (float)add};
  }
  return true;
}

static bool read_sampling(const gptvq_call *call, gptvq_job_options *o, gptvq_api_error *error) {
  const json_t *body = call->body;
  gptvq_sampler *s = &o->sampler;
  s->temperature = s->top_p = 1.0f;
  s->repetition_penalty = 1.0f;
  bool cache = true;
  if (!gptvq_member_float(body, "temperature", 0, 100, &s->temperature, error) ||
      !gptvq_member_float(body, "top_p", 0, 1, &s->top_p, error) ||
      !gptvq_member_size(body, "top_k", 0, (size_t)1 << 24, &s->top_k, error) ||
      !gptvq_member_float(body, "min_p", 0, 1, &s->min_p, error) ||
      !gptvq_member_float(body, "repetition_penalty", 1e-6, 1e6, &s->repetition_penalty, error) ||
      !gptvq_member_float(body, "presence_penalty", -2, 2, &o->presence, error) ||
      !gptvq_member_float(body, "frequency_penalty", -2, 2, &o->frequency, error) ||
      !gptvq_member_bool(body, "ignore_eos", &o->ignore_eos, error) ||
      !gptvq_member_bool(body, "cache_prompt", &cache, error))
    return false;
  if (s->top_p < 1e-6f) s->top_p = 1e-6f; /* the most likely token */
  o->no_cache = !cache;
  return read_stops(body, o, error) && read_bias(call, o, error);
}

/* A completion says how many alternatives, a chat whether at all and how many. */
static bool read_logprobs(gptvq_call *call, gptvq_job_options *o, gptvq_api_error *error) {
  size_t most = call->service->vocab < GPTVQ_SCORES_WIDTH ? call->service->vocab : GPTVQ_SCORES_WIDTH;
  size_t alternatives = 0;
  if (call->chat) {
    if (!gptvq_member_bool(call->body, "logprobs", &call->logprobs, error) ||
        !gptvq_member_size(call->body, "top_logprobs", 0, most, &alternatives, error))
      return false;
    if (alternatives > 0 && !call->logprobs)
      return gptvq_api_fail(error, 400, NULL, "top_logprobs", "'top_logprobs' needs 'logprobs': true");
  } else {
    const json_t *asked = gptvq_member(call->body, "logprobs");
    call->logprobs = asked != NULL && !json_is_false(asked);
    if (call->logprobs && !gptvq_member_size(call->body, "logprobs", 0, most, &alternatives, error))
      return false;
  }
  o->scores = call->logprobs;
  o->prompt_scores = call->logprobs && call->echo;
  o->alternatives = (unsigned)alternatives;
  return true;
}

static bool read_seeds(gptvq_call *call, gptvq_api_error *error) {
  const json_t *seed = gptvq_member(call->body, "seed");
  if (seed != NULL && !json_is_integer(seed))
    return gptvq_api_fail(error, 400, NULL, "seed", "'seed' must be a whole number");
  uint64_t first = seed != NULL ? (uint64_t)json_integer_value(seed) : random_bits();
  for (size_t i = 0; i < call->request->count; i++) /* the same for each prompt */
    call->request->jobs[i].seed = first + i % call->n + (seed != NULL ? 0 : i / call->n);
  return true;
}

static bool read_stream(gptvq_call *call, gptvq_api_error *error) {
  const json_t *options = gptvq_member(call->body, "stream_options");
  if (!gptvq_member_bool(call->body, "stream", &call->stream, error)) return false;
  if (options != NULL && !json_is_object(options))
    return gptvq_api_fail(error, 400, NULL, "stream_options", "'stream_options' must be an object");
  return gptvq_member_bool(options, "include_usage", &call->usage, error);
}

bool gptvq_call_options(gptvq_call *call, gptvq_api_error *error) {
  const gptvq_service *service = call->service;
  size_t best_of = 0;
  gptvq_error err;
  call->n = 1;
  if (!check_model(call, error) || !refuse(call->body, error) || !read_stream(call, error) ||
      !gptvq_member_size(call->body, "n", 1, service->queue, &call->n, error) ||
      !gptvq_member_size(call->body, "best_of", 1, service->queue, &best_of, error))
    return false;
  if (best_of > call->n)
    return gptvq_api_fail(error, 400, "unsupported_parameter", "best_of", "'best_of' is not supported");
  if (call->n > service->queue / call->prompts)
    return gptvq_api_fail(error, 400, NULL, call->prompts > 1 ? "prompt" : "n",
                          "%zu prompts, %zu answers of each: more than %zu answers to a request",
                          call->prompts, call->n, service->queue);
  if (gptvq_request_create(call->prompts * call->n, &call->request, &err) != GPTVQ_OK)
    return gptvq_api_fail_as(error, &err);
  gptvq_job_options *o = &call->request->options;
  if (!call->chat && !gptvq_member_bool(call->body, "echo", &call->echo, error)) return false;
  o->max_tokens = call->chat ? service->ctx : 16; /* as OpenAI has it */
  if (call->chat) o->end_of_turn = service->end_of_turn;
  if (!gptvq_member_size(call->body, "max_tokens", 0, (size_t)1 << 24, &o->max_tokens, error) ||
      !gptvq_member_size(call->body, "max_completion_tokens", 0, (size_t)1 << 24, &o->max_tokens, error))
    return false;
  call->sent = calloc(call->request->count, sizeof *call->sent);
  if (call->sent == NULL) return gptvq_api_no_memory(error);
  if (service->timeout > 0) call->request->deadline = gptvq_clock() + service->timeout;
  return read_sampling(call, o, error) && read_logprobs(call, o, error) && read_seeds(call, error);
}

/* What the reply says of its prompts, all of which is in memory at a time. */
static bool check_scores(gptvq_call *call, size_t count, gptvq_api_error *error) {
  const gptvq_job_options *o = &call->request->options;
  if (!o->prompt_scores) return true;
  call->scored += call->n * count * (1 + o->alternatives); /* the context and the queue bound each */
  if (call->scored <= GPTVQ_CALL_SCORES) return true;
  return gptvq_api_fail(error, 400, NULL, "logprobs",
                        "'echo' with 'logprobs': more than %zu log probabilities of prompts in one answer: "
                        "ask with fewer prompts, a smaller 'n' or fewer alternatives",
                        (size_t)GPTVQ_CALL_SCORES);
}

bool gptvq_call_prompt(gptvq_call *call, size_t prompt, int32_t *ids, size_t count, gptvq_api_error *error) {
  const gptvq_service *service = call->service;
  gptvq_job *jobs = call->request->jobs + prompt * call->n;
  size_t room = call->request->options.max_tokens > 0 ? 1 : 0;
  jobs[0].ids = ids;
  jobs[0].prompt_count = count;
  if (count + room > service->ctx)
    return gptvq_api_fail(error, 400, "context_length_exceeded", call->chat ? "messages" : "prompt",
                          "the prompt has %zu tokens: this server's context of %zu has no room for it%s",
                          count, service->ctx, room > 0 ? " and an answer" : "");
  for (size_t i = 0; i < count; i++) /* a tokenizer may have more tokens than the model */
    if (ids[i] < 0 || (size_t)ids[i] >= service->vocab)
      return gptvq_api_fail(error, 400, NULL, call->chat ? "messages" : "prompt",
                            "the prompt has token %d, outside the model's vocabulary of %zu", (int)ids[i],
                            service->vocab);
  if (!check_scores(call, count, error)) return false;
  for (size_t i = 1; i < call->n; i++) {
    jobs[i].ids = malloc(count * sizeof *ids);
    if (jobs[i].ids == NULL) return gptvq_api_no_memory(error);
    memcpy(jobs[i].ids, ids, count * sizeof *ids);
    jobs[i].prompt_count = count;
  }
  return true;
}

/* ---- the whole ---- */

bool gptvq_call_read(const gptvq_service *service, bool chat, const char *body, size_t size, gptvq_call *call,
                     gptvq_api_error *error) {
  *call = (gptvq_call){.service = service, .chat = chat, .created = (int64_t)time(NULL)};
  (void)snprintf(call->id, sizeof call->id, "%s-%016llx", chat ? "chatcmpl" : "cmpl",
                 (unsigned long long)random_bits());
  bool fine = gptvq_member_parse(body, size, &call->body, error) &&
              (chat ? gptvq_call_messages(call, error) : gptvq_call_prompts(call, error));
  if (!fine) gptvq_call_release(call);
  return fine;
}

void gptvq_call_release(gptvq_call *call) {
  gptvq_request_destroy(call->request);
  json_decref(call->body);
  free(call->given);
  free(call->sent);
  *call = (gptvq_call){.service = NULL};
}

bool gptvq_call_finished(const gptvq_call *call) {
  (void)pthread_mutex_lock(&call->request->lock);
  bool finished = call->request->left == 0;
  (void)pthread_mutex_unlock(&call->request->lock);
  return finished;
}

bool gptvq_call_check(const gptvq_call *call, gptvq_api_error *error) {
  for (size_t i = 0; i < call->request->count; i++)
    if (call->request->jobs[i].finish == GPTVQ_FINISH_FAILED)
      return gptvq_api_fail_as(error, &call->request->jobs[i].error);
  return true;
}
