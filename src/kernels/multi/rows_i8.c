#include "kernels/multi/rows_i8.h"

#include <math.h>

enum { GROUP = 256, PIECE = 32, NEAR = 2048, FAR = 8192 };

/* Constant trip counts: the compiler then keeps one vector of sums. */
static inline int32_t dot_piece(const uint8_t *restrict w, const int8_t *restrict q) {
  int32_t sum = 0;
  for (size_t i = 0; i < PIECE; i++) sum += (int32_t)w[i] * q[i];
  return sum;
}

static inline int32_t dot_group(const uint8_t *restrict w, const int8_t *restrict q) {
  int32_t sum = 0;
  for (size_t i = 0; i < GROUP;
       i += 64) { /* read once, forward: what comes 8 KiB later, as far as the second-level cache */
    __builtin_prefetch(w + i + FAR, 0, 2);
    __builtin_prefetch(w + i + NEAR, 0, 3);
  }
  for (size_t i = 0; i < GROUP; i++) sum += (int32_t)w[i] * q[i];
  return sum;
}

float GPTVQ_MULTI(gptvq_row_i8)(size_t cols, const uint8_t *weights, const float *scales, const int8_t *codes,
                                const int32_t *corrections, const float *x_scales) {
  float y = 0.0f;
  size_t g = 0;
  for (; (g + 1) * GROUP <= cols; g++) {
    int32_t sum = corrections[g] + dot_group(weights + g * GROUP, codes + g * GROUP);
    y = fmaf((float)sum, scales[g] * x_scales[g], y);
  }
  if (g * GROUP < cols) {
    int32_t sum = corrections[g];
    size_t i = g * GROUP;
    for (; i + PIECE <= cols; i += PIECE) sum += dot_piece(weights + i, codes + i);
    for (; i < cols; i++) sum += (int32_t)weights[i] * codes[i];
    y = fmaf((float)sum, scales[g] * x_scales[g], y);
  }
  return y;
}
