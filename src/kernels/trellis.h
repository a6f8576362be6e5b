/* kernels/trellis.h: trellis layers times int8 activations (docs/KERNELS.md, "Trellis rows").
 *
 * Prepared inputs are those of vectors of n = 4, 1, 2 columns with k = 2, 3, 4 bits per weight (i8.h): of a
 * group, whose columns are filled up to whole sets of 64 n, byte e·plane + i is column n·i + e, plane =
 * 64 · sets. So bytes of the stream, with 3 bits twelve of its bits, are what a byte, with 3 bits a dword, of
 * each of the n planes belongs to. A group adds to the 16 fp32 sums of a row sum(L) = fma(Σ over sets s,
 * planes e and b = 0 … 3 of w · q of index 64s + 4L + b, ((table scale / 127) · activation scale) · row
 * scale, sum(L)), groups ascending; y = the sums folded as in i8.h. */
#ifndef GPTVQ_KERNELS_TRELLIS_H
#define GPTVQ_KERNELS_TRELLIS_H

#include "kernels/i8.h"

/* n */
static inline size_t gptvq_trellis_planes(unsigned index_bits) {
  return index_bits == 3 ? 1 : 8 / index_bits;
}

/* Some rows of a layer times the activations of at most GPTVQ_I8_MAX_TOKENS tokens. */
typedef struct gptvq_trellis_rows {
  unsigned index_bits;
  size_t rows, row_bytes;
  const uint8_t *streams; /* rows × row_bytes */
  const uint8_t *end;     /* of the layer's streams: up to here may be read */
  size_t groups, width, last_width;
  const int8_t *tables;         /* [groups][GPTVQ_TRELLIS_TABLE] */
  const uint16_t *table_scales; /* [groups] bf16 */
  const uint8_t *row_scales;    /* [rows][groups] */
  size_t tokens, input_stride;  /* of token t what follows is t · input_stride bytes further */
  const int8_t *x; /* of the first group; of the next: group_codes bytes further; 64-byte aligned */
  size_t group_codes;
  const int32_t *corrections; /* [groups][16], as in i8.h */
  const float *x_scales;      /* [groups] */
  float *y;                   /* y[token · ldy + row] */
  size_t ldy;
} gptvq_trellis_rows;

/* Values of columns [begin, begin + count) of one row's stream, all in one group, with its tables; begin a
 * multiple of 8. */
typedef void (*gptvq_trellis_codes_fn)(const uint8_t *stream, unsigned index_bits, size_t begin, size_t count,
                                       const int8_t *table, int8_t *codes);

void gptvq_trellis_rows_ref(const gptvq_trellis_rows *job);
void gptvq_trellis_codes_ref(const uint8_t *stream, unsigned index_bits, size_t begin, size_t count,
                             const int8_t *table, int8_t *codes);

#endif
