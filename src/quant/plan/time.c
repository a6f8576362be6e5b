#include "quant/plan/time.h"
#include "base/clock.h"
#include "base/half.h"
#include "base/memory.h"
#include "base/random.h"
#include "calib/sweep.h"
#include "linalg/gemm.h"
#include "linalg/rows_product.h"
#include "quant/layer/trellis.h"
#include "quant/layer/solver.h"
#include "quant/plan/outside.h"
#include "quant/plan/sensitivity.h"

#include <math.h>
#include <string.h>

/* The layer that is solved to see how fast that is, and the products: SIDE inputs, so many rows and tokens.
 */
enum { SIDE = 512, ROWS = 64, TOKENS = 512, LARGE = 128 << 20 };
static const double each_seconds = 0.2; /* of a measurement that is repeated */

/* What this machine does: flop a second, bytes of memory read a second, and seconds of solving the sample
 * layer, also as quickly as its size is chosen. plain: products of fp32 numbers, whatever the calibration
 * rounds. */
typedef struct speeds {
  double forward, gram, cross, product, plain, factor;
  double few, read; /* while the model writes: products of as many tokens as it writes texts */
  gptvq_stage_sum solving[GPTVQ_STAGES], trying[GPTVQ_STAGES];
} speeds;

typedef struct samples {
  float *x, *y;       /* [TOKENS × SIDE] */
  float *weights;     /* [SIDE × SIDE] */
  uint16_t *rounded;  /* the same in bf16 */
  double *sums, *sum; /* [SIDE × SIDE] */
} samples;

static void release(samples *s) {
  free(s->x);
  free(s->y);
  free(s->weights);
  free(s->rounded);
  free(s->sums);
  free(s->sum);
}

static gptvq_status prepare(samples *s, gptvq_error *err) {
  const size_t square = (size_t)SIDE * SIDE;
  s->x = gptvq_alloc(TOKENS * SIDE, sizeof *s->x);
  s->y = gptvq_alloc(TOKENS * SIDE, sizeof *s->y);
  s->weights = gptvq_alloc(square, sizeof *s->weights);
  s->rounded = gptvq_alloc(square, sizeof *s->rounded);
  s->sums = gptvq_alloc_zero(square, sizeof *s->sums);
  s->sum = gptvq_alloc_zero(square, sizeof *s->sum);
  if (s->x == NULL || s->y == NULL || s->weights == NULL || s->rounded == NULL || s->sums == NULL ||
      s->sum == NULL)
    return gptvq_fail_memory(err, "the measurement of this machine", square * sizeof *s->sums);
  uint64_t state = 1;
  for (size_t i = 0; i < TOKENS * SIDE; i++) s->x[i] = (float)(gptvq_random_unit(&state) - 0.5);
  for (size_t i = 0; i < square; i++) {
    s->weights[i] = (float)(gptvq_random_unit(&state) - 0.5);
    s->rounded[i] = gptvq_float_to_bf16(s->weights[i]);
  }
  return GPTVQ_OK;
}

typedef enum product { FORWARD, GRAM, CROSS, SOLVER, PLAIN } product;

/* `tokens` of them: FORWARD's alone. */
static gptvq_status run_product(const samples *s, product what, size_t tokens, gptvq_compute compute,
                                const gptvq_backend *backend, gptvq_error *err) {
  const gptvq_linear linear = {
      .name = "a sample", .rows = SIDE, .cols = SIDE, .dtype = GPTVQ_BF16, .weights = s->rounded};
  switch (what) {
  case FORWARD: return gptvq_linear_forward(&linear, compute, tokens, s->x, SIDE, s->y, SIDE, err);
  case GRAM: return backend->linalg->gram(backend->linalg, SIDE, TOKENS, 256, s->x, SIDE, s->sum, err);
  case CROSS:
    return backend->linalg->cross(backend->linalg, SIDE, SIDE, TOKENS, 256, s->x, SIDE, s->x, SIDE, s->sums,
                                  err);
  case SOLVER:
    gptvq_rows_product(false, TOKENS, SIDE, SIDE, s->x, SIDE, s->weights, SIDE, s->y, SIDE);
    return GPTVQ_OK;
  case PLAIN: gptvq_gemm_nt(TOKENS, SIDE, SIDE, 1.0f, s->x, SIDE, s->weights, SIDE, 0.0f, s->y, SIDE);
  }
  return GPTVQ_OK;
}

