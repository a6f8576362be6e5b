/* Fine-tuning inside gptvq_quantize: the packed folder is read back, its codebooks and norms are copied to where they can be changed,
 * and the shards are written anew. */
#include "quant/pipeline.h"
#include "base/file.h"
#include "base/memory.h"
#include "quant/finetune.h"
#include "quant/resume.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct tuning {
  const gptvq_model *model;
  gptvq_model *packed;
  gptvq_block *blocks; /* [layers] */
  float *final_norm;
  void **owned;        /* every copy below */
  size_t owned_count;
} tuning;

static gptvq_status copy_bytes(tuning *t, const void **place, size_t bytes, gptvq_error *err) {
  if (*place == NULL || bytes == 0) return GPTVQ_OK;
  void *copy = gptvq_alloc(bytes, 1);
  if (copy == NULL) return gptvq_fail_memory(err, "fine-tuning: codebooks", bytes);
  t->owned[t->owned_count++] = copy;
  memcpy(copy, *place, bytes);
  *place = copy;
  return GPTVQ_OK;
}

static gptvq_status copy_floats(tuning *t, const float **place, size_t count, gptvq_error *err) {
  const void *bytes = *place;
  gptvq_status status = copy_bytes(t, &bytes, count * sizeof(float), err);
  *place = bytes;
  return status;
}

static gptvq_status copy_block(tuning *t, const gptvq_block *from, gptvq_block *to, gptvq_error *err) {
  const gptvq_config *c = &t->model->config;
  GPTVQ_TRY(gptvq_block_copy(from, to, err));
  t->owned[t->owned_count++] = to->linears;
  GPTVQ_TRY(copy_floats(t, &to->attention_norm, c->hidden, err));
  GPTVQ_TRY(copy_floats(t, &to->mlp_norm, c->hidden, err));
  GPTVQ_TRY(copy_floats(t, &to->q_norm, c->head_dim, err));
  GPTVQ_TRY(copy_floats(t, &to->k_norm, c->head_dim, err));
  for (size_t i = 0; i < to->linear_count; i++) {
    gptvq_linear *linear = &to->linears[i];
    gptvq_packed *packed = &linear->packed;
    gptvq_packed_sizes sizes;
    GPTVQ_TRY(copy_floats(t, &linear->bias, linear->rows, err));
    if (!linear->is_packed) continue;
    gptvq_packed_measure(&packed->shape, &sizes);
    const void *scales = packed->codebook_scales, *uniform = packed->scales;
    GPTVQ_TRY(copy_bytes(t, &packed->codebooks, sizes.codebook_bytes, err));
    GPTVQ_TRY(copy_bytes(t, &scales, sizes.codebook_scales * sizeof(uint16_t), err));
    GPTVQ_TRY(copy_bytes(t, &uniform, sizes.uniform_scales * sizeof(uint16_t), err));
    packed->codebook_scales = scales;
    packed->scales = uniform;
  }
  return GPTVQ_OK;
}

static gptvq_status open_tuning(tuning *t, const gptvq_output *out, gptvq_error *err) {
  GPTVQ_TRY(gptvq_model_open(out->work, NULL, &t->packed, err));
  size_t layers = t->model->config.layers, slots = 2;
  for (size_t b = 0; b < layers; b++) slots += 5 + 4 * t->packed->blocks[b].linear_count;
  t->blocks = calloc(layers, sizeof *t->blocks);
  t->owned = calloc(slots, sizeof *t->owned);
  if (t->blocks == NULL || t->owned == NULL) return gptvq_fail_memory(err, "fine-tuning: blocks", layers * sizeof *t->blocks);
  for (size_t b = 0; b < layers; b++) GPTVQ_TRY(copy_block(t, &t->packed->blocks[b], &t->blocks[b], err));
  const float *norm = t->packed->final_norm;
  GPTVQ_TRY(copy_floats(t, &norm, t->model->config.hidden, err));
  t->final_norm = (float *)norm;
  return GPTVQ_OK;
}

static void close_tuning(tuning *t) {
  for (size_t i = 0; i < t->owned_count; i++) free(t->owned[i]);
  free(t->owned);
  free(t->blocks);
  gptvq_model_close(t->packed);
}

/* Precision of the norms in the files, which fine-tuning keeps. */
static gptvq_dtype norm_dtype(const gptvq_model *model) {
  const gptvq_tensor *tensor = gptvq_checkpoint_find(model->checkpoint, "model.norm.weight");
  if (tensor != NULL && tensor->type == GPTVQ_T_BF16) return GPTVQ_BF16;
  return tensor != NULL && tensor->type == GPTVQ_T_F16 ? GPTVQ_F16 : GPTVQ_F32;
}

