/* Fine-tuning of all blocks at once against the original model's next-token distribution. */
#include "train/finetune.h"

#include "base/clock.h"
#include "base/memory.h"
#include "base/threads.h"
#include "calib/sweep.h"
#include "linalg/gemm.h"
#include "model/layer/norm.h"
#include "train/pieces.h"

#include <math.h>
#include <string.h>

enum { HEAD_TOKENS = 256 }; /* tokens whose logits are in memory at a time */

typedef struct whole {
  const gptvq_model *original;
  size_t layers, length, hidden, vocab, micro, batch;
  const int32_t *tokens;
  gptvq_dtype vector_dtype;
  gptvq_ft_dims *dims;     /* [layers] */
  float **rope;            /* [layers] tables, owned */
  gptvq_ft_params *params; /* [layers] */
  gptvq_ft_adam *adams;    /* [layers + 1]; the last for the final norm */
  gptvq_ft_tape **tapes;   /* [layers] */
  float **best;            /* [layers + 1] */
  gptvq_model student;     /* the original with the embedding that the quantized model has */
  float *head;             /* [vocab × hidden] fp32 */
  float *student_head;     /* the same of the quantized model; NULL: the original's */
  float *teacher;          /* [windows · length × hidden]: the original's last hidden states, normalised */
  float *norm, *norm_theta, *norm_unit,
      *norm_gradient;                   /* [hidden]: the student's final norm, rounded; exact; … */
  float *x, *normed, *gradient, *scale; /* [micro · length × hidden], scale [micro · length] */
  float *logits, *teacher_logits;       /* [HEAD_TOKENS × vocab] */
  double *losses;                       /* [HEAD_TOKENS] */
  gptvq_ft_windows split;
  double index_rate; /* of the current step; 0: indices stay */
  size_t passes;     /* backward passes so far */
} whole;

/* Final hidden states of all windows. Progress stands at no step done. */
static gptvq_status run_teacher(whole *w, size_t windows, const gptvq_finetune_options *options,
                                const gptvq_callbacks *callbacks, gptvq_error *err) {
  const gptvq_model *model = w->original;
  gptvq_sweep sweep = {.model = model,
                       .windows = windows,
                       .length = w->length,
                       .callbacks = callbacks,
                       .phase = "finetune",
                       .item = "",
                       .total = options->steps};
  const gptvq_stream teacher = gptvq_stream_over(windows, w->length * w->hidden, w->teacher);
  gptvq_status status;
  GPTVQ_TRY(gptvq_workspace_create(model, 1, w->length, w->length, &sweep.workspace, err));
  GPTVQ_TRY_GOTO(gptvq_embed(model, w->tokens, windows * w->length, w->teacher, err));
  for (size_t b = 0; b < w->layers; b++) {
    const gptvq_pass pass = gptvq_whole_block(&model->blocks[b], &teacher, NULL, 0);
    GPTVQ_TRY_GOTO(gptvq_sweep_block(&sweep, &pass, 1, err));
  }
  for (size_t i = 0; i < windows; i++) {
    size_t values = w->length * w->hidden;
    float *out = w->teacher + i * values;
    memcpy(w->x, out, values * sizeof *out);
    GPTVQ_TRY_GOTO(gptvq_final_norm(model, w->length, w->x, out, err)); /* checks x */
    gptvq_ft_norm_forward(&w->dims[0], w->length, w->x, model->final_norm, out, w->scale);
  }
done:
  gptvq_workspace_destroy(sweep.workspace);
  return status;
}

typedef struct head_job {
  whole *w;
  double scale;
} head_job;

/* Turns one row of scores into log-probabilities; returns what was subtracted. */
static float log_softmax(float *row, size_t n) {
  float max = row[0];
  for (size_t i = 1; i < n; i++) max = row[i] > max ? row[i] : max;
  double sum = 0;
  for (size_t i = 0; i < n; i++) sum += (double)gptvq_ft_exp(row[i] - max);
  float shift = max + (float)log(sum);
  for (size_t i = 0; i < n; i++) row[i] -= shift;
  return shift;
}

