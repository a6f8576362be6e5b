/* One transformer block: Hessians of the inputs of its linears as the calibration windows pass through it,
 * then the solver. */
#include "quant/run/pipeline.h"
#include "base/memory.h"
#include "calib/observers.h"
#include "train/guide.h"
#include "quant/plan/memory.h"
#include "quant/plan/sensitivity.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Linears that read the same input and so share a Hessian. */
typedef struct input {
  gptvq_linear_group readers;
  gptvq_block_input kind;
  size_t mlp;              /* whose input it is */
  size_t tokens;           /* that its Hessian was made of */
  size_t watched;          /* what observers know it by */
  gptvq_hessian hessian;   /* values NULL outside of a pass */
  gptvq_mismatch mismatch; /* cols 0 when it is not corrected */
  gptvq_hessian_watch watch;
} input;

typedef struct block_work {
  gptvq_pipeline *pipeline;
  const gptvq_block *original;
  gptvq_block block;                   /* the copy whose linears become packed one by one */
  input *inputs;                       /* in the order in which a token meets them, the experts' together;
                                          behind them what a router reads (router_input) */
  size_t input_count, attention_count; /* those of the attention first */
  gptvq_observer *observers;           /* [input_count + 2] */
  gptvq_layer_result *results;
  bool *solved;         /* [linear_count] */
  gptvq_kept kept;      /* inputs of the output layer at work */
  bool original_passed; /* x_original has passed the half at work */
} block_work;

static bool in_mlp(const input *in) { return gptvq_input_in_mlp(in->kind); }
static bool is_output(const input *in) { return gptvq_input_is_last(in->kind); }
/* The tokens of all experts: what their gates and ups read, whichever tokens choose them. */
static input *router_input(const block_work *work) { return &work->inputs[work->input_count]; }
static const gptvq_linear *first_reader(const block_work *work, const input *in) {
  return &work->original->linears[in->readers.linear[0]];
}

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

static void release_work(block_work *work) {
  if (work->inputs != NULL)
    for (size_t i = 0; i <= work->input_count; i++) {
      gptvq_hessian_release(&work->inputs[i].hessian);
      gptvq_mismatch_release(&work->inputs[i].mismatch);
    }
  gptvq_stream_release(&work->kept.inputs);
  free(work->inputs);
  free(work->observers);
  free(work->solved);
  free(work->block.linears);
}

static gptvq_status prepare_work(block_work *work, gptvq_error *err) {
  const gptvq_block *block = work->original;
  size_t inputs = 0;
  for (size_t i = 0; i < GPTVQ_ALL_INPUTS; i++) inputs += gptvq_input_count(block, gptvq_input_order[i]);
  GPTVQ_TRY(gptvq_block_copy(block, &work->block, err));
  work->inputs = calloc(inputs + 1, sizeof *work->inputs);
  work->observers = calloc(inputs + 2, sizeof *work->observers);
  work->solved = calloc(block->linear_count, sizeof *work->solved);
  if (work->inputs == NULL || work->observers == NULL || work->solved == NULL)
    return gptvq_fail_memory(err, "a block", inputs * sizeof *work->inputs);
  for (size_t i = 0; i < GPTVQ_ALL_INPUTS; i++) {
    const gptvq_block_input kind = gptvq_input_order[i];
    for (size_t e = 0; e < gptvq_input_count(block, kind); e++) {
      const gptvq_linear_group readers = gptvq_input_readers(block, kind, e);
      work->inputs[work->input_count++] =
          (input){.readers = readers, .kind = kind, .mlp = e, .watched = readers.linear[0]};
    }
  }
  work->inputs[work->input_count] =
      (input){.readers = block->mlps[0].input, .kind = GPTVQ_INPUT_GATE_UP, .watched = GPTVQ_ROUTER_INPUT};
  while (!in_mlp(&work->inputs[work->attention_count])) work->attention_count++;
  return GPTVQ_OK;
}

