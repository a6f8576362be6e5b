/* Many tokens: the definition (gemm_i8.h gives the equation). */
#include "kernels/gemm_i8.h"

#include <math.h>

enum { ROWS = GPTVQ_GEMM_ROWS, TOKENS = GPTVQ_GEMM_TOKENS };

void gptvq_gemm_pack_ref(const int8_t *codes, size_t stride, size_t quads, uint8_t *weights) {
  for (size_t q = 0; q < quads; q++)
    for (size_t r = 0; r < ROWS; r++)
      for (size_t b = 0; b < 4; b++)
        weights[(q * ROWS + r) * 4 + b] = (uint8_t)(codes[r * stride + 4 * q + b] + 128);
}

void gptvq_gemm_block_ref(const gptvq_gemm_block *block) {
  for (size_t i = 0; i < TOKENS * ROWS; i++) block->sums[i] = 0.0f;
  size_t first = 0;
  for (size_t s = 0; s < block->segments; s++) {
    size_t end = first + (s + 1 == block->segments ? block->last_quads : block->quads);
    for (size_t t = 0; t < TOKENS; t++)
      for (size_t r = 0; r < ROWS; r++) {
        int32_t sum = block->corrections[s * TOKENS + t];
        for (size_t q = first; q < end; q++)
          for (size_t b = 0; b < 4; b++)
            sum += (int32_t)block->weights[(q * ROWS + r) * 4 + b] * block->x[(q * TOKENS + t) * 4 + b];
        float *y = &block->sums[t * ROWS + r];
        *y = fmaf((float)sum, block->weight_scales[s * ROWS + r] * block->x_scales[s * TOKENS + t], *y);
      }
    first = end;
  }
}
