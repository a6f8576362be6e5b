/* The shim as a device: memory of the heap, products of the CPU, blocks of a grid on the context's threads.
 */
#include "cuda/device.h"
#include "base/half.h"
#include "base/memory.h"
#include "base/threads.h"
#include "cuda/shim/run.h"
#include "cuda/shim/shim.h"
#include "linalg/gemm.h"
#include "linalg/rows_product.h"
#include "linalg/solve/cholesky.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Shared memory of a block at most, in bytes: what every card since compute capability 8.0 has. */
enum { SHARED_BYTES = 99 << 10, WARP = 32, MOST_THREADS = 1024 };

typedef struct allocation {
  struct allocation *next;
  void *memory;
  size_t bytes;
} allocation;

typedef struct shim {
  gptvq_device device;
  allocation *allocations;
  size_t used, limit, pinned;
  bool reverse;
} shim;

static shim *of(gptvq_device *device) { return device->state; }

static gptvq_status allocate(gptvq_device *device, size_t bytes, void **out, gptvq_error *err) {
  shim *s = of(device);
  *out = NULL;
  allocation *a = NULL;
  void *memory = NULL;
  if (bytes <= s->limit - s->used) {
    a = malloc(sizeof *a);
    memory = malloc(bytes > 0 ? bytes : 1); /* exactly: the sanitizers see what lies beyond */
  }
  if (a == NULL || memory == NULL) {
    free(a);
    free(memory);
    return gptvq_fail(err, GPTVQ_ERROR_MEMORY, "device '%s': %zu bytes do not fit, %zu are free",
                      device->name, bytes, s->limit - s->used);
  }
  memset(memory, 0xff, bytes); /* NaN: nobody relies on zeros */
  *a = (allocation){s->allocations, memory, bytes};
  s->allocations = a;
  s->used += bytes;
  *out = memory;
  return GPTVQ_OK;
}

static void release(gptvq_device *device, void *memory) {
  shim *s = of(device);
  for (allocation **at = &s->allocations; *at != NULL; at = &(*at)->next) {
    allocation *a = *at;
    if (a->memory != memory) continue;
    s->used -= a->bytes;
    *at = a->next;
    free(a->memory);
    free(a);
    return;
  }
}

static gptvq_status upload(gptvq_device *device, const gptvq_device_rows *shape, void *to, const void *from,
                           gptvq_error *err) {
  (void)device;
  (void)err;
  for (size_t row = 0; row < shape->rows; row++)
    memcpy((char *)to + row * shape->device_pitch, (const char *)from + row * shape->host_pitch,
           shape->row_bytes);
  return GPTVQ_OK;
}

static gptvq_status download(gptvq_device *device, const gptvq_device_rows *shape, void *to, const void *from,
                             gptvq_error *err) {
  (void)device;
  (void)err;
  for (size_t row = 0; row < shape->rows; row++)
    memcpy((char *)to + row * shape->host_pitch, (const char *)from + row * shape->device_pitch,
           shape->row_bytes);
  return GPTVQ_OK;
}

/* Counted only. */
static bool pin(gptvq_device *device, void *memory, size_t bytes) {
  (void)memory;
  (void)bytes;
  of(device)->pinned++;
  return true;
}

static void unpin(gptvq_device *device, void *memory) {
  (void)memory;
  of(device)->pinned--;
}

static gptvq_status set(gptvq_device *device, void *to, unsigned char value, size_t bytes, gptvq_error *err) {
  (void)device;
  (void)err;
  memset(to, value, bytes);
  return GPTVQ_OK;
}

/* A launch at work: of the blocks that fail the first is reported. */
typedef struct run {
  gptvq_shim_launch launch;
  pthread_mutex_t mutex; /* guards what follows */
  gptvq_shim_end end;
  size_t block;
  char message[512];
} run;

