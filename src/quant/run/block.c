/* One transformer block: Hessians of the inputs of its linears as the calibration windows pass through it,
 * then the solver. */
#include "quant/run/pipeline.h"
#include "base/memory.h"
#include "calib/hessian.h"
#include "train/guide.h"
#include "calib/mismatch.h"
#include "quant/plan/sensitivity.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Linears that read the same input and so share a Hessian. */
typedef struct input {
  const size_t *linears; /* indices into block->linears, not owned */
  size_t count;
  bool after_attention, output; /* which part of the block and which of its two stages produces it */
  gptvq_hessian hessian;        /* tokens 0 and values NULL outside of a pass */
  gptvq_mismatch mismatch;      /* cols 0 when it is not corrected */
} input;

typedef struct block_work {
  gptvq_pipeline *pipeline;
  const gptvq_block *original;
  gptvq_block block; /* the copy whose linears become packed one by one */
  input *inputs; /* in the order in which a token meets them: qkv, o, then gate|up of every expert, then every
                    down */
  size_t input_count;
  size_t *input_of; /* [linear_count]: index into inputs */
  gptvq_layer_result *results;
  bool *solved;     /* [linear_count] */
  float *reference; /* [length × cols of the input at work]: what the original block gives, for one window */
  float *stream_original; /* [length × hidden] that window's residual stream in the original model, before the
                             layer adds to it */
  const float *stream;    /* and in the quantized one */
  float *kept; /* [kept_windows × length × cols] inputs of the output layer at work, to go on from */
  size_t kept_windows;
  bool original_passed; /* x_original has passed the half at work */
  size_t window;        /* the window at work */
  float *weighted;      /* [length × cols of the input at work], with a guide */
} block_work;

gptvq_status gptvq_block_copy(const gptvq_block *block, gptvq_block *copy, gptvq_error *err) {
  *copy = *block;
  copy->linears = gptvq_alloc(block->linear_count, sizeof *copy->linears);
  if (copy->linears == NULL)
    return gptvq_fail_memory(err, "a block", block->linear_count * sizeof *copy->linears);
  memcpy(copy->linears, block->linears, block->linear_count * sizeof *copy->linears);
  return GPTVQ_OK;
}

void gptvq_linear_set_packed(gptvq_linear *linear, const gptvq_packed *packed) {
  linear->is_packed = true;
  linear->weights = NULL;
  linear->packed = *packed;
}

static void add_input(block_work *work, const size_t *linears, size_t count, bool after_attention,
                      bool output) {
  work->inputs[work->input_count] = (input){linears, count, after_attention, output, {0}, {0}};
  for (size_t i = 0; i < count; i++) work->input_of[linears[i]] = work->input_count;
  work->input_count++;
}

static void release_work(block_work *work) {
  if (work->inputs != NULL)
    for (size_t i = 0; i < work->input_count; i++) {
      gptvq_hessian_release(&work->inputs[i].hessian);
      gptvq_mismatch_release(&work->inputs[i].mismatch);
    }
  free(work->reference);
  free(work->weighted);
  free(work->stream_original);
  free(work->kept);
  free(work->inputs);
  free(work->input_of);
  free(work->solved);
  free(work->block.linears);
}

static gptvq_status prepare_work(block_work *work, gptvq_error *err) {
  const gptvq_block *block = work->original;
  size_t count = block->linear_count, inputs = 2 + 2 * block->mlp_count;
  GPTVQ_TRY(gptvq_block_copy(block, &work->block, err));
  work->inputs = calloc(inputs, sizeof *work->inputs);
  work->input_of = calloc(count, sizeof *work->input_of);
  work->solved = calloc(count, sizeof *work->solved);
  if (work->inputs == NULL || work->input_of == NULL || work->solved == NULL)
    return gptvq_fail_memory(err, "a block", inputs * sizeof *work->inputs);
  add_input(work, block->qkv.linear, block->qkv.count, false, false);
  add_input(work, &block->o, 1, false, true);
  for (size_t e = 0; e < block->mlp_count; e++)
    add_input(work, block->mlps[e].input.linear, block->mlps[e].input.count, true, false);
  for (size_t e = 0; e < block->mlp_count; e++) add_input(work, &block->mlps[e].down, 1, true, true);
  return GPTVQ_OK;
}

