/* The transformed model as a folder. */
#include "base/file.h"
#include "base/half.h"
#include "base/memory.h"
#include "base/threads.h"
#include "checkpoint/output.h"
#include "quant/transform/internal.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

/* CHUNK: values of a tensor without rotated rows in memory at a time. PANEL: columns rotated together, a
 * cache line of floats. */
enum { CHUNK = 1 << 22, PANEL = 16, ROW_GRAIN = 16 };

typedef struct edit_job {
  const gptvq_edit *edit;
  gptvq_dtype dtype; /* of the source */
  size_t first;      /* row of values[0] */
  float *values;     /* [rows at work × cols] */
  double *scratch;   /* [threads × scratch_size] */
  size_t scratch_size;
  atomic_bool bad; /* a value is not finite */
} edit_job;

static void edit_rows(void *context, size_t begin, size_t end, size_t thread) {
  edit_job *job = context;
  const gptvq_edit *e = job->edit;
  double *line = job->scratch + thread * job->scratch_size, *rest = line + e->cols;
  size_t stride = e->cols * gptvq_dtype_size(job->dtype);
  for (size_t i = begin; i < end; i++) {
    float *out = job->values + i * e->cols;
    gptvq_to_float(job->dtype, e->source->data + (job->first + i) * stride, e->cols, out);
    for (size_t c = 0; c < e->cols; c++) {
      line[c] = (double)out[c];
      if (e->gain != NULL) line[c] *= (double)e->gain[c];
    }
    for (size_t c = 0; e->across != NULL && c < e->cols; c += e->across->n)
      gptvq_rotation_apply(e->across, line + c, rest);
    bool fine = true;
    for (size_t c = 0; c < e->cols; c++) {
      out[c] = (float)line[c];
      fine = fine && isfinite(out[c]);
    }
    if (!fine) atomic_store(&job->bad, true);
  }
}

/* Panels [begin, end) of columns, whole height (first is 0). */
static void rotate_panels(void *context, size_t begin, size_t end, size_t thread) {
  edit_job *job = context;
  const gptvq_edit *e = job->edit;
  size_t n = e->down->n;
  double *lines = job->scratch + thread * job->scratch_size, *rest = lines + PANEL * n;
  for (size_t p = begin; p < end; p++) {
    size_t first = p * PANEL, width = gptvq_min_size(PANEL, e->cols - first);
    for (size_t row = e->down_begin; row < e->down_end; row += n) {
      float *values = job->values + row * e->cols + first;
      for (size_t r = 0; r < n; r++)
        for (size_t c = 0; c < width; c++) lines[c * n + r] = (double)values[r * e->cols + c];
      for (size_t c = 0; c < width; c++) gptvq_rotation_apply(e->down, lines + c * n, rest);
      for (size_t r = 0; r < n; r++)
        for (size_t c = 0; c < width; c++) values[r * e->cols + c] = (float)lines[c * n + r];
    }
  }
}

static gptvq_status too_large(const gptvq_edit *e, gptvq_error *err) {
  return gptvq_fail(err, GPTVQ_ERROR_NUMERIC, "%s: %s is too large to be rotated", e->source->file,
                    e->source->name);
}

/* values[count] as `type`, in place where that is narrower */
static gptvq_status write_values(gptvq_st_writer *writer, const gptvq_edit *e, float *values, size_t count,
                                 gptvq_error *err) {
  if (e->type == GPTVQ_T_F32) return gptvq_st_writer_write(writer, values, count * sizeof *values, err);
  uint16_t *halves = (uint16_t *)(void *)values; /* element i never lies beyond the float it comes from */
  for (size_t i = 0; i < count; i++) {
    float x;
    memcpy(&x, (const char *)values + i * sizeof x, sizeof x);
    uint16_t h = e->type == GPTVQ_T_F16 ? gptvq_float_to_fp16(x) : gptvq_float_to_bf16(x);
    uint16_t exponent = e->type == GPTVQ_T_F16 ? 0x7c00u : 0x7f80u;
    if ((h & exponent) == exponent) return too_large(e, err);
    memcpy(halves + i, &h, sizeof h);
  }
  return gptvq_st_writer_write(writer, values, count * sizeof *halves, err);
}

static gptvq_status write_edit(const gptvq_arch *arch, gptvq_st_writer *writer, const gptvq_edit *e,
                               gptvq_error *err) {
  gptvq_dtype dtype = GPTVQ_F32;
  if (!gptvq_tensor_dtype(e->source->type, &dtype))
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED, "%s is not a tensor of floating point numbers",
                      e->source->name);
  size_t step = e->down != NULL ? e->rows : gptvq_min_size(e->rows, gptvq_max_size(1, CHUNK / e->cols));
  size_t across = 2 * e->cols, down = e->down != NULL ? (PANEL + 1) * e->down->n : 0;
  size_t scratch = gptvq_round_up(gptvq_max_size(across, down), 8), threads = gptvq_thread_count();
  edit_job job = {.edit = e, .dtype = dtype, .scratch_size = scratch};
  job.values = gptvq_alloc(step, e->cols * sizeof *job.values);
  job.scratch = gptvq_alloc(threads, scratch * sizeof *job.scratch);
  gptvq_status status = GPTVQ_OK;
  if (job.values == NULL || job.scratch == NULL)
    status = gptvq_fail_memory(err, e->name, gptvq_saturated_size(step, e->cols * sizeof *job.values));
  for (; status == GPTVQ_OK && job.first < e->rows; job.first += step) {
    size_t n = gptvq_min_size(step, e->rows - job.first);
    if (e->unit_gain) {
      for (size_t i = 0; i < n * e->cols; i++) job.values[i] = gptvq_gain_to_weight(arch, 1.0f);
    } else {
      gptvq_parallel_for(n, ROW_GRAIN, edit_rows, &job);
      if (e->down != NULL && !atomic_load(&job.bad))
        gptvq_parallel_for(gptvq_ceil_div(e->cols, PANEL), 1, rotate_panels, &job);
    }
    for (size_t i = 0; e->down != NULL && i < n * e->cols; i++)
      if (!isfinite(job.values[i])) atomic_store(&job.bad, true);
    status =
        atomic_load(&job.bad) ? too_large(e, err) : write_values(writer, e, job.values, n * e->cols, err);
  }
  gptvq_mapping_rest(e->source->data, e->source->bytes);
  free(job.values);
  free(job.scratch);
  return status;
}

