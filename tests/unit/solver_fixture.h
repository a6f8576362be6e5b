/* Random layers and plain double-precision helpers for the solver's tests. */
#ifndef SOLVER_FIXTURE_H
#define SOLVER_FIXTURE_H

#include "base/half.h"
#include "base/memory.h"
#include "base/random.h"
#include "quant/layer/layer.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static inline double gauss(uint64_t *state) {
  double u = 1.0 - gptvq_random_unit(state), v = gptvq_random_unit(state);
  return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

static inline float *random_weights(size_t rows, size_t cols, uint64_t seed) {
  float *w = gptvq_alloc(rows, cols * sizeof *w);
  for (size_t i = 0; i < rows * cols; i++) w[i] = (float)(0.05 * gauss(&seed));
  return w;
}

/* X Xᵀ / n of n correlated inputs whose columns have spreads over a factor of about 10 */
static inline double *random_hessian(size_t cols, size_t n, uint64_t seed) {
  double *h = gptvq_alloc_zero(cols, cols * sizeof *h), *x = gptvq_alloc(cols, sizeof *x),
         *spread = gptvq_alloc(cols, sizeof *x);
  for (size_t c = 0; c < cols; c++) spread[c] = exp(0.6 * gauss(&seed));
  for (size_t i = 0; i < n; i++) {
    double common = gauss(&seed);
    for (size_t c = 0; c < cols; c++) x[c] = spread[c] * (gauss(&seed) + 0.8 * common);
    for (size_t a = 0; a < cols; a++)
      for (size_t b = 0; b < cols; b++) h[a * cols + b] += x[a] * x[b] / (double)n;
  }
  free(x);
  free(spread);
  return h;
}

static inline double mean_diagonal(size_t n, const double *h) {
  double sum = 0.0;
  for (size_t i = 0; i < n; i++) sum += h[i * n + i];
  return sum / (double)n;
}

/* a[n × n] := its inverse by Gauss-Jordan elimination with pivots on the diagonal (positive definite
 * matrices) */
static inline void invert(size_t n, double *a) {
  for (size_t p = 0; p < n; p++) {
    double pivot = a[p * n + p];
    a[p * n + p] = 1.0;
    for (size_t c = 0; c < n; c++) a[p * n + c] /= pivot;
    for (size_t r = 0; r < n; r++) {
      if (r == p) continue;
      double f = a[r * n + p];
      a[r * n + p] = 0.0;
      for (size_t c = 0; c < n; c++) a[r * n + c] -= f * a[p * n + c];
    }
  }
}

/* e H eᵀ of one row; h NULL: identity */
static inline double row_loss(size_t n, const double *e, const double *h) {
  double sum = 0.0;
  for (size_t a = 0; a < n; a++) {
    if (h == NULL) sum += e[a] * e[a];
    else
      for (size_t b = 0; b < n; b++) sum += e[a] * h[a * n + b] * e[b];
  }
  return sum;
}

/* Relative layer error of packed arrays, recomputed in double from the reference decoder */
static inline double relative_error(const gptvq_packed *packed, const float *w, const double *h) {
  size_t rows = packed->shape.rows, cols = packed->shape.cols;
  float *q = gptvq_alloc(rows, cols * sizeof *q);
  double *e = gptvq_alloc(cols, sizeof *e), sums[2] = {0.0, 0.0};
  gptvq_packed_decode_ref(packed, 0, rows, q, cols);
  for (size_t r = 0; r < rows; r++) {
    for (size_t c = 0; c < cols; c++) e[c] = (double)w[r * cols + c] - (double)q[r * cols + c];
    sums[0] += row_loss(cols, e, h);
    for (size_t c = 0; c < cols; c++) e[c] = (double)w[r * cols + c];
    sums[1] += row_loss(cols, e, h);
  }
  free(q);
  free(e);
  return sums[0] / sums[1];
}

