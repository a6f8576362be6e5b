#include "train/guide.h"

#include "base/memory.h"
#include "base/threads.h"
#include "model/layer/norm.h"
#include "model/workspace.h"
#include "train/pieces.h"
#include "train/projection.h"

#include <math.h>
#include <string.h>

enum { HEAD_TOKENS = GPTVQ_FT_LOGIT_TOKENS };

typedef struct work {
  const gptvq_model *model;
  gptvq_guide *guide;
  const int32_t *tokens;
  size_t length, hidden, vocab, batch;
  gptvq_ft_projection projection;
  gptvq_sweep sweep; /* windows: those of a batch */
  float *inputs; /* [blocks + 1][batch × length × hidden]: what enters each block; the last: the final hidden
                    states */
  float *gradient; /* [batch × length × hidden] */
  void *head;      /* [vocab × hidden] */
  float *normed, *scale, *logits, *gain_gradient;
  double *losses; /* [HEAD_TOKENS] */
  double *sums;   /* [windows][linears of all blocks, loss], added up window by window once all are known */
  size_t linears; /* of all blocks */
  /* the block at work */
  const gptvq_block *block;
  size_t first_linear;             /* its first one among those of all blocks */
  float *squares[GPTVQ_MAX_PARTS]; /* [length] per linear of a group: mean square over its outputs */
  float *share_squares;            /* [length] */
  size_t first;                    /* first token of the window at work */
} work;

void gptvq_guide_release(gptvq_guide *guide) {
  free(guide->weights);
  if (guide->energy != NULL)
    for (size_t b = 0; b < guide->blocks; b++) free(guide->energy[b]);
  free((void *)guide->energy);
  *guide = (gptvq_guide){0};
}

typedef struct square_job {
  size_t width, columns;
  const float *dy;
  float *out;
} square_job;

static void square_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const square_job *job = context;
  for (size_t t = begin; t < end; t++) {
    const float *row = job->dy + t * job->width;
    double sum = 0;
    for (size_t i = 0; i < job->columns; i++) sum += (double)row[i] * (double)row[i];
    job->out[t] = (float)(sum / (double)job->columns);
  }
}

static double *window_sums(const work *w, size_t window) { return w->sums + window * (w->linears + 1); }

/* gptvq_ft_watch: squares of all windows of a batch are kept as they come: the mean over the linears of a
 * group needs their means over all tokens, so that only the sums below are final. Those of experts are added
 * up token by token, and so are the squares of their shares (share_squares). */
static void watch(void *context, const gptvq_ft_watched *in) {
  work *w = context;
  gptvq_guide *guide = w->guide;
  const gptvq_block_input input = gptvq_ft_input(in->matrix); /* whose readers are stacked to it */
  gptvq_linear_group group = gptvq_input_readers(w->block, input, gptvq_ft_mlp(in->matrix));
  float *weights = gptvq_guide_weights(guide, w->block->index, input) + w->first;
  for (size_t t = 0; t < in->count && in->tokens == NULL; t++) weights[t] = 0.0f;
  for (size_t i = 0; i < group.count; i++) {
    size_t rows = w->block->linears[group.linear[i]].rows;
    square_job job = {in->width, rows, in->dy + group.offset[i], w->squares[i]};
    gptvq_parallel_for(in->count, 16, square_task, &job);
    double sum = 0;
    for (size_t t = 0; t < in->count; t++) {
      sum += (double)w->squares[i][t];
      weights[in->tokens != NULL ? in->tokens[t] : t] += w->squares[i][t] * (float)rows / (float)in->width;
    }
    window_sums(w, w->first / w->length)[w->first_linear + group.linear[i]] += sum;
  }
  for (size_t t = 0; in->tokens != NULL && input == GPTVQ_INPUT_DOWN && t < in->count; t++)
    w->share_squares[in->tokens[t]] += in->shares[t] * in->shares[t];
}

