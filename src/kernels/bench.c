/* Matrix × vector kernels from memory, against the measured read bandwidth and 4-bit integers.
 *
 * Kernels walk through copies of their matrices, as decoding walks through the layers of a model. All kernels
 * and the bandwidth measurement take turns, round by round, so that ratios are taken under the same
 * conditions. Each goes on in memory where the one before it stopped: what a cache still holds is not what is
 * read next. The minimum of all single products and the median of the rounds' means are reported. Preparing
 * the activations is part of the time. In a round each kernel walks through about an eighth of the memory. */
#define _GNU_SOURCE
#include "base/clock.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/threads.h"
#include "kernels/kernels.h"

#include <gptvq/bench.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TOKENS = 8, MAX_ROUNDS = 1001 };

typedef enum path { PATH_I8, PATH_FP32, PATH_DECODE } path;

typedef struct kernel {
  const char *name;
  path path;
  gptvq_packed_shape shape; /* rows, cols and what follows from them are filled in */
  size_t tokens;
} kernel;

#define VQ(d, bits, height, block) \
  { \
    .kind = GPTVQ_PACKED_VQ, .dim = d, .index_bits = bits, .group_rows = height, .group_cols = 256, \
    .codebook_bits = 8, .scale_block = block \
  }
#define UNIFORM(bits, block) \
  { .kind = GPTVQ_PACKED_UNIFORM, .dim = 1, .index_bits = bits, .group_rows = 1, .scale_block = block }

static const kernel kernels[] = {
    {"int4-g128", PATH_I8, UNIFORM(4, 128), 1}, /* the yardstick comes first */
    {"int4-g32", PATH_I8, UNIFORM(4, 32), 1},
    {"int2-g128", PATH_I8, UNIFORM(2, 128), 1},
    {"vq-2d-2.125", PATH_I8, VQ(2, 4, 8, 0), 1},
    {"vq-2d-2.25", PATH_I8, VQ(2, 4, 4, 0), 1},
    {"vq-2d-2.125-scales64", PATH_I8, VQ(2, 4, 16, 64), 1},
    {"vq-2d-3.125", PATH_I8, VQ(2, 6, 32, 0), 1},
    {"vq-2d-4.125", PATH_I8, VQ(2, 8, 128, 0), 1},
    {"vq-4d-2.25", PATH_I8, VQ(4, 8, 128, 0), 1},
    {"vq-4d-k4096", PATH_I8, VQ(4, 12, 512, 0), 1},
    {"vq-1d-2.125", PATH_I8, VQ(1, 2, 1, 0), 1},
    {"vq-1d-3.125", PATH_I8, VQ(1, 3, 2, 0), 1},
    {"vq-2d-2.125 x4", PATH_I8, VQ(2, 4, 8, 0), 4},
    {"vq-2d-2.125 x8", PATH_I8, VQ(2, 4, 8, 0), 8},
    {"vq-2d-2.125 fp32", PATH_FP32, VQ(2, 4, 8, 0), 1},
    {"vq-2d-2.125 decode", PATH_DECODE, VQ(2, 4, 8, 0), 1},
};
enum { KERNELS = sizeof kernels / sizeof kernels[0] };

/* Llama-2-7B's, then Mistral-7B's */
static const size_t shapes[][2] = {{4096, 4096}, {11008, 4096}, {4096, 11008}, {14336, 4096}, {4096, 14336}};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

typedef struct pool {
  uint8_t *codes;   /* anything */
  uint16_t *scales; /* sane numbers, as bf16 and as fp16 */
  size_t code_bytes, scale_bytes;
  size_t walked; /* where in codes the next one goes on */
} pool;

typedef struct job {
  const kernel *kernel;
  gptvq_packed packed;
  const float *x;
  const void *inputs;
  float *y;
} job;

static void rows_task(void *context, size_t begin, size_t end, size_t thread) {
  job *j = context;
  const gptvq_packed *p = &j->packed;
  switch (j->kernel->path) {
  case PATH_I8:
    gptvq_packed_matmul_i8(p, j->inputs, j->kernel->tokens, begin, end, j->y + begin, p->shape.rows);
    break;
  case PATH_FP32: gptvq_packed_matvec(p, begin, end, j->x, j->y + begin); break;
  case PATH_DECODE: { /* into a panel that stays in the cache */
    float *panel = j->y + thread * 16 * p->shape.cols;
    for (size_t row = begin; row < end; row += 16)
      gptvq_packed_decode(p, row, row + 16 < end ? row + 16 : end, panel, p->shape.cols);
    break;
  }
  }
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
         2 * sizes.uniform_scales + sizes.zero_bytes;
}