/* All stored bytes of two results are equal */
static inline void assert_same_bytes(const gptvq_layer_result *a, const gptvq_layer_result *b) {
  gptvq_packed_sizes s;
  gptvq_packed_measure(&a->packed.shape, &s);
  assert_int_equal(a->packed.shape.permuted, b->packed.shape.permuted);
  assert_memory_equal(a->packed.indices, b->packed.indices, s.index_bytes);
  if (s.codebook_bytes > 0) assert_memory_equal(a->packed.codebooks, b->packed.codebooks, s.codebook_bytes);
  if (s.codebook_scales > 0)
    assert_memory_equal(a->packed.codebook_scales, b->packed.codebook_scales, 2 * s.codebook_scales);
  if (s.left_bytes > 0) {
    assert_memory_equal(a->packed.codebook_left, b->packed.codebook_left, s.left_bytes);
    assert_memory_equal(a->packed.codebook_right, b->packed.codebook_right, s.right_bytes);
    assert_memory_equal(a->packed.factor_scales, b->packed.factor_scales,
                        a->packed.shape.svd_rank * sizeof(float));
  }
  if (s.block_scale_bytes > 0) {
    assert_memory_equal(a->packed.block_scales, b->packed.block_scales, s.block_scale_bytes);
    assert_memory_equal(a->packed.block_scale_range, b->packed.block_scale_range, 8);
  }
  if (s.uniform_scales > 0) assert_memory_equal(a->packed.scales, b->packed.scales, 2 * s.uniform_scales);
  if (s.zero_bytes > 0) assert_memory_equal(a->packed.zeros, b->packed.zeros, s.zero_bytes);
  if (s.row_scale_bytes > 0)
    assert_memory_equal(a->packed.row_scales, b->packed.row_scales, s.row_scale_bytes);
  if (a->packed.shape.permuted)
    assert_memory_equal(a->packed.permutation, b->packed.permutation, 4 * a->packed.shape.cols);
}

/* Options of a small VQ layer: k = 2^index_bits, l weights per codebook */
static inline gptvq_quantize_options small_options(unsigned dim, unsigned index_bits, size_t group_size) {
  gptvq_quantize_options o;
  gptvq_quantize_options_init(&o);
  o.bits = 0.0;
  o.dim = dim;
  o.index_bits = index_bits;
  o.group_size = group_size;
  o.scale_block = 0;
  return o;
}

static inline gptvq_resolved resolved(const gptvq_quantize_options *o) {
  gptvq_error err = {.message = ""};
  gptvq_resolved r;
  if (gptvq_resolve(o, &r, &err) != GPTVQ_OK) fail_msg("%s", err.message);
  return r;
}

/* gptvq_factor_create and gptvq_solve_layer on the CPU */
static inline gptvq_status make_factor(const char *name, size_t cols, const double *h,
                                       const gptvq_quantize_options *o, const gptvq_callbacks *callbacks,
                                       gptvq_factor **f, gptvq_error *err) {
  const gptvq_resolved r = resolved(o);
  return gptvq_factor_create(&(gptvq_solver){&r, &gptvq_cpu_backend, callbacks, NULL, NULL}, name, cols, h, f,
                             err);
}

static inline gptvq_status solve_with(const gptvq_factor *f, const char *name, size_t rows, size_t cols,
                                      const float *w, const gptvq_quantize_options *o, gptvq_layer_result *r,
                                      gptvq_error *err) {
  const gptvq_resolved options = resolved(o);
  return gptvq_solve_layer(&(gptvq_solver){&options, &gptvq_cpu_backend, NULL, NULL, NULL},
                           &(gptvq_weights){name, rows, cols, w}, f, r, err);
}

/* A layer after the GPTVQ loop, with all the memory that its solve may take, and some for what only a test
 * asks of it. The caller destroys *arena. */
static inline gptvq_vq open_layer(size_t rows, size_t cols, const float *w, const gptvq_factor *f,
                                  const gptvq_resolved *o, gptvq_arena *arena) {
  gptvq_error err = {.message = ""};
  gptvq_packed_shape shape;
  assert_int_equal(gptvq_layer_shape(rows, cols, o, &shape, &err), GPTVQ_OK);
  gptvq_vq q =
      gptvq_vq_of(&(gptvq_solver){o, &gptvq_cpu_backend, NULL, NULL, NULL}, "test", &shape, f, f != NULL);
  assert_int_equal(gptvq_arena_create(arena, gptvq_vq_bytes(&q) + (1 << 20), "test", &err), GPTVQ_OK);
  q.arena = arena;
  assert_int_equal(gptvq_vq_set_up(&q, w, &err), GPTVQ_OK);
  assert_int_equal(gptvq_vq_interleave(&q, &err), GPTVQ_OK);
  return q;
}

static inline double layer_loss(gptvq_vq *q, double *row_loss) {
  gptvq_error err;
  double loss = NAN;
  q->has_gradient = false; /* made anew, not as it was kept */
  assert_int_equal(gptvq_vq_loss(q, row_loss, &loss, &err), GPTVQ_OK);
  return loss;
}

static inline gptvq_layer_result solve(size_t rows, size_t cols, const float *w, const double *h,
                                       const gptvq_quantize_options *o) {
  gptvq_error err = {.message = ""};
  gptvq_factor *factor = NULL;
  gptvq_layer_result result;
  if (h != NULL && make_factor("test", cols, h, o, NULL, &factor, &err) != GPTVQ_OK)
    fail_msg("%s", err.message);
  if (solve_with(factor, "test", rows, cols, w, o, &result, &err) != GPTVQ_OK) fail_msg("%s", err.message);
  gptvq_factor_destroy(factor);
  return result;
}

#endif
