/* gptvq-bench-kernels: matrix × vector kernels from memory, against the measured read bandwidth and 4-bit integers.
 *
 * Every kernel walks through many copies of its matrix, more than the caches hold, as decoding walks through the layers of a model. All
 * kernels and the bandwidth measurement take turns, round by round, so that ratios are taken under the same conditions; the
 * minimum of all single products and the median of the rounds' means are reported. Preparing the activations is part of the time. */
#include "base/memory.h"
#include "base/random.h"
#include "base/threads.h"
#include "kernels/kernels.h"
#include <gptvq/gptvq.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_TOKENS = 8, MAX_ROUNDS = 101 };

typedef enum path { PATH_I8, PATH_FP32, PATH_DECODE } path;

typedef struct kernel {
  const char *name;
  path path;
  gptvq_packed_shape shape; /* rows, cols and what follows from them are filled in */
  size_t tokens;
} kernel;

#define VQ(d, bits, height, block)                                                                                   \
  {.kind = GPTVQ_PACKED_VQ, .dim = d, .index_bits = bits, .group_rows = height, .group_cols = 256, .codebook_bits = 8,   \
   .scale_block = block}
#define UNIFORM(bits, block)                                                                                         \
  {.kind = GPTVQ_PACKED_UNIFORM, .dim = 1, .index_bits = bits, .group_rows = 1, .scale_block = block}

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

static const size_t shapes[][2] = {{4096, 4096}, {11008, 4096}, {4096, 11008}, {14336, 4096}, {4096, 14336}};
enum { SHAPES = sizeof shapes / sizeof shapes[0] };

typedef struct pool {
  uint8_t *codes;   /* anything */
  uint16_t *scales; /* sane numbers, as bf16 and as fp16 */
  size_t code_bytes, scale_bytes;
} pool;

typedef struct job {
  const kernel *kernel;
  gptvq_packed packed;
  const float *x;
  const void *inputs;
  float *y;
} job;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

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

static uint64_t sink[256];
static void read_task(void *context, size_t begin, size_t end, size_t thread) {
  const uint64_t *words = context;
  uint64_t lanes[32] = {0};
  for (size_t chunk = begin; chunk < end; chunk++)
    for (size_t i = 0; i < 8192; i += 32)
      for (size_t j = 0; j < 32; j++) lanes[j] ^= words[chunk * 8192 + i + j];
  for (size_t j = 0; j < 32; j++) sink[thread % 256] ^= lanes[j];
}

/* Mean seconds of reading one of `pieces` pieces of the pool; the least goes to *least. */
enum { PIECE = 4 << 20 };
static double time_read(const pool *memory, size_t pieces, double *least) {
  double start = now(), last = start;
  for (size_t i = 0; i < pieces; i++) {
    gptvq_parallel_for(PIECE / 65536, 4, read_task, memory->codes + i * PIECE);
    double t = now();
    if (t - last < *least) *least = t - last;
    last = t;
  }
  return (last - start) / (double)pieces;
}

static size_t packed_bytes(const gptvq_packed_shape *shape) {
  gptvq_packed_sizes sizes;
  gptvq_packed_measure(shape, &sizes);
  return sizes.index_bytes + sizes.codebook_bytes + 2 * sizes.codebook_scales + sizes.block_scale_bytes +
         2 * sizes.uniform_scales + sizes.zero_bytes;
}