/* Weights of the current window's tokens for this input; NULL without a guide. */
static const float *token_weights(const block_work *work, const input *in) {
  const gptvq_pipeline *p = work->pipeline;
  if (p->guide == NULL) return NULL;
  gptvq_guide_input which = in->after_attention ? (in->output ? GPTVQ_GUIDE_DOWN : GPTVQ_GUIDE_GATE_UP)
                                                : (in->output ? GPTVQ_GUIDE_O : GPTVQ_GUIDE_QKV);
  return gptvq_guide_weights(p->guide, work->original->index, which) + work->window * p->length;
}

/* gptvq_capture: adds x to the Hessian of these linears when this pass collects it. */
static gptvq_status add_captured(void *context, const gptvq_block *block, const size_t *linears, size_t count,
                                 const float *x, size_t n, size_t ldx, gptvq_error *err) {
  (void)err;
  block_work *work = context;
  if (count == 0 || n == 0 || linears[0] >= block->linear_count) return GPTVQ_OK;
  input *in = &work->inputs[work->input_of[linears[0]]];
  if (in->hessian.values == NULL || linears[0] != in->linears[0]) return GPTVQ_OK;
  if (block == work->original) { /* the original's turn */
    for (size_t t = 0; t < n; t++)
      memcpy(work->reference + t * in->mismatch.cols, x + t * ldx, in->mismatch.cols * sizeof *x);
    return GPTVQ_OK;
  }
  if (work->window < work->kept_windows) {
    float *kept = work->kept + work->window * n * in->hessian.cols;
    for (size_t t = 0; t < n; t++)
      memcpy(kept + t * in->hessian.cols, x + t * ldx, in->hessian.cols * sizeof *x);
  }
  const float *weight = token_weights(work, in);
  if (weight == NULL) {
    gptvq_hessian_add(&in->hessian, n, x, ldx);
  } else { /* the mean of w x xᵀ */
    size_t cols = in->hessian.cols;
    for (size_t t = 0; t < n; t++) {
      float root = sqrtf(weight[t]);
      for (size_t c = 0; c < cols; c++) work->weighted[t * cols + c] = root * x[t * ldx + c];
    }
    gptvq_hessian_add(&in->hessian, n, work->weighted, cols);
  }
  if (in->mismatch.cols > 0)
    gptvq_mismatch_add(&in->mismatch, n, work->reference, x, ldx, work->stream_original, work->stream,
                       weight);
  return GPTVQ_OK;
}

/* After every window: the count of layers stands still, but the caller sees that work goes on, and may stop
 * it. */
static gptvq_status report_pass(const gptvq_pipeline *p, const char *name, gptvq_error *err) {
  return gptvq_report_progress(p->callbacks, "quantize", name, p->layers_done, p->layers_total, NAN, err);
}

/* All windows once through the part of the block that produces inputs [begin, end). x keeps its values; with
 * `whole` it enters the attention, else the half of the block that the inputs belong to. */
static gptvq_status collect(block_work *work, size_t begin, size_t end, bool whole, gptvq_error *err) {
  const gptvq_pipeline *p = work->pipeline;
  const input *first = &work->inputs[begin], *last = &work->inputs[end - 1];
  const char *name = work->block.linears[first->linears[0]].name;
  size_t hidden = p->model->config.hidden, values = p->length * hidden;
  bool both = whole && last->after_attention;
  float *copy = NULL;
  gptvq_status status = GPTVQ_OK;
  if (both) { /* attention has to run for real: on a copy */
    copy = gptvq_alloc(values, sizeof *copy);
    if (copy == NULL) return gptvq_fail_memory(err, "calibration activations", values * sizeof *copy);
  }
  gptvq_stop stop = last->output ? GPTVQ_STOP_AT_OUTPUT : GPTVQ_STOP_AT_INPUT;
  for (size_t w = 0; w < p->samples; w++) {
    float *x = p->x + w * values;
    work->window = w;
    if (first->mismatch.cols > 0) {
      float *original = p->x_original + w * values;
      gptvq_stop end_of_half =
          first->output ? GPTVQ_RUN_ALL : stop; /* the original's weights are known: no second pass */
      if (first->output) memcpy(work->stream_original, original, values * sizeof *original);
      if (first->after_attention)
        GPTVQ_TRY_GOTO(gptvq_block_mlp(p->model, work->original, p->workspace, p->length, original,
                                       end_of_half, add_captured, work, err));
      else
        GPTVQ_TRY_GOTO(gptvq_block_attention(p->model, work->original, p->workspace, 0, 0, p->length,
                                             original, end_of_half, add_captured, work, err));
      work->original_passed = first->output;
      work->stream = x;
    }
    if (both) {
      memcpy(copy, x, values * sizeof *copy);
      x = copy;
      GPTVQ_TRY_GOTO(gptvq_block_attention(p->model, &work->block, p->workspace, 0, 0, p->length, x,
                                           GPTVQ_RUN_ALL, add_captured, work, err));
    }
    if (both || first->after_attention)
      GPTVQ_TRY_GOTO(
          gptvq_block_mlp(p->model, &work->block, p->workspace, p->length, x, stop, add_captured, work, err));
    else
      GPTVQ_TRY_GOTO(gptvq_block_attention(p->model, &work->block, p->workspace, 0, 0, p->length, x, stop,
                                           add_captured, work, err));
    GPTVQ_TRY_GOTO(report_pass(p, name, err));
  }
done:
  free(copy);
  return status;
}