/* Before the window at w->first goes back through the block: sums that watch adds to. */
static void begin_window(work *w) {
  for (gptvq_block_input input = GPTVQ_INPUT_GATE_UP; input <= GPTVQ_INPUT_DOWN; input++)
    memset(gptvq_guide_weights(w->guide, w->block->index, input) + w->first, 0,
           w->length * sizeof *w->share_squares);
  memset(w->share_squares, 0, w->length * sizeof *w->share_squares);
}

/* Sums over a token's experts become what they are without shares. */
static void finish_window(work *w) {
  if (!gptvq_block_routes(w->block)) return;
  for (gptvq_block_input input = GPTVQ_INPUT_GATE_UP; input <= GPTVQ_INPUT_DOWN; input++) {
    float *weights = gptvq_guide_weights(w->guide, w->block->index, input) + w->first;
    for (size_t t = 0; t < w->length; t++)
      weights[t] = w->share_squares[t] > 0.0f ? weights[t] / w->share_squares[t] : 0.0f;
  }
}

typedef struct head_job {
  work *w;
  const int32_t *next;
  size_t scored;
} head_job;

/* losses[token] = −log p(next); logits become softmax − onehot. The last token of a window predicts nothing.
 */
static void nll_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const head_job *job = context;
  size_t n = job->w->vocab;
  const float cap = (float)job->w->model->config.logit_cap;
  for (size_t t = begin; t < end; t++) {
    float *row = job->w->logits + t * n;
    job->w->losses[t] = 0.0;
    if (t >= job->scored) {
      memset(row, 0, n * sizeof *row); /* also rounded */
      continue;
    }
    float max = row[0], target = row[job->next[t]];
    double sum = 0;
    for (size_t i = 1; i < n; i++) max = row[i] > max ? row[i] : max;
    for (size_t i = 0; i < n; i++) {
      float slope = gptvq_ft_cap_slope(cap, row[i]);
      row[i] = gptvq_ft_exp(row[i] - max);
      sum += (double)row[i];
      row[i] *= slope;
    }
    job->w->losses[t] = log(sum) - (double)(target - max);
    float inverse = (float)(1.0 / sum);
    for (size_t i = 0; i < n; i++) row[i] *= inverse;
    row[job->next[t]] -= gptvq_ft_cap_slope(cap, target);
    gptvq_ft_projection_round(&job->w->projection, row);
  }
}

/* One window: loss, and its gradient by the final hidden states x into gradient[length × hidden]. */
static double head(work *w, const gptvq_ft_dims *dims, const int32_t *tokens, const float *x,
                   float *gradient) {
  double sum = 0;
  gptvq_ft_norm_forward(dims, w->length, x, w->model->final_norm, w->normed, w->scale);
  for (size_t first = 0; first < w->length; first += HEAD_TOKENS) {
    size_t n = gptvq_min_size(HEAD_TOKENS, w->length - first);
    gptvq_ft_project(&w->projection, n, w->normed + first * w->hidden, w->head, w->logits);
    head_job job = {w, tokens + first + 1, gptvq_min_size(n, w->length - 1 - first)};
    gptvq_parallel_for(n, 4, nll_task, &job);
    for (size_t t = 0; t < n; t++) sum += w->losses[t];
    gptvq_ft_project_back(&w->projection, n, w->logits, w->head, gradient + first * w->hidden);
  }
  gptvq_ft_norm_backward(dims, w->length, x, w->model->final_norm, w->scale, gradient, NULL, w->gain_gradient,
                         gradient);
  return sum;
}

/* Through one block backwards, for the windows of a batch; their gradients are replaced by those of the
 * block's inputs. */
