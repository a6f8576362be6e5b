/* gptvq_export_gguf: a model folder as a GGUF file. */
#include "base/half.h"
#include "base/memory.h"
#include "base/sized.h"
#include "base/threads.h"
#include "export/gguf_model.h"
#include "export/gguf_tokenizer.h"

#include <gptvq/quantize.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { PANEL_VALUES = 1 << 22, GRAIN = 16 };

/* Rows of a linear on their way into the file: decoded, then stored in the file's order. */
typedef struct panel {
  const gptvq_linear *linear;
  size_t first, head_dim; /* first: whole heads where head_dim is not 0 */
  gptvq_ggml_type type;
  float *values;
  uint8_t *stored;
  atomic_bool bad; /* a value leaves the range of the type */
} panel;

static void decode_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  panel *p = context;
  gptvq_linear_decode_rows(p->linear, p->first + begin, p->first + end, p->values + begin * p->linear->cols);
}

/* Which one of a head's values, pair by pair, comes from half by half. */
static size_t source_of(size_t i, size_t head_dim) {
  size_t in_head = head_dim == 0 ? 0 : i % head_dim;
  return head_dim == 0 ? i : i - in_head + in_head / 2 + (in_head % 2) * (head_dim / 2);
}

/* As ggml's quantize_row_q8_0: the scale is rounded to fp16 after the codes were made. */
static bool store_q8_0(const float *x, size_t n, uint8_t *out) {
  bool fine = true;
  for (size_t b = 0; b < n; b += GPTVQ_Q8_0_VALUES, out += GPTVQ_Q8_0_BYTES) {
    float most = 0.0f;
    for (size_t i = 0; i < GPTVQ_Q8_0_VALUES; i++)
      most = isfinite(x[b + i]) ? fmaxf(most, fabsf(x[b + i])) : INFINITY;
    const float scale = most / 127.0f;
    uint16_t half = gptvq_float_to_fp16(scale);
    const bool holds = isfinite(gptvq_fp16_to_float(half));
    const float inverse = holds && gptvq_fp16_to_float(half) > 0.0f ? 1.0f / scale : 0.0f; /* or all zeros */
    memcpy(out, &half, sizeof half);
    for (size_t i = 0; i < GPTVQ_Q8_0_VALUES; i++)
      out[2 + i] = (uint8_t)(int8_t)(inverse == 0.0f ? 0.0f : roundf(x[b + i] * inverse));
    fine = fine && holds;
  }
  return fine;
}

static bool store_halves(const float *x, size_t n, bool bf16, uint8_t *out) {
  bool fine = true;
  for (size_t i = 0; i < n; i++) {
    uint16_t half = bf16 ? gptvq_float_to_bf16(x[i]) : gptvq_float_to_fp16(x[i]);
    memcpy(out + 2 * i, &half, sizeof half);
    fine = fine && isfinite(bf16 ? gptvq_bf16_to_float(half) : gptvq_fp16_to_float(half));
  }
  return fine;
}

static void store_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  panel *p = context;
  size_t cols = p->linear->cols, bytes = gptvq_ggml_row_bytes(p->type, cols);
  bool fine = true;
  for (size_t r = begin; r < end; r++) {
    const float *x = p->values + source_of(r, p->head_dim) * cols;
    uint8_t *out = p->stored + r * bytes;
    if (p->type == GPTVQ_GGML_F32) memcpy(out, x, bytes);
    else if (p->type == GPTVQ_GGML_Q8_0) fine = store_q8_0(x, cols, out) && fine;
    else fine = store_halves(x, cols, p->type == GPTVQ_GGML_BF16, out) && fine;
  }
  if (!fine) atomic_store(&p->bad, true);
}

static gptvq_status write_linear(gptvq_gguf *file, const gptvq_linear *linear, size_t head_dim,
                                 gptvq_ggml_type type, gptvq_error *err) {
  size_t whole = gptvq_max_size(head_dim, 1), bytes = gptvq_ggml_row_bytes(type, linear->cols);
  size_t rows = gptvq_max_size(1, PANEL_VALUES / gptvq_saturated_size(linear->cols, whole)) * whole;
  rows = gptvq_min_size(rows, linear->rows);
  panel p = {.linear = linear, .head_dim = head_dim, .type = type};
  p.values = gptvq_alloc(rows * linear->cols, sizeof *p.values);
  p.stored = gptvq_alloc(rows, bytes);
  gptvq_status status = GPTVQ_OK;
  if (p.values == NULL || p.stored == NULL)
    status = gptvq_fail_memory(err, linear->name, gptvq_saturated_size(rows * linear->cols, 8));
  for (; status == GPTVQ_OK && p.first < linear->rows; p.first += rows) {
    size_t n = gptvq_min_size(rows, linear->rows - p.first);
    gptvq_parallel_for(n, GRAIN, decode_rows, &p);
    gptvq_parallel_for(n, GRAIN, store_rows, &p);
    if (atomic_load(&p.bad))
      status = gptvq_fail(err, GPTVQ_ERROR_NUMERIC, "%s: values beyond the range of %s%s", linear->name,
                          type == GPTVQ_GGML_Q8_0  ? "Q8_0"
                          : type == GPTVQ_GGML_F16 ? "F16"
                                                   : "BF16",
                          type == GPTVQ_GGML_BF16 ? "" : ": use --type bf16");
    else status = gptvq_gguf_write(file, p.stored, n * bytes, err);
  }
  free(p.values);
  free(p.stored);
  return status;
}