/* flop a second; the first call, which finds nothing in the caches, does not count */
static gptvq_status measure_product(const samples *s, product what, size_t tokens, gptvq_compute compute,
                                    const gptvq_backend *backend, double *speed, gptvq_error *err) {
  const double flop = (what == GRAM ? 1.0 : 2.0) * (double)tokens * SIDE * SIDE;
  GPTVQ_TRY(run_product(s, what, tokens, compute, backend, err));
  const double start = gptvq_clock();
  double passed = 0.0;
  size_t count = 0;
  for (; passed < each_seconds; passed = gptvq_clock() - start, count++)
    GPTVQ_TRY(run_product(s, what, tokens, compute, backend, err));
  *speed = flop * (double)count / passed;
  return GPTVQ_OK;
}

typedef struct reading {
  const uint64_t *from; /* [LARGE / 8] */
  uint64_t sums[LARGE >> 20];
} reading;

static void read_megabytes(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  reading *r = context;
  for (size_t part = begin; part < end; part++) {
    uint64_t sum = 0;
    for (size_t i = part << 17; i < (part + 1) << 17; i++) sum += r->from[i];
    r->sums[part] += sum; /* used: the reading is not optimised away */
  }
}

/* peak: resident bytes that the run reaches in any case, which the measurement keeps within. */
static gptvq_status measure_reading(double peak, double *speed, gptvq_error *err) {
  const double room = peak - (double)gptvq_resident_memory();
  const size_t parts = (size_t)fmin(fmax(room, 1 << 20), LARGE) >> 20, bytes = parts << 20;
  uint64_t *large = gptvq_alloc(bytes, 1);
  if (large == NULL) return gptvq_fail_memory(err, "the measurement of this machine", bytes);
  memset(large, 1, bytes);
  reading r = {.from = large};
  const double start = gptvq_clock();
  double passed = 0.0;
  size_t count = 0;
  for (; passed < each_seconds; passed = gptvq_clock() - start, count++)
    gptvq_parallel_for(parts, 1, read_megabytes, &r);
  *speed = (double)bytes * (double)count / passed;
  free(large);
  return GPTVQ_OK;
}

static gptvq_status solve_sample(const samples *s, const gptvq_resolved *options,
                                 const gptvq_backend *backend, gptvq_stage around,
                                 gptvq_stage_sum sums[GPTVQ_STAGES], gptvq_error *err) {
  gptvq_stages stages;
  gptvq_callbacks silent = {.size = sizeof silent};
  const gptvq_solver solver = {options, backend, &silent, &stages, NULL};
  const gptvq_weights weights = {"a sample", ROWS, SIDE, s->weights};
  gptvq_factor *factor = NULL;
  gptvq_layer_result result;
  for (size_t r = 0; r < SIDE;
       r++) { /* a Hessian: the measured sums, which add up alike in every repetition */
    for (size_t c = 0; c < r; c++) s->sum[r * SIDE + c] = s->sum[c * SIDE + r];
  }
  gptvq_stages_start(&stages);
  (void)gptvq_stage_enter(&stages, GPTVQ_STAGE_FACTOR);
  GPTVQ_TRY(gptvq_factor_create(&solver, "a sample", SIDE, s->sum, &factor, err));
  (void)gptvq_stage_enter(&stages, around);
  gptvq_status status = gptvq_solve_layer(&solver, &weights, factor, &result, err);
  (void)gptvq_stage_enter(&stages, GPTVQ_STAGE_OTHER);
  gptvq_factor_destroy(factor);
  if (status != GPTVQ_OK) return status;
  gptvq_layer_result_release(&result);
  memcpy(sums, stages.sums, sizeof stages.sums);
  return GPTVQ_OK;
}

/* A layer like the run's, quantized once. around: the stage of what is in none of its own. The table that all
 * of a trellis start from is made in the first solution, whatever its size: the second one counts. */
