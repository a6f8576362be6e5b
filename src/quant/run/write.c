/* The files of a packed folder. */
#include "quant/run/pipeline.h"
#include "base/half.h"
#include "base/memory.h"
#include "checkpoint/names.h"
#include "quant/plan/sensitivity.h"
#include "quant/run/outside.h"
#include "quant/run/resume.h"
#include "quant/options/options.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int compare_names(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* N of "model.layers.N.…", SIZE_MAX when there is none */
static size_t block_of(const char *name) {
  const char *at = name + strlen(GPTVQ_NAME_BLOCKS);
  if (strncmp(name, GPTVQ_NAME_BLOCKS, strlen(GPTVQ_NAME_BLOCKS)) != 0) return SIZE_MAX;
  size_t index = 0, digits = 0;
  for (; isdigit((unsigned char)*at) && digits < 9; at++, digits++) index = index * 10 + (size_t)(*at - '0');
  return digits > 0 && *at == '.' ? index : SIZE_MAX;
}

/* Will the tensor be packed, and is it none of the blocks'? */
static bool packs_outside(const gptvq_outside_bits *bits, const char *name) {
  return (bits->embedding != 16 && strcmp(name, GPTVQ_NAME_EMBEDDING ".weight") == 0) ||
         (bits->head != 16 && strcmp(name, GPTVQ_NAME_HEAD ".weight") == 0);
}

static gptvq_status fill_plan(const gptvq_model *model, gptvq_tensor_plan *plan, const char **names,
                              size_t linears, gptvq_error *err) {
  const gptvq_checkpoint *checkpoint = model->checkpoint;
  size_t n = 0, replaced = 0;
  for (size_t b = 0; b < model->config.layers; b++)
    for (size_t i = 0; i < model->blocks[b].linear_count && n < linears; i++)
      names[n++] = model->blocks[b].linears[i].name;
  qsort((void *)names, n, sizeof *names, compare_names);
  for (size_t t = 0; t < plan->count; t++) {
    const char *name = gptvq_checkpoint_tensor_at(checkpoint, t)->name;
    size_t length = strlen(name), block = block_of(name);
    plan->place[t] = block < plan->blocks ? block : gptvq_place_rest;
    if (packs_outside(&plan->bits, name)) plan->place[t] = gptvq_place_packed;
    static const char suffix[] = ".weight";
    if (length <= strlen(suffix) || strcmp(name + length - strlen(suffix), suffix) != 0) continue;
    char *base = strdup(name);
    if (base == NULL) return gptvq_fail_memory(err, name, length);
    base[length - strlen(suffix)] = '\0';
    const char *key = base;
    if (bsearch(&key, (const void *)names, n, sizeof *names, compare_names) != NULL) {
      plan->place[t] = gptvq_place_replaced;
      replaced++;
    }
    free(base);
  }
  if (replaced == n) return GPTVQ_OK;
  return gptvq_fail(err, GPTVQ_ERROR_INTERNAL, "%zu of %zu linear layers are not tensors of their own in %s",
                    n - replaced, n, gptvq_checkpoint_folder(checkpoint));
}

gptvq_status gptvq_plan_create(const gptvq_model *model, const gptvq_resolved *options,
                               gptvq_tensor_plan *plan, gptvq_error *err) {
  *plan = (gptvq_tensor_plan){.count = gptvq_checkpoint_tensor_count(model->checkpoint),
                              .blocks = model->config.layers};
  GPTVQ_TRY(gptvq_outside_bits_of(model, &options->options, &plan->bits, err));
  const size_t linears = gptvq_model_layer_count(model);
  const char **names = gptvq_alloc(linears, sizeof *names);
  plan->place = gptvq_alloc(plan->count, sizeof *plan->place);
  const gptvq_status status =
      names != NULL && plan->place != NULL
          ? fill_plan(model, plan, names, linears, err)
          : gptvq_fail_memory(err, "the tensor list", gptvq_saturated_size(plan->count, sizeof *plan->place));
  free((void *)names);
  if (status != GPTVQ_OK) gptvq_plan_release(plan);
  return status;
}

