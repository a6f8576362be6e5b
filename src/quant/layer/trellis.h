/* quant/layer/trellis.h: paths through a trellis. In the solver a state's newest bits are its lowest, state'
 * = (state << k | symbol) mod 2^L: the L bits of format/packed.h in reverse order, so that what a state
 * leaves to the next one, its *prefix*, are its lower L − k bits. */
#ifndef GPTVQ_QUANT_LAYER_TRELLIS_H
#define GPTVQ_QUANT_LAYER_TRELLIS_H

#include "base/arena.h"
#include "base/multi.h"

#include <stddef.h>
#include <stdint.h>

/* Rows that a Viterbi pass takes side by side; states at most; partial paths per prefix at most. */
enum { GPTVQ_TRELLIS_ROWS = 16, GPTVQ_TRELLIS_STATES = 256, GPTVQ_PATHS_MAX = 4 };

/* Columns of one row, at most GPTVQ_BATCH. */
typedef struct gptvq_path {
  unsigned step_bits, state_bits; /* k, L */
  size_t columns, width;          /* width: partial paths kept for each prefix, 1 … GPTVQ_PATHS_MAX */
  const float *const *table;      /* [columns] values of the states */
  const float *scale;             /* [columns] of the row: values are table · scale */
  const float *lookup;            /* [columns] T as it weighs the look-ups */
  const float *metric;            /* [columns] T of the scaled errors */
  const float *u;                 /* rows of U of the columns, from the first of them on; NULL: no feedback */
  size_t u_stride;
  int start, end; /* prefix before the first column, and of the last one's state; −1: any */
} gptvq_path;

GPTVQ_MULTI_DECLARE(size_t, gptvq_path_scratch, unsigned step_bits, unsigned state_bits, size_t width);
/* The GPTVQ step with `width` partial paths kept for each prefix, every one with its own compensated weights.
 * w[columns]: weights. state[columns]; error[columns]: scaled errors e′. Returns Σ e′²; infinite when `end`
 * cannot be reached. scratch: gptvq_path_scratch bytes, 64-byte aligned. */
GPTVQ_MULTI_DECLARE(double, gptvq_find_path, const gptvq_path *path, const float *w, uint16_t *state,
                    float *error, void *scratch);

/* The best paths of GPTVQ_TRELLIS_ROWS rows without feedback: x[columns][rows], weight[columns] of squared
 * errors, any prefix before the first column; state[columns][rows]. scratch: columns · 2^(L − k) · rows
 * bytes.
 */
GPTVQ_MULTI_DECLARE(void, gptvq_viterbi, unsigned step_bits, unsigned state_bits, size_t columns,
                    const float *table, const float *x, const float *weight, uint8_t *state,
                    uint8_t *scratch);

/* ---- trellis_em.c ---- */

/* Points of one table: `rows` (a multiple of GPTVQ_TRELLIS_ROWS; those beyond the last are of weight 0) ×
 * columns.
 */
typedef struct gptvq_trellis_points {
  unsigned step_bits, state_bits;
  size_t rows, columns;
  const float *x;          /* [rows / 16][columns][16] */
  const float *weight;     /* [columns] of squared errors */
  const float *row_weight; /* [rows] */
} gptvq_trellis_points;
size_t gptvq_trellis_em_bytes(const gptvq_trellis_points *points);
/* EM rounds on table[2^L] from the values that are there, over-relaxed but for the last one, until the
 * objective gains less than a fraction 2e-5. Returns the weighted mean squared error before the last round.
 */
double gptvq_trellis_em(const gptvq_trellis_points *points, unsigned iterations, float *table,
                        gptvq_arena *arena);
/* A table trained on normal numbers of variance 1, the same on every call. */
size_t gptvq_gaussian_table_bytes(unsigned step_bits, unsigned state_bits);
void gptvq_gaussian_table(unsigned step_bits, unsigned state_bits, float *table, gptvq_arena *arena);

#endif
