#include "checkpoint/checkpoint_internal.h"
#include "base/memory.h"

#include <string.h>

static const char index_name[] = "model.safetensors.index.json", single_name[] = "model.safetensors";
enum { MAX_CONFIG = 64 << 20, MAX_INDEX = 256 << 20, MAX_SHARDS = 100000 };

/* FOLDER/NAME parsed when it is there; *out stays NULL when it is not */
static gptvq_status load_optional(const char *folder, const char *name, size_t max_size, json_t **out,
                                  gptvq_error *err) {
  char *path = gptvq_join_path(folder, name);
  if (path == NULL) return gptvq_fail_memory(err, name, strlen(folder) + strlen(name) + 2);
  gptvq_status status = GPTVQ_OK;
  if (gptvq_path_exists(path)) status = gptvq_load_json(path, max_size, out, err);
  free(path);
  return status;
}

static bool is_plain_name(const char *name) {
  return name[0] != '\0' && strchr(name, '/') == NULL && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static gptvq_status open_shard(gptvq_checkpoint *checkpoint, const char *name, gptvq_error *err) {
  char *path = gptvq_join_path(checkpoint->folder, name);
  if (path == NULL) return gptvq_fail_memory(err, name, strlen(name));
  gptvq_status status = gptvq_st_open(path, &checkpoint->files[checkpoint->file_count], err);
  free(path);
  if (status == GPTVQ_OK) checkpoint->file_count++;
  return status;
}

/* The distinct shard names of weight_map, in the order of first mention, opened. The names' object maps name
 * -> position. */
static gptvq_status open_shards(gptvq_checkpoint *checkpoint, const json_t *map, json_t *names,
                                gptvq_error *err) {
  const char *folder = checkpoint->folder, *tensor;
  json_t *value;
  json_object_foreach((json_t *)(uintptr_t)map, tensor, value) {
    const char *shard = json_string_value(value);
    if (shard == NULL)
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s/%s: the shard of tensor %s is not text", folder,
                        index_name, tensor);
    if (!is_plain_name(shard))
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                        "%s/%s: the shard \"%s\" of tensor %s is not a plain file name in the folder", folder,
                        index_name, shard, tensor);
    if (json_object_get(names, shard) != NULL) continue;
    if (json_object_set_new(names, shard, json_integer((json_int_t)json_object_size(names))) != 0)
      return gptvq_fail_memory(err, shard, strlen(shard));
  }
  size_t count = json_object_size(names);
  if (count == 0 || count > MAX_SHARDS)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s/%s: %zu shards, not between 1 and %d", folder, index_name,
                      count, MAX_SHARDS);
  checkpoint->files = calloc(count, sizeof *checkpoint->files);
  if (checkpoint->files == NULL)
    return gptvq_fail_memory(err, index_name, gptvq_saturated_size(count, sizeof *checkpoint->files));
  json_object_foreach(names, tensor, value) GPTVQ_TRY(open_shard(checkpoint, tensor, err));
  return GPTVQ_OK;
}

/* Both directions: each tensor of a shard is listed for that shard, and the index lists nothing else. */
static gptvq_status check_index(const gptvq_checkpoint *checkpoint, const json_t *map, const json_t *names,
                                gptvq_error *err) {
  const char *folder = checkpoint->folder;
  size_t total = 0;
  for (size_t f = 0; f < checkpoint->file_count; f++) {
    const gptvq_st_file *file = &checkpoint->files[f];
    for (size_t i = 0; i < file->count; i++) {
      const char *shard = json_string_value(json_object_get(map, file->tensors[i].name));
      if (shard == NULL)
        return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: tensor %s is not listed in %s/%s", file->path,
                          file->tensors[i].name, folder, index_name);
      if ((size_t)json_integer_value(json_object_get(names, shard)) != f)
        return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: tensor %s is listed in %s/%s for %s", file->path,
                          file->tensors[i].name, folder, index_name, shard);
    }
    total += file->count;
  }
  if (total == json_object_size(map)) return GPTVQ_OK;
  const char *tensor;
  json_t *value;
  json_object_foreach((json_t *)(uintptr_t)map, tensor, value) {
    size_t f = (size_t)json_integer_value(json_object_get(names, json_string_value(value)));
    if (json_object_get(checkpoint->files[f].header, tensor) == NULL || strcmp(tensor, "__metadata__") == 0)
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: tensor %s is missing, though %s/%s lists it there",
                        checkpoint->files[f].path, tensor, folder, index_name);
  }
  return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s/%s: %zu tensors are listed, the shards hold %zu", folder,
                    index_name, json_object_size(map), total);
}

