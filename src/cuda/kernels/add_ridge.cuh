/* y += ridge · x. Blocks: x over columns, y over rows (both strided); threads: columns. */
#include "cuda/kernels/common.cuh"

GPTVQ_KERNEL(add_ridge, 256) {
  for (uint64_t c = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; c < a.n;
       c += (uint64_t)gridDim.x * blockDim.x) {
    const float ridge = a.ridge[c];
    for (uint64_t row = blockIdx.y; row < a.rows; row += gridDim.y)
      a.y[row * a.y_stride + c] += ridge * a.x[row * a.x_stride + c];
  }
}
