/* What the kernels share that look for the nearest centroid: a table of centroids times T in shared memory,
 * [dim][k], lanes over centroids. Operations and their order are those of quant/layer/multi/lookup.c. */
#ifndef GPTVQ_CUDA_KERNELS_LOOKUP_CUH
#define GPTVQ_CUDA_KERNELS_LOOKUP_CUH

#include "cuda/kernels/common.cuh"

template <int D>
GPTVQ_DEVICE float gptvq_distance(const float *table, unsigned k, unsigned m, const float (&x)[D]) {
  float delta = x[0] - table[m], sum = delta * delta;
  GPTVQ_UNROLL
  for (int j = 1; j < D; j++) {
    delta = x[j] - table[j * k + m];
    sum += delta * delta;
  }
  return sum;
}

/* The lowest m of least distance, to all lanes of the warp. */
template <int D>
GPTVQ_DEVICE unsigned gptvq_find_nearest(const float *table, unsigned k, const float (&x)[D]) {
  const unsigned lane = threadIdx.x % GPTVQ_WARP;
  float best = GPTVQ_INFINITY;
  unsigned at = lane;
  for (unsigned m = lane; m < k; m += GPTVQ_WARP) {
    const float here = gptvq_distance<D>(table, k, m, x);
    if (here < best) {
      best = here;
      at = m;
    }
  }
  gptvq_least(best, at);
  return at;
}

/* to = from − Σ_j e[j] u[j · stride] over columns [begin, end), by the lanes of the warp. */
template <int D>
GPTVQ_DEVICE void gptvq_feed_back(const float (&e)[D], const float *u, uint64_t stride, unsigned begin,
                                  unsigned end, const float *from, float *to) {
  for (unsigned i = begin + threadIdx.x % GPTVQ_WARP; i < end; i += GPTVQ_WARP) {
    float sum = e[0] * u[i];
    GPTVQ_UNROLL
    for (int j = 1; j < D; j++) sum += e[j] * u[j * stride + i];
    to[i] = from[i] - sum;
  }
}

#endif
