/* Trellis rows for every Armv8-A: widening multiplications and pairwise additions. */
#include <arm_neon.h>

static inline int32x4_t dot4(int32x4_t sum, int8x16_t a, int8x16_t b) {
  int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)));
  int32x4_t high = vpaddlq_s16(vmull_high_s8(a, b));
  return vaddq_s32(sum, vpaddq_s32(low, high));
}

#include "kernels/arm/trellis_template.h"

#define CODES_OF(k, bits) \
  static void codes_##k##_##bits(const uint8_t *stream, size_t begin, size_t count, const int8_t *values, \
                                 int8_t *codes) { \
    row_codes(stream, k, bits, begin, count, values, codes); \
  }
SHAPES(CODES_OF)
#define CODES_ENTRY(k, bits) [k - 2][bits - 6] = codes_##k##_##bits,
static void trellis_codes(const uint8_t *stream, unsigned index_bits, unsigned state_bits, size_t begin,
                          size_t count, const int8_t *values, int8_t *codes) {
  static void (*const functions[3][3])(const uint8_t *, size_t, size_t, const int8_t *,
                                       int8_t *) = {SHAPES(CODES_ENTRY)};
  functions[index_bits - 2][state_bits - 6](stream, begin, count, values, codes);
}

void gptvq_kernels_init_trellis_neon(gptvq_kernel_table *table) {
  table->trellis_rows = trellis_rows;
  table->trellis_codes = trellis_codes;
}