/* The count of layers stands still while windows pass. */
static gptvq_status run_windows(const gptvq_pipeline *p, const char *item, const gptvq_pass *passes,
                                size_t count, const gptvq_sweep *rounds, gptvq_error *err) {
  const gptvq_deal all = gptvq_deal_of(p->samples, 0, 1);
  const gptvq_sweep sweep = {.model = p->model,
                             .workspace = p->workspace,
                             .forward = p->forward,
                             .windows = p->samples,
                             .length = p->length,
                             .deal = p->deal.windows > 0 ? &p->deal : &all,
                             .on_round = rounds != NULL ? rounds->on_round : NULL,
                             .round_context = rounds != NULL ? rounds->round_context : NULL,
                             .callbacks = p->solver.callbacks,
                             .phase = "quantize",
                             .item = item,
                             .done = p->layers_done,
                             .total = p->layers_total,
                             .stages = p->solver.stages};
  return gptvq_sweep_block(&sweep, passes, count, err);
}

/* Inputs whose sums a sweep adds up. */
typedef struct collection {
  const gptvq_pipeline *pipeline;
  input *first, *last;
} collection;

/* A group of windows has passed, or one on each member of a team. */
static gptvq_status end_group(void *context, size_t round, gptvq_error *err) {
  const collection *c = context;
  const gptvq_pipeline *p = c->pipeline;
  gptvq_stage before = gptvq_stage_enter(p->solver.stages, GPTVQ_STAGE_HESSIAN);
  for (input *in = c->first; in <= c->last; in++)
    GPTVQ_TRY(gptvq_hessian_add_group(&in->hessian, p->dist, &p->deal, round, err));
  (void)gptvq_stage_enter(p->solver.stages, GPTVQ_STAGE_MISMATCH);
  if (c->first->mismatch.cols > 0)
    GPTVQ_TRY(gptvq_mismatch_add_group(&c->first->mismatch, p->dist, &p->deal, round, err));
  (void)gptvq_stage_enter(p->solver.stages, before);
  return GPTVQ_OK;
}

/* All groups have passed. */
static gptvq_status end_collection(const collection *c, gptvq_error *err) {
  const gptvq_pipeline *p = c->pipeline;
  gptvq_stage before = gptvq_stage_enter(p->solver.stages, GPTVQ_STAGE_HESSIAN);
  for (input *in = c->first; in <= c->last; in++) GPTVQ_TRY(gptvq_hessian_gather(&in->hessian, p->dist, err));
  (void)gptvq_stage_enter(p->solver.stages, GPTVQ_STAGE_MISMATCH);
  if (c->first->mismatch.cols > 0) GPTVQ_TRY(gptvq_mismatch_gather(&c->first->mismatch, p->dist, err));
  (void)gptvq_stage_enter(p->solver.stages, before);
  return GPTVQ_OK;
}

/* Rows of the sums of a mismatch. */
static size_t mismatch_height(const input *in) {
  return in->mismatch.rows > 0 ? in->mismatch.rows : in->mismatch.cols;
}

/* All windows once through the part of the block that produces inputs [begin, end), whose Hessians and
 * mismatch add up. x keeps its values; with `whole` it enters the attention, else the half of the block that
 * the inputs belong to. scratch: see gptvq_hessian_watch; reference: gptvq_mismatch_watch. */
