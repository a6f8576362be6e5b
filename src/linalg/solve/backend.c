#include "linalg/solve/backend.h"
#include "linalg/gemm.h"
#include "linalg/solve/cholesky.h"

static gptvq_status gram(size_t c, size_t n, size_t chunk, const float *x, size_t ldx, double *h,
                         gptvq_error *err) {
  (void)err;
  gptvq_gram_update(c, n, chunk, x, ldx, h);
  return GPTVQ_OK;
}

static gptvq_status cross(size_t m, size_t c, size_t n, size_t chunk, const float *y, size_t ldy,
                          const float *x, size_t ldx, double *sums, gptvq_error *err) {
  (void)err;
  gptvq_cross_update(m, c, n, chunk, y, ldy, x, ldx, sums);
  return GPTVQ_OK;
}

static gptvq_status inverse_factor(size_t n, double *a, double *scratch, bool *done, gptvq_error *err) {
  (void)err;
  *done = gptvq_cholesky(n, a);
  if (*done) gptvq_invert_lower(n, a, scratch);
  return GPTVQ_OK;
}

const gptvq_linalg gptvq_cpu_linalg = {gram, cross, inverse_factor};
