#include "linalg/onednn.h"

#if defined(GPTVQ_HAVE_ONEDNN)
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static dnnl_engine_t engine; /* lives as long as the process */
static bool works;

/* A rows × cols matrix in memory, as oneDNN names it; version 3 made descriptors opaque. */
typedef struct matrix {
#if DNNL_VERSION_MAJOR >= 3
  dnnl_memory_desc_t desc;
#else
  dnnl_memory_desc_t storage, *desc;
#endif
  dnnl_memory_t memory;
} matrix;

static bool matrix_init(matrix *x, size_t rows, size_t cols, dnnl_data_type_t type, size_t row_stride,
                        size_t col_stride, void *data) {
  const dnnl_dims_t dims = {(dnnl_dim_t)rows, (dnnl_dim_t)cols};
  const dnnl_dims_t strides = {(dnnl_dim_t)row_stride, (dnnl_dim_t)col_stride};
#if DNNL_VERSION_MAJOR >= 3
  if (dnnl_memory_desc_create_with_strides(&x->desc, 2, dims, type, strides) != dnnl_success) return false;
#else
  x->desc = &x->storage;
  if (dnnl_memory_desc_init_by_strides(&x->storage, 2, dims, type, strides) != dnnl_success) return false;
#endif
  return dnnl_memory_create(&x->memory, x->desc, engine, data) == dnnl_success;
}

static void matrix_release(matrix *x) {
  if (x->memory != NULL) dnnl_memory_destroy(x->memory);
#if DNNL_VERSION_MAJOR >= 3
  if (x->desc != NULL) dnnl_memory_desc_destroy(x->desc);
#endif
}

static bool make_product(const matrix *a, const matrix *b, const matrix *c, dnnl_primitive_desc_t *out) {
#if DNNL_VERSION_MAJOR >= 3
  return dnnl_matmul_primitive_desc_create(out, engine, a->desc, b->desc, NULL, c->desc, NULL) ==
         dnnl_success;
#else
  dnnl_matmul_desc_t desc;
  return dnnl_matmul_desc_init(&desc, a->desc, b->desc, NULL, c->desc) == dnnl_success &&
         dnnl_primitive_desc_create(out, &desc, NULL, engine, NULL) == dnnl_success;
#endif
}

/* oneDNN keeps compiled primitives in a cache of its own: making one again for the same shape is cheap. */
static bool multiply(const matrix *a, const matrix *b, const matrix *c) {
  dnnl_primitive_desc_t desc = NULL;
  dnnl_primitive_t primitive = NULL;
  dnnl_stream_t stream = NULL;
  const dnnl_exec_arg_t arguments[3] = {
      {DNNL_ARG_SRC, a->memory}, {DNNL_ARG_WEIGHTS, b->memory}, {DNNL_ARG_DST, c->memory}};
  bool done = make_product(a, b, c, &desc) && dnnl_primitive_create(&primitive, desc) == dnnl_success &&
              dnnl_stream_create(&stream, engine, dnnl_stream_default_flags) == dnnl_success &&
              dnnl_primitive_execute(primitive, stream, 3, arguments) == dnnl_success &&
              dnnl_stream_wait(stream) == dnnl_success;
  if (stream != NULL) dnnl_stream_destroy(stream);
  if (primitive != NULL) dnnl_primitive_destroy(primitive);
  if (desc != NULL) dnnl_primitive_desc_destroy(desc);
  return done;
}

static bool product(size_t m, size_t n, size_t k, const void *a, size_t lda, const void *b, size_t ldb,
                    void *c, size_t ldc) {
  matrix x = {.memory = NULL}, y = {.memory = NULL}, z = {.memory = NULL};
  int threads =
      omp_get_max_threads(); /* of this thread; oneDNN's own threads would change the cut of the sums */
  omp_set_num_threads(1);
  bool done = matrix_init(&x, m, k, dnnl_bf16, lda, 1, (void *)(uintptr_t)a) &&
              matrix_init(&y, k, n, dnnl_bf16, 1, ldb, (void *)(uintptr_t)b) &&
              matrix_init(&z, m, n, dnnl_f32, ldc, 1, c) && multiply(&x, &y, &z);
  omp_set_num_threads(threads);
  matrix_release(&x);
  matrix_release(&y);
  matrix_release(&z);
  return done;
}

/* The first products make oneDNN set up its global state, before several threads use it. */
static void make_engine(void) {
  const uint16_t one = 0x3f80;
  float x = 0.0f;
  if (dnnl_engine_create(&engine, dnnl_cpu, 0) != dnnl_success) {
    engine = NULL;
    return;
  }
  works = product(1, 1, 1, &one, 1, &one, 1, &x, 1) && x > 0.5f;
}

bool gptvq_onednn_works(void) {
  pthread_once(&once, make_engine);
  return works;
}

bool gptvq_onednn_product(size_t m, size_t n, size_t k, const uint16_t *a, size_t lda, const uint16_t *b,
                          size_t ldb, float *c, size_t ldc) {
  return gptvq_onednn_works() && product(m, n, k, a, lda, b, ldb, c, ldc);
}

#else

bool gptvq_onednn_works(void) { return false; }

bool gptvq_onednn_product(size_t m, size_t n, size_t k, const uint16_t *a, size_t lda, const uint16_t *b,
                          size_t ldb, float *c, size_t ldc) {
  (void)m, (void)n, (void)k, (void)a, (void)lda, (void)b, (void)ldb, (void)c, (void)ldc;
  return false;
}
#endif
