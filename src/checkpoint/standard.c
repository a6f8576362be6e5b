/* The tensors of a folder as the rest of the library expects them: under their full names, and with floating
 * numbers of at most 32 bits. */
#include "base/memory.h"
#include "checkpoint/checkpoint_internal.h"
#include "checkpoint/names.h"

#include <math.h>
#include <string.h>

static const char embedding[] = GPTVQ_NAME_EMBEDDING ".weight", head[] = GPTVQ_NAME_HEAD ".weight";

/* How names begin in models inside of others (with a vision tower, …), in their older and newer form, and in
 * models without an output head (LlamaModel), and how they begin here. */
static const struct {
  const char *other, *standard;
} beginnings[] = {{"language_model." GPTVQ_NAME_PREFIX, GPTVQ_NAME_PREFIX},
                  {"language_model." GPTVQ_NAME_HEAD ".", GPTVQ_NAME_HEAD "."},
                  {GPTVQ_NAME_PREFIX "language_model.", GPTVQ_NAME_PREFIX},
                  {"embed_tokens.", GPTVQ_NAME_EMBEDDING "."},
                  {"layers.", GPTVQ_NAME_BLOCKS},
                  {"norm.", GPTVQ_NAME_FINAL_NORM "."},
                  {"rotary_emb.", GPTVQ_NAME_PREFIX "rotary_emb."}};

/* Does a file of the folder hold a tensor of that name? */
static bool is_stored(const gptvq_checkpoint *checkpoint, const char *name) {
  for (size_t f = 0; f < checkpoint->file_count; f++)
    if (json_object_get(checkpoint->files[f].header, name) != NULL) return true;
  return false;
}

/* The number of the beginning that a name has, of which there is no standard. */
static bool find_beginning(const char *name, size_t *number) {
  for (size_t i = 0; i < sizeof beginnings / sizeof beginnings[0]; i++) {
    *number = i;
    if (strncmp(name, beginnings[i].other, strlen(beginnings[i].other)) == 0) return true;
  }
  return false;
}

/* "layers.0.…" is read as "model.layers.0.…", unless that is there too. */
static gptvq_status rename_tensors(gptvq_checkpoint *checkpoint, gptvq_error *err) {
  const char *first = NULL, *renamed = NULL;
  size_t bytes = 0, which;
  for (size_t t = 0; t < checkpoint->tensor_count; t++)
    if (find_beginning(checkpoint->tensors[t].name, &which))
      bytes += strlen(checkpoint->tensors[t].name) + sizeof GPTVQ_NAME_PREFIX;
  if (bytes == 0) return GPTVQ_OK;
  char *at = checkpoint->names = malloc(bytes);
  if (at == NULL) return gptvq_fail_memory(err, "tensor names", bytes);
  for (size_t t = 0; t < checkpoint->tensor_count; t++) {
    gptvq_tensor *tensor = &checkpoint->tensors[t];
    if (!find_beginning(tensor->name, &which)) continue;
    strcpy(at, beginnings[which].standard);
    strcat(at, tensor->name + strlen(beginnings[which].other));
    if (is_stored(checkpoint, at)) continue;
    if (first == NULL) {
      first = tensor->name;
      renamed = at;
    }
    tensor->name = at;
    at += strlen(at) + 1;
  }
  if (first != NULL)
    gptvq_log(checkpoint->callbacks, GPTVQ_LOG_WARNING,
              "%s: tensor %s is read as %s, as are all whose names begin in such a way", checkpoint->folder,
              first, renamed);
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
    tensor->stored = "fp64";
    tensor->bytes = tensor->count * sizeof *at;
    tensor->data = (const uint8_t *)at;
    at += gptvq_round_up(tensor->count, 16);
  }
  return GPTVQ_OK;
}

gptvq_status gptvq_standard_tensors(gptvq_checkpoint *checkpoint, gptvq_error *err) {
  GPTVQ_TRY(rename_tensors(checkpoint, err));
  name_tied_embedding(checkpoint);
  return narrow(checkpoint, err);
}
