/* Matrix × vector (and × few vectors, × prompt) products from memory, as the model makes them, against the
 * measured read bandwidth and 4-bit integers.
 *
 * Kernels walk through copies of their matrices, as decoding walks through the layers of a model. All kernels
 * and the bandwidth measurement take turns, round by round, so that ratios are taken under the same
 * conditions. Each goes on in memory where the one before it stopped: what a cache still holds is not what is
 * read next. The minimum of all single products and the median of the rounds' means are reported. Preparing
 * the activations is part of the time. In a round each kernel walks through about an eighth of the memory,
 * divided by its tokens. */
#define _GNU_SOURCE
#include "base/clock.h"
#include "base/context.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/threads.h"
#include "model/linear.h"
#include "tools/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROMPT = 128, MAX_ROUNDS = 1001, MAX_SHAPES = 64, MAX_SIDE = 1 << 20 };

typedef enum path { PATH_I8, PATH_FP32, PATH_HEAD, PATH_DECODE } path;

typedef struct kernel {
  const char *name;
  path path;
  gptvq_packed_shape shape; /* rows, cols and what follows from them are filled in; not of PATH_HEAD */
  size_t tokens;
} kernel;

#define VQ(d, bits, height, block) \
  { \
    .kind = GPTVQ_PACKED_VQ, .dim = d, .index_bits = bits, .group_rows = height, .group_cols = 256, \
    .codebook_bits = 8, .scale_block = block \
  }
#define TRELLIS(bits) \
  { .kind = GPTVQ_PACKED_TRELLIS, .dim = 1, .index_bits = bits, .group_cols = 256, .codebook_bits = 8 }
#define UNIFORM(bits, block) \
  { .kind = GPTVQ_PACKED_UNIFORM, .dim = 1, .index_bits = bits, .group_rows = 1, .scale_block = block }
/* one token, a few, and a prompt */
#define TOKENS(name, path, shape) \
  {name, path, shape, 1}, {name " x4", path, shape, 4}, {name " x16", path, shape, 16}, { \
    name " x128", path, shape, PROMPT \
  }
#define NO_SHAPE \
  { .rows = 0 }

static const kernel kernels[] = {
    TOKENS("int4-g128", PATH_I8, UNIFORM(4, 128)), /* the yardstick comes first */
    {"int4-g32", PATH_I8, UNIFORM(4, 32), 1},
    {"int2-g128", PATH_I8, UNIFORM(2, 128), 1},
    TOKENS("vq-2d-2.125", PATH_I8, VQ(2, 4, 8, 0)),
    TOKENS("vq-2d-2.25", PATH_I8, VQ(2, 4, 4, 0)),
    {"vq-2d-2.125-scales64", PATH_I8, VQ(2, 4, 16, 64), 1},
    {"vq-2d-3.125", PATH_I8, VQ(2, 6, 32, 0), 1},
    {"vq-2d-4.125", PATH_I8, VQ(2, 8, 128, 0), 1},
    TOKENS("vq-4d-2.25", PATH_I8, VQ(4, 8, 128, 0)),
    {"vq-4d-k4096", PATH_I8, VQ(4, 12, 512, 0), 1},
    TOKENS("vq-1d-2.125", PATH_I8, VQ(1, 2, 1, 0)),
    {"vq-1d-3.125", PATH_I8, VQ(1, 3, 2, 0), 1},
    TOKENS("trellis-2", PATH_I8, TRELLIS(2)),
    {"trellis-3", PATH_I8, TRELLIS(3), 1},
    {"trellis-3 x4", PATH_I8, TRELLIS(3), 4},
    {"trellis-4", PATH_I8, TRELLIS(4), 1},
    {"trellis-4 x4", PATH_I8, TRELLIS(4), 4},
    TOKENS("head-int8", PATH_HEAD, NO_SHAPE),
    {"vq-2d-2.125 fp32", PATH_FP32, VQ(2, 4, 8, 0), 1},
    {"vq-2d-2.125 decode", PATH_DECODE, VQ(2, 4, 8, 0), 1},
};
enum { KERNELS = sizeof kernels / sizeof kernels[0], YARDSTICKS = 4 /* TOKENS */ };

