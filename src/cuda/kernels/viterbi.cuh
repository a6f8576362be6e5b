/* Best paths of rows without feedback, for the tables of a trellis, and the sums that these are fitted to
 * (quant/layer/multi/trellis.c and trellis_em.c are the definitions). A warp, which is a block, has one row:
 * lanes divide the prefixes among them, what paths cost lies in shared memory. Work for a weight: 256 ways of
 * 7 operations, of which a lane has 8. */
#include "cuda/kernels/common.cuh"

namespace gptvq_viterbi {

typedef gptvq_kernel_viterbi_arguments arguments;
enum { STATES = 256, SET = 16 };

/* What a warp has to do with, all of it shared. */
struct row {
  double *wx, *w;    /* [STATES] */
  float *cost;       /* [2][64] before and after a column, by turns */
  float *x, *weight; /* [columns] */
  uint8_t *from;     /* [columns][GPTVQ_WARP] upper bits of the states on the ways to a lane's prefixes */
  uint8_t *state;    /* [columns] */
};

GPTVQ_DEVICE row place(unsigned columns) {
  row r;
  r.wx = (double *)GPTVQ_DYNAMIC_SHARED();
  r.w = r.wx + STATES;
  r.cost = (float *)(r.w + STATES);
  r.x = r.cost + 2 * 64;
  r.weight = r.x + columns;
  r.from = (uint8_t *)(r.weight + columns);
  r.state = r.from + columns * GPTVQ_WARP;
  return r;
}

template <int K> GPTVQ_DEVICE void find_path(const arguments &a, const row &r) {
  enum {
    SYMBOLS = 1 << K,
    PREFIXES = STATES >> K,
    SLOTS = (PREFIXES + GPTVQ_WARP - 1) / GPTVQ_WARP /* prefixes of a lane */
  };
  const unsigned lane = threadIdx.x;
  const bool mine = lane < PREFIXES;
  float value[SLOTS][SYMBOLS];
  for (unsigned p = lane; p < PREFIXES; p += GPTVQ_WARP) r.cost[p] = 0.0f;
  GPTVQ_UNROLL
  for (int slot = 0; slot < SLOTS; slot++) GPTVQ_UNROLL
  for (int h = 0; h < SYMBOLS; h++)
    value[slot][h] = mine ? a.values[h * PREFIXES + slot * GPTVQ_WARP + lane] : 0.0f;
  __syncwarp();
  for (unsigned c = 0; c < a.columns; c++) {
    const float w = r.weight[c], x = r.x[c], *before = r.cost + (c & 1) * 64;
    float *after = r.cost + (~c & 1) * 64;
    unsigned ways = 0;
    if (mine) {
      GPTVQ_UNROLL
      for (int slot = 0; slot < SLOTS; slot++) {
        const unsigned prefix = slot * GPTVQ_WARP + lane;
        float best = 0.0f;
        unsigned way = 0;
        GPTVQ_UNROLL
        for (int h = 0; h < SYMBOLS; h++) { /* (x - t)^2 but for x^2, which all paths have in common */
          const float t = value[slot][h],
                      cost = before[h * (PREFIXES >> K) + (prefix >> K)] + (w * t * t + -2.0f * w * t * x);
          if (h == 0 || cost < best) {
            best = cost;
            way = h;
          }
        }
        after[prefix] = best;
        ways |= way << slot * K;
      }
    }
    r.from[c * GPTVQ_WARP + lane] = (uint8_t)ways;
    __syncwarp();
  }
  const float *final = r.cost + (a.columns & 1) * 64;
  float best = GPTVQ_INFINITY;
  unsigned last = PREFIXES - 1;
  for (unsigned p = lane; p < PREFIXES; p += GPTVQ_WARP)
    if (final[p] < best) {
      best = final[p];
      last = p;
    }
  gptvq_least(best, last);
  for (unsigned c = a.columns; c-- > 0;) {
    const unsigned way = r.from[c * GPTVQ_WARP + last % GPTVQ_WARP] >> last / GPTVQ_WARP * K & (SYMBOLS - 1),
                   state = way * PREFIXES + last;
    if (lane == 0) r.state[c] = (uint8_t)state;
    last = state >> K;
  }
  __syncwarp();
}

} // namespace gptvq_viterbi

GPTVQ_KERNEL(viterbi, 32) {
  const uint64_t number = blockIdx.x;
  const unsigned lane = threadIdx.x;
  const gptvq_viterbi::row r = gptvq_viterbi::place(a.columns);
  double *out = a.sums + number * GPTVQ_STATE_SUMS, loss = 0.0;
  for (unsigned i = lane; i < 2 * gptvq_viterbi::STATES; i += GPTVQ_WARP) r.wx[i] = 0.0;
  for (unsigned c = lane; c < a.columns; c += GPTVQ_WARP) {
    r.x[c] =
        a.x[(number / gptvq_viterbi::SET * a.columns + c) * gptvq_viterbi::SET + number % gptvq_viterbi::SET];
    r.weight[c] = a.weight[c];
  }
  __syncwarp();
  if (a.step_bits == 2) gptvq_viterbi::find_path<2>(a, r);
  else if (a.step_bits == 3) gptvq_viterbi::find_path<3>(a, r);
  else gptvq_viterbi::find_path<4>(a, r);
  for (unsigned c = 0; c < a.columns; c++) {
    const unsigned state = r.state[c];
    const double x = (double)r.x[c], w = (double)r.weight[c] * (double)a.row_weight[number],
                 delta = x - (double)a.values[state];
    if (lane == 0) r.wx[state] += w * x;
    if (lane == 1) r.w[state] += w;
    loss += w * delta * delta;
  }
  __syncwarp();
  for (unsigned i = lane; i < 2 * gptvq_viterbi::STATES; i += GPTVQ_WARP) out[i] = r.wx[i];
  if (lane == 0) out[2 * gptvq_viterbi::STATES] = loss;
}

GPTVQ_KERNEL(add_states, 32) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= GPTVQ_STATE_SUMS) return;
  double sum = 0.0;
  for (uint64_t set = 0; set < a.rows; set += gptvq_viterbi::SET) {
    double part = 0.0;
    GPTVQ_UNROLL
    for (int row = 0; row < gptvq_viterbi::SET; row++) part += a.sums[(set + row) * GPTVQ_STATE_SUMS + i];
    sum += part;
  }
  a.out[i] = sum;
}
