#include "checkpoint/safetensors.h"
#include "base/json.h"
#include "base/memory.h"

#include <stdio.h>
#include <string.h>

void gptvq_shard_name(size_t shard, size_t count, char name[GPTVQ_SHARD_NAME]) {
  if (count == 1) (void)snprintf(name, GPTVQ_SHARD_NAME, "model.safetensors");
  else (void)snprintf(name, GPTVQ_SHARD_NAME, "model-%05zu-of-%05zu.safetensors", shard + 1, count);
}

/* Adds the tensors of one shard to the weight map. */
static gptvq_status add_shard(const char *folder, const char *shard, json_t *map, json_int_t *total,
                              gptvq_error *err) {
  char *path = gptvq_join_path(folder, shard);
  if (path == NULL) return gptvq_fail_memory(err, shard, strlen(folder) + strlen(shard) + 2);
  gptvq_st_file file;
  gptvq_status status = gptvq_st_open(path, &file, err);
  free(path);
  if (status != GPTVQ_OK) return status;
  for (size_t i = 0; i < file.count && status == GPTVQ_OK; i++) {
    const gptvq_tensor *tensor = &file.tensors[i];
    const char *other = json_string_value(json_object_get(map, tensor->name));
    if (other != NULL)
      status =
          gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: tensor %s is in %s too", file.path, tensor->name, other);
    else if (json_object_set_new(map, tensor->name, json_string(shard)) != 0)
      status = gptvq_fail_memory(err, tensor->name, strlen(shard));
    *total += (json_int_t)tensor->bytes;
  }
  gptvq_st_close(&file);
  return status;
}

gptvq_status gptvq_write_index(const char *folder, const char *const *shards, size_t count,
                               gptvq_error *err) {
  gptvq_status status = GPTVQ_OK;
  json_int_t total = 0;
  json_t *map = json_object(), *index = NULL;
  char *text = NULL, *path = gptvq_join_path(folder, "model.safetensors.index.json");
  if (map == NULL || path == NULL) {
    status = gptvq_fail_memory(err, folder, 256);
    goto done;
  }
  for (size_t i = 0; i < count; i++) GPTVQ_TRY_GOTO(add_shard(folder, shards[i], map, &total, err));
  index = json_pack("{s:{s:I}, s:O}", "metadata", "total_size", total, "weight_map", map);
  text = index != NULL ? gptvq_json_dump(index, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
  if (text == NULL) {
    status = gptvq_fail_memory(err, path, 256);
    goto done;
  }
  size_t size = strlen(text);
  text[size] = '\n'; /* in the place of the end: the file has no NUL */
  status = gptvq_write_file(path, text, size + 1, err);
done:
  free(text);
  json_decref(index);
  json_decref(map);
  free(path);
  return status;
}

gptvq_status gptvq_write_numbered_index(const char *folder, size_t written, size_t count, gptvq_error *err) {
  char(*names)[GPTVQ_SHARD_NAME] = gptvq_alloc(written, sizeof *names);
  const char **pointers = gptvq_alloc(written, sizeof *pointers);
  gptvq_status status = GPTVQ_OK;
  if (names == NULL || pointers == NULL)
    status = gptvq_fail_memory(err, "the shard list", gptvq_saturated_size(written, sizeof *names));
  for (size_t i = 0; i < written && status == GPTVQ_OK; i++) {
    gptvq_shard_name(i, count, names[i]);
    pointers[i] = names[i];
  }
  if (status == GPTVQ_OK) status = gptvq_write_index(folder, pointers, written, err);
  free((void *)pointers);
  free(names);
  return status;
}
