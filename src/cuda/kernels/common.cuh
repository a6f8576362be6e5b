/* cuda/kernels/common.cuh: what every kernel begins with. Kernels are written in what CUDA C++ and C++ have
 * in common and compiled twice: by nvcc for cards, and by the host's compiler against cuda/shim/cuda.h.
 * Without contraction to fused multiply-adds on either side, so that the same operations in the same order
 * give the bits of the CPU's functions. */
#ifndef GPTVQ_CUDA_KERNELS_COMMON_CUH
#define GPTVQ_CUDA_KERNELS_COMMON_CUH

#include "cuda/kernels.h"

#ifdef __CUDACC__
#define GPTVQ_SHARED(type, name, count) __shared__ type name[count]
extern __shared__ double2 gptvq_dynamic_shared[]; /* 16-byte aligned */
#define GPTVQ_DYNAMIC_SHARED() ((void *)gptvq_dynamic_shared)
#define GPTVQ_INFINITY __int_as_float(0x7f800000)
#else
#include "cuda/shim/cuda.h"
#define GPTVQ_INFINITY INFINITY
#endif

/* The definition of a kernel: its arguments are `a`. threads: of a block at most. */
#define GPTVQ_KERNEL(name, threads) \
  extern "C" __global__ void __launch_bounds__(threads) \
      gptvq_kernel_##name(const gptvq_kernel_##name##_arguments a)

#define GPTVQ_ALL_LANES 0xffffffffu

#endif