/* Memory that a copy of the layer takes in the pool: arrays follow each other, 64-byte aligned. */
static size_t copy_bytes(const gptvq_packed_shape *shape) {
  gptvq_packed_sizes sizes;
  gptvq_packed_measure(shape, &sizes);
  return gptvq_round_up(sizes.index_bytes, 64) + gptvq_round_up(sizes.codebook_bytes, 64) +
         gptvq_round_up(sizes.block_scale_bytes, 64) + gptvq_round_up(sizes.zero_bytes, 64);
}

/* Copy number `copy` of the layer; copies wrap around at the pool's end. */
static void place(const pool *memory, size_t copy, gptvq_packed *p) {
  static const float range[2] = {-1.0f, 0.125f};
  gptvq_packed_sizes sizes;
  gptvq_packed_measure(&p->shape, &sizes);
  size_t total = copy_bytes(&p->shape),
         scales = gptvq_round_up(2 * (sizes.codebook_scales + sizes.uniform_scales), 64);
  const uint8_t *at = memory->codes + copy % (memory->code_bytes / total) * total;
  p->indices = at;
  at += gptvq_round_up(sizes.index_bytes, 64);
  const uint16_t *numbers = memory->scales + copy % (memory->scale_bytes / scales) * (scales / 2);
  if (p->shape.kind == GPTVQ_PACKED_VQ) {
    p->codebooks = at;
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

/* Mean seconds of one product over `copies` copies; the least goes to *least. */
static double time_kernel(pool *memory, job *j, void *inputs, size_t copies, double *least) {
  const gptvq_packed_shape *shape = &j->packed.shape;
  const size_t total = copy_bytes(shape), first = gptvq_ceil_div(memory->walked, total);
  size_t grain =
      gptvq_round_up(gptvq_max_size(65536 / shape->cols, 1), gptvq_min_size(shape->group_rows, 128));
  double start = gptvq_clock(), last = start;
  for (size_t copy = 0; copy < copies; copy++) {
    place(memory, first + copy, &j->packed);
    for (size_t t = 0; j->kernel->path == PATH_I8 && t < j->kernel->tokens; t++)
      gptvq_packed_prepare(&j->packed, j->x + t * shape->cols,
                           (char *)inputs + t * gptvq_packed_input_bytes(shape));
    gptvq_parallel_for(shape->rows, grain, rows_task, j);
    double t = gptvq_clock();
    if (t - last < *least) *least = t - last;
    last = t;
  }
  memory->walked = (first + copies) % (memory->code_bytes / total) * total;
  return (last - start) / (double)copies;
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

typedef struct timing {
  pool memory;
  size_t rounds;
  double *reads, *times, *ratios; /* [rounds], [KERNELS][rounds], the same */
  float *x, *y;
  void *inputs;
} timing;

static gptvq_status bench_shape(timing *t, size_t rows, size_t cols, gptvq_kernel_report report, void *user,
                                gptvq_error *err) {
  job jobs[KERNELS];
  double least_read = 1e9, least[KERNELS];
  for (size_t k = 0; k < KERNELS; k++) {
    jobs[k] = (job){
        .kernel = &kernels[k], .packed.shape = kernels[k].shape, .x = t->x, .inputs = t->inputs, .y = t->y};
    gptvq_packed_shape *shape = &jobs[k].packed.shape;
    shape->rows = rows;
    shape->cols = cols;
    if (shape->kind == GPTVQ_PACKED_UNIFORM) shape->group_cols = cols;
    least[k] = 1e9;
  }
  for (size_t round = 0; round < t->rounds; round++) {
    t->reads[round] = time_read(&t->memory, gptvq_max_size(t->memory.code_bytes / PIECE / 4, 1), &least_read);
    for (size_t k = 0; k < KERNELS; k++) {
      size_t copies = gptvq_max_size(t->memory.code_bytes / 8 / packed_bytes(&jobs[k].packed.shape), 1);
      t->times[k * t->rounds + round] = time_kernel(&t->memory, &jobs[k], t->inputs, copies, &least[k]);
    }
  }
  double read_median = PIECE / median(t->reads, t->rounds);
  for (size_t k = 0; k < KERNELS; k++)
    for (size_t i = 0; i < t->rounds; i++)
      t->ratios[k * t->rounds + i] = t->times[k * t->rounds + i] / t->times[i];
  for (size_t k = 0; k < KERNELS; k++) {
    gptvq_kernel_speed speed = {.kernel = kernels[k].name,
                                .rows = rows,
                                .cols = cols,
                                .tokens = kernels[k].tokens,
                                .bytes = (double)packed_bytes(&jobs[k].packed.shape),
                                .min_seconds = least[k],
                                .median_seconds = median(t->times + k * t->rounds, t->rounds),
                                .bandwidth = PIECE / least_read,
                                .bandwidth_median = read_median,
                                .int4_ratio = least[k] / least[0],
                                .int4_ratio_median = median(t->ratios + k * t->rounds, t->rounds)};
    speed.bits = 8.0 * speed.bytes / ((double)rows * (double)cols);
    if (report(user, &speed) != 0) return gptvq_fail(err, GPTVQ_ERROR_CANCELLED, "stopped on request");
  }
  return GPTVQ_OK;
}

void gptvq_kernel_bench_init(gptvq_kernel_bench *options) {
  *options = (gptvq_kernel_bench){.rounds = 9, .shapes = 3, .bytes = (size_t)256 << 20};
}

static gptvq_status check(const gptvq_kernel_bench *options, gptvq_error *err) {
  if (options->rounds < 1 || options->rounds > MAX_ROUNDS)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "%zu rounds are not possible: 1 to %d", options->rounds,
                      (int)MAX_ROUNDS);
  if (options->shapes < 1 || options->shapes > SHAPES)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "%zu shapes are not possible: 1 to %d", options->shapes,
                      (int)SHAPES);
  if (options->bytes < (size_t)64 << 20)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "%zu bytes are too few to hold a matrix: at least 64 MiB",
                      options->bytes);
  return GPTVQ_OK;
}