static gptvq_status collect(block_work *work, size_t begin, size_t end, bool whole, float *scratch,
                            float *reference, gptvq_error *err) {
  const gptvq_pipeline *p = work->pipeline;
  input *first = &work->inputs[begin], *last = &work->inputs[end - 1];
  bool corrects = first->mismatch.cols > 0, attention = whole || !in_mlp(first), mlp = in_mlp(last);
  const bool starts_half = last->kind == GPTVQ_INPUT_QKV || last->kind == GPTVQ_INPUT_GATE_UP;
  gptvq_stop stop = starts_half ? GPTVQ_STOP_AT_INPUT : GPTVQ_STOP_AT_OUTPUT;
  size_t observers = 0, linear = first->watched;
  for (input *in = first; in <= last; in++) {
    in->watch = (gptvq_hessian_watch){.hessian = &in->hessian, .scratch = scratch};
    if (p->guide != NULL)
      in->watch.weights = gptvq_guide_watch(p->guide, work->original->index, in->kind, p->length);
    double cols = (double)in->hessian.cols;
    work->observers[observers++] = (gptvq_observer){.linear = in->watched,
                                                    .on_input = gptvq_hessian_observe,
                                                    .context = &in->watch,
                                                    .stage = GPTVQ_STAGE_HESSIAN,
                                                    .row_flop = cols * (cols + 1.0),
                                                    .passes_on = gptvq_hessian_passes_on(&in->watch)};
  }
  gptvq_mismatch_watch mismatch = {.mismatch = &first->mismatch,
                                   .weights = first->watch.weights,
                                   .remembered = reference,
                                   .bias = first_reader(work, first)->bias,
                                   .scale = (float)p->model->config.residual_scale};
  if (corrects)
    work->observers[observers++] =
        (gptvq_observer){.linear = linear,
                         .on_input = gptvq_mismatch_observe,
                         .context = &mismatch,
                         .stage = GPTVQ_STAGE_MISMATCH,
                         .row_flop = 2.0 * (double)(mismatch_height(first) * first->mismatch.cols),
                         .passes_on = gptvq_mismatch_passes_on(&mismatch)};
  if (work->kept.inputs.windows > 0)
    work->observers[observers++] = (gptvq_observer){
        .linear = linear, .on_input = gptvq_keep_input, .context = &work->kept, .stage = GPTVQ_STAGE_FORWARD};
  const gptvq_observer remember = {.linear = linear,
                                   .on_input = gptvq_mismatch_remember,
                                   .context = &mismatch,
                                   .stage = GPTVQ_STAGE_MISMATCH,
                                   .passes_on = corrects && gptvq_mismatch_passes_on(&mismatch)};
  work->original_passed = corrects && is_output(first); /* its weights are known: it need not come back */
  const gptvq_pass passes[2] = {{.block = work->original,
                                 .x = p->x_original,
                                 .attention = attention,
                                 .mlp = mlp,
                                 .stop = work->original_passed ? GPTVQ_RUN_ALL : stop,
                                 .observers = &remember,
                                 .observer_count = 1,
                                 .stage = GPTVQ_STAGE_FORWARD_ORIGINAL},
                                {.block = &work->block,
                                 .x = p->x,
                                 .attention = attention,
                                 .mlp = mlp,
                                 .stop = stop,
                                 .observers = work->observers,
                                 .observer_count = observers,
                                 .stage = GPTVQ_STAGE_FORWARD}};
  const char *name = first_reader(work, first)->name;
  collection sums = {p, first, last};
  const gptvq_sweep rounds = {.on_round = end_group, .round_context = &sums};
  GPTVQ_TRY(run_windows(p, name, corrects ? passes : passes + 1, corrects ? 2 : 1, &rounds, err));
  return end_collection(&sums, err);
}

/* The linear's own sizes, where bits are allocated. */
static gptvq_status options_of(const block_work *work, size_t index, gptvq_resolved *own, gptvq_error *err) {
  const gptvq_pipeline *p = work->pipeline;
  *own = *p->solver.options;
  if (p->allocation == NULL) return GPTVQ_OK;
  const gptvq_allocated *sizes = &p->allocation->layers[work->original->index][index];
  return gptvq_resolve_sizes(p->solver.options, sizes->index_bits, sizes->group_size, own, err);
}