/* Rows × columns of a layer of the models in brackets; the widths that people have. */
typedef struct matrix {
  size_t rows, cols;
} matrix;
static const matrix layers[] = {
    {1536, 576},                  /* SmolLM2-135M */
    {4864, 896},                  /* Qwen2.5-0.5B */
    {2560, 960},                  /* SmolLM2-360M */
    {3072, 1024},                 /* Qwen3-0.6B */
    {6912, 1152},                 /* Gemma-3-1B */
    {8960, 1536},                 /* Qwen2.5-1.5B */
    {8192, 2048},                 /* Llama-3.2-1B */
    {9216, 2304},                 /* Gemma-2-2B */
    {9728, 2560},                 /* Qwen3-4B */
    {2880, 2880},                 /* gpt-oss */
    {8192, 3072},                 /* Llama-3.2-3B, Phi-3-mini */
    {18944, 3584},                /* Qwen2.5-7B */
    {4096, 4096},                 /* Llama-2-7B, Mistral-7B, Llama-3-8B */
    {896, 4864},   {13824, 5120}, /* Llama-2-13B */
    {2048, 8192},  {1536, 8960},  {4096, 11008}, {4096, 14336}, {3584, 18944},
};
enum { LAYERS = sizeof layers / sizeof layers[0] };
static const char default_shapes[] = "576,896,1536,2048,3072,4096,8960";

typedef struct pool {
  uint8_t *codes;   /* anything */
  uint16_t *scales; /* sane numbers, as bf16 and as fp16 */
  size_t code_bytes, scale_bytes;
  size_t walked; /* where in codes the next one goes on */
} pool;

typedef struct job {
  const kernel *kernel;
  gptvq_linear linear; /* as a model has it */
  size_t bytes;        /* of the matrix with codebooks and scales */
} job;

/* Int8 multiplications with an addition a second of all threads, in registers. */
typedef struct peak_job {
  uint64_t times, made[GPTVQ_MAX_THREADS];
} peak_job;

static void peak_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  peak_job *peak = context;
  for (size_t i = begin; i < end; i++) peak->made[i] = gptvq_int8_peak(peak->times);
}

static double time_products(void) {
  enum { TIMES = 20000 }; /* about a quarter of a millisecond */
  peak_job peak = {.times = TIMES};
  const size_t threads = gptvq_thread_count();
  double start = gptvq_clock(), made = 0.0;
  gptvq_parallel_for(threads, 1, peak_task, &peak);
  double seconds = gptvq_clock() - start;
  for (size_t i = 0; i < threads; i++) made += (double)peak.made[i];
  return made / seconds;
}

typedef struct decode_job {
  const gptvq_packed *packed;
  float *panels; /* [threads][16 × cols], which stay in the cache */
} decode_job;

static void decode_task(void *context, size_t begin, size_t end, size_t thread) {
  const decode_job *j = context;
  const size_t cols = j->packed->shape.cols;
  for (size_t row = begin; row < end; row += 16)
    gptvq_packed_decode(j->packed, row, gptvq_min_size(row + 16, end), j->panels + thread * 16 * cols, cols);
}

/* Mean seconds of reading one of `pieces` pieces of the pool; the least goes to *least. */
enum { PIECE = 4 << 20 };
static double time_read(pool *memory, size_t pieces, double *least) {
  const size_t first = gptvq_ceil_div(memory->walked, PIECE), all = memory->code_bytes / PIECE;
  double start = gptvq_clock(), last = start;
  for (size_t i = 0; i < pieces; i++) {
    gptvq_read_memory(memory->codes + (first + i) % all * PIECE, PIECE);
    double t = gptvq_clock();
    if (t - last < *least) *least = t - last;
    last = t;
  }
  memory->walked = (first + pieces) % all * PIECE;
  return (last - start) / (double)pieces;
}