/* losses[token] = KL(teacher ‖ student); logits become scale · dKL/dlogits = scale · (student − teacher). */
static void divergence_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const head_job *job = context;
  size_t n = job->w->vocab;
  const float cap = (float)job->w->original->config.logit_cap;
  for (size_t token = begin; token < end; token++) {
    float *student = job->w->logits + token * n, *teacher = job->w->teacher_logits + token * n;
    float shift = log_softmax(student, n);
    (void)log_softmax(teacher, n);
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
      float p = gptvq_ft_exp(teacher[i]), q = gptvq_ft_exp(student[i]);
      sum += (double)p * ((double)teacher[i] - (double)student[i]);
      student[i] = (float)job->scale * (q - p) * gptvq_ft_cap_slope(cap, student[i] + shift);
    }
    job->w->losses[token] = sum;
  }
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

/* Runs windows list[0 … count) forward; returns the sum of their tokens' divergences. With `scale` != 0
 * gradients are added. */
static gptvq_status run_windows(whole *w, const size_t *list, size_t count, double scale, double *sum,
                                gptvq_error *err) {
  size_t tokens = count * w->length, each = w->length * w->hidden;
  const float logit_scale = (float)w->original->config.logit_scale,
              *student_head = w->student_head != NULL ? w->student_head : w->head;
  for (size_t i = 0; i < count; i++)
    GPTVQ_TRY(gptvq_embed(&w->student, w->tokens + list[i] * w->length, w->length, w->x + i * each, err));
  const float *x = w->x;
  for (size_t b = 0; b < w->layers; b++)
    x = gptvq_ft_forward(&w->dims[b], &w->params[b].weights, w->tapes[b], tokens, x);
  gptvq_ft_norm_forward(&w->dims[0], tokens, x, w->norm, w->normed, w->scale);
  for (size_t first = 0; first < tokens; first += HEAD_TOKENS) {
    size_t n = gptvq_min_size(HEAD_TOKENS, tokens - first), done = 0;
    gptvq_gemm_nt(n, w->vocab, w->hidden, logit_scale, w->normed + first * w->hidden, w->hidden, student_head,
                  w->hidden, 0.0f, w->logits, w->vocab);
    while (done < n) { /* the teacher's rows lie together window by window */
      size_t at = first + done, window = at / w->length, inside = at % w->length;
      size_t rows = gptvq_min_size(n - done, w->length - inside);
      gptvq_gemm_nt(rows, w->vocab, w->hidden, logit_scale,
                    w->teacher + (list[window] * w->length + inside) * w->hidden, w->hidden, w->head,
                    w->hidden, 0.0f, w->teacher_logits + done * w->vocab, w->vocab);
      done += rows;
    }
    if (w->original->config.logit_cap > 0.0) {
      gptvq_cap_values(n * w->vocab, (float)w->original->config.logit_cap, w->logits);
      gptvq_cap_values(n * w->vocab, (float)w->original->config.logit_cap, w->teacher_logits);
    }
    head_job job = {w, scale};
    gptvq_parallel_for(n, 4, divergence_task, &job);
    for (size_t i = 0; i < n; i++) *sum += w->losses[i];
    if (scale != 0.0)
      gptvq_gemm_nn(n, w->hidden, w->vocab, logit_scale, w->logits, w->vocab, student_head, w->hidden, 0.0f,
                    w->gradient + first * w->hidden, w->hidden);
  }
  if (scale == 0.0) return GPTVQ_OK;
  gptvq_ft_norm_backward(&w->dims[0], tokens, x, w->norm, w->scale, w->gradient, NULL, w->norm_gradient,
                         w->gradient);
  w->passes++;
  for (size_t b = w->layers; b-- > 0;) {
    sink_context sink = {w, b};
    gptvq_ft_backward(&w->dims[b], &w->params[b].weights, w->tapes[b], w->gradient,
                      &w->params[b].vector_gradients, take_gradient, &sink, b > 0 ? w->gradient : NULL);
  }
  return GPTVQ_OK;
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

static void build(whole *w) {
  for (size_t b = 0; b < w->layers; b++) gptvq_ft_params_build(&w->params[b], true);
  for (size_t i = 0; i < w->hidden; i++)
    w->norm[i] = gptvq_ft_round(w->vector_dtype, w->original->arch->norm_offset, w->norm_theta[i]);
}

static void keep_best(whole *w) {
  for (size_t b = 0; b < w->layers; b++) {
    memcpy(w->best[b], w->params[b].theta, w->params[b].count * sizeof(float));
    gptvq_ft_indices_keep(&w->params[b]);
  }
  memcpy(w->best[w->layers], w->norm_theta, w->hidden * sizeof(float));
}

static gptvq_status create(whole *w, gptvq_block *blocks, const float *final_norm, size_t windows,
                           const gptvq_finetune_options *options, gptvq_error *err) {
  size_t tokens = w->micro * w->length;
  GPTVQ_TRY(gptvq_ft_windows_create(windows, options, &w->split, err));
  w->batch = gptvq_min_size(gptvq_max_size(options->batch, 1), w->split.training_count);
  w->dims = calloc(w->layers, sizeof *w->dims);
  w->rope = calloc(w->layers, sizeof *w->rope);
  w->params = calloc(w->layers, sizeof *w->params);
  w->adams = calloc(w->layers + 1, sizeof *w->adams);
  w->tapes = calloc(w->layers, sizeof *w->tapes);
  w->best = calloc(w->layers + 1, sizeof *w->best);
  if (w->dims == NULL || w->rope == NULL || w->params == NULL || w->adams == NULL || w->tapes == NULL ||
      w->best == NULL)
    return gptvq_fail_memory(err, "fine-tuning: lists of blocks", w->layers * sizeof *w->params);
  for (size_t b = 0; b < w->layers; b++) {
    GPTVQ_TRY(gptvq_ft_dims_create(w->original, &blocks[b], w->length, &w->dims[b], &w->rope[b], err));
    GPTVQ_TRY(gptvq_ft_params_create(&w->dims[b], &blocks[b], w->vector_dtype, &w->params[b], err));
    if (options->index_rate > 0)
      GPTVQ_TRY(
          gptvq_ft_indices_create(&w->params[b], &w->original->blocks[b], (float)options->index_pull, err));
    GPTVQ_TRY(gptvq_ft_adam_create(w->params[b].count, &w->adams[b], err));
    GPTVQ_TRY(gptvq_ft_tape_create(&w->dims[b], tokens, true, &w->tapes[b], err));
    if ((w->best[b] = gptvq_alloc(w->params[b].count, sizeof(float))) == NULL)
      return gptvq_fail_memory(err, "fine-tuning: the best parameters", w->params[b].count * sizeof(float));
  }
  GPTVQ_TRY(gptvq_ft_adam_create(w->hidden, &w->adams[w->layers], err));
  struct {
    float **place;
    size_t floats;
  } parts[] = {{&w->best[w->layers], w->hidden},
               {&w->head, w->vocab * w->hidden},
               {&w->student_head, options->head != NULL ? w->vocab * w->hidden : 0},
               {&w->teacher, windows * w->length * w->hidden},
               {&w->norm, w->hidden},
               {&w->norm_theta, w->hidden},
               {&w->norm_unit, w->hidden},
               {&w->norm_gradient, w->hidden},
               {&w->x, tokens * w->hidden},
               {&w->normed, tokens * w->hidden},
               {&w->gradient, tokens * w->hidden},
               {&w->scale, tokens},
               {&w->logits, HEAD_TOKENS * w->vocab},
               {&w->teacher_logits, HEAD_TOKENS * w->vocab}};
  size_t total = 0;
  bool failed = (w->losses = gptvq_alloc(HEAD_TOKENS, sizeof(double))) == NULL;
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
    total += gptvq_saturated_size(parts[i].floats, sizeof(float));
    if (parts[i].floats > 0 && (*parts[i].place = gptvq_alloc(parts[i].floats, sizeof(float))) == NULL)
      failed = true;
  }
  if (failed) return gptvq_fail_memory(err, "fine-tuning: the model's head and hidden states", total);
  gptvq_linear_decode(&w->original->head, w->head);
  if (options->head != NULL) gptvq_linear_decode(options->head, w->student_head);
  double sum = 0;
  for (size_t i = 0; i < w->hidden; i++) sum += (double)final_norm[i] * (double)final_norm[i];
  for (size_t i = 0; i < w->hidden; i++) {
    w->norm[i] = w->norm_theta[i] = final_norm[i];
    w->norm_unit[i] = (float)sqrt(sum / (double)w->hidden);
  }
  return GPTVQ_OK;
}