static gptvq_status solve_linear(block_work *work, size_t index, const gptvq_factor *factor,
                                 const gptvq_mismatch *mismatch, gptvq_error *err) {
  gptvq_pipeline *p = work->pipeline;
  const gptvq_linear *linear = &work->original->linears[index];
  gptvq_resolved own;
  GPTVQ_TRY(options_of(work, index, &own, err));
  size_t values = linear->rows * linear->cols;
  float *weights = gptvq_alloc(values, sizeof *weights);
  if (weights == NULL)
    return gptvq_fail_memory(err, linear->name, gptvq_saturated_size(values, sizeof *weights));
  gptvq_linear_decode(linear, weights);
  const gptvq_solver solver = {&own, p->solver.backend, p->solver.callbacks, p->solver.stages,
                               p->solver.dist};
  const gptvq_weights w = {linear->name, linear->rows, linear->cols, weights};
  gptvq_status status = GPTVQ_OK;
  if (mismatch->map != NULL) {
    gptvq_stage before = gptvq_stage_enter(solver.stages, GPTVQ_STAGE_MISMATCH);
    if (mismatch->rows == 0)
      gptvq_stage_count(solver.stages, GPTVQ_IN_FP32, 2.0 * (double)(values * linear->cols));
    status = gptvq_mismatch_apply(mismatch, linear->rows, weights, linear->name, err);
    (void)gptvq_stage_enter(solver.stages, before);
  }
  if (status == GPTVQ_OK) status = gptvq_solve_layer(&solver, &w, factor, &work->results[index], err);
  free(weights);
  if (status != GPTVQ_OK) return status;
  work->solved[index] = true;
  gptvq_linear_set_packed(&work->block.linears[index], &work->results[index].packed);
  return gptvq_report_progress(p->solver.callbacks, "quantize", linear->name, ++p->layers_done,
                               p->layers_total, work->results[index].error, err);
}

/* "a, b and c" for a warning */
static void list_names(const block_work *work, const input *in, char *text, size_t size) {
  size_t used = 0;
  text[0] = '\0';
  for (size_t i = 0; i < in->readers.count && used < size; i++) {
    int written = snprintf(text + used, size - used, "%s%s", i > 0 ? ", " : "",
                           work->block.linears[in->readers.linear[i]].name);
    used += written > 0 ? (size_t)written : 0;
  }
}

/* The means of the input's mismatch become what changes the weights. */
static gptvq_status divide_mismatch(block_work *work, input *in, const gptvq_factor *factor,
                                    gptvq_error *err) {
  const gptvq_solver *solver = &work->pipeline->solver;
  const gptvq_linear *linear = first_reader(work, in);
  const gptvq_factored factored = gptvq_factor_arrays(factor);
  double square = (double)factored.padded * (double)factored.padded;
  size_t values = in->mismatch.rows * linear->cols;
  float *weights = NULL;
  if (values > 0) {
    weights = gptvq_alloc(values, sizeof *weights);
    if (weights == NULL)
      return gptvq_fail_memory(err, linear->name, gptvq_saturated_size(values, sizeof *weights));
    gptvq_linear_decode(linear, weights);
  }
  gptvq_stage before = gptvq_stage_enter(solver->stages, GPTVQ_STAGE_MISMATCH);
  gptvq_stage_count(solver->stages, GPTVQ_IN_FP32,
                    2.0 * square * (double)(mismatch_height(in) + in->mismatch.rows));
  const gptvq_mismatch *m = &in->mismatch;
  const gptvq_backend *backend = solver->backend;
  const bool there = backend->divide != NULL && m->tokens > 0 && !factored.diagonal;
  gptvq_status status =
      there ? backend->divide(backend, factor, mismatch_height(in), m->inputs_share > 0.0 ? weights : NULL,
                              m->inputs_share, m->map, err)
            : gptvq_mismatch_divide(&in->mismatch, &factored, weights, linear->name, err);
  (void)gptvq_stage_enter(solver->stages, before);
  free(weights);
  return status;
}

/* The sums of the input's Hessian and mismatch become *factor and maps. */
static gptvq_status factorise(block_work *work, input *in, const char *name, gptvq_factor **factor,
                              gptvq_error *err) {
  const gptvq_solver *solver = &work->pipeline->solver;
  const gptvq_linear *linear = first_reader(work, in);
  double cube = (double)linear->cols * (double)linear->cols * (double)linear->cols;
  gptvq_stage before = gptvq_stage_enter(solver->stages, GPTVQ_STAGE_HESSIAN);
  GPTVQ_TRY(gptvq_hessian_finish(&in->hessian, name, err));
  if (in->mismatch.cols > 0) {
    (void)gptvq_stage_enter(solver->stages, GPTVQ_STAGE_MISMATCH);
    GPTVQ_TRY(gptvq_mismatch_end(&in->mismatch, err));
  }
  (void)gptvq_stage_enter(solver->stages, GPTVQ_STAGE_FACTOR);
  gptvq_stage_count(solver->stages, GPTVQ_IN_DOUBLE, 2.0 / 3.0 * cube);
  double *hessian = in->hessian.values;
  in->hessian.values = NULL; /* the factor's memory from now on */
  GPTVQ_TRY(gptvq_factor_create_over(solver, name, linear->cols, hessian, factor, err));
  (void)gptvq_stage_enter(solver->stages, before);
  return in->mismatch.cols > 0 ? divide_mismatch(work, in, *factor, err) : GPTVQ_OK;
}

