/* The messages of a chat, as the model's template writes them. */
#include "base/json.h"
#include "server/api/call.h"
#include "server/api/fields.h"

#include <stdlib.h>
#include <string.h>

/* The texts of a list of parts, one behind the other, in its place: templates differ in what they make of
 * lists. */
static bool join_parts(json_t *message, const json_t *parts, gptvq_api_error *error) {
  size_t size = 0, at = 0;
  for (size_t i = 0; i < json_array_size(parts); i++) {
    const json_t *part = json_array_get(parts, i), *text = json_object_get(part, "text");
    const char *type = json_string_value(json_object_get(part, "type"));
    if (type != NULL && strcmp(type, "text") != 0)
      return gptvq_api_fail(error, 400, NULL, "messages", "a part of type '%.40s': the model reads text only",
                            type);
    if (!json_is_string(text))
      return gptvq_api_fail(error, 400, NULL, "messages",
                            "a part of a message must be {\"type\": \"text\", \"text\": \"…\"}");
    size += json_string_length(text);
  }
  char *all = malloc(size + 1);
  if (all == NULL) return gptvq_api_no_memory(error);
  for (size_t i = 0; i < json_array_size(parts); i++) {
    const json_t *text = json_object_get(json_array_get(parts, i), "text");
    memcpy(all + at, json_string_value(text), json_string_length(text));
    at += json_string_length(text);
  }
  int failed = json_object_set_new(message, "content", json_stringn_nocheck(all, size));
  free(all);
  return failed == 0 || gptvq_api_no_memory(error);
}

static bool check_messages(const json_t *messages, gptvq_api_error *error) {
  if (messages == NULL) return gptvq_api_fail(error, 400, NULL, "messages", "'messages' is missing");
  if (!json_is_array(messages) || json_array_size(messages) == 0)
    return gptvq_api_fail(error, 400, NULL, "messages", "'messages' must be a list of at least one message");
  for (size_t i = 0; i < json_array_size(messages); i++) {
    json_t *message = json_array_get(messages, i), *content = json_object_get(message, "content");
    if (!json_is_object(message) || !json_is_string(json_object_get(message, "role")))
      return gptvq_api_fail(error, 400, NULL, "messages",
                            "message %zu must be an object with a 'role' and a 'content'", i);
    if (json_is_array(content) && !join_parts(message, content, error)) return false;
    content = json_object_get(message, "content");
    if (content != NULL && !json_is_string(content) && !json_is_null(content))
      return gptvq_api_fail(error, 400, NULL, "messages", "the 'content' of message %zu must be a text", i);
    if ((content == NULL || json_is_null(content)) && gptvq_member(message, "tool_calls") == NULL)
      return gptvq_api_fail(error, 400, NULL, "messages", "message %zu has no 'content'", i);
  }
  return true;
}

static char *dump(const json_t *value, gptvq_api_error *error) {
  char *text = gptvq_json_dump(value, JSON_COMPACT);
  if (text == NULL) (void)gptvq_api_no_memory(error);
  return text;
}

static bool render(const gptvq_call *call, char **text, size_t *size, gptvq_api_error *error) {
  const json_t *variables = gptvq_member(call->body, "chat_template_kwargs");
  bool open = true, go_on = false;
  if (!gptvq_member_bool(call->body, "add_generation_prompt", &open, error) ||
      !gptvq_member_bool(call->body, "continue_final_message", &go_on, error))
    return false;
  if (variables != NULL && !json_is_object(variables))
    return gptvq_api_fail(error, 400, NULL, "chat_template_kwargs",
                          "'chat_template_kwargs' must be an object");
  char *messages = dump(gptvq_member(call->body, "messages"), error);
  char *extra = messages != NULL && variables != NULL ? dump(variables, error) : NULL;
  bool fine = messages != NULL && (variables == NULL || extra != NULL);
  gptvq_error err;
  const gptvq_chat_request request = {.size = sizeof request,
                                      .messages = messages,
                                      .messages_size = messages != NULL ? strlen(messages) : 0,
                                      .variables = extra,
                                      .variables_size = extra != NULL ? strlen(extra) : 0,
                                      .add_generation_prompt = open && !go_on,
                                      .continue_final_message = go_on};
  if (fine && gptvq_chat_render(call->service->chat, &request, text, size, &err) != GPTVQ_OK)
    fine = gptvq_api_fail_as(error, &err);
  free(messages);
  free(extra);
  return fine;
}

bool gptvq_call_messages(gptvq_call *call, gptvq_api_error *error) {
  const gptvq_service *service = call->service;
  char *text;
  size_t size, count;
  int32_t *ids;
  gptvq_error err;
  call->prompts = 1;
  if (!gptvq_call_options(call, error) || !check_messages(gptvq_member(call->body, "messages"), error))
    return false;
  if (service->chat == NULL)
    return gptvq_api_fail(error, 400, "no_chat_template", NULL, "%s", service->no_chat);
  if (!render(call, &text, &size, error)) return false;
  /* the template writes BOS and the like itself */
  gptvq_status status = gptvq_tokenizer_encode(service->tokenizer, text, size, 0, &ids, &count, &err);
  gptvq_free(text);
  if (status != GPTVQ_OK) return gptvq_api_fail_as(error, &err);
  if (count > 0) return gptvq_call_prompt(call, 0, ids, count, error);
  gptvq_free(ids);
  return gptvq_api_fail(error, 400, NULL, "messages", "the template makes nothing of these messages");
}