static gptvq_status measure_solver(const samples *s, const gptvq_resolved *options,
                                   const gptvq_backend *backend, gptvq_stage around, speeds *out,
                                   gptvq_error *err) {
  if (options->options.code == GPTVQ_CODE_TRELLIS)
    GPTVQ_TRY(solve_sample(s, options, backend, around, out->solving, err));
  GPTVQ_TRY(solve_sample(s, options, backend, around, out->solving, err));
  out->factor = 2.0 / 3.0 * SIDE * SIDE * SIDE / fmax(out->solving[GPTVQ_STAGE_FACTOR].seconds, 1e-6);
  return GPTVQ_OK;
}

/* As layers are quantized whose size is to be chosen. */
static gptvq_status measure_trial(const samples *s, const gptvq_resolved *options,
                                  const gptvq_backend *backend, speeds *out, gptvq_error *err) {
  gptvq_resolved quick;
  if (!gptvq_run_allocates(options)) return GPTVQ_OK;
  GPTVQ_TRY(gptvq_allocation_quick(options, &quick, err));
  return solve_sample(s, &quick, backend, GPTVQ_STAGE_OTHER, out->trying, err);
}

/* Embedding or head, where it is solved like a layer, with options of its own; codes of 8 bits take no time
 * beside that. */
typedef struct outside_part {
  const gptvq_linear *linear;
  bool hessian;
  gptvq_resolved options;
  speeds machine;
} outside_part;

static gptvq_status list_outside(const gptvq_model *model, const gptvq_resolved *options,
                                 outside_part parts[2], size_t *count, gptvq_error *err) {
  gptvq_outside_bits bits;
  *count = 0;
  GPTVQ_TRY(gptvq_outside_bits_of(model, &options->options, &bits, err));
  const bool hessian = gptvq_outside_uses_hessian(model, &options->options, &bits);
  const gptvq_linear *const matrices[2] = {&model->embedding, &model->head};
  const unsigned wanted[2] = {bits.embedding, bits.head};
  for (size_t i = 0; i < 2; i++) {
    if (wanted[i] >= 8) continue;
    outside_part *part = &parts[(*count)++];
    const gptvq_packed_shape shape =
        gptvq_outside_shape(&options->options, matrices[i]->rows, matrices[i]->cols, wanted[i]);
    *part = (outside_part){.linear = matrices[i], .hessian = hessian && (i == 1 || bits.head == 16)};
    GPTVQ_TRY(
        gptvq_outside_options(&options->options, shape.kind, wanted[i], part->hessian, &part->options, err));
  }
  return GPTVQ_OK;
}

/* together: texts that the model writes side by side; 0: none */
static gptvq_status measure(const gptvq_resolved *options, const gptvq_backend *backend, size_t together,
                            double peak, outside_part *parts, size_t count, speeds *out, gptvq_error *err) {
  const gptvq_compute compute = gptvq_run_keeps_half(options) ? GPTVQ_COMPUTE_BF16 : GPTVQ_COMPUTE_FP32;
  samples s = {0};
  gptvq_status status = prepare(&s, err);
  if (status == GPTVQ_OK) status = measure_product(&s, FORWARD, TOKENS, compute, backend, &out->forward, err);
  if (status == GPTVQ_OK) status = measure_product(&s, GRAM, TOKENS, compute, backend, &out->gram, err);
  if (status == GPTVQ_OK) status = measure_product(&s, CROSS, TOKENS, compute, backend, &out->cross, err);
  if (status == GPTVQ_OK) status = measure_product(&s, SOLVER, TOKENS, compute, backend, &out->product, err);
  if (status == GPTVQ_OK) status = measure_product(&s, PLAIN, TOKENS, compute, backend, &out->plain, err);
  if (status == GPTVQ_OK && together > 0)
    status = measure_product(&s, FORWARD, gptvq_min_size(together, TOKENS), GPTVQ_COMPUTE_INT8, backend,
                             &out->few, err);
  if (status == GPTVQ_OK && together > 0) status = measure_reading(peak, &out->read, err);
  if (status == GPTVQ_OK) status = measure_solver(&s, options, backend, GPTVQ_STAGE_OTHER, out, err);
  if (status == GPTVQ_OK) status = measure_trial(&s, options, backend, out, err);
  for (size_t i = 0; i < count && status == GPTVQ_OK; i++) {
    parts[i].machine = *out;
    status =
        measure_solver(&s, &parts[i].options, &gptvq_cpu_backend, GPTVQ_STAGE_LOOP, &parts[i].machine, err);
  }
  release(&s);
  return status;
}