static void run_blocks(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  run *r = context;
  char message[sizeof r->message] = "";
  size_t block = begin;
  const gptvq_shim_end how = gptvq_shim_run(&r->launch, begin, end, &block, message, sizeof message);
  if (how == GPTVQ_SHIM_DONE) return;
  (void)pthread_mutex_lock(&r->mutex);
  if (r->end == GPTVQ_SHIM_DONE || block < r->block) {
    r->end = how;
    r->block = block;
    memcpy(r->message, message, sizeof message);
  }
  (void)pthread_mutex_unlock(&r->mutex);
}

gptvq_status gptvq_shim_launch_other(gptvq_device *device, const char *name, void (*kernel)(const void *),
                                     const gptvq_device_grid *grid, const void *arguments, gptvq_error *err) {
  if (grid->threads == 0 || grid->threads % WARP != 0 || grid->threads > MOST_THREADS ||
      grid->shared_bytes > device->shared_bytes)
    return gptvq_fail(err, GPTVQ_ERROR_INTERNAL,
                      "kernel %s: blocks of %u threads with %zu bytes of shared memory cannot be launched",
                      name, grid->threads, grid->shared_bytes);
  run r = {.launch = {.kernel = kernel,
                      .arguments = arguments,
                      .grid_x = grid->x,
                      .grid_y = grid->y,
                      .threads = grid->threads,
                      .shared_bytes = grid->shared_bytes,
                      .reverse = of(device)->reverse},
           .mutex = PTHREAD_MUTEX_INITIALIZER};
  const size_t blocks = (size_t)grid->x * grid->y;
  gptvq_parallel_for(blocks, gptvq_ceil_div(blocks, 4 * gptvq_thread_count()), run_blocks, &r);
  (void)pthread_mutex_destroy(&r.mutex);
  if (r.end == GPTVQ_SHIM_NO_MEMORY) return gptvq_fail_memory(err, "the shim", (size_t)grid->threads << 16);
  if (r.end == GPTVQ_SHIM_FAILED)
    return gptvq_fail(err, GPTVQ_ERROR_INTERNAL, "kernel %s, block %zu: %s", name, r.block, r.message);
  return GPTVQ_OK;
}

static gptvq_status launch(gptvq_device *device, gptvq_kernel kernel, const gptvq_device_grid *grid,
                           const void *arguments, gptvq_error *err) {
  return gptvq_shim_launch_other(device, gptvq_shim_kernel_names[kernel], gptvq_shim_kernels[kernel], grid,
                                 arguments, err);
}

/* A matrix [rows × cols] of fp32 or bf16 at a stride of ld. */
typedef struct matrix {
  size_t rows, cols, ld;
  bool bf16;
  const void *values;
} matrix;

/* It, or its transpose, in fp32 without gaps; the caller frees it. */
static float *copy_of(const matrix *m, bool transposes) {
  const float *wide = m->values;
  const uint16_t *narrow = m->values;
  float *to = gptvq_alloc(m->rows, gptvq_saturated_size(m->cols, sizeof *to));
  for (size_t r = 0; to != NULL && r < m->rows; r++)
    for (size_t c = 0; c < m->cols; c++) {
      const size_t at = r * m->ld + c;
      to[transposes ? c * m->rows + r : r * m->cols + c] =
          m->bf16 ? gptvq_bf16_to_float(narrow[at]) : wide[at];
    }
  return to;
}

/* The CPU's own products. Those that are cut into rows, by how much room there is, have the same bits however
 * they are cut. */
