#include "quant/layer/beam.h"

size_t gptvq_batch_table_floats(unsigned dim, size_t padded) { return GPTVQ_BATCH / dim * dim * padded; }

void gptvq_batch_feedback(unsigned dim, size_t columns, const float *u, size_t stride, float *out) {
  enum { BLOCK = GPTVQ_BATCH_BLOCK };
  for (size_t first = 0; first < columns; first += BLOCK)
    for (size_t row = 0; row < first + BLOCK; row++)
      for (size_t c = first; c < first + BLOCK; c++)
        *out++ = row < columns && c < columns && c >= row / dim * dim + dim ? u[row * stride + c] : 0.0f;
}
