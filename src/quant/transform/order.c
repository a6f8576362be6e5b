/* Columns by their weight in the loss, as far as the neighbouring layer can take up the order. */
#include "base/memory.h"
#include "base/threads.h"
#include "base/keyed.h"
#include "calib/sweep.h"
#include "quant/transform/internal.h"

#include <math.h>
#include <string.h>

typedef struct square_job {
  const float *x;
  size_t n, ldx;
  double *sums;
} square_job;

static void add_squares(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const square_job *job = context;
  for (size_t t = 0; t < job->n; t++) {
    const float *x = job->x + t * job->ldx;
    for (size_t c = begin; c < end; c++) job->sums[c] += (double)x[c] * (double)x[c];
  }
}

/* An observer: context[cols] += squares of the inputs. */
static gptvq_status add_energy(void *context, const gptvq_observed *in, gptvq_error *err) {
  (void)err;
  square_job job = {in->x, in->rows, in->ldx, context};
  gptvq_parallel_for(in->cols, 256, add_squares, &job);
  return GPTVQ_OK;
}

/* order[i] = offset + the place of the i-th largest of keys[n].key (at = 0 … n − 1); with dim > 1 sub-vector
 * i has the i-th of each of dim equal parts of the sorted columns, what does not fill one stands at the end.
 */
static void sort_keys(gptvq_keyed *keys, size_t n, unsigned dim, size_t offset, uint32_t *order) {
  size_t part = n / dim;
  gptvq_sort_descending(keys, n);
  for (size_t i = 0; i < n; i++) {
    size_t from = i < part * dim ? i % dim * part + i / dim : i;
    order[i] = (uint32_t)offset + keys[from].at;
  }
}

typedef struct column_job {
  size_t rows, cols;
  const float *weights;
  double *sums;
} column_job;

static void weigh_columns(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const column_job *job = context;
  for (size_t c = begin; c < end; c++) job->sums[c] = 0;
  for (size_t r = 0; r < job->rows; r++) {
    const float *row = job->weights + r * job->cols;
    for (size_t c = begin; c < end; c++) job->sums[c] += (double)row[c] * (double)row[c];
  }
}

/* sums[cols] times the squared norm of each column of the linear: what it adds to the outputs */
static gptvq_status weigh(const gptvq_linear *linear, double *sums, gptvq_error *err) {
  size_t rows = linear->rows, cols = linear->cols;
  float *weights = gptvq_alloc(rows, cols * sizeof *weights);
  double *norms = gptvq_alloc(cols, sizeof *norms);
  gptvq_status status = GPTVQ_OK;
  if (weights == NULL || norms == NULL) {
    status = gptvq_fail_memory(err, linear->name, gptvq_saturated_size(rows, cols * sizeof *weights));
  } else {
    column_job job = {rows, cols, weights, norms};
    gptvq_linear_decode(linear, weights);
    gptvq_parallel_for(cols, 256, weigh_columns, &job);
    for (size_t c = 0; c < cols && status == GPTVQ_OK; c++) {
      sums[c] *= norms[c];
      if (!isfinite(sums[c]))
        status = gptvq_fail(err, GPTVQ_ERROR_NUMERIC,
                            "%s: column %zu of the weights is NaN, infinite or too large", linear->name, c);
    }
  }
  free(weights);
  free(norms);
  return status;
}

static void order_values(const gptvq_config *c, const double *sums, unsigned dim, gptvq_keyed *keys,
                         uint32_t *order) {
  size_t shared = c->heads / c->kv_heads, width = c->head_dim;
  for (size_t h = 0; h < c->kv_heads; h++) {
    for (size_t j = 0; j < width; j++) {
      double sum = 0;
      for (size_t q = h * shared; q < (h + 1) * shared; q++) sum += sums[q * width + j];
      keys[j] = (gptvq_keyed){sum, (uint32_t)j};
    }
    sort_keys(keys, width, dim, h * width, order + h * width);
  }
}

static gptvq_status check_sums(const gptvq_linear *linear, const double *sums, gptvq_error *err) {
  for (size_t i = 0; i < linear->cols; i++)
    if (!isfinite(sums[i]))
      return gptvq_fail(
          err, GPTVQ_ERROR_NUMERIC,
          "%s: the calibration inputs are NaN or too large in input column %zu; the model does not "
          "compute finite numbers on this text",
          linear->name, i);
  return GPTVQ_OK;
}

