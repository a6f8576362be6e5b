#include "model/linear.h"
#include "base/half.h"
#include "base/memory.h"
#include "base/threads.h"
#include "linalg/gemm.h"
#include "linalg/gemm_bf16.h"

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

/* Work is cut by the shapes alone. …_WEIGHTS: weights of one matrix × vector task, a few microseconds.
 * PANEL_WEIGHTS: values of a decoded panel, 2 MiB as fp32: it stays in the second-level cache while all
 * tokens pass. */
enum {
  LEAST_WEIGHTS = 1 << 15,
  TASK_WEIGHTS = 1 << 17,
  PANEL_WEIGHTS = 1 << 19,
  PANEL_MIN = 32,
  PANEL_MAX = 128,
  MANY_TOKENS = 512,
  MANY_ROWS = 2048,
  PANEL_MANY = 256
};

typedef struct linear_job linear_job;
typedef struct part part;

/* A way of multiplying: the first row of paths[] that applies is taken. */
typedef struct path {
  bool (*applies)(const gptvq_linear *linear, size_t n, gptvq_compute compute);
  size_t (*rows_per_task)(const linear_job *job, const gptvq_linear *linear);
  /* of a thread, for the rows of a task */
  size_t (*panel_bytes)(const linear_job *job, const gptvq_linear *linear, size_t rows);
  /* y = W x for rows [begin, end); false: oneDNN refused */
  bool (*run)(const linear_job *job, const part *p, size_t begin, size_t end, void *panel);
  bool ordered; /* wants x in packed column order */
  /* x as int8 codes, `tokens` tokens in each of several inputs that follow each other; or all of these 0 */
  size_t tokens;
  size_t (*input_bytes)(const gptvq_linear *linear);
  void (*prepare)(const gptvq_linear *linear, const float *x, size_t ldx, size_t count, void *input);
  bool (*same_input)(const gptvq_packed *a, const gptvq_packed *b); /* NULL: never shared */
} path;

struct part {
  const gptvq_linear *linear;
  const path *path;
  const float *x;     /* [n × ldx] */
  const void *input;  /* int8 form of x, for paths that take it */
  size_t input_bytes; /* of one input */
  size_t ldx, rows_per_task, first_task;
  bool rounds; /* inputs to bf16, and weights where a panel is made of them */
  float *y;
};

typedef struct quantizing {
  const part *part;
  char *memory;
  size_t n;
} quantizing;

struct linear_job {
  part parts[GPTVQ_MAX_PARTS];
  size_t count, tasks, n, ldy;
  size_t weights;      /* of a matrix × vector task, at most: the smallest matrix makes two tasks */
  size_t as;           /* tokens by which the ways of multiplying are chosen: n, or 1 */
  const uint16_t *x16; /* bf16 inputs [n × cols], or NULL */
  char *panels;        /* [threads × panel_bytes] */
  size_t panel_bytes;
  _Atomic(const char *) failed; /* name of a layer whose product oneDNN refused */
};

static size_t panel_rows(size_t cols) {
  size_t rows = PANEL_WEIGHTS / cols / 16 * 16;
  return rows < PANEL_MIN ? PANEL_MIN : gptvq_min_size(rows, PANEL_MAX);
}

/* For every panel BLAS rearranges all inputs: with many tokens and rows enough for many threads panels are
 * high, so that it does not tell (86 instead of 50 to 76 GFLOP/s a core). */
static size_t float_panel_rows(const linear_job *job, const gptvq_linear *linear) {
  return job->n >= MANY_TOKENS && linear->rows >= MANY_ROWS ? PANEL_MANY : panel_rows(linear->cols);
}

/* Inputs are copied when they are permuted (matrix × vector only) or rounded. */
static size_t input_bytes(size_t count, size_t cols, size_t as, size_t n, gptvq_compute compute) {
  size_t copies = (as <= GPTVQ_MATVEC_TOKENS ? count : 0) + (compute != GPTVQ_COMPUTE_FP32 ? 1 : 0);
  return copies * n * gptvq_round_up(cols, 16) * sizeof(float);
}