static gptvq_status block_backward(work *w, size_t b, size_t first_window, size_t windows, gptvq_error *err) {
  gptvq_ft_dims dims;
  gptvq_ft_params params = {0};
  gptvq_ft_workspace workspace = {0};
  float *tables;
  size_t values = w->length * w->hidden;
  w->block = &w->model->blocks[b];
  GPTVQ_TRY(gptvq_ft_dims_create(w->model, w->block, w->length, &dims, &tables, err));
  gptvq_status status = gptvq_ft_params_create(&dims, w->block, GPTVQ_F32, &params, err);
  if (status == GPTVQ_OK)
    status = gptvq_ft_workspace_create(&dims, 1, w->length, true, w->model->compute, &workspace, err);
  if (status == GPTVQ_OK) {
    gptvq_ft_params_fill(&params, &workspace.weights);
    workspace.tape->watch = watch;
    workspace.tape->watch_context = w;
    const float *inputs = w->inputs + b * w->batch * values;
    for (size_t i = 0; i < windows; i++) {
      w->first = (first_window + i) * w->length;
      begin_window(w);
      (void)gptvq_ft_forward(&dims, &workspace.weights, workspace.tape, w->length, inputs + i * values);
      gptvq_ft_backward(&dims, &workspace.weights, workspace.tape, w->gradient + i * values,
                        &params.vector_gradients, NULL, NULL, w->gradient + i * values);
      finish_window(w);
    }
  }
  gptvq_ft_workspace_destroy(&workspace);
  gptvq_ft_params_release(&params);
  free(tables);
  return status;
}

static gptvq_status run_batch(work *w, size_t first_window, size_t windows, gptvq_error *err) {
  const gptvq_model *model = w->model;
  size_t values = w->length * w->hidden, stride = w->batch * values, blocks = model->config.layers;
  w->sweep.windows = windows;
  GPTVQ_TRY(gptvq_embed(model, w->tokens + first_window * w->length, windows * w->length, w->inputs, err));
  for (size_t b = 0; b < blocks; b++) {
    float *x = w->inputs + (b + 1) * stride;
    const gptvq_stream stream = gptvq_stream_over(windows, values, x);
    const gptvq_pass pass = gptvq_whole_block(&model->blocks[b], &stream, NULL, 0);
    memcpy(x, x - stride, windows * values * sizeof *x);
    GPTVQ_TRY(gptvq_sweep_block(&w->sweep, &pass, 1, err));
    gptvq_block_rest(&model->blocks[b]);
  }
  for (size_t i = 0; i < windows; i++)
    GPTVQ_TRY(gptvq_final_norm(model, w->length, w->inputs + blocks * stride + i * values, w->normed, err));
  gptvq_ft_dims dims;
  float *tables;
  GPTVQ_TRY(gptvq_ft_dims_create(model, &model->blocks[0], w->length, &dims, &tables, err));
  for (size_t i = 0; i < windows; i++)
    window_sums(w, first_window + i)[w->linears] =
        head(w, &dims, w->tokens + (first_window + i) * w->length, w->inputs + blocks * stride + i * values,
             w->gradient + i * values);
  free(tables);
  w->first_linear = w->linears;
  for (size_t b = blocks; b-- > 0;) {
    w->first_linear -= model->blocks[b].linear_count;
    GPTVQ_TRY(block_backward(w, b, first_window, windows, err));
    gptvq_block_rest(&model->blocks[b]);
  }
  return GPTVQ_OK;
}

/* Windows that are worked on together. */
static size_t batch_size(const gptvq_model *model, size_t windows, size_t length, size_t budget) {
  const size_t window =
      gptvq_saturated_size(length * model->config.hidden, (model->config.layers + 2) * sizeof(float));
  return gptvq_min_size(windows, gptvq_max_size(1, budget / window));
}

double gptvq_guide_bytes(const gptvq_model *model, size_t windows, size_t length) {
  const double inputs = model->config.latent.kv_rank > 0 ? GPTVQ_ALL_INPUTS : GPTVQ_INPUTS;
  return sizeof(float) * (double)model->config.layers * inputs * (double)windows * (double)length;
}

