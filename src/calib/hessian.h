/* calib/hessian.h: the mean of x xᵀ over calibration tokens, in double precision. */
#ifndef GPTVQ_CALIB_HESSIAN_H
#define GPTVQ_CALIB_HESSIAN_H

#include "linalg/solve/backend.h"

/* After gptvq_hessian_init: the running sum over `tokens` rows (upper triangle); after gptvq_hessian_finish:
 * their mean. */
typedef struct gptvq_hessian {
  const gptvq_linalg *linalg;
  size_t cols, tokens;
  double *values; /* [cols × cols], owned; symmetric once finished */
} gptvq_hessian;

/* Bytes that one takes; SIZE_MAX on overflow. */
size_t gptvq_hessian_bytes(size_t cols);

/* Zeros. `name` is the layer, for messages. GPTVQ_ERROR_MEMORY. */
gptvq_status gptvq_hessian_init(gptvq_hessian *hessian, const gptvq_linalg *linalg, size_t cols,
                                const char *name, gptvq_error *err);
/* Adds the rows of x[n × ldx] (ldx >= cols, in elements): products in fp32 over at most 256 rows, their sums
 * in double. Threaded; the result depends on how rows are cut into calls, not on the number of threads. */
gptvq_status gptvq_hessian_add(gptvq_hessian *hessian, size_t n, const float *x, size_t ldx,
                               gptvq_error *err);
/* Divides by the number of tokens (none: stays zero). GPTVQ_ERROR_NUMERIC naming the layer and the input
 * column when an activation was NaN, infinite, or so large that its square is. */
gptvq_status gptvq_hessian_finish(gptvq_hessian *hessian, const char *name, gptvq_error *err);
void gptvq_hessian_release(gptvq_hessian *hessian); /* a zeroed struct is fine */

#endif
