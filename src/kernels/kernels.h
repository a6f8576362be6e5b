/* kernels/kernels.h: the dispatched kernels. docs/KERNELS.md is the contract; ref/ is the definition of each.
 * Every function may be called from several threads at once on disjoint outputs. Indices and rows must be in
 * range: kernels check nothing. Vectors need no alignment. */
#ifndef GPTVQ_KERNELS_KERNELS_H
#define GPTVQ_KERNELS_KERNELS_H

#include "format/packed.h"

typedef enum gptvq_dtype { GPTVQ_F32 = 0, GPTVQ_F16, GPTVQ_BF16 } gptvq_dtype;
static inline size_t gptvq_dtype_size(gptvq_dtype dtype) { return dtype == GPTVQ_F32 ? 4 : 2; }

/* n numbers of the given type to fp32. */
void gptvq_to_float(gptvq_dtype dtype, const void *in, size_t n, float *out);

/* y[r] = Σ_c W[r][c] x[c] for rows [begin, end) of a dense row-major matrix; y is indexed from 0 for `begin`.
 */
void gptvq_dense_matvec(gptvq_dtype dtype, const void *weights, size_t cols, size_t begin, size_t end,
                        const float *x, float *y);

/* Rows [begin, end) as fp32 in original column order: out[(end − begin) × stride]. */
void gptvq_packed_decode(const gptvq_packed *packed, size_t begin, size_t end, float *out, size_t stride);

/* y[row − begin] = Σ_c value(row, c) x[c]. `x` is in *packed* column order: the caller has applied the
 * permutation (x_packed[c] = x[permutation[c]]). fp32 activations. */
void gptvq_packed_matvec(const gptvq_packed *packed, size_t begin, size_t end, const float *x, float *y);

/* ---- int8 activations: the fast path of decoding; docs/KERNELS.md derives their error ---- */

/* Is there an int8 path for this shape? (VQ, int8 codebooks, groups of at most 1024 columns, block scales of
 * a multiple of 4·dim columns; uniform: see uniform.h.) Otherwise use gptvq_packed_matvec. The functions
 * below need a shape for which this is true. */
bool gptvq_packed_has_i8(const gptvq_packed_shape *shape);
/* Bytes of the prepared form of one token's activations, a multiple of 64. */
size_t gptvq_packed_input_bytes(const gptvq_packed_shape *shape);
/* May two layers share prepared inputs? */
bool gptvq_packed_same_input(const gptvq_packed *a, const gptvq_packed *b);
/* x[cols] in *original* column order to the prepared form, 64-byte aligned. An x that is not finite makes
 * every result NaN. */
void gptvq_packed_prepare(const gptvq_packed *packed, const float *x, void *input);
/* y[row − begin] for rows [begin, end) from one prepared input. Same bytes at every CPU level. */
void gptvq_packed_matvec_i8(const gptvq_packed *packed, const void *input, size_t begin, size_t end,
                            float *y);
/* The same for `count` prepared inputs that follow each other: y[token · ldy + row − begin]; equal to `count`
 * single calls. */
void gptvq_packed_matmul_i8(const gptvq_packed *packed, const void *inputs, size_t count, size_t begin,
                            size_t end, float *y, size_t ldy);

/* ---- the same for prompts: weights are decoded once for all tokens ---- */

/* Is there such a kernel for this shape at the level in force? Otherwise use gptvq_packed_matmul_i8. */
bool gptvq_packed_has_gemm_i8(const gptvq_packed_shape *shape);
/* Up to so many tokens gptvq_packed_matmul_i8 is the faster way at the level in force; SIZE_MAX: always. */
size_t gptvq_packed_few_tokens(const gptvq_packed_shape *shape);
/* Tokens are prepared in blocks of this many; bytes of a block, a multiple of 64. */
enum { GPTVQ_GEMM_BLOCK = 12 };
size_t gptvq_packed_gemm_input_bytes(const gptvq_packed_shape *shape);
/* May two layers share prepared blocks? */
bool gptvq_packed_same_gemm_input(const gptvq_packed *a, const gptvq_packed *b);
/* x[count × ldx], count <= GPTVQ_GEMM_BLOCK, in original column order to a block, 64-byte aligned: the same
 * codes and scales as gptvq_packed_prepare. */
void gptvq_packed_gemm_prepare(const gptvq_packed *packed, const float *x, size_t ldx, size_t count,
                               void *input);
/* Bytes of memory that gptvq_packed_gemm_i8 needs for that many rows, 64-byte aligned. */
size_t gptvq_packed_gemm_panel_bytes(const gptvq_packed_shape *shape, size_t rows);
/* y[token · ldy + row − begin] for `count` tokens in blocks that follow each other; a row's result depends on
 * that row and token alone. Equal to gptvq_packed_matmul_i8 but for the order of the fp32 sums. */
void gptvq_packed_gemm_i8(const gptvq_packed *packed, const void *inputs, size_t count, size_t begin,
                          size_t end, float *y, size_t ldy, void *panel);

/* ---- the same once more, in tiles (AMX) ---- */

/* Is it the faster way for many tokens, for this shape at the level in force? (The functions below work for
 * every shape with an int8 path whose decoded weights fit int8.) */
bool gptvq_packed_has_tiles_i8(const gptvq_packed_shape *shape);
/* Tokens are prepared in blocks of this many; bytes of a block, a multiple of 64; layers share blocks as
 * gptvq_packed_same_gemm_input says. */
enum { GPTVQ_TILES_TOKENS = 16 };
size_t gptvq_packed_tiles_input_bytes(const gptvq_packed_shape *shape);
/* x[count × ldx], count <= GPTVQ_TILES_TOKENS, in original column order to a block, 64-byte aligned: the same
 * codes and scales as gptvq_packed_gemm_prepare. */
void gptvq_packed_tiles_prepare(const gptvq_packed *packed, const float *x, size_t ldx, size_t count,
                                void *input);
/* Bytes of memory that gptvq_packed_tiles_i8 needs for that many tokens, 64-byte aligned. */
size_t gptvq_packed_tiles_panel_bytes(const gptvq_packed_shape *shape, size_t count);
/* y as gptvq_packed_gemm_i8 gives it, bit for bit. */
void gptvq_packed_tiles_i8(const gptvq_packed *packed, const void *inputs, size_t count, size_t begin,
                           size_t end, float *y, size_t ldy, void *panel);

/* ---- what products are measured against ---- */

/* Makes `times` rounds of independent int8 products in registers, as kernels for prompts make them, and
 * returns how many multiplications with an addition these were. 0, and nothing done: not at the level in
 * force. */
uint64_t gptvq_int8_peak(uint64_t times);

/* ---- dense matrices as int8 codes: the output head ---- */

/* Columns that share a scale. */
enum { GPTVQ_ROWS_GROUP = 256 };
/* One row: codes[cols] (code + 128, codes in −127 … 127) and scales[ceil(cols / GPTVQ_ROWS_GROUP)]. */
void gptvq_rows_quantize(size_t cols, const float *weights, uint8_t *codes, float *scales);
/* The prepared form of x[cols], 64-byte aligned; its bytes, a multiple of 64. */
size_t gptvq_rows_input_bytes(size_t cols);
void gptvq_rows_prepare(size_t cols, const float *x, void *input);
/* y[token · ldy + row − begin] for rows [begin, end) of codes[rows × cols] and `count` prepared inputs that
 * follow each other. Same bytes at every CPU level. */
void gptvq_rows_matmul(const uint8_t *codes, const float *scales, size_t cols, size_t begin, size_t end,
                       const void *inputs, size_t count, float *y, size_t ldy);

#endif
