/* quant/layer/sweep.h: one row's part of the sweep over single sub-vectors (reassign.c), one build per CPU
 * level, the same bits from each (multi/sweep.c). */
#ifndef GPTVQ_QUANT_LAYER_SWEEP_H
#define GPTVQ_QUANT_LAYER_SWEEP_H

#include "base/multi.h"

#include <stddef.h>
#include <stdint.h>

/* What the rows of one stripe share in one batch of columns. */
typedef struct gptvq_sweep_batch {
  unsigned dim;
  size_t k, padded, blocks; /* padded: k rounded up to GPTVQ_LOOKUP_LANES; sub-vectors of the batch */
  const float *book;        /* [k][dim] */
  const double *metric;     /* [blocks][dim²] R upper triangular with H_BB = R Rᵀ */
  const float *h;           /* rows of H of the batch's columns, from the first of these on */
  size_t stride;
  float *table; /* [blocks][dim][padded] scratch: centroids R, padding infinite */
} gptvq_sweep_batch;

/* Fills table. */
GPTVQ_MULTI_DECLARE(void, gptvq_sweep_prepare, const gptvq_sweep_batch *batch);
/* gradient[blocks · dim]: of the row, follows what moves; scale, index[blocks]; change[blocks · dim]: what
 * moves the row's values, zeros where nothing does. Returns what the loss falls by. */
GPTVQ_MULTI_DECLARE(double, gptvq_sweep_row, const gptvq_sweep_batch *batch, float *gradient,
                    const float *scale, uint16_t *index, float *change);

#endif
