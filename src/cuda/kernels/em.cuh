/* k-means of one group (quant/layer/em.c is the definition). A block has one stripe: threads divide points
 * among them in the assignment; a warp adds up the points of one centroid at a time in the CPU's order,
 * sub-vector by sub-vector and row by row, a lane for each number of the sums. No atomics: the same bits
 * always. Point p of sub-vector b and row r stands at b · rows + r. */
#include "cuda/kernels/small.cuh"

namespace gptvq_em {

struct stripe {
  uint64_t first; /* row */
  unsigned rows, n;
  float *x, *xt, *distance; /* x and xt: [dim][most] */
  uint16_t *index, *previous;
  double *keys;
  uint32_t *sorted;
  float *centroids;     /* shared */
  unsigned char *empty; /* shared: [k] */
};

GPTVQ_DEVICE double weight(const gptvq_kernel_em_arguments &a, const stripe &s, unsigned p) {
  const float scale = gptvq_scale(a.scale, s.first + p % s.rows, p / s.rows);
  return (double)(scale * scale);
}

/* From the place of a point in the order of rows, then sub-vectors. */
GPTVQ_DEVICE unsigned by_rows(const gptvq_kernel_em_arguments &a, const stripe &s, unsigned i) {
  return i % a.blocks * s.rows + i / a.blocks;
}

template <int D> GPTVQ_DEVICE void load_points(const gptvq_kernel_em_arguments &a, const stripe &s) {
  for (unsigned p = threadIdx.x; p < s.n; p += blockDim.x) {
    const unsigned b = p / s.rows;
    const uint64_t row = s.first + p % s.rows;
    const float scale = gptvq_scale(a.scale, row, b);
    float x[D], xt[D];
    GPTVQ_UNROLL
    for (int j = 0; j < D; j++) {
      const uint32_t column = a.column[b * D + j];
      x[j] = column == UINT32_MAX ? 0.0f : a.w[row * a.w_stride + column] / scale;
    }
    gptvq_times_upper<D>(a.t + (uint64_t)b * D * D, x, xt);
    GPTVQ_UNROLL
    for (int j = 0; j < D; j++) {
      s.x[j * a.most + p] = x[j];
      s.xt[j * a.most + p] = xt[j];
    }
  }
}

template <int D>
GPTVQ_DEVICE void copy_point(const gptvq_kernel_em_arguments &a, const stripe &s, unsigned p, unsigned m) {
  GPTVQ_UNROLL
  for (int j = 0; j < D; j++) s.centroids[m * D + j] = s.x[j * a.most + p];
}

/* Centroids at even steps of the points' order by distance from their mean, in the metric of their spread. */
template <int D> GPTVQ_DEVICE void start_mahalanobis(const gptvq_kernel_em_arguments &a, const stripe &s) {
  GPTVQ_SHARED(double, mean, D);
  GPTVQ_SHARED(double, covariance, D *D);
  if (threadIdx.x < D) {
    double sum = 0.0;
    for (unsigned i = 0; i < s.n; i++)
      sum += (double)s.x[threadIdx.x * a.most + by_rows(a, s, i)] / (double)s.n;
    mean[threadIdx.x] = sum;
  }
  __syncthreads();
  if (threadIdx.x < D * D) {
    const unsigned j = threadIdx.x / D, l = threadIdx.x % D;
    double sum = 0.0;
    for (unsigned i = 0; i < s.n; i++) {
      const unsigned p = by_rows(a, s, i);
      sum += ((double)s.x[j * a.most + p] - mean[j]) * ((double)s.x[l * a.most + p] - mean[l]);
    }
    covariance[threadIdx.x] = sum;
  }
  __syncthreads();
  for (unsigned i = threadIdx.x; i < s.n; i += blockDim.x) {
    const unsigned p = by_rows(a, s, i);
    double delta[D], solved[D], c[D * D], key = 0.0;
    GPTVQ_UNROLL
    for (int j = 0; j < D; j++) solved[j] = delta[j] = (double)s.x[j * a.most + p] - mean[j];
    GPTVQ_UNROLL
    for (int j = 0; j < D * D; j++) c[j] = covariance[j];
    gptvq_solve_small<D>(c, solved);
    GPTVQ_UNROLL
    for (int j = 0; j < D; j++) key += delta[j] * solved[j];
    s.keys[i] = key;
  }
  __syncthreads();
  gptvq_sort_block(s.n, (unsigned)a.most, s.keys, s.sorted);
  for (unsigned m = threadIdx.x; m < a.k; m += blockDim.x) {
    const uint64_t at = a.k > 1 ? (uint64_t)m * (s.n - 1) / (a.k - 1) : s.n / 2;
    copy_point<D>(a, s, by_rows(a, s, s.sorted[at]), m);
  }
  __syncthreads();
}

/* The product of the quantiles of each coordinate. */
template <int D> GPTVQ_DEVICE void start_cdf(const gptvq_kernel_em_arguments &a, const stripe &s) {
  unsigned bits = 0, stride = 1;
  while (1u << bits < a.k) bits++;
  for (unsigned j = 0; j < D; j++) {
    const unsigned levels = 1u << (bits / D + (j < bits % D));
    for (unsigned i = threadIdx.x; i < s.n; i += blockDim.x)
      s.keys[i] = (double)s.x[j * a.most + by_rows(a, s, i)];
    __syncthreads();
    gptvq_sort_block(s.n, (unsigned)a.most, s.keys, s.sorted);
    for (unsigned m = threadIdx.x; m < a.k; m += blockDim.x) {
      const uint64_t level = m / stride % levels, at = (2 * level + 1) * s.n / (2 * levels);
      s.centroids[m * D + j] = (float)s.keys[s.sorted[at < s.n - 1 ? at : s.n - 1]];
    }
    __syncthreads();
    stride *= levels;
  }
}

template <int D> GPTVQ_DEVICE void assign(const gptvq_kernel_em_arguments &a, const stripe &s) {
  for (unsigned p = threadIdx.x; p < s.n; p += blockDim.x) {
    float x[D], t[D * D], best = GPTVQ_INFINITY;
    unsigned at = 0;
    GPTVQ_UNROLL
    for (int j = 0; j < D; j++) x[j] = s.xt[j * a.most + p];
    GPTVQ_UNROLL
    for (int j = 0; j < D * D; j++) t[j] = a.t[(uint64_t)(p / s.rows) * D * D + j];
    for (unsigned m = 0; m < a.k; m++) {
      float c[D], ct[D];
      GPTVQ_UNROLL
      for (int j = 0; j < D; j++) c[j] = s.centroids[m * D + j];
      gptvq_times_upper<D>(t, c, ct);
      float delta = x[0] - ct[0], sum = delta * delta;
      GPTVQ_UNROLL
      for (int j = 1; j < D; j++) {
        delta = x[j] - ct[j];
        sum += delta * delta;
      }
      if (sum < best) {
        best = sum;
        at = m;
      }
    }
    s.index[p] = (uint16_t)at;
    s.distance[p] = best;
  }
  __syncthreads();
}

/* Element `l` of what point p adds to a centroid's sums: Σ M for l < D², then Σ M x. */
template <int D>
GPTVQ_DEVICE double contribution(const gptvq_kernel_em_arguments &a, const stripe &s, unsigned p,
                                 unsigned l) {
  const float *t = a.t + (uint64_t)(p / s.rows) * D * D;
  const double w = weight(a, s, p);
  const unsigned i = l < D * D ? l / D : l - D * D;
  double product = 0.0;
  GPTVQ_UNROLL
  for (unsigned j = 0; j < D; j++) {
    if (l < D * D && j != l % D) continue;
    double metric = 0.0;
    GPTVQ_UNROLL
    for (unsigned m = 0; m < D; m++)
      if (m >= (i > j ? i : j)) metric += (double)t[i * D + m] * (double)t[j * D + m];
    metric = w * metric;
    if (l < D * D) return metric;
    product += metric * (double)s.x[j * a.most + p];
  }
  return product;
}

/* New centroids where points are; s.empty says where none are. A warp has every `warps`-th. */
template <int D> GPTVQ_DEVICE void add_up(const gptvq_kernel_em_arguments &a, const stripe &s) {
  const unsigned lane = threadIdx.x % GPTVQ_WARP;
  for (unsigned m = threadIdx.x / GPTVQ_WARP; m < a.k; m += blockDim.x / GPTVQ_WARP) {
    double sum = 0.0;
    for (unsigned p = 0; p < s.n; p += GPTVQ_WARP) {
      unsigned votes = __ballot_sync(GPTVQ_ALL_LANES, p + lane < s.n && s.index[p + lane] == m);
      for (; votes != 0; votes &= votes - 1)
        if (lane < D * D + D) sum += contribution<D>(a, s, p + (unsigned)__ffs(votes) - 1, lane);
    }
    double matrix[D * D], right[D];
    bool empty = true;
    GPTVQ_UNROLL
    for (unsigned j = 0; j < D * D; j++) matrix[j] = __shfl_sync(GPTVQ_ALL_LANES, sum, j);
    GPTVQ_UNROLL
    for (unsigned j = 0; j < D; j++) right[j] = __shfl_sync(GPTVQ_ALL_LANES, sum, D * D + j);
    GPTVQ_UNROLL
    for (unsigned j = 0; j < D; j++) empty = empty && !(matrix[j * D + j] > 0.0);
    if (!empty) gptvq_solve_small<D>(matrix, right);
    GPTVQ_UNROLL
    for (unsigned j = 0; j < D; j++)
      if (lane == j && !empty) s.centroids[m * D + j] = (float)right[j];
    if (lane == 0) s.empty[m] = empty;
  }
  __syncthreads();
}

struct worst {
  double loss;
  unsigned at; /* by rows */
};
GPTVQ_DEVICE bool worse(const worst &a, const worst &b) {
  return a.loss > b.loss || (a.loss == b.loss && a.at < b.at);
}

/* The point that is served worst, the first by rows among equals, to all threads. */
GPTVQ_DEVICE worst find_worst(const gptvq_kernel_em_arguments &a, const stripe &s) {
  GPTVQ_SHARED(worst, found, GPTVQ_EM_THREADS / GPTVQ_WARP);
  worst w = {0.0, UINT32_MAX};
  for (unsigned p = threadIdx.x; p < s.n; p += blockDim.x) {
    const worst here = {weight(a, s, p) * (double)s.distance[p], p % s.rows * a.blocks + p / s.rows};
    if (here.loss > 0.0 && worse(here, w)) w = here;
  }
  for (unsigned with = GPTVQ_WARP / 2; with > 0; with /= 2) {
    const worst other = {__shfl_xor_sync(GPTVQ_ALL_LANES, w.loss, with),
                         __shfl_xor_sync(GPTVQ_ALL_LANES, w.at, with)};
    if (worse(other, w)) w = other;
  }
  if (threadIdx.x % GPTVQ_WARP == 0) found[threadIdx.x / GPTVQ_WARP] = w;
  __syncthreads();
  w = found[0];
  for (unsigned i = 1; i < blockDim.x / GPTVQ_WARP; i++)
    if (worse(found[i], w)) w = found[i];
  __syncthreads();
  return w;
}

/* Empty centroids move to the points that are served worst, a point each, while there are such. */
template <int D> GPTVQ_DEVICE void fill_empty(const gptvq_kernel_em_arguments &a, const stripe &s) {
  for (unsigned m = 0; m < a.k; m++) {
    if (!s.empty[m]) continue; /* the same in all threads */
    const worst w = find_worst(a, s);
    if (w.at == UINT32_MAX) break;
    const unsigned p = by_rows(a, s, w.at);
    if (threadIdx.x == 0) {
      copy_point<D>(a, s, p, m);
      s.distance[p] = 0.0f;
    }
    __syncthreads();
  }
  __syncthreads();
}

/* Are all assignments as before? To all threads. */
GPTVQ_DEVICE bool settled(const stripe &s) {
  GPTVQ_SHARED(unsigned, changed, GPTVQ_EM_THREADS / GPTVQ_WARP);
  bool differs = false;
  for (unsigned p = threadIdx.x; p < s.n; p += blockDim.x) differs = differs || s.index[p] != s.previous[p];
  const bool any = __any_sync(GPTVQ_ALL_LANES, differs);
  if (threadIdx.x % GPTVQ_WARP == 0) changed[threadIdx.x / GPTVQ_WARP] = any;
  __syncthreads();
  unsigned count = 0;
  for (unsigned i = 0; i < blockDim.x / GPTVQ_WARP; i++) count += changed[i];
  __syncthreads();
  return count == 0;
}

template <int D> GPTVQ_DEVICE void run(const gptvq_kernel_em_arguments &a) {
  stripe s;
  s.first = (uint64_t)blockIdx.x * a.stripe_rows;
  s.rows = (unsigned)(a.rows - s.first < a.stripe_rows ? a.rows - s.first : a.stripe_rows);
  s.n = s.rows * a.blocks;
  s.x = a.x + (uint64_t)blockIdx.x * D * a.most;
  s.xt = a.xt + (uint64_t)blockIdx.x * D * a.most;
  s.distance = a.distance + blockIdx.x * a.most;
  s.index = a.index + blockIdx.x * a.most;
  s.previous = a.previous + blockIdx.x * a.most;
  s.keys = a.keys + blockIdx.x * a.most;
  s.sorted = a.sorted + blockIdx.x * a.most;
  s.centroids = (float *)GPTVQ_DYNAMIC_SHARED();
  s.empty = (unsigned char *)(s.centroids + (uint64_t)D * a.k);
  load_points<D>(a, s);
  __syncthreads();
  if (a.cdf) start_cdf<D>(a, s);
  else start_mahalanobis<D>(a, s);
  for (unsigned i = 0; i < a.iterations; i++) {
    assign<D>(a, s);
    if (i > 0 && settled(s)) break;
    add_up<D>(a, s);
    fill_empty<D>(a, s);
    uint16_t *swap = s.index;
    s.index = s.previous;
    s.previous = swap;
  }
  float *out = a.centroids + blockIdx.x * a.book_stride;
  for (unsigned i = threadIdx.x; i < a.k * D; i += blockDim.x) out[i] = s.centroids[i];
}

} // namespace gptvq_em

GPTVQ_KERNEL(em, GPTVQ_EM_THREADS) {
  if (a.dim == 1) gptvq_em::run<1>(a);
  else if (a.dim == 2) gptvq_em::run<2>(a);
  else gptvq_em::run<4>(a);
}
