/* For sums over calibration tokens (cuda/linalg.c) and what is made of them (cuda/divide.c). */
#include "cuda/kernels/bf16.cuh"

/* Blocks: x over columns, y over rows (both strided); threads: columns. */
GPTVQ_KERNEL(add_sums, 256) {
  for (uint64_t row = blockIdx.y; row < a.rows; row += gridDim.y)
    for (uint64_t c = (a.upper ? row : 0) + (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; c < a.cols;
         c += (uint64_t)gridDim.x * blockDim.x)
      a.sums[row * a.ld + c] += (double)a.product[row * a.cols + c];
}

/* Blocks: x over columns, y over rows (both strided); threads: columns. */
GPTVQ_KERNEL(fold_sums, 256) {
  for (uint64_t row = blockIdx.y; row < a.rows; row += gridDim.y)
    for (uint64_t c = (a.upper ? row : 0) + (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; c < a.cols;
         c += (uint64_t)gridDim.x * blockDim.x) {
      const float x = (float)a.part[row * a.ld + c];
      a.part[row * a.ld + c] = 0.0;
      if (a.total == nullptr) a.rounded[row * a.cols + c] = x;
      else if (a.upper) a.total[(a.cols - row) * a.ld + c - row] += (double)x;
      else a.total[row * a.ld + c] += (double)x;
    }
}

/* Blocks and threads: numbers, strided. */
GPTVQ_KERNEL(round_bf16, 256) {
  for (uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i < a.count;
       i += (uint64_t)gridDim.x * blockDim.x)
    a.bits[i] = gptvq_round_bits(a.bits[i]);
}

/* Blocks: x over columns, y over rows (both strided); threads: columns. */
GPTVQ_KERNEL(take_rows, 256) {
  for (uint64_t row = blockIdx.y; row < a.rows; row += gridDim.y)
    for (uint64_t c = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; c < a.cols;
         c += (uint64_t)gridDim.x * blockDim.x) {
      const float x = a.x[row * a.x_stride + c],
                  value = a.other != nullptr ? a.other[row * a.cols + c] - x : x;
      a.y[row * a.cols + c] = a.rounds ? __uint_as_float(gptvq_round_bits(__float_as_uint(value))) : value;
    }
}

/* Blocks: x over columns, y over rows (both strided); threads: columns. */
GPTVQ_KERNEL(pick_columns, 256) {
  for (uint64_t row = blockIdx.y; row < a.rows; row += gridDim.y)
    for (uint64_t c = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; c < a.y_cols;
         c += (uint64_t)gridDim.x * blockDim.x) {
      const uint32_t at = a.at[c];
      a.y[row * a.y_cols + c] = at < a.x_cols ? a.x[row * a.x_cols + at] * a.scale : 0.0f;
    }
}
