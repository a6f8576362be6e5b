/* Fine-tuning of all blocks at once against the original model's next-token distribution. Weights and what a
 * backward pass needs are those of one block at a time; the inputs of all blocks are kept, so that each
 * block's forward pass is made again when the backward pass comes to it. */
#include "train/finetune.h"

#include "base/clock.h"
#include "base/memory.h"
#include "calib/sweep.h"
#include "model/layer/norm.h"
#include "model/workspace.h"
#include "train/head.h"
#include "train/pieces.h"

#include <math.h>
#include <string.h>

typedef struct whole {
  const gptvq_model *original;
  const gptvq_token_windows *windows;
  size_t layers, length, hidden, micro, batch;
  gptvq_dtype vector_dtype;
  gptvq_ft_dims *dims;     /* [layers] */
  float **rope;            /* [layers] tables, owned */
  gptvq_ft_params *params; /* [layers] */
  gptvq_ft_adam *adams;    /* [layers + 1]; the last for the final norm */
  float **best;            /* [layers + 1] */
  gptvq_ft_workspace workspace;
  size_t at;           /* the block in the workspace, with its weights; layers: none */
  gptvq_model student; /* the original with the embedding that the quantized model has */
  gptvq_ft_head head;
  gptvq_stream teacher; /* [windows][length × hidden]: the original's last hidden states, normalised */
  float *norm, *norm_theta, *norm_unit,
      *norm_gradient; /* [hidden]: the student's final norm, rounded; exact; … */
  float *inputs; /* [layers + 1][micro · length × hidden]: of the blocks; the last: of the final norm */
  float *normed, *taught, *gradient, *scale; /* [micro · length × hidden], scale [micro · length] */
  gptvq_arena memory;                        /* of these */
  gptvq_ft_windows split;
  double index_rate; /* of the current step; 0: indices stay */
  size_t passes;     /* backward passes so far */
} whole;

/* Final hidden states of all windows. Progress stands at no step done. */
static gptvq_status run_teacher(whole *w, const gptvq_finetune_options *options,
                                const gptvq_callbacks *callbacks, gptvq_error *err) {
  const gptvq_model *model = w->original;
  gptvq_sweep sweep = {.model = model,
                       .windows = w->windows->count,
                       .length = w->length,
                       .callbacks = callbacks,
                       .phase = "finetune",
                       .item = "",
                       .total = options->steps};
  gptvq_status status;
  GPTVQ_TRY(gptvq_workspace_create(model, 1, w->length, w->length, &sweep.workspace, err));
  GPTVQ_TRY_GOTO(gptvq_embed_windows(model, w->windows, NULL, &w->teacher, err));
  for (size_t b = 0; b < w->layers; b++) {
    const gptvq_pass pass = gptvq_whole_block(&model->blocks[b], &w->teacher, NULL, 0);
    GPTVQ_TRY_GOTO(gptvq_sweep_block(&sweep, &pass, 1, err));
    gptvq_block_rest(&model->blocks[b]);
  }
  for (size_t i = 0; i < w->windows->count; i++) {
    GPTVQ_TRY_GOTO(gptvq_stream_read(&w->teacher, i, w->taught, err));
    GPTVQ_TRY_GOTO(gptvq_final_norm(model, w->length, w->taught, w->normed, err)); /* checks what it reads */
    gptvq_ft_norm_forward(&w->dims[0], w->length, w->taught, model->final_norm, w->normed, w->scale);
    GPTVQ_TRY_GOTO(gptvq_stream_write(&w->teacher, i, w->normed, err));
  }
done:
  gptvq_workspace_destroy(sweep.workspace);
  return status;
}

/* ---- blocks, one at a time ---- */

static float *inputs_of(const whole *w, size_t block) {
  return w->inputs + block * w->micro * w->length * w->hidden;
}

/* The block's weights in the workspace; the pages that the one before was read from are given back. */
static gptvq_status lay_out(whole *w, size_t block, gptvq_error *err) {
  if (w->at == block) return GPTVQ_OK;
  if (w->at < w->layers) gptvq_block_rest(w->params[w->at].block);
  w->at = w->layers;
  GPTVQ_TRY(gptvq_ft_workspace_set(&w->workspace, &w->dims[block], err));
  gptvq_ft_params_fill(&w->params[block], &w->workspace.weights);
  w->at = block;
  return GPTVQ_OK;
}

