#include "quant/plan/memory.h"
#include "base/memory.h"
#include "calib/calib.h"
#include "calib/observers.h"
#include "eval/eval.h"
#include "model/workspace.h"
#include "quant/plan/outside.h"
#include "quant/plan/sensitivity.h"
#include "train/finetune.h"
#include "train/guide.h"

#include <math.h>
#include <stdio.h>

bool gptvq_run_uses_data(const gptvq_resolved *options) {
  const gptvq_method method = options->options.method;
  return method == GPTVQ_METHOD_GPTVQ || method == GPTVQ_METHOD_GPTQ;
}

bool gptvq_run_corrects(const gptvq_resolved *options) {
  const gptvq_quantize_options *o = &options->options;
  return o->true_sequential && (o->mismatch > 0.0 || o->mismatch_stream > 0.0);
}

bool gptvq_run_ends_with(const gptvq_resolved *options, const gptvq_model *model, const gptvq_block *block) {
  return block->index + 1 == model->config.layers && !gptvq_run_tunes_blocks(options);
}

bool gptvq_run_keeps(const gptvq_resolved *options, const gptvq_model *model, const gptvq_block *block,
                     gptvq_block_input input) {
  if (!options->options.true_sequential || !gptvq_input_is_last(input)) return false;
  return !gptvq_input_in_mlp(input) ||
         !(gptvq_block_routes(block) || gptvq_run_ends_with(options, model, block));
}

bool gptvq_run_tunes_blocks(const gptvq_resolved *options) {
  return options->options.finetune_block_steps > 0;
}

bool gptvq_run_keeps_both(const gptvq_resolved *options) {
  return gptvq_run_tunes_blocks(options) || gptvq_run_corrects(options);
}

bool gptvq_run_is_guided(const gptvq_resolved *options) { return options->options.guide > 0.0; }

/* 8 windows of 1,024 tokens choose as well as 32. */
enum { ALLOCATION_TOKENS = 8192, ALLOCATION_WINDOWS = 4 };

size_t gptvq_allocation_windows(const gptvq_quantize_options *o) {
  const size_t wanted = gptvq_ceil_div(ALLOCATION_TOKENS, gptvq_max_size(1, o->calib_length));
  return gptvq_min_size(o->calib_samples, gptvq_max_size(wanted, ALLOCATION_WINDOWS));
}

size_t gptvq_allocation_window(size_t i, size_t count, size_t windows) {
  const double golden = 0.6180339887498949, turn = golden * (double)i;
  const size_t begin = i * windows / count, length = (i + 1) * windows / count - begin;
  size_t at = (size_t)((turn - floor(turn)) * (double)length);
  if (length > 1 && (begin + at + i) % 2 == 1) at = at > 0 ? at - 1 : 1; /* even and odd ones by turns */
  return begin + at;
}

bool gptvq_run_allocates(const gptvq_resolved *options) { return gptvq_allocates(&options->options); }

const char *gptvq_memory_phase_name(gptvq_memory_phase phase) {
  static const char *const names[] = {"calibration text", "gradients", "blocks", "fine-tuning", "judgement"};
  return (unsigned)phase < GPTVQ_MEMORY_PHASES ? names[phase] : "unknown";
}

typedef struct run {
  const gptvq_model *model;
  const gptvq_resolved *options;
  size_t budget;  /* of Hessians */
  size_t kept;    /* of layer inputs */
  size_t windows; /* whose activations are kept */
  bool corrects, two;
} run;

/* Bytes beside Hessian factor and maps while one linear is solved: its weights, and what changes them or
 * becomes of them. */
static double solving(const run *r, const gptvq_linear *linear) {
  double weights = 4.0 * (double)linear->rows * (double)linear->cols;
  gptvq_packed_shape shape;
  if (gptvq_layer_shape(linear->rows, linear->cols, r->options, &shape, NULL) != GPTVQ_OK) return weights;
  double correcting = r->corrects ? (double)gptvq_mismatch_apply_bytes(linear->cols, linear->rows) : 0.0;
  const gptvq_solver alone = {.options = r->options}; /* a part takes less, but of the lowest layers */
  double packing = (double)gptvq_packed_bytes(&shape) +
                   (double)gptvq_solve_bytes(&alone, &shape, gptvq_run_uses_data(r->options));
  return weights + fmax(correcting, packing);
}

