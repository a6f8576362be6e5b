/* Trellis rows for every Armv8-A: widening multiplications and pairwise additions. */
#include <arm_neon.h>

static inline int32x4_t dot4(int32x4_t sum, int8x16_t a, int8x16_t b) {
  int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)));
  int32x4_t high = vpaddlq_s16(vmull_high_s8(a, b));
  return vaddq_s32(sum, vpaddq_s32(low, high));
}

#include "kernels/arm/trellis_template.h"

GPTVQ_TRELLIS_CODES()

void gptvq_kernels_init_trellis_neon(gptvq_kernel_table *table) {
  table->trellis_rows = trellis_rows;
  table->trellis_codes = trellis_codes;
}