static gptvq_status solve_linear(block_work *work, size_t index, const gptvq_factor *factor,
                                 const gptvq_mismatch *mismatch, gptvq_error *err) {
  gptvq_pipeline *p = work->pipeline;
  const gptvq_linear *linear = &work->original->linears[index];
  size_t values = linear->rows * linear->cols;
  float *weights = gptvq_alloc(values, sizeof *weights);
  if (weights == NULL)
    return gptvq_fail_memory(err, linear->name, gptvq_saturated_size(values, sizeof *weights));
  gptvq_linear_decode(linear, weights);
  gptvq_quantize_options options = *p->options;
  if (p->allocation != NULL) {
    options.index_bits = p->allocation->layers[work->original->index][index].index_bits;
    options.group_size = p->allocation->layers[work->original->index][index].group_size;
  }
  gptvq_status status = GPTVQ_OK;
  if (mismatch->map != NULL)
    status = gptvq_mismatch_apply(mismatch, p->options->mismatch, p->options->mismatch_stream, linear->rows,
                                  weights, linear->name, err);
  if (status == GPTVQ_OK)
    status = gptvq_solve_layer(linear->name, linear->rows, linear->cols, weights, factor, &options,
                               p->callbacks, &work->results[index], err);
  free(weights);
  if (status != GPTVQ_OK) return status;
  work->solved[index] = true;
  gptvq_linear_set_packed(&work->block.linears[index], &work->results[index].packed);
  return gptvq_report_progress(p->callbacks, "quantize", linear->name, ++p->layers_done, p->layers_total,
                               work->results[index].error, err);
}

/* "a, b and c" for a warning */
static void list_names(const block_work *work, const input *in, char *text, size_t size) {
  size_t used = 0;
  text[0] = '\0';
  for (size_t i = 0; i < in->count && used < size; i++) {
    int written = snprintf(text + used, size - used, "%s%s", i > 0 ? ", " : "",
                           work->block.linears[in->linears[i]].name);
    used += written > 0 ? (size_t)written : 0;
  }
}

/* The linears of one input; `with_data`: its Hessian was collected. */
static gptvq_status solve_input(block_work *work, input *in, bool with_data, gptvq_error *err) {
  const gptvq_pipeline *p = work->pipeline;
  const gptvq_linear *linear = &work->original->linears[in->linears[0]];
  gptvq_factor *factor = NULL;
  gptvq_status status = GPTVQ_OK;
  if (with_data) {
    char names[512];
    size_t tokens = in->hessian.tokens;
    if (tokens < linear->cols) list_names(work, in, names, sizeof names);
    if (tokens == 0)
      gptvq_log(p->callbacks, GPTVQ_LOG_WARNING,
                "no calibration token reaches %s: quantized without data (identity Hessian)", names);
    else if (tokens < linear->cols)
      gptvq_log(p->callbacks, GPTVQ_LOG_WARNING,
                "only %zu calibration tokens for the %zu input columns of %s", tokens, linear->cols, names);
    if (tokens > 0) {
      GPTVQ_TRY_GOTO(gptvq_hessian_finish(&in->hessian, linear->name, err));
      if (in->mismatch.cols > 0)
        GPTVQ_TRY_GOTO(
            gptvq_mismatch_finish(&in->mismatch, in->hessian.values, p->options->damping, linear->name, err));
      double *hessian = in->hessian.values;
      in->hessian.values = NULL; /* the factor's memory from now on */
      GPTVQ_TRY_GOTO(gptvq_factor_create_over(linear->name, linear->cols, hessian, p->options, p->callbacks,
                                              &factor, err));
    }
    gptvq_hessian_release(&in->hessian);
  }
  for (size_t i = 0; i < in->count; i++)
    GPTVQ_TRY_GOTO(solve_linear(work, in->linears[i], factor, &in->mismatch, err));
done:
  gptvq_mismatch_release(&in->mismatch);
  gptvq_factor_destroy(factor);
  return status;
}

