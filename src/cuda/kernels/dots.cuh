/* Products of parts of rows (quant/layer/row_scales.c is the definition): a sum has `ways` neighbouring
 * threads, each with every ways-th column. */
#include "cuda/kernels/common.cuh"

GPTVQ_KERNEL(dots, GPTVQ_ROWS_THREADS) {
  const uint64_t thread = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x, number = thread / a.ways,
                 row = number / a.count;
  const uint32_t way = (uint32_t)(thread % a.ways), part = (uint32_t)(number % a.count);
  const bool there = row < a.rows;
  const uint32_t begin = there ? a.start[part] : 0, end = there ? a.start[part + 1] : 0,
                 whole = begin + (end - begin) / a.ways * a.ways;
  const float *x = a.x + row * a.stride, *y = a.y + row * a.stride;
  double sum = 0.0;
  for (uint32_t c = begin + way; c < whole; c += a.ways) sum += (double)x[c] * (double)y[c];
  if (way == 0)
    for (uint32_t c = whole; c < end; c++) sum += (double)x[c] * (double)y[c];
  if (a.ways == 4) { /* 0 + 1 + (2 + 3) */
    sum += __shfl_down_sync(GPTVQ_ALL_LANES, sum, 1);
    sum += __shfl_down_sync(GPTVQ_ALL_LANES, sum, 2);
  }
  if (!there || way != 0) return;
  if (a.ridge != nullptr && part + 1 == a.count) {
    double square = 0.0;
    for (uint32_t c = begin; c < end; c++) square += a.ridge[c] * (double)x[c] * (double)x[c];
    sum += square;
  }
  a.out[row * a.out_stride + part] = sum;
}
