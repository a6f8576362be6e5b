/* What stands between the products of a forward pass: norms, sums, gates, rotations, rounded inputs. */
#include "cuda/kernels/bf16.cuh"
#include "cuda/kernels/exponential.cuh"

/* A vector is 16 lanes' work, as it is 16 sums on the CPU; vectors that are not there are worked on, too, as
 * a warp stays whole. */
GPTVQ_KERNEL(norm_rows, GPTVQ_ROWS_THREADS) {
  const uint64_t vectors = a.rows * a.parts, each = blockDim.x / 16,
                 rounds = (vectors + each * gridDim.x - 1) / (each * gridDim.x);
  const unsigned lane = threadIdx.x % 16;
  for (uint64_t round = 0; round < rounds; round++) {
    const uint64_t vector = (round * gridDim.x + blockIdx.x) * each + threadIdx.x / 16;
    const bool there = vector < vectors;
    const uint64_t row = there ? vector / a.parts : 0, part = there ? vector % a.parts : 0;
    const float *x = a.x + row * a.x_stride + part * a.size;
    float *y = a.y + row * a.y_stride + part * a.size, squares = 0.0f;
    for (uint64_t i = lane; i < a.size; i += 16) squares += a.gain != nullptr ? x[i] * x[i] : 0.0f * x[i];
    for (unsigned by = 8; by > 0; by /= 2) squares += __shfl_xor_sync(GPTVQ_ALL_LANES, squares, by);
    const bool fine = squares - squares == 0.0f;
    if (!there) continue;
    if (!fine && lane == 0) *a.bad = 1;
    const float scale = fine ? 1.0f / sqrtf(squares / (float)a.size + a.eps) : __uint_as_float(0x7fc00000u);
    for (uint64_t i = lane; i < a.size; i += 16) y[i] = a.gain != nullptr ? x[i] * scale * a.gain[i] : x[i];
  }
}

/* The others: blocks x over columns, one a thread; y over rows, strided. */
GPTVQ_DEVICE uint64_t gptvq_column() { return (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; }

GPTVQ_KERNEL(add_rows, GPTVQ_ROWS_THREADS) {
  const uint64_t c = gptvq_column();
  for (uint64_t row = blockIdx.y; c < a.cols && row < a.rows; row += gridDim.y)
    a.y[row * a.y_stride + c] += a.scale * a.x[row * a.x_stride + c];
}

GPTVQ_KERNEL(gate_rows, GPTVQ_ROWS_THREADS) {
  const uint64_t c = gptvq_column();
  for (uint64_t row = blockIdx.y; c < a.cols && row < a.rows; row += gridDim.y) {
    float *gate = a.wide + row * 2 * a.cols + c;
    *gate = *gate / (1.0f + gptvq_exponential(-*gate)) * gate[a.cols];
  }
}

GPTVQ_KERNEL(rotate_rows, GPTVQ_ROWS_THREADS) {
  const uint64_t c = gptvq_column();
  const uint32_t head = (uint32_t)(c / a.half), i = (uint32_t)(c % a.half);
  const uint32_t first = head * a.dim + (a.neighbours ? 2 * i : i),
                 second = first + (a.neighbours ? 1 : a.half);
  for (uint64_t row = blockIdx.y; head < a.heads && row < a.rows; row += gridDim.y) {
    const float cosine = a.cosines[row * a.half + i], sine = a.sines[row * a.half + i];
    float *values = a.x + row * a.stride;
    const float x = values[first], y = values[second];
    values[first] = x * cosine - y * sine;
    values[second] = y * cosine + x * sine;
  }
}

GPTVQ_KERNEL(rows_to_bf16, GPTVQ_ROWS_THREADS) {
  const uint64_t c = gptvq_column();
  for (uint64_t row = blockIdx.y; c < a.cols && row < a.rows; row += gridDim.y)
    a.bits[row * a.cols + c] = (uint16_t)(gptvq_round_bits(__float_as_uint(a.x[row * a.x_stride + c])) >> 16);
}
