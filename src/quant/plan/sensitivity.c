#include "quant/plan/sensitivity.h"

#include "base/memory.h"
#include "linalg/gemm.h"
#include "quant/plan/allocate.h"
#include "calib/observers.h"
#include "quant/layer/layer.h"

#include <math.h>
#include <string.h>

/* Indices of more than FAST_BITS bits decode slowly: only where the options ask for such. */
enum { SAMPLE_ROWS = 256, QUICK_EM = 8, MAX_SETTINGS = 32, FAST_BITS = 8 };

typedef struct work {
  const gptvq_model *model;
  const gptvq_guide *guide;
  const gptvq_solver *solver;
  gptvq_sweep sweep;
  size_t setting_count;
  float *x, *weighted; /* [samples × length × hidden]; [length × largest cols] */
  gptvq_hessian hessians[GPTVQ_INPUTS];
  gptvq_allocated settings[MAX_SETTINGS]; /* the first is the options' own */
  gptvq_resolved resolved[MAX_SETTINGS];  /* with each of them */
  gptvq_setting_cost *costs;              /* [layers × setting_count] */
} work;

void gptvq_allocation_release(gptvq_allocation *allocation) {
  if (allocation->layers != NULL)
    for (size_t b = 0; b < allocation->blocks; b++) free(allocation->layers[b]);
  free((void *)allocation->layers);
  *allocation = (gptvq_allocation){0};
}

/* Half a bit per value up and down (a whole one for d = 1) in steps of one index bit, each with the options'
 * codebook cost, half and a quarter of it. Column groups stay as they are, so that one Hessian factor serves
 * all. A factored codebook costs the same for any number of centroids. */
static void list_settings(work *w) {
  const gptvq_resolved *own = w->solver->options;
  const gptvq_quantize_options *o = &own->options;
  int reach = o->dim > 2 ? (int)o->dim / 2 : 1;
  w->resolved[0] = *own;
  w->settings[w->setting_count++] = (gptvq_allocated){o->index_bits, o->group_size};
  for (int step = -reach; step <= reach; step++)
    for (unsigned larger = 0; larger < 3; larger++) {
      int bits = (int)o->index_bits + step;
      size_t group = o->svd_rank > 0 ? o->group_size
                     : step < 0      ? o->group_size >> -step
                                     : o->group_size << step;
      if (bits < 1 || (bits > FAST_BITS && o->index_bits <= FAST_BITS) || (step == 0 && larger == 0) ||
          w->setting_count == MAX_SETTINGS)
        continue;
      gptvq_allocated setting = {(unsigned)bits, group << larger};
      gptvq_resolved *changed = &w->resolved[w->setting_count];
      if (setting.group_size < o->group_cols ||
          gptvq_resolve_sizes(own, setting.index_bits, setting.group_size, changed, NULL) != GPTVQ_OK ||
          gptvq_group_columns(o->group_cols, changed) != gptvq_group_columns(o->group_cols, own))
        continue;
      w->settings[w->setting_count++] = setting;
    }
}

/* Hessians of all inputs of the block; x moves through it. */
static gptvq_status collect(work *w, const gptvq_block *block, gptvq_error *err) {
  gptvq_hessian_watch watches[GPTVQ_INPUTS];
  gptvq_observer observers[GPTVQ_INPUTS];
  const gptvq_stream x = gptvq_stream_over(w->sweep.windows, w->sweep.length * w->model->config.hidden, w->x);
  const gptvq_pass pass = gptvq_whole_block(block, &x, observers, GPTVQ_INPUTS);
  for (int i = 0; i < GPTVQ_INPUTS; i++) {
    size_t linear = gptvq_input_readers(block, (gptvq_block_input)i, 0).linear[0];
    const float *weights = gptvq_guide_weights(w->guide, block->index, (gptvq_block_input)i);
    watches[i] = (gptvq_hessian_watch){&w->hessians[i], {weights, w->sweep.length}, w->weighted};
    observers[i] =
        (gptvq_observer){.linear = linear, .on_input = gptvq_hessian_observe, .context = &watches[i]};
    gptvq_hessian_release(&w->hessians[i]);
    GPTVQ_TRY(gptvq_hessian_init(&w->hessians[i], w->solver->backend->linalg, block->linears[linear].cols,
                                 block->linears[linear].name, err));
  }
  GPTVQ_TRY(gptvq_sweep_block(&w->sweep, &pass, 1, err));
  for (int i = 0; i < GPTVQ_INPUTS; i++)
    GPTVQ_TRY(gptvq_hessian_finish(&w->hessians[i], block->linears[observers[i].linear].name, err));
  return GPTVQ_OK;
}