void gptvq_plan_release(gptvq_tensor_plan *plan) {
  free(plan->place);
  *plan = (gptvq_tensor_plan){0};
}

/* The fine-tuned values of a tensor, or NULL; *gains: they are those of a norm. */
static const float *tuned_values(const gptvq_model *model, const gptvq_tuned *tuned, const char *name,
                                 bool *gains) {
  *gains = true;
  if (tuned == NULL) return NULL;
  if (strcmp(name, GPTVQ_NAME_FINAL_NORM ".weight") == 0) return tuned->final_norm;
  const gptvq_block *block = tuned->block;
  if (block == NULL) return NULL;
  for (gptvq_norm_place i = 0; i < GPTVQ_NORMS; i++) {
    char text[GPTVQ_TENSOR_NAME];
    if (block->norms[i] != NULL &&
        strcmp(name, gptvq_block_name(block->index, model->arch->norms[i], ".weight", text)) == 0)
      return block->norms[i];
  }
  *gains = false;
  for (size_t i = 0; i < block->linear_count; i++) {
    size_t length = strlen(block->linears[i].name);
    if (strncmp(name, block->linears[i].name, length) == 0 && strcmp(name + length, ".bias") == 0)
      return block->linears[i].bias;
  }
  return NULL;
}

/* A fine-tuned vector in the tensor's type; a norm's gains (of the family `norm_of`, else NULL) as its
 * weights. */
static gptvq_status write_values(gptvq_st_writer *writer, const gptvq_tensor *tensor, const float *values,
                                 const gptvq_arch *norm_of, gptvq_error *err) {
  float *numbers = gptvq_alloc(tensor->count, sizeof *numbers);
  uint16_t *halves = gptvq_alloc(tensor->count, sizeof *halves);
  gptvq_status status = GPTVQ_OK;
  if (numbers == NULL || halves == NULL) {
    status = gptvq_fail_memory(err, tensor->name, tensor->bytes);
  } else {
    for (size_t i = 0; i < tensor->count; i++) {
      numbers[i] = norm_of != NULL ? gptvq_gain_to_weight(norm_of, values[i]) : values[i];
      halves[i] =
          tensor->type == GPTVQ_T_F16 ? gptvq_float_to_fp16(numbers[i]) : gptvq_float_to_bf16(numbers[i]);
    }
    const void *bytes = tensor->type == GPTVQ_T_F32 ? (const void *)numbers : halves;
    status = gptvq_st_writer_write(writer, bytes, tensor->bytes, err);
  }
  free(numbers);
  free(halves);
  return status;
}

/* Packed layers to write before other tensors. */
typedef struct layers {
  size_t count;
  const char *names[2];
  const gptvq_packed *packed[2];
  const char *methods[2];
  double errors[2];
} layers;

static void add_outside(layers *list, const char *name, const gptvq_outside_matrix *matrix) {
  if (!matrix->is_packed) return;
  list->names[list->count] = name;
  list->packed[list->count] = &matrix->packed;
  list->methods[list->count] = matrix->method;
  list->errors[list->count++] = matrix->error;
}

static gptvq_status write_tensors(gptvq_st_writer *writer, const gptvq_model *model,
                                  const gptvq_tensor_plan *plan, size_t place, const gptvq_tuned *tuned,
                                  gptvq_error *err) {
  for (size_t t = 0; t < plan->count; t++) {
    const gptvq_tensor *tensor = gptvq_checkpoint_tensor_at(model->checkpoint, t);
    if (plan->place[t] != place) continue;
    bool gains;
    const float *values = tuned_values(model, tuned, tensor->name, &gains);
    if (values != NULL) GPTVQ_TRY(write_values(writer, tensor, values, gains ? model->arch : NULL, err));
    else GPTVQ_TRY(gptvq_st_writer_write(writer, tensor->data, tensor->bytes, err));
  }
  return GPTVQ_OK;
}

