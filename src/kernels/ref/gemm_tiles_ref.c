/* Products in tiles, spelled out. */
#include "kernels/gemm_tiles.h"
#include "kernels/ref/ref.h"

#include <math.h>

enum { SIDE = GPTVQ_TILE_SIDE, COLUMNS = GPTVQ_TILE_COLUMNS };

static void nothing(void) {}

static void multiply(const gptvq_tiles *job) {
  for (size_t t = 0; t < job->tokens; t++)
    for (size_t r = 0; r < job->rows; r++) {
      const int8_t *x = job->x + t / SIDE * job->input_bytes, *codes = x + t % SIDE * 4;
      const float *x_scales = (const float *)(const void *)(x + job->x_scales) + t % SIDE;
      float sum = 0.0f;
      for (size_t s = 0; s < job->segments; s++) {
        const size_t steps = s + 1 < job->segments ? job->steps : job->last_steps;
        const int8_t *w = job->weights + r * job->stride + s * job->segment;
        int32_t products = 0;
        for (size_t c = 0; c < steps * COLUMNS; c++)
          products += w[c] * codes[(s * job->steps * COLUMNS + c) / 4 * 4 * SIDE + c % 4];
        sum = fmaf((float)products, job->weight_scales[s * GPTVQ_GEMM_ROWS + r] * x_scales[s * SIDE], sum);
      }
      job->y[t * job->ldy + r] = sum;
    }
}

const gptvq_tiles_kernel gptvq_tiles_ref = {nothing, nothing, multiply};
