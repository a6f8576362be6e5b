/* quant/layer/beam.h: assignment of a batch of consecutive columns of some rows: greedy for width 1 (the
 * GPTVQ step), otherwise the best of `width` partial assignments of a row kept side by side. */
#ifndef GPTVQ_QUANT_LAYER_BEAM_H
#define GPTVQ_QUANT_LAYER_BEAM_H

#include "base/multi.h"

#include <stddef.h>
#include <stdint.h>

/* Columns of a batch at most, a multiple of GPTVQ_BATCH_BLOCK; rows that are assigned side by side, at most.
 */
enum { GPTVQ_BATCH = 128, GPTVQ_BATCH_ROWS = 4 };

/* The feedback inside a batch, in panels of 16 columns: panel p, from float 128 p (p + 1) on, has the rows of
 * U of columns 0 … 16 p + 15 one below the other. Zero are a row's entries up to its own sub-vector and those
 * beyond the batch. */
enum { GPTVQ_BATCH_BLOCK = 16, GPTVQ_BATCH_FEEDBACK = 128 * (GPTVQ_BATCH / 16) * (GPTVQ_BATCH / 16 + 1) };

/* What the rows of one stripe share in one batch. Batches begin and end at sub-vectors. */
typedef struct gptvq_batch {
  unsigned dim;
  size_t k, padded;      /* padded: k rounded up to GPTVQ_LOOKUP_LANES; powers of two */
  size_t blocks, width;  /* sub-vectors of the batch; partial assignments kept */
  const float *book;     /* [k][dim] */
  const float *lookup;   /* [blocks][dim²] T of the look-ups, upper triangular */
  const float *metric;   /* [blocks][dim²] T of the scaled errors */
  const float *feedback; /* of gptvq_batch_feedback; NULL: none */
  float *table;          /* [blocks][dim][padded] scratch: centroids T, padding infinite */
  void *scratch;         /* gptvq_beam_scratch bytes, 64-byte aligned */
} gptvq_batch;

typedef struct gptvq_batch_row {
  const float *w, *scale; /* [blocks · dim] weights; [blocks] */
  uint16_t *index;        /* [blocks] the assignment */
  float *error;           /* [blocks · dim] scaled errors e′; untouched without feedback */
  double loss;            /* Σ ‖e′‖² */
} gptvq_batch_row;

size_t gptvq_batch_table_floats(unsigned dim, size_t padded); /* of a full batch */
/* out[GPTVQ_BATCH_FEEDBACK] of u, rows of U of the batch's columns, from the first of these on. */
void gptvq_batch_feedback(unsigned dim, size_t columns, const float *u, size_t stride, float *out);
/* Fills table. */
GPTVQ_MULTI_DECLARE(void, gptvq_batch_prepare, const gptvq_batch *batch);
GPTVQ_MULTI_DECLARE(size_t, gptvq_beam_scratch, size_t padded, size_t width);
/* Fills index, error and loss of rows[count], at most GPTVQ_BATCH_ROWS. With width > 1 lookup and metric must
 * be equal. multi/beam.c */
GPTVQ_MULTI_DECLARE(void, gptvq_batch_assign, const gptvq_batch *batch, size_t count, gptvq_batch_row *rows);

#endif