static gptvq_status tuned_output(const gptvq_output *out, char folder[GPTVQ_PATH_MAX], gptvq_output *sub, gptvq_error *err) {
  GPTVQ_TRY(gptvq_output_path(out, "finetuned", folder, err));
  *sub = (gptvq_output){.path = folder, .work = folder, .lock = -1};
  return GPTVQ_OK;
}

static gptvq_status write_tuned(const tuning *t, const gptvq_output *out, const gptvq_tensor_plan *plan, const char *method,
                                gptvq_error *err) {
  char folder[GPTVQ_PATH_MAX];
  gptvq_output sub;
  GPTVQ_TRY(tuned_output(out, folder, &sub, err));
  GPTVQ_TRY(gptvq_remove_tree(folder, err)); /* what an interrupted run left */
  GPTVQ_TRY(gptvq_make_folder(folder, err));
  size_t layer = 0;
  for (size_t b = 0; b < plan->blocks; b++) {
    const gptvq_block *block = &t->blocks[b];
    gptvq_tuned tuned = {.block = block};
    gptvq_layer_result *results = calloc(block->linear_count, sizeof *results);
    if (results == NULL) return gptvq_fail_memory(err, "a block", block->linear_count * sizeof *results);
    for (size_t i = 0; i < block->linear_count; i++) {
      gptvq_layer_info info;
      gptvq_model_get_layer(t->packed, layer++, &info);
      results[i].packed = block->linears[i].packed;
      results[i].error = info.error;
    }
    gptvq_status status = gptvq_write_shard(&sub, t->model, plan, b, results, method, &tuned, err);
    free(results);
    GPTVQ_TRY(status);
  }
  gptvq_tuned rest = {.final_norm = t->final_norm};
  return gptvq_write_shard(&sub, t->model, plan, plan->blocks, NULL, NULL, &rest, err);
}

static gptvq_status check_memory(size_t bytes, gptvq_error *err) {
  long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  if (pages > 0 && page > 0 && bytes / (size_t)page >= (size_t)pages)
    return gptvq_fail(err, GPTVQ_ERROR_MEMORY,
                      "fine-tuning the whole model takes about %.1f GB, more than this machine's memory: leave it out "
                      "(--finetune-steps 0) or use a larger machine",
                      (double)bytes * 1e-9);
  return GPTVQ_OK;
}

gptvq_status gptvq_pipeline_finetune(const gptvq_model *model, const gptvq_output *out, const gptvq_tensor_plan *plan,
                                     const gptvq_quantize_options *options, const gptvq_calibration *calibration,
                                     const gptvq_callbacks *callbacks, double *before, double *after, gptvq_error *err) {
  tuning t = {.model = model};
  gptvq_finetune_options settings;
  gptvq_finetune_result result = {0};
  gptvq_status status;
  gptvq_finetune_options_init(&settings);
  settings.steps = options->finetune_steps;
  settings.batch = options->finetune_batch;
  settings.table_rate = settings.vector_rate = options->finetune_rate;
  settings.holdout = gptvq_ceil_div(calibration->samples, 8);
  settings.seed = options->seed;
  GPTVQ_TRY(check_memory(gptvq_finetune_model_bytes(model, calibration->samples, calibration->length, &settings), err));
  GPTVQ_TRY_GOTO(open_tuning(&t, out, err));
  GPTVQ_TRY_GOTO(gptvq_finetune_model(model, t.blocks, t.final_norm, norm_dtype(model), calibration->samples,
                                      calibration->length, calibration->tokens, &settings, callbacks, &result, err));
  *before = result.before;
  *after = result.after;
  gptvq_log(callbacks, GPTVQ_LOG_INFO, "fine-tuning: KL divergence on held-out windows %.5f -> %.5f (best after %zu of %zu steps, %.0f s)",
            result.before, result.after, result.best_step, result.steps, result.seconds);
  GPTVQ_TRY_GOTO(write_tuned(&t, out, plan, gptvq_method_name(options->method), err));
done:
  close_tuning(&t);
  return status;
}

gptvq_status gptvq_pipeline_take_tuned(const gptvq_output *out, const gptvq_tensor_plan *plan, gptvq_error *err) {
  char folder[GPTVQ_PATH_MAX], from[GPTVQ_PATH_MAX], to[GPTVQ_PATH_MAX], name[GPTVQ_SHARD_NAME];
  gptvq_output sub;
  GPTVQ_TRY(tuned_output(out, folder, &sub, err));
  for (size_t shard = 0; shard <= plan->blocks; shard++) {
    gptvq_shard_name(plan, shard, name);
    GPTVQ_TRY(gptvq_output_path(&sub, name, from, err));
    GPTVQ_TRY(gptvq_output_path(out, name, to, err));
    if (gptvq_path_exists(from)) GPTVQ_TRY(gptvq_rename_path(from, to, err));
  }
  return gptvq_remove_tree(folder, err);
}
