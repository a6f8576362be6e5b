#include "train/finetune.h"

#include "base/memory.h"
#include "base/threads.h"
#include "train/train.h"

#include <math.h>
#include <string.h>

void gptvq_finetune_options_init(gptvq_finetune_options *options) {
  *options = (gptvq_finetune_options){.steps = 200,
                                      .batch = 8,
                                      .holdout = 16,
                                      .evaluate_every = 20,
                                      .patience = 5,
                                      .table_rate = 0.004,
                                      .vector_rate = 0.002,
                                      .index_pull = 0.4,
                                      .max_tokens = 4096,
                                      .compute = GPTVQ_COMPUTE_FP32,
                                      .seed = 0};
}

typedef struct trainer {
  gptvq_ft_params *params;
  const gptvq_ft_dims *dims;
  const gptvq_stream *inputs, *targets;
  size_t windows, micro; /* micro: windows that go through the block at once */
  gptvq_ft_workspace workspace;
  float *x, *target, *gradient; /* [micro · length × hidden] */
  double *losses;               /* [micro · length] */
  double weight; /* of a squared error: one over the mean squared deviation of the targets, per window */
  gptvq_ft_windows split;
  double index_rate; /* of the current step */
  size_t passes;     /* backward passes so far */
} trainer;

typedef struct row_job {
  trainer *t;
  const float *out;
  double scale; /* of the gradient */
} row_job;

/* losses[token] = ‖out − target‖², gradient = 2 · scale · (out − target) */
static void loss_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const row_job *job = context;
  size_t hidden = job->t->dims->hidden;
  for (size_t token = begin; token < end; token++) {
    double sum = 0;
    for (size_t i = token * hidden; i < (token + 1) * hidden; i++) {
      double difference = (double)job->out[i] - (double)job->t->target[i];
      sum += difference * difference;
      job->t->gradient[i] = (float)(2.0 * job->scale * difference);
    }
    job->t->losses[token] = sum;
  }
}

/* Gathers windows list[0 … count), runs them, leaves losses and gradients; adds the squared errors to *sum.
 */
static gptvq_status run_windows(trainer *t, const size_t *list, size_t count, double scale, double *sum,
                                gptvq_error *err) {
  size_t each = t->dims->length * t->dims->hidden, tokens = count * t->dims->length;
  for (size_t i = 0; i < count; i++) {
    GPTVQ_TRY(gptvq_stream_read(t->inputs, list[i], t->x + i * each, err));
    GPTVQ_TRY(gptvq_stream_read(t->targets, list[i], t->target + i * each, err));
  }
  row_job job = {t, gptvq_ft_forward(t->dims, &t->workspace.weights, t->workspace.tape, tokens, t->x), scale};
  gptvq_parallel_for(tokens, 16, loss_task, &job);
  double own = 0;
  for (size_t i = 0; i < tokens; i++) own += t->losses[i];
  *sum += own;
  return GPTVQ_OK;
}

/* Relative error over the held-out windows. */
static gptvq_status evaluate(trainer *t, double *error, gptvq_error *err) {
  const size_t *list = t->split.held_count > 0 ? t->split.held : t->split.training;
  size_t count = t->split.held_count > 0 ? t->split.held_count : t->split.training_count;
  double sum = 0;
  for (size_t i = 0; i < count; i += t->micro)
    GPTVQ_TRY(run_windows(t, list + i, gptvq_min_size(t->micro, count - i), 0.0, &sum, err));
  *error = sum * t->weight / (double)count;
  return GPTVQ_OK;
}

/* One over the targets' squared deviation from their mean, per window. Also finds NaN. */
static gptvq_status measure_targets(trainer *t, gptvq_error *err) {
  size_t hidden = t->dims->hidden, length = t->dims->length;
  double total = 0, *sums = gptvq_alloc_zero(hidden, 2 * sizeof *sums), *squares = sums + hidden;
  if (sums == NULL)
    return gptvq_fail_memory(err, "fine-tuning: means", gptvq_saturated_size(hidden, 2 * sizeof *sums));
  gptvq_status status = GPTVQ_OK;
  for (size_t w = 0; w < t->windows && status == GPTVQ_OK; w++) {
    status = gptvq_stream_read(t->targets, w, t->target, err);
    for (size_t token = 0; token < length && status == GPTVQ_OK; token++)
      for (size_t i = 0; i < hidden; i++) {
        double x = (double)t->target[token * hidden + i];
        sums[i] += x;
        squares[i] += x * x;
      }
  }
  for (size_t i = 0; i < hidden; i++) total += squares[i] - sums[i] * sums[i] / (double)(t->windows * length);
  free(sums);
  if (status != GPTVQ_OK) return status;
  if (!isfinite(total))
    return gptvq_fail(err, GPTVQ_ERROR_NUMERIC,
                      "fine-tuning: NaN or infinity in the original block's outputs");
  t->weight = total > 0 ? (double)t->windows / total : 1.0;
  return GPTVQ_OK;
}

