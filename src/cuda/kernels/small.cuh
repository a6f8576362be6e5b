/* Systems of D equations in a thread's registers, and the order of many numbers in a block. */
#ifndef GPTVQ_CUDA_KERNELS_SMALL_CUH
#define GPTVQ_CUDA_KERNELS_SMALL_CUH

#include "cuda/kernels/common.cuh"

/* As eliminate and solve_eliminated of quant/layer/em.c. */
template <int D> GPTVQ_DEVICE void gptvq_solve_small(double (&a)[D * D], double (&b)[D]) {
  double trace = 0.0;
  GPTVQ_UNROLL
  for (int i = 0; i < D; i++) trace += a[i * D + i];
  if (!(trace > 0.0)) return;
  GPTVQ_UNROLL
  for (int i = 0; i < D; i++) a[i * D + i] += 1e-12 * trace;
  GPTVQ_UNROLL
  for (int i = 0; i < D; i++) {
    GPTVQ_UNROLL
    for (int r = i + 1; r < D; r++) {
      const double f = a[r * D + i] / a[i * D + i];
      GPTVQ_UNROLL
      for (int c = i; c < D; c++) a[r * D + c] -= f * a[i * D + c];
      b[r] -= f * b[i];
    }
  }
  GPTVQ_UNROLL
  for (int i = D - 1; i >= 0; i--) {
    GPTVQ_UNROLL
    for (int c = i + 1; c < D; c++) b[i] -= a[i * D + c] * b[c];
    b[i] /= a[i * D + i];
  }
}

/* sorted[0 … n): positions 0 … n − 1 by keys, ties by position; sorted has a power of 2 `most` >= n of
 * elements. By all threads of the block: a bitonic network; positions from n on are last. */
GPTVQ_DEVICE void gptvq_sort_block(unsigned n, unsigned most, const double *keys, uint32_t *sorted) {
  for (unsigned i = threadIdx.x; i < most; i += blockDim.x) sorted[i] = i;
  __syncthreads();
  for (unsigned size = 2; size <= most; size *= 2)
    for (unsigned step = size / 2; step > 0; step /= 2) {
      for (unsigned i = threadIdx.x; i < most; i += blockDim.x) {
        const unsigned other = i ^ step;
        if (other < i) continue;
        const uint32_t p = sorted[i], q = sorted[other];
        bool after; /* p belongs behind q */
        if (p >= n || q >= n) after = p > q;
        else after = keys[p] != keys[q] ? keys[q] < keys[p] : p > q;
        if (after == ((i & size) == 0)) {
          sorted[i] = q;
          sorted[other] = p;
        }
      }
      __syncthreads();
    }
}

#endif
