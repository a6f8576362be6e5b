#include "server/api/lookups.h"

#include "base/json.h"
#include "server/api/fields.h"

#include <stdlib.h>
#include <string.h>

/* Takes json. */
static char *finish(json_t *json, gptvq_api_error *error) {
  char *text = json != NULL ? gptvq_json_dump(json, JSON_COMPACT) : NULL;
  json_decref(json);
  if (text == NULL) (void)gptvq_api_no_memory(error);
  return text;
}

static json_t *model_json(const gptvq_service *service) {
  gptvq_model_info info;
  gptvq_model_info_init(&info);
  gptvq_model_get_info(service->model, &info);
  return json_pack("{s:s,s:s,s:I,s:s,s:I,s:{s:s,s:I,s:f,s:f,s:b}}", "id", service->name, "object", "model",
                   "created", (json_int_t)service->created, "owned_by", "gptvq", "max_model_len",
                   (json_int_t)service->ctx, "meta", "architecture", info.architecture, "n_params",
                   (json_int_t)info.parameters, "bits_per_value", info.bits_per_value, "model_bits_per_value",
                   info.model_bits_per_value, "chat", service->chat != NULL);
}

char *gptvq_api_models(const gptvq_service *service, gptvq_api_error *error) {
  json_t *model = model_json(service);
  return finish(model != NULL ? json_pack("{s:s,s:[o]}", "object", "list", "data", model) : NULL, error);
}

char *gptvq_api_model(const gptvq_service *service, const char *id, gptvq_api_error *error) {
  if (strcmp(id, service->name) == 0) return finish(model_json(service), error);
  (void)gptvq_api_fail(error, 404, "model_not_found", "model",
                       "the model '%.200s' does not exist: this server has '%.200s'", id, service->name);
  return NULL;
}

static bool tokenize(const gptvq_service *service, const json_t *body, json_t **ids, gptvq_api_error *error) {
  const json_t *text = gptvq_member(body, "content");
  bool special = true;
  if (text == NULL) text = gptvq_member(body, "prompt");
  if (!json_is_string(text))
    return gptvq_api_fail(error, 400, NULL, "content", "'content' (or 'prompt') must be a text");
  if (!gptvq_member_bool(body, "add_special", &special, error) ||
      !gptvq_member_bool(body, "add_special_tokens", &special, error))
    return false;
  gptvq_error err;
  int32_t *found;
  size_t count;
  if (gptvq_tokenizer_encode(service->tokenizer, json_string_value(text), json_string_length(text), special,
                             &found, &count, &err) != GPTVQ_OK)
    return gptvq_api_fail_as(error, &err);
  *ids = json_array();
  bool fine = *ids != NULL;
  for (size_t i = 0; fine && i < count; i++) fine = json_array_append_new(*ids, json_integer(found[i])) == 0;
  gptvq_free(found);
  if (fine) return true;
  json_decref(*ids);
  return gptvq_api_no_memory(error);
}

char *gptvq_api_tokenize(const gptvq_service *service, const char *body, size_t size,
                         gptvq_api_error *error) {
  json_t *object, *ids, *reply = NULL;
  if (!gptvq_member_parse(body, size, &object, error)) return NULL;
  bool fine = tokenize(service, object, &ids, error);
  json_decref(object);
  if (!fine) return NULL;
  size_t count = json_array_size(ids);
  reply = json_pack("{s:o,s:I,s:I}", "tokens", ids, "count", (json_int_t)count, "max_model_len",
                    (json_int_t)service->ctx);
  return finish(reply, error);
}

static bool detokenize(const gptvq_service *service, const json_t *body, json_t **text,
                       gptvq_api_error *error) {
  const json_t *tokens = gptvq_member(body, "tokens");
  size_t count = json_array_size(tokens), size;
  bool skip = false;
  if (!json_is_array(tokens))
    return gptvq_api_fail(error, 400, NULL, "tokens", "'tokens' must be a list of token ids");
  if (!gptvq_member_bool(body, "skip_special_tokens", &skip, error)) return false;
  int32_t *ids = malloc((count + 1) * sizeof *ids);
  if (ids == NULL) return gptvq_api_no_memory(error);
  bool fine = true;
  for (size_t i = 0; fine && i < count; i++)
    fine = gptvq_member_id(json_array_get(tokens, i), "tokens", service->vocab, &ids[i], error);
  char *said = NULL;
  gptvq_error err;
  if (fine && gptvq_tokenizer_decode(service->tokenizer, ids, count, skip, &said, &size, &err) != GPTVQ_OK)
    fine = gptvq_api_fail_as(error, &err);
  free(ids);
  *text = fine ? json_stringn(said, size) : NULL;
  if (fine && *text == NULL) fine = gptvq_api_no_memory(error);
  gptvq_free(said);
  return fine;
}

char *gptvq_api_detokenize(const gptvq_service *service, const char *body, size_t size,
                           gptvq_api_error *error) {
  json_t *object, *text;
  if (!gptvq_member_parse(body, size, &object, error)) return NULL;
  bool fine = detokenize(service, object, &text, error);
  json_decref(object);
  /* one name of each kind of client */
  return fine ? finish(json_pack("{s:O,s:o}", "content", text, "prompt", text), error) : NULL;
}
