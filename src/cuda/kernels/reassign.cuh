/* Coordinate descent over single sub-vectors of a batch (quant/layer/multi/sweep.c is the definition). A warp
 * has one row, whose gradient lies in shared memory; the warps of a block share the centroids times R. */
#include "cuda/kernels/lookup.cuh"

namespace gptvq_reassign {

/* table[j][m] = Σ_i c_m[i] R[i][j] in double */
template <int D>
GPTVQ_DEVICE void make_table(const gptvq_kernel_reassign_arguments &a, const float *book, unsigned b,
                             float *table) {
  const double *r = a.metric_h + (uint64_t)b * D * D;
  for (unsigned m = threadIdx.x; m < a.k; m += blockDim.x) GPTVQ_UNROLL
  for (int j = 0; j < D; j++) {
    double sum = 0.0;
    GPTVQ_UNROLL
    for (int i = 0; i <= j; i++) sum += (double)book[(uint64_t)m * D + i] * r[i * D + j];
    table[j * a.k + m] = (float)sum;
  }
}

/* z with z Rᵀ = g */
template <int D> GPTVQ_DEVICE void solve_transposed(const double *r, const float *g, double (&z)[D]) {
  GPTVQ_UNROLL
  for (int i = D - 1; i >= 0; i--) {
    z[i] = (double)g[i];
    GPTVQ_UNROLL
    for (int j = i + 1; j < D; j++) z[i] -= z[j] * r[i * D + j];
    z[i] /= r[i * D + i];
  }
}

template <int D>
GPTVQ_DEVICE double distance(const float *table, unsigned k, unsigned m, const float (&x)[D]) {
  double sum = 0.0;
  GPTVQ_UNROLL
  for (int j = 0; j < D; j++) {
    const double delta = (double)x[j] - (double)table[j * k + m];
    sum += delta * delta;
  }
  return sum;
}

/* Sub-vector b of a row moves if another centroid is better; returns the gain. */
template <int D>
GPTVQ_DEVICE double move(const gptvq_kernel_reassign_arguments &a, const float *book, const float *table,
                         uint64_t row, unsigned b, float *gradient) {
  const unsigned lane = threadIdx.x % GPTVQ_WARP;
  const float scale = gptvq_scale(a.scale, row, b);
  uint16_t *index = a.index + row * a.index_stride + b;
  const unsigned now = *index;
  double z[D];
  float x[D], delta[D];
  solve_transposed<D>(a.metric_h + (uint64_t)b * D * D, gradient + b * D, z);
  GPTVQ_UNROLL
  for (int j = 0; j < D; j++) x[j] = table[j * a.k + now] + (float)z[j] / scale;
  const unsigned m = gptvq_find_nearest<D>(table, a.k, x);
  if (m == now) return 0.0;
  const double gain = distance<D>(table, a.k, now, x) - distance<D>(table, a.k, m, x);
  if (!(gain > 0.0)) return 0.0;
  float *work = a.work + row * a.work_stride + b * D;
  GPTVQ_UNROLL
  for (int j = 0; j < D; j++) {
    delta[j] = (book[(uint64_t)m * D + j] - book[(uint64_t)now * D + j]) * scale;
    if (lane == (unsigned)j) work[j] -= delta[j];
  }
  if (lane == 0) *index = (uint16_t)m;
  gptvq_feed_back<D>(delta, a.h + (uint64_t)b * D * a.h_stride, a.h_stride, (b + 1) * D, a.blocks * D,
                     gradient, gradient);
  return gain * (double)scale * (double)scale;
}

template <int D> GPTVQ_DEVICE void run(const gptvq_kernel_reassign_arguments &a) {
  const unsigned warp = threadIdx.x / GPTVQ_WARP, warps = blockDim.x / GPTVQ_WARP, columns = a.blocks * D,
                 lane = threadIdx.x % GPTVQ_WARP;
  const uint64_t first = (uint64_t)blockIdx.x * a.stripe_rows,
                 row = first + (uint64_t)blockIdx.y * warps + warp;
  const bool mine = row < a.rows && row < first + a.stripe_rows; /* the same in a whole warp */
  float *table = (float *)GPTVQ_DYNAMIC_SHARED(), *gradient = table + D * a.k + warp * columns;
  const float *book = a.books + blockIdx.x * a.book_stride;
  double gain = 0.0;
  if (mine)
    for (unsigned c = lane; c < columns; c += GPTVQ_WARP)
      gradient[c] = a.gradient[row * columns + c] + a.ridge[c] * a.work[row * a.work_stride + c];
  for (unsigned b = 0; b < a.blocks; b++) {
    __syncthreads(); /* the table before is no longer needed, the gradient is there */
    make_table<D>(a, book, b, table);
    __syncthreads();
    if (mine) gain += move<D>(a, book, table, row, b, gradient);
  }
  if (mine && lane == 0) a.gain[row] += gain;
}

} // namespace gptvq_reassign

GPTVQ_KERNEL(reassign, GPTVQ_ASSIGN_WARPS * 32) {
  if (a.dim == 1) gptvq_reassign::run<1>(a);
  else if (a.dim == 2) gptvq_reassign::run<2>(a);
  else gptvq_reassign::run<4>(a);
}
