/* kernels/rows.h: the fp32 path over packed rows for every CPU level but ref. Shapes that it does not cover
 * (very wide column groups, large fp16 codebooks) go to the scalar kernels. */
#ifndef GPTVQ_KERNELS_ROWS_H
#define GPTVQ_KERNELS_ROWS_H

#include "kernels/table.h"

void gptvq_kernels_init_rows(gptvq_kernel_table *table);

#endif
