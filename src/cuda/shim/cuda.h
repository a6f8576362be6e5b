/* cuda/shim/cuda.h: the part of CUDA C++ that the kernels use, on the host. A block's threads are fibers
 * (fiber.h) of one thread of the host; each runs until it has to wait for others.
 *
 * Shared memory is one allocation per array, filled with the bytes of a NaN before each block. All 32 lanes
 * of a warp take part in each exchange, as the mask says on the device. */
#ifndef GPTVQ_CUDA_SHIM_CUDA_H
#define GPTVQ_CUDA_SHIM_CUDA_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define __global__
#define __launch_bounds__(threads, blocks)
#define __restrict__ __restrict

struct gptvq_shim_index {
  unsigned x, y;
};

extern "C" {
struct gptvq_shim_place { /* of the fiber that runs */
  gptvq_shim_index thread, block, block_size, grid;
};
extern thread_local gptvq_shim_place gptvq_shim_here;
void gptvq_shim_barrier(const char *file, int line);
/* Gives `value` to the warp's other lanes; what all 32 gave, valid until this lane's next but one exchange.
 */
const uint64_t *gptvq_shim_exchange(unsigned mask, uint64_t value, const char *file, int line);
void *gptvq_shim_dynamic();
/* The block's array for the place in the source that `key` stands for. */
void *gptvq_shim_static(const void *key, size_t bytes);
}

#define threadIdx (gptvq_shim_here.thread)
#define blockIdx (gptvq_shim_here.block)
#define blockDim (gptvq_shim_here.block_size)
#define gridDim (gptvq_shim_here.grid)

#define __syncthreads() gptvq_shim_barrier(__FILE__, __LINE__)
#define __syncwarp() ((void)gptvq_shim_exchange(~0u, 0, __FILE__, __LINE__))
#define __shfl_sync(mask, value, lane) gptvq_shim_shuffle(mask, value, lane, __FILE__, __LINE__)
#define __shfl_up_sync(mask, value, by) gptvq_shim_shuffle_up(mask, value, by, __FILE__, __LINE__)
#define __shfl_down_sync(mask, value, by) gptvq_shim_shuffle_down(mask, value, by, __FILE__, __LINE__)
#define __shfl_xor_sync(mask, value, with) gptvq_shim_shuffle_xor(mask, value, with, __FILE__, __LINE__)
#define __ballot_sync(mask, predicate) gptvq_shim_ballot(mask, predicate, __FILE__, __LINE__)
#define __any_sync(mask, predicate) (gptvq_shim_ballot(mask, predicate, __FILE__, __LINE__) != 0)
#define __all_sync(mask, predicate) (gptvq_shim_ballot(mask, predicate, __FILE__, __LINE__) == ~0u)

template <typename T> static inline uint64_t gptvq_shim_bits(T value) {
  static_assert(sizeof(T) <= 8, "a register or two");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  return bits;
}
template <typename T> static inline T gptvq_shim_value(uint64_t bits) {
  T value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
template <typename T>
static inline T gptvq_shim_shuffle(unsigned mask, T value, unsigned lane, const char *file, int line) {
  return gptvq_shim_value<T>(gptvq_shim_exchange(mask, gptvq_shim_bits(value), file, line)[lane % 32]);
}
template <typename T>
static inline T gptvq_shim_shuffle_up(unsigned mask, T value, unsigned by, const char *file, int line) {
  const unsigned lane = threadIdx.x % 32;
  return gptvq_shim_shuffle(mask, value, lane < by ? lane : lane - by, file, line);
}
template <typename T>
static inline T gptvq_shim_shuffle_down(unsigned mask, T value, unsigned by, const char *file, int line) {
  const unsigned lane = threadIdx.x % 32;
  return gptvq_shim_shuffle(mask, value, lane + by > 31 ? lane : lane + by, file, line);
}
template <typename T>
static inline T gptvq_shim_shuffle_xor(unsigned mask, T value, unsigned with, const char *file, int line) {
  return gptvq_shim_shuffle(mask, value, threadIdx.x % 32 ^ with, file, line);
}
static inline unsigned gptvq_shim_ballot(unsigned mask, bool predicate, const char *file, int line) {
  const uint64_t *all = gptvq_shim_exchange(mask, predicate, file, line);
  unsigned votes = 0;
  for (unsigned lane = 0; lane < 32; lane++) votes |= (unsigned)all[lane] << lane;
  return votes;
}

static inline unsigned __float_as_uint(float x) { return (unsigned)gptvq_shim_bits(x); }
static inline float __uint_as_float(unsigned x) { return gptvq_shim_value<float>(x); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __ffs(unsigned x) { return __builtin_ffs((int)x); }

/* GPTVQ_SHARED(type, name, count): a block's array in static shared memory. */
#define GPTVQ_SHARED(type, name, count) \
  static const char gptvq_shim_key_##name = 0; \
  type(&name)[count] = *(type(*)[count])gptvq_shim_static(&gptvq_shim_key_##name, sizeof(type[count]))
#define GPTVQ_DYNAMIC_SHARED() gptvq_shim_dynamic()

#endif
