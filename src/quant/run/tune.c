/* Fine-tuning inside gptvq_quantize: of a block when it has been quantized, and of the whole model at the
 * end, for which the packed folder is read back and its shards are written anew. */
#include "quant/run/pipeline.h"
#include "base/file.h"
#include "base/memory.h"
#include "checkpoint/names.h"
#include "train/finetune.h"
#include "checkpoint/output_files.h"
#include "quant/run/outside.h"
#include "quant/run/resume.h"
#include "quant/options/options.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- copies of what is read-only elsewhere ---- */

static gptvq_status keep(gptvq_copies *copies, void *memory, size_t bytes, gptvq_error *err) {
  if (memory != NULL && copies->count == copies->size) {
    size_t size = 2 * copies->size + 16;
    void **items = realloc(copies->items, size * sizeof *items);
    if (items == NULL) {
      free(memory);
      memory = NULL;
    } else {
      copies->items = items;
      copies->size = size;
    }
  }
  if (memory == NULL) return gptvq_fail_memory(err, "fine-tuning: a copy of codebooks and norms", bytes);
  copies->items[copies->count++] = memory;
  return GPTVQ_OK;
}

void gptvq_copies_release(gptvq_copies *copies) {
  for (size_t i = 0; i < copies->count; i++) free(copies->items[i]);
  free(copies->items);
  *copies = (gptvq_copies){0};
}

static gptvq_status copy_bytes(gptvq_copies *copies, const void **place, size_t bytes, gptvq_error *err) {
  if (*place == NULL || bytes == 0) return GPTVQ_OK;
  void *copy = gptvq_alloc(bytes, 1);
  GPTVQ_TRY(keep(copies, copy, bytes, err));
  memcpy(copy, *place, bytes);
  *place = copy;
  return GPTVQ_OK;
}

static gptvq_status copy_floats(gptvq_copies *copies, const float **place, size_t count, gptvq_error *err) {
  const void *bytes = *place;
  gptvq_status status = copy_bytes(copies, &bytes, count * sizeof(float), err);
  *place = bytes;
  return status;
}

static gptvq_status copy_vector(const gptvq_checkpoint *shards, const char *name, size_t count,
                                const float **place, gptvq_copies *copies, gptvq_error *err) {
  const gptvq_tensor *tensor;
  gptvq_dtype dtype;
  GPTVQ_TRY(copy_floats(copies, place, count, err));
  if (shards == NULL) return GPTVQ_OK;
  GPTVQ_TRY(gptvq_checkpoint_get(shards, name, 1, &count, &tensor, &dtype, err));
  gptvq_to_float(dtype, tensor->data, count, (float *)*place);
  return GPTVQ_OK;
}

gptvq_status gptvq_copy_vectors(const gptvq_model *model, const gptvq_checkpoint *shards, gptvq_block *block,
                                gptvq_copies *copies, gptvq_error *err) {
  char name[GPTVQ_TENSOR_NAME];
  for (gptvq_norm_place i = 0; i < GPTVQ_NORMS; i++) {
    if (block->norms[i] == NULL) continue;
    gptvq_block_name(block->index, model->arch->norms[i], ".weight", name);
    const size_t size = gptvq_norm_size(model, i);
    GPTVQ_TRY(copy_vector(shards, name, size, &block->norms[i], copies, err));
    if (shards != NULL) gptvq_weights_to_gains(model->arch, size, (float *)(uintptr_t)block->norms[i]);
  }
  for (size_t i = 0; i < block->linear_count; i++) {
    gptvq_linear *linear = &block->linears[i];
    if (linear->bias == NULL) continue;
    (void)snprintf(name, sizeof name, "%s.bias", linear->name);
    GPTVQ_TRY(copy_vector(shards, name, linear->rows, &linear->bias, copies, err));
  }
  return GPTVQ_OK;
}

