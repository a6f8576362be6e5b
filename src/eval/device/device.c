#include "eval/device/device.h"

#include "base/memory.h"
#include "base/sized.h"
#include "cuda/place.h"

#include <string.h>

typedef struct device {
  gptvq_eval_device shared; /* first: what evaluation knows of it */
  gptvq_place place;
} device;

/* Of one model's blocks, one at a time. */
static size_t block_bytes(const gptvq_model *model, size_t ctx) {
  const size_t rows = gptvq_runner_rows_of(model, ctx).block;
  size_t most = 0;
  for (size_t b = 0; b < model->config.layers; b++)
    most = gptvq_max_size(most, gptvq_cuda_forward_bytes(model, &model->blocks[b], ctx, rows, 1));
  return most;
}

static size_t head_bytes(const gptvq_model *model, size_t ctx) {
  return gptvq_cuda_head_bytes(model, gptvq_runner_rows_of(model, ctx).logits);
}

/* Heads take turns, row after row, so that both stay. */
size_t gptvq_eval_device_bytes(const gptvq_model *a, const gptvq_model *b, size_t ctx) {
  size_t blocks = block_bytes(a, ctx), heads = head_bytes(a, ctx);
  if (b != NULL) {
    blocks = gptvq_max_size(blocks, block_bytes(b, ctx));
    heads = gptvq_saturated_sum(heads, head_bytes(b, ctx));
  }
  return gptvq_max_size(blocks, heads);
}

static gptvq_status open_device(const char *name, const gptvq_model *a, const gptvq_model *b,
                                const gptvq_eval_options *options, const gptvq_callbacks *callbacks,
                                gptvq_eval_device **out, gptvq_error *err) {
  gptvq_device_choice choice;
  const gptvq_place_need need = {.bytes = gptvq_eval_device_bytes(a, b, gptvq_windows_ctx(a, options)),
                                 .forward_only = true};
  GPTVQ_TRY(gptvq_device_parse(name, &choice, err));
  device *d = gptvq_alloc_zero(1, sizeof *d);
  if (d == NULL) return gptvq_fail_memory(err, "a device", sizeof *d);
  const gptvq_status status = gptvq_place_open(&choice, &need, callbacks, &d->place, err);
  if (status != GPTVQ_OK) {
    free(d);
    return status;
  }
  d->shared.forward = gptvq_place_forward(&d->place);
  if (d->shared.forward != NULL) gptvq_place_say_forward(a, b, callbacks);
  *out = &d->shared;
  return GPTVQ_OK;
}

gptvq_status gptvq_eval_device_open(const char *name, const gptvq_model *a, const gptvq_model *b,
                                    const gptvq_eval_options *options, const gptvq_callbacks *callbacks,
                                    gptvq_eval_device **out, gptvq_error *err) {
  gptvq_eval_options o = {.size = sizeof o};
  gptvq_callbacks c = {.size = sizeof c};
  if (out == NULL || a == NULL)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "gptvq_eval_device_open needs a model, and where to put the device");
  *out = NULL;
  GPTVQ_TRY(GPTVQ_TAKE(gptvq_eval_options, options, &o, err));
  GPTVQ_TRY(GPTVQ_TAKE(gptvq_callbacks, callbacks, &c, err));
  gptvq_context *before = gptvq_context_use(a->context);
  const gptvq_status status = open_device(name, a, b, &o, &c, out, err);
  (void)gptvq_context_use(before);
  return status;
}

const char *gptvq_eval_device_name(const gptvq_eval_device *shared) {
  return shared != NULL ? ((const device *)shared)->place.name : "cpu";
}

void gptvq_eval_device_close(gptvq_eval_device *shared) {
  device *d = (device *)shared;
  if (d == NULL) return;
  gptvq_place_close(&d->place);
  free(d);
}