size_t gptvq_linears_scratch(size_t count, size_t max_cols, size_t n, gptvq_compute compute) {
  /* narrower layers have taller panels, but never more than PANEL_WEIGHTS values or PANEL_MIN (or PANEL_MANY)
   * rows */
  size_t least = n >= MANY_TOKENS ? PANEL_MANY : PANEL_MIN;
  size_t panel = gptvq_max_size(PANEL_WEIGHTS, least * gptvq_round_up(max_cols, 16)) + 16 * PANEL_MAX;
  size_t few = gptvq_min_size(n, GPTVQ_MATVEC_TOKENS);
  size_t many = n > GPTVQ_MATVEC_TOKENS ? input_bytes(count, max_cols, n, n, compute) +
                                              gptvq_thread_count() * panel * sizeof(float)
                                        : 0;
  return gptvq_max_size(input_bytes(count, max_cols, few, few, compute), many);
}

static gptvq_status reserve(gptvq_scratch *scratch, size_t bytes, const char *name, gptvq_error *err) {
  if (bytes <= scratch->bytes) return GPTVQ_OK;
  free(scratch->data);
  scratch->data = gptvq_alloc(bytes, 1);
  scratch->bytes = scratch->data == NULL ? 0 : bytes;
  return scratch->data == NULL ? gptvq_fail_memory(err, name, bytes) : GPTVQ_OK;
}

static float round_bf16(float x) { return gptvq_bf16_to_float(gptvq_float_to_bf16(x)); }

static void add_bias(const float *bias, size_t begin, size_t end, size_t n, float *y, size_t ldy) {
  if (bias == NULL) return;
  for (size_t i = 0; i < n; i++)
    for (size_t row = begin; row < end; row++) y[i * ldy + row] += bias[row];
}

static const void *dense_row(const gptvq_linear *linear, size_t row) {
  return (const char *)linear->weights + row * linear->cols * gptvq_dtype_size(linear->dtype);
}

static bool is_aligned(const void *pointer, size_t alignment) { return (uintptr_t)pointer % alignment == 0; }

/* true: done with bf16 instructions */
static bool panel_bf16(const linear_job *job, const part *p, size_t begin, size_t end, float *panel) {
  const gptvq_linear *linear = p->linear;
  if (job->x16 == NULL || !p->rounds) return false;
  size_t cols = linear->cols, values = (end - begin) * cols;
  const uint16_t *weights = linear->is_packed ? NULL : dense_row(linear, begin);
  if (linear->is_packed || linear->dtype != GPTVQ_BF16 || !is_aligned(weights, 2)) {
    uint16_t *rounded = (uint16_t *)(void *)panel;
    if (linear->is_packed) gptvq_packed_decode(&linear->packed, begin, end, panel, cols);
    else gptvq_to_float(linear->dtype, weights, values, panel);
    gptvq_to_bf16(values, panel, rounded);
    weights = rounded;
  }
  return gptvq_gemm_bf16_serial_nt(job->n, end - begin, cols, job->x16, cols, weights, cols, p->y + begin,
                                   job->ldy);
}

static void panel_fp32(const linear_job *job, const part *p, size_t begin, size_t end, float *panel) {
  const gptvq_linear *linear = p->linear;
  const float *weights = panel;
  size_t cols = linear->cols;
  if (linear->is_packed) {
    gptvq_packed_decode(&linear->packed, begin, end, panel, cols);
  } else if (linear->dtype == GPTVQ_F32 && is_aligned(linear->weights, sizeof(float)) && !p->rounds) {
    weights = dense_row(linear, begin);
  } else {
    gptvq_to_float(linear->dtype, dense_row(linear, begin), (end - begin) * cols, panel);
  }
  if (p->rounds && (linear->is_packed || linear->dtype != GPTVQ_BF16))
    for (size_t i = 0; i < (end - begin) * cols; i++) panel[i] = round_bf16(panel[i]);
  gptvq_gemm_serial_nt(job->n, end - begin, cols, 1.0f, p->x, p->ldx, weights, cols, 0.0f, p->y + begin,
                       job->ldy);
}

/* ---- the paths ---- */

/* Tasks of equal size and even in number, four and more where a matrix is alone, so that equal shares of them
 * are equal work; none below LEAST_WEIGHTS. Whole stripes of codebooks, where they are not too tall: a task
 * then reads memory in one piece and sets up each codebook once. */