static bool is_expert(const block_work *work, const input *in) {
  return in_mlp(in) && gptvq_block_routes(work->original);
}

/* One line for all experts that saw little. */
static void warn_thin_experts(const block_work *work, size_t begin, size_t end) {
  const input *fewest = NULL;
  size_t thin = 0;
  for (const input *in = work->inputs + begin; in < work->inputs + end; in++) {
    if (!is_expert(work, in) || in->tokens == 0 || in->tokens >= first_reader(work, in)->cols) continue;
    if (fewest == NULL || in->tokens < fewest->tokens) fewest = in;
    thin++;
  }
  if (fewest != NULL)
    gptvq_log(work->pipeline->solver.callbacks, GPTVQ_LOG_WARNING,
              "block %zu: %zu of %zu experts saw fewer calibration tokens than their %zu input columns; the "
              "fewest, %zu, %s",
              work->original->index, thin, end - begin, first_reader(work, fewest)->cols, fewest->tokens,
              first_reader(work, fewest)->name);
}

/* The linears of one input; `with_data`: its Hessian was collected. */
static gptvq_status solve_input(block_work *work, input *in, bool with_data, gptvq_error *err) {
  const gptvq_pipeline *p = work->pipeline;
  const gptvq_linear *linear = first_reader(work, in);
  gptvq_factor *factor = NULL;
  gptvq_status status = GPTVQ_OK;
  if (with_data) {
    char names[512];
    size_t tokens = in->hessian.tokens;
    in->tokens = tokens;
    if (p->expert_tokens != NULL && is_expert(work, in) && in->kind == GPTVQ_INPUT_GATE_UP &&
        in->mlp < p->model->config.experts)
      p->expert_tokens[work->original->index * p->model->config.experts + in->mlp] = tokens;
    if (tokens < linear->cols) list_names(work, in, names, sizeof names);
    if (tokens == 0)
      gptvq_log(p->solver.callbacks, GPTVQ_LOG_WARNING,
                "no calibration token reaches %s: quantized without data (identity Hessian)", names);
    else if (tokens < linear->cols && !is_expert(work, in))
      gptvq_log(p->solver.callbacks, GPTVQ_LOG_WARNING,
                "only %zu calibration tokens for the %zu input columns of %s", tokens, linear->cols, names);
    if (tokens > 0) GPTVQ_TRY_GOTO(factorise(work, in, linear->name, &factor, err));
    gptvq_hessian_release(&in->hessian);
  }
  const bool routed = gptvq_block_routes(work->original) && in->kind == GPTVQ_INPUT_GATE_UP;
  const gptvq_mismatch *mismatch = routed ? &router_input(work)->mismatch : &in->mismatch;
  for (size_t i = 0; i < in->readers.count; i++)
    GPTVQ_TRY_GOTO(solve_linear(work, in->readers.linear[i], factor, mismatch, err));
done:
  gptvq_mismatch_release(&in->mismatch);
  gptvq_factor_destroy(factor);
  return status;
}

/* Room for the inputs of an output layer, of as many windows as fit: what saves running the half again. */
static void prepare_kept(block_work *work, const input *in) {
  const gptvq_pipeline *p = work->pipeline;
  if (!gptvq_run_keeps(p->solver.options, p->model, work->original, in->kind)) return;
  const size_t cols = first_reader(work, in)->cols, values = p->length * cols;
  const size_t window = gptvq_stream_bytes(1, values, p->place.half);
  const size_t windows = gptvq_min_size(p->samples, p->kept_budget / window);
  const gptvq_stream_place memory = {.half = p->place.half};
  if (windows == 0 ||
      gptvq_stream_create(windows, values, memory, "inputs", &work->kept.inputs, NULL) != GPTVQ_OK)
    return; /* it can be done without */
  work->kept.cols = cols;
}

