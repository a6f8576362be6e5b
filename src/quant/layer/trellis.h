/* quant/layer/trellis.h: paths through a trellis. In the solver a state's newest bits are its lowest, state'
 * = (state << k | symbol) mod 2^8: the bits of format/packed.h in reverse order, so that what a state leaves
 * to the next one, its *prefix*, are its lower 8 − k bits. Its value is the sum of an entry each of two
 * tables of 16, which gptvq_trellis_entry names here as well; one table follows the other in memory. */
#ifndef GPTVQ_QUANT_LAYER_TRELLIS_H
#define GPTVQ_QUANT_LAYER_TRELLIS_H

#include "base/arena.h"
#include "base/multi.h"
#include "dist/dist.h"
#include "format/packed.h"

#include <stddef.h>
#include <stdint.h>

/* Rows that tables are made from at most, and that a Viterbi pass takes side by side; states; entries of one
 * of the two tables; partial paths per prefix at most. */
enum {
  GPTVQ_TRELLIS_SAMPLE = 512,
  GPTVQ_TRELLIS_ROWS = 16,
  GPTVQ_TRELLIS_STATES = 1 << GPTVQ_TRELLIS_STATE_BITS,
  GPTVQ_TRELLIS_HALF = GPTVQ_TRELLIS_TABLE / 2,
  GPTVQ_PATHS_MAX = 4
};

/* values[s] of all states from both tables */
static inline void gptvq_trellis_sums(unsigned step_bits, const float tables[GPTVQ_TRELLIS_TABLE],
                                      float values[GPTVQ_TRELLIS_STATES]) {
  for (unsigned s = 0; s < GPTVQ_TRELLIS_STATES; s++)
    values[s] = tables[gptvq_trellis_entry(step_bits, s, 0)] +
                tables[GPTVQ_TRELLIS_HALF + gptvq_trellis_entry(step_bits, s, 1)];
}

/* Columns of one row, at most GPTVQ_BATCH. */
typedef struct gptvq_path {
  unsigned step_bits;        /* k */
  size_t columns, width;     /* width: partial paths kept for each prefix, 1 … GPTVQ_PATHS_MAX */
  const float *const *table; /* [columns] values of the states */
  const float *scale;        /* [columns] of the row: values are table · scale */
  const float *lookup;       /* [columns] T as it weighs the look-ups */
  const float *metric;       /* [columns] T of the scaled errors */
  const float *u;            /* rows of U of the columns, from the first of them on; NULL: no feedback */
  size_t u_stride;
  int start, end; /* prefix before the first column, and of the last one's state; −1: any */
} gptvq_path;

GPTVQ_MULTI_DECLARE(size_t, gptvq_path_scratch, unsigned step_bits, size_t width);
/* The GPTVQ step with `width` partial paths kept for each prefix, every one with its own compensated weights.
 * w[columns]: weights. state[columns]; error[columns]: scaled errors e′. Returns Σ e′²; infinite when `end`
 * cannot be reached. scratch: gptvq_path_scratch bytes, 64-byte aligned. */
GPTVQ_MULTI_DECLARE(double, gptvq_find_path, const gptvq_path *path, const float *w, uint16_t *state,
                    float *error, void *scratch);

/* The best paths of GPTVQ_TRELLIS_ROWS rows without feedback: x[columns][rows], weight[columns] of squared
 * errors, any prefix before the first column; state[columns][rows]. scratch: columns · 2^(8 − k) · rows
 * bytes.
 */
GPTVQ_MULTI_DECLARE(void, gptvq_viterbi, unsigned step_bits, size_t columns, const float *table,
                    const float *x, const float *weight, uint8_t *state, uint8_t *scratch);

/* ---- trellis_em.c ---- */

/* Points of a pair of tables: `rows` (a multiple of GPTVQ_TRELLIS_ROWS; those beyond the last are of weight
 * 0) × columns.
 */
typedef struct gptvq_trellis_points {
  unsigned step_bits;
  size_t rows, columns;
  const float *x;          /* [rows / 16][columns][16] */
  const float *weight;     /* [columns] of squared errors */
  const float *row_weight; /* [rows] */
} gptvq_trellis_points;
/* Of paths what each state is to fit: Σ w x and Σ w of its points, w the product of both weights; loss: Σ w
 * (x − its value)² of all. Sums over columns, then rows, then sets of rows. */
typedef struct gptvq_state_sums {
  double wx[GPTVQ_TRELLIS_STATES], w[GPTVQ_TRELLIS_STATES], loss;
} gptvq_state_sums;
size_t gptvq_trellis_em_bytes(const gptvq_trellis_points *points);
/* EM rounds on both tables from the values that are there, over-relaxed but for the last one, until the
 * objective gains less than a fraction 2e-5. dist: all of whose members have the points and share the paths;
 * or NULL. *loss: the weighted mean squared error before the last round. */
gptvq_status gptvq_trellis_em(const gptvq_trellis_points *points, unsigned iterations, gptvq_dist *dist,
                              float tables[GPTVQ_TRELLIS_TABLE], double *loss, gptvq_arena *arena,
                              gptvq_error *err);
/* The same with paths and sums from elsewhere: those of the best paths for these values. */
gptvq_status gptvq_trellis_fit(const gptvq_trellis_points *points, unsigned iterations,
                               gptvq_status (*sum)(void *context, const float values[GPTVQ_TRELLIS_STATES],
                                                   gptvq_state_sums *out, gptvq_error *err),
                               void *context, float tables[GPTVQ_TRELLIS_TABLE], double *loss,
                               gptvq_error *err);
/* Tables for normal numbers of variance 1, which EM starts from. */
extern const float gptvq_gaussian_tables[3][GPTVQ_TRELLIS_TABLE]; /* of k = 2, 3, 4 */

#endif
