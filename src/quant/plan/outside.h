/* quant/plan/outside.h: what becomes of the matrices outside of the blocks, the embedding and the output
 * head: their bits, shapes and sizes. docs/METHOD.md, "The embedding and the head". */
#ifndef GPTVQ_QUANT_PLAN_OUTSIDE_H
#define GPTVQ_QUANT_PLAN_OUTSIDE_H

#include "model/model_internal.h"
#include "quant/options/options.h"

/* Bits of a code, 3 … 8; 16: the matrix stays as it is. A head that is the embedding's matrix has none
 * of its own: 16. */
typedef struct gptvq_outside_bits {
  unsigned embedding, head;
} gptvq_outside_bits;

/* GPTVQ_ERROR_ARGUMENT: different bits for one matrix. */
gptvq_status gptvq_outside_bits_of(const gptvq_model *model, const gptvq_quantize_options *options,
                                   gptvq_outside_bits *bits, gptvq_error *err);
/* Is the head packed, by itself or with the embedding? */
bool gptvq_outside_packs_head(const gptvq_model *model, const gptvq_outside_bits *bits);
/* Is the head, or the matrix that is both, made with the Hessian of the last norm's outputs? */
bool gptvq_outside_uses_hessian(const gptvq_model *model, const gptvq_quantize_options *options,
                                const gptvq_outside_bits *bits);

/* How many of the calibration windows that Hessian is made from: a spread of them (gptvq_allocation_window),
 * at least a quarter of them, 8, and 28 tokens for each column, or all where that is more than half. */
size_t gptvq_outside_windows(const gptvq_model *model, size_t windows, size_t length);

/* Uniform: of 8 bits as kernels take it in place, a scale per 256 columns, zero points 128; of less a scale
 * and a zero point per 64 columns. With `code` trellis 3 and 4 bits are a trellis code, unless the matrix has
 * more than 2^28 values, which have to be in memory together for that. options: resolved; NULL: no trellis.
 */
gptvq_packed_shape gptvq_outside_shape(const gptvq_quantize_options *options, size_t rows, size_t cols,
                                       unsigned bits);
/* The options that a matrix of that shape and less than 8 bits is made with: error feedback, or without a
 * Hessian rounding to nearest (uniform) and the nearest paths (trellis). */
gptvq_status gptvq_outside_options(const gptvq_quantize_options *options, gptvq_packed_kind kind,
                                   unsigned bits, bool hessian, gptvq_resolved *out, gptvq_error *err);

/* Rows of a uniform one that are worked on together: results do not depend on it. */
size_t gptvq_outside_rows(size_t rows, size_t cols);
/* Bytes of the packed matrices, which are kept, and of the work on them; in both cases 0 if they stay. */
double gptvq_outside_kept(const gptvq_model *model, const gptvq_resolved *options);
double gptvq_outside_peak(const gptvq_model *model, const gptvq_resolved *options);

#endif