/* The packed linears' codebooks and scales become copies, their indices where these are trained. */
static gptvq_status copy_tables(gptvq_block *block, bool indices_too, gptvq_copies *copies,
                                gptvq_error *err) {
  for (size_t i = 0; i < block->linear_count; i++) {
    gptvq_packed *packed = &block->linears[i].packed;
    gptvq_packed_sizes sizes;
    if (!block->linears[i].is_packed) continue;
    gptvq_packed_measure(&packed->shape, &sizes);
    const void *scales = packed->codebook_scales, *uniform = packed->scales, *indices = packed->indices,
               *row_scales = packed->row_scales;
    GPTVQ_TRY(copy_bytes(copies, &packed->codebooks, sizes.codebook_bytes, err));
    GPTVQ_TRY(copy_bytes(copies, &scales, sizes.codebook_scales * sizeof(uint16_t), err));
    GPTVQ_TRY(copy_bytes(copies, &uniform, sizes.uniform_scales * sizeof(uint16_t), err));
    if (indices_too) GPTVQ_TRY(copy_bytes(copies, &indices, sizes.index_bytes, err));
    GPTVQ_TRY(copy_bytes(copies, &row_scales, sizes.row_scale_bytes, err));
    packed->row_scales = row_scales;
    packed->codebook_scales = scales;
    packed->scales = uniform;
    packed->indices = indices;
  }
  return GPTVQ_OK;
}

/* Precision of the norms in the files, which fine-tuning keeps. */
static gptvq_dtype norm_dtype(const gptvq_model *model) {
  const gptvq_tensor *tensor = gptvq_checkpoint_find(model->checkpoint, GPTVQ_NAME_FINAL_NORM ".weight");
  if (tensor != NULL && tensor->type == GPTVQ_T_BF16) return GPTVQ_BF16;
  return tensor != NULL && tensor->type == GPTVQ_T_F16 ? GPTVQ_F16 : GPTVQ_F32;
}

static gptvq_finetune_options settings_of(const gptvq_model *model, const gptvq_quantize_options *options,
                                          size_t steps, size_t held) {
  gptvq_finetune_options settings;
  gptvq_finetune_options_init(&settings);
  settings.steps = steps;
  settings.batch = options->finetune_batch;
  settings.table_rate = options->finetune_rate;
  settings.vector_rate = 0.5 * options->finetune_rate;
  settings.index_rate = options->finetune_index_rate;
  settings.holdout = held;
  settings.seed = options->seed;
  settings.vector_dtype = norm_dtype(model);
  settings.compute = options->calib_compute;
  return settings;
}

static const char *judges(const gptvq_finetune_options *settings) {
  return settings->holdout > 0 ? "held-out" : "training";
}

/* ---- one block ---- */

gptvq_status gptvq_pipeline_block_tuned(gptvq_pipeline *p, const gptvq_block *block,
                                        gptvq_layer_result *results, gptvq_tuned_block *tuned,
                                        gptvq_error *err) {
  const gptvq_quantize_options *o = &p->solver.options->options;
  gptvq_finetune_options settings = settings_of(p->model, o, o->finetune_block_steps, p->held);
  gptvq_finetune_result result;
  *tuned = (gptvq_tuned_block){0};
  gptvq_stream enter;
  GPTVQ_TRY(gptvq_stream_create(p->samples, p->x->values, p->place, "calibration activations", &enter, err));
  gptvq_status status = gptvq_stream_copy(p->x, &enter, err);
  if (status == GPTVQ_OK) status = gptvq_pipeline_block(p, block, results, err);
  if (status != GPTVQ_OK) {
    gptvq_stream_release(&enter);
    return status;
  }
  GPTVQ_TRY_GOTO(gptvq_block_copy(block, &tuned->block, err));
  GPTVQ_TRY_GOTO(keep(&tuned->copies, tuned->block.linears, 0, err));
  GPTVQ_TRY_GOTO(gptvq_copy_vectors(p->model, NULL, &tuned->block, &tuned->copies, err));
  for (size_t i = 0; i < block->linear_count; i++)
    gptvq_linear_set_packed(&tuned->block.linears[i], &results[i].packed);
  const gptvq_block_windows windows = {p->samples, p->length, &enter, p->x_original};
  GPTVQ_TRY_GOTO(
      gptvq_finetune_block(p->model, &tuned->block, &windows, &settings, p->solver.callbacks, &result, err));
  gptvq_log(p->solver.callbacks, GPTVQ_LOG_INFO,
            "block %zu fine-tuned: error on %s windows %.5f -> %.5f (best after %zu of %zu steps, %.0f s)",
            block->index, judges(&settings), result.before, result.after, result.best_step, result.steps,
            result.seconds);
  if (result.best_step > 0) { /* through the block once more, as it is now */
    const gptvq_stream *x_original = p->x_original;
    GPTVQ_TRY_GOTO(gptvq_stream_copy(&enter, p->x, err));
    p->x_original = NULL; /* has been there already */
    status = gptvq_pipeline_run(p, &tuned->block, block, err);
    p->x_original = x_original;
  }
done:
  gptvq_stream_release(&enter);
  if (status != GPTVQ_OK) {
    gptvq_copies_release(&tuned->copies);
    for (size_t i = 0; i < block->linear_count; i++) gptvq_layer_result_release(&results[i]);
  }
  return status;
}

