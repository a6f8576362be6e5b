/* kernels/gemm_tiles.h: the products of gemm_i8.h in tiles of 16 × 16 × 64 (AMX): the same sums in the same
 * order, so the same bytes. A tile of weights is 64 columns of 16 decoded rows as they lie; one of
 * activations is 16 quads of columns of 16 tokens. Segments that are no multiple of 64 columns are filled up
 * with activations of zero. */
#ifndef GPTVQ_KERNELS_GEMM_TILES_H
#define GPTVQ_KERNELS_GEMM_TILES_H

#include "kernels/gemm_decode.h"
#include "kernels/kernels.h"

enum { GPTVQ_TILE_SIDE = 16, GPTVQ_TILE_COLUMNS = 64, GPTVQ_TILE_BYTES = 1024 };

/* Up to GPTVQ_GEMM_ROWS rows times any number of tokens. All arrays but y are 64-byte aligned. */
typedef struct gptvq_tiles {
  size_t rows, tokens;
  size_t segments, segment; /* columns from one segment to the next */
  size_t steps, last_steps; /* tiles of 64 columns in a segment; in the last one */
  const int8_t *weights;    /* [GPTVQ_GEMM_ROWS][stride]; what lies within a tile can be read */
  size_t stride;
  const float *weight_scales; /* [segments][GPTVQ_GEMM_ROWS] */
  /* Of 16 tokens; of the next 16: input_bytes further. Codes [all steps][16 quads][16 tokens][4], at x_scales
   * (bytes) [segments][16] floats. */
  const int8_t *x;
  size_t input_bytes, x_scales;
  float *sums; /* [ceil(tokens / 16)][GPTVQ_GEMM_ROWS][16], for the function's use */
  float *y;    /* [tokens][ldy], overwritten */
  size_t ldy;
} gptvq_tiles;

typedef struct gptvq_tiles_kernel {
  /* Before a thread's first product, and after its last: tile registers belong to a thread. */
  void (*begin)(void), (*end)(void);
  void (*multiply)(const gptvq_tiles *job);
} gptvq_tiles_kernel;

extern const gptvq_tiles_kernel gptvq_tiles_ref;

#endif
