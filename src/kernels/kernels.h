/* kernels/kernels.h: the dispatched kernels. docs/KERNELS.md is the contract; ref/ is the definition of each.
 * Every function may be called from several threads at once on disjoint outputs. Indices and rows must be in range: kernels
 * check nothing. Vectors need no alignment. */
#ifndef GPTVQ_KERNELS_KERNELS_H
#define GPTVQ_KERNELS_KERNELS_H

#include "kernels/packed.h"

typedef enum gptvq_dtype { GPTVQ_F32 = 0, GPTVQ_F16, GPTVQ_BF16 } gptvq_dtype;
static inline size_t gptvq_dtype_size(gptvq_dtype dtype) { return dtype == GPTVQ_F32 ? 4 : 2; }

/* n numbers of the given type to fp32. */
void gptvq_to_float(gptvq_dtype dtype, const void *in, size_t n, float *out);

/* y[r] = Σ_c W[r][c] x[c] for rows [begin, end) of a dense row-major matrix; y is indexed from 0 for `begin`. */
void gptvq_dense_matvec(gptvq_dtype dtype, const void *weights, size_t cols, size_t begin, size_t end, const float *x,
                        float *y);

/* Rows [begin, end) as fp32 in original column order: out[(end − begin) × stride]. */
void gptvq_packed_decode(const gptvq_packed *packed, size_t begin, size_t end, float *out, size_t stride);

/* y[row − begin] = Σ_c value(row, c) x[c]. `x` is in *packed* column order: the caller has applied the permutation
 * (x_packed[c] = x[permutation[c]]). fp32 activations. */
void gptvq_packed_matvec(const gptvq_packed *packed, size_t begin, size_t end, const float *x, float *y);

#endif
