#include "base/half.h"
#include "base/memory.h"
#include "kernels/kernels.h"
#include "kernels/multi/quantize_input.h"
#include "kernels/multi/rows_i8.h"

#include <math.h>
#include <string.h>

enum { GROUP = GPTVQ_ROWS_GROUP };

static size_t group_count(size_t cols) { return gptvq_ceil_div(cols, GROUP); }

size_t gptvq_rows_input_bytes(size_t cols) {
  return gptvq_round_up(cols, 64) + gptvq_round_up(group_count(cols) * (sizeof(int32_t) + sizeof(float)), 64);
}

void gptvq_rows_prepare(size_t cols, const float *x, void *input) {
  int8_t *codes = input, group[GROUP];
  int32_t *corrections = (int32_t *)(void *)(codes + gptvq_round_up(cols, 64));
  float *scales = (float *)(corrections + group_count(cols));
  for (size_t g = 0; g < group_count(cols); g++) {
    size_t first = g * GROUP, width = gptvq_min_size(GROUP, cols - first);
    scales[g] = GPTVQ_MULTI_PICK(gptvq_quantize_group)(x + first, width, 1, gptvq_round_up(width, 64), group);
    corrections[g] = -128 * GPTVQ_MULTI_PICK(gptvq_sum_codes)(group, width);
    memcpy(codes + first, group, width);
  }
}

void gptvq_rows_quantize(size_t cols, const float *weights, uint8_t *codes, float *scales) {
  for (size_t g = 0; g < group_count(cols); g++) {
    size_t first = g * GROUP, width = gptvq_min_size(GROUP, cols - first);
    int8_t group[GROUP];
    scales[g] =
        GPTVQ_MULTI_PICK(gptvq_quantize_group)(weights + first, width, 1, gptvq_round_up(width, 64), group);
    for (size_t i = 0; i < width; i++) codes[first + i] = (uint8_t)(group[i] + 128);
  }
}

void gptvq_rows_matmul(const uint8_t *codes, const float *scales, size_t cols, size_t begin, size_t end,
                       const void *inputs, size_t count, float *y, size_t ldy) {
  float (*const multiply)(size_t, const uint8_t *, const float *, const int8_t *, const int32_t *,
                          const float *) = GPTVQ_MULTI_PICK(gptvq_row_i8);
  size_t groups = group_count(cols), bytes = gptvq_rows_input_bytes(cols);
  for (size_t row = begin; row < end; row++)
    for (size_t t = 0; t < count; t++) {
      const int8_t *x = (const int8_t *)inputs + t * bytes;
      const int32_t *corrections = (const int32_t *)(const void *)(x + gptvq_round_up(cols, 64));
      y[t * ldy + row - begin] = multiply(cols, codes + row * cols, scales + row * groups, x, corrections,
                                          (const float *)(corrections + groups));
    }
}
