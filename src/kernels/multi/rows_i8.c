#include "kernels/multi/rows_i8.h"

#include <math.h>

enum { GROUP = 256, PIECE = 32 };

/* Constant trip counts: the compiler then keeps one vector of sums. */
static inline int32_t dot_piece(const uint8_t *restrict w, const int8_t *restrict q) {
  int32_t sum = 0;
  for (size_t i = 0; i < PIECE; i++) sum += (int32_t)w[i] * q[i];
  return sum;
}

static inline int32_t dot_group(const uint8_t *restrict w, const int8_t *restrict q) {
  int32_t sum = 0;
  for (size_t i = 0; i < GROUP; i++) sum += (int32_t)w[i] * q[i];
  return sum;
}

static inline int32_t dot_rest(size_t n, const uint8_t *restrict w, const int8_t *restrict q) {
  int32_t sum = 0;
  size_t i = 0;
  for (; i + PIECE <= n; i += PIECE) sum += dot_piece(w + i, q + i);
  for (; i < n; i++) sum += (int32_t)w[i] * q[i];
  return sum;
}

void GPTVQ_MULTI(gptvq_two_rows_i8)(size_t cols, const uint8_t *const weights[2],
                                    const float *const scales[2], const int8_t *codes,
                                    const int32_t *corrections, const float *x_scales, float y[2]) {
  y[0] = y[1] = 0.0f;
  for (size_t g = 0, at = 0; at < cols; g++, at += GROUP) {
    for (size_t r = 0; r < 2; r++) {
      const uint8_t *w = weights[r] + at;
      const int32_t sum = corrections[g] + (at + GROUP <= cols ? dot_group(w, codes + at)
                                                               : dot_rest(cols - at, w, codes + at));
      y[r] = fmaf((float)sum, scales[r][g] * x_scales[g], y[r]);
    }
  }
}
