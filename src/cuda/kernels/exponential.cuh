#ifndef GPTVQ_CUDA_KERNELS_EXPONENTIAL_CUH
#define GPTVQ_CUDA_KERNELS_EXPONENTIAL_CUH

#include "cuda/kernels/common.cuh"

/* As exponential of model/layer/multi/vector.c, the same bits; NaN stays NaN. */
GPTVQ_DEVICE float gptvq_exponential(float x) {
  const float magic = 12582912.0f;
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  const float shifted = x * 1.44269504f + magic, k = shifted - magic;
  const float r = (x - k * 0.693359375f) - k * -2.12194440e-4f;
  float p = 1.0f / 5040.0f;
  p = p * r + 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * r * r + r + 1.0f;
  return p * __uint_as_float((__float_as_uint(shifted) - __float_as_uint(magic) + 127u) << 23);
}

#endif