static size_t packed_bytes(const gptvq_packed_shape *shape) {
  gptvq_packed_sizes sizes;
  gptvq_packed_measure(shape, &sizes);
  return sizes.index_bytes + sizes.codebook_bytes + 2 * sizes.codebook_scales + sizes.block_scale_bytes +
         2 * sizes.uniform_scales + sizes.zero_bytes + sizes.row_scale_bytes;
}

/* Memory that a copy of the matrix takes in the pool: arrays follow each other, 64-byte aligned. */
static size_t copy_bytes(const job *j) {
  gptvq_packed_sizes sizes;
  if (j->kernel->path == PATH_HEAD) return gptvq_round_up(j->linear.rows * j->linear.cols, 64);
  gptvq_packed_measure(&j->linear.packed.shape, &sizes);
  return gptvq_round_up(sizes.index_bytes, 64) + gptvq_round_up(sizes.codebook_bytes, 64) +
         gptvq_round_up(sizes.block_scale_bytes, 64) + gptvq_round_up(sizes.zero_bytes, 64) +
         gptvq_round_up(sizes.row_scale_bytes, 64);
}

/* The same of its 16-bit scales, or a head's fp32 ones. */
static size_t scale_bytes(const job *j) {
  gptvq_packed_sizes sizes;
  if (j->kernel->path == PATH_HEAD)
    return gptvq_round_up(j->linear.rows * gptvq_ceil_div(j->linear.cols, GPTVQ_ROWS_GROUP) * sizeof(float),
                          64);
  gptvq_packed_measure(&j->linear.packed.shape, &sizes);
  return gptvq_round_up(2 * (sizes.codebook_scales + sizes.uniform_scales), 64);
}

/* Copy number `copy` of the matrix; copies wrap around at the pool's end. */
static void place(const pool *memory, size_t copy, job *j) {
  static const float range[2] = {-1.0f, 0.125f};
  gptvq_packed *p = &j->linear.packed;
  gptvq_packed_sizes sizes;
  size_t total = copy_bytes(j), scales = scale_bytes(j);
  const uint8_t *at = memory->codes + copy % (memory->code_bytes / total) * total;
  const uint16_t *numbers = memory->scales + copy % (memory->scale_bytes / scales) * (scales / 2);
  if (j->kernel->path == PATH_HEAD) {
    j->linear.codes = at;
    j->linear.code_scales = (const float *)(const void *)numbers;
    return;
  }
  gptvq_packed_measure(&p->shape, &sizes);
  p->indices = at;
  at += gptvq_round_up(sizes.index_bytes, 64);
  if (p->shape.kind != GPTVQ_PACKED_UNIFORM) {
    p->codebooks = at;
    if (sizes.row_scale_bytes > 0) p->row_scales = at + gptvq_round_up(sizes.codebook_bytes, 64);
    p->codebook_scales = numbers;
    if (p->shape.scale_block != 0) {
      p->block_scales = at + gptvq_round_up(sizes.codebook_bytes, 64);
      p->block_scale_range = range;
    }
  } else {
    p->scales = numbers;
    p->zeros = at;
  }
}

typedef struct timing {
  pool memory;
  size_t rounds, count;                      /* of kernels */
  size_t yardsticks;                         /* as many of them */
  const kernel *kernels[KERNELS];            /* the yardsticks first */
  double *reads, *products, *times, *ratios; /* [rounds], [rounds], [count][rounds], the same */
  float *x, *y;
  gptvq_scratch scratch;
} timing;