static gptvq_status declare_tensors(gptvq_st_writer *writer, const gptvq_model *model,
                                    const gptvq_tensor_plan *plan, size_t place, gptvq_error *err) {
  for (size_t t = 0; t < plan->count; t++)
    if (plan->place[t] == place)
      GPTVQ_TRY(gptvq_declare_tensor(writer, gptvq_checkpoint_tensor_at(model->checkpoint, t), err));
  return GPTVQ_OK;
}

static gptvq_status open_shard(const gptvq_output *out, const gptvq_tensor_plan *plan, size_t shard,
                               gptvq_st_writer **writer, gptvq_error *err) {
  char name[GPTVQ_SHARD_NAME], path[GPTVQ_PATH_MAX];
  gptvq_shard_name(shard, plan->blocks + 1, name);
  GPTVQ_TRY(gptvq_output_path(out, name, path, err));
  return gptvq_st_writer_create(path, writer, err);
}

gptvq_status gptvq_write_shard(const gptvq_output *out, const gptvq_model *model,
                               const gptvq_tensor_plan *plan, size_t shard, const gptvq_layer_result *results,
                               const char *method, const gptvq_tuned *tuned, gptvq_error *err) {
  gptvq_st_writer *writer;
  gptvq_status status;
  const gptvq_block *block = &model->blocks[shard];
  GPTVQ_TRY(open_shard(out, plan, shard, &writer, err));
  for (size_t i = 0; i < block->linear_count; i++)
    GPTVQ_TRY_GOTO(gptvq_packed_declare(writer, block->linears[i].name, &results[i].packed, method,
                                        results[i].error, err));
  GPTVQ_TRY_GOTO(declare_tensors(writer, model, plan, shard, err));
  for (size_t i = 0; i < block->linear_count; i++)
    GPTVQ_TRY_GOTO(gptvq_packed_write(writer, &results[i].packed, err));
  GPTVQ_TRY_GOTO(write_tensors(writer, model, plan, shard, tuned, err));
  return gptvq_st_writer_commit(writer, err);
done:
  gptvq_st_writer_abort(writer);
  return status;
}

gptvq_status gptvq_write_rest(const gptvq_output *out, const gptvq_model *model,
                              const gptvq_tensor_plan *plan, const gptvq_outside *outside,
                              const gptvq_tuned *tuned, gptvq_error *err) {
  gptvq_st_writer *writer;
  gptvq_status status;
  layers list = {.count = 0};
  add_outside(&list, GPTVQ_NAME_EMBEDDING, &outside->embedding);
  add_outside(&list, GPTVQ_NAME_HEAD, &outside->head);
  GPTVQ_TRY(open_shard(out, plan, plan->blocks, &writer, err));
  for (size_t i = 0; i < list.count; i++)
    GPTVQ_TRY_GOTO(
        gptvq_packed_declare(writer, list.names[i], list.packed[i], list.methods[i], list.errors[i], err));
  GPTVQ_TRY_GOTO(declare_tensors(writer, model, plan, gptvq_place_rest, err));
  for (size_t i = 0; i < list.count; i++) GPTVQ_TRY_GOTO(gptvq_packed_write(writer, list.packed[i], err));
  GPTVQ_TRY_GOTO(write_tensors(writer, model, plan, gptvq_place_rest, tuned, err));
  return gptvq_st_writer_commit(writer, err);
done:
  gptvq_st_writer_abort(writer);
  return status;
}

gptvq_status gptvq_write_shard_index(const gptvq_output *out, const gptvq_tensor_plan *plan, size_t shards,
                                     gptvq_error *err) {
  return gptvq_write_numbered_index(out->work, shards, plan->blocks + 1, err);
}