gptvq_status gptvq_bench_kernels(const gptvq_kernel_bench *options, gptvq_kernel_report report, void *user,
                                 gptvq_error *err) {
  enum { WIDEST = 14336, TALLEST = 14336 };
  GPTVQ_TRY(check(options, err));
  timing t = {.memory = {.code_bytes = options->bytes / PIECE * PIECE, .scale_bytes = (size_t)32 << 20},
              .rounds = options->rounds};
  size_t panels = gptvq_max_size(MAX_TOKENS * TALLEST, 16 * WIDEST * gptvq_thread_count());
  t.memory.codes = gptvq_alloc(t.memory.code_bytes, 1);
  t.memory.scales = gptvq_alloc(t.memory.scale_bytes, 1);
  t.reads = gptvq_alloc((2 * KERNELS + 1) * t.rounds, sizeof *t.reads);
  t.x = gptvq_alloc(MAX_TOKENS * WIDEST, sizeof *t.x);
  t.y = gptvq_alloc(panels, sizeof *t.y);
  t.inputs = gptvq_alloc(MAX_TOKENS * 4, WIDEST);
  gptvq_status status = GPTVQ_OK;
  if (t.memory.codes == NULL || t.memory.scales == NULL || t.reads == NULL || t.x == NULL || t.y == NULL ||
      t.inputs == NULL)
    status = gptvq_fail_memory(err, "the matrices to measure on", options->bytes);
  if (status == GPTVQ_OK) {
    uint64_t state = 2;
    t.times = t.reads + t.rounds;
    t.ratios = t.times + KERNELS * t.rounds;
    for (size_t i = 0; i < t.memory.code_bytes; i += 8) {
      uint64_t word = gptvq_random(&state);
      memcpy(t.memory.codes + i, &word, 8);
    }
    for (size_t i = 0; i < t.memory.scale_bytes / 2; i++)
      t.memory.scales[i] = 0x2c00; /* 2^-4 as fp16, 1.8e-12 as bf16 */
    for (size_t i = 0; i < MAX_TOKENS * WIDEST; i++) t.x[i] = (float)gptvq_random_unit(&state) - 0.5f;
  }
  for (size_t i = 0; i < options->shapes && status == GPTVQ_OK; i++)
    status = bench_shape(&t, shapes[i][0], shapes[i][1], report, user, err);
  free(t.memory.codes);
  free(t.memory.scales);
  free(t.reads);
  free(t.x);
  free(t.y);
  free(t.inputs);
  return status;
}
