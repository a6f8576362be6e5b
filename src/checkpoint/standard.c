/* The config and the tensors of a folder as the rest of the library expects them: those of the text model,
 * under their full names, and with floating numbers of at most 32 bits. */
#include "base/memory.h"
#include "checkpoint/checkpoint_internal.h"
#include "checkpoint/names.h"

#include <math.h>
#include <string.h>

static const char prefix[] = GPTVQ_NAME_PREFIX, embedding[] = GPTVQ_NAME_EMBEDDING ".weight",
                  head[] = GPTVQ_NAME_HEAD ".weight";

/* Does a file of the folder hold a tensor of that name? */
static bool is_stored(const gptvq_checkpoint *checkpoint, const char *name) {
  for (size_t f = 0; f < checkpoint->file_count; f++)
    if (json_object_get(checkpoint->files[f].header, name) != NULL) return true;
  return false;
}

/* Is it one of the names that a model without an output head (LlamaModel) gives its parts? */
static bool lacks_prefix(const char *name) {
  static const char *const parts[] = {GPTVQ_NAME_EMBEDDING ".", GPTVQ_NAME_BLOCKS, GPTVQ_NAME_FINAL_NORM ".",
                                      GPTVQ_NAME_PREFIX "rotary_emb."};
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
    const char *part = parts[i] + strlen(prefix);
    if (strncmp(name, part, strlen(part)) == 0) return true;
  }
  return false;
}

/* The text model inside another one: its tensors lose the other's prefix, and with it their own. */
static bool strip_inner(gptvq_checkpoint *checkpoint) {
  static const char inner[] = GPTVQ_NAME_PREFIX "language_model.";
  for (size_t t = 0; checkpoint->inner && t < checkpoint->tensor_count; t++)
    if (strncmp(checkpoint->tensors[t].name, inner, sizeof inner - 1) == 0)
      checkpoint->tensors[t].name += sizeof inner - 1;
  return checkpoint->inner;
}

/* "layers.0.…" is read as "model.layers.0.…", unless that is there too. */
static gptvq_status add_prefixes(gptvq_checkpoint *checkpoint, gptvq_error *err) {
  const char *first = NULL;
  size_t bytes = 0;
  const bool inner = strip_inner(checkpoint);
  for (size_t t = 0; t < checkpoint->tensor_count; t++)
    if (lacks_prefix(checkpoint->tensors[t].name))
      bytes += strlen(checkpoint->tensors[t].name) + sizeof prefix;
  if (bytes == 0) return GPTVQ_OK;
  char *at = checkpoint->names = malloc(bytes);
  if (at == NULL) return gptvq_fail_memory(err, "tensor names", bytes);
  for (size_t t = 0; t < checkpoint->tensor_count; t++) {
    gptvq_tensor *tensor = &checkpoint->tensors[t];
    if (!lacks_prefix(tensor->name)) continue;
    memcpy(at, prefix, sizeof prefix);
    strcat(at, tensor->name);
    if (is_stored(checkpoint, at)) continue;
    if (first == NULL) first = tensor->name;
    tensor->name = at;
    at += strlen(at) + 1;
  }
  if (first != NULL && !inner)
    gptvq_log(checkpoint->callbacks, GPTVQ_LOG_WARNING,
              "%s: tensor %s is read as %s%s, as are all that are named without \"%s\"", checkpoint->folder,
              first, prefix, first, prefix);
  return GPTVQ_OK;
}

/* Of two names for one matrix the embedding's is the one that is read. */
static void name_tied_embedding(gptvq_checkpoint *checkpoint) {
  gptvq_tensor *other = NULL;
  if (!json_is_true(json_object_get(checkpoint->config, "tie_word_embeddings"))) return;
  for (size_t t = 0; t < checkpoint->tensor_count; t++) {
    if (strcmp(checkpoint->tensors[t].name, embedding) == 0) return;
    if (strcmp(checkpoint->tensors[t].name, head) == 0) other = &checkpoint->tensors[t];
  }
  if (other == NULL) return;
  other->name = embedding;
  gptvq_log(checkpoint->callbacks, GPTVQ_LOG_WARNING,
            "%s: %s is not there: %s is the embedding too, as config.json ties them", checkpoint->folder,
            embedding, head);
}

