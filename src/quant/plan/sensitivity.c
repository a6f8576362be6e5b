#include "quant/plan/sensitivity.h"

#include "base/memory.h"
#include "linalg/gemm.h"
#include "quant/plan/allocate.h"
#include "calib/observers.h"
#include "quant/layer/layer.h"

#include <math.h>
#include <string.h>

/* Indices of more than FAST_BITS bits decode slowly: only where the options ask for such. */
enum { SAMPLE_ROWS = 256, QUICK_EM = 8, MAX_SETTINGS = 32, FAST_BITS = 8, STRIP = 512 };

/* Layer errors of a trellis of 2, 3 and 4 bits beside each other: medians over the layers of SmolLM2-135M,
 * half of which lie within a tenth of that. */
static const double trellis_error[] = {1.0, 0.316, 0.0955};

typedef struct work {
  const gptvq_model *model;
  const gptvq_guide *guide;
  const gptvq_solver *solver;
  gptvq_sweep sweep;
  size_t setting_count;
  float *x, *weighted;                    /* [samples × length × hidden]; [length × largest cols] */
  size_t hessian_budget;                  /* bytes */
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

/* Of a trellis 2, 3 and 4 bits. */
static void list_trellis_settings(work *w) {
  const gptvq_resolved *own = w->solver->options;
  for (unsigned bits = 2; bits <= 4; bits++)
    if (bits != own->options.index_bits &&
        gptvq_resolve_sizes(own, bits, 0, &w->resolved[w->setting_count], NULL) == GPTVQ_OK)
      w->settings[w->setting_count++] = (gptvq_allocated){bits, 0};
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
  if (o->code == GPTVQ_CODE_TRELLIS) {
    list_trellis_settings(w);
    return;
  }
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

/* Linears that read the same input. */
typedef struct input {
  gptvq_block_input kind;
  gptvq_linear_group readers;
  gptvq_hessian hessian;
  gptvq_hessian_watch watch;
} input;

static void release_inputs(input *inputs, size_t count) {
  for (size_t i = 0; inputs != NULL && i < count; i++) gptvq_hessian_release(&inputs[i].hessian);
  free(inputs);
}

/* The block's, in the order in which a token meets them. */
static gptvq_status list_inputs(const gptvq_block *block, input **out, size_t *count, gptvq_error *err) {
  size_t n = 0;
  *count = 0;
  for (size_t i = 0; i < GPTVQ_ALL_INPUTS; i++) *count += gptvq_input_count(block, gptvq_input_order[i]);
  input *inputs = *out = calloc(*count, sizeof *inputs);
  if (inputs == NULL) return gptvq_fail_memory(err, "the allocation of bits", *count * sizeof *inputs);
  for (size_t i = 0; i < GPTVQ_ALL_INPUTS; i++)
    for (size_t e = 0; e < gptvq_input_count(block, gptvq_input_order[i]); e++)
      inputs[n++] = (input){.kind = gptvq_input_order[i],
                            .readers = gptvq_input_readers(block, gptvq_input_order[i], e)};
  return GPTVQ_OK;
}

/* Hessians of these inputs of the block; with `last`, x moves through it. */
static gptvq_status collect(work *w, const gptvq_block *block, input *inputs, size_t count, bool last,
                            gptvq_error *err) {
  gptvq_observer *observers = calloc(count, sizeof *observers);
  if (observers == NULL) return gptvq_fail_memory(err, "the allocation of bits", count * sizeof *observers);
  const gptvq_stream x = gptvq_stream_over(w->sweep.windows, w->sweep.length * w->model->config.hidden, w->x);
  gptvq_pass pass = gptvq_whole_block(block, &x, observers, count);
  gptvq_status status = GPTVQ_OK;
  if (!last) pass.stop = GPTVQ_STOP_AT_OUTPUT;
  for (size_t i = 0; i < count; i++) {
    input *in = &inputs[i];
    in->watch = (gptvq_hessian_watch){
        &in->hessian, gptvq_guide_watch(w->guide, block->index, in->kind, w->sweep.length), w->weighted, 0.0};
    observers[i] = (gptvq_observer){
        .linear = in->readers.linear[0], .on_input = gptvq_hessian_observe, .context = &in->watch};
  }
  GPTVQ_TRY_GOTO(gptvq_sweep_block(&w->sweep, &pass, 1, err));
  for (size_t i = 0; i < count; i++)
    GPTVQ_TRY_GOTO(gptvq_hessian_finish(&inputs[i].hessian, block->linears[observers[i].linear].name, err));
done:
  free(observers);
  return status;
}

/* What output_power takes. */
static size_t power_bytes(size_t rows, size_t cols) {
  return gptvq_saturated_size(cols, (rows + gptvq_min_size(STRIP, cols)) * sizeof(float));
}

/* tr(W H Wᵀ); H in fp32 a strip of columns at a time */
static gptvq_status output_power(const gptvq_weights *w, const double *hessian, double *power,
                                 gptvq_error *err) {
  const size_t cols = w->cols, strip = gptvq_min_size(STRIP, cols);
  float *h = gptvq_alloc(cols, strip * sizeof *h), *product = gptvq_alloc(w->rows, cols * sizeof *product);
  if (h == NULL || product == NULL) {
    free(h);
    free(product);
    return gptvq_fail_memory(err, "the allocation of bits", power_bytes(w->rows, cols));
  }
  for (size_t first = 0; first < cols; first += strip) {
    const size_t n = gptvq_min_size(strip, cols - first);
    for (size_t i = 0; i < cols; i++)
      for (size_t c = 0; c < n; c++) h[i * n + c] = (float)hessian[i * cols + first + c];
    gptvq_gemm_nn(w->rows, n, cols, 1.0f, w->values, cols, h, n, 0.0f, product + first, cols);
  }
  *power = 0;
  for (size_t i = 0; i < w->rows * cols; i++) *power += (double)product[i] * (double)w->values[i];
  free(h);
  free(product);
  return GPTVQ_OK;
}

gptvq_status gptvq_allocation_quick(const gptvq_resolved *options, gptvq_resolved *quick, gptvq_error *err) {
  gptvq_quantize_options o = options->options;
  o.em_iterations = QUICK_EM < o.em_iterations ? QUICK_EM : o.em_iterations;
  o.codebook_update = 0;
  o.reassign_rounds = 0;
  o.beam = 1;
  return gptvq_resolve(&o, quick, err);
}

/* At how many settings each linear is quantized. */
static size_t trials(const work *w) {
  return w->solver->options->options.code == GPTVQ_CODE_TRELLIS ? 1 : w->setting_count;
}

/* How many rows of a linear are quantized; of a trellis, whose tables are those of all rows, some as well. */
static size_t sample_rows(const gptvq_packed_shape *shape) {
  const bool trellis = shape->kind == GPTVQ_PACKED_TRELLIS;
  return gptvq_min_size(shape->rows, gptvq_max_size(trellis ? 1 : shape->group_rows, SAMPLE_ROWS));
}

/* Some rows of a linear, evenly spread, in memory that is the caller's to free. */
static gptvq_status take_sample(const work *w, const gptvq_linear *linear, gptvq_weights *sample,
                                gptvq_error *err) {
  gptvq_packed_shape shape;
  GPTVQ_TRY(gptvq_layer_shape(linear->rows, linear->cols, w->solver->options, &shape, err));
  const size_t rows = sample_rows(&shape);
  float *values = gptvq_alloc(rows, linear->cols * sizeof *values);
  if (values == NULL)
    return gptvq_fail_memory(err, linear->name, gptvq_saturated_size(rows, linear->cols * sizeof *values));
  for (size_t r = 0; r < rows; r++) {
    const size_t row = r * linear->rows / rows;
    gptvq_linear_decode_rows(linear, row, row + 1, values + r * linear->cols);
  }
  *sample = (gptvq_weights){linear->name, rows, linear->cols, values};
  return GPTVQ_OK;
}

/* Bytes and predicted loss of one linear at every setting; energy_power: of what its outputs are worth, of
 * the sample's rows. */
static gptvq_status measure(work *w, const gptvq_linear *linear, const gptvq_weights *sample,
                            const gptvq_factor *factor, double energy_power, gptvq_setting_cost *costs,
                            gptvq_error *err) {
  gptvq_packed_shape shape;
  const unsigned own_bits = w->settings[0].index_bits;
  gptvq_status status = GPTVQ_OK;
  for (size_t s = 0; s < w->setting_count && status == GPTVQ_OK; s++) {
    gptvq_packed_sizes sizes;
    status = gptvq_layer_shape(linear->rows, linear->cols, &w->resolved[s], &shape, err);
    if (status != GPTVQ_OK) break;
    const bool trellis = shape.kind == GPTVQ_PACKED_TRELLIS;
    gptvq_packed_measure(&shape, &sizes);
    costs[s].bytes = sizes.stored_bytes;
    costs[s].loss =
        trellis ? costs[0].loss * trellis_error[w->settings[s].index_bits - 2] / trellis_error[own_bits - 2]
                : (double)NAN;
    if (s >= trials(w)) continue;
    if (!trellis && sample->rows < linear->rows && shape.group_rows > sample->rows)
      continue; /* a codebook for fewer rows would look too good */
    gptvq_resolved quick;
    const gptvq_solver solver = {&quick, w->solver->backend, w->sweep.callbacks, NULL, NULL};
    gptvq_layer_result result;
    status = gptvq_allocation_quick(&w->resolved[s], &quick, err);
    if (status == GPTVQ_OK) status = gptvq_solve_layer(&solver, sample, factor, &result, err);
    if (status != GPTVQ_OK) break;
    costs[s].loss = 0.5 * energy_power * result.error * (double)linear->rows / (double)sample->rows;
    gptvq_layer_result_release(&result);
  }
  return status;
}

/* The options' own sizes, as no token of these windows says how much others would lose. */
static gptvq_status keep_own(const work *w, const gptvq_linear *linear, gptvq_setting_cost *costs,
                             gptvq_error *err) {
  for (size_t s = 0; s < w->setting_count; s++) {
    gptvq_packed_shape shape;
    gptvq_packed_sizes sizes;
    GPTVQ_TRY(gptvq_layer_shape(linear->rows, linear->cols, &w->resolved[s], &shape, err));
    gptvq_packed_measure(&shape, &sizes);
    costs[s] = (gptvq_setting_cost){.bytes = sizes.stored_bytes, .loss = s == 0 ? 0.0 : (double)NAN};
  }
  return GPTVQ_OK;
}

/* Of all linears of one input that tokens have reached. Its Hessian is gone afterwards: the factor takes its
 * place. The guide's energy is a mean over all tokens, the Hessian of an expert one over its own, and weights
 * whose sum may be another than their number. */
static gptvq_status measure_reached(work *w, const gptvq_block *block, input *in, gptvq_setting_cost *costs,
                                    gptvq_error *err) {
  const gptvq_linear *first = &block->linears[in->readers.linear[0]];
  const bool routed = gptvq_block_routes(block) && gptvq_input_in_mlp(in->kind);
  const double scale = routed ? (double)in->hessian.tokens / in->watch.sum : 1.0;
  const size_t count = in->readers.count;
  gptvq_factor *factor = NULL;
  gptvq_status status = GPTVQ_OK;
  double *power = calloc(count, sizeof *power);
  gptvq_weights *samples = calloc(count, sizeof *samples);
  if (power == NULL || samples == NULL) {
    status = gptvq_fail_memory(err, "the allocation of bits", count * (sizeof *power + sizeof *samples));
    goto done;
  }
  for (size_t i = 0; i < count; i++) {
    GPTVQ_TRY_GOTO(take_sample(w, &block->linears[in->readers.linear[i]], &samples[i], err));
    GPTVQ_TRY_GOTO(output_power(&samples[i], in->hessian.values, &power[i], err));
  }
  double *hessian = in->hessian.values;
  in->hessian.values = NULL; /* the factor's memory from now on */
  GPTVQ_TRY_GOTO(gptvq_factor_create_over(w->solver, first->name, first->cols, hessian, &factor, err));
  for (size_t i = 0; i < count; i++) {
    const size_t index = in->readers.linear[i];
    GPTVQ_TRY_GOTO(measure(w, &block->linears[index], &samples[i], factor,
                           w->guide->energy[block->index][index] * scale * power[i],
                           costs + index * w->setting_count, err));
    GPTVQ_TRY_GOTO(gptvq_report_progress(w->sweep.callbacks, w->sweep.phase, w->sweep.item, w->sweep.done,
                                         w->sweep.total, NAN, err));
  }
done:
  for (size_t i = 0; samples != NULL && i < count; i++) free((float *)(uintptr_t)samples[i].values);
  free(samples);
  free(power);
  gptvq_factor_destroy(factor);
  return status;
}

static gptvq_status measure_input(work *w, const gptvq_block *block, input *in, gptvq_setting_cost *costs,
                                  gptvq_error *err) {
  if (in->hessian.tokens > 0 && in->watch.sum > 0.0) return measure_reached(w, block, in, costs, err);
  for (size_t i = 0; i < in->readers.count; i++) {
    const size_t index = in->readers.linear[i];
    GPTVQ_TRY(keep_own(w, &block->linears[index], costs + index * w->setting_count, err));
    GPTVQ_TRY(gptvq_report_progress(w->sweep.callbacks, w->sweep.phase, w->sweep.item, w->sweep.done,
                                    w->sweep.total, NAN, err));
  }
  return GPTVQ_OK;
}

/* x passes a block that another member measures. */
static gptvq_status pass_block(work *w, const gptvq_block *block, gptvq_error *err) {
  const gptvq_stream x = gptvq_stream_over(w->sweep.windows, w->sweep.length * w->model->config.hidden, w->x);
  const gptvq_pass pass = gptvq_whole_block(block, &x, NULL, 0);
  return gptvq_sweep_block(&w->sweep, &pass, 1, err);
}

/* Costs of all blocks, from the members that measured them: member r blocks [first of r, first of r + 1). */
static gptvq_status gather_costs(work *w, gptvq_error *err) {
  gptvq_dist *dist = w->solver->dist;
  if (dist == NULL || gptvq_dist_alone(dist)) return GPTVQ_OK;
  const size_t blocks = w->model->config.layers, members = dist->team.count;
  size_t *offsets = gptvq_alloc(members + 1, sizeof *offsets);
  if (offsets == NULL)
    return gptvq_fail_memory(err, "the allocation of bits", (members + 1) * sizeof *offsets);
  for (size_t r = 0, b = 0, linears = 0; r <= members; r++) {
    for (; b < gptvq_dist_first(dist, blocks, r); b++) linears += w->model->blocks[b].linear_count;
    offsets[r] = linears * w->setting_count * sizeof *w->costs;
  }
  gptvq_status status = gptvq_dist_gather_parts(dist, w->costs, offsets, err);
  free(offsets);
  return status;
}

/* As many Hessians at a time as the budget allows, at least one; x has passed the block at the end. */
static gptvq_status measure_block(work *w, const gptvq_block *block, gptvq_setting_cost *costs,
                                  gptvq_error *err) {
  input *inputs;
  size_t count;
  gptvq_status status;
  GPTVQ_TRY_GOTO(list_inputs(block, &inputs, &count, err));
  for (size_t first = 0, end; first < count; first = end) {
    size_t bytes = 0;
    for (end = first; end < count; end++) {
      const gptvq_linear *linear = &block->linears[inputs[end].readers.linear[0]];
      const size_t one = gptvq_hessian_bytes(linear->cols);
      if (end > first && (one > w->hessian_budget || bytes > w->hessian_budget - one)) break;
      GPTVQ_TRY_GOTO(gptvq_hessian_init(&inputs[end].hessian, w->solver->backend->linalg, linear->cols,
                                        linear->name, err));
      bytes += one;
    }
    GPTVQ_TRY_GOTO(collect(w, block, inputs + first, end - first, end == count, err));
    for (size_t i = first; i < end; i++) {
      GPTVQ_TRY_GOTO(measure_input(w, block, &inputs[i], costs, err));
      gptvq_hessian_release(&inputs[i].hessian);
    }
  }
done:
  release_inputs(inputs, count);
  return status;
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

void gptvq_allocation_trials(const gptvq_resolved *options, const gptvq_linear *linear, size_t *settings,
                             size_t *rows) {
  const gptvq_solver solver = {.options = options};
  work w = {.solver = &solver};
  gptvq_packed_shape shape;
  *settings = *rows = 0;
  if (gptvq_layer_shape(linear->rows, linear->cols, options, &shape, NULL) != GPTVQ_OK) return;
  list_settings(&w);
  *settings = trials(&w);
  *rows = sample_rows(&shape);
}

double gptvq_allocation_input_bytes(const gptvq_resolved *options, const gptvq_block *block,
                                    const gptvq_linear_group *readers) {
  const gptvq_solver solver = {.options = options};
  const size_t cols = block->linears[readers->linear[0]].cols;
  double samples = 0.0, power = 0.0, solving = 0.0;
  work w = {.solver = &solver};
  list_settings(&w);
  for (size_t i = 0; i < readers->count; i++) {
    gptvq_packed_shape shape;
    gptvq_resolved quick;
    if (gptvq_layer_shape(block->linears[readers->linear[i]].rows, cols, options, &shape, NULL) != GPTVQ_OK)
      continue;
    const size_t rows = sample_rows(&shape);
    samples += sizeof(float) * (double)rows * (double)cols;
    power = fmax(power, (double)power_bytes(rows, cols));
    for (size_t s = 0; s < trials(&w); s++)
      if (gptvq_allocation_quick(&w.resolved[s], &quick, NULL) == GPTVQ_OK &&
          gptvq_layer_shape(rows, cols, &quick, &shape, NULL) == GPTVQ_OK)
        solving =
            fmax(solving, (double)gptvq_packed_bytes(&shape) +
                              (double)gptvq_solve_bytes(&(gptvq_solver){.options = &quick}, &shape, true));
  }
  const double before = (double)gptvq_hessian_bytes(cols) + power,
               during = (double)gptvq_factor_peak_bytes(cols, options),
               after = (double)gptvq_factor_bytes(cols, options) + solving;
  return samples + fmax(before, fmax(during, after));
}

uint64_t gptvq_allocation_spare(const gptvq_model *model, const gptvq_resolved *options) {
  double spare = 0.0;
  if (options->shared == 0.0) return 0;
  for (size_t b = 0; b < model->config.layers; b++)
    for (size_t i = 0; i < model->blocks[b].linear_count; i++) {
      const gptvq_linear *linear = &model->blocks[b].linears[i];
      gptvq_packed_shape shape;
      gptvq_packed_sizes sizes;
      if (gptvq_layer_shape(linear->rows, linear->cols, options, &shape, NULL) != GPTVQ_OK) return 0;
      gptvq_packed_measure(&shape, &sizes);
      spare +=
          options->shared / 8.0 * (double)linear->rows * (double)linear->cols - (double)sizes.stored_bytes;
    }
  return spare > 0.0 ? (uint64_t)spare : 0;
}

bool gptvq_allocation_has_choice(const gptvq_model *model, const gptvq_resolved *options) {
  return options->options.code != GPTVQ_CODE_TRELLIS || options->options.index_bits > 2 ||
         gptvq_allocation_spare(model, options) > 0;
}

static gptvq_status choose(work *w, gptvq_allocation *out, gptvq_error *err) {
  size_t layers = gptvq_model_layer_count(w->model), n = w->setting_count;
  size_t *chosen = gptvq_alloc_zero(layers, sizeof *chosen);
  if (chosen == NULL) return gptvq_fail_memory(err, "the allocation of bits", layers * sizeof *chosen);
  for (size_t l = 0; l < layers; l++) out->budget += w->costs[l * n].bytes;
  out->budget += gptvq_allocation_spare(w->model, w->solver->options);
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
                                     size_t hessian_budget, const gptvq_standing *standing,
                                     gptvq_allocation *out, gptvq_error *err) {
  *out = (gptvq_allocation){0};
  work w = {.model = model,
            .guide = guide,
            .hessian_budget = hessian_budget,
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
  size_t linears = 0, begin, end;
  gptvq_dist_own(solver->dist, out->blocks, &begin, &end);
  for (size_t b = 0; b < end; b++) {
    const gptvq_block *block = &model->blocks[b];
    GPTVQ_TRY_GOTO(b < begin ? pass_block(&w, block, err)
                             : measure_block(&w, block, w.costs + linears * w.setting_count, err));
    linears += block->linear_count;
  }
  GPTVQ_TRY_GOTO(gather_costs(&w, err));
  GPTVQ_TRY_GOTO(choose(&w, out, err));
done:
  gptvq_workspace_destroy(w.sweep.workspace);
  free(w.x);
  free(w.weighted);
  free(w.costs);
  if (status != GPTVQ_OK) gptvq_allocation_release(out);
  return status;
}
