/* kernels/table.h: the dispatch table. ref/ fills it; files of x86/ and arm/ overwrite entries where the
 * features that they need are there (the rows in dispatch.c). A call takes the table of gptvq_cpu(). */
#ifndef GPTVQ_KERNELS_TABLE_H
#define GPTVQ_KERNELS_TABLE_H

#include "base/cpu.h"
#include "kernels/gemm_i8.h"
#include "kernels/gemm_tiles.h"
#include "kernels/i8.h"
#include "kernels/kernels.h"
#include "kernels/trellis.h"
#include "kernels/uniform.h"

/* rows × cols dense weights (perhaps unaligned, row stride cols) times x[cols] into y[rows] */
typedef void (*gptvq_dense_matvec_fn)(const void *weights, size_t rows, size_t cols, const float *x,
                                      float *y);
typedef void (*gptvq_to_float_fn)(const void *in, size_t n, float *out);

typedef struct gptvq_kernel_table {
  gptvq_to_float_fn to_float[3];         /* by gptvq_dtype */
  gptvq_dense_matvec_fn dense_matvec[3]; /* by gptvq_dtype */
  gptvq_dense_matvec_fn codes_matvec;    /* weights int8, taken as integers */
  void (*packed_decode)(const gptvq_packed *packed, size_t begin, size_t end, float *out, size_t stride);
  void (*packed_matvec)(const gptvq_packed *packed, size_t begin, size_t end, const float *x, float *y);
  /* all n indices of a packed unit (n a multiple of 8), bits <= 8 */
  void (*unpack_bytes)(const uint8_t *unit, size_t n, unsigned bits, uint8_t *indices);
  /* int8 codes of the rows of a tile in column order, padding indices included */
  void (*tile_codes)(const gptvq_tile *tile, int8_t *codes, size_t stride);
  /* What kernels want to know of all units of n indices: to plan, GPTVQ_I8_PLAN_BYTES, 64-byte aligned. NULL:
   * nothing */
  void (*i8_plan)(unsigned bits, size_t n, void *plan);
  void (*i8_tile)(const gptvq_i8_tile *tile);
  /* out[i] = the 16 sums at sums + 16 i (64-byte aligned), folded as i8.h says, i < n */
  void (*i8_fold)(const float *sums, size_t n, float *out);
  /* What does the same as i8_tile over all groups of a layer of that shape; NULL: not covered. NULL where
   * there is none. */
  gptvq_i8_stripe_fn (*i8_stripe)(const gptvq_packed_shape *shape);
  void (*trellis_rows)(const gptvq_trellis_rows *job);
  gptvq_trellis_codes_fn trellis_codes;
  float (*uniform_row)(const gptvq_uniform_row *row);
  /* The same for many rows; false, and nothing done: such rows are better taken one by one. NULL where there
   * is none. */
  bool (*uniform_rows)(const gptvq_uniform_rows *job);
  /* Tokens up to which i8_tile is faster than gemm_block, of units of 256 columns and of others. */
  size_t i8_tokens, i8_tokens_other;
  /* `times` rounds of independent int8 products in registers, as the fastest of these functions makes them;
   * how many multiplications with an addition they are. NULL where there is none. */
  uint64_t (*i8_peak)(uint64_t times);
  gptvq_gemm_pack_fn gemm_pack; /* NULL, both, where matmul_i8 is the better way */
  gptvq_gemm_block_fn gemm_block;
  const gptvq_tiles_kernel *tiles; /* NULL: gemm_block is faster */
} gptvq_kernel_table;

void gptvq_kernels_init_ref(gptvq_kernel_table *table);

/* The table for a set of features; it never changes. */
const gptvq_kernel_table *gptvq_kernels(gptvq_cpu_features features);

#endif
