/* Parts are rounded to fp32 before they are added, whoever adds them: half of the bytes on the way between
 * the members of a team, and an error of 2^-25 of a part, far below that of the products which it is made of.
 */
#include "linalg/solve/sum.h"
#include "base/threads.h"

#include <stdint.h>
#include <string.h>

static void fold_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const gptvq_sum *s = context;
  for (size_t row = begin; row < end; row++) {
    double *from = gptvq_sum_part(s, row), *to = gptvq_sum_total(s, row);
    const size_t n = gptvq_sum_length(s, row);
    for (size_t i = 0; i < n; i++) to[i] += (double)(float)from[i];
    memset(from, 0, n * sizeof *from);
  }
}

void gptvq_sum_fold(const gptvq_sum *s) {
  gptvq_parallel_for(s->rows, gptvq_rows_per_task(s->cols), fold_rows, (void *)(uintptr_t)s);
}

static void unfold_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const gptvq_sum *s = context;
  for (size_t row = begin; row < end; row++)
    memcpy(gptvq_sum_part(s, row), gptvq_sum_total(s, row), gptvq_sum_length(s, row) * sizeof(double));
}

void gptvq_sum_unfold(const gptvq_sum *s) { /* no part of a row is total of another */
  if (s->upper) gptvq_parallel_for(s->rows, gptvq_rows_per_task(s->cols), unfold_rows, (void *)(uintptr_t)s);
}