static gptvq_status trainer_create(trainer *t, const gptvq_finetune_options *options, gptvq_error *err) {
  const gptvq_ft_dims *d = t->dims;
  if (t->windows == 0)
    return gptvq_fail(err, GPTVQ_ERROR_DATA, "fine-tuning needs at least one calibration window");
  t->micro = gptvq_max_size(1, options->max_tokens / d->length);
  t->micro = gptvq_min_size(t->micro, gptvq_max_size(options->batch, 1));
  size_t tokens = t->micro * d->length;
  GPTVQ_TRY(gptvq_ft_windows_create(t->windows, options, &t->split, err));
  GPTVQ_TRY(gptvq_ft_workspace_create(d, 1, tokens, true, options->compute, &t->workspace, err));
  gptvq_ft_params_fill(t->params, &t->workspace.weights);
  t->x = gptvq_alloc(tokens * d->hidden, sizeof(float));
  t->target = gptvq_alloc(tokens * d->hidden, sizeof(float));
  t->gradient = gptvq_alloc(tokens * d->hidden, sizeof(float));
  t->losses = gptvq_alloc(tokens, sizeof(double));
  if (t->x == NULL || t->target == NULL || t->gradient == NULL || t->losses == NULL)
    return gptvq_fail_memory(err, "fine-tuning: a batch",
                             gptvq_saturated_size(tokens * d->hidden, 3 * sizeof(float)));
  return measure_targets(t, err);
}

static void trainer_release(trainer *t) {
  gptvq_ft_workspace_destroy(&t->workspace);
  free(t->x);
  free(t->target);
  free(t->gradient);
  free(t->losses);
  gptvq_ft_windows_release(&t->split);
}

static void take_gradient(void *context, gptvq_ft_matrix matrix, const float *gradient) {
  trainer *t = context;
  gptvq_ft_params_scatter(t->params, matrix, gradient);
  gptvq_ft_indices_update(t->params, matrix, gradient, t->index_rate, t->passes);
}

static void build(trainer *t) {
  gptvq_ft_params_round(t->params, true);
  gptvq_ft_params_fill(t->params, &t->workspace.weights);
}

/* Gradient of the mean relative error over `count` windows into params->gradient. */
static gptvq_status add_gradients(trainer *t, const size_t *list, size_t count, gptvq_error *err) {
  double sum = 0;
  gptvq_ft_params_begin(t->params);
  for (size_t i = 0; i < count; i += t->micro) {
    GPTVQ_TRY(
        run_windows(t, list + i, gptvq_min_size(t->micro, count - i), t->weight / (double)count, &sum, err));
    t->passes++;
    gptvq_ft_backward(t->dims, &t->workspace.weights, t->workspace.tape, t->gradient,
                      &t->params->vector_gradients, take_gradient, t, NULL);
  }
  gptvq_ft_params_finish(t->params);
  return GPTVQ_OK;
}

gptvq_status gptvq_ft_train(gptvq_ft_params *params, size_t windows, const gptvq_stream *inputs,
                            const gptvq_stream *targets, const gptvq_finetune_options *options,
                            const gptvq_callbacks *callbacks, gptvq_finetune_result *result,
                            gptvq_error *err) {
  trainer t = {
      .params = params, .dims = params->dims, .inputs = inputs, .targets = targets, .windows = windows};
  gptvq_ft_adam adam = {0};
  float *best = NULL;
  gptvq_status status;
  *result = (gptvq_finetune_result){0};
  GPTVQ_TRY_GOTO(trainer_create(&t, options, err));
  GPTVQ_TRY_GOTO(gptvq_ft_adam_create(params->count, &adam, err));
  best = gptvq_alloc(params->count, sizeof(float));
  if (best == NULL) {
    status = gptvq_fail_memory(err, "fine-tuning: the best parameters",
                               gptvq_saturated_size(params->count, sizeof(float)));
    goto done;
  }
  memcpy(best, params->theta, params->count * sizeof(float));
  GPTVQ_TRY_GOTO(evaluate(&t, &result->before, err)); /* the weights are those of the block as it came */
  result->after = result->before;
  if (!isfinite(result->before)) {
    status = gptvq_fail(err, GPTVQ_ERROR_NUMERIC,
                        "fine-tuning: NaN or infinity in the quantized block's activations");
    goto done;
  }
  size_t tables = gptvq_ft_table_values(params);
  gptvq_ft_looks looks = {.slower = 1.0};
  size_t batch = gptvq_min_size(gptvq_max_size(options->batch, 1), t.split.training_count);
  for (size_t step = 0; step < options->steps; step++) {
    if (step > 0) build(&t);
    double factor = looks.slower * gptvq_ft_schedule(step, options->steps);
    t.index_rate = factor * options->index_rate;
    GPTVQ_TRY_GOTO(add_gradients(&t, gptvq_ft_windows_next(&t.split, batch), batch, err));
    gptvq_ft_adam_update(&adam, tables, factor * options->table_rate, factor * options->vector_rate,
                         params->unit, params->gradient, params->theta);
    result->steps = step + 1;
    if ((step + 1) % gptvq_max_size(options->evaluate_every, 1) != 0 && step + 1 != options->steps) continue;
    build(&t);
    double error;
    GPTVQ_TRY_GOTO(evaluate(&t, &error, err));
    GPTVQ_TRY_GOTO(gptvq_report_progress(callbacks, "finetune", "", step + 1, options->steps, error, err));
    const gptvq_ft_look look = gptvq_ft_judge(&looks, options, error, result);
    if (look == GPTVQ_FT_OVER) break;
    if (look == GPTVQ_FT_BETTER) {
      memcpy(best, params->theta, params->count * sizeof(float));
      gptvq_ft_indices_keep(params);
    } else if (options->index_rate == 0.0) {
      memcpy(params->theta, best, params->count * sizeof(float));
      gptvq_ft_adam_restart(&adam);
    }
  }
  if (result->best_step > 0) {
    memcpy(params->theta, best, params->count * sizeof(float));
    gptvq_ft_indices_restore(params);
    gptvq_ft_params_store(params);
  }
done:
  free(best);
  gptvq_ft_adam_release(&adam);
  trainer_release(&t);
  return status;
}