/* tr(W H Wᵀ) */
static gptvq_status output_power(size_t rows, size_t cols, const float *weights, const double *hessian,
                                 double *power, gptvq_error *err) {
  float *h = gptvq_alloc(cols, cols * sizeof *h), *product = gptvq_alloc(rows, cols * sizeof *product);
  if (h == NULL || product == NULL) {
    free(h);
    free(product);
    return gptvq_fail_memory(err, "the allocation of bits", gptvq_saturated_size(cols, cols * sizeof *h));
  }
  for (size_t i = 0; i < cols * cols; i++) h[i] = (float)hessian[i];
  gptvq_gemm_nn(rows, cols, cols, 1.0f, weights, cols, h, cols, 0.0f, product, cols);
  *power = 0;
  for (size_t i = 0; i < rows * cols; i++) *power += (double)product[i] * (double)weights[i];
  free(h);
  free(product);
  return GPTVQ_OK;
}

/* Without the refinements of the full method. */
static gptvq_status make_quick(const gptvq_resolved *options, gptvq_resolved *quick, gptvq_error *err) {
  gptvq_quantize_options o = options->options;
  o.em_iterations = QUICK_EM < o.em_iterations ? QUICK_EM : o.em_iterations;
  o.codebook_update = 0;
  o.reassign_rounds = 0;
  o.beam = 1;
  return gptvq_resolve(&o, quick, err);
}

/* Bytes and predicted loss of one linear at every setting. */
static gptvq_status measure(work *w, const gptvq_linear *linear, const gptvq_hessian *hessian,
                            const gptvq_factor *factor, double energy, gptvq_setting_cost *costs,
                            gptvq_error *err) {
  size_t cols = linear->cols;
  gptvq_packed_shape shape;
  GPTVQ_TRY(gptvq_layer_shape(linear->rows, cols, w->solver->options, &shape, err));
  size_t rows = gptvq_min_size(linear->rows, gptvq_max_size(shape.group_rows, SAMPLE_ROWS));
  float *weights = gptvq_alloc(linear->rows, cols * sizeof *weights);
  if (weights == NULL)
    return gptvq_fail_memory(err, linear->name, gptvq_saturated_size(linear->rows, cols * sizeof *weights));
  gptvq_linear_decode(linear, weights);
  for (size_t r = 0; r < rows; r++)
    memmove(weights + r * cols, weights + r * linear->rows / rows * cols, cols * sizeof *weights);
  double power = 0;
  gptvq_status status = output_power(rows, cols, weights, hessian->values, &power, err);
  const gptvq_weights sample = {linear->name, rows, cols, weights};
  for (size_t s = 0; s < w->setting_count && status == GPTVQ_OK; s++) {
    gptvq_packed_sizes sizes;
    status = gptvq_layer_shape(linear->rows, cols, &w->resolved[s], &shape, err);
    if (status != GPTVQ_OK) break;
    gptvq_packed_measure(&shape, &sizes);
    costs[s].bytes = sizes.stored_bytes;
    costs[s].loss = NAN;
    if (rows < linear->rows && shape.group_rows > rows)
      continue; /* a codebook for fewer rows would look too good */
    gptvq_resolved quick;
    const gptvq_solver solver = {&quick, w->solver->backend, w->sweep.callbacks, NULL};
    gptvq_layer_result result;
    status = make_quick(&w->resolved[s], &quick, err);
    if (status == GPTVQ_OK) status = gptvq_solve_layer(&solver, &sample, factor, &result, err);
    if (status != GPTVQ_OK) break;
    costs[s].loss = 0.5 * energy * result.error * power * (double)linear->rows / (double)rows;
    gptvq_layer_result_release(&result);
  }
  free(weights);
  return status;
}

static gptvq_status measure_block(work *w, const gptvq_block *block, gptvq_setting_cost *costs,
                                  gptvq_error *err) {
  GPTVQ_TRY(collect(w, block, err));
  for (int input = 0; input < GPTVQ_INPUTS; input++) {
    gptvq_linear_group readers = gptvq_input_readers(block, (gptvq_block_input)input, 0);
    const gptvq_linear *first = &block->linears[readers.linear[0]];
    gptvq_factor *factor = NULL;
    gptvq_status status =
        gptvq_factor_create(w->solver, first->name, first->cols, w->hessians[input].values, &factor, err);
    for (size_t i = 0; i < readers.count && status == GPTVQ_OK; i++) {
      size_t index = readers.linear[i];
      status = measure(w, &block->linears[index], &w->hessians[input], factor,
                       w->guide->energy[block->index][index], costs + index * w->setting_count, err);
      if (status == GPTVQ_OK)
        status = gptvq_report_progress(w->sweep.callbacks, w->sweep.phase, w->sweep.item, w->sweep.done,
                                       w->sweep.total, NAN, err);
    }
    gptvq_factor_destroy(factor);
    GPTVQ_TRY(status);
  }
  return GPTVQ_OK;
}

