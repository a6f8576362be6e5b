/* kernels/gemm_decode.h: rows of packed layers as int8 codes and scales, as the products with many tokens
 * take them. */
#ifndef GPTVQ_KERNELS_GEMM_DECODE_H
#define GPTVQ_KERNELS_GEMM_DECODE_H

#include "format/packed.h"

enum { GPTVQ_GEMM_ROWS = 32 }; /* decoded at once */

/* Columns are cut into segments: a block of scale_block columns that shares a scale, or a whole column group.
 * Inputs are scaled by groups, each of whole segments. */
typedef struct gptvq_gemm_columns {
  size_t segment, segments, last; /* columns of a segment; of the last one */
  size_t group;                   /* columns of activations that share a scale */
  size_t stride;                  /* bytes of a decoded row, a multiple of 64: at least cols + 64 */
} gptvq_gemm_columns;

/* Do decoded weights fit int8? Codes of 8 bits less a zero point do not. */
bool gptvq_gemm_fits(const gptvq_packed_shape *shape);
gptvq_gemm_columns gptvq_gemm_cut(const gptvq_packed_shape *shape);

/* Rows [first, last), at most GPTVQ_GEMM_ROWS, to codes[GPTVQ_GEMM_ROWS][stride] (of uniform layers: code −
 * zero point; undefined from column cols on) and scales[segments][GPTVQ_GEMM_ROWS]. Rows from last − first on
 * are zero. */
void gptvq_gemm_decode(const gptvq_packed *packed, const gptvq_gemm_columns *columns,
                       const float block_table[16], size_t first, size_t last, int8_t *codes, float *scales);

#endif