static gptvq_status open_sharded(gptvq_checkpoint *checkpoint, const json_t *index, gptvq_error *err) {
  const json_t *map = json_object_get(index, "weight_map");
  if (!json_is_object(map))
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s/%s: \"weight_map\" is missing or not an object",
                      checkpoint->folder, index_name);
  json_t *names = json_object();
  if (names == NULL) return gptvq_fail_memory(err, index_name, 64);
  gptvq_status status = open_shards(checkpoint, map, names, err);
  if (status == GPTVQ_OK) status = check_index(checkpoint, map, names, err);
  json_decref(names);
  return status;
}

static gptvq_status has_file(const char *folder, const char *name, bool *there, gptvq_error *err) {
  char *path = gptvq_join_path(folder, name);
  if (path == NULL) return gptvq_fail_memory(err, name, strlen(folder) + strlen(name) + 2);
  *there = *there || gptvq_path_exists(path);
  free(path);
  return GPTVQ_OK;
}

static gptvq_status open_single(gptvq_checkpoint *checkpoint, gptvq_error *err) {
  const char *folder = checkpoint->folder;
  bool single = false, torch = false;
  GPTVQ_TRY(has_file(folder, single_name, &single, err));
  if (!single) {
    GPTVQ_TRY(has_file(folder, "pytorch_model.bin", &torch, err));
    GPTVQ_TRY(has_file(folder, "pytorch_model.bin.index.json", &torch, err));
    return gptvq_fail(err, GPTVQ_ERROR_IO, "%s holds neither %s nor %s%s", folder, single_name, index_name,
                      torch ? "; pytorch_model.bin files are not supported: convert the model to safetensors"
                            : "");
  }
  checkpoint->files = calloc(1, sizeof *checkpoint->files);
  if (checkpoint->files == NULL) return gptvq_fail_memory(err, folder, sizeof *checkpoint->files);
  return open_shard(checkpoint, single_name, err);
}

static int by_name(const void *a, const void *b) {
  return strcmp(((const gptvq_tensor *)a)->name, ((const gptvq_tensor *)b)->name);
}

static gptvq_status collect_tensors(gptvq_checkpoint *checkpoint, gptvq_error *err) {
  size_t count = 0;
  for (size_t f = 0; f < checkpoint->file_count; f++) count += checkpoint->files[f].count;
  checkpoint->tensors = calloc(count + 1, sizeof *checkpoint->tensors);
  if (checkpoint->tensors == NULL)
    return gptvq_fail_memory(err, checkpoint->folder,
                             gptvq_saturated_size(count + 1, sizeof *checkpoint->tensors));
  for (size_t f = 0; f < checkpoint->file_count; f++) {
    const gptvq_st_file *file = &checkpoint->files[f];
    if (file->count > 0)
      memcpy(checkpoint->tensors + checkpoint->tensor_count, file->tensors,
             file->count * sizeof *file->tensors);
    checkpoint->tensor_count += file->count;
  }
  /* no name twice: a header refuses duplicates, and the index gives each name one shard */
  if (count > 0) qsort(checkpoint->tensors, count, sizeof *checkpoint->tensors, by_name);
  return GPTVQ_OK;
}