static const float *forward(whole *w, size_t block, size_t tokens) {
  return gptvq_ft_forward(&w->dims[block], &w->workspace.weights, w->workspace.tape, tokens,
                          inputs_of(w, block));
}

typedef struct sink_context {
  whole *w;
  size_t block;
} sink_context;

static void take_gradient(void *context, gptvq_ft_matrix matrix, const float *gradient) {
  const sink_context *sink = context;
  gptvq_ft_params *params = &sink->w->params[sink->block];
  gptvq_ft_params_scatter(params, matrix, gradient);
  if (sink->w->index_rate > 0)
    gptvq_ft_indices_update(params, matrix, gradient, sink->w->index_rate, sink->w->passes);
}

/* From the gradient of the last block's outputs in w->gradient. The workspace is as the forward pass left it.
 */
static gptvq_status run_backward(whole *w, size_t tokens, gptvq_error *err) {
  w->passes++;
  for (size_t b = w->layers; b-- > 0;) {
    sink_context sink = {w, b};
    if (b + 1 < w->layers) {
      GPTVQ_TRY(lay_out(w, b, err));
      (void)forward(w, b, tokens);
    }
    gptvq_ft_backward(&w->dims[b], &w->workspace.weights, w->workspace.tape, w->gradient,
                      &w->params[b].vector_gradients, take_gradient, &sink, b > 0 ? w->gradient : NULL);
  }
  return GPTVQ_OK;
}

/* Runs windows list[0 … count) forward; adds up their tokens' divergences. With `weight` != 0 gradients are
 * added. */
static gptvq_status run_windows(whole *w, const size_t *list, size_t count, double weight, double *sum,
                                gptvq_error *err) {
  const size_t tokens = count * w->length, each = w->length * w->hidden;
  const float *last = inputs_of(w, w->layers);
  for (size_t i = 0; i < count; i++) {
    GPTVQ_TRY(gptvq_embed(&w->student, w->windows->tokens + list[i] * w->length, w->length,
                          inputs_of(w, 0) + i * each, err));
    GPTVQ_TRY(gptvq_stream_read(&w->teacher, list[i], w->taught + i * each, err));
  }
  for (size_t b = 0; b < w->layers; b++) {
    GPTVQ_TRY(lay_out(w, b, err));
    memcpy(inputs_of(w, b + 1), forward(w, b, tokens), tokens * w->hidden * sizeof(float));
  }
  gptvq_ft_norm_forward(&w->dims[0], tokens, last, w->norm, w->normed, w->scale);
  *sum += gptvq_ft_head_divergence(&w->head, tokens, w->normed, w->taught, weight, w->gradient);
  if (weight == 0.0) return GPTVQ_OK;
  gptvq_ft_norm_backward(&w->dims[0], tokens, last, w->norm, w->scale, w->gradient, NULL, w->norm_gradient,
                         w->gradient);
  return run_backward(w, tokens, err);
}

static gptvq_status evaluate(whole *w, double *divergence, gptvq_error *err) {
  const size_t *list = w->split.held_count > 0 ? w->split.held : w->split.training;
  size_t count = w->split.held_count > 0 ? w->split.held_count : w->split.training_count;
  double sum = 0;
  for (size_t i = 0; i < count; i += w->micro)
    GPTVQ_TRY(run_windows(w, list + i, gptvq_min_size(w->micro, count - i), 0.0, &sum, err));
  *divergence = sum / (double)(count * w->length);
  return GPTVQ_OK;
}

static void round_all(whole *w) {
  if (w->at < w->layers) gptvq_block_rest(w->params[w->at].block);
  for (size_t b = 0; b < w->layers; b++) gptvq_ft_params_round(&w->params[b], true);
  for (size_t i = 0; i < w->hidden; i++)
    w->norm[i] = gptvq_ft_round(w->vector_dtype, w->original->arch->norm_offset, w->norm_theta[i]);
  w->at = w->layers; /* what is in the workspace is of before */
}

static void keep_best(whole *w) {
  for (size_t b = 0; b < w->layers; b++) {
    memcpy(w->best[b], w->params[b].theta, w->params[b].count * sizeof(float));
    gptvq_ft_indices_keep(&w->params[b]);
  }
  memcpy(w->best[w->layers], w->norm_theta, w->hidden * sizeof(float));
}

/* ---- creation ---- */

