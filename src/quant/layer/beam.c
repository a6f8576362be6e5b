#include "quant/layer/beam.h"
#include "base/memory.h"
#include "quant/layer/lookup.h"

#include <math.h>
#include <string.h>

size_t gptvq_batch_table_floats(unsigned dim, size_t padded) { return GPTVQ_BATCH / dim * dim * padded; }

void gptvq_batch_prepare(const gptvq_batch *a) {
  size_t d = a->dim;
  for (size_t b = 0; b < a->blocks; b++) {
    const float *t = a->lookup + b * d * d;
    float *table = a->table + b * d * a->padded;
    for (size_t j = 0; j < d; j++) {
      for (size_t m = 0; m < a->k; m++) {
        float sum = a->book[m * d] * t[j];
        for (size_t i = 1; i <= j; i++) sum += a->book[m * d + i] * t[i * d + j];
        table[j * a->padded + m] = sum;
      }
      for (size_t m = a->k; m < a->padded; m++) table[j * a->padded + m] = INFINITY;
    }
  }
}

void gptvq_batch_feedback(unsigned dim, size_t columns, const float *u, size_t stride, float *out) {
  enum { BLOCK = GPTVQ_BATCH_BLOCK };
  for (size_t first = 0; first < columns; first += BLOCK)
    for (size_t row = 0; row < first + BLOCK; row++)
      for (size_t c = first; c < first + BLOCK; c++)
        *out++ = row < columns && c < columns && c >= row / dim * dim + dim ? u[row * stride + c] : 0.0f;
}