static gptvq_status prepare(work *w, const int32_t *tokens, gptvq_allocation *out, gptvq_error *err) {
  const gptvq_model *model = w->model;
  size_t hidden = model->config.hidden, largest = hidden, layers = gptvq_model_layer_count(model);
  out->blocks = model->config.layers;
  out->layers = calloc(out->blocks, sizeof *out->layers);
  bool failed = out->layers == NULL;
  for (size_t b = 0; b < out->blocks && !failed; b++) {
    const gptvq_block *block = &model->blocks[b];
    failed = (out->layers[b] = calloc(block->linear_count, sizeof **out->layers)) == NULL;
    for (size_t i = 0; i < block->linear_count; i++)
      largest = gptvq_max_size(largest, block->linears[i].cols);
  }
  size_t length = w->sweep.length, count = w->sweep.windows * length;
  w->x = gptvq_alloc(count, hidden * sizeof *w->x);
  w->weighted = gptvq_alloc(length, largest * sizeof *w->weighted);
  w->costs = gptvq_alloc_zero(layers, w->setting_count * sizeof *w->costs);
  if (failed || w->x == NULL || w->weighted == NULL || w->costs == NULL)
    return gptvq_fail_memory(err, "the allocation of bits",
                             gptvq_saturated_size(count, hidden * sizeof *w->x));
  GPTVQ_TRY(gptvq_workspace_create(model, 1, length, length, &w->sweep.workspace, err));
  return gptvq_embed(model, tokens, count, w->x, err);
}

static gptvq_status choose(work *w, gptvq_allocation *out, gptvq_error *err) {
  size_t layers = gptvq_model_layer_count(w->model), n = w->setting_count;
  size_t *chosen = gptvq_alloc_zero(layers, sizeof *chosen);
  if (chosen == NULL) return gptvq_fail_memory(err, "the allocation of bits", layers * sizeof *chosen);
  for (size_t l = 0; l < layers; l++) out->budget += w->costs[l * n].bytes;
  gptvq_status status = gptvq_allocate(layers, n, w->costs, out->budget, chosen, err);
  size_t l = 0;
  for (size_t b = 0; b < out->blocks; b++)
    for (size_t i = 0; i < w->model->blocks[b].linear_count; i++, l++) {
      out->layers[b][i] = w->settings[chosen[l]];
      out->bytes += w->costs[l * n + chosen[l]].bytes;
      out->loss += w->costs[l * n + chosen[l]].loss;
      out->loss_uniform += w->costs[l * n].loss;
    }
  free(chosen);
  return status;
}

gptvq_status gptvq_pipeline_allocate(const gptvq_solver *solver, const gptvq_model *model,
                                     const gptvq_token_windows *windows, const gptvq_guide *guide,
                                     const gptvq_standing *standing, gptvq_allocation *out,
                                     gptvq_error *err) {
  *out = (gptvq_allocation){0};
  work w = {.model = model,
            .guide = guide,
            .solver = solver,
            .sweep = {.model = model,
                      .windows = windows->count,
                      .length = windows->length,
                      .callbacks = standing->callbacks,
                      .phase = "quantize",
                      .item = "sensitivities",
                      .done = standing->done,
                      .total = standing->total}};
  gptvq_status status;
  list_settings(&w);
  GPTVQ_TRY_GOTO(prepare(&w, windows->tokens, out, err));
  size_t first = 0;
  for (size_t b = 0; b < out->blocks; b++) {
    GPTVQ_TRY_GOTO(measure_block(&w, &model->blocks[b], w.costs + first * w.setting_count, err));
    first += model->blocks[b].linear_count;
  }
  GPTVQ_TRY_GOTO(choose(&w, out, err));
done:
  for (int i = 0; i < GPTVQ_INPUTS; i++) gptvq_hessian_release(&w.hessians[i]);
  gptvq_workspace_destroy(w.sweep.workspace);
  free(w.x);
  free(w.weighted);
  free(w.costs);
  if (status != GPTVQ_OK) gptvq_allocation_release(out);
  return status;
}
