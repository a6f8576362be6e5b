#include "linalg/solve/cholesky.h"
#include "base/memory.h"
#include "base/threads.h"
#include "linalg/gemm.h"

#include <cblas.h>
#include <lapacke.h>

/* A row-major lower triangle is a column-major upper one: LAPACK works on it without copies. */
enum { NB = GPTVQ_CHOLESKY_BLOCK };

typedef struct job {
  size_t n, k; /* k: first row of the current diagonal block */
  double *a, *scratch;
} job;

static size_t block_size(const job *j, size_t at) { return gptvq_min_size(NB, j->n - at); }

/* A_ik := A_ik L_kk⁻ᵀ for the row blocks below the diagonal block */
static void panel(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const job *j = context;
  for (size_t b = begin; b < end; b++) {
    size_t i = j->k + (b + 1) * NB;
    cblas_dtrsm(CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit, (blasint)block_size(j, i),
                (blasint)block_size(j, j->k), 1.0, j->a + j->k * j->n + j->k, (blasint)j->n,
                j->a + i * j->n + j->k, (blasint)j->n);
  }
}

/* A_ij −= A_ik A_jkᵀ for the tiles i >= j of the rest; item b is the tile row */
static void trailing(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const job *j = context;
  for (size_t b = begin; b < end; b++) {
    size_t first = j->k + NB, i = first + b * NB, m = block_size(j, i);
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)m, (blasint)(i - first + m), (blasint)NB,
                -1.0, j->a + i * j->n + j->k, (blasint)j->n, j->a + first * j->n + j->k, (blasint)j->n, 1.0,
                j->a + i * j->n + first, (blasint)j->n);
  }
}

bool gptvq_cholesky(size_t n, double *a) {
  gptvq_blas_one_thread();
  job j = {n, 0, a, NULL};
  for (; j.k < n; j.k += NB) {
    size_t m = block_size(&j, j.k);
    if (LAPACKE_dpotrf_work(LAPACK_COL_MAJOR, 'U', (lapack_int)m, a + j.k * n + j.k, (lapack_int)n) != 0)
      return false;
    if (j.k + m == n) break;
    size_t below = gptvq_ceil_div(n - j.k - m, NB);
    gptvq_parallel_for(below, 1, panel, &j);
    gptvq_parallel_for(below, 1, trailing, &j);
  }
  return true;
}

/* Row block k of the inverse: X_kj = −L_kk⁻¹ Σ_{j <= i < k} L_ki X_ij. Item b is the column block j. */
static void inverse_sums(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const job *j = context;
  for (size_t b = begin; b < end; b++) {
    size_t c = b * NB;
    double *sum = j->scratch + c;
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (blasint)block_size(j, j->k), NB,
                (blasint)(j->k - c), -1.0, j->a + j->k * j->n + c, (blasint)j->n, j->a + c * j->n + c,
                (blasint)j->n, 0.0, sum, (blasint)j->n);
    cblas_dtrsm(CblasRowMajor, CblasLeft, CblasLower, CblasNoTrans, CblasNonUnit,
                (blasint)block_size(j, j->k), NB, 1.0, j->a + j->k * j->n + j->k, (blasint)j->n, sum,
                (blasint)j->n);
  }
}

static void copy_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const job *j = context;
  for (size_t r = begin; r < end; r++)
    for (size_t c = 0; c < j->k; c++) j->a[(j->k + r) * j->n + c] = j->scratch[r * j->n + c];
}

void gptvq_invert_lower(size_t n, double *a, double *scratch) {
  gptvq_blas_one_thread();
  job j = {n, 0, a, scratch};
  /* the products below read whole square blocks: the part above the diagonal must be zero */
  for (size_t r = 0; r < n; r++)
    for (size_t c = r + 1; c < gptvq_min_size(n, gptvq_round_up(r + 1, NB)); c++) a[r * n + c] = 0.0;
  for (; j.k < n; j.k += NB) {
    size_t m = block_size(&j, j.k);
    if (j.k > 0) {
      gptvq_parallel_for(j.k / NB, 1, inverse_sums, &j);
      gptvq_parallel_for(m, 8, copy_rows, &j);
    }
    (void)LAPACKE_dtrtri_work(LAPACK_COL_MAJOR, 'U', 'N', (lapack_int)m, a + j.k * n + j.k, (lapack_int)n);
  }
}

bool gptvq_solve_positive(size_t n, double *a, double *b) {
  gptvq_blas_one_thread();
  const lapack_int size = (lapack_int)n;
  return LAPACKE_dpotrf_work(LAPACK_COL_MAJOR, 'U', size, a, size) == 0 &&
         LAPACKE_dpotrs_work(LAPACK_COL_MAJOR, 'U', size, 1, a, size, b, size) == 0;
}
