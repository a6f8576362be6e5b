/* Distances and arg-minima over many points or many centroids. Vector types of the level's width: the
 * compiler keeps the running minima in registers, which it does not manage from plain loops. */
#include "quant/layer/lookup.h"
#include "base/vector.h"

#include <math.h>
#include <string.h>

/* One strip of V lanes; R rows at a time share the loads of the transformed centroids. */
#define ASSIGN_STRIP(D, R) \
  static void assign_strip_##D(size_t rows, size_t lanes, size_t k, const float *xt, const float *t, \
                               const float *centroids, float *table, uint16_t *index, float *distance) { \
    vfloat tt[D][D]; \
    for (size_t i = 0; i < D; i++) \
      for (size_t j = i; j < D; j++) tt[i][j] = LOAD(t + (i * D + j) * lanes); \
    for (size_t m = 0; m < k; m++) \
      for (size_t j = 0; j < D; j++) { \
        vfloat sum = centroids[m * D] * tt[0][j]; \
        for (size_t i = 1; i <= j; i++) sum += centroids[m * D + i] * tt[i][j]; \
        *(vfloat *)(void *)(table + (m * D + j) * V) = sum; \
      } \
    for (size_t row = 0; row < rows; row += R) { \
      vfloat x[R][D], best[R]; \
      vint at[R]; \
      for (size_t r = 0; r < R; r++) { \
        size_t from = row + r < rows ? row + r : rows - 1; \
        for (size_t j = 0; j < D; j++) x[r][j] = LOAD(xt + (from * D + j) * lanes); \
        best[r] = (vfloat){0} + INFINITY; \
        at[r] = (vint){0}; \
      } \
      for (size_t m = 0; m < k; m++) { \
        vfloat c[D]; \
        for (size_t j = 0; j < D; j++) c[j] = LOAD(table + (m * D + j) * V); \
        vint here = (vint){0} + (int32_t)m; \
        for (size_t r = 0; r < R; r++) { \
          vfloat delta = x[r][0] - c[0], sum = delta * delta; \
          for (size_t j = 1; j < D; j++) { \
            delta = x[r][j] - c[j]; \
            sum += delta * delta; \
          } \
          vint less = sum < best[r]; \
          best[r] = (vfloat)BLEND(less, (vint)sum, (vint)best[r]); \
          at[r] = BLEND(less, here, at[r]); \
        } \
      } \
      for (size_t r = 0; r < R && row + r < rows; r++) \
        for (size_t l = 0; l < V; l++) { \
          index[(row + r) * lanes + l] = (uint16_t)at[r][l]; \
          distance[(row + r) * lanes + l] = best[r][l]; \
        } \
    } \
  }
ASSIGN_STRIP(1, 4)
ASSIGN_STRIP(2, 4)
ASSIGN_STRIP(4, 3)

void GPTVQ_MULTI(gptvq_em_assign)(unsigned dim, size_t rows, size_t lanes, size_t k, const float *xt,
                                  const float *t, const float *centroids, float *table, uint16_t *index,
                                  float *distance) {
  for (size_t l = 0; l < lanes; l += V) {
    if (dim == 1) assign_strip_1(rows, lanes, k, xt + l, t + l, centroids, table, index + l, distance + l);
    else if (dim == 2)
      assign_strip_2(rows, lanes, k, xt + l, t + l, centroids, table, index + l, distance + l);
    else assign_strip_4(rows, lanes, k, xt + l, t + l, centroids, table, index + l, distance + l);
  }
}

#define NEAREST(D) \
  static size_t nearest_##D(size_t padded, const float *table, const float *x) { \
    vfloat best = (vfloat){0} + INFINITY; \
    vint at = {0}; \
    for (size_t m = 0; m < padded; m += V) { \
      vfloat delta = x[0] - LOAD(table + m), sum = delta * delta; \
      for (size_t j = 1; j < D; j++) { \
        delta = x[j] - LOAD(table + j * padded + m); \
        sum += delta * delta; \
      } \
      vint less = sum < best; \
      best = (vfloat)BLEND(less, (vint)sum, (vint)best); \
      at = BLEND(less, (vint){0} + (int32_t)m, at); \
    } \
    size_t found = (size_t)at[0]; \
    float least = best[0]; \
    for (size_t l = 1; l < V; l++) { \
      size_t m = (size_t)at[l] + l; \
      if (best[l] < least || (best[l] == least && m < found)) { \
        least = best[l]; \
        found = m; \
      } \
    } \
    return found; \
  }
NEAREST(1)
NEAREST(2)
NEAREST(4)

size_t GPTVQ_MULTI(gptvq_nearest)(unsigned dim, size_t padded, const float *table, const float *x) {
  return dim == 1   ? nearest_1(padded, table, x)
         : dim == 2 ? nearest_2(padded, table, x)
                    : nearest_4(padded, table, x);
}

/* from and to may be the same array, never overlap otherwise: strips through a register */
void GPTVQ_MULTI(gptvq_feedback)(unsigned dim, size_t n, const float *e, const float *u, size_t stride,
                                 const float *from, float *to) {
  size_t i = 0;
  for (; i + V <= n; i += V) {
    vfloat sum = e[0] * LOAD(u + i);
    for (size_t j = 1; j < dim; j++) sum += e[j] * LOAD(u + j * stride + i);
    *(vfloat *)(void *)(to + i) = LOAD(from + i) - sum;
  }
  for (; i < n; i++) {
    float sum = e[0] * u[i];
    for (size_t j = 1; j < dim; j++) sum += e[j] * u[j * stride + i];
    to[i] = from[i] - sum;
  }
}