static size_t vector_rows(const linear_job *job, const gptvq_linear *linear) {
  enum { MOST = 128, ROWS = 8 /* that kernels take at once */ };
  const size_t all = linear->rows * linear->cols, weights = gptvq_min_size(job->weights, TASK_WEIGHTS);
  size_t tasks = gptvq_round_up(gptvq_ceil_div(all, weights), job->count == 1 ? 4 : 2);
  tasks = gptvq_max_size(gptvq_min_size(tasks, all / LEAST_WEIGHTS), 1);
  const size_t rows = gptvq_round_up(gptvq_ceil_div(linear->rows, tasks), ROWS);
  return linear->is_packed ? gptvq_round_up(rows, gptvq_min_size(linear->packed.shape.group_rows, MOST))
                           : rows;
}

static size_t block_rows(const linear_job *job, const gptvq_linear *linear) {
  (void)job;
  return panel_rows(linear->cols);
}

static size_t no_panel(const linear_job *job, const gptvq_linear *linear, size_t rows) {
  (void)job, (void)linear, (void)rows;
  return 0;
}

/* Int8 inputs and int8 weights. */
static bool rows_apply(const gptvq_linear *linear, size_t n, gptvq_compute compute) {
  (void)n, (void)compute;
  return linear->codes != NULL;
}
static size_t rows_input_bytes(const gptvq_linear *linear) { return gptvq_rows_input_bytes(linear->cols); }
static void rows_prepare(const gptvq_linear *linear, const float *x, size_t ldx, size_t count, void *input) {
  (void)ldx, (void)count;
  gptvq_rows_prepare(linear->cols, x, input);
}
static bool rows_run(const linear_job *job, const part *p, size_t begin, size_t end, void *panel) {
  (void)panel;
  gptvq_rows_matmul(p->linear->codes, p->linear->code_scales, p->linear->cols, begin, end, p->input, job->n,
                    p->y + begin, job->ldy);
  return true;
}

/* Int8 inputs, weights decoded once for all tokens, products in tiles, where the processor has AMX. */
static bool takes_codes(const gptvq_linear *linear, gptvq_compute compute) {
  return compute == GPTVQ_COMPUTE_INT8 && linear->is_packed && gptvq_packed_has_i8(&linear->packed.shape);
}
static bool tiles_apply(const gptvq_linear *linear, size_t n, gptvq_compute compute) {
  enum { LEAST = 6 }; /* below, weights take longer to be decoded than to be looked up token by token */
  return takes_codes(linear, compute) && n >= LEAST && gptvq_packed_has_tiles_i8(&linear->packed.shape);
}
static size_t tiles_panel_bytes(const linear_job *job, const gptvq_linear *linear, size_t rows) {
  (void)rows;
  return gptvq_packed_tiles_panel_bytes(&linear->packed.shape, job->n);
}
static size_t tiles_input_bytes(const gptvq_linear *linear) {
  return gptvq_packed_tiles_input_bytes(&linear->packed.shape);
}
static void tiles_prepare(const gptvq_linear *linear, const float *x, size_t ldx, size_t count, void *input) {
  gptvq_packed_tiles_prepare(&linear->packed, x, ldx, count, input);
}
static bool tiles_run(const linear_job *job, const part *p, size_t begin, size_t end, void *panel) {
  gptvq_packed_tiles_i8(&p->linear->packed, p->input, job->n, begin, end, p->y + begin, job->ldy, panel);
  return true;
}

/* The same with products of vectors. */
static bool blocks_apply(const gptvq_linear *linear, size_t n, gptvq_compute compute) {
  return takes_codes(linear, compute) && gptvq_packed_has_gemm_i8(&linear->packed.shape) &&
         n > gptvq_packed_few_tokens(&linear->packed.shape);
}
static size_t blocks_panel_bytes(const linear_job *job, const gptvq_linear *linear, size_t rows) {
  (void)job;
  return gptvq_packed_gemm_panel_bytes(&linear->packed.shape, rows);
}
static size_t blocks_input_bytes(const gptvq_linear *linear) {
  return gptvq_packed_gemm_input_bytes(&linear->packed.shape);
}
static void blocks_prepare(const gptvq_linear *linear, const float *x, size_t ldx, size_t count,
                           void *input) {
  gptvq_packed_gemm_prepare(&linear->packed, x, ldx, count, input);
}
static bool blocks_run(const linear_job *job, const part *p, size_t begin, size_t end, void *panel) {
  gptvq_packed_gemm_i8(&p->linear->packed, p->input, job->n, begin, end, p->y + begin, job->ldy, panel);
  return true;
}