static void release(whole *w) {
  for (size_t b = 0; b < w->layers; b++) {
    if (w->rope != NULL) free(w->rope[b]);
    if (w->params != NULL) gptvq_ft_params_release(&w->params[b]);
    if (w->tapes != NULL) gptvq_ft_tape_destroy(w->tapes[b]);
  }
  for (size_t b = 0; b <= w->layers; b++) {
    if (w->adams != NULL) gptvq_ft_adam_release(&w->adams[b]);
    if (w->best != NULL) free(w->best[b]);
  }
  void *parts[] = {w->dims,   w->rope,        w->params,   w->adams,      w->tapes,     w->best,
                   w->head,   w->teacher,     w->norm,     w->norm_theta, w->norm_unit, w->norm_gradient,
                   w->x,      w->normed,      w->gradient, w->scale,      w->logits,    w->teacher_logits,
                   w->losses, w->student_head};
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) free(parts[i]);
  gptvq_ft_windows_release(&w->split);
}

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

static gptvq_status train(whole *w, const gptvq_finetune_options *options, const gptvq_callbacks *callbacks,
                          gptvq_finetune_result *result, gptvq_error *err) {
  size_t stale = 0;
  GPTVQ_TRY(evaluate(w, &result->before, err));
  result->after = result->before;
  if (!isfinite(result->before))
    return gptvq_fail(
        err, GPTVQ_ERROR_NUMERIC,
        "fine-tuning: NaN or infinity in the predictions of the original or of the quantized model");
  for (size_t step = 0; step < options->steps; step++) {
    if (step > 0) build(w);
    double factor = gptvq_ft_schedule(step, options->steps), divergence;
    w->index_rate = factor * options->index_rate;
    GPTVQ_TRY(take_step(w, factor * options->table_rate, factor * options->vector_rate, err));
    result->steps = step + 1;
    if ((step + 1) % gptvq_max_size(options->evaluate_every, 1) != 0 && step + 1 != options->steps) continue;
    build(w);
    GPTVQ_TRY(evaluate(w, &divergence, err));
    GPTVQ_TRY(gptvq_report_progress(callbacks, "finetune", "", step + 1, options->steps, divergence, err));
    if (divergence < result->after) {
      result->after = divergence;
      result->best_step = step + 1;
      keep_best(w);
      stale = 0;
    } else if (++stale >= options->patience) break;
  }
  return GPTVQ_OK;
}