static void add(gptvq_stage_sum *sum, double flop, double speed) {
  sum->flop += flop;
  sum->seconds += flop / speed;
}

/* Share of the tokens that a linear of the block sees. */
static double share(const gptvq_model *model, const gptvq_block *block, gptvq_block_input input, size_t mlp) {
  const gptvq_config *c = &model->config;
  if (!gptvq_input_in_mlp(input) || !gptvq_block_routes(block) || mlp >= c->experts) return 1.0;
  return (double)c->experts_per_token / (double)c->experts;
}

typedef struct half_flop {
  double first, last; /* up to the inputs of its last linear, and that */
  double attention;   /* of `first`: queries with keys and values */
} half_flop;

/* A token's way through a half of the block. */
static half_flop half_of(const gptvq_model *model, const gptvq_block *block, bool mlp, size_t length) {
  half_flop half = {0};
  for (gptvq_block_input i = 0; i < GPTVQ_ALL_INPUTS; i++)
    for (size_t e = 0; gptvq_input_in_mlp(i) == mlp && e < gptvq_input_count(block, i); e++) {
      const gptvq_linear_group readers = gptvq_input_readers(block, i, e);
      for (size_t l = 0; l < readers.count; l++) {
        const gptvq_linear *linear = &block->linears[readers.linear[l]];
        *(gptvq_input_is_last(i) ? &half.last : &half.first) +=
            2.0 * share(model, block, i, e) * (double)linear->rows * (double)linear->cols;
      }
    }
  if (!mlp) half.attention = gptvq_attention_flop(&model->config, &block->attention, length) / (double)length;
  half.first += half.attention;
  return half;
}

static double block_flop(const gptvq_model *model, const gptvq_block *block, size_t length) {
  const half_flop attention = half_of(model, block, false, length), mlp = half_of(model, block, true, length);
  return attention.first + attention.last + mlp.first + mlp.last;
}

/* What is done to a logit of the output head besides, exponential and sums, takes about as long as so many
 * flop in fp32. */
enum { LOGIT_FLOP = 500 };

static double logit_seconds(const gptvq_model *model, double tokens, const speeds *machine) {
  return LOGIT_FLOP * tokens * (double)model->head.rows / machine->plain;
}

/* Forwards; forwards again, and back, where products inside attention are fp32, five of them back for two
 * forwards. */
gptvq_gradient_flop gptvq_gradient_flop_of(const gptvq_model *model, size_t windows, size_t length) {
  const double tokens = (double)windows * (double)length;
  gptvq_gradient_flop flop = {.calibrated =
                                  4.0 * tokens * (double)model->head.rows * (double)model->head.cols};
  for (size_t b = 0; b < model->config.layers; b++) {
    const double attention = half_of(model, &model->blocks[b], false, length).attention;
    flop.calibrated +=
        tokens * (3.0 * (block_flop(model, &model->blocks[b], length) - attention) + attention);
    flop.plain += tokens * 3.5 * attention;
  }
  return flop;
}

static void add_gradients(const gptvq_model *model, size_t windows, size_t length, const speeds *machine,
                          gptvq_stage_sum *sum) {
  const gptvq_gradient_flop flop = gptvq_gradient_flop_of(model, windows, length);
  add(sum, flop.calibrated, machine->forward);
  add(sum, flop.plain, machine->plain);
  sum->seconds += flop.plain / machine->plain; /* exponentials take as long as the products */
  sum->seconds += logit_seconds(model, (double)windows * (double)length, machine);
}

static double model_flop(const gptvq_model *model, size_t length) {
  double token = 2.0 * (double)model->head.rows * (double)model->head.cols;
  for (size_t b = 0; b < model->config.layers; b++) token += block_flop(model, &model->blocks[b], length);
  return token;
}

