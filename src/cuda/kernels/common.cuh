/* cuda/kernels/common.cuh: what every kernel begins with. Kernels are written in what CUDA C++ and C++ have
 * in common and compiled twice: by nvcc for cards, and by the host's compiler against cuda/shim/cuda.h.
 * Without contraction to fused multiply-adds on either side, so that the same operations in the same order
 * give the bits of the CPU's functions. */
#ifndef GPTVQ_CUDA_KERNELS_COMMON_CUH
#define GPTVQ_CUDA_KERNELS_COMMON_CUH

#include "cuda/kernels.h"

#ifdef __CUDACC__
#define GPTVQ_DEVICE static __device__ __forceinline__
/* A block's array in static shared memory. */
#define GPTVQ_SHARED(type, name, count) __shared__ type name[count]
extern __shared__ double2 gptvq_dynamic_shared[]; /* 16-byte aligned */
#define GPTVQ_DYNAMIC_SHARED() ((void *)gptvq_dynamic_shared)
#define GPTVQ_INFINITY __int_as_float(0x7f800000)
#define GPTVQ_UNROLL _Pragma("unroll")
#else
#include "cuda/shim/cuda.h"
#define GPTVQ_DEVICE static inline
#define GPTVQ_INFINITY INFINITY
#define GPTVQ_UNROLL
#endif

/* The definition of a kernel, whose arguments are `a`; threads: of a block at most; blocks: that a processor
 * is to have at work at a time, for which the compiler saves registers. */
#define GPTVQ_KERNEL_BLOCKS(name, threads, blocks) \
  extern "C" __global__ void __launch_bounds__(threads, blocks) \
      gptvq_kernel_##name(const gptvq_kernel_##name##_arguments a)
#define GPTVQ_KERNEL(name, threads) GPTVQ_KERNEL_BLOCKS(name, threads, 1)

enum { GPTVQ_WARP = 32 };
#define GPTVQ_ALL_LANES 0xffffffffu

/* The least value of a warp's lanes and what came with it, the lowest of equal ones; to all lanes. */
GPTVQ_DEVICE void gptvq_least(float &value, unsigned &at) {
  for (unsigned with = GPTVQ_WARP / 2; with > 0; with /= 2) {
    const float other = __shfl_xor_sync(GPTVQ_ALL_LANES, value, with);
    const unsigned other_at = __shfl_xor_sync(GPTVQ_ALL_LANES, at, with);
    if (other < value || (other == value && other_at < at)) {
      value = other;
      at = other_at;
    }
  }
}

GPTVQ_DEVICE float gptvq_scale(const gptvq_kernel_scales &s, uint64_t row, unsigned b) {
  return s.value == nullptr ? 1.0f : s.value[row * s.stride + s.of[b]];
}

/* out[j] = Σ_{i <= j} v[i] t[i][j], in the CPU's order */
template <int D> GPTVQ_DEVICE void gptvq_times_upper(const float *t, const float *v, float *out) {
  GPTVQ_UNROLL
  for (int j = 0; j < D; j++) {
    float sum = v[0] * t[j];
    GPTVQ_UNROLL
    for (int i = 1; i <= j; i++) sum += v[i] * t[i * D + j];
    out[j] = sum;
  }
}

#endif
