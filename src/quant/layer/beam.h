/* quant/layer/beam.h: assignment of a batch of consecutive columns of one row: greedy for width 1 (the GPTVQ
 * step), otherwise the best of `width` partial assignments kept side by side. */
#ifndef GPTVQ_QUANT_LAYER_BEAM_H
#define GPTVQ_QUANT_LAYER_BEAM_H

#include "base/multi.h"

#include <stddef.h>
#include <stdint.h>

/* Columns of a batch at most, a multiple of 4; partial assignments at most. */
enum { GPTVQ_BATCH = 128 };

/* What the rows of one stripe share in one batch. Batches begin and end at sub-vectors. */
typedef struct gptvq_batch {
  unsigned dim;
  size_t k, padded;     /* padded: k rounded up to GPTVQ_LOOKUP_LANES */
  size_t blocks, width; /* sub-vectors of the batch; partial assignments kept */
  const float *book;    /* [k][dim] */
  const float *lookup;  /* [blocks][dim²] T of the look-ups, upper triangular */
  const float *metric;  /* [blocks][dim²] T of the scaled errors */
  const float *u; /* rows of U of the batch's columns, from the batch's first column on; NULL: no feedback */
  size_t u_stride;
  float *table;  /* [blocks][dim][padded] scratch: centroids T, padding infinite */
  void *scratch; /* gptvq_beam_scratch bytes, 64-byte aligned */
} gptvq_batch;

/* One kept partial assignment after one step: how it came about */
typedef struct gptvq_beam_step {
  uint32_t parent, index;
  float error[4];
} gptvq_beam_step;

size_t gptvq_beam_scratch(size_t padded, size_t width);
size_t gptvq_batch_table_floats(unsigned dim, size_t padded); /* of a full batch */
/* Fills table. */
void gptvq_batch_prepare(const gptvq_batch *batch);
/* w[blocks · dim]: weights of one row, destroyed; scale[blocks]. index[blocks]: the assignment; error[blocks
 * · dim]: scaled errors e′ (untouched without feedback). Returns Σ ‖e′‖². With width > 1 lookup and metric
 * must be equal. multi/beam.c */
GPTVQ_MULTI_DECLARE(double, gptvq_batch_assign, const gptvq_batch *batch, float *w, const float *scale,
                    uint16_t *index, float *error);

#endif