static gptvq_status prepare_weighted(block_work *work, size_t first, size_t last, gptvq_error *err) {
  size_t cols = 0;
  for (size_t i = first; i < last; i++) cols = gptvq_max_size(cols, work->inputs[i].hessian.cols);
  free(work->weighted);
  work->weighted = gptvq_alloc(work->pipeline->length, gptvq_saturated_size(cols, sizeof(float)));
  if (work->weighted == NULL)
    return gptvq_fail_memory(err, "weighted activations", work->pipeline->length * cols * sizeof(float));
  return GPTVQ_OK;
}

/* Inputs of experts are left out: the two streams may not route a token to the same ones. */
static gptvq_status prepare_mismatch(block_work *work, input *in, gptvq_error *err) {
  const gptvq_linear *linear = &work->original->linears[in->linears[0]];
  size_t values = work->pipeline->length * linear->cols;
  free(work->reference);
  work->reference = gptvq_alloc(values, sizeof *work->reference);
  if (work->reference == NULL)
    return gptvq_fail_memory(err, linear->name, gptvq_saturated_size(values, sizeof *work->reference));
  values = work->pipeline->length * work->pipeline->model->config.hidden;
  if (work->stream_original == NULL)
    work->stream_original = gptvq_alloc(values, sizeof *work->stream_original);
  if (work->stream_original == NULL)
    return gptvq_fail_memory(err, linear->name, gptvq_saturated_size(values, sizeof *work->stream_original));
  return gptvq_mismatch_init(&in->mismatch, linear->cols, in->output ? linear->rows : 0, linear->name, err);
}

/* Room for the inputs of an output layer, of as many windows as fit: what saves running the half again. */
static void prepare_kept(block_work *work, const input *in) {
  const gptvq_pipeline *p = work->pipeline;
  if (!in->output || (in->after_attention && p->model->config.experts > 0)) return;
  size_t window =
      gptvq_saturated_size(p->length, work->original->linears[in->linears[0]].cols * sizeof(float));
  size_t windows = gptvq_min_size(p->samples, p->kept_budget / window);
  if (windows > 0) work->kept = gptvq_alloc(windows, window);
  work->kept_windows = work->kept != NULL ? windows : 0;
}

/* Inputs [begin, end): as many Hessians at a time as the budget allows, at least one. Without true_sequential
 * the whole block is one such range, and passes after the first must still see the original weights. */
static gptvq_status solve_range(block_work *work, size_t begin, size_t end, bool keep_original,
                                gptvq_error *err) {
  const gptvq_pipeline *p = work->pipeline;
  for (size_t first = begin, last; first < end; first = last) {
    size_t bytes = 0;
    for (last = first; last < end; last++) {
      size_t cols = work->block.linears[work->inputs[last].linears[0]].cols, one = gptvq_hessian_bytes(cols);
      if (last > first && (one > p->hessian_budget || bytes > p->hessian_budget - one)) break;
      GPTVQ_TRY(gptvq_hessian_init(&work->inputs[last].hessian, cols,
                                   work->block.linears[work->inputs[last].linears[0]].name, err));
      bytes += one;
    }
    bool corrects = p->options->mismatch > 0.0 || p->options->mismatch_stream > 0.0;
    if (corrects && p->x_original != NULL && !keep_original && last == first + 1 &&
        work->original->mlp_count == 1)
      GPTVQ_TRY(prepare_mismatch(work, &work->inputs[first], err));
    if (keep_original)
      memcpy(work->block.linears, work->original->linears,
             work->block.linear_count * sizeof *work->block.linears);
    if (!keep_original && last == first + 1) prepare_kept(work, &work->inputs[first]);
    if (p->guide != NULL) GPTVQ_TRY(prepare_weighted(work, first, last, err));
    GPTVQ_TRY(collect(work, first, last, keep_original, err));
    for (size_t i = first; i < last; i++) GPTVQ_TRY(solve_input(work, &work->inputs[i], true, err));
  }
  if (keep_original) /* what the last passes put back */
    for (size_t i = 0; i < work->block.linear_count; i++)
      if (work->solved[i]) gptvq_linear_set_packed(&work->block.linears[i], &work->results[i].packed);
  return GPTVQ_OK;
}