/* ---- the whole model ---- */

typedef struct tuning {
  const gptvq_model *model;
  gptvq_model *packed;
  gptvq_block *blocks; /* [layers] */
  float *final_norm;
  gptvq_copies copies; /* what they own */
} tuning;

static gptvq_status open_tuning(tuning *t, const gptvq_output *out, bool indices_too, gptvq_error *err) {
  const gptvq_model_options open = {.size = sizeof open, .compute = GPTVQ_COMPUTE_FP32};
  GPTVQ_TRY(gptvq_model_open(out->work, &open, &t->packed, err));
  gptvq_model_rest(t->packed); /* pages that were checked */
  size_t layers = t->model->config.layers;
  t->blocks = calloc(layers, sizeof *t->blocks);
  if (t->blocks == NULL) return gptvq_fail_memory(err, "fine-tuning: blocks", layers * sizeof *t->blocks);
  for (size_t b = 0; b < layers; b++) {
    GPTVQ_TRY(gptvq_block_copy(&t->packed->blocks[b], &t->blocks[b], err));
    GPTVQ_TRY(keep(&t->copies, t->blocks[b].linears, 0, err));
    GPTVQ_TRY(gptvq_copy_vectors(t->model, NULL, &t->blocks[b], &t->copies, err));
    GPTVQ_TRY(copy_tables(&t->blocks[b], indices_too, &t->copies, err));
  }
  const float *norm = t->packed->final_norm;
  GPTVQ_TRY(copy_floats(&t->copies, &norm, t->model->config.hidden, err));
  t->final_norm = (float *)norm;
  return GPTVQ_OK;
}

static void close_tuning(tuning *t) {
  gptvq_copies_release(&t->copies);
  free(t->blocks);
  gptvq_model_close(t->packed);
}

static gptvq_status tuned_output(const gptvq_output *out, char folder[GPTVQ_PATH_MAX], gptvq_output *sub,
                                 gptvq_error *err) {
  GPTVQ_TRY(gptvq_output_path(out, GPTVQ_FINETUNED_NAME, folder, err));
  *sub = (gptvq_output){.path = folder, .work = folder, .lock = -1};
  return GPTVQ_OK;
}

static gptvq_status write_tuned(const tuning *t, const gptvq_output *out, const gptvq_tensor_plan *plan,
                                const char *method, gptvq_error *err) {
  char folder[GPTVQ_PATH_MAX];
  gptvq_output sub;
  GPTVQ_TRY(tuned_output(out, folder, &sub, err));
  GPTVQ_TRY(gptvq_remove_subfolder(folder, err)); /* what an interrupted run left */
  GPTVQ_TRY(gptvq_make_folder(folder, err));
  size_t layer = 0;
  for (size_t b = 0; b < plan->blocks; b++) {
    const gptvq_block *block = &t->blocks[b];
    gptvq_tuned tuned = {.block = block};
    gptvq_layer_result *results = calloc(block->linear_count, sizeof *results);
    if (results == NULL) return gptvq_fail_memory(err, "a block", block->linear_count * sizeof *results);
    for (size_t i = 0; i < block->linear_count; i++) {
      gptvq_layer_info info = {.size = sizeof info};
      gptvq_model_get_layer(t->packed, layer++, &info);
      results[i].packed = block->linears[i].packed;
      results[i].error = info.error;
    }
    gptvq_status status = gptvq_write_shard(&sub, t->model, plan, b, results, method, &tuned, err);
    free(results);
    GPTVQ_TRY(status);
  }
  gptvq_tuned rest = {.final_norm = t->final_norm};
  gptvq_outside outside;
  gptvq_status status = gptvq_outside_read(t->packed->checkpoint, &outside, err);
  if (status == GPTVQ_OK) status = gptvq_write_rest(&sub, t->model, plan, &outside, &rest, err);
  gptvq_outside_release(&outside);
  return status;
}