double gptvq_guide_peak(const gptvq_model *model, size_t windows, size_t length, size_t budget) {
  const gptvq_config *c = &model->config;
  const double rows = (double)length * (double)c->hidden;
  const gptvq_ft_projection projection = gptvq_ft_projection_of(model, model->compute);
  double largest = 0;
  for (size_t b = 0; b < c->layers; b++) { /* a block backwards */
    const gptvq_ft_dims dims = gptvq_ft_dims_of(model, &model->blocks[b], length);
    largest = fmax(largest, (double)gptvq_ft_workspace_bytes(&dims, length, true, model->compute));
  }
  return gptvq_guide_bytes(model, windows, length) +
         sizeof(double) * (double)windows * (double)(gptvq_model_layer_count(model) + 1) +
         sizeof(float) * (rows * (double)((c->layers + 2) * batch_size(model, windows, length, budget) + 1) +
                          (double)gptvq_ft_projection_floats(&projection)) +
         (double)gptvq_ft_projection_matrix_bytes(&projection) +
         (double)gptvq_ft_projection_states_bytes(&projection) +
         (double)gptvq_workspace_bytes(model, 1, length, length) + fmax(largest, sizeof(float) * rows);
}

static gptvq_status allocate(work *w, gptvq_guide *guide, size_t windows, size_t budget, gptvq_error *err) {
  const gptvq_model *model = w->model;
  size_t blocks = model->config.layers;
  w->linears = gptvq_model_layer_count(model);
  w->batch = batch_size(model, windows, w->length, budget);
  guide->blocks = blocks;
  guide->inputs = model->config.latent.kv_rank > 0 ? GPTVQ_ALL_INPUTS : GPTVQ_INPUTS;
  guide->tokens = windows * w->length;
  guide->energy = calloc(blocks, sizeof *guide->energy);
  guide->weights =
      gptvq_alloc_zero(blocks * guide->inputs, gptvq_saturated_size(guide->tokens, sizeof(float)));
  bool failed = guide->energy == NULL || guide->weights == NULL;
  for (size_t b = 0; b < blocks && !failed; b++)
    failed = (guide->energy[b] = calloc(model->blocks[b].linear_count, sizeof(double))) == NULL;
  struct {
    float **place;
    size_t floats;
  } parts[] = {{&w->inputs, (blocks + 1) * w->batch * w->length * w->hidden},
               {&w->gradient, w->batch * w->length * w->hidden},
               {&w->normed, w->length * w->hidden},
               {&w->scale, w->length},
               {&w->logits, gptvq_ft_projection_floats(&w->projection)},
               {&w->gain_gradient, w->hidden},
               {&w->squares[0], w->length},
               {&w->squares[1], w->length},
               {&w->squares[2], w->length},
               {&w->share_squares, w->length}};
  const size_t matrix = gptvq_ft_projection_matrix_bytes(&w->projection),
               states = gptvq_ft_projection_states_bytes(&w->projection);
  size_t total = gptvq_saturated_sum(matrix, states);
  if (!failed) failed = (w->head = gptvq_alloc(matrix, 1)) == NULL;
  if (!failed && states > 0) failed = (w->projection.states = gptvq_alloc(states, 1)) == NULL;
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
    total += gptvq_saturated_size(parts[i].floats, sizeof(float));
    if (!failed && (*parts[i].place = gptvq_alloc_zero(parts[i].floats, sizeof(float))) == NULL)
      failed = true;
  }
  if (!failed) w->losses = gptvq_alloc(HEAD_TOKENS, sizeof *w->losses);
  if (!failed) w->sums = gptvq_alloc_zero(windows, (w->linears + 1) * sizeof *w->sums);
  if (failed || w->losses == NULL || w->sums == NULL)
    return gptvq_fail_memory(err, "the gradients of the loss", total);
  return GPTVQ_OK;
}

/* What the members know of their windows, to all; and the sums over windows, in the order of these. */
static gptvq_status collect(work *w, size_t windows, gptvq_dist *dist, gptvq_error *err) {
  gptvq_guide *guide = w->guide;
  GPTVQ_TRY(gptvq_dist_gather_items(dist, w->sums, windows, (w->linears + 1) * sizeof *w->sums, err));
  for (size_t row = 0; row < guide->blocks * guide->inputs; row++)
    GPTVQ_TRY(gptvq_dist_gather_items(dist, guide->weights + row * guide->tokens, windows,
                                      w->length * sizeof *guide->weights, err));
  for (size_t window = 0; window < windows; window++) {
    const double *sum = window_sums(w, window);
    for (size_t b = 0; b < guide->blocks; b++)
      for (size_t i = 0; i < w->model->blocks[b].linear_count; i++) guide->energy[b][i] += *sum++;
    guide->loss += *sum;
  }
  return GPTVQ_OK;
}