/* Inputs of an output layer that are kept from its Hessian on until it has been solved. */
static double kept_inputs(const run *r, const gptvq_block *block, gptvq_block_input input, size_t cols) {
  const gptvq_quantize_options *o = &r->options->options;
  if (r->kept == 0 || !gptvq_run_keeps(r->options, r->model, block, input)) return 0.0;
  const size_t window = gptvq_stream_bytes(1, o->calib_length * cols, gptvq_run_keeps_half(r->options));
  return (double)gptvq_min_size(r->windows, r->kept / window) * (double)window;
}

/* Bytes while the linears of one input are made: Hessians of `together` bytes are collected in the same pass.
 */
static double input_peak(const run *r, const gptvq_block *block, const size_t *linears, size_t count,
                         bool output, double together) {
  const gptvq_linear *first = &block->linears[linears[0]];
  const gptvq_quantize_options *o = &r->options->options;
  size_t c = first->cols, rows = output ? first->rows : 0, length = o->calib_length;
  if (!gptvq_run_uses_data(r->options)) {
    double most = 0.0;
    for (size_t i = 0; i < count; i++) most = fmax(most, solving(r, &block->linears[linears[i]]));
    return most;
  }
  double own = (double)gptvq_hessian_bytes(c), kept = (double)gptvq_min_size((size_t)together, r->budget);
  double others = kept > own ? kept - own : 0.0;
  double collecting = own, maps = 0.0, dividing = 0.0;
  if (o->calib_compute == GPTVQ_COMPUTE_BF16)
    collecting += (double)gptvq_cpu_linalg_bf16_bytes(rows > 0 ? rows : c, c, length);
  if (o->guide > 0.0) collecting += (double)gptvq_hessian_watch_bytes(length, c);
  if (r->corrects) {
    collecting += (double)gptvq_mismatch_bytes(c, rows) + (double)gptvq_mismatch_watch_bytes(length, c, rows);
    maps = (double)gptvq_mismatch_map_bytes(c, rows);
    dividing = maps + (double)gptvq_factor_bytes(c, r->options) + 4.0 * (double)rows * (double)c +
               (double)gptvq_mismatch_divide_bytes(gptvq_round_up(c, o->dim), rows);
  }
  double peak = fmax(fmax(collecting, dividing), maps + (double)gptvq_factor_peak_bytes(c, r->options));
  double solved = maps + (double)gptvq_factor_bytes(c, r->options);
  for (size_t i = 0; i < count; i++) peak = fmax(peak, solved + solving(r, &block->linears[linears[i]]));
  return others + peak;
}

/* The sum over the block's layers, as the options would pack them. */
static double sum_layers(const run *r, const gptvq_block *block,
                         double (*bytes)(const gptvq_packed_shape *shape)) {
  double sum = 0.0;
  gptvq_packed_shape shape;
  for (size_t i = 0; i < block->linear_count; i++)
    if (gptvq_layer_shape(block->linears[i].rows, block->linears[i].cols, r->options, &shape, NULL) ==
        GPTVQ_OK)
      sum += bytes(&shape);
  return sum;
}

static double packed_layer(const gptvq_packed_shape *shape) { return (double)gptvq_packed_bytes(shape); }

/* Bytes of the block's layers as they are kept until the block is written. */
static double packed_block(const run *r, const gptvq_block *block) {
  return sum_layers(r, block, packed_layer);
}

/* What fine-tuning keeps of the block's packed linears. */
static double tuned_block(const run *r, const gptvq_block *block) {
  return sum_layers(r, block, gptvq_finetune_linear_bytes);
}

