/* Values of an assignment, and the transpose of that (quant/layer/codebook.c and update.c are the
 * definitions). */
#include "cuda/kernels/common.cuh"

/* Where row `row` of the listed stripes is among all rows. */
GPTVQ_DEVICE uint64_t gptvq_listed_row(const uint32_t *stripes, uint64_t stripe_rows, uint64_t row) {
  return stripes == nullptr ? row : stripes[row / stripe_rows] * stripe_rows + row % stripe_rows;
}

GPTVQ_KERNEL(decode, GPTVQ_ROWS_THREADS) {
  const uint32_t b = blockIdx.x * blockDim.x + threadIdx.x;
  if (b >= a.blocks) return;
  for (uint64_t row = blockIdx.y; row < a.rows; row += gridDim.y) {
    const uint64_t from = gptvq_listed_row(a.stripes, a.stripe_rows, row), at = from * a.blocks + b,
                   to = (row * a.blocks + b) * a.dim;
    const float scale = gptvq_scale(a.scale, from, b);
    const float *c =
        a.books + from / a.stripe_rows * a.book_stride + a.book_of[b] + (uint64_t)a.index[at] * a.dim;
    for (uint32_t i = 0; i < a.dim; i++) {
      const float value = c[i] * scale;
      a.out[to + i] = a.target == nullptr ? value : a.target[to + i] - value;
    }
  }
}

/* A warp has every `warps`-th centroid of a group and adds up what belongs to it in the CPU's order, row by
 * row; a lane has one coordinate. */
GPTVQ_KERNEL(gather, GPTVQ_ROWS_THREADS) {
  const unsigned lane = threadIdx.x % GPTVQ_WARP;
  const uint64_t first = blockIdx.y * a.stripe_rows,
                 rows = a.rows - first < a.stripe_rows ? a.rows - first : a.stripe_rows,
                 source = gptvq_listed_row(a.stripes, a.stripe_rows, first);
  const uint32_t begin = a.group_first[blockIdx.x], end = a.group_first[blockIdx.x + 1];
  double *out = a.sums + blockIdx.y * a.sums_stride + (uint64_t)blockIdx.x * a.k * a.dim;
  for (uint32_t m = threadIdx.x / GPTVQ_WARP; m < a.k; m += blockDim.x / GPTVQ_WARP) {
    double sum = 0.0;
    for (uint64_t row = 0; row < rows; row++)
      for (uint32_t b = begin; b < end; b += GPTVQ_WARP) {
        const uint64_t at = (source + row) * a.blocks + b;
        unsigned votes = __ballot_sync(GPTVQ_ALL_LANES, b + lane < end && a.index[at + lane] == m);
        for (; votes != 0; votes &= votes - 1) {
          const unsigned next = (unsigned)__ffs(votes) - 1;
          const double scale = (double)gptvq_scale(a.scale, source + row, b + next);
          if (lane < a.dim) sum += scale * (double)a.y[((first + row) * a.blocks + b + next) * a.dim + lane];
        }
      }
    if (lane < a.dim) out[(uint64_t)m * a.dim + lane] = sum;
  }
}
