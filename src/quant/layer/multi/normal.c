#include "quant/layer/normal.h"
#include "base/memory.h"
#include "base/vector.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__AVX512F__)
#include "base/x86/transpose_avx512.h"
#endif

/* `dim` is a constant where it is inlined: sums of a centroid stay in registers. */
static inline __attribute__((always_inline)) void add_centroids(size_t dim, size_t k, const uint32_t *start,
                                                                const uint32_t *order, const float *scale,
                                                                const float *h, float *sums) {
  enum { COLUMNS = GPTVQ_NORMAL_COLUMNS, VECTORS = COLUMNS / V };
  for (size_t m = 0; m < k; m++, sums += dim * COLUMNS) {
    vfloat sum[4][VECTORS];
    for (size_t i = 0; i < dim; i++)
      for (size_t v = 0; v < VECTORS; v++) sum[i][v] = (vfloat){0};
    for (size_t at = start[m]; at < start[m + 1]; at++) {
      const float *from = h + order[at] * dim * COLUMNS;
      const vfloat factor = broadcast(scale[order[at]]);
      for (size_t i = 0; i < dim; i++)
        for (size_t v = 0; v < VECTORS; v++)
          sum[i][v] = multiply_add(factor, LOAD(from + i * COLUMNS + v * V), sum[i][v]);
    }
    for (size_t i = 0; i < dim; i++)
      for (size_t v = 0; v < VECTORS; v++) memcpy(sums + i * COLUMNS + v * V, &sum[i][v], sizeof sum[i][v]);
  }
}

void GPTVQ_MULTI(gptvq_normal_rows)(size_t dim, size_t k, const uint32_t *start, const uint32_t *order,
                                    const float *scale, const float *h, float *sums) {
  if (dim == 1) add_centroids(1, k, start, order, scale, h, sums);
  else if (dim == 2) add_centroids(2, k, start, order, scale, h, sums);
  else add_centroids(4, k, start, order, scale, h, sums);
}

enum { VALUES = 128, FEW = 4 }; /* rows and columns of sums that are turned around together */

/* turned[FEW][VALUES] = the transpose of x[rows][columns] */
static void turn(size_t rows, size_t columns, const float *x, size_t stride, float *restrict turned) {
  size_t r = 0;
#if defined(__x86_64__)
  for (; columns == FEW && r + FEW <= rows; r += FEW) {
    __m128 a = _mm_loadu_ps(x + r * stride), b = _mm_loadu_ps(x + (r + 1) * stride),
           c = _mm_loadu_ps(x + (r + 2) * stride), d = _mm_loadu_ps(x + (r + 3) * stride);
    _MM_TRANSPOSE4_PS(a, b, c, d);
    _mm_storeu_ps(turned + r, a);
    _mm_storeu_ps(turned + VALUES + r, b);
    _mm_storeu_ps(turned + 2 * VALUES + r, c);
    _mm_storeu_ps(turned + 3 * VALUES + r, d);
  }
#endif
  for (; r < rows; r++)
    for (size_t c = 0; c < columns; c++) turned[c * VALUES + r] = x[r * stride + c];
}

#if defined(__AVX512F__)
/* The same for 16 columns and 16 values. */
static void add_columns(size_t dim, const uint16_t *index, const float *scale, size_t first,
                        const float *sums, size_t stride, float *out, size_t width) {
  __m512i values[16];
  for (size_t v = 0; v < 16; v++) values[v] = _mm512_loadu_si512(sums + v * stride);
  gptvq_transpose_16(values);
  for (size_t c = 0; c < 16; c++) {
    const size_t b = (first + c) / dim, i = (first + c) % dim;
    float *to = out + (index[b] * dim + i) * width;
    const __m512 factor = _mm512_set1_ps(scale[b]), value = _mm512_castsi512_ps(values[c]);
    _mm512_storeu_ps(to, _mm512_fmadd_ps(factor, value, _mm512_loadu_ps(to)));
  }
}
#endif

