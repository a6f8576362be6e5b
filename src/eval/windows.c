#include "eval/eval.h"

#include <string.h>

void gptvq_eval_options_init(gptvq_eval_options *options) { memset(options, 0, sizeof *options); }

enum { DEFAULT_CTX = 2048, MOST_CTX = 1 << 24 };

gptvq_status gptvq_windows_create(const gptvq_model *model, const gptvq_tokenizer *tokenizer,
                                  const char *text, size_t size, const gptvq_eval_options *options,
                                  gptvq_windows *out, gptvq_error *err) {
  gptvq_model_info info;
  gptvq_model_get_info(model, &info);
  memset(out, 0, sizeof *out);
  size_t ctx = options->ctx;
  if (ctx == 0)
    ctx = info.max_positions > 0 && info.max_positions < DEFAULT_CTX ? info.max_positions : DEFAULT_CTX;
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
