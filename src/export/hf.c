/* gptvq_export_hf: a packed folder as plain bf16 weights under their original names, or a GGUF file as a
 * folder. */
#include "base/file.h"
#include "base/half.h"
#include "base/memory.h"
#include "base/sized.h"
#include "base/threads.h"
#include "gguf/reader.h"
#include "model/model_internal.h"
#include "checkpoint/output.h"

#include <gptvq/quantize.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One tensor of the exported folder: a copy, or a linear to decode. */
typedef struct export_tensor {
  const gptvq_tensor *copy;
  const gptvq_linear *linear; /* NAME.weight */
  size_t bytes, shard;
} export_tensor;

typedef struct export_job {
  gptvq_model *model;
  gptvq_output out;
  const gptvq_callbacks *callbacks;
  export_tensor *tensors;
  size_t count, shards, done;
} export_job;

static const size_t max_shard_bytes = (size_t)4 << 30; /* a larger tensor gets a shard of its own */
enum { PANEL_VALUES = 1 << 22, DECODE_GRAIN = 16 };

static int compare_linears(const void *a, const void *b) {
  return strcmp((*(const gptvq_linear *const *)a)->name, (*(const gptvq_linear *const *)b)->name);
}

/* Does the tensor belong to a packed linear (NAME.indices, NAME.codebooks, …; not NAME.bias)? */
static bool is_part_of_packed(const char *name, const gptvq_linear *const *linears, size_t count) {
  const char *dot = strrchr(name, '.');
  if (dot == NULL || strcmp(dot, ".bias") == 0) return false;
  size_t length = (size_t)(dot - name), low = 0, high = count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    const char *other = linears[middle]->name;
    int order = strncmp(name, other, length);
    if (order == 0) order = other[length] == '\0' ? 0 : -1;
    if (order == 0) return true;
    if (order < 0) high = middle;
    else low = middle + 1;
  }
  return false;
}

static gptvq_status list_tensors(export_job *job, gptvq_error *err) {
  const gptvq_checkpoint *checkpoint = job->model->checkpoint;
  size_t stored = gptvq_checkpoint_tensor_count(checkpoint), linears = 0,
         total = gptvq_model_layer_count(job->model) + 2;
  const gptvq_linear **packed = gptvq_alloc(total, sizeof *packed);
  job->tensors = gptvq_alloc_zero(stored + total, sizeof *job->tensors);
  if (packed == NULL || job->tensors == NULL) {
    free((void *)packed);
    return gptvq_fail_memory(err, "the tensor list",
                             gptvq_saturated_size(stored + total, sizeof *job->tensors));
  }
  /* order of the file: block after block, then the rest; deterministic */
  for (size_t b = 0; b < job->model->config.layers; b++)
    for (size_t i = 0; i < job->model->blocks[b].linear_count; i++) {
      const gptvq_linear *linear = &job->model->blocks[b].linears[i];
      if (!linear->is_packed) continue;
      if (linears < total) packed[linears++] = linear;
      job->tensors[job->count++] =
          (export_tensor){.linear = linear, .bytes = linear->rows * linear->cols * 2};
    }
  const bool tied = job->model->config.tie_embeddings;
  const gptvq_linear *const outside[2] = {&job->model->embedding, tied ? NULL : &job->model->head};
  for (size_t i = 0; i < 2; i++) {
    if (outside[i] == NULL || !outside[i]->is_packed || linears == total) continue;
    packed[linears++] = outside[i];
    job->tensors[job->count++] =
        (export_tensor){.linear = outside[i], .bytes = outside[i]->rows * outside[i]->cols * 2};
  }
  qsort((void *)packed, linears, sizeof *packed, compare_linears);
  for (size_t t = 0; t < stored; t++) {
    const gptvq_tensor *tensor = gptvq_checkpoint_tensor_at(checkpoint, t);
    if (!is_part_of_packed(tensor->name, packed, linears))
      job->tensors[job->count++] = (export_tensor){.copy = tensor, .bytes = tensor->bytes};
  }
  free((void *)packed);
  size_t filled = 0;
  for (size_t t = 0; t < job->count; t++) {
    if (filled > 0 && job->tensors[t].bytes > max_shard_bytes - gptvq_min_size(filled, max_shard_bytes)) {
      job->shards++;
      filled = 0;
    }
    job->tensors[t].shard = job->shards;
    filled += job->tensors[t].bytes;
  }
  job->shards++;
  return GPTVQ_OK;
}