/* Int8 inputs, up to 32 tokens per pass over the weights. */
static bool codes_apply(const gptvq_linear *linear, size_t n, gptvq_compute compute) {
  return takes_codes(linear, compute) && n <= gptvq_packed_few_tokens(&linear->packed.shape);
}
static size_t codes_input_bytes(const gptvq_linear *linear) {
  return gptvq_packed_input_bytes(&linear->packed.shape);
}
static void codes_prepare(const gptvq_linear *linear, const float *x, size_t ldx, size_t count, void *input) {
  (void)ldx, (void)count;
  gptvq_packed_prepare(&linear->packed, x, input);
}
static bool codes_run(const linear_job *job, const part *p, size_t begin, size_t end, void *panel) {
  (void)panel;
  gptvq_packed_matmul_i8(&p->linear->packed, p->input, job->n, begin, end, p->y + begin, job->ldy);
  return true;
}

/* Matrix × vector kernels, token by token. */
static bool vectors_apply(const gptvq_linear *linear, size_t n, gptvq_compute compute) {
  (void)linear, (void)compute;
  return n <= GPTVQ_MATVEC_TOKENS;
}
static bool vectors_run(const linear_job *job, const part *p, size_t begin, size_t end, void *panel) {
  (void)panel;
  const gptvq_linear *linear = p->linear;
  for (size_t i = 0; i < job->n; i++) {
    const float *x = p->x + i * p->ldx;
    float *y = p->y + i * job->ldy + begin;
    if (linear->is_packed) gptvq_packed_matvec(&linear->packed, begin, end, x, y);
    else gptvq_dense_matvec(linear->dtype, linear->weights, linear->cols, begin, end, x, y);
  }
  return true;
}

/* Weights decoded or converted once for all tokens, then a matrix product in fp32 or bf16. */
static bool panels_apply(const gptvq_linear *linear, size_t n, gptvq_compute compute) {
  (void)linear, (void)n, (void)compute;
  return true;
}
static size_t panels_panel_bytes(const linear_job *job, const gptvq_linear *linear, size_t rows) {
  (void)job;
  return rows * gptvq_round_up(linear->cols, 16) * sizeof(float);
}
static bool panels_run(const linear_job *job, const part *p, size_t begin, size_t end, void *panel) {
  if (!panel_bf16(job, p, begin, end, panel)) panel_fp32(job, p, begin, end, panel);
  return true;
}

static const path paths[] = {
    {rows_apply, vector_rows, no_panel, rows_run, false, 1, rows_input_bytes, rows_prepare, NULL},
    {tiles_apply, block_rows, tiles_panel_bytes, tiles_run, false, GPTVQ_TILES_TOKENS, tiles_input_bytes,
     tiles_prepare, gptvq_packed_same_gemm_input},
    {blocks_apply, block_rows, blocks_panel_bytes, blocks_run, false, GPTVQ_GEMM_BLOCK, blocks_input_bytes,
     blocks_prepare, gptvq_packed_same_gemm_input},
    {codes_apply, vector_rows, no_panel, codes_run, false, 1, codes_input_bytes, codes_prepare,
     gptvq_packed_same_input},
    {.applies = vectors_apply,
     .rows_per_task = vector_rows,
     .panel_bytes = no_panel,
     .run = vectors_run,
     .ordered = true},
    {.applies = panels_apply,
     .rows_per_task = float_panel_rows,
     .panel_bytes = panels_panel_bytes,
     .run = panels_run}};

static const path *choose_path(const gptvq_linear *linear, size_t n, gptvq_compute compute) {
  const path *how = paths;
  while (!how->applies(linear, n, compute)) how++; /* the last one always does */
  return how;
}