static gptvq_status multiply(timing *t, job *j, gptvq_error *err) {
  const gptvq_linear *linear = &j->linear;
  const size_t zero = 0;
  if (j->kernel->path != PATH_DECODE)
    return gptvq_linears_forward(&linear, &zero, 1,
                                 j->kernel->path == PATH_FP32 ? GPTVQ_COMPUTE_FP32 : GPTVQ_COMPUTE_INT8,
                                 j->kernel->tokens, t->x, linear->cols, t->y, linear->rows, &t->scratch, err);
  decode_job decoding = {&linear->packed, t->y};
  gptvq_parallel_for(linear->rows, gptvq_round_up(gptvq_max_size(65536 / linear->cols, 1), 16), decode_task,
                     &decoding);
  return GPTVQ_OK;
}

/* Mean seconds of one product over `copies` copies; the least goes to *least. */
static gptvq_status time_kernel(timing *t, job *j, size_t copies, double *mean, double *least,
                                gptvq_error *err) {
  pool *memory = &t->memory;
  const size_t total = copy_bytes(j), first = gptvq_ceil_div(memory->walked, total);
  double start = gptvq_clock(), last = start;
  for (size_t copy = 0; copy < copies; copy++) {
    place(memory, first + copy, j);
    GPTVQ_TRY(multiply(t, j, err));
    double now = gptvq_clock();
    if (now - last < *least) *least = now - last;
    last = now;
  }
  memory->walked = (first + copies) % (memory->code_bytes / total) * total;
  *mean = (last - start) / (double)copies;
  return GPTVQ_OK;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Of values[n]; reorders them. */
static double median(double *values, size_t n) {
  qsort(values, n, sizeof *values, by_value);
  return values[n / 2];
}

/* Which of the yardsticks has as many tokens. */
static size_t yardstick(const timing *t, size_t k) {
  size_t i = 0;
  while (i + 1 < t->yardsticks && t->kernels[i]->tokens != t->kernels[k]->tokens) i++;
  return i;
}

static void make_job(const kernel *of, const matrix *size, job *j) {
  *j = (job){.kernel = of,
             .linear = {.name = of->name,
                        .rows = size->rows,
                        .cols = size->cols,
                        .is_packed = of->path != PATH_HEAD,
                        .packed.shape = of->shape}};
  gptvq_packed_shape *shape = &j->linear.packed.shape;
  shape->rows = size->rows;
  shape->cols = size->cols;
  shape->group_rows = gptvq_min_size(shape->group_rows, size->rows);
  if (shape->kind == GPTVQ_PACKED_TRELLIS) shape->group_rows = size->rows;
  if (shape->kind == GPTVQ_PACKED_UNIFORM) shape->group_cols = size->cols;
  j->bytes = of->path != PATH_HEAD
                 ? packed_bytes(shape)
                 : size->rows * (size->cols + 4 * gptvq_ceil_div(size->cols, GPTVQ_ROWS_GROUP));
}

static gptvq_status bench_shape(timing *t, const matrix *size, gptvq_kernel_report report, void *user,
                                gptvq_error *err) {
  job jobs[KERNELS];
  double least_read = 1e9, most_products = 0.0, least[KERNELS];
  for (size_t k = 0; k < t->count; k++) {
    make_job(t->kernels[k], size, &jobs[k]);
    least[k] = 1e9;
  }
  for (size_t round = 0; round < t->rounds; round++) {
    t->reads[round] = time_read(&t->memory, gptvq_max_size(t->memory.code_bytes / PIECE / 4, 1), &least_read);
    for (int i = 0; i < 4; i++) { /* the first wake the threads up */
      t->products[round] = time_products();
      most_products = t->products[round] > most_products ? t->products[round] : most_products;
    }
    for (size_t k = 0; k < t->count; k++) {
      size_t copies = t->memory.code_bytes / 8 / jobs[k].bytes / t->kernels[k]->tokens;
      GPTVQ_TRY(time_kernel(t, &jobs[k], gptvq_max_size(copies, 1), &t->times[k * t->rounds + round],
                            &least[k], err));
    }
  }
  const double products_median = median(t->products, t->rounds);
  double read_median = PIECE / median(t->reads, t->rounds);
  for (size_t k = 0; k < t->count; k++)
    for (size_t i = 0; i < t->rounds; i++)
      t->ratios[k * t->rounds + i] = t->times[k * t->rounds + i] / t->times[yardstick(t, k) * t->rounds + i];
  for (size_t k = 0; k < t->count; k++) {
    gptvq_kernel_speed speed = {.kernel = t->kernels[k]->name,
                                .rows = size->rows,
                                .cols = size->cols,
                                .tokens = t->kernels[k]->tokens,
                                .bytes = (double)jobs[k].bytes,
                                .min_seconds = least[k],
                                .median_seconds = median(t->times + k * t->rounds, t->rounds),
                                .bandwidth = PIECE / least_read,
                                .bandwidth_median = read_median,
                                .products = most_products,
                                .products_median = products_median,
                                .int4_ratio = least[k] / least[yardstick(t, k)],
                                .int4_ratio_median = median(t->ratios + k * t->rounds, t->rounds)};
    speed.bits = 8.0 * speed.bytes / ((double)size->rows * (double)size->cols);
    if (report(user, &speed) != 0) return gptvq_fail(err, GPTVQ_ERROR_CANCELLED, "stopped on request");
  }
  return GPTVQ_OK;
}

/* ---- what to measure ---- */

void gptvq_kernel_bench_init(gptvq_kernel_bench *options) {
  *options = (gptvq_kernel_bench){
      .rounds = 9, .shapes = default_shapes, .tokens = PROMPT, .bytes = (size_t)256 << 20};
}

/* "all", or a list of COLS and ROWSxCOLS. */
static gptvq_status list_shapes(const char *text, matrix list[MAX_SHAPES], size_t *count, gptvq_error *err) {
  *count = 0;
  if (strcmp(text, "all") == 0) {
    memcpy(list, layers, sizeof layers);
    *count = LAYERS;
    return GPTVQ_OK;
  }
  for (const char *at = text;; at++) {
    unsigned rows = 0, cols = 0;
    int length = 0;
    bool fine = sscanf(at, "%7ux%7u%n", &rows, &cols, &length) == 2;
    if (!fine) {
      fine = sscanf(at, "%7u%n", &cols, &length) == 1;
      rows = cols; /* a square where no model is known */
      for (size_t i = 0; i < LAYERS; i++)
        if (layers[i].cols == cols) rows = (unsigned)layers[i].rows;
    }
    fine = fine && (at[length] == ',' || at[length] == '\0') && *count < MAX_SHAPES;
    if (!fine || rows < 1 || cols < 8 || cols % 8 != 0 || rows > MAX_SIDE || cols > MAX_SIDE)
      return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                        "\"%s\" is no list of shapes: all, or at most %d of COLS or ROWSxCOLS with commas "
                        "between them, columns a multiple of 8",
                        text, (int)MAX_SHAPES);
    list[(*count)++] = (matrix){rows, cols};
    at += length;
    if (*at == '\0') return GPTVQ_OK;
  }
}

