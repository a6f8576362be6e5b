/* Tensors of a folder that no part of the model uses: groups of them that a text model does without, and
 * single ones that change nothing. */
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

/* Tensors that stand together for something that the text model does without. */
typedef struct group {
  char name[64];   /* "mtp.*"; "" where the tensor is of none */
  const char *why; /* it is left out */
} group;

static bool begins_with(const char *text, const char *start) {
  return strncmp(text, start, strlen(start)) == 0;
}

/* Beside a text model, what makes its inputs of pictures, under the model's prefix or without. */
static bool find_sight(const char *name, group *out) {
  static const char *const parts[] = {"vision_tower.", "vision_model.", "visual.", "multi_modal_projector."};
  const char *prefix = begins_with(name, GPTVQ_NAME_PREFIX) ? GPTVQ_NAME_PREFIX : "";
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
    if (begins_with(name + strlen(prefix), parts[i])) {
      (void)snprintf(out->name, sizeof out->name, "%s%s*", prefix, parts[i]);
      out->why = "makes inputs of pictures";
      return true;
    }
  return false;
}

static group group_of(const gptvq_model *model, const char *name) {
  const gptvq_config *c = &model->config;
  group found = {.name = ""};
  size_t layer;
  if (((const gptvq_model_parts *)model->owned)->inside && find_sight(name, &found)) return found;
  const gptvq_arch_skipped *skipped = &model->arch->skipped;
  if (skipped->prefix != NULL && begins_with(name, skipped->prefix)) {
    (void)snprintf(found.name, sizeof found.name, "%s*", skipped->prefix);
    found.why = skipped->what;
  } else if (sscanf(name, GPTVQ_NAME_BLOCKS "%zu.", &layer) == 1 && layer >= c->layers &&
             layer - c->layers < c->further_layers) { /* behind the last one: not read */
    (void)snprintf(found.name, sizeof found.name, GPTVQ_NAME_BLOCKS "%zu.*", layer);
    found.why = "a layer that guesses tokens after the next";
  }
  return found;
}

/* Why the model is the same function without the tensor; NULL when it may not be. */
static const char *why_harmless(const gptvq_tensor *tensor) {
  const char *name = tensor->name;
  if (strstr(name, ".rotary_emb.") != NULL) return "a table that config.json determines";
  if (tensor->rank == 1 && ends_with(name, ".bias") && is_zero(tensor)) return "a bias of zeros";
  if (ends_with(name, ".masked_bias") || (tensor->rank == 4 && ends_with(name, ".bias")))
    return "a mask of attention"; /* GPT-NeoX's buffers, which conversions drag along */
  if (ends_with(name, ".num_batches_tracked")) return "a counter of the training";
  if (ends_with(name, ".position_ids")) return "a table of positions";
  if (strncmp(name, "v_head.", 7) == 0) return "a value head of the training";
  return NULL;
}

/* What has been left out so far. */
typedef struct account {
  gptvq_model *model;
  group group; /* the last one, and what it holds */
  gptvq_tensor sum;
  size_t tensors, single; /* of the group; of those that change nothing */
  char list[512];         /* for the warning */
} account;

static void add_to_list(account *a, const char *name, const char *why) {
  const size_t used = strlen(a->list);
  (void)snprintf(a->list + used, sizeof a->list - used, "%s%s (%s)", used > 0 ? ", " : "", name, why);
}

static gptvq_status finish_group(account *a, gptvq_error *err) {
  if (a->tensors == 0) return GPTVQ_OK;
  a->sum.rank = 1;
  a->sum.name = a->group.name;
  GPTVQ_TRY(gptvq_note_tensors(a->model, &a->sum, a->tensors, false, a->group.why, err));
  a->model->info.beside_bytes += a->sum.file_bytes;
  add_to_list(a, a->group.name, a->group.why);
  a->tensors = 0;
  return GPTVQ_OK;
}

/* Tensors come in the order of their names: those of a group together. */
static gptvq_status add_to_group(account *a, const gptvq_tensor *tensor, const group *of, gptvq_error *err) {
  if (a->tensors == 0 || strcmp(a->group.name, of->name) != 0) {
    GPTVQ_TRY(finish_group(a, err));
    a->group = *of;
    a->sum = (gptvq_tensor){.rank = 1};
  }
  a->tensors++;
  a->sum.dims[0] += tensor->count;
  a->sum.file_bytes += tensor->file_bytes;
  return GPTVQ_OK;
}

/* One tensor without which the model is the same function; GPTVQ_ERROR_FORMAT: it may not be. */
static gptvq_status add_single(account *a, const gptvq_tensor *tensor, bool *kept, gptvq_error *err) {
  const gptvq_config *c = &a->model->config;
  const bool again = c->tie_embeddings && strcmp(tensor->name, GPTVQ_NAME_HEAD ".weight") == 0;
  const char *why = again ? "the embedding again" : why_harmless(tensor);
  if (why == NULL)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                      "%s: tensor %s has no place in a %s of %zu layers as config.json describes it%s",
                      tensor->file, tensor->name, c->architecture, c->layers,
                      ends_with(tensor->name, ".bias") ? ", and is not zero" : "");
  /* Llama's early checkpoints have these: nothing to speak of, and passed on as they are */
  *kept = ends_with(tensor->name, ".rotary_emb.inv_freq");
  if (!*kept && !again && a->single++ == 0) add_to_list(a, tensor->name, why);
  return gptvq_note_tensors(a->model, tensor, 1, false, why, err);
}

gptvq_status gptvq_drop_extra(gptvq_model *model, gptvq_error *err) {
  const gptvq_model_parts *parts = model->owned;
  account a = {.model = model};
  for (size_t i = 0; i < gptvq_checkpoint_tensor_count(model->checkpoint); i++) {
    const gptvq_tensor *tensor = gptvq_checkpoint_tensor_at(model->checkpoint, i);
    if (parts->used[i]) continue;
    const group of = group_of(model, tensor->name);
    if (of.name[0] != '\0') GPTVQ_TRY(add_to_group(&a, tensor, &of, err));
    else GPTVQ_TRY(add_single(&a, tensor, &parts->used[i], err));
  }
  GPTVQ_TRY(finish_group(&a, err));
  if (a.list[0] != '\0')
    gptvq_log(parts->callbacks, GPTVQ_LOG_WARNING, "%s: left out: %s%s",
              gptvq_checkpoint_folder(model->checkpoint), a.list,
              a.single > 1 ? ", and more that change nothing" : "");
  gptvq_checkpoint_keep(model->checkpoint, parts->used);
  return GPTVQ_OK;
}
