/* gptvq bench device: copies, products and a factorisation, alone. */
#define _GNU_SOURCE /* clock_gettime */
#include "tools/bench.h"
#include "base/clock.h"
#include "base/half.h"
#include "base/memory.h"
#include "cuda/place.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void gptvq_device_bench_init(gptvq_device_bench *bench) {
  *bench = (gptvq_device_bench){.device = "cuda", .bytes = (size_t)256 << 20, .side = 8192, .seconds = 1.0};
}

enum { FACTOR_SIDE = 4096 };

typedef enum work { UPLOAD, DOWNLOAD, FP32, TF32, BF16, FACTOR } work;

typedef struct job {
  gptvq_device *device;
  void *host, *a, *b, *c; /* a, b, c on the device, each of `bytes` */
  size_t bytes, side, factor_side;
} job;

static gptvq_status run(const job *j, work what, gptvq_error *err) {
  gptvq_device *d = j->device;
  bool done = false;
  const gptvq_device_product product = {.precision = what == BF16   ? GPTVQ_PRODUCT_BF16
                                                     : what == TF32 ? GPTVQ_PRODUCT_TF32
                                                                    : GPTVQ_PRODUCT_FP32,
                                        .m = j->side,
                                        .n = j->side,
                                        .k = j->side,
                                        .alpha = 1.0f,
                                        .a = j->a,
                                        .b = j->b,
                                        .c = j->c,
                                        .lda = j->side,
                                        .ldb = j->side,
                                        .ldc = j->side};
  switch (what) {
  case UPLOAD: GPTVQ_TRY(gptvq_device_upload(d, j->bytes, j->a, j->host, err)); break;
  case DOWNLOAD: GPTVQ_TRY(gptvq_device_download(d, j->bytes, j->host, j->a, err)); break;
  case FP32:
  case TF32:
  case BF16: GPTVQ_TRY(d->product(d, &product, err)); break;
  case FACTOR: GPTVQ_TRY(d->inverse_factor(d, j->factor_side, j->c, &done, err)); break;
  }
  return d->synchronize(d, err);
}

/* The least time of one of them; the first does not count. */
static gptvq_status measure(const job *j, work what, double seconds, double *least, gptvq_error *err) {
  const double start = gptvq_clock();
  *least = INFINITY;
  GPTVQ_TRY(run(j, what, err));
  do {
    const double before = gptvq_clock();
    GPTVQ_TRY(run(j, what, err));
    *least = fmin(*least, gptvq_clock() - before);
  } while (gptvq_clock() - start < seconds);
  return GPTVQ_OK;
}

/* a and b: the same numbers for products, in fp32 or in bf16 */
static gptvq_status fill(const job *j, bool rounded, gptvq_error *err) {
  const size_t size = rounded ? sizeof(uint16_t) : sizeof(float), count = j->bytes / size;
  for (size_t i = 0; i < count; i++) {
    const float value = 0.125f * (float)(i % 17) - 1.0f;
    if (rounded) ((uint16_t *)j->host)[i] = gptvq_float_to_bf16(value);
    else ((float *)j->host)[i] = value;
  }
  GPTVQ_TRY(gptvq_device_upload(j->device, count * size, j->a, j->host, err));
  return gptvq_device_upload(j->device, count * size, j->b, j->host, err);
}

/* The diagonal matrix of ones: positive definite, and its inverse factor again. */
static gptvq_status make_matrix(const job *j, gptvq_error *err) {
  const size_t n = j->factor_side, row = n * sizeof(double);
  double *one = j->host;
  GPTVQ_TRY(j->device->set(j->device, j->c, 0, n * row, err));
  for (size_t i = 0; i < n; i++) one[i] = 1.0;
  const gptvq_device_rows diagonal = {sizeof(double), n, row + sizeof(double), sizeof(double)};
  return j->device->upload(j->device, &diagonal, j->c, one, err);
}

static gptvq_status measure_all(job *j, const gptvq_device_bench *bench, gptvq_device_speed *out,
                                gptvq_error *err) {
  double seconds;
  const double flop = 2.0 * pow((double)j->side, 3.0);
  GPTVQ_TRY(j->device->alloc(j->device, j->bytes, &j->a, err));
  GPTVQ_TRY(j->device->alloc(j->device, j->bytes, &j->b, err));
  GPTVQ_TRY(j->device->alloc(j->device, j->bytes, &j->c, err));
  GPTVQ_TRY(fill(j, false, err));
  GPTVQ_TRY(measure(j, UPLOAD, bench->seconds, &seconds, err));
  out->upload = (double)j->bytes / seconds;
  GPTVQ_TRY(measure(j, DOWNLOAD, bench->seconds, &seconds, err));
  out->download = (double)j->bytes / seconds;
  GPTVQ_TRY(measure(j, FP32, bench->seconds, &seconds, err));
  out->fp32_flops = flop / seconds;
  GPTVQ_TRY(measure(j, TF32, bench->seconds, &seconds, err));
  out->tf32_flops = flop / seconds;
  GPTVQ_TRY(fill(j, true, err));
  GPTVQ_TRY(measure(j, BF16, bench->seconds, &seconds, err));
  out->bf16_flops = flop / seconds;
  GPTVQ_TRY(make_matrix(j, err)); /* overwrites what was multiplied */
  GPTVQ_TRY(measure(j, FACTOR, bench->seconds, &out->factor_seconds, err));
  out->factor_side = j->factor_side;
  return GPTVQ_OK;
}

gptvq_status gptvq_bench_device(const gptvq_device_bench *bench, gptvq_device_speed *speed,
                                gptvq_error *err) {
  gptvq_device_choice choice;
  gptvq_place place;
  memset(speed, 0, sizeof *speed);
  GPTVQ_TRY(gptvq_device_parse(bench->device, &choice, err));
  if (choice.kind == GPTVQ_ON_CPU)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "the CPU is no device to measure here: bench kernels does");
  job j = {.side = bench->side, .factor_side = gptvq_min_size(bench->side, FACTOR_SIDE)};
  j.bytes = gptvq_max_size(bench->bytes, gptvq_max_size(j.side * j.side * sizeof(float),
                                                        j.factor_side * j.factor_side * sizeof(double)));
  const gptvq_place_need need = {.bytes = gptvq_saturated_size(3, j.bytes)};
  GPTVQ_TRY(gptvq_place_open(&choice, &need, NULL, &place, err));
  gptvq_status status = GPTVQ_OK;
  if (place.device == NULL)
    status = gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED, "there is no card: `device` cuda says why");
  size_t available = 0, total = 0;
  if (status == GPTVQ_OK) {
    j.device = place.device;
    (void)snprintf(speed->name, sizeof speed->name, "%s", place.device->name);
    j.host = gptvq_alloc(j.bytes, 1);
    status = j.host != NULL ? place.device->memory(place.device, &available, &total, err)
                            : gptvq_fail_memory(err, "the measurement of a device", j.bytes);
    speed->memory = (double)total;
  }
  if (status == GPTVQ_OK) status = measure_all(&j, bench, speed, err);
  for (int i = 0; i < 3 && place.device != NULL; i++)
    place.device->free(place.device, i == 0 ? j.a : i == 1 ? j.b : j.c);
  free(j.host);
  gptvq_place_close(&place);
  return status;
}