/* Bytes of the block's layers and of the work on them. */
static double block_peak(const run *r, const gptvq_block *block) {
  double peak = 0.0, square[GPTVQ_ALL_INPUTS] = {0.0}, all = 0.0;
  for (gptvq_block_input i = 0; i < GPTVQ_ALL_INPUTS; i++)
    for (size_t e = 0; e < gptvq_input_count(block, i); e++) {
      const gptvq_linear_group readers = gptvq_input_readers(block, i, e);
      double cols = (double)block->linears[readers.linear[0]].cols;
      square[i] += 8.0 * cols * cols;
    }
  for (gptvq_block_input i = 0; i < GPTVQ_ALL_INPUTS; i++) all += square[i];
  for (gptvq_block_input i = 0; i < GPTVQ_ALL_INPUTS; i++)
    for (size_t e = 0; e < gptvq_input_count(block, i); e++) {
      const gptvq_linear_group readers = gptvq_input_readers(block, i, e);
      const double kept = kept_inputs(r, block, i, block->linears[readers.linear[0]].cols);
      peak =
          fmax(peak, kept + input_peak(r, block, readers.linear, readers.count, gptvq_writes_stream(block, i),
                                       r->options->options.true_sequential ? square[i] : all));
    }
  return packed_block(r, block) + peak;
}

/* Buffers of a sweep of the run's passes; reading kept inputs back is one of the quantized pass alone. */
static double sweep_peak(const run *r) {
  const gptvq_config *c = &r->model->config;
  const size_t length = r->options->options.calib_length;
  double most = (double)gptvq_sweep_bytes(length, c->hidden, r->two ? 2 : 1, 0);
  for (size_t b = 0; b < c->layers && r->kept > 0; b++) {
    const gptvq_block *block = &r->model->blocks[b];
    for (gptvq_block_input i = 0; i < GPTVQ_ALL_INPUTS; i++)
      for (size_t e = 0; e < gptvq_input_count(block, i); e++) {
        const size_t cols = block->linears[gptvq_input_readers(block, i, e).linear[0]].cols;
        if (kept_inputs(r, block, i, cols) > 0.0)
          most = fmax(most, (double)gptvq_sweep_bytes(length, c->hidden, r->two ? 2 : 1, cols));
      }
  }
  return most;
}

static gptvq_model with_compute(const gptvq_model *model, const gptvq_resolved *options) {
  gptvq_model own = *model;
  own.compute = gptvq_run_keeps_half(options) ? GPTVQ_COMPUTE_BF16 : GPTVQ_COMPUTE_FP32;
  return own;
}

/* Streams of so many windows in memory, and how many of them there are at most. */
static double streams(const gptvq_model *model, const gptvq_resolved *options, size_t windows, bool two) {
  const gptvq_quantize_options *o = &options->options;
  const double one = (double)gptvq_stream_bytes(windows, o->calib_length * model->config.hidden,
                                                gptvq_run_keeps_half(options));
  return one * ((two ? 2.0 : 1.0) + (gptvq_run_tunes_blocks(options) ? 1.0 : 0.0));
}

static gptvq_finetune_options tuning_of(const gptvq_quantize_options *o) {
  gptvq_finetune_options tuning;
  gptvq_finetune_options_init(&tuning);
  tuning.batch = o->finetune_batch;
  tuning.index_rate = o->finetune_index_rate;
  tuning.compute = o->calib_compute;
  return tuning;
}

/* The blocks without the streams. */
static double blocks_peak(const run *r) {
  const gptvq_model own = with_compute(r->model, r->options);
  const size_t length = r->options->options.calib_length;
  double peak = 0.0;
  for (size_t b = 0; b < r->model->config.layers; b++) {
    const gptvq_block *block = &r->model->blocks[b];
    peak = fmax(peak, block_peak(r, block));
    if (!gptvq_run_tunes_blocks(r->options)) continue;
    const gptvq_finetune_options tuning = tuning_of(&r->options->options);
    peak = fmax(peak, packed_block(r, block) +
                          gptvq_finetune_block_peak(r->model, block, length, tuned_block(r, block), &tuning));
  }
  return peak + sweep_peak(r) + (double)gptvq_workspace_bytes(&own, 1, length, length);
}

