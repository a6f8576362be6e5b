/* calib/observers.h: what watches a sweep (calib/sweep.h) to add up Hessians and mismatches. */
#ifndef GPTVQ_CALIB_OBSERVERS_H
#define GPTVQ_CALIB_OBSERVERS_H

#include "calib/hessian.h"
#include "calib/mismatch.h"
#include "calib/sweep.h"

/* Weights of the tokens: [windows × length], the mean 1; `values` NULL: all 1. Rows of an expert weigh that
 * times share^share_power. */
typedef struct gptvq_token_weights {
  const float *values;
  size_t length;
  float share_power;
} gptvq_token_weights;

typedef struct gptvq_hessian_watch {
  gptvq_hessian *hessian;
  gptvq_token_weights weights;
  float *scratch; /* [length × cols], with weights */
  double sum;     /* of the weights so far, with weights */
} gptvq_hessian_watch;
/* Does it pass inputs on unread (gptvq_observer.passes_on)? */
static inline bool gptvq_hessian_passes_on(const gptvq_hessian_watch *watch) {
  return watch->weights.values == NULL;
}
size_t gptvq_hessian_watch_bytes(size_t length, size_t cols); /* of scratch; no weights: none */
/* on_input (context: gptvq_hessian_watch): adds w x xᵀ. */
gptvq_status gptvq_hessian_observe(void *watch, const gptvq_observed *in, gptvq_error *err);

/* Watches two passes: the original model's, and after it the quantized one's. With rows the first goes to its
 * end. */
typedef struct gptvq_mismatch_watch {
  gptvq_mismatch *mismatch;
  gptvq_token_weights weights;
  float *remembered; /* [length × cols]: the original's inputs in the window at work; or, where the mismatch
                        has  rows, its residual stream before the layer adds to it [length × rows] */
  const float *bias; /* [rows] of the layer, or NULL */
  float scale;       /* as in gptvq_deviation */
} gptvq_mismatch_watch;
/* Is it the backend that remembers the original's inputs? */
static inline bool gptvq_mismatch_backend_remembers(const gptvq_mismatch_watch *watch) {
  return watch->weights.values == NULL && gptvq_mismatch_remembers(watch->mismatch);
}
/* Do both pass inputs on unread? With rows, what was remembered is the stream. */
static inline bool gptvq_mismatch_passes_on(const gptvq_mismatch_watch *watch) {
  return watch->mismatch->rows > 0 || gptvq_mismatch_backend_remembers(watch);
}
size_t gptvq_mismatch_watch_bytes(size_t length, size_t cols, size_t rows); /* of what is remembered */
gptvq_status gptvq_mismatch_remember(void *watch, const gptvq_observed *in, gptvq_error *err); /* first */
gptvq_status gptvq_mismatch_observe(void *watch, const gptvq_observed *in, gptvq_error *err);  /* second */

#endif
