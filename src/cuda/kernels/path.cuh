/* Best paths through a trellis (quant/layer/multi/trellis.c is the definition). A warp, which is a block, has
 * one row: lanes divide the prefixes among them, each with its W partial paths in order. A path carries the
 * weights of the 8 columns at hand, and its errors there; later columns take up the errors of a block when
 * the next one is done, for the paths that the present ones go back to (23 of 128), into tails in global
 * memory, of which little is touched. All subtractions come in the order of the columns, as on the CPU.
 *
 * Work for a weight with k = 2 and W = 2, 128 paths: 512 ways of 5 operations and two comparisons;
 * 128 · 16 multiply-subtracts, half for the block at hand and half on entering it; 23 tails' half batch, 64.
 * Shared memory decides: each path's 8 numbers are written and, in 1.9 turns, read, 93 accesses of the warp,
 * beside some 40 of the choice, 8 of entering a block and 23 for tails. Some 165 cycles of a processor, which
 * has 9 such warps at work. Nothing of it diverges. */
#include "cuda/kernels/common.cuh"

namespace gptvq_path {

typedef gptvq_kernel_path_arguments arguments;
enum { BLOCK = GPTVQ_PATH_BLOCK, COLUMNS = GPTVQ_PATH_COLUMNS, STATES = 256 };

template <bool WIDE> struct word { typedef uint16_t type; };
template <> struct word<true> { typedef uint32_t type; };

template <int K, int W> struct sizes {
  enum {
    SYMBOLS = 1 << K,
    PREFIXES = STATES >> K,
    PATHS = W * PREFIXES,
    SLOTS = (PREFIXES + GPTVQ_WARP - 1) / GPTVQ_WARP, /* prefixes of a lane */
    ROUNDS = (PATHS + GPTVQ_WARP - 1) / GPTVQ_WARP,   /* paths of a lane */
    TOGETHER = ROUNDS % 2 == 0 ? 2 : 1,               /* of these, in registers at a time */
    BITS = K + (W > 1) + (W > 2) /* of a way: rank of the path before, then the state's upper bits */
  };
};

/* Where a path stands in all arrays. Of 64 prefixes those that lead to 32 neighbours, and these, lie in
 * different banks of shared memory: a read takes 1.9 turns instead of 2.7, as two ranks share a bank. */
template <int K> GPTVQ_DEVICE unsigned place(unsigned rank, unsigned prefix) {
  const unsigned all = rank * (STATES >> K) + prefix, low = prefix >> 3 & 1;
  if (K != 2) return all;
  return (all & ~56u) | low << 5 | ((prefix >> 5 & 1) ^ low) << 4 | (prefix >> 4 & 1) << 3;
}

/* Paths by rank, the cheaper ones of a prefix first, and prefix: `place`. */
template <int K, int W> struct memory {
  enum { PATHS = sizes<K, W>::PATHS };
  float values[STATES];
  /* Errors of the block's columns up to the present one, then weights; of the next column; errors of the
   * block before: by turns. */
  float carried[3][BLOCK][PATHS];
  float best[PATHS];
  float u[2 * BLOCK][BLOCK]; /* from the block before and from this one, above the diagonal, to this one */
  float inverse[BLOCK], weight[BLOCK], scale[BLOCK], metric[BLOCK];
  float error[COLUMNS];
  typename word<(W > 2)>::type from[COLUMNS][GPTVQ_WARP]; /* ways of a lane's paths */
  /* Of this column and the next one: the path at the end of the block before that a path goes back to; of
   * this block and the next one: which of the tails that path has. */
  uint8_t root[2][PATHS], tail[2][PATHS];
  uint8_t given[PATHS], which[PATHS]; /* new tail of a root; root of a tail */
  uint8_t state[COLUMNS];
};

/* What a warp has to do with; now, next, errors: places in `carried`. */
template <int K, int W> struct row {
  memory<K, W> *m;
  const float *w;
  float *tails;
  uint64_t number;
  unsigned lane, now, next, errors;
  uint32_t book;
};

GPTVQ_DEVICE uint32_t book_of(const arguments &a, unsigned c) {
  return a.book_of == nullptr ? 0 : a.book_of[c];
}

/* What the columns of the block from c on have, and U. */
template <int K, int W> GPTVQ_DEVICE void load_block(const arguments &a, const row<K, W> &r, unsigned c) {
  memory<K, W> &m = *r.m;
  if (r.lane < BLOCK && c + r.lane < a.columns) {
    const unsigned at = c + r.lane;
    const float scale = gptvq_scale(a.scale, r.number, at), lookup = a.lookup[at];
    m.inverse[r.lane] = scale > 0.0f ? 1.0f / scale : 0.0f;
    m.weight[r.lane] = lookup * scale * lookup * scale;
    m.scale[r.lane] = scale;
    m.metric[r.lane] = a.metric[at];
  }
  for (unsigned i = r.lane; a.u != nullptr && i < 2 * BLOCK * BLOCK; i += GPTVQ_WARP) {
    const unsigned from = c + i / BLOCK, to = c + i % BLOCK; /* from: BLOCK too many */
    const bool there = from >= BLOCK && from - BLOCK < to && to < a.columns;
    m.u[i / BLOCK][i % BLOCK] = there ? a.u[(uint64_t)(from - BLOCK) * a.u_stride + to] : 0.0f;
  }
}

/* Of the paths that all present ones go back to the weights from column c on, compensated for the block
 * before the last one. */
template <int K, int W>
GPTVQ_DEVICE void make_tails(const arguments &a, const row<K, W> &r, unsigned c, unsigned turn) {
  enum { PATHS = sizes<K, W>::PATHS };
  memory<K, W> &m = *r.m;
  const float *old = r.tails + (turn ^ 1) * PATHS * COLUMNS;
  float *made = r.tails + turn * PATHS * COLUMNS;
  const uint8_t *root = m.root[c & 1];
  unsigned count = 0;
  for (unsigned i = r.lane; i < PATHS; i += GPTVQ_WARP) m.given[i] = 0;
  __syncwarp();
  for (unsigned i = r.lane; i < PATHS; i += GPTVQ_WARP) m.given[root[i]] = 1;
  __syncwarp();
  for (unsigned first = 0; first < PATHS; first += GPTVQ_WARP) {
    const unsigned i = first + r.lane;
    const bool is_root = i < PATHS && m.given[i] != 0;
    const unsigned votes = __ballot_sync(GPTVQ_ALL_LANES, is_root);
    const unsigned number = count + (unsigned)__popc(votes & ((1u << r.lane) - 1));
    if (is_root) {
      m.given[i] = (uint8_t)number;
      m.which[number] = (uint8_t)i;
    }
    count += (unsigned)__popc(votes);
  }
  __syncwarp();
  for (unsigned i = r.lane; i < PATHS; i += GPTVQ_WARP) m.tail[turn][i] = m.given[root[i]];
  for (unsigned column = c + r.lane; column < a.columns; column += GPTVQ_WARP) {
    float u[BLOCK];
    GPTVQ_UNROLL
    for (int s = 0; s < BLOCK; s++) u[s] = a.u[(uint64_t)(c - 2 * BLOCK + s) * a.u_stride + column];
    for (unsigned t = 0; t < count; t++) {
      const unsigned from = m.which[t];
      float sum = old[m.tail[turn ^ 1][from] * COLUMNS + column];
      GPTVQ_UNROLL
      for (int s = 0; s < BLOCK; s++) sum -= m.carried[r.errors][s][from] * u[s];
      made[t * COLUMNS + column] = sum;
    }
  }
}

/* All paths' weights of the block from c on, from their tails and their errors of the block before. */
template <int K, int W>
GPTVQ_DEVICE void feed_block(const arguments &a, const row<K, W> &r, unsigned c, unsigned turn) {
  enum { PATHS = sizes<K, W>::PATHS, ROUNDS = sizes<K, W>::ROUNDS, TOGETHER = sizes<K, W>::TOGETHER };
  memory<K, W> &m = *r.m;
  const float *tails = r.tails + turn * PATHS * COLUMNS + c;
  for (unsigned round = 0; round < ROUNDS; round += TOGETHER) {
    float sum[TOGETHER][BLOCK];
    GPTVQ_UNROLL
    for (int x = 0; x < TOGETHER; x++) {
      const unsigned i = (round + x) * GPTVQ_WARP + r.lane;
      const float *tail = i < PATHS ? tails + m.tail[turn][i] * COLUMNS : tails;
      GPTVQ_UNROLL
      for (int j = 0; j < BLOCK; j++) sum[x][j] = i < PATHS && c + j < a.columns ? tail[j] : 0.0f;
    }
    for (unsigned s = 0; s < BLOCK; s++) {
      float e[TOGETHER];
      GPTVQ_UNROLL
      for (int x = 0; x < TOGETHER; x++) {
        const unsigned i = (round + x) * GPTVQ_WARP + r.lane;
        e[x] = i < PATHS ? m.carried[r.now][s][i] : 0.0f;
      }
      GPTVQ_UNROLL
      for (int j = 0; j < BLOCK; j++) {
        const float u = m.u[s][j];
        GPTVQ_UNROLL
        for (int x = 0; x < TOGETHER; x++) sum[x][j] -= e[x] * u;
      }
    }
    GPTVQ_UNROLL
    for (int x = 0; x < TOGETHER; x++) {
      const unsigned i = (round + x) * GPTVQ_WARP + r.lane;
      if (i >= PATHS) continue;
      GPTVQ_UNROLL
      for (int j = 0; j < BLOCK; j++) m.carried[r.next][j][i] = sum[x][j];
    }
  }
}

template <int K, int W> GPTVQ_DEVICE void enter_block(const arguments &a, row<K, W> &r, unsigned c) {
  enum { PATHS = sizes<K, W>::PATHS };
  memory<K, W> &m = *r.m;
  const unsigned turn = c / BLOCK & 1;
  load_block<K, W>(a, r, c);
  if (c == 0 || a.u == nullptr) {
    for (unsigned i = r.lane; i < PATHS; i += GPTVQ_WARP)
      for (unsigned j = 0; j < BLOCK && c + j < a.columns; j++) m.carried[r.now][j][i] = r.w[c + j];
  } else {
    if (c == BLOCK) { /* no block before the last one */
      for (unsigned i = r.lane; i < PATHS; i += GPTVQ_WARP) m.tail[turn][i] = 0;
      for (unsigned i = c + r.lane; i < a.columns; i += GPTVQ_WARP)
        r.tails[turn * PATHS * COLUMNS + i] = r.w[i];
    } else {
      make_tails<K, W>(a, r, c, turn);
    }
    __syncwarp();
    feed_block<K, W>(a, r, c, turn);
    const unsigned before = r.errors;
    r.errors = r.now;
    r.now = r.next;
    r.next = before;
  }
  for (unsigned i = r.lane; i < PATHS; i += GPTVQ_WARP) m.root[c & 1][i] = (uint8_t)i;
  __syncwarp();
}

/* The values of the states of a column's group. */
template <int K, int W> GPTVQ_DEVICE void load_values(const arguments &a, row<K, W> &r, uint32_t book) {
  for (unsigned s = r.lane; s < STATES; s += GPTVQ_WARP) r.m->values[s] = a.books[book + s];
  r.book = book;
  __syncwarp();
}

/* The W cheapest ways to a prefix, in order; from: rank of the path before, then the state's upper bits. */
template <int K, int W>
GPTVQ_DEVICE void choose(const row<K, W> &r, unsigned j, unsigned prefix, float (&best)[W],
                         unsigned (&from)[W]) {
  enum { SYMBOLS = sizes<K, W>::SYMBOLS, PREFIXES = sizes<K, W>::PREFIXES };
  const memory<K, W> &m = *r.m;
  const float inverse = m.inverse[j], weight = m.weight[j], *now = m.carried[r.now][j];
  float values[SYMBOLS];
  GPTVQ_UNROLL
  for (int h = 0; h < SYMBOLS; h++) values[h] = m.values[h * PREFIXES + prefix];
  GPTVQ_UNROLL
  for (int rank = 0; rank < W; rank++) {
    best[rank] = GPTVQ_INFINITY;
    from[rank] = 0;
  }
  for (unsigned rank = 0; rank < W; rank++) GPTVQ_UNROLL
  for (int h = 0; h < SYMBOLS; h++) {
    const unsigned before = place<K>(rank, h * (PREFIXES >> K) + (prefix >> K));
    const float delta = now[before] * inverse - values[h];
    float carried = m.best[before] + delta * delta * weight;
    unsigned way = rank * SYMBOLS + h;
    GPTVQ_UNROLL
    for (int better = 0; better < W; better++) {
      const bool less = carried < best[better];
      const float other = best[better];
      const unsigned other_way = from[better];
      best[better] = less ? carried : other;
      from[better] = less ? way : other_way;
      carried = less ? other : carried;
      way = less ? other_way : way;
    }
  }
}

/* Errors and weights for the column behind c of the path to a prefix. */
template <int K, int W>
GPTVQ_DEVICE void go_on(const row<K, W> &r, unsigned c, unsigned path, unsigned prefix, unsigned way) {
  enum { SYMBOLS = sizes<K, W>::SYMBOLS, PREFIXES = sizes<K, W>::PREFIXES };
  memory<K, W> &m = *r.m;
  const unsigned j = c % BLOCK, state = way % SYMBOLS * PREFIXES + prefix,
                 before = place<K>(way / SYMBOLS, state >> K);
  const float e = (m.carried[r.now][j][before] - m.values[state] * m.scale[j]) * m.metric[j];
  GPTVQ_UNROLL
  for (int i = 0; i < BLOCK; i++)
    m.carried[r.next][i][path] = m.carried[r.now][i][before] - e * m.u[BLOCK + j][i];
  m.carried[r.next][j][path] = e;
  m.root[~c & 1][path] = m.root[c & 1][before];
}

template <int K, int W> GPTVQ_DEVICE void step(const arguments &a, row<K, W> &r, unsigned c) {
  enum { PREFIXES = sizes<K, W>::PREFIXES, SLOTS = sizes<K, W>::SLOTS, BITS = sizes<K, W>::BITS };
  memory<K, W> &m = *r.m;
  float best[SLOTS][W];
  unsigned from[SLOTS][W], packed = 0;
  const bool mine = r.lane < PREFIXES; /* of 16 prefixes half of the lanes have none */
  if (mine) GPTVQ_UNROLL
  for (int slot = 0; slot < SLOTS; slot++)
    choose<K, W>(r, c % BLOCK, slot * GPTVQ_WARP + r.lane, best[slot], from[slot]);
  __syncwarp(); /* what paths cost until here is no longer needed */
  if (mine) {
    GPTVQ_UNROLL
    for (int slot = 0; slot < SLOTS; slot++) GPTVQ_UNROLL
    for (int rank = 0; rank < W; rank++) {
      const unsigned prefix = slot * GPTVQ_WARP + r.lane, path = place<K>(rank, prefix);
      m.best[path] = best[slot][rank];
      packed |= from[slot][rank] << (slot * W + rank) * BITS;
      if (a.u != nullptr) go_on<K, W>(r, c, path, prefix, from[slot][rank]);
    }
    m.from[c][r.lane] = (typename word<(W > 2)>::type) packed;
  }
  __syncwarp();
  if (a.u == nullptr) return;
  const unsigned swap = r.now;
  r.now = r.next;
  r.next = swap;
}

/* The cheapest path that ends with the prefix `end`, or (STATES) with any; infinite: there is none. */
template <int K, int W> GPTVQ_DEVICE unsigned find_end(const row<K, W> &r, unsigned end, float *least) {
  enum { PREFIXES = sizes<K, W>::PREFIXES };
  float best = GPTVQ_INFINITY;
  unsigned at = STATES;
  for (unsigned p = r.lane; p < PREFIXES; p += GPTVQ_WARP)
    if ((end == STATES || p == end) && r.m->best[place<K>(0, p)] < best) {
      best = r.m->best[place<K>(0, p)];
      at = p;
    }
  gptvq_least(best, at);
  *least = best;
  return at;
}

/* States from the last one back; all lanes do the same. */
template <int K, int W> GPTVQ_DEVICE void trace_back(const arguments &a, const row<K, W> &r, unsigned last) {
  enum { SYMBOLS = sizes<K, W>::SYMBOLS, PREFIXES = sizes<K, W>::PREFIXES, BITS = sizes<K, W>::BITS };
  memory<K, W> &m = *r.m;
  for (unsigned c = a.columns; c-- > 0;) {
    const unsigned rank = last / PREFIXES, prefix = last % PREFIXES, packed = m.from[c][prefix % GPTVQ_WARP],
                   way = packed >> (prefix / GPTVQ_WARP * W + rank) * BITS & ((1u << BITS) - 1),
                   state = way % SYMBOLS * PREFIXES + prefix;
    if (r.lane == 0) m.state[c] = (uint8_t)state;
    last = way / SYMBOLS * PREFIXES + (state >> K);
  }
  __syncwarp();
}

/* Errors of the path that was found, in the same way as when it was; a lane has every 32nd column. */
template <int K, int W> GPTVQ_DEVICE void make_errors(const arguments &a, const row<K, W> &r) {
  enum { EACH = COLUMNS / GPTVQ_WARP };
  memory<K, W> &m = *r.m;
  float now[EACH], value[EACH], metric[EACH];
  GPTVQ_UNROLL
  for (int i = 0; i < EACH; i++) {
    const unsigned c = i * GPTVQ_WARP + r.lane;
    const bool there = c < a.columns;
    now[i] = there ? r.w[c] : 0.0f;
    value[i] = there ? a.books[book_of(a, c) + m.state[c]] * gptvq_scale(a.scale, r.number, c) : 0.0f;
    metric[i] = there ? a.metric[c] : 0.0f;
  }
  GPTVQ_UNROLL
  for (int i = 0; i < EACH; i++)
    for (unsigned from = 0; from < GPTVQ_WARP && i * GPTVQ_WARP + from < a.columns; from++) {
      const unsigned c = i * GPTVQ_WARP + from;
      const float e = __shfl_sync(GPTVQ_ALL_LANES, (now[i] - value[i]) * metric[i], from);
      if (r.lane == from) m.error[c] = e;
      GPTVQ_UNROLL
      for (int l = i; l < EACH; l++) {
        const unsigned to = l * GPTVQ_WARP + r.lane;
        if (to > c && to < a.columns) now[l] -= e * a.u[(uint64_t)c * a.u_stride + to];
      }
    }
  __syncwarp();
}

/* States, errors and loss of the row. */
template <int K, int W> GPTVQ_DEVICE void finish(const arguments &a, const row<K, W> &r, unsigned end) {
  memory<K, W> &m = *r.m;
  float least;
  const unsigned last = find_end<K, W>(r, end, &least);
  const bool found = least < GPTVQ_INFINITY,
             asked = a.u != nullptr && (a.error != nullptr || a.loss != nullptr);
  if (found) {
    trace_back<K, W>(a, r, last);
    if (asked) make_errors<K, W>(a, r);
  }
  for (unsigned c = r.lane; c < a.columns; c += GPTVQ_WARP) {
    a.state[r.number * a.state_stride + c] = found ? m.state[c] : 0;
    if (asked && a.error != nullptr) a.error[r.number * a.error_stride + c] = found ? m.error[c] : 0.0f;
  }
  if (asked && a.loss != nullptr && r.lane == 0) {
    double sum = found ? 0.0 : (double)GPTVQ_INFINITY;
    for (unsigned c = a.columns; found && c-- > 0;) sum += (double)m.error[c] * (double)m.error[c];
    a.loss[r.number] = sum;
  }
  __syncwarp();
}

template <int K, int W> GPTVQ_DEVICE void run(const arguments &a) {
  enum { PREFIXES = sizes<K, W>::PREFIXES, PATHS = sizes<K, W>::PATHS };
  static_assert(sizeof(memory<K, W>) == GPTVQ_PATH_SHARED(K, W), "what the host asks for");
  row<K, W> r;
  r.m = (memory<K, W> *)GPTVQ_DYNAMIC_SHARED();
  r.tails = a.tails + (uint64_t)blockIdx.x * 2 * PATHS * COLUMNS;
  r.lane = threadIdx.x;
  for (r.number = blockIdx.x; r.number < a.rows; r.number += gridDim.x) {
    const uint64_t bound = r.number * a.bound_stride;
    const unsigned start = a.before == nullptr ? 0 : a.before[bound] % PREFIXES,
                   end = a.last == nullptr ? STATES : a.last[bound] % PREFIXES;
    r.w = a.w + r.number * a.w_stride;
    r.now = 0;
    r.next = 1;
    r.errors = 2;
    for (unsigned i = r.lane; i < PATHS; i += GPTVQ_WARP)
      r.m->best[i] = i == place<K>(0, start) ? 0.0f : GPTVQ_INFINITY;
    load_values<K, W>(a, r, book_of(a, 0));
    for (unsigned c = 0; c < a.columns; c++) {
      if (c % BLOCK == 0) enter_block<K, W>(a, r, c);
      if (book_of(a, c) != r.book) load_values<K, W>(a, r, book_of(a, c));
      step<K, W>(a, r, c);
    }
    finish<K, W>(a, r, end);
  }
}

} // namespace gptvq_path

/* as many blocks as have room in shared memory with k = 2, W = 2 */
#define GPTVQ_PATH(k, w) \
  GPTVQ_KERNEL_BLOCKS(path_##k##_##w, 32, 9) { gptvq_path::run<k, w>(a); }
GPTVQ_PATH(2, 1)
GPTVQ_PATH(2, 2)
GPTVQ_PATH(2, 3)
GPTVQ_PATH(2, 4)
GPTVQ_PATH(3, 1)
GPTVQ_PATH(3, 2)
GPTVQ_PATH(3, 3)
GPTVQ_PATH(3, 4)
GPTVQ_PATH(4, 1)
GPTVQ_PATH(4, 2)
GPTVQ_PATH(4, 3)
GPTVQ_PATH(4, 4)
#undef GPTVQ_PATH