/* Tasks of a matrix that follow each other are one where no panel limits them. */
static void linear_task(void *context, size_t first, size_t last, size_t thread) {
  linear_job *job = context;
  for (size_t task = first, next; task < last; task = next) {
    size_t i = job->count - 1;
    while (task < job->parts[i].first_task) i--;
    const part *p = &job->parts[i];
    const size_t part_end = i + 1 < job->count ? job->parts[i + 1].first_task : job->tasks;
    next = p->path->panel_bytes == no_panel ? gptvq_min_size(part_end, last) : task + 1;
    size_t begin = (task - p->first_task) * p->rows_per_task;
    size_t end = gptvq_min_size(begin + (next - task) * p->rows_per_task, p->linear->rows);
    if (!p->path->run(job, p, begin, end, job->panels + thread * job->panel_bytes))
      atomic_store(&job->failed, p->linear->name);
    add_bias(p->linear->bias, begin, end, job->n, p->y, job->ldy);
  }
}

/* Dense layers' inputs are, and with BF16 those of packed layers that are decoded for many tokens. */
static bool rounds_inputs(const part *p, gptvq_compute compute) {
  if (compute == GPTVQ_COMPUTE_FP32 || p->path->tokens != 0) return false;
  return !p->linear->is_packed || (compute == GPTVQ_COMPUTE_BF16 && p->path->run == panels_run);
}

/* Inputs rounded to bf16: as bits for the bf16 product, else as fp32. Returns the end of the memory used. */
static char *round_inputs(linear_job *job, size_t cols, char *memory) {
  size_t stride = gptvq_round_up(cols, 16), ldx = job->parts[0].ldx;
  bool native = job->as > GPTVQ_MATVEC_TOKENS && gptvq_gemm_bf16_available();
  float *rounded = (float *)(void *)memory;
  uint16_t *bits = (uint16_t *)(void *)memory;
  const float *x = job->parts[0].x;
  if (native) {
    gptvq_rows_to_bf16(job->n, cols, x, ldx, bits);
    job->x16 = bits;
  }
  for (size_t i = 0; i < job->n && !native; i++)
    for (size_t c = 0; c < cols; c++) rounded[i * stride + c] = round_bf16(x[i * ldx + c]);
  for (size_t i = 0; i < job->count && !native; i++) {
    if (!job->parts[i].rounds) continue;
    job->parts[i].x = rounded;
    job->parts[i].ldx = stride;
  }
  return memory + job->n * stride * sizeof(float);
}

static char *order_inputs(linear_job *job, part *p, char *memory) {
  size_t cols = p->linear->cols, stride = gptvq_round_up(cols, 16);
  const uint32_t *permutation = p->linear->packed.permutation;
  float *ordered = (float *)(void *)memory;
  for (size_t t = 0; t < job->n; t++)
    for (size_t c = 0; c < cols; c++) ordered[t * stride + c] = p->x[t * p->ldx + permutation[c]];
  p->x = ordered;
  p->ldx = stride;
  return memory + job->n * stride * sizeof(float);
}

static void quantize_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const quantizing *job = context;
  const part *p = job->part;
  const size_t tokens = p->path->tokens;
  for (size_t i = begin; i < end; i++)
    p->path->prepare(p->linear, p->x + i * tokens * p->ldx, p->ldx,
                     gptvq_min_size(tokens, job->n - i * tokens), job->memory + i * p->input_bytes);
}

/* Layers that permute and group their columns alike share one prepared input. */
static char *quantize_inputs(linear_job *job, size_t at, char *memory) {
  part *p = &job->parts[at];
  const path *how = p->path;
  for (size_t i = 0; i < at && how->same_input != NULL; i++) {
    const part *other = &job->parts[i];
    if (other->path != how || !how->same_input(&other->linear->packed, &p->linear->packed)) continue;
    p->input = other->input;
    return memory;
  }
  quantizing inputs = {p, memory, job->n};
  size_t count = gptvq_ceil_div(job->n, how->tokens);
  gptvq_parallel_for(count, gptvq_rows_per_task(p->linear->cols * how->tokens), quantize_task, &inputs);
  p->input = memory;
  return memory + count * p->input_bytes;
}

/* Copies of the inputs that the kernels want in another order or precision, from `memory` on; returns its
 * end. */
