/* Values of an assignment (quant/layer/codebook.c is the definition). */
#include "cuda/kernels/common.cuh"

GPTVQ_KERNEL(decode, GPTVQ_ROWS_THREADS) {
  const uint32_t b = blockIdx.x * blockDim.x + threadIdx.x;
  if (b >= a.blocks) return;
  for (uint64_t row = blockIdx.y; row < a.rows; row += gridDim.y) {
    const uint64_t at = row * a.blocks + b;
    const float scale = a.scale == nullptr ? 1.0f : a.scale[at];
    const float *c =
        a.books + row / a.stripe_rows * a.book_stride + a.book_of[b] + (uint64_t)a.index[at] * a.dim;
    for (uint32_t i = 0; i < a.dim; i++) {
      const float value = c[i] * scale;
      a.out[at * a.dim + i] = a.target == nullptr ? value : a.target[at * a.dim + i] - value;
    }
  }
}
