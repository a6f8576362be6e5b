#include "quant/hessian.h"
#include "base/memory.h"
#include "linalg/gemm.h"

#include <math.h>
#include <stdio.h>

/* An fp32 sum of n products has a relative error of about n·2^-24 at worst: 256 rows keep it below 2e-5, typically 1e-6. */
enum { GRAM_ROWS = 256 };

size_t gptvq_hessian_bytes(size_t cols) {
  size_t count;
  return gptvq_mul(cols, cols, &count) ? gptvq_saturated_size(count, sizeof(double)) : SIZE_MAX;
}

gptvq_status gptvq_hessian_init(gptvq_hessian *hessian, size_t cols, const char *name, gptvq_error *err) {
  size_t bytes = gptvq_hessian_bytes(cols);
  *hessian = (gptvq_hessian){.cols = cols};
  if (bytes != SIZE_MAX) hessian->values = gptvq_alloc_zero(bytes, 1);
  if (hessian->values == NULL) {
    char context[256];
    (void)snprintf(context, sizeof context, "the Hessian of %s", name);
    return gptvq_fail_memory(err, context, bytes);
  }
  return GPTVQ_OK;
}

void gptvq_hessian_add(gptvq_hessian *hessian, size_t n, const float *x, size_t ldx) {
  for (size_t row = 0; row < n; row += GRAM_ROWS)
    gptvq_gram_update(hessian->cols, gptvq_min_size(GRAM_ROWS, n - row), x + row * ldx, ldx, hessian->values);
  hessian->tokens += n;
}

gptvq_status gptvq_hessian_finish(gptvq_hessian *hessian, const char *name, gptvq_error *err) {
  size_t cols = hessian->cols;
  if (hessian->tokens == 0) return GPTVQ_OK;
  /* a bad number in column c of any row makes the c-th diagonal element NaN or infinite */
  for (size_t c = 0; c < cols; c++)
    if (!isfinite(hessian->values[c * cols + c]))
      return gptvq_fail(err, GPTVQ_ERROR_NUMERIC,
                        "%s: the calibration inputs are NaN or too large in input column %zu; the model does not "
                        "compute finite numbers on this text",
                        name, c);
  double scale = 1.0 / (double)hessian->tokens;
  for (size_t i = 0; i < cols * cols; i++) hessian->values[i] *= scale;
  return GPTVQ_OK;
}

void gptvq_hessian_release(gptvq_hessian *hessian) {
  free(hessian->values);
  *hessian = (gptvq_hessian){0};
}