/* json_object_update_missing, which does not say when memory runs out */
static bool add_missing(json_t *object, json_t *from) {
  const char *key;
  json_t *value;
  json_object_foreach(from, key, value) {
    if (json_object_get(object, key) == NULL && json_object_set(object, key, value) != 0) return false;
  }
  return true;
}

gptvq_status gptvq_write_packed_config(const gptvq_output *out, const gptvq_model *model,
                                       const gptvq_resolved *options, const gptvq_calibration *calibration,
                                       double bits_per_value, gptvq_error *err) {
  char path[GPTVQ_PATH_MAX];
  GPTVQ_TRY(gptvq_output_path(out, "config.json", path, err));
  json_t *config = gptvq_model_config(model);
  json_t *quantization = json_pack("{s:s, s:i}", "quant_method", "gptvq", "version",
                                   options->options.code == GPTVQ_CODE_TRELLIS ? GPTVQ_FORMAT_VERSION_TRELLIS
                                   : options->options.svd_rank > 0             ? GPTVQ_FORMAT_VERSION_FACTORED
                                                                               : GPTVQ_FORMAT_VERSION_PLAIN);
  json_t *settings = gptvq_options_json(options);
  bool fine = config != NULL && quantization != NULL && settings != NULL;
  if (fine && bits_per_value >= 0)
    fine = json_object_set_new(quantization, "bits_per_value", json_real(bits_per_value)) == 0;
  fine = fine && add_missing(quantization, settings);
  if (fine && calibration != NULL)
    fine = json_object_set_new(quantization, "calibration",
                               gptvq_calibration_json(calibration, options->options.seed)) == 0;
  fine = fine && json_object_set_new(quantization, "gptvq_version", json_string(gptvq_version())) == 0 &&
         json_object_set(config, "quantization_config", quantization) == 0;
  gptvq_status status = fine ? gptvq_write_json(path, config, err) : gptvq_fail_memory(err, path, 0);
  json_decref(settings);
  json_decref(quantization);
  json_decref(config);
  return status;
}

gptvq_status gptvq_estimate_layers(const gptvq_model *model, const gptvq_resolved *options, uint64_t *bytes,
                                   gptvq_error *err) {
  *bytes = gptvq_allocation_spare(model, options);
  for (size_t b = 0; b < model->config.layers; b++)
    for (size_t i = 0; i < model->blocks[b].linear_count; i++) {
      const gptvq_linear *linear = &model->blocks[b].linears[i];
      gptvq_packed_shape shape;
      gptvq_packed_sizes sizes;
      GPTVQ_TRY(gptvq_layer_shape(linear->rows, linear->cols, options, &shape, err));
      gptvq_packed_measure(&shape, &sizes);
      *bytes += sizes.stored_bytes;
    }
  return GPTVQ_OK;
}

gptvq_status gptvq_estimate_bytes(const gptvq_model *model, const gptvq_tensor_plan *plan,
                                  const gptvq_resolved *options, uint64_t *bytes, gptvq_error *err) {
  uint64_t total = 0;
  for (size_t t = 0; t < plan->count; t++) {
    const gptvq_tensor *tensor = gptvq_checkpoint_tensor_at(model->checkpoint, t);
    if (plan->place[t] == gptvq_place_packed) {
      const bool head = strcmp(tensor->name, GPTVQ_NAME_HEAD ".weight") == 0;
      const gptvq_packed_shape shape =
          gptvq_outside_shape(&options->options, model->config.vocab, model->config.hidden,
                              head ? plan->bits.head : plan->bits.embedding);
      gptvq_packed_sizes sizes;
      GPTVQ_TRY(gptvq_packed_check(&shape, tensor->name, err));
      gptvq_packed_measure(&shape, &sizes);
      total += sizes.stored_bytes;
    } else if (plan->place[t] != gptvq_place_replaced) {
      total += tensor->bytes;
    }
  }
  GPTVQ_TRY(gptvq_estimate_layers(model, options, bytes, err));
  *bytes += total;
  return GPTVQ_OK;
}
