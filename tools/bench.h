/* tools/bench.h: what the command measures with, no part of libgptvq: models of random weights in the shapes
 * of well-known ones, to measure speed without their files; the machine's read bandwidth, the ceiling of
 * decoding; the kernels alone. Conventions are those of <gptvq/status.h>. */
#ifndef GPTVQ_TOOLS_BENCH_H
#define GPTVQ_TOOLS_BENCH_H

#include <gptvq/quantize.h>

typedef struct gptvq_random_model {
  const char *shape;             /* one of gptvq_random_shapes */
  size_t layers;                 /* blocks; 0 = as many as the real model has */
  int dense;                     /* 1: bf16 weights as in an original folder; 0: packed as `format` says */
  gptvq_quantize_options format; /* of packed layers; only what decides their shape is used */
  uint64_t seed;
  int force; /* replace an existing model folder */
} gptvq_random_model;

/* Names for `shape`, NULL-terminated. */
const char *const *gptvq_random_shapes(void);
/* Llama-2-7B's figures, 2.25 bits in pairs of weights. */
void gptvq_random_model_init(gptvq_random_model *model);
/* A model folder without a tokenizer, written without running the quantizer: indices, codebooks and dense
 * weights are random, small enough for activations to stay finite. OUT_DIR appears whole or not at all.
 * GPTVQ_ERROR_ARGUMENT for an unknown shape or an impossible format. */
gptvq_status gptvq_write_random_model(const gptvq_random_model *model, const char *out_dir, gptvq_error *err);

/* Bytes per second that this machine's threads read from memory: the fastest of `rounds` passes over 256 MiB.
 * 0: out of memory. */
double gptvq_measure_bandwidth(size_t rounds);
/* All threads read `bytes` (a multiple of 65,536) from `memory` once, forward. */
void gptvq_read_memory(void *memory, size_t bytes);

/* Products of packed matrices, and of the output head as int8 codes, with one token, few and a prompt,
 * walking through memory as decoding does, in turns with a plain read of memory and with 4-bit integers
 * (int4-g128: a scale and a zero point per 128 weights), which are always measured. */
typedef struct gptvq_kernel_bench {
  size_t rounds;       /* turns; 9 */
  const char *shapes;  /* "all", or widths ("576": a layer of a model that has them) and shapes ("4096x11008")
                          with commas between them */
  const char *formats; /* parts of the kernels' names with commas between them; NULL: all */
  size_t tokens;       /* kernels that multiply more at a time are left out; 128: none */
  size_t bytes;        /* of memory to walk through, 256 MiB; it has to hold the largest matrix */
} gptvq_kernel_bench;

typedef struct gptvq_kernel_speed {
  const char *kernel;                 /* static storage; the first of each shape is int4-g128 */
  size_t rows, cols, tokens;          /* tokens multiplied at a time */
  double bits, bytes;                 /* per weight; of the whole matrix with codebooks and scales */
  double min_seconds, median_seconds; /* least of single products; median of the rounds' means */
  double bandwidth, bandwidth_median; /* bytes per second of the plain read, the same way */
  double products, products_median;   /* int8 multiplications with an addition a second, in registers; 0: not
                                         known at this CPU level */
  double int4_ratio, int4_ratio_median; /* seconds / those of int4-g128 with as many tokens: of the least
                                           times; median over the rounds */
} gptvq_kernel_speed;

/* Called for each kernel of a shape when all its rounds are done; non-zero: stop with GPTVQ_ERROR_CANCELLED.
 */
typedef int (*gptvq_kernel_report)(void *user, const gptvq_kernel_speed *speed);

void gptvq_kernel_bench_init(gptvq_kernel_bench *options);
gptvq_status gptvq_bench_kernels(const gptvq_kernel_bench *options, gptvq_kernel_report report, void *user,
                                 gptvq_error *err);

/* Quantizing a model of random weights, in a temporary folder (TMPDIR, else /tmp) that is removed afterwards.
 */
typedef struct gptvq_quantize_bench {
  const char *shape;              /* one of gptvq_random_shapes; "smollm2-135m" */
  size_t layers;                  /* blocks; 1 */
  gptvq_quantize_options options; /* the defaults but for calibration on 8 windows of 512 tokens of its own */
  const gptvq_callbacks *callbacks;
} gptvq_quantize_bench;

typedef struct gptvq_quantize_speed {
  gptvq_quantize_report report;
  /* FLOP per second of one thread while all are at work, of products that stay in its cache; 0: no such
   * instructions */
  double fp32_flops, bf16_flops, double_flops;
} gptvq_quantize_speed;

void gptvq_quantize_bench_init(gptvq_quantize_bench *bench);
gptvq_status gptvq_bench_quantize(const gptvq_quantize_bench *bench, gptvq_quantize_speed *speed,
                                  gptvq_error *err);

/* What a device can do, and how fast. */
typedef struct gptvq_device_bench {
  const char *device; /* as gptvq_quantize_options has it: "cuda:0", "shim" */
  size_t bytes;       /* of each copy; 256 MiB */
  size_t side;        /* of the square products; 8192 */
  double seconds;     /* that each measurement is repeated for; 1 */
} gptvq_device_bench;
typedef struct gptvq_device_speed {
  char name[256];
  double memory;           /* bytes; 0: not known */
  double upload, download; /* bytes a second, the fastest of the repetitions, from and to memory as
                            * programs allocate it */
  /* of products, on the device alone; the fastest, too */
  double fp32_flops, tf32_flops, bf16_flops;
  double factor_seconds; /* a factorisation of the same side, at most 4096, in double */
  size_t factor_side;
} gptvq_device_speed;
void gptvq_device_bench_init(gptvq_device_bench *bench);
/* Errors of a run on that device; GPTVQ_ERROR_ARGUMENT for the CPU. */
gptvq_status gptvq_bench_device(const gptvq_device_bench *bench, gptvq_device_speed *speed, gptvq_error *err);

#endif
