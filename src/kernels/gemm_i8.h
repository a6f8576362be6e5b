/* kernels/gemm_i8.h: packed layers times the int8 activations of many tokens (docs/KERNELS.md, "Many
 * tokens").
 *
 * Columns are cut into segments (gemm_decode.h). Weights are decoded once into a panel, four columns (a quad)
 * of ROWS rows at a time; the codes of TOKENS tokens lie in the same order: sum(t, r) = fma(float(Σ_c w[r][c]
 * · q[t][c]), weight_scale[s][r] · x_scale[s][t], sum(t, r)) over segments s ascending from 0, the inner sum
 * in int32, exact: at most 1024 · 128 · 127 < 2^24. */
#ifndef GPTVQ_KERNELS_GEMM_I8_H
#define GPTVQ_KERNELS_GEMM_I8_H

#include "kernels/gemm_decode.h"
#include "kernels/kernels.h"

enum { GPTVQ_GEMM_TOKENS = GPTVQ_GEMM_BLOCK };

/* ROWS rows times TOKENS tokens. All arrays 64-byte aligned, but for correction and x_scales. */
typedef struct gptvq_gemm_block {
  size_t segments, quads, last_quads; /* quads of a segment; of the last one */
  const uint8_t *weights;             /* [all quads][ROWS][4], code + 128 */
  const float *weight_scales;         /* [segments][ROWS] */
  const int8_t *x;                    /* [all quads][TOKENS][4] */
  const int32_t *corrections;         /* [segments][TOKENS]: −128 · Σ of the codes */
  const float *x_scales;              /* [segments][TOKENS] */
  float *sums;                        /* [TOKENS][ROWS], overwritten */
} gptvq_gemm_block;

/* codes[ROWS][stride] of signed codes to weights[quads][ROWS][4] of code + 128; stride a multiple of 64 and
 * at least 4 · quads, codes 64-byte aligned. */
typedef void (*gptvq_gemm_pack_fn)(const int8_t *codes, size_t stride, size_t quads, uint8_t *weights);
typedef void (*gptvq_gemm_block_fn)(const gptvq_gemm_block *block);

void gptvq_gemm_pack_ref(const int8_t *codes, size_t stride, size_t quads, uint8_t *weights);
void gptvq_gemm_block_ref(const gptvq_gemm_block *block);

#endif