/* Rotation tables are those of an earlier block that rotates alike. */
static gptvq_status describe_block(whole *w, const gptvq_block *blocks, size_t b, gptvq_error *err) {
  const gptvq_config *c = &w->original->config;
  w->dims[b] = gptvq_ft_dims_of(w->original, &blocks[b], w->length);
  for (size_t i = 0; i < b; i++) {
    if (w->dims[i].rotary != w->dims[b].rotary ||
        gptvq_config_rope(c, blocks[i].rope) != gptvq_config_rope(c, blocks[b].rope))
      continue;
    w->dims[b].cosine = w->dims[i].cosine;
    w->dims[b].sine = w->dims[i].sine;
    return GPTVQ_OK;
  }
  return gptvq_ft_dims_create(w->original, &blocks[b], w->length, &w->dims[b], &w->rope[b], err);
}

static gptvq_status create_block(whole *w, const gptvq_block *blocks, size_t b,
                                 const gptvq_finetune_options *options, gptvq_error *err) {
  GPTVQ_TRY(describe_block(w, blocks, b, err));
  GPTVQ_TRY(gptvq_ft_params_create(&w->dims[b], &blocks[b], w->vector_dtype, &w->params[b], err));
  if (options->index_rate > 0)
    GPTVQ_TRY(
        gptvq_ft_indices_create(&w->params[b], &w->original->blocks[b], (float)options->index_pull, err));
  gptvq_block_rest(&w->original->blocks[b]);
  GPTVQ_TRY(gptvq_ft_adam_create(w->params[b].count, &w->adams[b], err));
  if ((w->best[b] = gptvq_alloc(w->params[b].count, sizeof(float))) == NULL)
    return gptvq_fail_memory(err, "fine-tuning: the best parameters",
                             gptvq_saturated_size(w->params[b].count, sizeof(float)));
  return GPTVQ_OK;
}

static void take_arrays(gptvq_arena *arena, whole *w) {
  const size_t tokens = w->micro * w->length;
  float **const norms[] = {&w->norm, &w->norm_theta, &w->norm_unit, &w->norm_gradient};
  float **const states[] = {&w->normed, &w->taught, &w->gradient};
  for (size_t i = 0; i < sizeof norms / sizeof norms[0]; i++)
    *norms[i] = gptvq_arena_take(arena, w->hidden, sizeof(float));
  for (size_t i = 0; i < sizeof states / sizeof states[0]; i++)
    *states[i] = gptvq_arena_take(arena, tokens, w->hidden * sizeof(float));
  w->inputs = gptvq_arena_take(arena, w->layers + 1, gptvq_saturated_size(tokens, w->hidden * sizeof(float)));
  w->scale = gptvq_arena_take(arena, tokens, sizeof(float));
}

static gptvq_status create_arrays(whole *w, gptvq_error *err) {
  static const char name[] = "fine-tuning: the inputs of all blocks";
  gptvq_arena counted = {0};
  take_arrays(&counted, w);
  GPTVQ_TRY(gptvq_arena_create(&w->memory, counted.peak, name, err));
  take_arrays(&w->memory, w);
  return gptvq_arena_check(&w->memory, name, err);
}

static gptvq_status create(whole *w, const gptvq_block *blocks, const float *final_norm,
                           const gptvq_finetune_options *options, gptvq_error *err) {
  GPTVQ_TRY(gptvq_ft_windows_create(w->windows->count, options, &w->split, err));
  w->batch = gptvq_min_size(gptvq_max_size(options->batch, 1), w->split.training_count);
  w->dims = calloc(w->layers, sizeof *w->dims);
  w->rope = calloc(w->layers, sizeof *w->rope);
  w->params = calloc(w->layers, sizeof *w->params);
  w->adams = calloc(w->layers + 1, sizeof *w->adams);
  w->best = calloc(w->layers + 1, sizeof *w->best);
  if (w->dims == NULL || w->rope == NULL || w->params == NULL || w->adams == NULL || w->best == NULL)
    return gptvq_fail_memory(err, "fine-tuning: lists of blocks", w->layers * sizeof *w->params);
  for (size_t b = 0; b < w->layers; b++) GPTVQ_TRY(create_block(w, blocks, b, options, err));
  GPTVQ_TRY(gptvq_ft_adam_create(w->hidden, &w->adams[w->layers], err));
  if ((w->best[w->layers] = gptvq_alloc(w->hidden, sizeof(float))) == NULL)
    return gptvq_fail_memory(err, "fine-tuning: the best parameters", w->hidden * sizeof(float));
  GPTVQ_TRY(create_arrays(w, err));
  double sum = 0;
  for (size_t i = 0; i < w->hidden; i++) sum += (double)final_norm[i] * (double)final_norm[i];
  for (size_t i = 0; i < w->hidden; i++) {
    w->norm[i] = w->norm_theta[i] = final_norm[i];
    w->norm_unit[i] = (float)sqrt(sum / (double)w->hidden);
  }
  return gptvq_stream_create(w->windows->count, w->length * w->hidden, options->place,
                             "fine-tuning: the original's hidden states", &w->teacher, err);
}

