/* model/layer/norm.h: RMS norms of the rows of the residual stream, and sums into it; soft caps of logits.
 * Their backward pass: train/norm.c. */
#ifndef GPTVQ_MODEL_LAYER_NORM_H
#define GPTVQ_MODEL_LAYER_NORM_H

#include <stdbool.h>
#include <stddef.h>

/* Rows of x normalised into `norm`, which may be x (threaded); false: one holds NaN, infinity or numbers
 * whose squares overflow.
 */
bool gptvq_norm_rows(size_t n, size_t hidden, const float *x, const float *weight, float eps, float *norm);
/* Rows of x as they are into `out`; false: one holds NaN or infinity. */
bool gptvq_copy_rows(size_t n, size_t hidden, const float *x, float *out);
/* x[n] = cap · tanh(x / cap) */
void gptvq_cap_values(size_t n, float cap, float *x);
/* x[n × hidden] += scale · sum */
void gptvq_add_rows(size_t n, size_t hidden, float scale, const float *sum, float *x);
/* x[n] *= scale */
void gptvq_scale_values(size_t n, float scale, float *x);

#endif