double gptvq_blocks_peak(const gptvq_model *model, const gptvq_resolved *options, bool two_streams,
                         size_t hessian_budget) {
  const size_t windows = options->options.calib_samples;
  const run r = {.model = model,
                 .options = options,
                 .budget = hessian_budget,
                 .windows = windows,
                 .corrects = two_streams && gptvq_run_corrects(options),
                 .two = two_streams};
  return blocks_peak(&r) + streams(model, options, windows, two_streams);
}

static double linear_pages(const gptvq_linear *linear) {
  return linear->is_packed
             ? 0.0
             : (double)linear->rows * (double)linear->cols * (double)gptvq_dtype_size(linear->dtype);
}

/* Pages of the largest block: those of others are given back. */
static double block_pages(const gptvq_model *model) {
  double most = 0.0;
  for (size_t b = 0; b < model->config.layers; b++) {
    double sum = 0.0;
    for (size_t i = 0; i < model->blocks[b].linear_count; i++)
      sum += linear_pages(&model->blocks[b].linears[i]);
    most = fmax(most, sum);
  }
  return most;
}

/* Pages of embedding and head. */
static double outside_pages(const gptvq_model *model) {
  const bool one = model->head.weights == model->embedding.weights;
  return linear_pages(&model->embedding) + (one ? 0.0 : linear_pages(&model->head));
}

/* Sensitivities are measured with the Hessians of a block that fit into the budget and a factor at a time,
 * with which a linear is solved at one setting after the other. */
static double allocation_peak(const gptvq_model *model, const gptvq_resolved *options,
                              size_t hessian_budget) {
  const size_t length = options->options.calib_length, windows = gptvq_allocation_windows(&options->options);
  double most = 0.0;
  size_t widest = model->config.hidden;
  for (size_t b = 0; b < model->config.layers; b++) {
    const gptvq_block *block = &model->blocks[b];
    double hessians = 0.0, largest = 0.0, measuring = 0.0; /* measuring: beyond the Hessian that it is over */
    for (gptvq_block_input i = 0; i < GPTVQ_ALL_INPUTS; i++)
      for (size_t e = 0; e < gptvq_input_count(block, i); e++) {
        const gptvq_linear_group readers = gptvq_input_readers(block, i, e);
        const size_t cols = block->linears[readers.linear[0]].cols;
        const double hessian = (double)gptvq_hessian_bytes(cols);
        hessians += hessian;
        largest = fmax(largest, hessian);
        widest = gptvq_max_size(widest, cols);
        measuring = fmax(measuring, gptvq_allocation_input_bytes(options, block, &readers) - hessian);
      }
    most = fmax(most, fmax(largest, fmin(hessians, (double)hessian_budget)) + measuring);
  }
  return most + gptvq_guide_bytes(model, windows, length) +
         sizeof(float) * (double)length * ((double)windows * (double)model->config.hidden + (double)widest) +
         (double)gptvq_sweep_bytes(length, model->config.hidden, 1, 0) +
         (double)gptvq_workspace_bytes(model, 1, length, length);
}

/* The finished model beside the original, a block of each at a time. */
static double judge_peak(const run *r) {
  const gptvq_quantize_options *o = &r->options->options;
  const size_t length = o->calib_length;
  gptvq_device_choice device;
  const bool on_device =
      gptvq_device_parse(o->device, &device, NULL) == GPTVQ_OK && device.kind != GPTVQ_ON_CPU;
  double packed = 0.0;
  for (size_t b = 0; b < r->model->config.layers; b++)
    packed = fmax(packed, packed_block(r, &r->model->blocks[b]));
  const gptvq_model own = with_compute(r->model, r->options);
  const size_t together =
      gptvq_runner_together(&own, length, gptvq_ceil_div(o->judge_tokens, length), on_device);
  return block_pages(r->model) + packed + 2.0 * outside_pages(r->model) +
         2.0 * (double)gptvq_runner_bytes(&own, length, together);
}

/* All blocks together: of the original and of the finished model a block of pages at a time, of the latter
 * all indices where they are trained. */
