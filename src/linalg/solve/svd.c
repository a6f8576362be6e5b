#include "linalg/solve/svd.h"
#include "base/memory.h"
#include "linalg/gemm.h"

#include <lapacke.h>
#include <string.h>

typedef struct scratch {
  double *u, *vt, *sigma, *work; /* [cols × least], [least × rows] column-major, [least], LAPACK's */
  lapack_int *small, work_size;
} scratch;

/* row-major [rows × cols] is column-major [cols × rows]: u [cols × least], vt [least × rows] */
static lapack_int decompose(size_t rows, size_t cols, double *c, const scratch *s, double *work,
                            lapack_int work_size) {
  size_t least = gptvq_min_size(rows, cols);
  return LAPACKE_dgesdd_work(LAPACK_COL_MAJOR, 'S', (lapack_int)cols, (lapack_int)rows, c, (lapack_int)cols,
                             s->sigma, s->u, (lapack_int)cols, s->vt, (lapack_int)least, work, work_size,
                             s->small);
}

static void take(size_t rows, size_t cols, gptvq_arena *arena, scratch *s) {
  size_t least = gptvq_min_size(rows, cols);
  double wanted = 0.0;
  *s = (scratch){0};
  (void)decompose(rows, cols, NULL, s, &wanted, -1);
  s->work_size = (lapack_int)wanted;
  s->u = gptvq_arena_take(arena, least, gptvq_saturated_size(cols, sizeof *s->u));
  s->vt = gptvq_arena_take(arena, least, gptvq_saturated_size(rows, sizeof *s->vt));
  s->sigma = gptvq_arena_take(arena, least, sizeof *s->sigma);
  s->work = gptvq_arena_take(arena, (size_t)s->work_size, sizeof *s->work);
  s->small = gptvq_arena_take(arena, least, 8 * sizeof *s->small);
}

size_t gptvq_svd_bytes(size_t rows, size_t cols) {
  gptvq_arena counting = {0};
  scratch s;
  if (rows > INT32_MAX || cols > INT32_MAX) return SIZE_MAX;
  take(rows, cols, &counting, &s);
  return counting.peak;
}

gptvq_status gptvq_svd(size_t rows, size_t cols, size_t rank, double *c, double *left, double *right,
                       gptvq_arena *arena, gptvq_error *err) {
  size_t least = gptvq_min_size(rows, cols), mark = arena->used;
  if (rank > least || rows > INT32_MAX || cols > INT32_MAX)
    return gptvq_fail(err, GPTVQ_ERROR_INTERNAL, "rank %zu of a matrix of %zu x %zu", rank, rows, cols);
  GPTVQ_TRY(gptvq_blas_init(err)); /* k-means comes here without any product before */
  scratch s;
  take(rows, cols, arena, &s);
  GPTVQ_TRY(gptvq_arena_check(arena, "the decomposition of the codebooks", err));
  lapack_int info = decompose(rows, cols, c, &s, s.work, s.work_size);
  if (info == 0) {
    for (size_t i = 0; i < rows; i++)
      for (size_t r = 0; r < rank; r++) left[i * rank + r] = s.vt[i * least + r] * s.sigma[r];
    memcpy(right, s.u, rank * cols * sizeof *right);
  }
  gptvq_arena_return(arena, mark);
  if (info == 0) return GPTVQ_OK;
  return gptvq_fail(err, GPTVQ_ERROR_NUMERIC, "the singular values of %zu codebooks cannot be computed (%d)",
                    rows, (int)info);
}