/* Original weights, or packed by a version of gptvq that this one understands. */
static gptvq_status check_quantization(const gptvq_checkpoint *checkpoint, gptvq_error *err) {
  const json_t *quantization = json_object_get(checkpoint->config, "quantization_config");
  if (quantization == NULL || json_is_null(quantization)) return GPTVQ_OK;
  if (!json_is_object(quantization))
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s/config.json: quantization_config is not an object",
                      checkpoint->folder);
  const char *method = json_string_value(json_object_get(quantization, "quant_method"));
  if (method == NULL || strcmp(method, "gptvq") != 0)
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "%s/config.json: the model is already quantized by \"%s\", which is not supported",
                      checkpoint->folder, method != NULL ? method : "an unnamed method");
  const json_t *version = json_object_get(quantization, "version");
  if (!json_is_integer(version))
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s/config.json: quantization_config.version is missing",
                      checkpoint->folder);
  if (json_integer_value(version) < GPTVQ_FORMAT_VERSION_PLAIN ||
      json_integer_value(version) > GPTVQ_FORMAT_VERSION)
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "%s/config.json: packed format version %" JSON_INTEGER_FORMAT
                      " is not supported, only versions up to %d; update gptvq",
                      checkpoint->folder, json_integer_value(version), GPTVQ_FORMAT_VERSION);
  return GPTVQ_OK;
}

static gptvq_status open_all(gptvq_checkpoint *checkpoint, gptvq_error *err) {
  const char *folder = checkpoint->folder;
  if (!gptvq_path_exists(folder)) return gptvq_fail(err, GPTVQ_ERROR_IO, "%s does not exist", folder);
  if (!gptvq_is_folder(folder))
    return gptvq_fail(err, GPTVQ_ERROR_IO, "%s is not a folder; give the model's folder with config.json",
                      folder);
  GPTVQ_TRY(load_optional(folder, "config.json", MAX_CONFIG, &checkpoint->config, err));
  if (checkpoint->config == NULL)
    return gptvq_fail(err, GPTVQ_ERROR_IO, "%s holds no config.json: it is not a Hugging Face model folder",
                      folder);
  GPTVQ_TRY(check_quantization(checkpoint, err));
  GPTVQ_TRY(load_optional(folder, "generation_config.json", MAX_CONFIG, &checkpoint->generation, err));
  json_t *index = NULL;
  GPTVQ_TRY(load_optional(folder, index_name, MAX_INDEX, &index, err));
  gptvq_status status = index != NULL ? open_sharded(checkpoint, index, err) : open_single(checkpoint, err);
  json_decref(index);
  if (status == GPTVQ_OK) status = collect_tensors(checkpoint, err);
  return status;
}

gptvq_status gptvq_checkpoint_open(const char *folder, gptvq_checkpoint **out, gptvq_error *err) {
  *out = NULL;
  gptvq_checkpoint *checkpoint = calloc(1, sizeof *checkpoint);
  if (checkpoint == NULL) return gptvq_fail_memory(err, folder, sizeof *checkpoint);
  checkpoint->folder = strdup(folder);
  gptvq_status status = checkpoint->folder == NULL ? gptvq_fail_memory(err, folder, strlen(folder) + 1)
                                                   : open_all(checkpoint, err);
  if (status != GPTVQ_OK) gptvq_checkpoint_close(checkpoint);
  else *out = checkpoint;
  return status;
}

void gptvq_checkpoint_close(gptvq_checkpoint *checkpoint) {
  if (checkpoint == NULL) return;
  for (size_t f = 0; f < checkpoint->file_count; f++) gptvq_st_close(&checkpoint->files[f]);
  free(checkpoint->files);
  free(checkpoint->tensors);
  json_decref(checkpoint->config);
  json_decref(checkpoint->generation);
  free(checkpoint->folder);
  free(checkpoint);
}

const char *gptvq_checkpoint_folder(const gptvq_checkpoint *checkpoint) { return checkpoint->folder; }
const json_t *gptvq_checkpoint_config(const gptvq_checkpoint *checkpoint) { return checkpoint->config; }
const json_t *gptvq_checkpoint_generation_config(const gptvq_checkpoint *checkpoint) {
  return checkpoint->generation;
}
size_t gptvq_checkpoint_tensor_count(const gptvq_checkpoint *checkpoint) { return checkpoint->tensor_count; }

const gptvq_tensor *gptvq_checkpoint_tensor_at(const gptvq_checkpoint *checkpoint, size_t i) {
  return &checkpoint->tensors[i];
}

