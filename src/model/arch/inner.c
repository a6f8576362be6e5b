/* The text model inside of one that also sees pictures. */
#include "base/memory.h"
#include "model/arch/arch.h"

#include <stdio.h>
#include <string.h>

/* Models that are the same function of text as the one that they hold: by architectures[0]. */
static const char *const outer_models[] = {
    "Gemma3ForConditionalGeneration", "Mistral3ForConditionalGeneration", "Qwen3_5ForConditionalGeneration",
    "Qwen3_5MoeForConditionalGeneration"};

/* What stands beside text_config and is said of the text, too: it wins there. */
static const char *const shared_keys[] = {
    "bos_token_id", "eos_token_id",         "pad_token_id",        "dtype",
    "torch_dtype",  "transformers_version", "tie_word_embeddings", "quantization_config"};

gptvq_status gptvq_config_inner(const char *folder, const json_t *config, json_t **inner, gptvq_error *err) {
  const char *outer = json_string_value(json_array_get(json_object_get(config, "architectures"), 0));
  const json_t *text = json_object_get(config, "text_config");
  bool known = false;
  *inner = NULL;
  for (size_t i = 0; i < sizeof outer_models / sizeof outer_models[0]; i++)
    known = known || (outer != NULL && strcmp(outer, outer_models[i]) == 0);
  if (!known) return GPTVQ_OK;
  const char *type = json_string_value(json_object_get(text, "model_type"));
  const gptvq_arch *arch = type != NULL ? gptvq_find_model_type(type) : NULL;
  if (type == NULL)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                      "%s/config.json: the %s has no text_config with the model_type of its text model",
                      folder, outer);
  if (arch == NULL)
    return gptvq_fail(
        err, GPTVQ_ERROR_UNSUPPORTED,
        "%s/config.json: the text model of the %s, text_config.model_type %.63s, is not supported", folder,
        outer, type);
  char name[64];
  (void)snprintf(name, sizeof name, "%sForCausalLM", arch->name);
  json_t *copy = json_deep_copy(text);
  bool fine = copy != NULL && json_object_set_new(copy, "architectures", json_pack("[s]", name)) == 0;
  for (size_t i = 0; i < sizeof shared_keys / sizeof shared_keys[0] && fine; i++) {
    json_t *value = json_object_get(config, shared_keys[i]);
    if (value != NULL && !json_is_null(value)) fine = json_object_set(copy, shared_keys[i], value) == 0;
  }
  if (fine) {
    *inner = copy;
    return GPTVQ_OK;
  }
  json_decref(copy);
  return gptvq_fail_memory(err, "text_config", 0);
}
