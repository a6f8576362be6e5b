/* Softmax attention. A block has ROWS tokens of one query head and meets as many keys at a time: their scores
 * as a product of tiles, a running softmax, the product with the values. Of 16 × 16 threads each has 4 rows,
 * 4 keys and COLS values of the output, all 16 apart, so that neighbours read neighbours. */
#include "cuda/kernels/exponential.cuh"

template <int COLS> struct gptvq_attend_tile {
  enum {
    ROWS = GPTVQ_ATTEND_ROWS,
    SIDE = 16,
    EACH = ROWS / SIDE,
    DIM = SIDE * COLS,
    LD = DIM + 1,
    LDP = ROWS + 1
  };
};

/* to[ROWS × LD] = `rows` rows of `dim` values, zeros beside and below them */
template <int COLS>
GPTVQ_DEVICE void gptvq_attend_load(const float *from, uint64_t stride, uint64_t rows, uint32_t dim,
                                    float *to) {
  typedef gptvq_attend_tile<COLS> tile;
  for (unsigned i = threadIdx.x; i < tile::ROWS * tile::DIM; i += GPTVQ_ATTEND_THREADS) {
    const unsigned r = i / tile::DIM, c = i % tile::DIM;
    to[r * tile::LD + c] = r < rows && c < dim ? from[r * stride + c] : 0.0f;
  }
}

/* Of one row's scores with this thread's keys: weights relative to the running maximum, what is there already
 * is brought down to it. The row's 16 lanes agree on all. */
template <int COLS>
GPTVQ_DEVICE void gptvq_attend_soften(float (&score)[4], float &top, float &sum, float (&out)[COLS]) {
  float next = top, part = 0.0f;
  GPTVQ_UNROLL
  for (int j = 0; j < 4; j++) next = score[j] > next ? score[j] : next;
  for (unsigned by = 8; by > 0; by /= 2) {
    const float other = __shfl_xor_sync(GPTVQ_ALL_LANES, next, by);
    next = other > next ? other : next;
  }
  const float shrink = top == next ? 1.0f : gptvq_exponential(top - next);
  GPTVQ_UNROLL
  for (int j = 0; j < 4; j++) {
    score[j] = score[j] == -GPTVQ_INFINITY ? 0.0f : gptvq_exponential(score[j] - next);
    part += score[j];
  }
  for (unsigned by = 8; by > 0; by /= 2) part += __shfl_xor_sync(GPTVQ_ALL_LANES, part, by);
  top = next;
  sum = sum * shrink + part;
  GPTVQ_UNROLL
  for (int c = 0; c < COLS; c++) out[c] *= shrink;
}

template <int COLS> GPTVQ_DEVICE void gptvq_attend_rows(const gptvq_kernel_attend_arguments &a) {
  typedef gptvq_attend_tile<COLS> tile;
  float *q = (float *)GPTVQ_DYNAMIC_SHARED(), *kv = q + tile::ROWS * tile::LD,
        *p = kv + tile::ROWS * tile::LD;
  const unsigned tx = threadIdx.x % tile::SIDE, ty = threadIdx.x / tile::SIDE, head = blockIdx.y,
                 kv_head = head / (a.heads / a.kv_heads);
  const uint64_t row0 = (uint64_t)(gridDim.x - 1 - blockIdx.x) * tile::ROWS, /* the longest come first */
      end = row0 + tile::ROWS < a.n ? row0 + tile::ROWS : a.n;
  const float *keys = a.qkv + (uint64_t)(a.heads + kv_head) * a.dim,
              *values = keys + (uint64_t)a.kv_heads * a.dim;
  float out[4][COLS], top[4], sum[4];
  GPTVQ_UNROLL
  for (int i = 0; i < 4; i++) {
    top[i] = -GPTVQ_INFINITY;
    sum[i] = 0.0f;
    GPTVQ_UNROLL
    for (int c = 0; c < COLS; c++) out[i][c] = 0.0f;
  }
  gptvq_attend_load<COLS>(a.qkv + row0 * a.stride + (uint64_t)head * a.dim, a.stride, end - row0, a.dim, q);
  for (uint64_t k0 = row0 + 1 > a.window ? row0 + 1 - a.window : 0; k0 < end; k0 += tile::ROWS) {
    const uint64_t count = end - k0 < tile::ROWS ? end - k0 : (uint64_t)tile::ROWS;
    float score[4][4] = {};
    __syncthreads(); /* nobody reads the last tile any more */
    gptvq_attend_load<COLS>(keys + k0 * a.stride, a.stride, count, a.dim, kv);
    __syncthreads();
    for (unsigned d = 0; d < a.dim; d++) {
      float query[4], key[4];
      GPTVQ_UNROLL
      for (int i = 0; i < 4; i++) {
        query[i] = q[(ty + 16 * i) * tile::LD + d];
        key[i] = kv[(tx + 16 * i) * tile::LD + d];
      }
      GPTVQ_UNROLL
      for (int i = 0; i < 4; i++) {
        GPTVQ_UNROLL
        for (int j = 0; j < 4; j++) score[i][j] = fmaf(query[i], key[j], score[i][j]);
      }
    }
    GPTVQ_UNROLL
    for (int i = 0; i < 4; i++) {
      const uint64_t row = row0 + ty + 16 * i;
      GPTVQ_UNROLL
      for (int j = 0; j < 4; j++) {
        const uint64_t key = k0 + tx + 16 * j;
        score[i][j] = key <= row && row - key < a.window ? score[i][j] * a.scale : -GPTVQ_INFINITY;
      }
      gptvq_attend_soften<COLS>(score[i], top[i], sum[i], out[i]);
      GPTVQ_UNROLL
      for (int j = 0; j < 4; j++) p[(ty + 16 * i) * tile::LDP + tx + 16 * j] = score[i][j];
    }
    __syncthreads();
    gptvq_attend_load<COLS>(values + k0 * a.stride, a.stride, count, a.dim, kv);
    __syncthreads();
    for (unsigned key = 0; key < (unsigned)count; key++) {
      float weight[4];
      GPTVQ_UNROLL
      for (int i = 0; i < 4; i++) weight[i] = p[(ty + 16 * i) * tile::LDP + key];
      GPTVQ_UNROLL
      for (int c = 0; c < COLS; c++) {
        const float value = kv[key * tile::LD + tx + 16 * c];
        GPTVQ_UNROLL
        for (int i = 0; i < 4; i++) out[i][c] = fmaf(weight[i], value, out[i][c]);
      }
    }
  }
  GPTVQ_UNROLL
  for (int i = 0; i < 4; i++) {
    const uint64_t row = row0 + ty + 16 * i;
    float *to = a.out + (row * a.heads + head) * a.dim;
    GPTVQ_UNROLL
    for (int c = 0; c < COLS; c++)
      if (row < end && tx + 16 * c < a.dim) to[tx + 16 * c] = out[i][c] / sum[i];
  }
}

GPTVQ_KERNEL(attend, GPTVQ_ATTEND_THREADS) {
  if (a.dim <= 64) gptvq_attend_rows<4>(a);
  else gptvq_attend_rows<8>(a);
}
