#include "calib/hessian.h"
#include "base/memory.h"
#include "base/threads.h"

#include <math.h>
#include <stdio.h>

/* An fp32 sum of n products has a relative error of about n·2^-24 at worst: 256 rows keep it below 2e-5,
 * typically 1e-6. */
enum { GRAM_ROWS = 256, MIRROR_TILE = 32 };

size_t gptvq_hessian_bytes(size_t cols) {
  size_t count;
  return cols < SIZE_MAX && gptvq_mul(cols + 1, cols, &count) ? gptvq_saturated_size(count, sizeof(double))
                                                              : SIZE_MAX;
}

gptvq_status gptvq_hessian_init(gptvq_hessian *hessian, const gptvq_linalg *linalg, size_t cols,
                                const char *name, gptvq_error *err) {
  size_t bytes = gptvq_hessian_bytes(cols);
  *hessian = (gptvq_hessian){.linalg = linalg, .cols = cols};
  if (bytes != SIZE_MAX) hessian->values = gptvq_alloc_zero(bytes, 1);
  if (hessian->values == NULL) {
    char context[256];
    (void)snprintf(context, sizeof context, "the Hessian of %s", name);
    return gptvq_fail_memory(err, context, bytes);
  }
  return GPTVQ_OK;
}

gptvq_status gptvq_hessian_add(gptvq_hessian *hessian, size_t n, const float *x, size_t ldx,
                               gptvq_error *err) {
  GPTVQ_TRY(
      hessian->linalg->gram(hessian->linalg, hessian->cols, n, GRAM_ROWS, x, ldx, hessian->values, err));
  hessian->tokens += n;
  return GPTVQ_OK;
}

static gptvq_sum sum_of(const gptvq_hessian *hessian) {
  return (gptvq_sum){.rows = hessian->cols, .cols = hessian->cols, .upper = true, .part = hessian->values};
}

gptvq_status gptvq_hessian_add_group(gptvq_hessian *hessian, gptvq_dist *dist, const gptvq_deal *deal,
                                     size_t round, gptvq_error *err) {
  const gptvq_sum sum = sum_of(hessian);
  hessian->grouped = true;
  return gptvq_sum_add(&sum, hessian->linalg, dist, deal, round, err);
}

gptvq_status gptvq_hessian_gather(gptvq_hessian *hessian, gptvq_dist *dist, gptvq_error *err) {
  const gptvq_sum sum = sum_of(hessian);
  uint64_t tokens = hessian->tokens;
  GPTVQ_TRY(gptvq_dist_total(dist, &tokens, 1, err));
  hessian->tokens = (size_t)tokens;
  return gptvq_sum_gather(&sum, dist, err);
}

typedef struct mean_job {
  double *values;
  size_t cols;
  double scale;
} mean_job;

/* Rows [begin, end) × MIRROR_TILE of the upper triangle, and their mirror images, tile by tile. */
static void mean_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const mean_job *job = context;
  size_t cols = job->cols;
  for (size_t i = begin * MIRROR_TILE; i < gptvq_min_size(end * MIRROR_TILE, cols); i += MIRROR_TILE)
    for (size_t j = i; j < cols; j += MIRROR_TILE)
      for (size_t a = i; a < gptvq_min_size(i + MIRROR_TILE, cols); a++)
        for (size_t b = gptvq_max_size(a, j); b < gptvq_min_size(j + MIRROR_TILE, cols); b++) {
          double mean = job->values[a * cols + b] * job->scale;
          job->values[a * cols + b] = mean;
          job->values[b * cols + a] = mean;
        }
}

gptvq_status gptvq_hessian_finish(gptvq_hessian *hessian, const char *name, gptvq_error *err) {
  size_t cols = hessian->cols;
  if (hessian->tokens == 0) return GPTVQ_OK;
  GPTVQ_TRY(hessian->linalg->settle(hessian->linalg, hessian->values, err));
  if (hessian->grouped) {
    const gptvq_sum sum = sum_of(hessian);
    gptvq_sum_unfold(&sum);
  }
  /* a bad number in column c of any row makes the c-th diagonal element NaN or infinite */
  for (size_t c = 0; c < cols; c++)
    if (!isfinite(hessian->values[c * cols + c]))
      return gptvq_fail(
          err, GPTVQ_ERROR_NUMERIC,
          "%s: the calibration inputs are NaN or too large in input column %zu; the model does not "
          "compute finite numbers on this text",
          name, c);
  mean_job job = {hessian->values, cols, 1.0 / (double)hessian->tokens};
  gptvq_parallel_for(gptvq_ceil_div(cols, MIRROR_TILE), 1, mean_rows, &job);
  return GPTVQ_OK;
}

void gptvq_hessian_release(gptvq_hessian *hessian) {
  if (hessian->values != NULL) hessian->linalg->forget(hessian->linalg, hessian->values);
  free(hessian->values);
  *hessian = (gptvq_hessian){0};
}
