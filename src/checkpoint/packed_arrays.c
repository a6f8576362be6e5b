/* A packed layer from arrays that somebody else has read: the reader of folders, over a folder of one layer.
 */
#include "base/memory.h"
#include "checkpoint/checkpoint_internal.h"
#include "checkpoint/packed_parts.h"

#include <stdio.h>
#include <string.h>

/* Types as safetensors names them, of packed arrays. */
static bool find_type(const char *name, gptvq_tensor_type *type) {
  static const gptvq_tensor_type types[] = {GPTVQ_T_U8,  GPTVQ_T_I8,  GPTVQ_T_F16, GPTVQ_T_BF16,
                                            GPTVQ_T_F32, GPTVQ_T_U16, GPTVQ_T_U32};
  for (size_t i = 0; i < sizeof types / sizeof *types; i++)
    if (strcmp(gptvq_tensor_type_name(types[i]), name) == 0) {
      *type = types[i];
      return true;
    }
  return false;
}

/* "NAME.ARRAY" into tensor->name, to be released with free(); its type, shape and sizes. */
static gptvq_status take(const char *name, const gptvq_packed_array *array, gptvq_tensor *tensor,
                         gptvq_error *err) {
  if (array->name == NULL || array->type == NULL || array->data == NULL || array->rank > GPTVQ_MAX_RANK)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "%s: an array without a name, a type or data", name);
  *tensor = (gptvq_tensor){.file = name, .rank = array->rank, .count = 1, .data = array->data};
  if (!find_type(array->type, &tensor->type))
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "%s: the array %s has type \"%s\", which packed layers do not have", name, array->name,
                      array->type);
  for (size_t d = 0; d < array->rank; d++) {
    tensor->dims[d] = array->dims[d];
    if (!gptvq_mul(tensor->count, array->dims[d], &tensor->count))
      return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "%s: the array %s is too large", name, array->name);
  }
  if (!gptvq_mul(tensor->count, gptvq_tensor_type_size(tensor->type), &tensor->bytes))
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "%s: the array %s is too large", name, array->name);
  tensor->file_bytes = tensor->bytes;
  size_t room = strlen(name) + strlen(array->name) + 2;
  char *full = malloc(room);
  if (full == NULL) return gptvq_fail_memory(err, name, room);
  (void)snprintf(full, room, "%s.%s", name, array->name);
  tensor->name = full;
  return GPTVQ_OK;
}

/* {"gptvq.NAME": description}; NULL: out of memory, or it is no UTF-8 text */
static json_t *make_metadata(const char *name, const char *description, size_t size) {
  char *key = gptvq_part_name(GPTVQ_PACKED_KEY, name);
  json_t *metadata = key == NULL ? NULL : json_object();
  if (metadata != NULL && json_object_set_new(metadata, key, json_stringn(description, size)) != 0) {
    json_decref(metadata);
    metadata = NULL;
  }
  free(key);
  return metadata;
}

/* No array but those that the description calls for, and none twice. */
static gptvq_status check_known(const gptvq_packed *packed, const char *name, const gptvq_tensor *tensors,
                                size_t count, gptvq_error *err) {
  gptvq_packed_part parts[GPTVQ_PART_COUNT];
  gptvq_packed_parts(&packed->shape, parts);
  for (size_t i = 0; i < count; i++) {
    bool known = false;
    for (int p = 0; p < GPTVQ_PART_COUNT; p++)
      known = known || (parts[p].present && strcmp(tensors[i].name + strlen(name), parts[p].suffix) == 0);
    if (!known)
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: its description does not call for %s", name,
                        tensors[i].name);
    if (i > 0 && strcmp(tensors[i - 1].name, tensors[i].name) == 0)
      return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "%s is there twice", tensors[i].name);
  }
  return GPTVQ_OK;
}

gptvq_status gptvq_packed_from_arrays(const char *name, const char *description, size_t size,
                                      const gptvq_packed_array *arrays, size_t count, gptvq_packed *packed,
                                      gptvq_packed_info *info, void **owned, gptvq_error *err) {
  gptvq_st_file file = {.path = (char *)(uintptr_t)name}; /* only read */
  gptvq_checkpoint checkpoint = {.folder = (char *)(uintptr_t)name, .files = &file, .file_count = 1};
  gptvq_status status = GPTVQ_OK;
  *owned = NULL;
  json_t *metadata = make_metadata(name, description, size);
  file.metadata = metadata;
  checkpoint.tensors = calloc(count > 0 ? count : 1, sizeof *checkpoint.tensors);
  if (checkpoint.tensors == NULL || metadata == NULL) status = gptvq_fail_memory(err, name, size);
  for (size_t i = 0; i < count && status == GPTVQ_OK; i++) {
    status = take(name, &arrays[i], &checkpoint.tensors[i], err);
    if (status == GPTVQ_OK) checkpoint.tensor_count++;
  }
  gptvq_checkpoint_sort(&checkpoint);
  if (status == GPTVQ_OK) status = gptvq_checkpoint_get_packed(&checkpoint, name, packed, info, owned, err);
  if (status == GPTVQ_OK) {
    status = check_known(packed, name, checkpoint.tensors, count, err);
    if (status != GPTVQ_OK) {
      free(*owned);
      *owned = NULL;
    }
  }
  for (size_t i = 0; i < checkpoint.tensor_count; i++) free((char *)(uintptr_t)checkpoint.tensors[i].name);
  free(checkpoint.tensors);
  json_decref(metadata);
  return status;
}
