#include "quant/layer/normal.h"
#include "base/memory.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

void GPTVQ_MULTI(gptvq_normal_rows)(size_t dim, size_t blocks, const uint16_t *index, const float *scale,
                                    size_t n, const float *restrict h, size_t stride, float *restrict sums) {
  for (size_t b = 0; b < blocks; b++)
    for (size_t i = 0; i < dim; i++) {
      const float *restrict from = h + (b * dim + i) * stride;
      float *restrict to = sums + (index[b] * dim + i) * n;
      for (size_t c = 0; c < n; c++) to[c] += scale[b] * from[c];
    }
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

void GPTVQ_MULTI(gptvq_normal_columns)(size_t dim, size_t blocks, const uint16_t *index, const float *scale,
                                       size_t values, const float *sums, size_t stride, float *out,
                                       size_t width) {
  float turned[FEW * VALUES];
  const size_t columns = blocks * dim;
  for (size_t v = 0; v < values; v += VALUES) {
    const size_t rows = gptvq_min_size(VALUES, values - v);
    for (size_t c = 0; c < columns; c += FEW) {
      const size_t count = gptvq_min_size(FEW, columns - c);
      turn(rows, count, sums + v * stride + c, stride, turned);
      for (size_t j = 0; j < count; j++) {
        const size_t b = (c + j) / dim, i = (c + j) % dim;
        const float *restrict from = turned + j * VALUES;
        float *restrict to = out + (index[b] * dim + i) * width + v;
        for (size_t r = 0; r < rows; r++) to[r] += scale[b] * from[r];
      }
    }
  }
}