gptvq_status gptvq_transform_orders(gptvq_transform *transform, const gptvq_token_windows *windows,
                                    unsigned dim, gptvq_stream_place place, const gptvq_callbacks *callbacks,
                                    gptvq_error *err) {
  size_t samples = windows->count, length = windows->length;
  const gptvq_model *model = transform->model;
  const gptvq_config *c = &model->config;
  size_t mlps = gptvq_model_mlps(model), wide = 0, values = c->kv_heads * c->head_dim;
  size_t widest = gptvq_model_mlp_width(model), down = mlps * widest;
  /* values of latent attention share a linear with keys: they keep their order */
  bool outputs = (transform->rotate & GPTVQ_ROTATE_HEADS) == 0 && c->latent.kv_rank == 0 &&
                 !gptvq_heads_are_gated(model);
  gptvq_status status;
  gptvq_sweep sweep = {.model = model,
                       .windows = samples,
                       .length = length,
                       .callbacks = callbacks,
                       .phase = "order",
                       .step = 1,
                       .total = c->layers * samples};
  for (size_t b = 0; b < c->layers; b++)
    wide = gptvq_max_size(wide, model->blocks[b].linears[model->blocks[b].o].cols);
  gptvq_stream x = {.file = -1};
  /* squares of the inputs: of o_proj, then of the down_proj of every expert */
  double *sums = gptvq_alloc(wide + down, sizeof *sums);
  gptvq_observer *observers = gptvq_alloc(1 + mlps, sizeof *observers);
  gptvq_keyed *keys = gptvq_alloc(gptvq_max_size(widest, c->head_dim), sizeof *keys);
  transform->mlp_order = gptvq_alloc(c->layers, down * sizeof *transform->mlp_order);
  if (outputs) transform->value_order = gptvq_alloc(c->layers, values * sizeof *transform->value_order);
  if (sums == NULL || observers == NULL || keys == NULL || transform->mlp_order == NULL ||
      (outputs && transform->value_order == NULL)) {
    status = gptvq_fail_memory(err, "the order of columns",
                               gptvq_saturated_size(gptvq_saturated_sum(wide, down), sizeof *sums));
    goto done;
  }
  GPTVQ_TRY_GOTO(gptvq_stream_create(samples, length * c->hidden, place, "calibration activations", &x, err));
  GPTVQ_TRY_GOTO(gptvq_workspace_create(model, 1, length, length, &sweep.workspace, err));
  GPTVQ_TRY_GOTO(gptvq_embed_windows(model, windows, NULL, &x, err));
  for (size_t b = 0; b < c->layers; b++, sweep.done += samples) {
    const gptvq_block *block = &model->blocks[b];
    const gptvq_pass pass = gptvq_whole_block(block, &x, observers, 1 + block->mlp_count);
    observers[0] = (gptvq_observer){.linear = block->o, .on_input = add_energy, .context = sums};
    for (size_t e = 0; e < block->mlp_count; e++)
      observers[1 + e] = (gptvq_observer){
          .linear = block->mlps[e].down, .on_input = add_energy, .context = sums + wide + e * widest};
    memset(sums, 0, (wide + down) * sizeof *sums);
    sweep.item = block->linears[block->o].name;
    GPTVQ_TRY_GOTO(gptvq_sweep_block(&sweep, &pass, 1, err));
    gptvq_block_rest(block);
    GPTVQ_TRY_GOTO(check_sums(&block->linears[block->o], sums, err));
    for (size_t e = 0; e < block->mlp_count; e++) {
      const gptvq_linear *linear = &block->linears[block->mlps[e].down];
      double *energy = sums + wide + e * widest;
      GPTVQ_TRY_GOTO(check_sums(linear, energy, err));
      if (dim > 1) GPTVQ_TRY_GOTO(weigh(linear, energy, err));
      for (size_t i = 0; i < linear->cols; i++) keys[i] = (gptvq_keyed){energy[i], (uint32_t)i};
      sort_keys(keys, linear->cols, dim, 0, gptvq_expert_order(transform, b, e));
    }
    if (outputs && dim > 1) GPTVQ_TRY_GOTO(weigh(&block->linears[block->o], sums, err));
    if (outputs) order_values(c, sums, dim, keys, gptvq_block_value_order(transform, b));
  }
done:
  gptvq_workspace_destroy(sweep.workspace);
  free(observers);
  free(keys);
  free(sums);
  gptvq_stream_release(&x);
  return status;
}