/* All windows of x (p->x or p->x_original) through these halves of the block. */
static gptvq_status run_stream(const gptvq_pipeline *p, float *stream, const gptvq_block *block,
                               bool attention, bool mlp, gptvq_error *err) {
  size_t values = p->length * p->model->config.hidden;
  for (size_t w = 0; w < p->samples; w++) {
    float *x = stream + w * values;
    if (attention)
      GPTVQ_TRY(gptvq_block_attention(p->model, block, p->workspace, 0, 0, p->length, x, GPTVQ_RUN_ALL, NULL,
                                      NULL, err));
    if (mlp)
      GPTVQ_TRY(gptvq_block_mlp(p->model, block, p->workspace, p->length, x, GPTVQ_RUN_ALL, NULL, NULL, err));
    GPTVQ_TRY(report_pass(p, block->linears[block->o].name, err));
  }
  return GPTVQ_OK;
}

/* x through the half that ends with the output layer just solved, from its kept inputs on where there are
 * any; x_original too. */
static gptvq_status advance(block_work *work, bool mlp, gptvq_error *err) {
  const gptvq_pipeline *p = work->pipeline;
  size_t values = p->length * p->model->config.hidden;
  size_t output = mlp ? work->original->mlps[0].down : work->original->o,
         cols = work->original->linears[output].cols;
  for (size_t w = 0; w < p->samples; w++) {
    float *x = p->x + w * values;
    if (w < work->kept_windows)
      GPTVQ_TRY(gptvq_block_output(p->model, &work->block, p->workspace, mlp, p->length,
                                   work->kept + w * p->length * cols, x, err));
    else if (mlp)
      GPTVQ_TRY(gptvq_block_mlp(p->model, &work->block, p->workspace, p->length, x, GPTVQ_RUN_ALL, NULL, NULL,
                                err));
    else
      GPTVQ_TRY(gptvq_block_attention(p->model, &work->block, p->workspace, 0, 0, p->length, x, GPTVQ_RUN_ALL,
                                      NULL, NULL, err));
    GPTVQ_TRY(report_pass(p, work->block.linears[output].name, err));
  }
  free(work->kept);
  work->kept = NULL;
  work->kept_windows = 0;
  if (p->x_original != NULL && !work->original_passed)
    GPTVQ_TRY(run_stream(p, p->x_original, work->original, !mlp, mlp, err));
  work->original_passed = false;
  return GPTVQ_OK;
}

static gptvq_status run_windows(const gptvq_pipeline *p, const gptvq_block *block,
                                const gptvq_block *original, bool attention, bool mlp, gptvq_error *err) {
  GPTVQ_TRY(run_stream(p, p->x, block, attention, mlp, err));
  return p->x_original != NULL ? run_stream(p, p->x_original, original, attention, mlp, err) : GPTVQ_OK;
}

gptvq_status gptvq_pipeline_run(const gptvq_pipeline *pipeline, const gptvq_block *block,
                                const gptvq_block *original, gptvq_error *err) {
  if (pipeline->x == NULL) return GPTVQ_OK;
  return run_windows(pipeline, block, original, true, true, err);
}

static gptvq_status with_data(block_work *work, gptvq_error *err) {
  const gptvq_pipeline *p = work->pipeline;
  size_t experts = work->original->mlp_count;
  if (!p->options->true_sequential) {
    GPTVQ_TRY(solve_range(work, 0, work->input_count, true, err));
    return run_windows(p, &work->block, work->original, true, true, err);
  }
  GPTVQ_TRY(solve_range(work, 0, 1, false, err));
  GPTVQ_TRY(solve_range(work, 1, 2, false, err));
  GPTVQ_TRY(advance(work, false, err));
  GPTVQ_TRY(solve_range(work, 2, 2 + experts, false, err));
  GPTVQ_TRY(solve_range(work, 2 + experts, work->input_count, false, err));
  return advance(work, true, err);
}

gptvq_status gptvq_pipeline_block(gptvq_pipeline *pipeline, const gptvq_block *block,
                                  gptvq_layer_result *results, gptvq_error *err) {
  block_work work = {.pipeline = pipeline, .original = block, .results = results};
  gptvq_status status = prepare_work(&work, err);
  if (status == GPTVQ_OK && pipeline->x != NULL) {
    status = with_data(&work, err);
  } else if (status == GPTVQ_OK) {
    for (size_t i = 0; i < work.input_count && status == GPTVQ_OK; i++)
      status = solve_input(&work, &work.inputs[i], false, err);
  }
  if (status != GPTVQ_OK && work.solved != NULL)
    for (size_t i = 0; i < block->linear_count; i++)
      if (work.solved[i]) gptvq_layer_result_release(&results[i]);
  release_work(&work);
  return status;
}
