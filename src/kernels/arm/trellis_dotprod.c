/* Trellis rows with SDOT (Armv8.2). */
#include <arm_neon.h>

static inline int32x4_t dot4(int32x4_t sum, int8x16_t a, int8x16_t b) { return vdotq_s32(sum, a, b); }

#include "kernels/arm/trellis_template.h"

void gptvq_kernels_init_trellis_dotprod(gptvq_kernel_table *table) { table->trellis_rows = trellis_rows; }
