/* Where the time of quantizing goes: a model of random weights in a temporary folder, quantized, beside the
 * speed of this machine's matrix products. */
#define _GNU_SOURCE /* mkdtemp */
#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/stages.h"
#include "base/threads.h"
#include "linalg/gemm.h"
#include "linalg/gemm_bf16.h"
#include "tools/bench.h"

#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A product that stays in the second-level cache; the least time of ROUNDS counts. */
enum { SIDE = 256, DEPTH = 512, PRODUCTS = 16, ROUNDS = 20 };

typedef struct products {
  const float *a, *b;
  const uint16_t *a16, *b16;
  const double *a64, *b64;
  float *c;    /* [threads × SIDE²] */
  double *c64; /* [threads × SIDE²] */
  gptvq_precision precision;
} products;

static void multiply(void *context, size_t begin, size_t end, size_t thread) {
  const products *p = context;
  float *c = p->c + thread * SIDE * SIDE;
  double *c64 = p->c64 + thread * SIDE * SIDE;
  for (size_t i = begin * PRODUCTS; i < end * PRODUCTS; i++) {
    if (p->precision == GPTVQ_IN_BF16)
      gptvq_gemm_bf16_nt(SIDE, SIDE, DEPTH, p->a16, DEPTH, p->b16, DEPTH, c, SIDE);
    else if (p->precision == GPTVQ_IN_DOUBLE)
      cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, SIDE, SIDE, DEPTH, 1.0, p->a64, DEPTH, p->b64,
                  SIDE, 0.0, c64, SIDE);
    else gptvq_gemm_serial_nt(SIDE, SIDE, DEPTH, 1.0f, p->a, DEPTH, p->b, DEPTH, 0.0f, c, SIDE);
  }
}

/* FLOP per second of a thread while all are at work. */
static double measure(products *p, gptvq_precision precision) {
  double best = 0.0;
  p->precision = precision;
  for (size_t i = 0; i < ROUNDS; i++) {
    double start = gptvq_cpu_seconds(); /* as the stages' */
    gptvq_parallel_for(gptvq_thread_count(), 1, multiply, p);
    double rate =
        2.0 * (double)gptvq_thread_count() * PRODUCTS * SIDE * SIDE * DEPTH / (gptvq_cpu_seconds() - start);
    if (rate > best) best = rate;
  }
  return best;
}

static gptvq_status measure_products(gptvq_quantize_speed *speed, gptvq_error *err) {
  const size_t values = (size_t)SIDE * DEPTH, threads = gptvq_thread_count();
  float *numbers = gptvq_alloc(2 * values + threads * SIDE * SIDE, sizeof *numbers);
  uint16_t *rounded = gptvq_alloc(2 * values, sizeof *rounded);
  double *exact = gptvq_alloc_zero(2 * values + threads * SIDE * SIDE, sizeof *exact);
  gptvq_status status = numbers != NULL && rounded != NULL && exact != NULL
                            ? gptvq_blas_init(err)
                            : gptvq_fail_memory(err, "matrices to multiply", 2 * values * sizeof *exact);
  if (status == GPTVQ_OK) {
    uint64_t state = 1;
    for (size_t i = 0; i < 2 * values; i++) numbers[i] = (float)gptvq_random_unit(&state) - 0.5f;
    for (size_t i = 0; i < 2 * values; i++) exact[i] = (double)numbers[i];
    gptvq_to_bf16(2 * values, numbers, rounded);
    products p = {.a = numbers,
                  .b = numbers + values,
                  .a16 = rounded,
                  .b16 = rounded + values,
                  .a64 = exact,
                  .b64 = exact + values,
                  .c = numbers + 2 * values,
                  .c64 = exact + 2 * values};
    speed->fp32_flops = measure(&p, GPTVQ_IN_FP32);
    speed->bf16_flops = gptvq_gemm_bf16_available() ? measure(&p, GPTVQ_IN_BF16) : 0.0;
    speed->double_flops = measure(&p, GPTVQ_IN_DOUBLE);
  }
  free(numbers);
  free(rounded);
  free(exact);
  return status;
}

static gptvq_status quantize(const gptvq_quantize_bench *bench, const char *folder,
                             gptvq_quantize_report *report, gptvq_error *err) {
  gptvq_random_model model;
  gptvq_random_model_init(&model);
  model.shape = bench->shape;
  model.layers = bench->layers;
  model.dense = 1;
  char *dense = gptvq_join_path(folder, "dense"), *packed = gptvq_join_path(folder, "packed");
  gptvq_status status = dense != NULL && packed != NULL ? gptvq_write_random_model(&model, dense, err)
                                                        : gptvq_fail_memory(err, "a path", strlen(folder));
  if (status == GPTVQ_OK)
    status = gptvq_quantize(dense, packed, &bench->options, bench->callbacks, report, err);
  free(dense);
  free(packed);
  return status;
}

void gptvq_quantize_bench_init(gptvq_quantize_bench *bench) {
  memset(bench, 0, sizeof *bench);
  bench->shape = "smollm2-135m";
  bench->layers = 1;
  gptvq_quantize_options_init(&bench->options);
  bench->options.calib = "self";
  bench->options.calib_samples = 8;
  bench->options.calib_length = 512;
  bench->options.judge_tokens = 0;
}

gptvq_status gptvq_bench_quantize(const gptvq_quantize_bench *bench, gptvq_quantize_speed *speed,
                                  gptvq_error *err) {
  const char *parent = getenv("TMPDIR");
  char *folder = gptvq_join_path(parent != NULL && parent[0] != '\0' ? parent : "/tmp", "gptvq-bench-XXXXXX");
  gptvq_status status;
  memset(speed, 0, sizeof *speed);
  gptvq_quantize_report_init(&speed->report);
  if (folder == NULL) return gptvq_fail_memory(err, "a path", 64);
  if (mkdtemp(folder) == NULL) {
    status = gptvq_fail_errno(err, "make temporary folder", folder);
    free(folder);
    return status;
  }
  status = measure_products(speed, err);
  if (status == GPTVQ_OK) status = quantize(bench, folder, &speed->report, err);
  gptvq_error ignored;
  (void)gptvq_remove_tree(folder, status == GPTVQ_OK ? err : &ignored);
  free(folder);
  return status;
}
