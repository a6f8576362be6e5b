/* The finished model beside the original, on text that it was not fitted to. */
#include "quant/run/pipeline.h"
#include "eval/eval.h"

static gptvq_status judge(const gptvq_model *original, const gptvq_model *packed,
                          const gptvq_forward *forward, const int32_t *tokens, size_t windows, size_t length,
                          const gptvq_callbacks *callbacks, gptvq_quantize_loss *out, gptvq_error *err) {
  gptvq_compare_result result = {.size = sizeof result};
  gptvq_error inner = {.status = GPTVQ_OK};
  if (windows == 0 || length < 2) return GPTVQ_OK;
  const gptvq_windows cut = {(int32_t *)(uintptr_t)tokens, windows, length, 0}; /* only read */
  gptvq_status status = gptvq_compare_windows(original, packed, forward, &cut, callbacks, &result, &inner);
  if (status == GPTVQ_ERROR_NUMERIC) {
    gptvq_log(callbacks, GPTVQ_LOG_WARNING, "what was lost is not known: %s", inner.message);
    return GPTVQ_OK;
  }
  if (status != GPTVQ_OK) return gptvq_fail(err, status, "%s", inner.message);
  *out = (gptvq_quantize_loss){.tokens = result.tokens,
                               .kl = result.kl_mean,
                               .kl_stderr = result.kl_stderr,
                               .perplexity_before = result.perplexity_a,
                               .perplexity = result.perplexity_b};
  return GPTVQ_OK;
}

gptvq_status gptvq_pipeline_judge(const gptvq_model *original, const char *folder,
                                  const gptvq_forward *forward, const gptvq_calibration *calibration,
                                  const gptvq_callbacks *callbacks, gptvq_quantize_report *report,
                                  gptvq_error *err) {
  const gptvq_calibration *c = calibration;
  const gptvq_model_options open = {.size = sizeof open, .compute = original->compute};
  gptvq_model *packed;
  if (c->judged_text + c->judged_self == 0) return GPTVQ_OK;
  GPTVQ_TRY(gptvq_model_open(folder, &open, &packed, err));
  packed->rounds_attention = original->rounds_attention; /* what differs is the weights alone */
  const int32_t *text = c->tokens + (c->samples + c->held) * c->length,
                *self = text + c->judged_text * c->length;
  gptvq_status status =
      judge(original, packed, forward, text, c->judged_text, c->length, callbacks, &report->loss_text, err);
  if (status == GPTVQ_OK)
    status =
        judge(original, packed, forward, self, c->judged_self, c->length, callbacks, &report->loss_self, err);
  report->loss_text.seen = c->seen;
  gptvq_model_close(packed);
  return status;
}
