/* kernels/rows.h: the fp32 path over packed rows for every CPU level but ref. Shapes that it does not cover
 * (very wide column groups, large fp16 codebooks) go to the scalar kernels. Signatures as in kernels.h. */
#ifndef GPTVQ_KERNELS_ROWS_H
#define GPTVQ_KERNELS_ROWS_H

#include "kernels/table.h"

void gptvq_rows_decode(const gptvq_packed *packed, size_t begin, size_t end, float *out, size_t stride);
void gptvq_rows_matvec(const gptvq_packed *packed, size_t begin, size_t end, const float *x, float *y);

#endif