typedef struct decode_panel {
  const gptvq_packed *packed;
  size_t first, cols;
  float *values;
  uint16_t *bf16;
  atomic_bool bad; /* a value leaves the range of bf16 */
} decode_panel;

static void decode_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  decode_panel *panel = context;
  float *values = panel->values + begin * panel->cols;
  bool fine = true;
  gptvq_packed_decode(panel->packed, panel->first + begin, panel->first + end, values, panel->cols);
  for (size_t i = begin * panel->cols; i < end * panel->cols; i++) {
    panel->bf16[i] = gptvq_float_to_bf16(panel->values[i]);
    fine = fine && isfinite(gptvq_bf16_to_float(panel->bf16[i]));
  }
  if (!fine) atomic_store(&panel->bad, true);
}

static gptvq_status write_linear(gptvq_st_writer *writer, const gptvq_linear *linear, gptvq_error *err) {
  size_t rows = gptvq_max_size(1, PANEL_VALUES / linear->cols), values;
  rows = gptvq_min_size(rows, linear->rows);
  values = rows * linear->cols;
  decode_panel panel = {.packed = &linear->packed,
                        .cols = linear->cols,
                        .values = gptvq_alloc(values, sizeof(float)),
                        .bf16 = gptvq_alloc(values, sizeof(uint16_t))};
  gptvq_status status = GPTVQ_OK;
  if (panel.values == NULL || panel.bf16 == NULL)
    status = gptvq_fail_memory(err, linear->name, gptvq_saturated_size(values, 6));
  for (; status == GPTVQ_OK && panel.first < linear->rows; panel.first += rows) {
    size_t n = gptvq_min_size(rows, linear->rows - panel.first);
    gptvq_parallel_for(n, DECODE_GRAIN, decode_rows, &panel);
    if (atomic_load(&panel.bad))
      status = gptvq_fail(err, GPTVQ_ERROR_NUMERIC, "%s: scales and codebooks give values too large for bf16",
                          linear->name);
    else status = gptvq_st_writer_write(writer, panel.bf16, n * linear->cols * sizeof *panel.bf16, err);
  }
  free(panel.values);
  free(panel.bf16);
  return status;
}

static gptvq_status declare_linear(gptvq_st_writer *writer, const gptvq_linear *linear, gptvq_error *err) {
  size_t dims[2] = {linear->rows, linear->cols}, length = strlen(linear->name) + sizeof ".weight";
  char *name = malloc(length);
  if (name == NULL) return gptvq_fail_memory(err, linear->name, length);
  (void)snprintf(name, length, "%s.weight", linear->name);
  gptvq_status status = gptvq_st_writer_declare(writer, name, GPTVQ_T_BF16, 2, dims, err);
  free(name);
  return status;
}

static gptvq_status write_shard(export_job *job, size_t shard, gptvq_error *err) {
  char name[GPTVQ_SHARD_NAME], path[GPTVQ_PATH_MAX];
  gptvq_st_writer *writer = NULL;
  gptvq_status status;
  gptvq_shard_name(shard, job->shards, name);
  GPTVQ_TRY(gptvq_output_path(&job->out, name, path, err));
  GPTVQ_TRY(gptvq_st_writer_create(path, &writer, err));
  GPTVQ_TRY_GOTO(gptvq_st_writer_metadata(writer, "format", "pt", err));
  for (size_t t = 0; t < job->count; t++) {
    const export_tensor *tensor = &job->tensors[t];
    if (tensor->shard != shard) continue;
    GPTVQ_TRY_GOTO(tensor->copy != NULL ? gptvq_declare_tensor(writer, tensor->copy, err)
                                        : declare_linear(writer, tensor->linear, err));
  }
  for (size_t t = 0; t < job->count; t++) {
    const export_tensor *tensor = &job->tensors[t];
    if (tensor->shard != shard) continue;
    GPTVQ_TRY_GOTO(tensor->copy != NULL
                       ? gptvq_st_writer_write(writer, tensor->copy->data, tensor->copy->bytes, err)
                       : write_linear(writer, tensor->linear, err));
    GPTVQ_TRY_GOTO(gptvq_report_progress(job->callbacks, "export",
                                         tensor->copy != NULL ? tensor->copy->name : tensor->linear->name,
                                         ++job->done, job->count, NAN, err));
  }
  return gptvq_st_writer_commit(writer, err);
done:
  gptvq_st_writer_abort(writer);
  return status;
}

