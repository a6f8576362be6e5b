#include "model/loader.h"
#include "base/memory.h"
#include "checkpoint/names.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Tensors up to this size are scanned for NaN and infinity when the model is opened (tens of milliseconds);
 * embedding rows of larger ones when they are looked up, large linears by the quantizer. */
enum { CHECK_VALUES = 1 << 25 };

static gptvq_model_parts *parts_of(const gptvq_model *model) { return model->owned; }

static bool keep(gptvq_model *model, void *memory) {
  gptvq_owned *owned = memory == NULL ? NULL : malloc(sizeof *owned);
  if (owned == NULL) {
    free(memory);
    return false;
  }
  *owned = (gptvq_owned){parts_of(model)->owned, memory};
  parts_of(model)->owned = owned;
  return true;
}

void *gptvq_model_alloc(gptvq_model *model, size_t count, size_t size) {
  void *memory = gptvq_alloc_zero(count, size);
  return keep(model, memory) ? memory : NULL;
}

const char *gptvq_model_name(gptvq_model *model, const char *name) {
  char *copy = strdup(name);
  return keep(model, copy) ? copy : NULL;
}

/* Tensors are sorted by name: the first number whose name is not before `name`. */
static size_t lower_bound(const gptvq_checkpoint *checkpoint, const char *name) {
  size_t low = 0, high = gptvq_checkpoint_tensor_count(checkpoint);
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (strcmp(gptvq_checkpoint_tensor_at(checkpoint, middle)->name, name) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

static void mark_used(gptvq_model *model, const gptvq_tensor *tensor) {
  parts_of(model)->used[lower_bound(model->checkpoint, tensor->name)] = true;
}

static void full_name(char out[288], const char *name, const char *suffix) {
  snprintf(out, 288, "%s%s", name, suffix);
}

gptvq_status gptvq_load_values(gptvq_model *model, const char *name, size_t rank, const size_t *dims,
                               const float **out, gptvq_error *err) {
  const gptvq_tensor *tensor;
  gptvq_dtype dtype;
  GPTVQ_TRY(gptvq_checkpoint_get(model->checkpoint, name, rank, dims, &tensor, &dtype, err));
  GPTVQ_TRY(gptvq_tensor_check_finite(tensor, err));
  float *values = gptvq_model_alloc(model, tensor->count, sizeof *values);
  if (values == NULL)
    return gptvq_fail_memory(err, name, gptvq_saturated_size(tensor->count, sizeof *values));
  gptvq_to_float(dtype, tensor->data, tensor->count, values);
  mark_used(model, tensor);
  model->info.parameters += tensor->count;
  *out = values;
  return GPTVQ_OK;
}

gptvq_status gptvq_load_vector(gptvq_model *model, const char *name, size_t n, const float **out,
                               gptvq_error *err) {
  return gptvq_load_values(model, name, 1, &n, out, err);
}

gptvq_status gptvq_load_norm(gptvq_model *model, const char *name, size_t n, const float **out,
                             gptvq_error *err) {
  GPTVQ_TRY(gptvq_load_vector(model, name, n, out, err));
  gptvq_weights_to_gains(model->arch, n, (float *)(uintptr_t)*out);
  return GPTVQ_OK;
}

static gptvq_status load_weights(gptvq_model *model, const char *name, size_t rows, size_t cols,
                                 gptvq_linear *out, const gptvq_tensor **tensor, gptvq_error *err) {
  char full[288];
  const size_t dims[2] = {rows, cols};
  full_name(full, name, ".weight");
  GPTVQ_TRY(gptvq_checkpoint_get(model->checkpoint, full, 2, dims, tensor, &out->dtype, err));
  out->weights = (*tensor)->data;
  out->stored = (*tensor)->stored;
  mark_used(model, *tensor);
  return GPTVQ_OK;
}

gptvq_status gptvq_load_dense(gptvq_model *model, const char *name, size_t rows, size_t cols, const char *why,
                              gptvq_linear *out, gptvq_error *err) {
  const gptvq_tensor *tensor;
  *out = (gptvq_linear){.name = name, .rows = rows, .cols = cols};
  GPTVQ_TRY(load_weights(model, name, rows, cols, out, &tensor, err));
  if (tensor->count <= CHECK_VALUES) GPTVQ_TRY(gptvq_tensor_check_finite(tensor, err));
  model->info.parameters += rows * cols;
  return gptvq_note_tensors(model, tensor, 1, true, why, err);
}

static gptvq_status load_packed(gptvq_model *model, const char *name, gptvq_linear *out, gptvq_stored *stored,
                                gptvq_error *err) {
  gptvq_packed_info info;
  void *owned = NULL;
  char prefix[288];
  out->is_packed = true;
  GPTVQ_TRY(gptvq_checkpoint_get_packed(model->checkpoint, name, &out->packed, &info, &owned, err));
  if (owned != NULL && !keep(model, owned)) return gptvq_fail_memory(err, name, sizeof(gptvq_owned));
  const gptvq_packed_shape *shape = &out->packed.shape;
  if (shape->rows != out->rows || shape->cols != out->cols)
    return gptvq_fail(
        err, GPTVQ_ERROR_FORMAT, "%s: packed layer %s is %zu x %zu, but config.json makes it %zu x %zu",
        gptvq_checkpoint_folder(model->checkpoint), name, shape->rows, shape->cols, out->rows, out->cols);
  full_name(prefix, name, ".");
  size_t count = gptvq_checkpoint_tensor_count(model->checkpoint), length = strlen(prefix);
  for (size_t i = lower_bound(model->checkpoint, prefix); i < count; i++) {
    const char *other = gptvq_checkpoint_tensor_at(model->checkpoint, i)->name;
    if (strncmp(other, prefix, length) != 0) break;
    if (strcmp(other + length, "bias") != 0) parts_of(model)->used[i] = true;
  }
  stored->bytes = info.bytes;
  stored->error = info.error;
  memcpy(stored->method, info.method, sizeof stored->method);
  model->info.packed = 1;
  return GPTVQ_OK;
}

gptvq_status gptvq_load_linear(gptvq_model *model, const char *name, size_t rows, size_t cols, bool bias,
                               gptvq_linear *out, gptvq_error *err) {
  gptvq_model_parts *parts = parts_of(model);
  char full[288];
  *out = (gptvq_linear){.name = name, .rows = rows, .cols = cols};
  if (parts->stored_count == parts->stored_room)
    return gptvq_fail(err, GPTVQ_ERROR_INTERNAL, "%s: more linears than the description counted", name);
  gptvq_stored *stored = &parts->stored[parts->stored_count++];
  *stored = (gptvq_stored){.linear = out, .error = (double)NAN};
  full_name(full, name, ".weight");
  if (gptvq_checkpoint_find(model->checkpoint, full) == NULL &&
      gptvq_checkpoint_has_packed(model->checkpoint, name)) {
    GPTVQ_TRY(load_packed(model, name, out, stored, err));
  } else {
    const gptvq_tensor *tensor;
    GPTVQ_TRY(load_weights(model, name, rows, cols, out, &tensor, err));
    stored->bytes = tensor->file_bytes;
  }
  model->info.parameters += rows * cols;
  model->info.linear_values += rows * cols;
  model->info.linear_bytes += stored->bytes;
  if (!bias) return GPTVQ_OK;
  full_name(full, name, ".bias");
  return gptvq_load_vector(model, full, rows, &out->bias, err);
}

/* A packed matrix that is none of the blocks', with a line in the account of those. */
static gptvq_status load_packed_outside(gptvq_model *model, const char *name, const char *why,
                                        gptvq_linear *out, gptvq_error *err) {
  const size_t rows = model->config.vocab, cols = model->config.hidden;
  gptvq_stored stored = {.linear = out};
  *out = (gptvq_linear){.name = name, .rows = rows, .cols = cols};
  GPTVQ_TRY(load_packed(model, name, out, &stored, err));
  model->info.parameters += rows * cols;
  const gptvq_tensor account = {
      .name = name, .rank = 2, .dims = {rows, cols}, .count = rows * cols, .file_bytes = stored.bytes};
  GPTVQ_TRY(gptvq_note_tensors(model, &account, 1, true, why, err));
  parts_of(model)->others[parts_of(model)->other_count - 1].index_bits = out->packed.shape.index_bits;
  return GPTVQ_OK;
}

gptvq_status gptvq_load_embedding(gptvq_model *model, gptvq_error *err) {
  static const char name[] = GPTVQ_NAME_EMBEDDING, full[] = GPTVQ_NAME_EMBEDDING ".weight";
  const gptvq_checkpoint *checkpoint = model->checkpoint;
  if (gptvq_checkpoint_find(checkpoint, full) == NULL && gptvq_checkpoint_has_packed(checkpoint, name))
    return load_packed_outside(
        model, name, model->config.tie_embeddings ? "the embedding and output head" : "the embedding",
        &model->embedding, err);
  for (size_t i = 0; gptvq_checkpoint_find(checkpoint, full) == NULL; i++) {
    if (i == gptvq_checkpoint_tensor_count(checkpoint)) break; /* reported as missing */
    const gptvq_tensor *tensor = gptvq_checkpoint_tensor_at(checkpoint, i);
    if (strstr(tensor->name, "embed_tokens.weight") != NULL)
      return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                        "%s: the embedding is called %s, not %s: models inside others (multimodal ones) and "
                        "other prefixes are not supported",
                        tensor->file, tensor->name, full);
  }
  return gptvq_load_dense(model, name, model->config.vocab, model->config.hidden,
                          "rows of it are looked up; option --embedding-bits packs it", &model->embedding,
                          err);
}

/* Do two tensors hold the same numbers, in whatever types? Stops at the first difference. */
static bool same_values(const gptvq_tensor *a, const gptvq_tensor *b) {
  enum { CHUNK = 1024 };
  gptvq_dtype a_type, b_type;
  if (a->rank != b->rank || memcmp(a->dims, b->dims, a->rank * sizeof *a->dims) != 0) return false;
  if (a->type == b->type) return memcmp(a->data, b->data, a->bytes) == 0;
  if (!gptvq_tensor_dtype(a->type, &a_type) || !gptvq_tensor_dtype(b->type, &b_type)) return false;
  for (size_t at = 0; at < a->count; at += CHUNK) {
    float x[CHUNK], y[CHUNK];
    const size_t n = gptvq_min_size(CHUNK, a->count - at);
    gptvq_to_float(a_type, a->data + at * gptvq_dtype_size(a_type), n, x);
    gptvq_to_float(b_type, b->data + at * gptvq_dtype_size(b_type), n, y);
    if (memcmp(x, y, n * sizeof *x) != 0) return false;
  }
  return true;
}

/* A head that config.json ties to the embedding may have values of its own all the same (a merged adapter).
 */
static void check_tie(gptvq_model *model, const gptvq_tensor *weight, bool is_packed) {
  const gptvq_tensor *embedding =
      gptvq_checkpoint_find(model->checkpoint, GPTVQ_NAME_EMBEDDING ".weight"); /* NULL: it is packed */
  if (weight == NULL && !is_packed) return;
  if (weight != NULL && embedding != NULL && same_values(weight, embedding)) return;
  model->config.tie_embeddings = false;
  gptvq_log(parts_of(model)->callbacks, GPTVQ_LOG_WARNING,
            "%s: config.json ties the output head to the embedding (tie_word_embeddings), but lm_head has "
            "other values: it is used",
            gptvq_checkpoint_folder(model->checkpoint));
}

gptvq_status gptvq_load_head(gptvq_model *model, gptvq_error *err) {
  static const char name[] = GPTVQ_NAME_HEAD, full[] = GPTVQ_NAME_HEAD ".weight";
  const size_t rows = model->config.vocab, cols = model->config.hidden;
  const gptvq_tensor *weight = gptvq_checkpoint_find(model->checkpoint, full);
  const bool is_packed = gptvq_checkpoint_has_packed(model->checkpoint, name);
  if (model->config.tie_embeddings) check_tie(model, weight, is_packed);
  if (model->config.tie_embeddings) {
    model->head = model->embedding;
    return GPTVQ_OK;
  }
  if (weight != NULL)
    return gptvq_load_dense(model, name, rows, cols, "the output head; option --head-bits packs it",
                            &model->head, err);
  if (!is_packed)
    return gptvq_fail(
        err, GPTVQ_ERROR_FORMAT,
        "%s: tensor %s is missing, and config.json does not tie the output head to the embedding "
        "(tie_word_embeddings): without a head no tokens can be predicted",
        gptvq_checkpoint_folder(model->checkpoint), full);
  return load_packed_outside(model, name, "the output head", &model->head, err);
}