bool gptvq_time_plan_pays(const gptvq_model *model, const gptvq_resolved *options) {
  const gptvq_quantize_options *o = &options->options;
  return (double)o->calib_samples * (double)o->calib_length * model_flop(model, o->calib_length) >= 4e12;
}

static void add_writing(const gptvq_model *model, const gptvq_resolved *options, const gptvq_writing *writing,
                        const speeds *machine, gptvq_stage_sum *sums) {
  if (writing->tokens == 0.0) return;
  /* weights of 2 bytes, of which each makes 2 flop a token: all are read for the texts of a step */
  const double flop = writing->tokens * model_flop(model, options->options.calib_length);
  sums[GPTVQ_STAGE_SAMPLE].flop += flop;
  sums[GPTVQ_STAGE_SAMPLE].seconds +=
      fmax(flop / machine->few, flop / ((double)writing->together * machine->read)) +
      writing->tokens * writing->caches / machine->read + logit_seconds(model, writing->tokens, machine);
}

/* Fine-tuning of the model: the original once, each step forward twice, back, and the gradients of weights;
 * the output heads of both, and one of them back. Then the finished model beside the original. */
static void add_end(const gptvq_model *model, const gptvq_resolved *options, const speeds *machine,
                    gptvq_stage_sum *sums) {
  const gptvq_quantize_options *o = &options->options;
  size_t written, windows, judged;
  gptvq_calibration_count(model, o, &written, &windows, &judged);
  const double length = (double)o->calib_length, all = model_flop(model, o->calib_length),
               head = 2.0 * (double)model->head.rows * (double)model->head.cols, blocks = all - head;
  if (o->finetune_steps > 0) {
    const double step = (double)o->finetune_batch * length;
    add(&sums[GPTVQ_STAGE_OTHER], (double)o->calib_samples * length * blocks, machine->forward);
    add(&sums[GPTVQ_STAGE_OTHER], (double)o->finetune_steps * step * (4.0 * blocks + 3.0 * head),
        machine->forward);
  }
  if (judged == 0) return;
  add(&sums[GPTVQ_STAGE_JUDGE], 2.0 * (double)judged * length * all, machine->forward);
  sums[GPTVQ_STAGE_JUDGE].seconds += logit_seconds(model, 2.0 * (double)judged * length, machine);
}

/* Work that grows with rows × columns, and products, which grow with rows × columns². What the tables of a
 * trellis are made from is some rows of a layer, whatever its height. The codebook update is all of the
 * second kind (in the sample layer more moves than in a wide one, so that its systems are formed anew, which
 * is what a wide layer does whose systems are not all kept). solving: of the sample layer. */
static void add_solving(const gptvq_resolved *options, double rows, double cols,
                        const gptvq_stage_sum *solving, const speeds *machine,
                        gptvq_stage_sum *out[GPTVQ_STAGES]) {
  static const gptvq_stage parts[] = {GPTVQ_STAGE_KMEANS, GPTVQ_STAGE_LOOP, GPTVQ_STAGE_UPDATE,
                                      GPTVQ_STAGE_REASSIGN};
  const bool trellis = options->options.code == GPTVQ_CODE_TRELLIS;
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
    const gptvq_stage_sum *sample = &solving[parts[i]];
    const double height = trellis && parts[i] == GPTVQ_STAGE_KMEANS ? fmin(rows, GPTVQ_TRELLIS_SAMPLE) : rows,
                 area = height * cols / ((double)ROWS * SIDE), volume = area * cols / SIDE,
                 products = parts[i] == GPTVQ_STAGE_UPDATE
                                ? sample->seconds
                                : fmin(sample->seconds, sample->flop / machine->product);
    out[parts[i]]->seconds += products * volume + (sample->seconds - products) * area;
    out[parts[i]]->flop += sample->flop * volume;
  }
}

static void add_layer(const gptvq_resolved *options, const gptvq_linear *linear, const speeds *machine,
                      gptvq_stage_sum *sums) {
  gptvq_stage_sum *out[GPTVQ_STAGES];
  for (size_t i = 0; i < GPTVQ_STAGES; i++) out[i] = &sums[i];
  add_solving(options, (double)linear->rows, (double)linear->cols, machine->solving, machine, out);
}