static gptvq_status write_values(gptvq_gguf *file, const gptvq_gguf_tensor *t, gptvq_error *err) {
  float *values = gptvq_alloc(t->cols, sizeof *values);
  if (values == NULL) return gptvq_fail_memory(err, t->name, gptvq_saturated_size(t->cols, sizeof *values));
  for (size_t i = 0; i < t->cols; i++) values[i] = t->values[source_of(i, t->head_dim)];
  gptvq_status status = gptvq_gguf_write(file, values, t->cols * sizeof *values, err);
  free(values);
  return status;
}

/* A router stays as exact as it is. */
static bool is_router(const gptvq_gguf_tensor *t) { return strstr(t->name, ".ffn_gate_inp.") != NULL; }

static gptvq_status pick_type(const gptvq_gguf_tensor *t, gptvq_gguf_type wanted, gptvq_ggml_type *type,
                              gptvq_error *err) {
  bool blocks = t->cols % GPTVQ_Q8_0_VALUES == 0;
  *type = GPTVQ_GGML_F16;
  if (t->rows == 0 || is_router(t)) *type = GPTVQ_GGML_F32;
  else if (wanted == GPTVQ_GGUF_BF16) *type = GPTVQ_GGML_BF16;
  else if (wanted != GPTVQ_GGUF_F16 && blocks) *type = GPTVQ_GGML_Q8_0;
  else if (wanted == GPTVQ_GGUF_Q8_0)
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "%s has %zu columns, Q8_0 takes multiples of %d: use --type auto or f16", t->name,
                      t->cols, GPTVQ_Q8_0_VALUES);
  return GPTVQ_OK;
}

static gptvq_status declare(gptvq_gguf *file, const gptvq_gguf_tensor *t, gptvq_gguf_type wanted,
                            gptvq_error *err) {
  gptvq_ggml_type type;
  GPTVQ_TRY(pick_type(t, wanted, &type, err));
  const size_t vector[1] = {t->cols}, matrix[2] = {t->rows, t->cols},
               matrices[3] = {t->experts, t->rows, t->cols};
  if (t->rows == 0) gptvq_gguf_declare(file, t->name, type, 1, vector);
  else if (t->experts == 0) gptvq_gguf_declare(file, t->name, type, 2, matrix);
  else gptvq_gguf_declare(file, t->name, type, 3, matrices);
  return GPTVQ_OK;
}

static gptvq_status write_tensor(gptvq_gguf *file, const gptvq_gguf_tensor *t, gptvq_gguf_type wanted,
                                 gptvq_error *err) {
  gptvq_ggml_type type;
  if (t->rows == 0) return write_values(file, t, err);
  GPTVQ_TRY(pick_type(t, wanted, &type, err));
  for (size_t e = 0; e < gptvq_max_size(t->experts, 1); e++)
    GPTVQ_TRY(write_linear(file, gptvq_gguf_linear(t, e), t->head_dim, type, err));
  return GPTVQ_OK;
}

/* general.file_type, which readers only show. */
static uint32_t file_type(gptvq_gguf_type type) {
  return type == GPTVQ_GGUF_F16 ? 1 : type == GPTVQ_GGUF_BF16 ? 32 : 7;
}

/* general.name: the last part of the folder's path, however it was written. */
static gptvq_status write_name(gptvq_gguf *file, const gptvq_model *model, const char *folder,
                               gptvq_error *err) {
  size_t end = strlen(folder), begin;
  while (end > 1 && folder[end - 1] == '/') end--;
  for (begin = end; begin > 0 && folder[begin - 1] != '/'; begin--) continue;
  char *name = strndup(folder + begin, end - begin);
  if (name == NULL) return gptvq_fail_memory(err, "the name of the model", end - begin);
  gptvq_gguf_config(file, model, name);
  free(name);
  return GPTVQ_OK;
}

