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

/* A row of the first half goes with one of the second (the middle one of an odd number also with the last):
 * memory is read in two streams far from each other, which one core reads a quarter faster than one (Zen 4).
 */
void gptvq_rows_matmul(const uint8_t *codes, const float *scales, size_t cols, size_t begin, size_t end,
                       const void *inputs, size_t count, float *y, size_t ldy) {
  void (*const multiply)(size_t, const uint8_t *const[2], const float *const[2], const int8_t *,
                         const int32_t *, const float *, float[2]) = GPTVQ_MULTI_PICK(gptvq_two_rows_i8);
  const size_t groups = group_count(cols), bytes = gptvq_rows_input_bytes(cols), rows = end - begin;
  for (size_t low = 0; low < gptvq_ceil_div(rows, 2); low++) {
    const size_t high = low + rows / 2;
    const uint8_t *const two[2] = {codes + (begin + low) * cols, codes + (begin + high) * cols};
    const float *const of_two[2] = {scales + (begin + low) * groups, scales + (begin + high) * groups};
    for (size_t t = 0; t < count; t++) {
      const int8_t *x = (const int8_t *)inputs + t * bytes;
      const int32_t *corrections = (const int32_t *)(const void *)(x + gptvq_round_up(cols, 64));
      float results[2];
      multiply(cols, two, of_two, x, corrections, (const float *)(corrections + groups), results);
      y[t * ldy + low] = results[0];
      y[t * ldy + high] = results[1];
    }
  }
}