static double tuning_peak(const run *r, bool scratch) {
  const gptvq_model *model = r->model;
  const gptvq_quantize_options *o = &r->options->options;
  gptvq_finetune_options tuning = tuning_of(o);
  gptvq_outside_bits bits;
  double packed = 0.0, most = 0.0, tuned = 0.0;
  for (size_t b = 0; b < model->config.layers; b++) {
    const double block = packed_block(r, &model->blocks[b]);
    tuned += tuned_block(r, &model->blocks[b]);
    packed += block;
    most = fmax(most, block);
  }
  if (gptvq_outside_bits_of(model, o, &bits, NULL) == GPTVQ_OK && gptvq_outside_packs_head(model, &bits))
    tuning.head = &model->head;
  tuning.place = (gptvq_stream_place){gptvq_run_keeps_half(r->options), scratch ? "" : NULL};
  const gptvq_model own = with_compute(model, r->options);
  const size_t windows = o->calib_samples + gptvq_ceil_div(o->calib_samples, 8);
  return outside_pages(model) + block_pages(model) + (o->finetune_index_rate > 0.0 ? packed : most) +
         (double)gptvq_finetune_model_bytes(&own, tuned, windows, o->calib_length, &tuning);
}

/* Everything with the plan's budgets. */
static void add_up(const gptvq_model *model, const gptvq_resolved *options, size_t windows, double resident,
                   gptvq_memory_plan *plan) {
  const gptvq_quantize_options *o = &options->options;
  const bool data = gptvq_run_uses_data(options), two = data && gptvq_run_keeps_both(options);
  const size_t samples = o->calib_samples, length = o->calib_length;
  const double tokens = sizeof(int32_t) * (double)samples * (double)length, pages = block_pages(model),
               kept = gptvq_outside_kept(model, options), packing = gptvq_outside_peak(model, options),
               base = resident + tokens;
  double *phases = plan->phases;
  for (size_t i = 0; i < GPTVQ_MEMORY_PHASES; i++) phases[i] = 0.0;
  const run r = {.model = model,
                 .options = options,
                 .budget = plan->hessian_budget,
                 .kept = data ? plan->kept_budget : 0,
                 .windows = windows,
                 .corrects = two && gptvq_run_corrects(options),
                 .two = two};
  if (!data) {
    for (size_t b = 0; b < model->config.layers; b++)
      phases[GPTVQ_MEMORY_BLOCKS] =
          fmax(phases[GPTVQ_MEMORY_BLOCKS], resident + kept + pages + block_peak(&r, &model->blocks[b]));
    plan->peak = phases[GPTVQ_MEMORY_BLOCKS] = fmax(phases[GPTVQ_MEMORY_BLOCKS], resident + packing);
    return;
  }
  const double all_streams = streams(model, options, windows, two);
  phases[GPTVQ_MEMORY_TEXT] = resident + outside_pages(model) + gptvq_calibration_peak(model, o, plan->room);
  if (o->judge_tokens > 0) phases[GPTVQ_MEMORY_JUDGE] = base + judge_peak(&r);
  const gptvq_model own = with_compute(model, options);
  double gradients = 0.0, weights = 0.0;
  if (gptvq_run_allocates(options)) {
    const size_t some = gptvq_allocation_windows(o);
    gradients = fmax(gptvq_guide_peak(&own, some, length, plan->guide_budget),
                     allocation_peak(&own, options, plan->hessian_budget));
  }
  if (gptvq_run_is_guided(options)) {
    gradients = fmax(gradients, gptvq_guide_peak(&own, samples, length, plan->guide_budget));
    weights = gptvq_guide_bytes(model, samples, length);
  }
  plan->scratch_bytes = plan->scratch ? all_streams : 0.0;
  if (gradients > 0.0) phases[GPTVQ_MEMORY_GRADIENTS] = base + pages + outside_pages(model) + gradients;
  const double window = (double)gptvq_sweep_bytes(length, model->config.hidden, 2, 0);
  phases[GPTVQ_MEMORY_BLOCKS] =
      base + weights + linear_pages(&model->embedding) + (plan->scratch ? 0.0 : all_streams) +
      fmax(kept + pages + blocks_peak(&r),
           packing == 0.0 ? 0.0
                          : window + (double)gptvq_workspace_bytes(&own, 1, length, length) +
                                fmax(pages, packing)); /* embedding and head come before the blocks */
  if (o->finetune_steps > 0) phases[GPTVQ_MEMORY_TUNING] = base + kept + tuning_peak(&r, plan->scratch);
  plan->peak = 0.0;
  for (size_t i = 0; i < GPTVQ_MEMORY_PHASES; i++) plan->peak = fmax(plan->peak, phases[i]);
}

