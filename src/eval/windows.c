#include "eval/eval.h"

#include <string.h>

enum { DEFAULT_CTX = 2048, MOST_CTX = 1 << 24 };

size_t gptvq_windows_ctx(const gptvq_model *model, const gptvq_eval_options *options) {
  const size_t positions = model->config.max_positions;
  if (options->ctx > 0) return options->ctx;
  return positions > 0 && positions < DEFAULT_CTX ? positions : DEFAULT_CTX;
}

gptvq_status gptvq_windows_create(const gptvq_model *model, const gptvq_tokenizer *tokenizer,
                                  const char *text, size_t size, const gptvq_eval_options *options,
                                  gptvq_windows *out, gptvq_error *err) {
  const size_t ctx = gptvq_windows_ctx(model, options);
  memset(out, 0, sizeof *out);
  if (ctx < 2 || ctx > MOST_CTX)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "a window of %zu tokens makes no sense: ctx must be 2 to %d",
                      ctx, MOST_CTX);
  if (options->score_from >= ctx - 1)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "nothing to score: score_from is %zu, the last prediction of a window of %zu tokens is "
                      "made at position %zu",
                      options->score_from, ctx, ctx - 2);
  size_t count;
  GPTVQ_TRY(gptvq_tokenizer_encode(tokenizer, text, size, options->bos, &out->ids, &count, err));
  out->ctx = ctx;
  out->first = options->score_from;
  out->count = count / ctx;
  if (options->max_windows > 0 && out->count > options->max_windows) out->count = options->max_windows;
  if (out->count > 0) return GPTVQ_OK;
  gptvq_free(out->ids);
  out->ids = NULL;
  return gptvq_fail(
      err, GPTVQ_ERROR_DATA,
      "the text is too short: it has %zu tokens, one window has %zu; use a longer text or a smaller ctx",
      count, ctx);
}