static bool corrects(const block_work *work) {
  return gptvq_run_corrects(work->pipeline->solver.options) && work->pipeline->x_original != NULL;
}

/* As collect, with the memory that it takes. Inputs of experts have no mismatch of their own, as the two
 * streams may not route a token to the same ones: collect_router. */
static gptvq_status collect_inputs(block_work *work, size_t begin, size_t end, bool whole, gptvq_error *err) {
  const gptvq_pipeline *p = work->pipeline;
  input *first = &work->inputs[begin];
  const gptvq_linear *linear = first_reader(work, first);
  const gptvq_quantize_options *o = &p->solver.options->options;
  size_t weighted = 0, watched = 0;
  if (p->guide != NULL)
    for (size_t i = begin; i < end; i++) weighted = gptvq_max_size(weighted, work->inputs[i].hessian.cols);
  const bool alike = work->original->index == 0 && first->kind == GPTVQ_INPUT_QKV &&
                     !p->embedding_packed; /* nothing stands before it */
  const bool expert = in_mlp(first) && gptvq_block_routes(work->original) && first != router_input(work);
  if (corrects(work) && !whole && end == begin + 1 && !expert && !alike) {
    size_t rows = gptvq_writes_stream(work->original, first->kind) ? linear->rows : 0;
    GPTVQ_TRY(gptvq_mismatch_init(&first->mismatch, p->solver.backend->linalg, linear->cols, rows,
                                  o->mismatch, o->mismatch_stream, linear->name, err));
    watched = gptvq_mismatch_watch_bytes(p->length, linear->cols, rows);
  }
  size_t bytes = gptvq_saturated_sum(gptvq_hessian_watch_bytes(p->length, weighted), watched);
  float *memory = NULL;
  if (bytes > 0 && (memory = gptvq_alloc(bytes, 1)) == NULL)
    return gptvq_fail_memory(err, linear->name, bytes);
  gptvq_status status =
      collect(work, begin, end, whole, memory, watched > 0 ? memory + p->length * weighted : NULL, err);
  free(memory);
  return status;
}

/* How far what all experts read is from what it was: one map for all of them, which the few tokens of one
 * would give badly. */
static gptvq_status collect_router(block_work *work, gptvq_error *err) {
  const gptvq_pipeline *p = work->pipeline;
  input *in = router_input(work);
  const gptvq_linear *linear = first_reader(work, in);
  if (!corrects(work) || !gptvq_block_routes(work->original)) return GPTVQ_OK;
  GPTVQ_TRY(gptvq_hessian_init(&in->hessian, p->solver.backend->linalg, linear->cols, linear->name, err));
  GPTVQ_TRY(collect_inputs(work, work->input_count, work->input_count + 1, false, err));
  gptvq_factor *factor = NULL;
  char name[64];
  (void)snprintf(name, sizeof name, "what the experts of block %zu read", work->original->index);
  gptvq_status status = factorise(work, in, name, &factor, err);
  gptvq_factor_destroy(factor);
  gptvq_hessian_release(&in->hessian);
  return status;
}

/* Inputs [begin, end): as many Hessians at a time as the budget allows, at least one. Without true_sequential
 * the whole block is one such range, and passes after the first must still see the original weights. */