/* F64 numbers become fp32 in memory of the checkpoint's own. */
static gptvq_status narrow(gptvq_checkpoint *checkpoint, gptvq_error *err) {
  const gptvq_tensor *first = NULL;
  size_t values = 0, found = 0;
  for (size_t t = 0; t < checkpoint->tensor_count; t++) {
    const gptvq_tensor *tensor = &checkpoint->tensors[t];
    if (tensor->type != GPTVQ_T_F64) continue;
    if (found++ == 0) first = tensor;
    values += gptvq_round_up(tensor->count, 16); /* the counts were checked against the files' sizes */
  }
  if (found == 0) return GPTVQ_OK;
  float *at = checkpoint->narrowed = gptvq_alloc(values, sizeof *at);
  if (at == NULL)
    return gptvq_fail_memory(err, "F64 tensors as fp32", gptvq_saturated_size(values, sizeof *at));
  gptvq_log(
      checkpoint->callbacks, GPTVQ_LOG_WARNING,
      "%s: tensor %s is F64 and read as fp32, as are all of that type: %zu, which take %zu bytes of memory",
      first->file, first->name, found, values * sizeof *at);
  for (size_t t = 0; t < checkpoint->tensor_count; t++) {
    gptvq_tensor *tensor = &checkpoint->tensors[t];
    if (tensor->type != GPTVQ_T_F64) continue;
    for (size_t i = 0; i < tensor->count; i++) {
      double value;
      memcpy(&value, tensor->data + i * sizeof value, sizeof value);
      at[i] = (float)value;
      char place[GPTVQ_PLACE_TEXT];
      if (!isfinite(at[i]))
        return gptvq_fail(err, GPTVQ_ERROR_NUMERIC,
                          "%s: tensor %s holds NaN, infinity or a number too large for fp32 at %s",
                          tensor->file, tensor->name, gptvq_element_place(tensor, i, place));
    }
    tensor->type = GPTVQ_T_F32;
    tensor->bytes = tensor->count * sizeof *at;
    tensor->data = (const uint8_t *)at;
    at += gptvq_round_up(tensor->count, 16);
  }
  return GPTVQ_OK;
}

/* What stands beside text_config and is the text model's too; of these the outer ones count. */
static bool is_outer(const char *key) {
  static const char *const keys[] = {"architectures", "tie_word_embeddings", "quantization_config"};
  for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
    if (strcmp(key, keys[i]) == 0) return true;
  return false;
}

gptvq_status gptvq_standard_config(gptvq_checkpoint *checkpoint, gptvq_error *err) {
  const json_t *text = json_object_get(checkpoint->config, "text_config"), *value;
  if (!json_is_object(text)) return GPTVQ_OK;
  const char *key;
  json_t *config = json_deep_copy(text), *item;
  bool fine = config != NULL;
  json_object_foreach(checkpoint->config, key, item) {
    if (is_outer(key)) fine = fine && json_object_set(config, key, item) == 0;
  }
  for (size_t i = 0; fine && i < 2; i++) { /* where only the outer one says it */
    static const char *const types[] = {"torch_dtype", "dtype"};
    value = json_object_get(checkpoint->config, types[i]);
    if (value != NULL && json_object_get(config, types[i]) == NULL)
      fine = json_object_set(config, types[i], (json_t *)(uintptr_t)value) == 0;
  }
  if (!fine) {
    json_decref(config);
    return gptvq_fail_memory(err, "config.json", 0);
  }
  json_decref(checkpoint->config);
  checkpoint->config = config;
  checkpoint->inner = true;
  return GPTVQ_OK;
}

gptvq_status gptvq_standard_tensors(gptvq_checkpoint *checkpoint, gptvq_error *err) {
  GPTVQ_TRY(add_prefixes(checkpoint, err));
  name_tied_embedding(checkpoint);
  return narrow(checkpoint, err);
}
