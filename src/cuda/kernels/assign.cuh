/* The GPTVQ step of a batch of columns (quant/layer/multi/beam.c is the definition). A warp has one row:
 * lanes divide centroids among them in look-ups and columns in feedback, and hold one kept partial assignment
 * each, best first. The warps of a block are rows of one stripe and share the centroids times T of the
 * present sub-vector. Partial assignments are kept as parent and index; the errors of the best one are
 * computed again along its path, by the same operations. */
#include "cuda/kernels/lookup.cuh"

namespace gptvq_assign {

/* What a warp has to do with. */
struct row {
  const float *w;    /* global, the row's columns */
  const float *book; /* global */
  float *now, *next; /* shared: [width][columns] */
  uint32_t *history; /* shared: [blocks][width] parent << 16 | index */
  uint64_t number;   /* of the row */
  unsigned lane, columns;
};

template <int D> GPTVQ_DEVICE void load(float (&to)[D], const float *from) {
  GPTVQ_UNROLL
  for (int j = 0; j < D; j++) to[j] = from[j];
}

/* table[j][m] = c_m T of sub-vector b, by all threads of the block */
template <int D>
GPTVQ_DEVICE void make_table(const gptvq_kernel_assign_arguments &a, const float *book, unsigned b,
                             float *table) {
  const float *t = a.lookup + (uint64_t)b * D * D;
  for (unsigned m = threadIdx.x; m < a.k; m += blockDim.x) {
    float c[D], product[D];
    load<D>(c, book + (uint64_t)m * D);
    gptvq_times_upper<D>(t, c, product);
    GPTVQ_UNROLL
    for (int j = 0; j < D; j++) table[j * a.k + m] = product[j];
  }
}

template <int D> GPTVQ_DEVICE void transform(const float *t, const float *w, float scale, float (&x)[D]) {
  float divided[D];
  GPTVQ_UNROLL
  for (int j = 0; j < D; j++) divided[j] = w[j] / scale;
  gptvq_times_upper<D>(t, divided, x);
}

/* e′ = (w − c · scale) T; returns ‖e′‖² */
template <int D>
GPTVQ_DEVICE double scaled_error(const float *t, const float *w, const float *c, float scale, float (&e)[D]) {
  float delta[D];
  double sum = 0.0;
  GPTVQ_UNROLL
  for (int j = 0; j < D; j++) delta[j] = w[j] - c[j] * scale;
  gptvq_times_upper<D>(t, delta, e);
  GPTVQ_UNROLL
  for (int j = 0; j < D; j++) sum += (double)e[j] * (double)e[j];
  return sum;
}

/* to = from − e U over the columns from sub-vector b + 1 on */
template <int D>
GPTVQ_DEVICE void feed_back(const gptvq_kernel_assign_arguments &a, const row &r, unsigned b,
                            const float (&e)[D], const float *from, float *to) {
  gptvq_feed_back<D>(e, a.u + (uint64_t)b * D * a.u_stride, a.u_stride, (b + 1) * D, r.columns, from, to);
}

/* Sub-vector b gets centroid m: its error is written, the row in `now` made up for. */
template <int D>
GPTVQ_DEVICE double settle(const gptvq_kernel_assign_arguments &a, const row &r, unsigned b, unsigned m) {
  float e[D];
  const double loss = scaled_error<D>(a.metric + (uint64_t)b * D * D, r.now + b * D, r.book + (uint64_t)m * D,
                                      gptvq_scale(a.scale, r.number, b), e);
  GPTVQ_UNROLL
  for (int j = 0; j < D; j++)
    if (a.error != nullptr && r.lane == (unsigned)j) a.error[r.number * a.error_stride + b * D + j] = e[j];
  feed_back<D>(a, r, b, e, r.now, r.now);
  __syncwarp();
  return loss;
}

template <int D>
GPTVQ_DEVICE double greedy(const gptvq_kernel_assign_arguments &a, const row &r, unsigned b,
                           const float *table) {
  float x[D];
  transform<D>(a.lookup + (uint64_t)b * D * D, r.now + b * D, gptvq_scale(a.scale, r.number, b), x);
  const unsigned at = gptvq_find_nearest<D>(table, a.k, x);
  if (r.lane == 0) a.index[r.number * a.index_stride + b] = (uint16_t)at;
  return a.u == nullptr ? 0.0 : settle<D>(a, r, b, at);
}

/* The best a.width ways to go on, of `live`; *loss: of this lane's. Returns how many there are. */
template <int D>
GPTVQ_DEVICE unsigned extend(const gptvq_kernel_assign_arguments &a, row &r, unsigned b, const float *table,
                             unsigned live, double *loss) {
  const float *t = a.metric + (uint64_t)b * D * D;
  const float scale = gptvq_scale(a.scale, r.number, b);
  const double squared = (double)scale * (double)scale;
  double best = 0.0, worst = 0.0; /* this lane's place; the last place, once all are taken */
  uint32_t step = 0;
  unsigned found = 0;
  for (unsigned c = 0; c < live; c++) {
    const double before = __shfl_sync(GPTVQ_ALL_LANES, *loss, c);
    float x[D];
    transform<D>(t, r.now + c * r.columns + b * D, scale, x);
    for (unsigned m = 0; m < a.k; m += GPTVQ_WARP) {
      const bool there = m + r.lane < a.k;
      const float here = there ? gptvq_distance<D>(table, a.k, m + r.lane, x) : 0.0f;
      const double all = before + squared * (double)here;
      unsigned votes =
          __ballot_sync(GPTVQ_ALL_LANES, there && here <= GPTVQ_INFINITY && (found < a.width || all < worst));
      for (; votes != 0; votes &= votes - 1) {
        const unsigned from = (unsigned)__ffs(votes) - 1;
        const double candidate = __shfl_sync(GPTVQ_ALL_LANES, all, from);
        if (found == a.width && !(candidate < worst)) continue;
        const unsigned place =
            (unsigned)__popc(__ballot_sync(GPTVQ_ALL_LANES, r.lane < found && !(candidate < best)));
        const double left = __shfl_up_sync(GPTVQ_ALL_LANES, best, 1);
        const uint32_t left_step = __shfl_up_sync(GPTVQ_ALL_LANES, step, 1);
        if (r.lane > place) {
          best = left;
          step = left_step;
        } else if (r.lane == place) {
          best = candidate;
          step = c << 16 | (m + from);
        }
        if (found < a.width) found++;
        worst = __shfl_sync(GPTVQ_ALL_LANES, best, a.width - 1);
      }
    }
  }
  *loss = best;
  if (r.lane < found) r.history[b * a.width + r.lane] = step;
  for (unsigned c = 0; c < found; c++) {
    const uint32_t s = __shfl_sync(GPTVQ_ALL_LANES, step, c);
    const float *from = r.now + (s >> 16) * r.columns;
    float e[D];
    (void)scaled_error<D>(t, from + b * D, r.book + (uint64_t)(s & 0xffff) * D, scale, e);
    feed_back<D>(a, r, b, e, from, r.next + c * r.columns);
  }
  __syncwarp();
  float *swap = r.now;
  r.now = r.next;
  r.next = swap;
  return found;
}

GPTVQ_DEVICE void load_row(row &r) {
  for (unsigned i = r.lane; i < r.columns; i += GPTVQ_WARP) r.now[i] = r.w[i];
  __syncwarp();
}

/* The way back from the best end, then its errors along the way forth. */
template <int D> GPTVQ_DEVICE void follow(const gptvq_kernel_assign_arguments &a, row &r) {
  if (r.lane == 0)
    for (unsigned b = a.blocks, c = 0; b-- > 0;) {
      const uint32_t s = r.history[b * a.width + c];
      r.history[b * a.width] = s & 0xffff;
      c = s >> 16;
    }
  load_row(r); /* and a barrier */
  for (unsigned b = 0; b < a.blocks; b++) {
    const unsigned m = r.history[b * a.width];
    if (r.lane == 0) a.index[r.number * a.index_stride + b] = (uint16_t)m;
    if (a.error != nullptr) (void)settle<D>(a, r, b, m);
  }
}

template <int D> GPTVQ_DEVICE void run(const gptvq_kernel_assign_arguments &a) {
  const unsigned warp = threadIdx.x / GPTVQ_WARP, warps = blockDim.x / GPTVQ_WARP, columns = a.blocks * D;
  const bool kept = a.width > 1 && a.u != nullptr;
  const uint64_t first = (uint64_t)blockIdx.x * a.stripe_rows,
                 number = first + (uint64_t)blockIdx.y * warps + warp;
  const bool mine = number < a.rows && number < first + a.stripe_rows; /* the same in a whole warp */
  float *table = (float *)GPTVQ_DYNAMIC_SHARED(), *rows = table + D * a.k;
  const unsigned floats = kept ? 2 * a.width * columns : columns;
  uint32_t *history = (uint32_t *)(rows + warps * floats);
  row r;
  r.w = mine ? a.w + number * a.w_stride : nullptr;
  r.book = a.books + (uint64_t)blockIdx.x * a.book_stride;
  r.now = rows + warp * floats;
  r.next = r.now + a.width * columns;
  r.history = history + warp * a.width * a.blocks;
  r.number = number;
  r.lane = threadIdx.x % GPTVQ_WARP;
  r.columns = columns;
  if (mine) load_row(r);
  unsigned live = 1;
  double loss = 0.0; /* of the row, or of the lane's partial assignment */
  for (unsigned b = 0; b < a.blocks; b++) {
    __syncthreads(); /* the table before is no longer needed */
    make_table<D>(a, r.book, b, table);
    __syncthreads();
    if (!mine) continue;
    if (kept) live = extend<D>(a, r, b, table, live, &loss);
    else loss += greedy<D>(a, r, b, table);
  }
  if (mine && kept) follow<D>(a, r);
  if (mine && a.loss != nullptr && r.lane == 0) a.loss[number] = loss;
}

} // namespace gptvq_assign

GPTVQ_KERNEL(assign, GPTVQ_ASSIGN_WARPS * 32) {
  if (a.dim == 1) gptvq_assign::run<1>(a);
  else if (a.dim == 2) gptvq_assign::run<2>(a);
  else gptvq_assign::run<4>(a);
}
