/* base/half.h: scalar conversions between fp32 and the 16-bit formats (round to nearest even; NaN stays NaN).
 */
#ifndef GPTVQ_BASE_HALF_H
#define GPTVQ_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t gptvq_float_bits(float x) {
  uint32_t u;
  memcpy(&u, &x, 4);
  return u;
}
static inline float gptvq_bits_float(uint32_t u) {
  float x;
  memcpy(&x, &u, 4);
  return x;
}

static inline float gptvq_bf16_to_float(uint16_t h) { return gptvq_bits_float((uint32_t)h << 16); }
static inline uint16_t gptvq_float_to_bf16(float x) {
  uint32_t u = gptvq_float_bits(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40u); /* quiet NaN */
  return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

static inline float gptvq_fp16_to_float(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000u) << 16, magnitude = h & 0x7fffu;
  if (magnitude >= 0x7c00u) return gptvq_bits_float(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  /* scaling by 2^112 turns the 5-bit exponent into an 8-bit one, subnormals included */
  return gptvq_bits_float(sign | gptvq_float_bits(gptvq_bits_float(magnitude << 13) * 0x1p112f));
}
static inline uint16_t gptvq_float_to_fp16(float x) {
  uint32_t u = gptvq_float_bits(x), sign = (u >> 16) & 0x8000u;
  u &= 0x7fffffffu;
  if (u > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
  if (u >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* >= 65520 rounds to infinity */
  if (u < 0x38800000u) { /* below 2^-14: subnormal; adding 0.5 aligns and rounds */
    return (uint16_t)(sign | (gptvq_float_bits(gptvq_bits_float(u) + 0.5f) - 0x3f000000u));
  }
  return (uint16_t)(sign | ((u - 0x38000000u + 0xfffu + ((u >> 13) & 1u)) >> 13));
}
#endif