static double trained_bytes(const gptvq_model *packed) {
  double sum = 0.0;
  for (size_t b = 0; b < packed->config.layers; b++)
    for (size_t i = 0; i < packed->blocks[b].linear_count; i++)
      if (packed->blocks[b].linears[i].is_packed)
        sum += gptvq_finetune_linear_bytes(&packed->blocks[b].linears[i].packed.shape);
  return sum;
}

static gptvq_status check_memory(size_t bytes, gptvq_error *err) {
  long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  if (pages > 0 && page > 0 && bytes / (size_t)page >= (size_t)pages)
    return gptvq_fail(
        err, GPTVQ_ERROR_MEMORY,
        "fine-tuning the whole model takes about %.1f GB, more than this machine's memory: leave it out "
        "(`finetune_steps` 0), give shorter windows (`calib_length`) or use a larger machine",
        (double)bytes * 1e-9);
  return GPTVQ_OK;
}

gptvq_status gptvq_pipeline_finetune(const gptvq_model *model, const gptvq_output *out,
                                     const gptvq_tensor_plan *plan, const gptvq_solver *solver,
                                     const gptvq_calibration *calibration, gptvq_stream_place place,
                                     gptvq_finetune_result *result, gptvq_error *err) {
  tuning t = {.model = model};
  const gptvq_quantize_options *o = &solver->options->options;
  gptvq_finetune_options settings = settings_of(model, o, o->finetune_steps, calibration->held);
  const gptvq_token_windows windows = {calibration->samples + calibration->held, calibration->length,
                                       calibration->tokens};
  const bool own_head = gptvq_outside_packs_head(model, &plan->bits);
  gptvq_status status;
  settings.place = place;
  GPTVQ_TRY_GOTO(open_tuning(&t, out, settings.index_rate > 0, err));
  settings.head = own_head ? &t.packed->head : NULL;
  GPTVQ_TRY_GOTO(check_memory(
      gptvq_finetune_model_bytes(model, trained_bytes(t.packed), windows.count, windows.length, &settings),
      err));
  settings.embedding = plan->bits.embedding != 16 ? &t.packed->embedding : NULL;
  GPTVQ_TRY_GOTO(gptvq_finetune_model(model, t.blocks, t.final_norm, &windows, &settings, solver->callbacks,
                                      result, err));
  gptvq_log(solver->callbacks, GPTVQ_LOG_INFO,
            "fine-tuning: KL divergence on %s windows %.5f -> %.5f (best after %zu of %zu steps, %.0f s)",
            judges(&settings), result->before, result->after, result->best_step, result->steps,
            result->seconds);
  GPTVQ_TRY_GOTO(write_tuned(&t, out, plan, gptvq_method_name(o->method), err));
done:
  close_tuning(&t);
  return status;
}

gptvq_status gptvq_pipeline_take_tuned(const gptvq_output *out, const gptvq_tensor_plan *plan,
                                       gptvq_error *err) {
  char folder[GPTVQ_PATH_MAX], from[GPTVQ_PATH_MAX], to[GPTVQ_PATH_MAX], name[GPTVQ_SHARD_NAME];
  gptvq_output sub;
  GPTVQ_TRY(tuned_output(out, folder, &sub, err));
  for (size_t shard = 0; shard <= plan->blocks; shard++) {
    gptvq_shard_name(shard, plan->blocks + 1, name);
    GPTVQ_TRY(gptvq_output_path(&sub, name, from, err));
    GPTVQ_TRY(gptvq_output_path(out, name, to, err));
    if (gptvq_path_exists(from)) GPTVQ_TRY(gptvq_rename_path(from, to, err));
  }
  return gptvq_remove_subfolder(folder, err);
}