static size_t windows_at_once(const gptvq_finetune_options *options, size_t length) {
  return gptvq_min_size(gptvq_max_size(1, options->max_tokens / length), gptvq_max_size(options->batch, 1));
}

size_t gptvq_finetune_model_bytes(const gptvq_model *original, size_t windows, size_t length,
                                  const gptvq_finetune_options *options) {
  const gptvq_config *c = &original->config;
  size_t tokens = windows_at_once(options, length) * length;
  double tapes = 0;
  for (size_t b = 0; b < c->layers; b++) {
    const gptvq_ft_dims dims = gptvq_ft_dims_of(original, &original->blocks[b], length);
    tapes += (double)gptvq_ft_tape_bytes(&dims, tokens, true);
  }
  double bytes =
      (double)original->info.linear_values *
          (options->index_rate > 0 ? 20.0 : 6.0) + /* weights, indices, shadow values */
      tapes +
      sizeof(float) *
          ((double)windows * (double)length * (double)c->hidden + 3.0 * (double)tokens * (double)c->hidden +
           (double)c->vocab * (double)((options->head != NULL ? 2 : 1) * c->hidden + 2 * HEAD_TOKENS));
  return bytes < 9e18 ? (size_t)bytes : SIZE_MAX;
}

gptvq_status gptvq_finetune_model(const gptvq_model *original, gptvq_block *blocks, float *final_norm,
                                  const gptvq_token_windows *windows, const gptvq_finetune_options *options,
                                  const gptvq_callbacks *callbacks, gptvq_finetune_result *result,
                                  gptvq_error *err) {
  const double start = gptvq_clock();
  *result = (gptvq_finetune_result){0};
  const gptvq_config *c = &original->config;
  whole w = {.original = original,
             .student = *original,
             .layers = c->layers,
             .length = windows->length,
             .hidden = c->hidden,
             .vocab = c->vocab,
             .micro = windows_at_once(options, windows->length),
             .tokens = windows->tokens,
             .vector_dtype = options->vector_dtype};
  if (options->embedding != NULL) w.student.embedding = *options->embedding;
  gptvq_status status = create(&w, blocks, final_norm, windows->count, options, err);
  if (status == GPTVQ_OK) status = run_teacher(&w, windows->count, options, callbacks, err);
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
