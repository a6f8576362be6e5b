/* Before and after the assignment of a batch as a whole (quant/layer/search.c is the definition). A lane has
 * sub-vectors or columns of a row; sums over a row are made by one lane, in the CPU's order. */
#include "cuda/kernels/common.cuh"

namespace gptvq_search {

typedef gptvq_kernel_search_arguments arguments;

GPTVQ_DEVICE float value(const arguments &a, uint64_t row, unsigned c, unsigned m) {
  const unsigned b = c / a.dim;
  return a.books[row / a.stripe_rows * a.book_stride + a.book_of[b] + (uint64_t)m * a.dim + c % a.dim] *
         gptvq_scale(a.scale, row, b);
}

GPTVQ_DEVICE uint64_t my_row() {
  return (uint64_t)blockIdx.x * (blockDim.x / GPTVQ_WARP) + threadIdx.x / GPTVQ_WARP;
}

} // namespace gptvq_search

GPTVQ_KERNEL(search_prepare, GPTVQ_ROWS_THREADS) {
  const uint64_t row = gptvq_search::my_row();
  const unsigned lane = threadIdx.x % GPTVQ_WARP, columns = a.blocks * a.dim;
  if (row >= a.rows) return;
  const uint16_t *index = a.index + row * a.index_stride;
  float *step = a.step + row * columns;
  if (lane == 0) {
    double loss = 0.0;
    for (unsigned c = 0; c < columns; c++) loss += (double)step[c] * (double)a.gradient[row * columns + c];
    a.loss[row] = loss;
  }
  __syncwarp();
  for (unsigned c = lane; c < columns; c += GPTVQ_WARP)
    step[c] += gptvq_search::value(a, row, c, index[c / a.dim]);
}

GPTVQ_KERNEL(search_accept, GPTVQ_ROWS_THREADS) {
  const uint64_t row = gptvq_search::my_row();
  const unsigned lane = threadIdx.x % GPTVQ_WARP, columns = a.blocks * a.dim;
  if (row >= a.rows || !(a.least[row] < a.loss[row] * (1.0 - 1e-5))) return;
  uint16_t *index = a.index + row * a.index_stride;
  const uint16_t *found = a.found + row * a.blocks;
  if (lane == 0) a.gain[row] += a.loss[row] - a.least[row];
  for (unsigned c = lane; c < columns; c += GPTVQ_WARP)
    a.work[row * a.work_stride + c] +=
        gptvq_search::value(a, row, c, index[c / a.dim]) - gptvq_search::value(a, row, c, found[c / a.dim]);
  __syncwarp();
  for (unsigned b = lane; b < a.blocks; b += GPTVQ_WARP) index[b] = found[b];
}
