/* calib/hessian.h: the mean of x xᵀ over calibration tokens, in double precision. */
#ifndef GPTVQ_CALIB_HESSIAN_H
#define GPTVQ_CALIB_HESSIAN_H

#include "dist/dist.h"
#include "linalg/solve/backend.h"

/* After gptvq_hessian_init: the running sum over the present group's rows (upper triangle) and, in what
 * gptvq_sum makes of the rest, the sum of the groups before; after gptvq_hessian_finish: the mean over all
 * `tokens`. */
typedef struct gptvq_hessian {
  const gptvq_linalg *linalg;
  size_t cols, tokens;
  double *values; /* [cols + 1 × cols], owned; the first [cols × cols] symmetric once finished */
  bool grouped;   /* gptvq_hessian_add_group was called */
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
/* The rows so far were a group: its sum is added to those of the groups before; of several members those of
 * the round. Without any such call all rows are one group. */
gptvq_status gptvq_hessian_add_group(gptvq_hessian *hessian, gptvq_dist *dist, const gptvq_deal *deal,
                                     size_t round, gptvq_error *err);
/* After the last group: every member has the sum over all. */
gptvq_status gptvq_hessian_gather(gptvq_hessian *hessian, gptvq_dist *dist, gptvq_error *err);
/* Divides by the number of tokens (none: stays zero). GPTVQ_ERROR_NUMERIC naming the layer and the input
 * column when an activation was NaN, infinite, or so large that its square is. */
gptvq_status gptvq_hessian_finish(gptvq_hessian *hessian, const char *name, gptvq_error *err);
void gptvq_hessian_release(gptvq_hessian *hessian); /* a zeroed struct is fine */

#endif
