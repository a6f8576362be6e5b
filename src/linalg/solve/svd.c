#include "linalg/solve/svd.h"
#include "base/memory.h"
#include "linalg/gemm.h"

#include <lapacke.h>
#include <string.h>

gptvq_status gptvq_svd(size_t rows, size_t cols, size_t rank, double *c, double *left, double *right,
                       gptvq_error *err) {
  size_t least = gptvq_min_size(rows, cols);
  if (rank > least || rows > INT32_MAX || cols > INT32_MAX)
    return gptvq_fail(err, GPTVQ_ERROR_INTERNAL, "rank %zu of a matrix of %zu x %zu", rank, rows, cols);
  size_t doubles = gptvq_saturated_size(least, cols + rows + 1);
  GPTVQ_TRY(gptvq_blas_init(err)); /* k-means comes here without any product before */
  double *u = gptvq_alloc(doubles, sizeof *u);
  if (u == NULL)
    return gptvq_fail_memory(err, "the decomposition of the codebooks",
                             gptvq_saturated_size(doubles, sizeof *u));
  double *vt = u + least * cols, *sigma = vt + least * rows;
  /* row-major [rows × cols] is column-major [cols × rows]: u [cols × least], vt [least × rows] */
  lapack_int info = LAPACKE_dgesdd(LAPACK_COL_MAJOR, 'S', (lapack_int)cols, (lapack_int)rows, c,
                                   (lapack_int)cols, sigma, u, (lapack_int)cols, vt, (lapack_int)least);
  gptvq_status status = GPTVQ_OK;
  if (info == LAPACK_WORK_MEMORY_ERROR)
    status = gptvq_fail_memory(err, "the decomposition of the codebooks", rows * cols * sizeof *c);
  else if (info != 0)
    status = gptvq_fail(err, GPTVQ_ERROR_NUMERIC,
                        "the singular values of %zu codebooks cannot be computed (%d)", rows, (int)info);
  if (status == GPTVQ_OK) {
    for (size_t i = 0; i < rows; i++)
      for (size_t r = 0; r < rank; r++) left[i * rank + r] = vt[i * least + r] * sigma[r];
    memcpy(right, u, rank * cols * sizeof *right);
  }
  free(u);
  return status;
}
