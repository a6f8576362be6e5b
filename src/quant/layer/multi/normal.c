#include "quant/layer/normal.h"

void GPTVQ_MULTI(gptvq_normal_rows)(size_t dim, size_t blocks, const uint16_t *index, const float *scale,
                                    size_t n, const float *restrict h, size_t stride, float *restrict sums) {
  for (size_t b = 0; b < blocks; b++)
    for (size_t i = 0; i < dim; i++) {
      const float *restrict from = h + (b * dim + i) * stride;
      float *restrict to = sums + (index[b] * dim + i) * n;
      for (size_t c = 0; c < n; c++) to[c] += scale[b] * from[c];
    }
}

/* Pairs of numbers side by side move together. */
typedef float pair __attribute__((vector_size(8), aligned(4), may_alias));
typedef float four __attribute__((vector_size(16), aligned(4), may_alias));
#define COLUMNS(type) \
  for (size_t v = 0; v < values; v++, sums += stride, out += width) \
    for (size_t b = 0; b < blocks; b++) \
  ((type *)(void *)out)[index[b]] += scale[b] * ((const type *)(const void *)sums)[b]

void GPTVQ_MULTI(gptvq_normal_columns)(size_t dim, size_t blocks, const uint16_t *index, const float *scale,
                                       size_t values, const float *sums, size_t stride, float *out,
                                       size_t width) {
  if (dim == 1) COLUMNS(float);
  else if (dim == 2) COLUMNS(pair);
  else COLUMNS(four);
}