/* Is a part of the list, with commas between them, a part of `name`? */
static bool is_wanted(const char *parts, const char *name) {
  if (parts == NULL) return true;
  for (size_t length; *parts != '\0'; parts += length + (parts[length] == ',')) {
    length = strcspn(parts, ",");
    if (length > 0 && memmem(name, strlen(name), parts, length) != NULL) return true;
  }
  return false;
}

static gptvq_status check(const gptvq_kernel_bench *options, const timing *t, const matrix *shapes,
                          size_t count, gptvq_error *err) {
  if (options->rounds < 1 || options->rounds > MAX_ROUNDS)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "%zu rounds are not possible: 1 to %d", options->rounds,
                      (int)MAX_ROUNDS);
  if (t->count == 0) return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "0 tokens are not possible: at least 1");
  for (size_t i = 0; i < count; i++)
    for (size_t k = 0; k < t->count; k++) {
      job j;
      make_job(t->kernels[k], &shapes[i], &j);
      if (copy_bytes(&j) > t->memory.code_bytes || scale_bytes(&j) > t->memory.scale_bytes)
        return gptvq_fail(
            err, GPTVQ_ERROR_ARGUMENT,
            "%zu bytes to walk through do not hold a matrix of %zu x %zu as %s, which takes %zu",
            t->memory.code_bytes, shapes[i].rows, shapes[i].cols, j.kernel->name, copy_bytes(&j));
    }
  return GPTVQ_OK;
}