static gptvq_status solve_range(block_work *work, size_t begin, size_t end, bool keep_original,
                                gptvq_error *err) {
  const gptvq_pipeline *p = work->pipeline;
  for (size_t first = begin, last; first < end; first = last) {
    size_t bytes = 0;
    for (last = first; last < end; last++) {
      const gptvq_linear *linear = first_reader(work, &work->inputs[last]);
      size_t one = gptvq_hessian_bytes(linear->cols);
      if (last > first && (one > p->hessian_budget || bytes > p->hessian_budget - one)) break;
      GPTVQ_TRY(gptvq_hessian_init(&work->inputs[last].hessian, p->solver.backend->linalg, linear->cols,
                                   linear->name, err));
      bytes += one;
    }
    if (keep_original)
      memcpy(work->block.linears, work->original->linears,
             work->block.linear_count * sizeof *work->block.linears);
    if (!keep_original && last == first + 1) prepare_kept(work, &work->inputs[first]);
    GPTVQ_TRY(collect_inputs(work, first, last, keep_original, err));
    for (size_t i = first; i < last; i++) GPTVQ_TRY(solve_input(work, &work->inputs[i], true, err));
  }
  if (keep_original) /* what the last passes put back */
    for (size_t i = 0; i < work->block.linear_count; i++)
      if (work->solved[i]) gptvq_linear_set_packed(&work->block.linears[i], &work->results[i].packed);
  return GPTVQ_OK;
}

/* x through the half that ends with the output layer just solved, from its kept inputs on where there are
 * any; x_original too. */
static gptvq_status advance(block_work *work, bool mlp, gptvq_error *err) {
  const gptvq_pipeline *p = work->pipeline;
  if (mlp && gptvq_run_ends_with(p->solver.options, p->model, work->original)) return GPTVQ_OK;
  const gptvq_pass passes[2] = {{.block = &work->block,
                                 .x = p->x,
                                 .attention = !mlp,
                                 .mlp = mlp,
                                 .stop = GPTVQ_RUN_ALL,
                                 .kept = &work->kept,
                                 .stage = GPTVQ_STAGE_FORWARD},
                                {.block = work->original,
                                 .x = p->x_original,
                                 .attention = !mlp,
                                 .mlp = mlp,
                                 .stop = GPTVQ_RUN_ALL,
                                 .stage = GPTVQ_STAGE_FORWARD_ORIGINAL}};
  bool both = p->x_original != NULL && !work->original_passed;
  const input *output = &work->inputs[(mlp ? work->input_count : work->attention_count) - 1];
  GPTVQ_TRY(run_windows(p, first_reader(work, output)->name, passes, both ? 2 : 1, NULL, err));
  gptvq_stream_release(&work->kept.inputs);
  work->original_passed = false;
  return GPTVQ_OK;
}

gptvq_status gptvq_pipeline_run(const gptvq_pipeline *pipeline, const gptvq_block *block,
                                const gptvq_block *original, gptvq_error *err) {
  if (pipeline->x == NULL) return GPTVQ_OK;
  gptvq_pass passes[2] = {gptvq_whole_block(block, pipeline->x, NULL, 0),
                          gptvq_whole_block(original, pipeline->x_original, NULL, 0)};
  passes[0].stage = GPTVQ_STAGE_FORWARD;
  passes[1].stage = GPTVQ_STAGE_FORWARD_ORIGINAL;
  return run_windows(pipeline, block->linears[block->o].name, passes, pipeline->x_original != NULL ? 2 : 1,
                     NULL, err);
}

static gptvq_status with_data(block_work *work, gptvq_error *err) {
  const gptvq_pipeline *p = work->pipeline;
  const size_t attention = work->attention_count, experts = work->original->mlp_count;
  if (!p->solver.options->options.true_sequential) {
    GPTVQ_TRY(solve_range(work, 0, work->input_count, true, err));
    warn_thin_experts(work, attention, attention + experts);
    warn_thin_experts(work, attention + experts, work->input_count);
    return gptvq_pipeline_run(p, &work->block, work->original, err);
  }
  for (size_t i = 0; i < attention; i++) GPTVQ_TRY(solve_range(work, i, i + 1, false, err));
  GPTVQ_TRY(advance(work, false, err));
  GPTVQ_TRY(collect_router(work, err));
  GPTVQ_TRY(solve_range(work, attention, attention + experts, false, err));
  warn_thin_experts(work, attention, attention + experts);
  gptvq_mismatch_release(&router_input(work)->mismatch);
  GPTVQ_TRY(solve_range(work, attention + experts, work->input_count, false, err));
  warn_thin_experts(work, attention + experts, work->input_count);
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
