#include "calib/sweep.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

gptvq_status gptvq_keep_input(void *context, const gptvq_observed *in, gptvq_error *err) {
  (void)err;
  const gptvq_kept *kept = context;
  if (in->window >= kept->windows) return GPTVQ_OK;
  float *values = kept->values + in->window * in->rows * in->cols;
  for (size_t t = 0; t < in->rows; t++)
    memcpy(values + t * in->cols, in->x + t * in->ldx, in->cols * sizeof *values);
  return GPTVQ_OK;
}

typedef struct audience {
  const gptvq_pass *pass;
  gptvq_observed in; /* window and stream stand */
} audience;

/* gptvq_capture */
static gptvq_status show(void *context, const gptvq_block *block, const size_t *linears, size_t count,
                         const float *x, size_t n, size_t ldx, gptvq_error *err) {
  audience *a = context;
  if (count == 0 || n == 0) return GPTVQ_OK;
  a->in.x = x;
  a->in.rows = n;
  a->in.cols = block->linears[linears[0]].cols;
  a->in.ldx = ldx;
  for (size_t i = 0; i < a->pass->observer_count; i++) {
    const gptvq_observer *observer = &a->pass->observers[i];
    if (observer->linear == linears[0]) GPTVQ_TRY(observer->on_input(observer->context, &a->in, err));
  }
  return GPTVQ_OK;
}

/* Attention has to run to its end for the MLP's inputs, on a copy where x is to stay. */
static bool needs_copy(const gptvq_pass *pass) {
  return pass->attention && pass->mlp && pass->stop != GPTVQ_RUN_ALL;
}

static gptvq_status run_window(const gptvq_sweep *s, const gptvq_pass *pass, size_t window, float *copy,
                               gptvq_error *err) {
  size_t values = s->length * s->model->config.hidden;
  const gptvq_kept *kept = pass->kept;
  float *x = pass->x + window * values;
  if (kept != NULL && window < kept->windows)
    return gptvq_block_output(s->model, pass->block, s->workspace, pass->mlp, s->length,
                              kept->values + window * s->length * kept->cols, x, err);
  if (needs_copy(pass)) x = memcpy(copy, x, values * sizeof *x);
  audience a = {pass, {.window = window, .stream = x}};
  if (pass->attention)
    GPTVQ_TRY(gptvq_block_attention(s->model, pass->block, s->workspace, 0, 0, s->length, x,
                                    pass->mlp ? GPTVQ_RUN_ALL : pass->stop, show, &a, err));
  if (pass->mlp)
    GPTVQ_TRY(gptvq_block_mlp(s->model, pass->block, s->workspace, s->length, x, pass->stop, show, &a, err));
  return GPTVQ_OK;
}

gptvq_status gptvq_sweep_block(const gptvq_sweep *s, const gptvq_pass *passes, size_t count,
                               gptvq_error *err) {
  size_t values = s->length * s->model->config.hidden;
  float *copy = NULL;
  gptvq_status status = GPTVQ_OK;
  for (size_t i = 0; i < count; i++) {
    if (copy != NULL || !needs_copy(&passes[i])) continue;
    copy = gptvq_alloc(values, sizeof *copy);
    if (copy == NULL) return gptvq_fail_memory(err, "calibration activations", values * sizeof *copy);
  }
  for (size_t w = 0; w < s->windows; w++) {
    for (size_t i = 0; i < count; i++) GPTVQ_TRY_GOTO(run_window(s, &passes[i], w, copy, err));
    GPTVQ_TRY_GOTO(gptvq_report_progress(s->callbacks, s->phase, s->item, s->done + (w + 1) * s->step,
                                         s->total, NAN, err));
  }
done:
  free(copy);
  return status;
}