static void fill(timing *t, size_t inputs) {
  uint64_t state = 2;
  for (size_t i = 0; i < t->memory.code_bytes; i += 8) {
    uint64_t word = gptvq_random(&state);
    memcpy(t->memory.codes + i, &word, 8);
  }
  for (size_t i = 0; i < t->memory.scale_bytes / 2; i++)
    t->memory.scales[i] = 0x2c00; /* 2^-4 as fp16, 1.8e-12 as bf16 and fp32 */
  for (size_t i = 0; i < inputs; i++) t->x[i] = (float)gptvq_random_unit(&state) - 0.5f;
}

gptvq_status gptvq_bench_kernels(const gptvq_kernel_bench *options, gptvq_kernel_report report, void *user,
                                 gptvq_error *err) {
  matrix shapes[MAX_SHAPES];
  size_t count, widest = 0, tallest = 0, tokens = 1;
  timing t = {.memory = {.code_bytes = options->bytes / PIECE * PIECE, .scale_bytes = options->bytes / 8},
              .rounds = options->rounds};
  GPTVQ_TRY(list_shapes(options->shapes, shapes, &count, err));
  for (size_t k = 0; k < KERNELS; k++) {
    if (kernels[k].tokens > options->tokens) continue;
    if (k < YARDSTICKS) t.yardsticks++;
    if (k < YARDSTICKS || is_wanted(options->formats, kernels[k].name)) t.kernels[t.count++] = &kernels[k];
  }
  GPTVQ_TRY(check(options, &t, shapes, count, err));
  for (size_t i = 0; i < count; i++) {
    widest = gptvq_max_size(widest, shapes[i].cols);
    tallest = gptvq_max_size(tallest, shapes[i].rows);
  }
  for (size_t k = 0; k < t.count; k++) tokens = gptvq_max_size(tokens, t.kernels[k]->tokens);
  const size_t outputs = gptvq_max_size(tokens * tallest, 16 * widest * gptvq_thread_count());
  t.memory.codes = gptvq_alloc(t.memory.code_bytes, 1);
  t.memory.scales = gptvq_alloc(t.memory.scale_bytes, 1);
  t.reads = gptvq_alloc((2 * t.count + 2) * t.rounds, sizeof *t.reads);
  t.x = gptvq_alloc(tokens * widest, sizeof *t.x);
  t.y = gptvq_alloc(outputs, sizeof *t.y);
  gptvq_status status = GPTVQ_OK;
  if (t.memory.codes == NULL || t.memory.scales == NULL || t.reads == NULL || t.x == NULL || t.y == NULL) {
    status = gptvq_fail_memory(err, "the matrices to measure on", options->bytes);
  } else {
    t.products = t.reads + t.rounds;
    t.times = t.products + t.rounds;
    t.ratios = t.times + t.count * t.rounds;
    fill(&t, tokens * widest);
  }
  for (size_t i = 0; i < count && status == GPTVQ_OK; i++)
    status = bench_shape(&t, &shapes[i], report, user, err);
  free(t.memory.codes);
  free(t.memory.scales);
  free(t.reads);
  free(t.x);
  free(t.y);
  free(t.scratch.data);
  return status;
}
