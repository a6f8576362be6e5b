/* Tensors of a folder that no part of the model uses. */
#include "base/memory.h"
#include "checkpoint/names.h"
#include "model/loader.h"

#include <stdio.h>
#include <string.h>

static bool ends_with(const char *text, const char *end) {
  size_t length = strlen(text), tail = strlen(end);
  return length >= tail && strcmp(text + length - tail, end) == 0;
}

static bool is_zero(const gptvq_tensor *tensor) {
  gptvq_dtype dtype;
  if (!gptvq_tensor_dtype(tensor->type, &dtype)) return false;
  const size_t size = gptvq_dtype_size(dtype);
  for (size_t i = 0; i < tensor->count; i++) {
    float value;
    gptvq_to_float(dtype, tensor->data + i * size, 1, &value);
    if (value != 0.0f) return false;
  }
  return true;
}

/* "model.layers.N.…" of a layer behind the last one that is not read (config.further_layers)? */
static bool is_of_further_layer(const gptvq_config *c, const char *name) {
  size_t layer;
  return sscanf(name, GPTVQ_NAME_BLOCKS "%zu.", &layer) == 1 && layer >= c->layers &&
         layer - c->layers < c->further_layers;
}

/* Is it of the parts beside a text model that make its inputs of pictures? */
static bool sees(const char *name) {
  static const char *const parts[] = {"vision_tower.", "vision_model.", "multi_modal_projector."};
  if (strncmp(name, GPTVQ_NAME_PREFIX, strlen(GPTVQ_NAME_PREFIX)) == 0) name += strlen(GPTVQ_NAME_PREFIX);
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
    if (strncmp(name, parts[i], strlen(parts[i])) == 0) return true;
  return false;
}

/* Why the model is the same function without the tensor; NULL when it may not be. */
static const char *why_harmless(const gptvq_config *c, const gptvq_tensor *tensor) {
  const char *name = tensor->name;
  if (strstr(name, ".rotary_emb.") != NULL) return "a table that config.json determines";
  if (tensor->rank == 1 && ends_with(name, ".bias") && is_zero(tensor)) return "a bias of zeros";
  if (ends_with(name, ".masked_bias") || (tensor->rank == 4 && ends_with(name, ".bias")))
    return "a mask of attention"; /* GPT-NeoX's buffers, which conversions drag along */
  if (ends_with(name, ".num_batches_tracked")) return "a counter of the training";
  if (ends_with(name, ".position_ids")) return "a table of positions";
  if (is_of_further_layer(c, name)) return "a layer that guesses tokens after the next";
  if (strncmp(name, "v_head.", 7) == 0) return "a value head of the training";
  return NULL;
}

/* Of a model that sees, the tensors for that; they go with those that are not used. */
static void drop_sight(gptvq_model *model) {
  const gptvq_model_parts *parts = model->owned;
  const gptvq_tensor *first = NULL;
  size_t count = 0;
  for (size_t i = 0; parts->inside && i < gptvq_checkpoint_tensor_count(model->checkpoint); i++) {
    const gptvq_tensor *tensor = gptvq_checkpoint_tensor_at(model->checkpoint, i);
    if (!sees(tensor->name)) continue;
    if (count++ == 0) first = tensor;
    model->info.beside_bytes += tensor->file_bytes;
  }
  if (count > 0)
    gptvq_log(parts->callbacks, GPTVQ_LOG_WARNING,
              "%s: only the text model (text_config) is read: %zu tensors that make inputs of pictures, the "
              "first of them %s, are left out",
              gptvq_checkpoint_folder(model->checkpoint), count, first->name);
}

gptvq_status gptvq_drop_extra(gptvq_model *model, gptvq_error *err) {
  const gptvq_model_parts *parts = model->owned;
  const gptvq_config *c = &model->config;
  const gptvq_tensor *first = NULL;
  size_t dropped = 0;
  drop_sight(model);
  for (size_t i = 0; i < gptvq_checkpoint_tensor_count(model->checkpoint); i++) {
    const gptvq_tensor *tensor = gptvq_checkpoint_tensor_at(model->checkpoint, i);
    if (parts->used[i] || (parts->inside && sees(tensor->name))) continue;
    if (c->tie_embeddings && strcmp(tensor->name, GPTVQ_NAME_HEAD ".weight") == 0) {
      GPTVQ_TRY(gptvq_note_tensor(model, tensor, false, "the embedding again", err));
      continue;
    }
    /* Llama's early checkpoints have these: nothing to speak of, and passed on as they are */
    parts->used[i] = ends_with(tensor->name, ".rotary_emb.inv_freq");
    const char *why = why_harmless(c, tensor);
    if (why != NULL) GPTVQ_TRY(gptvq_note_tensor(model, tensor, false, why, err));
    if (parts->used[i]) continue;
    if (why == NULL)
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                        "%s: tensor %s has no place in a %s of %zu layers as config.json describes it%s",
                        tensor->file, tensor->name, c->architecture, c->layers,
                        ends_with(tensor->name, ".bias") ? ", and is not zero" : "");
    if (dropped++ == 0) first = tensor;
  }
  if (dropped > 0)
    gptvq_log(parts->callbacks, GPTVQ_LOG_WARNING,
              "%s: tensor %s (%s) is left out, as are all that change nothing: %zu", first->file, first->name,
              why_harmless(c, first), dropped);
  gptvq_checkpoint_keep(model->checkpoint, parts->used);
  return GPTVQ_OK;
}