/* Copy number `copy` of the layer: arrays follow each other, 64-byte aligned, and wrap around at the pool's end. */
static void place(const pool *memory, size_t copy, gptvq_packed *p) {
  static const float range[2] = {-1.0f, 0.125f};
  gptvq_packed_sizes sizes;
  gptvq_packed_measure(&p->shape, &sizes);
  size_t total = sizes.index_bytes + sizes.codebook_bytes + sizes.block_scale_bytes + sizes.zero_bytes + 256;
  size_t copies = memory->code_bytes / total, scales = 2 * (sizes.codebook_scales + sizes.uniform_scales) + 64;
  const uint8_t *at = memory->codes + copy % copies * (total / 64 * 64);
  p->indices = at;
  at += gptvq_round_up(sizes.index_bytes, 64);
  const uint16_t *numbers = memory->scales + copy % (memory->scale_bytes / scales) * (scales / 64 * 32);
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
static double time_kernel(const pool *memory, job *j, void *inputs, size_t copies, size_t first, double *least) {
  const gptvq_packed_shape *shape = &j->packed.shape;
  size_t grain = gptvq_round_up(gptvq_max_size(65536 / shape->cols, 1), gptvq_min_size(shape->group_rows, 128));
  double start = now(), last = start;
  for (size_t copy = 0; copy < copies; copy++) {
    place(memory, first + copy, &j->packed);
    for (size_t t = 0; j->kernel->path == PATH_I8 && t < j->kernel->tokens; t++)
      gptvq_packed_prepare(&j->packed, j->x + t * shape->cols, (char *)inputs + t * gptvq_packed_input_bytes(shape));
    gptvq_parallel_for(shape->rows, grain, rows_task, j);
    double t = now();
    if (t - last < *least) *least = t - last;
    last = t;
  }
  return (last - start) / (double)copies;
}

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

typedef struct result {
  double bytes, minimum, median, ratio; /* seconds; ratio: to int4, of the minima */
} result;

static int bench_shape(const pool *memory, size_t rows, size_t cols, size_t rounds, bool json, bool *first_line) {
  static double times[KERNELS][MAX_ROUNDS], reads[MAX_ROUNDS], sorted[MAX_ROUNDS];
  float *x = gptvq_alloc(MAX_TOKENS * cols, sizeof *x), *y = gptvq_alloc(MAX_TOKENS * gptvq_max_size(rows, 64 * cols), sizeof *y);
  void *inputs = gptvq_alloc(MAX_TOKENS * 4, cols);
  if (x == NULL || y == NULL || inputs == NULL) return 1;
  uint64_t state = 1;
  for (size_t i = 0; i < MAX_TOKENS * cols; i++) x[i] = (float)gptvq_random_unit(&state) - 0.5f;
  job jobs[KERNELS];
  for (size_t k = 0; k < KERNELS; k++) {
    jobs[k] = (job){.kernel = &kernels[k], .packed.shape = kernels[k].shape, .x = x, .inputs = inputs, .y = y};
    gptvq_packed_shape *shape = &jobs[k].packed.shape;
    shape->rows = rows;
    shape->cols = cols;
    if (shape->kind == GPTVQ_PACKED_UNIFORM) shape->group_cols = cols;
  }
  double least_read = 1e9, least[KERNELS];
  for (size_t k = 0; k < KERNELS; k++) least[k] = 1e9;
  for (size_t round = 0; round < rounds; round++) {
    reads[round] = time_read(memory, memory->code_bytes / PIECE / 4, &least_read);
    for (size_t k = 0; k < KERNELS; k++) {
      size_t copies = gptvq_max_size(((size_t)32 << 20) / packed_bytes(&jobs[k].packed.shape), 1);
      times[k][round] = time_kernel(memory, &jobs[k], inputs, copies, round * copies, &least[k]);
    }
  }
  memcpy(sorted, reads, rounds * sizeof *sorted);
  qsort(sorted, rounds, sizeof *sorted, compare);
  const double bandwidth = PIECE / least_read * 1e-9, bandwidth_median = PIECE / sorted[rounds / 2] * 1e-9;
  if (!json)
    printf("\n%zu x %zu: read bandwidth %.1f GB/s (median %.1f)\n%-22s %7s %9s %9s %7s %6s %9s %8s\n", rows, cols, bandwidth,
           bandwidth_median, "kernel", "bits", "min us", "median us", "GB/s", "of bw", "Gweight/s", "/ int4");
  for (size_t k = 0; k < KERNELS; k++) {
    result r = {.bytes = (double)packed_bytes(&jobs[k].packed.shape)};
    memcpy(sorted, times[k], rounds * sizeof *sorted);
    qsort(sorted, rounds, sizeof *sorted, compare);
    r.minimum = least[k];
    r.median = sorted[rounds / 2];
    r.ratio = least[k] / least[0];
    double weights = (double)rows * (double)cols, rate = r.bytes / r.minimum * 1e-9;
    double throughput = weights * (double)kernels[k].tokens / r.minimum * 1e-9;
    if (json)
      printf("%s\n {\"kernel\": \"%s\", \"rows\": %zu, \"cols\": %zu, \"tokens\": %zu, \"bits\": %.4f, \"min_ns\": %.0f, "
             "\"median_ns\": %.0f, \"gb_per_s\": %.2f, \"bandwidth_gb_per_s\": %.2f, \"gweights_per_s\": %.2f, "
             "\"int4_ratio\": %.3f}",
             *first_line ? "" : ",", kernels[k].name, rows, cols, kernels[k].tokens, 8.0 * r.bytes / weights,
             r.minimum * 1e9, r.median * 1e9, rate, bandwidth, throughput, r.ratio);
    else
      printf("%-22s %7.3f %9.1f %9.1f %7.2f %5.0f%% %9.1f %8.2f\n", kernels[k].name, 8.0 * r.bytes / weights, r.minimum * 1e6,
             r.median * 1e6, rate, 100.0 * rate / bandwidth, throughput, r.ratio);
    *first_line = false;
  }
  free(x);
  free(y);
  free(inputs);
  return 0;
}

int main(int argc, char **argv) {
  bool json = false;
  size_t rounds = 0, count = 3, megabytes = 256;
  int threads = 0;
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--json") == 0) json = true;
    else if (strcmp(argv[i], "--all") == 0) count = SHAPES;
    else if (strcmp(argv[i], "--quick") == 0) count = 1, rounds = rounds ? rounds : 3;
    else if (strcmp(argv[i], "--rounds") == 0 && i + 1 < argc) rounds = (size_t)strtoul(argv[++i], NULL, 10);
    else if (strcmp(argv[i], "--memory") == 0 && i + 1 < argc) megabytes = (size_t)strtoul(argv[++i], NULL, 10);
    else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc) threads = (int)strtol(argv[++i], NULL, 10);
    else {
      fprintf(stderr, "usage: gptvq-bench-kernels [--json] [--all | --quick] [--rounds N] [--threads N]\n"
                      "GPTVQ_CPU=ref|avx2|avx512|neon|dotprod chooses the kernels.\n");
      return 2;
    }
  }
  if (rounds < 1 || rounds > MAX_ROUNDS) rounds = 9;
  gptvq_set_threads(threads);
  pool memory = {.code_bytes = megabytes << 20, .scale_bytes = (size_t)32 << 20};
  memory.codes = gptvq_alloc(memory.code_bytes, 1);
  memory.scales = gptvq_alloc(memory.scale_bytes, 1);
  if (memory.codes == NULL || memory.scales == NULL) {
    fprintf(stderr, "not enough memory\n");
    return 1;
  }
  uint64_t state = 2;
  for (size_t i = 0; i < memory.code_bytes; i += 8) {
    uint64_t word = gptvq_random(&state);
    memcpy(memory.codes + i, &word, 8);
  }
  for (size_t i = 0; i < memory.scale_bytes / 2; i++) memory.scales[i] = 0x2c00; /* 2^-4 as fp16, 1.8e-12 as bf16 */
  bool first_line = true;
  if (json) printf("{\"cpu\": \"%s\", \"threads\": %d, \"rounds\": %zu, \"results\": [", gptvq_get_cpu(), gptvq_get_threads(), rounds);
  else printf("CPU level %s, %d threads, %zu rounds\n", gptvq_get_cpu(), gptvq_get_threads(), rounds);
  int status = 0;
  for (size_t i = 0; i < count && status == 0; i++)
    status = bench_shape(&memory, shapes[i][0], shapes[i][1], rounds, json, &first_line);
  if (json) printf("\n]}\n");
  free(memory.codes);
  free(memory.scales);
  if (status != 0) fprintf(stderr, "not enough memory\n");
  return status;
}