/* Gradients, and layers that are tried, with Hessians of their own. */
static void add_allocation(const gptvq_model *model, const gptvq_resolved *options, const speeds *machine,
                           gptvq_stage_sum *sums) {
  const gptvq_quantize_options *o = &options->options;
  const size_t windows = gptvq_allocation_windows(o), tokens = windows * o->calib_length;
  gptvq_stage_sum *sum = &sums[GPTVQ_STAGE_SENSITIVITY], *all[GPTVQ_STAGES];
  for (size_t i = 0; i < GPTVQ_STAGES; i++) all[i] = sum;
  add_gradients(model, windows, o->calib_length, machine, &sums[GPTVQ_STAGE_GRADIENT]);
  for (size_t b = 0; b < model->config.layers; b++) {
    const gptvq_block *block = &model->blocks[b];
    add(sum, (double)tokens * block_flop(model, block, o->calib_length), machine->forward);
    for (gptvq_block_input i = 0; i < GPTVQ_ALL_INPUTS; i++)
      for (size_t e = 0; e < gptvq_input_count(block, i); e++) {
        const gptvq_linear_group readers = gptvq_input_readers(block, i, e);
        const double c = (double)block->linears[readers.linear[0]].cols;
        add(sum, share(model, block, i, e) * (double)tokens * c * (c + 1.0), machine->gram);
        add(sum, 2.0 / 3.0 * c * c * c, machine->factor);
        for (size_t l = 0; l < readers.count; l++) {
          size_t settings, rows;
          gptvq_allocation_trials(options, &block->linears[readers.linear[l]], &settings, &rows);
          add(sum, 2.0 * (double)rows * c * c, machine->plain); /* the power that errors relate to */
          for (size_t s = 0; s < settings; s++)
            add_solving(options, (double)rows, c, machine->trying, machine, all);
        }
      }
  }
}

static void add_forward(const gptvq_model *model, const gptvq_resolved *options, const gptvq_block *block,
                        const gptvq_memory_plan *plan, const speeds *machine, gptvq_stage_sum *sums) {
  const gptvq_quantize_options *o = &options->options;
  const double tokens = (double)o->calib_samples * (double)o->calib_length;
  const bool last_block = block->index + 1 == model->config.layers && o->finetune_block_steps == 0;
  gptvq_outside_bits bits;
  const bool for_head =
      gptvq_outside_bits_of(model, o, &bits, NULL) == GPTVQ_OK && gptvq_outside_uses_hessian(model, o, &bits);
  for (int mlp = 0; mlp < 2; mlp++) {
    const half_flop half = half_of(model, block, mlp != 0, o->calib_length);
    const size_t cols = block->linears[mlp != 0 ? block->mlps[0].down : block->o].cols;
    const double window =
                     (double)gptvq_stream_bytes(1, o->calib_length * cols, gptvq_run_keeps_half(options)),
                 kept = mlp != 0 && gptvq_block_routes(block)
                            ? 0.0
                            : fmin(1.0, (double)plan->kept_budget / (window * (double)o->calib_samples));
    double own = half.first;
    if (!(mlp != 0 && last_block)) own += half.last + (1.0 - kept) * half.first;
    add(&sums[GPTVQ_STAGE_FORWARD], tokens * own, machine->forward);
    if (gptvq_run_keeps_both(options))
      add(&sums[GPTVQ_STAGE_FORWARD_ORIGINAL], tokens * (half.first + half.last), machine->forward);
    if (for_head) /* its Hessian: once through the original */
      add(&sums[GPTVQ_STAGE_FORWARD],
          (double)gptvq_outside_windows(model, o->calib_samples, o->calib_length) * (double)o->calib_length *
              (half.first + half.last),
          machine->forward);
  }
}