static gptvq_status product(gptvq_device *device, const gptvq_device_product *p, gptvq_error *err) {
  (void)device;
  const bool bf16 = p->precision == GPTVQ_PRODUCT_BF16, subtracts = p->alpha == -1.0f && p->beta == 1.0f,
             by_rows = !p->transpose_a && (subtracts || (p->alpha == 1.0f && p->beta == 0.0f)),
             transposes = p->transpose_b && by_rows;
  const matrix x = {p->transpose_a ? p->k : p->m, p->transpose_a ? p->m : p->k, p->lda, bf16, p->a},
               y = {p->transpose_b ? p->n : p->k, p->transpose_b ? p->k : p->n, p->ldb, bf16, p->b};
  float *own_a = bf16 ? copy_of(&x, false) : NULL,
        *own_b = bf16 || transposes ? copy_of(&y, transposes) : NULL;
  const float *a = bf16 ? own_a : p->a, *b = bf16 || transposes ? own_b : p->b;
  const size_t lda = bf16 ? x.cols : p->lda, ldb = transposes ? y.rows : bf16 ? y.cols : p->ldb;
  const bool fine = a != NULL && b != NULL;
  if (fine && by_rows) gptvq_rows_product(subtracts, p->m, p->n, p->k, a, lda, b, ldb, p->c, p->ldc);
  else if (fine)
    (p->transpose_a   ? gptvq_gemm_tn
     : p->transpose_b ? gptvq_gemm_nt
                      : gptvq_gemm_nn)(p->m, p->n, p->k, p->alpha, a, lda, b, ldb, p->beta, p->c, p->ldc);
  free(own_a);
  free(own_b);
  return fine ? GPTVQ_OK
              : gptvq_fail_memory(err, "a product on the shim",
                                  (x.rows * x.cols + y.rows * y.cols) * sizeof *a);
}

static gptvq_status inverse_factor(gptvq_device *device, size_t n, double *a, bool *done, gptvq_error *err) {
  (void)device;
  double *scratch = gptvq_alloc(n, GPTVQ_CHOLESKY_BLOCK * sizeof *scratch);
  if (scratch == NULL)
    return gptvq_fail_memory(err, "the factorisation on device 'shim'",
                             gptvq_saturated_size(n, GPTVQ_CHOLESKY_BLOCK * sizeof *scratch));
  *done = gptvq_cholesky(n, a);
  if (*done) gptvq_invert_lower(n, a, scratch);
  free(scratch);
  return GPTVQ_OK;
}

static gptvq_status synchronize(gptvq_device *device, gptvq_error *err) {
  (void)device;
  (void)err;
  return GPTVQ_OK;
}

static gptvq_status memory(gptvq_device *device, size_t *free_bytes, size_t *total_bytes, gptvq_error *err) {
  (void)err;
  *free_bytes = of(device)->limit - of(device)->used;
  *total_bytes = of(device)->limit;
  return GPTVQ_OK;
}

static void close_shim(gptvq_device *device) {
  shim *s = of(device);
  while (s->allocations != NULL) release(device, s->allocations->memory);
  free(s);
}

static bool is_shim(const gptvq_device *device) { return device->close == close_shim; }

void gptvq_shim_reverse(gptvq_device *device, bool reverse) {
  if (is_shim(device)) of(device)->reverse = reverse;
}
size_t gptvq_shim_pinned(gptvq_device *device) { return is_shim(device) ? of(device)->pinned : 0; }
void gptvq_shim_limit(gptvq_device *device, size_t bytes) {
  if (is_shim(device)) of(device)->limit = gptvq_max_size(bytes, of(device)->used);
}

gptvq_status gptvq_device_open_shim(gptvq_device **out, gptvq_error *err) {
  *out = NULL;
  GPTVQ_TRY(gptvq_blas_init(err));
  shim *s = malloc(sizeof *s);
  if (s == NULL) return gptvq_fail_memory(err, "the shim", sizeof *s);
  const char *wish = getenv("GPTVQ_SHIM_BYTES"); /* tests of whole runs */
  const uint64_t available = wish != NULL ? strtoull(wish, NULL, 10) : gptvq_available_memory();
  *s = (shim){.device = {.name = "shim",
                         .shared_bytes = SHARED_BYTES,
                         .processors = (unsigned)gptvq_thread_count(),
                         .state = s,
                         .alloc = allocate,
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
                         .close = close_shim},
              .limit = available > 0 && available < SIZE_MAX ? (size_t)available : SIZE_MAX};
  *out = &s->device;
  return GPTVQ_OK;
}