/* What is not needed before the original has gone through. */
static gptvq_status create_student(whole *w, const gptvq_finetune_options *options, gptvq_error *err) {
  GPTVQ_TRY(gptvq_ft_head_create(w->original, options->head, options->compute, &w->head, err));
  w->at = w->layers;
  return gptvq_ft_workspace_create(w->dims, w->layers, w->micro * w->length, true, options->compute,
                                   &w->workspace, err);
}

static void release(whole *w) {
  for (size_t b = 0; b < w->layers; b++) {
    if (w->rope != NULL) free(w->rope[b]);
    if (w->params != NULL) gptvq_ft_params_release(&w->params[b]);
  }
  for (size_t b = 0; b <= w->layers; b++) {
    if (w->adams != NULL) gptvq_ft_adam_release(&w->adams[b]);
    if (w->best != NULL) free(w->best[b]);
  }
  free(w->dims);
  free((void *)w->rope);
  free(w->params);
  free(w->adams);
  free((void *)w->best);
  gptvq_arena_destroy(&w->memory);
  gptvq_stream_release(&w->teacher);
  gptvq_ft_head_release(&w->head);
  gptvq_ft_workspace_destroy(&w->workspace);
  gptvq_ft_windows_release(&w->split);
}

/* ---- training ---- */

static gptvq_status take_step(whole *w, double table_rate, double vector_rate, gptvq_error *err) {
  const size_t *list = gptvq_ft_windows_next(&w->split, w->batch);
  double sum = 0;
  for (size_t b = 0; b < w->layers; b++) gptvq_ft_params_begin(&w->params[b]);
  memset(w->norm_gradient, 0, w->hidden * sizeof(float));
  for (size_t i = 0; i < w->batch; i += w->micro)
    GPTVQ_TRY(run_windows(w, list + i, gptvq_min_size(w->micro, w->batch - i),
                          1.0 / (double)(w->batch * w->length), &sum, err));
  for (size_t b = 0; b < w->layers; b++) {
    gptvq_ft_params *p = &w->params[b];
    gptvq_ft_params_finish(p);
    gptvq_ft_adam_update(&w->adams[b], gptvq_ft_table_values(p), table_rate, vector_rate, p->unit,
                         p->gradient, p->theta);
  }
  gptvq_ft_adam_update(&w->adams[w->layers], 0, table_rate, vector_rate, w->norm_unit, w->norm_gradient,
                       w->norm_theta);
  return GPTVQ_OK;
}

static void go_back(whole *w) {
  for (size_t b = 0; b < w->layers; b++)
    memcpy(w->params[b].theta, w->best[b], w->params[b].count * sizeof(float));
  memcpy(w->norm_theta, w->best[w->layers], w->hidden * sizeof(float));
  for (size_t b = 0; b <= w->layers; b++) gptvq_ft_adam_restart(&w->adams[b]);
}