static void add_input(const gptvq_model *model, const gptvq_resolved *options, const gptvq_block *block,
                      gptvq_block_input input, size_t mlp, const speeds *machine, gptvq_stage_sum *sums) {
  const gptvq_quantize_options *o = &options->options;
  const gptvq_linear_group readers = gptvq_input_readers(block, input, mlp);
  const double tokens = (double)o->calib_samples * (double)o->calib_length * share(model, block, input, mlp);
  const double c = (double)block->linears[readers.linear[0]].cols;
  const double rows =
                   gptvq_writes_stream(block, input) ? (double)block->linears[readers.linear[0]].rows : 0.0,
               height = rows > 0.0 ? rows : c;
  const bool corrects = gptvq_run_corrects(options) && !(block->index == 0 && input == GPTVQ_INPUT_QKV);
  add(&sums[GPTVQ_STAGE_HESSIAN], tokens * c * (c + 1.0), machine->gram);
  add(&sums[GPTVQ_STAGE_FACTOR], 2.0 / 3.0 * c * c * c, machine->factor);
  if (corrects) {
    add(&sums[GPTVQ_STAGE_MISMATCH], 2.0 * tokens * height * c, machine->cross);
    add(&sums[GPTVQ_STAGE_MISMATCH], 2.0 * c * c * (height + rows), machine->plain);
  }
  for (size_t l = 0; l < readers.count && corrects && rows == 0.0; l++)
    add(&sums[GPTVQ_STAGE_MISMATCH], 2.0 * (double)block->linears[readers.linear[l]].rows * c * c,
        machine->plain);
}

/* windows: of the Hessian */
static void add_outside(const gptvq_resolved *options, size_t windows, const outside_part *part,
                        gptvq_stage_sum *sums) {
  const double tokens = (double)windows * (double)options->options.calib_length,
               rows = (double)part->linear->rows, c = (double)part->linear->cols;
  const speeds *machine = &part->machine;
  add_layer(&part->options, part->linear, machine, sums);
  if (!part->hessian) return;
  add(&sums[GPTVQ_STAGE_HESSIAN], tokens * c * c, machine->gram);
  add(&sums[GPTVQ_STAGE_FACTOR], 2.0 / 3.0 * c * c * c, machine->factor);
  add(&sums[GPTVQ_STAGE_LOOP], 2.0 * rows * c * c, machine->product); /* the power that errors relate to */
}

gptvq_status gptvq_time_plan_make(const gptvq_model *model, const gptvq_resolved *options,
                                  const gptvq_backend *backend, const gptvq_memory_plan *plan,
                                  gptvq_stage_sum sums[GPTVQ_STAGES], gptvq_error *err) {
  speeds machine = {0};
  outside_part parts[2];
  size_t count;
  memset(sums, 0, GPTVQ_STAGES * sizeof *sums);
  GPTVQ_TRY(list_outside(model, options, parts, &count, err));
  const gptvq_writing writing = gptvq_run_uses_data(options)
                                    ? gptvq_calibration_writing(model, &options->options, plan->room)
                                    : (gptvq_writing){0};
  GPTVQ_TRY(measure(options, backend, writing.together, plan->peak, parts, count, &machine, err));
  add_writing(model, options, &writing, &machine, sums);
  if (gptvq_run_uses_data(options)) add_end(model, options, &machine, sums);
  for (size_t i = 0; i < count; i++)
    add_outside(options,
                gptvq_outside_windows(model, options->options.calib_samples, options->options.calib_length),
                &parts[i], sums);
  if (gptvq_run_is_guided(options))
    add_gradients(model, options->options.calib_samples, options->options.calib_length, &machine,
                  &sums[GPTVQ_STAGE_GRADIENT]);
  if (gptvq_run_allocates(options)) add_allocation(model, options, &machine, sums);
  for (size_t b = 0; b < model->config.layers; b++) {
    const gptvq_block *block = &model->blocks[b];
    if (gptvq_run_uses_data(options)) {
      add_forward(model, options, block, plan, &machine, sums);
      for (gptvq_block_input i = 0; i < GPTVQ_ALL_INPUTS; i++)
        for (size_t e = 0; e < gptvq_input_count(block, i); e++)
          add_input(model, options, block, i, e, &machine, sums);
    }
    for (size_t i = 0; i < block->linear_count; i++) add_layer(options, &block->linears[i], &machine, sums);
  }
  return GPTVQ_OK;
}
