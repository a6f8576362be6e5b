#include "calib/observers.h"
#include "base/memory.h"

#include <math.h>
#include <string.h>

static const float *weights_of(const gptvq_token_weights *weights, const gptvq_observed *in) {
  return weights->values != NULL ? weights->values + in->window * weights->length : NULL;
}

/* The weight of a row: that of its token, and of the expert in it. */
static float row_weight(const gptvq_token_weights *weights, const float *of_window, const gptvq_observed *in,
                        size_t row) {
  const float weight = of_window[in->tokens != NULL ? in->tokens[row] : row];
  return in->shares != NULL ? weight * powf(in->shares[row], weights->share_power) : weight;
}

size_t gptvq_hessian_watch_bytes(size_t length, size_t cols) {
  return gptvq_saturated_size(length, gptvq_saturated_size(cols, sizeof(float)));
}

size_t gptvq_mismatch_watch_bytes(size_t length, size_t cols, size_t rows) {
  return gptvq_hessian_watch_bytes(length, rows > 0 ? rows : cols);
}

gptvq_status gptvq_hessian_observe(void *context, const gptvq_observed *in, gptvq_error *err) {
  gptvq_hessian_watch *watch = context;
  const float *weight = weights_of(&watch->weights, in);
  if (weight == NULL) return gptvq_hessian_add(watch->hessian, in->rows, in->x, in->ldx, err);
  size_t cols = in->cols;
  for (size_t t = 0; t < in->rows; t++) {
    const float own = row_weight(&watch->weights, weight, in, t), root = sqrtf(own);
    watch->sum += (double)own;
    for (size_t c = 0; c < cols; c++) watch->scratch[t * cols + c] = root * in->x[t * in->ldx + c];
  }
  return gptvq_hessian_add(watch->hessian, in->rows, watch->scratch, cols, err);
}

gptvq_status gptvq_mismatch_remember(void *context, const gptvq_observed *in, gptvq_error *err) {
  gptvq_mismatch_watch *watch = context;
  const gptvq_linalg *linalg = watch->mismatch->linalg;
  if (gptvq_mismatch_backend_remembers(watch))
    return linalg->remember(linalg, in->cols, in->rows, in->x, in->ldx, err);
  float *to = watch->remembered;
  size_t rows = watch->mismatch->rows;
  if (rows > 0) memcpy(to, in->stream, in->rows * rows * sizeof *to);
  for (size_t t = 0; t < in->rows && rows == 0; t++)
    memcpy(to + t * in->cols, in->x + t * in->ldx, in->cols * sizeof *to);
  return GPTVQ_OK;
}

gptvq_status gptvq_mismatch_observe(void *context, const gptvq_observed *in, gptvq_error *err) {
  const gptvq_mismatch_watch *watch = context;
  if (gptvq_mismatch_backend_remembers(watch))
    return gptvq_mismatch_add_change(watch->mismatch, in->rows, in->x, in->ldx, err);
  const gptvq_deviation tokens = {.n = in->rows,
                                  .x_original = watch->remembered,
                                  .x = in->x,
                                  .ldx = in->ldx,
                                  .stream_original = watch->remembered,
                                  .stream_after = in->before,
                                  .stream = in->stream,
                                  .bias = watch->bias,
                                  .scale = watch->scale,
                                  .weight = weights_of(&watch->weights, in)};
  return gptvq_mismatch_add(watch->mismatch, &tokens, err);
}