void GPTVQ_MULTI(gptvq_normal_columns)(size_t dim, size_t blocks, const uint16_t *index, const float *scale,
                                       size_t values, const float *sums, size_t stride, float *out,
                                       size_t width) {
  float turned[FEW * VALUES];
  const size_t columns = blocks * dim;
  size_t done = 0; /* values */
#if defined(__AVX512F__)
  for (; columns % 16 == 0 && done + 16 <= values; done += 16)
    for (size_t c = 0; c < columns; c += 16)
      add_columns(dim, index, scale, c, sums + done * stride + c, stride, out + done, width);
#endif
  for (size_t v = done; v < values; v += VALUES) {
    const size_t rows = gptvq_min_size(VALUES, values - v);
    for (size_t c = 0; c < columns; c += FEW) {
      const size_t count = gptvq_min_size(FEW, columns - c);
      turn(rows, count, sums + v * stride + c, stride, turned);
      for (size_t j = 0; j < count; j++) {
        const size_t b = (c + j) / dim, i = (c + j) % dim;
        const float *restrict from = turned + j * VALUES;
        float *restrict to = out + (index[b] * dim + i) * width + v;
        for (size_t r = 0; r < rows; r++) to[r] = __builtin_fmaf(scale[b], from[r], to[r]);
      }
    }
  }
}

typedef float four __attribute__((vector_size(16), aligned(4), may_alias));
#define FOUR(p) (*(four *)(void *)(uintptr_t)(p))
#if defined(__clang__)
#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef int places __attribute__((vector_size(16)));
#define PICK(a, b, ...) __builtin_shuffle(a, b, (places){__VA_ARGS__})
#endif

/* Of pairs two at a time, whose parts of both rows of h are brought together. */
static void add_pairs(size_t blocks, const uint16_t *index, const float *scale, const float *h,
                      const float *second, float *sums) {
  size_t b = 0;
  for (; b + 2 <= blocks; b += 2) {
    const four x = FOUR(h + 2 * b), y = FOUR(second + 2 * b);
    FOUR(sums + 4 * index[b]) += scale[b] * PICK(x, y, 0, 1, 4, 5);
    FOUR(sums + 4 * index[b + 1]) += scale[b + 1] * PICK(x, y, 2, 3, 6, 7);
  }
  if (b < blocks)
    FOUR(sums + 4 * index[b]) += scale[b] * (four){h[2 * b], h[2 * b + 1], second[2 * b], second[2 * b + 1]};
}

void GPTVQ_MULTI(gptvq_normal_row)(size_t dim, size_t blocks, const uint16_t *index, const float *scale,
                                   const float *h, size_t stride, float *sums) {
  if (dim == 2) {
    add_pairs(blocks, index, scale, h, h + stride, sums);
    return;
  }
  for (size_t b = 0; b < blocks; b++)
    if (dim == 1) sums[index[b]] += scale[b] * h[b];
    else
      for (size_t i = 0; i < 4; i++)
        FOUR(sums + (4 * index[b] + i) * 4) += scale[b] * FOUR(h + i * stride + 4 * b);
}

/* Sums of LANES products side by side, so that every level adds up in the same order. */
enum { LANES = 16 };

/* to[c] += factor · from[c] and, in lanes, Σ x[c] · from[c] */
static inline void row_times(size_t n, const float *restrict from, float factor, const float *restrict x,
                             float *restrict to, float *restrict lanes) {
  size_t c = 0;
  for (; c + LANES <= n; c += LANES)
    for (size_t l = 0; l < LANES; l += V) {
      const vfloat value = LOAD(from + c + l);
      const vfloat sum = multiply_add(broadcast(factor), value, LOAD(to + c + l)),
                   dot = multiply_add(value, LOAD(x + c + l), LOAD(lanes + l));
      memcpy(to + c + l, &sum, sizeof sum);
      memcpy(lanes + l, &dot, sizeof dot);
    }
  for (size_t l = 0; c < n; c++, l++) {
    to[c] = __builtin_fmaf(factor, from[c], to[c]);
    lanes[l] = __builtin_fmaf(from[c], x[c], lanes[l]);
  }
}

void GPTVQ_MULTI(gptvq_normal_times)(size_t groups, size_t n, size_t first, size_t last, const float *blocks,
                                     const float *x, float *y) {
  memset(y, 0, groups * n * sizeof *y);
  for (size_t f = first; f < last; f++)
    for (size_t g = f; g < groups; g++)
      for (size_t v = 0; v < n; v++, blocks += n) {
        float lanes[LANES] = {0}, *own_row = y + f * n;
        if (g == f) { /* all of a diagonal block is there */
          for (size_t c = 0; c < n; c++) own_row[c] = __builtin_fmaf(x[f * n + v], blocks[c], own_row[c]);
          continue;
        }
        row_times(n, blocks, x[f * n + v], x + g * n, y + g * n, lanes);
        for (size_t half = LANES / 2; half > 0; half /= 2)
          for (size_t l = 0; l < half; l++) lanes[l] += lanes[l + half];
        own_row[v] += lanes[0];
      }
}