static gptvq_status write_config(const export_job *job, gptvq_error *err) {
  static const char *const names[] = {
      [GPTVQ_F32] = "float32", [GPTVQ_F16] = "float16", [GPTVQ_BF16] = "bfloat16"};
  char path[GPTVQ_PATH_MAX];
  const char *dtype = job->model->info.packed ? "bfloat16" : names[job->model->embedding.dtype];
  GPTVQ_TRY(gptvq_output_path(&job->out, "config.json", path, err));
  json_t *config = gptvq_model_config(job->model);
  bool fine = config != NULL;
  if (fine) {
    (void)json_object_del(config, "quantization_config");
    fine = json_object_set_new(config, "dtype", json_string(dtype)) == 0;
    if (json_object_get(config, "torch_dtype") != NULL) /* what readers before "dtype" look at */
      fine = fine && json_object_set_new(config, "torch_dtype", json_string(dtype)) == 0;
  }
  gptvq_status status = fine ? gptvq_write_json(path, config, err) : gptvq_fail_memory(err, path, 0);
  json_decref(config);
  return status;
}

static gptvq_status export_folder(export_job *job, const char *packed_dir, const char *out_dir, int force,
                                  gptvq_error *err) {
  if (!gptvq_is_folder(packed_dir) && !gptvq_is_gguf(packed_dir))
    return gptvq_fail(err, GPTVQ_ERROR_IO, "%s is not a model folder", packed_dir);
  GPTVQ_TRY(gptvq_output_check(out_dir, packed_dir, force, 0, &job->out, err));
  const gptvq_model_options options = {
      .size = sizeof options, .compute = GPTVQ_COMPUTE_FP32, .callbacks = job->callbacks};
  GPTVQ_TRY(gptvq_model_open(packed_dir, &options, &job->model, err));
  if (!job->model->info.packed && !gptvq_is_gguf(packed_dir))
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "%s is not a packed model: there is nothing to export",
                      packed_dir);
  GPTVQ_TRY(list_tensors(job, err));
  GPTVQ_TRY(gptvq_output_start(&job->out, "export", force, err));
  uint64_t bytes = 0;
  for (size_t t = 0; t < job->count; t++) bytes += job->tensors[t].bytes;
  GPTVQ_TRY(gptvq_output_check_space(&job->out, bytes, err));
  for (size_t shard = 0; shard < job->shards; shard++) GPTVQ_TRY(write_shard(job, shard, err));
  if (job->shards > 1) GPTVQ_TRY(gptvq_write_numbered_index(job->out.work, job->shards, job->shards, err));
  GPTVQ_TRY(gptvq_copy_side_files(packed_dir, job->out.work, err));
  GPTVQ_TRY(write_config(job, err));
  return gptvq_output_publish(&job->out, job->callbacks, err);
}

gptvq_status gptvq_export_hf(const char *packed_dir, const char *out_dir, int force,
                             const gptvq_callbacks *callbacks, gptvq_error *err) {
  if (packed_dir == NULL)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "gptvq_export_hf needs a packed folder");
  gptvq_callbacks own = {.size = sizeof own};
  GPTVQ_TRY(GPTVQ_TAKE(gptvq_callbacks, callbacks, &own, err));
  export_job job = {.callbacks = &own, .out.lock = -1};
  gptvq_status status = export_folder(&job, packed_dir, out_dir, force, err);
  if (status != GPTVQ_OK) gptvq_output_discard(&job.out);
  free(job.tensors);
  gptvq_output_release(&job.out);
  gptvq_model_close(job.model);
  return status;
}