static const size_t default_hessians = (size_t)4 << 30, default_caches = (size_t)4 << 30,
                    default_gradients = (size_t)1 << 30;

/* Smaller budgets for the phases that exceed the limit. What the model writes depends on how many windows go
 * together: only a limit that is asked for changes that (`all`), free memory does not. */
static void spare(double limit, size_t budget, bool all, gptvq_memory_plan *plan) {
  if (all && plan->phases[GPTVQ_MEMORY_TEXT] > limit)
    plan->room.caches = gptvq_min_size(budget, plan->room.caches);
  if (plan->phases[GPTVQ_MEMORY_GRADIENTS] > limit) {
    plan->guide_budget = gptvq_min_size(budget, plan->guide_budget);
    plan->hessian_budget = gptvq_min_size(budget, plan->hessian_budget);
  }
  if (plan->phases[GPTVQ_MEMORY_BLOCKS] > limit)
    plan->hessian_budget = gptvq_min_size(budget, plan->hessian_budget);
}

void gptvq_memory_plan_make(const gptvq_model *model, const gptvq_resolved *options, size_t windows,
                            double resident, double limit, bool all, gptvq_memory_plan *plan) {
  *plan = (gptvq_memory_plan){.scratch = true, .room = {1, false}, .guide_budget = 1};
  add_up(model, options, windows, resident, plan); /* one Hessian, cache, window at a time */
  plan->least = plan->peak;
  *plan = (gptvq_memory_plan){.least = plan->least,
                              .hessian_budget = default_hessians,
                              .room = {default_caches, true},
                              .guide_budget = default_gradients};
  add_up(model, options, windows, resident, plan);
  if (limit <= 0.0) return;
  if (plan->phases[GPTVQ_MEMORY_TEXT] > limit) {
    plan->room.pages = false;
    add_up(model, options, windows, resident, plan);
  }
  if (plan->peak > limit && gptvq_run_uses_data(options)) {
    plan->scratch = true;
    add_up(model, options, windows, resident, plan);
  }
  for (size_t budget = (size_t)(limit / 4.0); budget > 0 && plan->peak > limit; budget /= 16) {
    spare(limit, budget, all, plan);
    add_up(model, options, windows, resident, plan);
  }
  if (plan->peak >= limit) return;
  const double left = (limit - plan->phases[GPTVQ_MEMORY_BLOCKS]) * (all ? 1.0 : 0.5);
  plan->kept_budget = left > 0.0 ? (size_t)left : 0;
  add_up(model, options, windows, resident, plan);
  while (plan->peak > limit && plan->kept_budget > 0) { /* buffers of what is kept */
    const double over = plan->peak - limit;
    plan->kept_budget = (double)plan->kept_budget > 2.0 * over ? plan->kept_budget - (size_t)over - 1 : 0;
    add_up(model, options, windows, resident, plan);
  }
}

bool gptvq_memory_warning(double peak, double without_mismatch, double available, char *text, size_t size) {
  if (available <= 0.0 || peak <= available) return false;
  int used =
      snprintf(text, size,
               "this takes about %.1f GB of memory at its peak, but only %.1f GB are available: ", peak / 1e9,
               available / 1e9);
  if (used < 0 || (size_t)used >= size) return true;
  if (without_mismatch < peak)
    (void)snprintf(text + used, size - (size_t)used, "%.1f GB with `mismatch` 0 and `mismatch_stream` 0%s",
                   without_mismatch / 1e9,
                   without_mismatch > available ? " and less with fewer `calib_samples`" : "");
  else
    (void)snprintf(text + used, size - (size_t)used,
                   "give fewer `calib_samples` or a shorter `calib_length`");
  return true;
}