static gptvq_status write_config(const gptvq_transform *transform, const char *folder, gptvq_error *err) {
  const gptvq_checkpoint *source = transform->model->checkpoint;
  static const char generation[] = "generation_config.json";
  char *path = gptvq_join_path(folder, "config.json"),
       *from = gptvq_join_path(gptvq_checkpoint_folder(source), generation);
  char *to = gptvq_join_path(folder, generation);
  json_t *config = gptvq_model_config(transform->model);
  bool fine = path != NULL && from != NULL && to != NULL && config != NULL;
  if (fine && transform->residual.n > 0)
    fine = json_object_set_new(config, "tie_word_embeddings", json_false()) == 0;
  gptvq_status status = fine ? gptvq_write_json(path, config, err) : gptvq_fail_memory(err, "config.json", 0);
  if (status == GPTVQ_OK && gptvq_checkpoint_generation_config(source) != NULL)
    status = gptvq_copy_file(from, to, err);
  json_decref(config);
  free(path);
  free(from);
  free(to);
  return status;
}

static gptvq_status declare(gptvq_st_writer *writer, const gptvq_edit *e, gptvq_error *err) {
  return gptvq_st_writer_declare(writer, e->name, e->type, e->source->rank, e->source->dims, err);
}

/* Tensors of the checkpoint in their order, changed or not; then those that are new. */
static gptvq_status write_tensors(const gptvq_transform *transform, const gptvq_edits *edits,
                                  gptvq_st_writer *writer, const gptvq_callbacks *callbacks,
                                  gptvq_error *err) {
  const gptvq_checkpoint *source = transform->model->checkpoint;
  size_t count = gptvq_checkpoint_tensor_count(source), done = 0, total = count;
  for (size_t t = 0; t < count; t++) {
    const gptvq_tensor *tensor = gptvq_checkpoint_tensor_at(source, t);
    const gptvq_edit *e = gptvq_edits_find(edits, tensor->name);
    GPTVQ_TRY(e != NULL ? declare(writer, e, err) : gptvq_declare_tensor(writer, tensor, err));
  }
  for (size_t i = 0; i < edits->count; i++)
    if (gptvq_checkpoint_find(source, edits->items[i].name) == NULL) {
      GPTVQ_TRY(declare(writer, &edits->items[i], err));
      total++;
    }
  for (size_t t = 0; t < count; t++) {
    const gptvq_tensor *tensor = gptvq_checkpoint_tensor_at(source, t);
    const gptvq_edit *e = gptvq_edits_find(edits, tensor->name);
    GPTVQ_TRY(e != NULL ? write_edit(transform->model->arch, writer, e, err)
                        : gptvq_st_writer_write(writer, tensor->data, tensor->bytes, err));
    GPTVQ_TRY(gptvq_report_progress(callbacks, "transform", tensor->name, ++done, total, NAN, err));
  }
  for (size_t i = 0; i < edits->count; i++)
    if (gptvq_checkpoint_find(source, edits->items[i].name) == NULL) {
      GPTVQ_TRY(write_edit(transform->model->arch, writer, &edits->items[i], err));
      GPTVQ_TRY(gptvq_report_progress(callbacks, "transform", edits->items[i].name, ++done, total, NAN, err));
    }
  return GPTVQ_OK;
}

gptvq_status gptvq_transform_write(const gptvq_transform *transform, const char *folder,
                                   const gptvq_callbacks *callbacks, gptvq_error *err) {
  gptvq_edits edits;
  gptvq_st_writer *writer = NULL;
  gptvq_status status;
  char *path = gptvq_join_path(folder, "model.safetensors");
  if (path == NULL) return gptvq_fail_memory(err, folder, strlen(folder));
  status = gptvq_edits_create(transform, &edits, err);
  if (status == GPTVQ_OK) status = write_config(transform, folder, err);
  if (status == GPTVQ_OK) status = gptvq_st_writer_create(path, &writer, err);
  if (status == GPTVQ_OK) {
    status = write_tensors(transform, &edits, writer, callbacks, err);
    if (status == GPTVQ_OK) status = gptvq_st_writer_commit(writer, err);
    else gptvq_st_writer_abort(writer);
  }
  gptvq_edits_release(&edits);
  free(path);
  return status;
}

gptvq_status gptvq_transform_bytes(const gptvq_transform *transform, uint64_t *bytes, gptvq_error *err) {
  const gptvq_checkpoint *source = transform->model->checkpoint;
  gptvq_edits edits;
  GPTVQ_TRY(gptvq_edits_create(transform, &edits, err));
  uint64_t total = 0;
  for (size_t t = 0; t < gptvq_checkpoint_tensor_count(source); t++) {
    const gptvq_tensor *tensor = gptvq_checkpoint_tensor_at(source, t);
    if (gptvq_edits_find(&edits, tensor->name) == NULL) total += tensor->bytes;
  }
  for (size_t i = 0; i < edits.count; i++)
    total += edits.items[i].source->count * gptvq_tensor_type_size(edits.items[i].type);
  *bytes = total;
  gptvq_edits_release(&edits);
  return GPTVQ_OK;
}
