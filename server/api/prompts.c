/* The prompts of a completion: a text, token ids, or a list of either. */
#include "server/api/call.h"
#include "server/api/fields.h"

#include <stdlib.h>

static bool read_text(gptvq_call *call, size_t prompt, const json_t *text, gptvq_api_error *error) {
  const gptvq_service *service = call->service;
  gptvq_error err;
  int32_t *ids;
  size_t count;
  call->given[prompt] = (gptvq_given){json_string_value(text), json_string_length(text)};
  if (gptvq_tokenizer_encode(service->tokenizer, json_string_value(text), json_string_length(text), 1, &ids,
                             &count, &err) != GPTVQ_OK)
    return gptvq_api_fail_as(error, &err);
  if (count > 0) return gptvq_call_prompt(call, prompt, ids, count, error);
  gptvq_free(ids);
  int32_t first = service->bos >= 0 ? service->bos : service->eos; /* an empty text begins somewhere */
  ids = malloc(sizeof *ids);
  if (ids == NULL) return gptvq_api_no_memory(error);
  *ids = first >= 0 ? first : 0;
  return gptvq_call_prompt(call, prompt, ids, 1, error);
}

static bool read_ids(gptvq_call *call, size_t prompt, const json_t *list, gptvq_api_error *error) {
  size_t count = json_array_size(list);
  if (count == 0) return gptvq_api_fail(error, 400, NULL, "prompt", "'prompt': a list of token ids is empty");
  if (count > call->service->ctx)
    return gptvq_api_fail(error, 400, "context_length_exceeded", "prompt",
                          "the prompt has %zu tokens, this server's context %zu", count, call->service->ctx);
  int32_t *ids = malloc(count * sizeof *ids);
  if (ids == NULL) return gptvq_api_no_memory(error);
  for (size_t i = 0; i < count; i++) {
    if (gptvq_member_id(json_array_get(list, i), "prompt", call->service->vocab, &ids[i], error)) continue;
    free(ids);
    return false;
  }
  return gptvq_call_prompt(call, prompt, ids, count, error);
}

static bool read_one(gptvq_call *call, size_t prompt, const json_t *value, gptvq_api_error *error) {
  if (json_is_string(value)) return read_text(call, prompt, value, error);
  if (json_is_array(value)) return read_ids(call, prompt, value, error);
  return gptvq_api_fail(error, 400, NULL, "prompt",
                        "'prompt' must be a text, a list of token ids, or a list of either");
}

bool gptvq_call_prompts(gptvq_call *call, gptvq_api_error *error) {
  const json_t *prompt = gptvq_member(call->body, "prompt");
  if (prompt == NULL) return gptvq_api_fail(error, 400, NULL, "prompt", "'prompt' is missing");
  bool many = json_is_array(prompt) && !json_is_integer(json_array_get(prompt, 0));
  call->prompts = many ? json_array_size(prompt) : 1;
  if (call->prompts == 0) return gptvq_api_fail(error, 400, NULL, "prompt", "'prompt' is an empty list");
  if (!gptvq_call_options(call, error)) return false;
  call->given = calloc(call->prompts, sizeof *call->given);
  if (call->given == NULL) return gptvq_api_no_memory(error);
  for (size_t i = 0; i < call->prompts; i++)
    if (!read_one(call, i, many ? json_array_get(prompt, i) : prompt, error)) return false;
  return true;
}
