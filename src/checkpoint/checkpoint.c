#include "checkpoint/checkpoint_internal.h"
#include "base/memory.h"
#include "base/threads.h"
#include "checkpoint/gguf.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

static const char index_name[] = "model.safetensors.index.json", single_name[] = "model.safetensors",
                  adapter_name[] = "adapter_config.json";
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

/* *there becomes true where the file is there. */
static gptvq_status has_file(const char *folder, const char *name, bool *there, gptvq_error *err) {
  char *path = gptvq_join_path(folder, name);
  if (path == NULL) return gptvq_fail_memory(err, name, strlen(folder) + strlen(name) + 2);
  *there = *there || gptvq_path_exists(path);
  free(path);
  return GPTVQ_OK;
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

/* Are all shards there? */
static gptvq_status check_shards(const char *folder, json_t *names, gptvq_error *err) {
  const char *name, *first = NULL;
  json_t *value;
  size_t missing = 0, count = json_object_size(names);
  json_object_foreach(names, name, value) {
    bool there = false;
    GPTVQ_TRY(has_file(folder, name, &there, err));
    if (!there && missing++ == 0) first = name;
  }
  if (missing == 0) return GPTVQ_OK;
  char hint[GPTVQ_HINT_TEXT] = "";
  if (missing == count) (void)gptvq_folder_hint(folder, "the index is of other files", hint);
  return gptvq_fail(err, GPTVQ_ERROR_IO,
                    "%s/%s lists %s, which is not there (%zu of %zu files are): download %s%s", folder,
                    index_name, first, count - missing, count, missing == 1 ? "it" : "what is missing", hint);
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
  GPTVQ_TRY(check_shards(folder, names, err));
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

static gptvq_status open_single(gptvq_checkpoint *checkpoint, gptvq_error *err) {
  checkpoint->files = calloc(1, sizeof *checkpoint->files);
  if (checkpoint->files == NULL) return gptvq_fail_memory(err, checkpoint->folder, sizeof *checkpoint->files);
  return open_shard(checkpoint, single_name, err);
}

/* The single file was opened: says so when the index beside it describes anything else. */
static void warn_of_index(const gptvq_checkpoint *checkpoint, const json_t *index) {
  const gptvq_st_file *file = &checkpoint->files[0];
  const json_t *map = json_object_get(index, "weight_map");
  const char *tensor, *what = NULL, *name = "";
  json_t *value;
  if (!json_is_object(map)) what = "has no weight_map";
  json_object_foreach((json_t *)(uintptr_t)map, tensor, value) {
    const char *shard = json_string_value(value);
    if (what != NULL) break;
    if (shard != NULL && strcmp(shard, single_name) != 0) {
      what = "lists the file ";
      name = shard;
    } else if (json_object_get(file->header, tensor) == NULL) {
      what = "lists what the file lacks, ";
      name = tensor;
    }
  }
  for (size_t i = 0; i < file->count && what == NULL; i++) {
    if (json_object_get(map, file->tensors[i].name) != NULL) continue;
    what = "does not list ";
    name = file->tensors[i].name;
  }
  if (what != NULL)
    gptvq_log(checkpoint->callbacks, GPTVQ_LOG_WARNING, "%s/%s is used, not %s beside it, which %s%s",
              checkpoint->folder, single_name, index_name, what, name);
}

static bool is_open(const gptvq_checkpoint *checkpoint, const char *name) {
  for (size_t f = 0; f < checkpoint->file_count; f++)
    if (strcmp(strrchr(checkpoint->files[f].path, '/') + 1, name) == 0) return true;
  return false;
}

/* quant_method of config.json, or "" */
static const char *quantized_by(const gptvq_checkpoint *checkpoint) {
  const json_t *quantization = json_object_get(checkpoint->config, "quantization_config");
  const char *method = json_string_value(json_object_get(quantization, "quant_method"));
  return method != NULL ? method : "";
}

/* model.safetensors, as transformers takes it even where there is an index too; then what the index lists. A
 * packed folder goes by its index. */
static gptvq_status open_weights(gptvq_checkpoint *checkpoint, gptvq_error *err) {
  const char *folder = checkpoint->folder;
  bool packed = strcmp(quantized_by(checkpoint), "gptvq") == 0;
  bool single = false, indexed = false;
  GPTVQ_TRY(has_file(folder, single_name, &single, err));
  GPTVQ_TRY(has_file(folder, index_name, &indexed, err));
  char hint[GPTVQ_HINT_TEXT];
  if (!single && !indexed)
    return gptvq_fail(err, GPTVQ_ERROR_IO, "%s holds neither %s nor %s%s", folder, single_name, index_name,
                      gptvq_folder_hint(folder, NULL, hint));
  json_t *index = NULL;
  if (indexed && (packed || !single)) {
    GPTVQ_TRY(load_optional(folder, index_name, MAX_INDEX, &index, err));
    gptvq_status status = open_sharded(checkpoint, index, err);
    json_decref(index);
    if (status == GPTVQ_OK && single && !is_open(checkpoint, single_name))
      gptvq_log(checkpoint->callbacks, GPTVQ_LOG_WARNING,
                "%s is a packed model: what %s lists is used, not %s beside it", folder, index_name,
                single_name);
    return status;
  }
  GPTVQ_TRY(open_single(checkpoint, err));
  gptvq_error why;
  if (load_optional(folder, index_name, MAX_INDEX, &index, &why) != GPTVQ_OK)
    gptvq_log(checkpoint->callbacks, GPTVQ_LOG_WARNING, "%s/%s is used: %s", folder, single_name,
              why.message);
  else if (index != NULL) warn_of_index(checkpoint, index);
  json_decref(index);
  return GPTVQ_OK;
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
  GPTVQ_TRY(gptvq_standard_tensors(checkpoint, err));
  /* no name twice: a header refuses duplicates, and the index gives each name one shard */
  gptvq_checkpoint_sort(checkpoint);
  return gptvq_widen_fp8(checkpoint, err);
}

void gptvq_checkpoint_sort(gptvq_checkpoint *checkpoint) {
  if (checkpoint->tensor_count > 0)
    qsort(checkpoint->tensors, checkpoint->tensor_count, sizeof *checkpoint->tensors, by_name);
}

bool gptvq_checkpoint_is_original(const gptvq_checkpoint *checkpoint) {
  static const char *const read_as_such[] = {"mxfp4", "fp8"};
  const json_t *quantization = json_object_get(checkpoint->config, "quantization_config");
  if (quantization == NULL || json_is_null(quantization)) return true;
  for (size_t i = 0; i < sizeof read_as_such / sizeof read_as_such[0]; i++)
    if (strcmp(quantized_by(checkpoint), read_as_such[i]) == 0) return true;
  return false;
}

/* Original weights, or packed by a version of gptvq that this one understands. */
static gptvq_status check_quantization(const gptvq_checkpoint *checkpoint, gptvq_error *err) {
  const json_t *quantization = json_object_get(checkpoint->config, "quantization_config");
  if (!json_is_object(quantization) && quantization != NULL && !json_is_null(quantization))
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s/config.json: quantization_config is not an object",
                      checkpoint->folder);
  const char *method = json_string_value(json_object_get(quantization, "quant_method"));
  if (gptvq_checkpoint_is_original(checkpoint)) return GPTVQ_OK;
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
  if (gptvq_is_gguf(folder)) {
    GPTVQ_TRY(gptvq_checkpoint_open_gguf(checkpoint, err));
    return collect_tensors(checkpoint, err);
  }
  if (!gptvq_is_folder(folder))
    return gptvq_fail(err, GPTVQ_ERROR_IO,
                      "%s is neither a folder nor a GGUF file; give the model's folder with config.json",
                      folder);
  GPTVQ_TRY(load_optional(folder, "config.json", MAX_CONFIG, &checkpoint->config, err));
  char hint[GPTVQ_HINT_TEXT];
  if (checkpoint->config == NULL)
    return gptvq_fail(err, GPTVQ_ERROR_IO, "%s holds no config.json: it is not a Hugging Face model folder%s",
                      folder, gptvq_folder_hint(folder, "download config.json of the same model too", hint));
  GPTVQ_TRY(check_quantization(checkpoint, err));
  GPTVQ_TRY(load_optional(folder, "generation_config.json", MAX_CONFIG, &checkpoint->generation, err));
  GPTVQ_TRY(open_weights(checkpoint, err));
  bool adapter = false;
  GPTVQ_TRY(has_file(folder, adapter_name, &adapter, err));
  if (adapter)
    gptvq_log(checkpoint->callbacks, GPTVQ_LOG_WARNING,
              "%s/%s: the adapter in this folder is not applied: merge it into the model first", folder,
              adapter_name);
  return collect_tensors(checkpoint, err);
}

gptvq_status gptvq_checkpoint_open(const char *folder, const gptvq_callbacks *callbacks,
                                   gptvq_checkpoint **out, gptvq_error *err) {
  *out = NULL;
  gptvq_checkpoint *checkpoint = calloc(1, sizeof *checkpoint);
  if (checkpoint == NULL) return gptvq_fail_memory(err, folder, sizeof *checkpoint);
  checkpoint->callbacks = callbacks;
  checkpoint->folder = strdup(folder);
  gptvq_status status = checkpoint->folder == NULL ? gptvq_fail_memory(err, folder, strlen(folder) + 1)
                                                   : open_all(checkpoint, err);
  checkpoint->callbacks = NULL; /* the caller's, who need not keep them */
  if (status != GPTVQ_OK) gptvq_checkpoint_close(checkpoint);
  else *out = checkpoint;
  return status;
}

void gptvq_checkpoint_close(gptvq_checkpoint *checkpoint) {
  if (checkpoint == NULL) return;
  for (size_t f = 0; f < checkpoint->file_count; f++) gptvq_st_close(&checkpoint->files[f]);
  free(checkpoint->files);
  free(checkpoint->tensors);
  free(checkpoint->names);
  free(checkpoint->expert_names);
  free(checkpoint->expert_values);
  free(checkpoint->woven_names);
  free(checkpoint->woven_values);
  free(checkpoint->narrowed);
  free(checkpoint->widened);
  free(checkpoint->gguf_names);
  free(checkpoint->gguf_values);
  gptvq_gguf_close(&checkpoint->gguf);
  json_decref(checkpoint->config);
  json_decref(checkpoint->generation);
  free(checkpoint->folder);
  free(checkpoint);
}

const char *gptvq_checkpoint_folder(const gptvq_checkpoint *checkpoint) { return checkpoint->folder; }
const json_t *gptvq_checkpoint_config(const gptvq_checkpoint *checkpoint) { return checkpoint->config; }
void gptvq_checkpoint_set_config(gptvq_checkpoint *checkpoint, json_t *config) {
  json_decref(checkpoint->config);
  checkpoint->config = config;
}
const json_t *gptvq_checkpoint_generation_config(const gptvq_checkpoint *checkpoint) {
  return checkpoint->generation;
}
size_t gptvq_checkpoint_tensor_count(const gptvq_checkpoint *checkpoint) { return checkpoint->tensor_count; }

const gptvq_tensor *gptvq_checkpoint_tensor_at(const gptvq_checkpoint *checkpoint, size_t i) {
  return &checkpoint->tensors[i];
}

uint64_t gptvq_checkpoint_bytes(const gptvq_checkpoint *checkpoint) {
  uint64_t bytes = 0;
  for (size_t f = 0; f < checkpoint->file_count; f++)
    for (size_t t = 0; t < checkpoint->files[f].count; t++)
      bytes += checkpoint->files[f].tensors[t].file_bytes;
  return bytes;
}

void gptvq_checkpoint_keep(gptvq_checkpoint *checkpoint, const bool *keep) {
  size_t kept = 0;
  for (size_t t = 0; t < checkpoint->tensor_count; t++)
    if (keep[t]) checkpoint->tensors[kept++] = checkpoint->tensors[t];
  checkpoint->tensor_count = kept;
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
  if (!gptvq_tensor_dtype(tensor->type, dtype))
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "%s: tensor %s is %s; weights must be F32, F16, BF16, F64 or F8_E4M3 with scales",
                      tensor->file, name, gptvq_tensor_type_name(tensor->type));
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

bool gptvq_tensor_is_finite(const gptvq_tensor *tensor, size_t at, size_t n) {
  switch (tensor->type) {
  case GPTVQ_T_F32: return !has_special32(tensor->data + 4 * at, n);
  case GPTVQ_T_F16: return !has_special16(tensor->data + 2 * at, n, 0x7c00u);
  case GPTVQ_T_BF16: return !has_special16(tensor->data + 2 * at, n, 0x7f80u);
  default: return true; /* integers */
  }
}

enum { FINITE_CHUNK = 4096, FINITE_GRAIN = 64 };

typedef struct finite_job {
  const gptvq_tensor *tensor;
  atomic_size_t first; /* chunk with a special number */
} finite_job;

static void find_special(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  finite_job *job = context;
  for (size_t chunk = begin; chunk < end && chunk < atomic_load(&job->first); chunk++) {
    size_t at = chunk * FINITE_CHUNK;
    size_t n = gptvq_min_size(FINITE_CHUNK, job->tensor->count - at);
    if (gptvq_tensor_is_finite(job->tensor, at, n)) continue;
    size_t first = atomic_load(&job->first);
    while (chunk < first && !atomic_compare_exchange_weak(&job->first, &first, chunk)) {
    }
  }
}

const char *gptvq_element_place(const gptvq_tensor *tensor, size_t i, char text[GPTVQ_PLACE_TEXT]) {
  if (tensor->rank == 2)
    (void)snprintf(text, GPTVQ_PLACE_TEXT, "row %zu, column %zu", i / tensor->dims[1], i % tensor->dims[1]);
  else (void)snprintf(text, GPTVQ_PLACE_TEXT, "element %zu of %zu", i, tensor->count);
  return text;
}

gptvq_status gptvq_tensor_check_finite(const gptvq_tensor *tensor, gptvq_error *err) {
  size_t chunks = gptvq_ceil_div(tensor->count, FINITE_CHUNK);
  finite_job job = {tensor, chunks};
  gptvq_parallel_for(chunks, FINITE_GRAIN, find_special, &job);
  size_t at = atomic_load(&job.first);
  if (at == chunks) return GPTVQ_OK;
  for (at *= FINITE_CHUNK; gptvq_tensor_is_finite(tensor, at, 1);) at++;
  char place[GPTVQ_PLACE_TEXT];
  return gptvq_fail(err, GPTVQ_ERROR_NUMERIC, "%s: tensor %s holds NaN or infinity at %s", tensor->file,
                    tensor->name, gptvq_element_place(tensor, at, place));
}
