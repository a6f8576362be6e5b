/* Dense rows with NEON: conversions, and one row at a time with four fp32 accumulators of 4 lanes. Tails pass
 * through a zero-padded copy. */
#include "kernels/arm/arm.h"

#include <arm_neon.h>
#include <string.h>

static inline float32x4_t load_f32(const char *p) {
  return vreinterpretq_f32_u8(vld1q_u8((const uint8_t *)p)); /* bytes: mapped files align nothing */
}
static inline float32x4_t load_f16(const char *p) {
  return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8((const uint8_t *)p)));
}
static inline float32x4_t load_bf16(const char *p) {
  return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8((const uint8_t *)p)), 16));
}
static inline float32x4_t load_i8(const char *p) {
  uint32_t word;
  memcpy(&word, p, 4);
  return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(word))))));
}

#define PART(type, size) \
  static inline float32x4_t part_##type(const char *p, size_t n) { \
    char padded[4 * size] = {0}; \
    memcpy(padded, p, n *size); \
    return load_##type(padded); \
  }
#define CONVERT(type, size) \
  static void to_float_##type(const void *in, size_t n, float *out) { \
    const char *p = in; \
    size_t i = 0; \
    for (; i + 4 <= n; i += 4) vst1q_f32(out + i, load_##type(p + i * size)); \
    if (i < n) { \
      float last[4]; \
      vst1q_f32(last, part_##type(p + i * size, n - i)); \
      memcpy(out + i, last, (n - i) * sizeof *out); \
    } \
  }
#define MATVEC(type, size) \
  static void matvec_##type(const void *weights, size_t rows, size_t cols, const float *x, float *y) { \
    const char *w = weights; \
    for (size_t row = 0; row < rows; row++, w += cols * size) { \
      float32x4_t a = vdupq_n_f32(0), b = a, c = a, d = a; \
      size_t i = 0; \
      for (; i + 16 <= cols; i += 16) { \
        a = vfmaq_f32(a, load_##type(w + i * size), vld1q_f32(x + i)); \
        b = vfmaq_f32(b, load_##type(w + (i + 4) * size), vld1q_f32(x + i + 4)); \
        c = vfmaq_f32(c, load_##type(w + (i + 8) * size), vld1q_f32(x + i + 8)); \
        d = vfmaq_f32(d, load_##type(w + (i + 12) * size), vld1q_f32(x + i + 12)); \
      } \
      for (; i + 4 <= cols; i += 4) a = vfmaq_f32(a, load_##type(w + i * size), vld1q_f32(x + i)); \
      if (i < cols) \
        b = vfmaq_f32(b, part_##type(w + i * size, cols - i), part_f32((const char *)(x + i), cols - i)); \
      y[row] = vaddvq_f32(vaddq_f32(vaddq_f32(a, b), vaddq_f32(c, d))); \
    } \
  }

PART(f32, 4)
PART(f16, 2)
PART(bf16, 2)
PART(i8, 1)
CONVERT(f32, 4)
CONVERT(f16, 2)
CONVERT(bf16, 2)
MATVEC(f32, 4)
MATVEC(f16, 2)
MATVEC(bf16, 2)
MATVEC(i8, 1)

void gptvq_kernels_init_dense_neon(gptvq_kernel_table *table) {
  table->to_float[GPTVQ_F32] = to_float_f32;
  table->to_float[GPTVQ_F16] = to_float_f16;
  table->to_float[GPTVQ_BF16] = to_float_bf16;
  table->dense_matvec[GPTVQ_F32] = matvec_f32;
  table->dense_matvec[GPTVQ_F16] = matvec_f16;
  table->dense_matvec[GPTVQ_BF16] = matvec_bf16;
  table->codes_matvec = matvec_i8;
}