const gptvq_tensor *gptvq_checkpoint_find(const gptvq_checkpoint *checkpoint, const char *name) {
  if (checkpoint->tensor_count == 0) return NULL;
  const gptvq_tensor key = {.name = name};
  return bsearch(&key, checkpoint->tensors, checkpoint->tensor_count, sizeof key, by_name);
}

const char *gptvq_checkpoint_metadata(const gptvq_checkpoint *checkpoint, const gptvq_tensor *tensor,
                                      const char *key) {
  for (size_t f = 0; f < checkpoint->file_count; f++)
    if (checkpoint->files[f].path == tensor->file)
      return json_string_value(json_object_get(checkpoint->files[f].metadata, key));
  return NULL;
}

gptvq_status gptvq_checkpoint_get(const gptvq_checkpoint *checkpoint, const char *name, size_t rank,
                                  const size_t *dims, const gptvq_tensor **out, gptvq_dtype *dtype,
                                  gptvq_error *err) {
  const gptvq_tensor *tensor = gptvq_checkpoint_find(checkpoint, name);
  if (tensor == NULL)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: tensor %s is missing", checkpoint->folder, name);
  if (tensor->rank != rank || (rank > 0 && memcmp(tensor->dims, dims, rank * sizeof *dims) != 0)) {
    char has[GPTVQ_SHAPE_TEXT], wants[GPTVQ_SHAPE_TEXT];
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s: tensor %s has shape %s, config.json implies %s",
                      tensor->file, name, gptvq_shape_text(tensor->rank, tensor->dims, has),
                      gptvq_shape_text(rank, dims, wants));
  }
  switch (tensor->type) {
  case GPTVQ_T_F32: *dtype = GPTVQ_F32; break;
  case GPTVQ_T_F16: *dtype = GPTVQ_F16; break;
  case GPTVQ_T_BF16: *dtype = GPTVQ_BF16; break;
  default:
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED, "%s: tensor %s is %s; weights must be F32, F16 or BF16",
                      tensor->file, name, gptvq_tensor_type_name(tensor->type));
  }
  *out = tensor;
  return GPTVQ_OK;
}

/* Is there a number with all exponent bits set among n? One pass without branches, so that the compiler
 * vectorises it. */
static bool has_special16(const uint8_t *data, size_t n, uint16_t exponent) {
  unsigned found = 0;
  for (size_t i = 0; i < n; i++) {
    uint16_t bits;
    memcpy(&bits, data + 2 * i, 2);
    found |= (bits & exponent) == exponent;
  }
  return found != 0;
}

static bool has_special32(const uint8_t *data, size_t n) {
  unsigned found = 0;
  for (size_t i = 0; i < n; i++) {
    uint32_t bits;
    memcpy(&bits, data + 4 * i, 4);
    found |= (bits & 0x7f800000u) == 0x7f800000u;
  }
  return found != 0;
}

gptvq_status gptvq_tensor_check_finite(const gptvq_tensor *tensor, gptvq_error *err) {
  enum { CHUNK = 4096 };
  size_t size = gptvq_tensor_type_size(tensor->type);
  bool wide = tensor->type == GPTVQ_T_F32;
  uint16_t exponent = tensor->type == GPTVQ_T_F16 ? 0x7c00u : 0x7f80u;
  if (!wide && tensor->type != GPTVQ_T_F16 && tensor->type != GPTVQ_T_BF16) return GPTVQ_OK; /* integers */
  for (size_t at = 0; at < tensor->count; at += CHUNK) {
    size_t n = gptvq_min_size(CHUNK, tensor->count - at);
    const uint8_t *data = tensor->data + at * size;
    if (!(wide ? has_special32(data, n) : has_special16(data, n, exponent))) continue;
    size_t i = 0;
    while (!(wide ? has_special32(data + 4 * i, 1) : has_special16(data + 2 * i, 1, exponent))) i++;
    return gptvq_fail(err, GPTVQ_ERROR_NUMERIC, "%s: tensor %s holds NaN or infinity at element %zu of %zu",
                      tensor->file, tensor->name, at + i, tensor->count);
  }
  return GPTVQ_OK;
}
