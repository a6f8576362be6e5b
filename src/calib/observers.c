#include "calib/observers.h"

#include <math.h>
#include <string.h>

static const float *weights_of(const gptvq_token_weights *weights, const gptvq_observed *in) {
  return weights->values != NULL ? weights->values + in->window * weights->length : NULL;
}

gptvq_status gptvq_hessian_observe(void *context, const gptvq_observed *in, gptvq_error *err) {
  (void)err;
  gptvq_hessian_watch *watch = context;
  const float *weight = weights_of(&watch->weights, in);
  if (weight == NULL) {
    gptvq_hessian_add(watch->hessian, in->rows, in->x, in->ldx);
    return GPTVQ_OK;
  }
  size_t cols = in->cols;
  for (size_t t = 0; t < in->rows; t++) {
    float root = sqrtf(weight[t]);
    for (size_t c = 0; c < cols; c++) watch->scratch[t * cols + c] = root * in->x[t * in->ldx + c];
  }
  gptvq_hessian_add(watch->hessian, in->rows, watch->scratch, cols);
  return GPTVQ_OK;
}

gptvq_status gptvq_mismatch_remember(void *context, const gptvq_observed *in, gptvq_error *err) {
  (void)err;
  gptvq_mismatch_watch *watch = context;
  for (size_t t = 0; t < in->rows; t++)
    memcpy(watch->x + t * in->cols, in->x + t * in->ldx, in->cols * sizeof *watch->x);
  if (watch->stream != NULL)
    memcpy(watch->stream, in->stream, in->rows * watch->mismatch->rows * sizeof *watch->stream);
  return GPTVQ_OK;
}

gptvq_status gptvq_mismatch_observe(void *context, const gptvq_observed *in, gptvq_error *err) {
  (void)err;
  const gptvq_mismatch_watch *watch = context;
  gptvq_mismatch_add(watch->mismatch, in->rows, watch->x, in->x, in->ldx, watch->stream, in->stream,
                     weights_of(&watch->weights, in));
  return GPTVQ_OK;
}
