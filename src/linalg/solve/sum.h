/* linalg/solve/sum.h: sums over calibration tokens that are made of the sums of groups of them, so that they
 * are the same bits whoever adds up a group (dist/). */
#ifndef GPTVQ_LINALG_SOLVE_SUM_H
#define GPTVQ_LINALG_SOLVE_SUM_H

#include <stdbool.h>
#include <stddef.h>

/* A matrix of sums, and what is added to it: the sums of a group. Square with `upper`, of which only the
 * triangle from the diagonal on is there: part is the upper triangle of values[(cols + 1) × cols], and the
 * total fills the rest of it: row r of the total is the beginning of its row cols − r. */
typedef struct gptvq_sum {
  size_t rows, cols;
  bool upper;
  double *part, *total; /* [rows × cols]; with `upper` total is not looked at */
} gptvq_sum;

/* What there is of row r: so many values, from here on. */
static inline size_t gptvq_sum_length(const gptvq_sum *s, size_t row) {
  return s->upper ? s->cols - row : s->cols;
}
static inline double *gptvq_sum_part(const gptvq_sum *s, size_t row) {
  return s->part + row * s->cols + (s->upper ? row : 0);
}
static inline double *gptvq_sum_total(const gptvq_sum *s, size_t row) {
  return s->upper ? s->part + (s->cols - row) * s->cols : s->total + row * s->cols;
}

/* A group ends: total += part rounded to fp32, part = 0. */
void gptvq_sum_fold(const gptvq_sum *sum);
/* With `upper`: the total becomes the upper triangle; the rest is left as it was. */
void gptvq_sum_unfold(const gptvq_sum *sum);

#endif
