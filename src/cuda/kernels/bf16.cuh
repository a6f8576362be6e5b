#ifndef GPTVQ_CUDA_KERNELS_BF16_CUH
#define GPTVQ_CUDA_KERNELS_BF16_CUH

#include "cuda/kernels/common.cuh"

/* The bits of an fp32 number rounded to bf16, to nearest even; NaN stays NaN. */
GPTVQ_DEVICE uint32_t gptvq_round_bits(uint32_t x) {
  const bool nan = (x & 0x7fffffffu) > 0x7f800000u;
  return (nan ? x | 0x00400000u : x + 0x7fffu + (x >> 16 & 1u)) & 0xffff0000u;
}

#endif