static char *prepare_inputs(linear_job *job, gptvq_compute compute, size_t cols, char *memory) {
  bool rounds = false;
  for (size_t i = 0; i < job->count; i++) {
    job->parts[i].rounds = rounds_inputs(&job->parts[i], compute);
    rounds = rounds || job->parts[i].rounds;
  }
  if (rounds) memory = round_inputs(job, cols, memory);
  for (size_t i = 0; i < job->count; i++) {
    part *p = &job->parts[i];
    bool permuted = p->linear->is_packed && p->linear->packed.permutation != NULL;
    if (p->path->tokens != 0) memory = quantize_inputs(job, i, memory);
    else if (p->path->ordered && permuted) memory = order_inputs(job, p, memory);
  }
  return memory;
}

/* Fills in part i; returns the bytes of its int8 inputs. */
static size_t plan_part(linear_job *job, size_t i, const gptvq_linear *linear, gptvq_compute compute) {
  part *p = &job->parts[i];
  const path *how = choose_path(linear, job->as, compute);
  p->linear = linear;
  p->path = how;
  p->first_task = job->tasks;
  p->rows_per_task = how->rows_per_task(job, linear);
  job->tasks += gptvq_ceil_div(linear->rows, p->rows_per_task);
  job->panel_bytes =
      gptvq_max_size(job->panel_bytes, gptvq_round_up(how->panel_bytes(job, linear, p->rows_per_task), 64));
  if (how->tokens == 0) return 0;
  p->input_bytes = how->input_bytes(linear);
  return gptvq_ceil_div(job->n, how->tokens) * p->input_bytes;
}

gptvq_status gptvq_linears_forward(const gptvq_linear *const *linears, const size_t *offsets, size_t count,
                                   gptvq_compute compute, size_t n, const float *x, size_t ldx, float *y,
                                   size_t ldy, gptvq_scratch *scratch, gptvq_error *err) {
  if (n == 0 || count == 0) return GPTVQ_OK;
  linear_job job = {.count = count, .n = n, .as = scratch->alone ? 1 : n, .ldy = ldy};
  size_t cols = linears[0]->cols, bytes = input_bytes(count, cols, job.as, n, compute);
  for (size_t i = 0; i < count; i++) {
    const size_t half = gptvq_max_size(linears[i]->rows * linears[i]->cols / 2, LEAST_WEIGHTS);
    job.weights = i == 0 ? half : gptvq_min_size(job.weights, half);
  }
  for (size_t i = 0; i < count; i++) {
    job.parts[i] = (part){.x = x, .ldx = ldx, .y = y + offsets[i]};
    bytes += plan_part(&job, i, linears[i], compute);
  }
  bytes += gptvq_thread_count() * job.panel_bytes;
  GPTVQ_TRY(reserve(scratch, bytes, linears[0]->name, err));
  job.panels = prepare_inputs(&job, compute, cols, scratch->data);
  if (gptvq_thread_count() == 1) linear_task(&job, 0, job.tasks, 0);
  else gptvq_parallel_for(job.tasks, 1, linear_task, &job);
  const char *failed = atomic_load(&job.failed);
  if (failed != NULL)
    return gptvq_fail(err, GPTVQ_ERROR_MEMORY, "%s: oneDNN could not multiply %zu tokens; out of memory?",
                      failed, n);
  return GPTVQ_OK;
}

gptvq_status gptvq_linear_forward(const gptvq_linear *linear, gptvq_compute compute, size_t n, const float *x,
                                  size_t ldx, float *y, size_t ldy, gptvq_error *err) {
  gptvq_scratch scratch = {.data = NULL};
  size_t offset = 0;
  gptvq_status status = gptvq_linears_forward(&linear, &offset, 1, compute, n, x, ldx, y, ldy, &scratch, err);
  free(scratch.data);
  return status;
}

void gptvq_linear_decode_rows(const gptvq_linear *linear, size_t begin, size_t end, float *values) {
  if (linear->is_packed) gptvq_packed_decode(&linear->packed, begin, end, values, linear->cols);
  else gptvq_to_float(linear->dtype, dense_row(linear, begin), (end - begin) * linear->cols, values);
}

typedef struct decode_job {
  const gptvq_linear *linear;
  float *weights;
} decode_job;

static void decode_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const decode_job *job = context;
  gptvq_linear_decode_rows(job->linear, begin, end, job->weights + begin * job->linear->cols);
}

void gptvq_linear_decode(const gptvq_linear *linear, float *weights) {
  decode_job job = {linear, weights};
  gptvq_parallel_for(linear->rows, PANEL_MIN, decode_rows, &job);
}