static gptvq_status train(whole *w, const gptvq_finetune_options *options, const gptvq_callbacks *callbacks,
                          gptvq_finetune_result *result, gptvq_error *err) {
  gptvq_ft_looks looks = {.slower = 1.0};
  keep_best(w);
  GPTVQ_TRY(evaluate(w, &result->before, err));
  result->after = result->before;
  if (!isfinite(result->before))
    return gptvq_fail(
        err, GPTVQ_ERROR_NUMERIC,
        "fine-tuning: NaN or infinity in the predictions of the original or of the quantized model");
  for (size_t step = 0; step < options->steps; step++) {
    if (step > 0) round_all(w);
    double factor = looks.slower * gptvq_ft_schedule(step, options->steps), divergence;
    w->index_rate = factor * options->index_rate;
    GPTVQ_TRY(take_step(w, factor * options->table_rate, factor * options->vector_rate, err));
    result->steps = step + 1;
    if ((step + 1) % gptvq_max_size(options->evaluate_every, 1) != 0 && step + 1 != options->steps) continue;
    round_all(w);
    GPTVQ_TRY(evaluate(w, &divergence, err));
    GPTVQ_TRY(gptvq_report_progress(callbacks, "finetune", "", step + 1, options->steps, divergence, err));
    const gptvq_ft_look look = gptvq_ft_judge(&looks, options, divergence, result);
    if (look == GPTVQ_FT_OVER) break;
    if (look == GPTVQ_FT_BETTER) keep_best(w);
    else if (options->index_rate == 0.0) go_back(w);
  }
  return GPTVQ_OK;
}

static size_t windows_at_once(const gptvq_finetune_options *options, size_t length) {
  return gptvq_min_size(gptvq_max_size(1, options->max_tokens / length), gptvq_max_size(options->batch, 1));
}

size_t gptvq_finetune_model_bytes(const gptvq_model *original, double linears, size_t windows, size_t length,
                                  const gptvq_finetune_options *options) {
  const gptvq_config *c = &original->config;
  whole w = {.layers = c->layers, .length = length, .hidden = c->hidden};
  gptvq_arena counted = {0};
  size_t workspace = 0;
  double vectors = (double)w.hidden, indices = 0;
  w.micro = windows_at_once(options, length);
  take_arrays(&counted, &w);
  for (size_t b = 0; b < c->layers; b++) {
    const gptvq_ft_dims dims = gptvq_ft_dims_of(original, &original->blocks[b], length);
    workspace =
        gptvq_max_size(workspace, gptvq_ft_workspace_bytes(&dims, w.micro * length, true, options->compute));
    vectors += (double)gptvq_ft_vector_values(&dims);
    indices += gptvq_ft_index_bytes(&original->blocks[b], options);
  }
  const double teacher = options->place.folder != NULL
                             ? 0.0
                             : (double)gptvq_stream_bytes(windows, length * c->hidden, options->place.half);
  const double student =
      (double)workspace + (double)gptvq_ft_head_bytes(original, options->head != NULL, options->compute);
  const double sweep = (double)gptvq_sweep_bytes(length, c->hidden, 1, 0) +
                       (double)gptvq_workspace_bytes(original, 1, length, length);
  const double bytes = linears + GPTVQ_FT_VALUE_BYTES * vectors + indices + (double)counted.peak + teacher +
                       fmax(student, sweep);
  return bytes < 9e18 ? (size_t)bytes : SIZE_MAX;
}

gptvq_status gptvq_finetune_model(const gptvq_model *original, gptvq_block *blocks, float *final_norm,
                                  const gptvq_token_windows *windows, const gptvq_finetune_options *options,
                                  const gptvq_callbacks *callbacks, gptvq_finetune_result *result,
                                  gptvq_error *err) {
  const double start = gptvq_clock();
  *result = (gptvq_finetune_result){0};
  whole w = {.original = original,
             .student = *original,
             .windows = windows,
             .layers = original->config.layers,
             .length = windows->length,
             .hidden = original->config.hidden,
             .micro = windows_at_once(options, windows->length),
             .vector_dtype = options->vector_dtype};
  if (options->embedding != NULL) w.student.embedding = *options->embedding;
  gptvq_status status = create(&w, blocks, final_norm, options, err);
  if (status == GPTVQ_OK) status = run_teacher(&w, options, callbacks, err);
  if (status == GPTVQ_OK) status = create_student(&w, options, err);
  if (status == GPTVQ_OK) status = train(&w, options, callbacks, result, err);
  if (status == GPTVQ_OK && result->best_step > 0) {
    for (size_t b = 0; b < w.layers; b++) {
      memcpy(w.params[b].theta, w.best[b], w.params[b].count * sizeof(float));
      gptvq_ft_indices_restore(&w.params[b]);
      gptvq_ft_params_store(&w.params[b]);
    }
    for (size_t i = 0; i < w.hidden; i++)
      final_norm[i] = gptvq_ft_round(w.vector_dtype, original->arch->norm_offset, w.best[w.layers][i]);
  }
  release(&w);
  result->seconds = gptvq_clock() - start;
  return status;
}