static gptvq_status write_file(gptvq_gguf *file, const gptvq_model *model, const char *folder,
                               gptvq_gguf_type type, const gptvq_callbacks *callbacks, gptvq_error *err) {
  gptvq_gguf_tensors list = {.items = NULL};
  gptvq_status status;
  GPTVQ_TRY(write_name(file, model, folder, err));
  gptvq_gguf_u32(file, "general.file_type", file_type(type));
  gptvq_gguf_u32(file, "general.quantization_version", 2);
  GPTVQ_TRY_GOTO(gptvq_gguf_tokenizer(file, folder, model->config.vocab,
                                      model->config.eos_count > 0 ? model->config.eos[0] : -1, err));
  GPTVQ_TRY_GOTO(gptvq_gguf_list(model, &list, err));
  for (size_t t = 0; t < list.count; t++) GPTVQ_TRY_GOTO(declare(file, &list.items[t], type, err));
  for (size_t t = 0; t < list.count; t++) {
    GPTVQ_TRY_GOTO(write_tensor(file, &list.items[t], type, err));
    GPTVQ_TRY_GOTO(
        gptvq_report_progress(callbacks, "export", list.items[t].name, t + 1, list.count, NAN, err));
  }
done:
  gptvq_gguf_tensors_release(&list);
  return status;
}

static gptvq_status export_file(const gptvq_model *model, const char *folder, const char *out,
                                gptvq_gguf_type type, const gptvq_callbacks *callbacks, gptvq_error *err) {
  gptvq_gguf *file;
  GPTVQ_TRY(gptvq_gguf_check(model, err));
  GPTVQ_TRY(gptvq_gguf_create(out, &file, err));
  gptvq_status status = write_file(file, model, folder, type, callbacks, err);
  if (status == GPTVQ_OK) return gptvq_gguf_commit(file, err);
  gptvq_gguf_abort(file);
  return status;
}

static bool is_there(const char *path, struct stat *out) { return stat(path, out) == 0; }

/* What is at out_file already: a file that is no part of the input, to be replaced only on demand. */
static gptvq_status check_replaced(const char *model_dir, const char *out_file, int force, gptvq_error *err) {
  struct stat there, folder, around;
  if (!is_there(out_file, &there)) return GPTVQ_OK;
  if (!S_ISREG(there.st_mode)) return gptvq_fail(err, GPTVQ_ERROR_IO, "%s is no regular file", out_file);
  if (!force) return gptvq_fail(err, GPTVQ_ERROR_IO, "%s exists already: --force replaces it", out_file);
  if (is_there(model_dir, &folder) && folder.st_dev == there.st_dev && folder.st_ino == there.st_ino)
    return gptvq_fail(err, GPTVQ_ERROR_IO, "%s is the model that is exported: give the new file another name",
                      out_file);
  const char *slash = strrchr(out_file, '/');
  char *parent = slash == NULL ? strdup(".") : strndup(out_file, (size_t)(slash - out_file) + 1);
  if (parent == NULL) return gptvq_fail_memory(err, out_file, strlen(out_file));
  const bool inside = is_there(parent, &around) && is_there(model_dir, &folder) &&
                      around.st_dev == folder.st_dev && around.st_ino == folder.st_ino;
  free(parent);
  size_t length = strlen(out_file);
  if (inside && (length < 5 || strcmp(out_file + length - 5, ".gguf") != 0))
    return gptvq_fail(err, GPTVQ_ERROR_IO, "%s belongs to the model that is exported", out_file);
  return GPTVQ_OK;
}

gptvq_status gptvq_export_gguf(const char *model_dir, const char *out_file, gptvq_gguf_type type, int force,
                               const gptvq_callbacks *callbacks, gptvq_error *err) {
  if (model_dir == NULL || out_file == NULL || type < GPTVQ_GGUF_AUTO || type > GPTVQ_GGUF_Q8_0)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "gptvq_export_gguf needs a model folder, a file to make and a type");
  gptvq_callbacks own = {.size = sizeof own};
  gptvq_model *model = NULL;
  GPTVQ_TRY(GPTVQ_TAKE(gptvq_callbacks, callbacks, &own, err));
  if (gptvq_is_folder(out_file))
    return gptvq_fail(err, GPTVQ_ERROR_IO, "%s is a folder: a GGUF file has a name of its own", out_file);
  GPTVQ_TRY(check_replaced(model_dir, out_file, force, err));
  const gptvq_model_options options = {
      .size = sizeof options, .compute = GPTVQ_COMPUTE_FP32, .callbacks = &own};
  GPTVQ_TRY(gptvq_model_open(model_dir, &options, &model, err));
  gptvq_status status = export_file(model, model_dir, out_file, type, &own, err);
  gptvq_model_close(model);
  return status;
}
