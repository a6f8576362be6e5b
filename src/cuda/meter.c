#define _GNU_SOURCE /* clock_gettime */
#include "cuda/meter.h"
#include "base/clock.h"
#include "base/memory.h"

typedef struct meter {
  gptvq_device device;
  gptvq_device *inner;
  gptvq_stages *stages;
} meter;

static gptvq_device *inner(gptvq_device *device) { return ((meter *)device->state)->inner; }

static gptvq_status note(gptvq_device *device, double start, gptvq_status status) {
  gptvq_stage_device(((meter *)device->state)->stages, gptvq_clock() - start);
  return status;
}

static gptvq_status alloc(gptvq_device *d, size_t bytes, void **out, gptvq_error *err) {
  const double start = gptvq_clock();
  return note(d, start, inner(d)->alloc(inner(d), bytes, out, err));
}

static void release(gptvq_device *d, void *memory) {
  const double start = gptvq_clock();
  inner(d)->free(inner(d), memory);
  (void)note(d, start, GPTVQ_OK);
}

static gptvq_status upload(gptvq_device *d, const gptvq_device_rows *shape, void *to, const void *from,
                           gptvq_error *err) {
  const double start = gptvq_clock();
  return note(d, start, inner(d)->upload(inner(d), shape, to, from, err));
}

static gptvq_status download(gptvq_device *d, const gptvq_device_rows *shape, void *to, const void *from,
                             gptvq_error *err) {
  const double start = gptvq_clock();
  return note(d, start, inner(d)->download(inner(d), shape, to, from, err));
}

static bool pin(gptvq_device *d, void *memory, size_t bytes) {
  const double start = gptvq_clock();
  const bool done = inner(d)->pin(inner(d), memory, bytes);
  (void)note(d, start, GPTVQ_OK);
  return done;
}

static void unpin(gptvq_device *d, void *memory) {
  const double start = gptvq_clock();
  inner(d)->unpin(inner(d), memory);
  (void)note(d, start, GPTVQ_OK);
}

static gptvq_status set(gptvq_device *d, void *to, unsigned char value, size_t bytes, gptvq_error *err) {
  const double start = gptvq_clock();
  return note(d, start, inner(d)->set(inner(d), to, value, bytes, err));
}

static gptvq_status launch(gptvq_device *d, gptvq_kernel kernel, const gptvq_device_grid *grid,
                           const void *arguments, gptvq_error *err) {
  const double start = gptvq_clock();
  return note(d, start, inner(d)->launch(inner(d), kernel, grid, arguments, err));
}

static gptvq_status product(gptvq_device *d, const gptvq_device_product *p, gptvq_error *err) {
  const double start = gptvq_clock();
  return note(d, start, inner(d)->product(inner(d), p, err));
}

static gptvq_status inverse_factor(gptvq_device *d, size_t n, double *a, bool *done, gptvq_error *err) {
  const double start = gptvq_clock();
  return note(d, start, inner(d)->inverse_factor(inner(d), n, a, done, err));
}

static gptvq_status synchronize(gptvq_device *d, gptvq_error *err) {
  const double start = gptvq_clock();
  return note(d, start, inner(d)->synchronize(inner(d), err));
}

static gptvq_status memory(gptvq_device *d, size_t *free_bytes, size_t *total_bytes, gptvq_error *err) {
  return inner(d)->memory(inner(d), free_bytes, total_bytes, err);
}

static void close_meter(gptvq_device *d) {
  inner(d)->close(inner(d));
  free(d->state);
}

gptvq_status gptvq_device_meter(gptvq_device *of, gptvq_stages *stages, gptvq_device **out,
                                gptvq_error *err) {
  meter *m = gptvq_alloc_zero(1, sizeof *m);
  *out = NULL;
  if (m == NULL) return gptvq_fail_memory(err, "a device", sizeof *m);
  m->device = (gptvq_device){.name = of->name,
                             .shared_bytes = of->shared_bytes,
                             .processors = of->processors,
                             .state = m,
                             .alloc = alloc,
                             .free = release,
                             .upload = upload,
                             .download = download,
                             .pin = pin,
                             .unpin = unpin,
                             .set = set,
                             .launch = launch,
                             .product = product,
                             .inverse_factor = inverse_factor,
                             .synchronize = synchronize,
                             .memory = memory,
                             .close = close_meter};
  m->inner = of;
  m->stages = stages;
  *out = &m->device;
  return GPTVQ_OK;
}