static gptvq_status normalise(gptvq_guide *guide, const gptvq_model *model, double power, gptvq_error *err) {
  for (size_t row = 0; row < guide->blocks * guide->inputs; row++) {
    float *weights = guide->weights + row * guide->tokens;
    double sum = 0;
    for (size_t t = 0; t < guide->tokens; t++) {
      weights[t] = (float)pow((double)weights[t], power);
      sum += (double)weights[t];
    }
    if (!isfinite(sum))
      return gptvq_fail(err, GPTVQ_ERROR_NUMERIC,
                        "block %zu (model.layers.%zu): the gradients of the loss are NaN or too large: the "
                        "weights are damaged or too large; without `guide`, and with `allocate` uniform, "
                        "none are needed",
                        row / guide->inputs, row / guide->inputs);
    float scale = sum > 0 ? (float)((double)guide->tokens / sum) : 0.0f;
    for (size_t t = 0; t < guide->tokens; t++) weights[t] = sum > 0 ? weights[t] * scale : 1.0f;
  }
  for (size_t b = 0; b < guide->blocks; b++)
    for (size_t i = 0; i < model->blocks[b].linear_count; i++) guide->energy[b][i] /= (double)guide->tokens;
  return GPTVQ_OK;
}

gptvq_status gptvq_guide_create(const gptvq_model *model, const gptvq_token_windows *windows, double power,
                                size_t budget, gptvq_dist *dist, const gptvq_standing *standing,
                                gptvq_guide *out, gptvq_error *err) {
  size_t samples = windows->count, length = windows->length, begin, end;
  *out = (gptvq_guide){.power = power};
  work w = {.model = model,
            .guide = out,
            .tokens = windows->tokens,
            .length = length,
            .hidden = model->config.hidden,
            .vocab = model->config.vocab,
            .projection = gptvq_ft_projection_of(model, model->compute),
            .sweep = {.model = model,
                      .length = length,
                      .callbacks = standing->callbacks,
                      .phase = "quantize",
                      .item = "gradients",
                      .done = standing->done,
                      .total = standing->total}};
  gptvq_status status;
  GPTVQ_TRY_GOTO(allocate(&w, out, samples, budget, err));
  GPTVQ_TRY_GOTO(gptvq_workspace_create(model, 1, length, length, &w.sweep.workspace, err));
  gptvq_ft_projection_read(&w.projection, &model->head, w.logits, w.head);
  gptvq_dist_own(dist, samples, &begin, &end);
  for (size_t first = begin; first < end; first += w.batch) {
    GPTVQ_TRY_GOTO(run_batch(&w, first, gptvq_min_size(w.batch, end - first), err));
    GPTVQ_TRY_GOTO(gptvq_report_progress(standing->callbacks, "quantize", "gradients", standing->done,
                                         standing->total, NAN, err));
  }
  GPTVQ_TRY_GOTO(collect(&w, samples, dist, err));
  if (!isfinite(out->loss)) {
    status = gptvq_fail_numbers(model, NULL, "the output head", err);
    goto done;
  }
  out->loss /= (double)(samples * (length - 1));
  status = normalise(out, model, power, err);
done:
  gptvq_workspace_destroy(w.sweep.workspace);
  void *parts[] = {w.inputs,        w.gradient,      w.head,       w.normed,           w.scale,
                   w.logits,        w.gain_gradient, w.squares[0], w.squares[1],       w.squares[2],
                   w.share_squares, w.losses,        w.sums,       w.projection.states};
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) free(parts[i]);
  if (status != GPTVQ_OK) gptvq_guide_release(out);
  return status;
}
