/* Windows of calibration tokens out of a text file. */
#include "calib/parts.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/random.h"
#include "text/judge.h"

#include <gptvq/tokenizer.h>
#include <string.h>

static const size_t max_text_bytes = (size_t)1 << 32;

size_t gptvq_calibration_room(size_t count, size_t samples, size_t held, size_t length) {
  if (held == 0) return 0;
  size_t share = (size_t)((unsigned __int128)count * held / (samples + held) / length);
  return gptvq_min_size(gptvq_min_size(held, gptvq_max_size(share, 1)), count / 2 / length);
}

/* First number of part i when `count` numbers are cut into `parts`. */
static size_t part_begin(size_t count, size_t i, size_t parts) {
  return (size_t)((unsigned __int128)count * i / parts);
}

/* A stream of its own for each of several choices from one seed: neighbouring seeds give unrelated streams
 * from the second number on. */
static uint64_t first_state(uint64_t seed) {
  (void)gptvq_random(&seed);
  return seed;
}

/* A random number below `count`, 0 for 0. */
static size_t choose_below(uint64_t *state, size_t count) {
  uint64_t own = gptvq_random(state);
  return count > 0 ? gptvq_random_below(&own, count) : 0;
}

/* Window i somewhere in part i of the text, which has at least 2 · length tokens, such that a window of
 * others fits in before it. */
static void hold_out(size_t count, size_t held, size_t length, uint64_t seed, size_t *offsets) {
  uint64_t state = first_state(seed ^ 0x686f6c646f7574u);
  for (size_t i = 0; i < held; i++) {
    size_t begin = part_begin(count, i, held), size = part_begin(count, i + 1, held) - begin;
    offsets[i] = begin + length + choose_below(&state, size - 2 * length + 1);
  }
}

/* Places where a window may start in the gap before held-out window `gap` (the last gap ends with the text).
 */
static size_t gap_starts(size_t count, size_t length, const size_t *held, size_t held_count, size_t gap,
                         size_t *begin) {
  *begin = gap > 0 ? held[gap - 1] + length : 0;
  size_t end = gap < held_count ? held[gap] : count;
  return end - *begin >= length ? end - *begin - length + 1 : 0;
}

void gptvq_calibration_offsets(size_t count, size_t samples, size_t held, size_t length, uint64_t seed,
                               size_t *offsets) {
  const size_t *apart = offsets + samples;
  uint64_t state = first_state(seed);
  size_t starts = 0, gap = 0, passed = 0, begin;
  hold_out(count, held, length, seed, offsets + samples);
  for (size_t i = 0; i <= held; i++) starts += gap_starts(count, length, apart, held, i, &begin);
  for (size_t i = 0; i < samples; i++) {
    size_t first = part_begin(starts, i, samples),
           start = first + choose_below(&state, part_begin(starts, i + 1, samples) - first), here;
    while (start - passed >= (here = gap_starts(count, length, apart, held, gap, &begin))) {
      passed += here;
      gap++;
    }
    offsets[i] = begin + start - passed;
  }
}

/* Of `held` windows, whose are the one that is number k: `part` of them, evenly spread? */
static bool is_one_of(size_t part, size_t k, size_t held) { return (k + 1) * part / held > k * part / held; }

/* What there is no room for is left out: first what only judges, then both kinds that fine-tuning needs. */
static void fit_held(size_t count, const gptvq_callbacks *callbacks, gptvq_calibration *out) {
  size_t tuning = out->block_held + out->held, training = out->samples - out->block_held;
  size_t held = gptvq_calibration_room(count, training, tuning + out->judged_text, out->length);
  if (held < tuning) held = gptvq_calibration_room(count, training, tuning, out->length);
  if (held < tuning) {
    gptvq_log(callbacks, GPTVQ_LOG_WARNING,
              "calibration text %s has room for only %zu of the %zu windows to hold out of fine-tuning%s",
              out->source, held, tuning, held > 0 ? "" : ": it is judged by the windows it is trained on");
    out->held = gptvq_ceil_div(held * out->held, tuning);
    out->block_held = held - out->held;
    tuning = held;
  }
  out->seen = out->judged_text > 0 && held == tuning;
  if (!out->seen) out->judged_text = held - tuning;
}

/* The windows out of ids[count]. */
static gptvq_status cut_windows(const int32_t *ids, size_t count, uint64_t seed,
                                const gptvq_callbacks *callbacks, gptvq_calibration *out, gptvq_error *err) {
  size_t length = out->length;
  if (count < (out->samples + out->held) * length)
    gptvq_log(callbacks, GPTVQ_LOG_WARNING,
              "calibration text %s has %zu tokens, fewer than %zu windows of %zu: the windows overlap",
              out->source, count, out->samples + out->held, length);
  fit_held(count, callbacks, out);
  size_t training = out->samples - out->block_held, judged = out->seen ? 0 : out->judged_text,
         tuning = out->block_held + out->held, held = tuning + judged;
  size_t next_block = training, next = out->samples, next_judged = out->samples + out->held, tuned = 0;
  size_t *offsets = gptvq_alloc(training + held, sizeof *offsets);
  if (offsets == NULL)
    return gptvq_fail_memory(err, "calibration windows",
                             gptvq_saturated_size(training + held, sizeof *offsets));
  gptvq_calibration_offsets(count, training, held, length, seed, offsets);
  for (size_t i = 0; i < training + held; i++) {
    size_t window = i;
    if (i >= training) { /* each kind of held-out windows from all over the text */
      if (is_one_of(judged, i - training, held)) window = next_judged++;
      else window = is_one_of(out->held, tuned++, tuning) ? next++ : next_block++;
    }
    memcpy(out->tokens + window * length, ids + offsets[i], length * sizeof *ids);
  }
  free(offsets);
  for (size_t i = 0; out->seen && i < out->judged_text; i++)
    memcpy(out->tokens + next_judged++ * length,
           out->tokens + i * training / out->judged_text % training * length, length * sizeof *ids);
  return GPTVQ_OK;
}

gptvq_status gptvq_calibration_cut(const gptvq_model *model, const char *model_dir, const char *path,
                                   uint64_t seed, const gptvq_callbacks *callbacks, gptvq_calibration *out,
                                   gptvq_error *err) {
  gptvq_status status;
  gptvq_tokenizer *tokenizer = NULL;
  char *text = NULL;
  int32_t *ids = NULL;
  size_t size = 0, count = 0;
  GPTVQ_TRY_GOTO(gptvq_read_file(path, max_text_bytes, &text, &size, err));
  if (size == 0) {
    status = gptvq_fail(err, GPTVQ_ERROR_DATA,
                        "calibration text %s is empty: 0 tokens, at least %zu are needed", path, out->length);
    goto done;
  }
  bool warned = gptvq_text_warn(callbacks, path, text, size, NULL, 0); /* even if it is too short */
  GPTVQ_TRY_GOTO(gptvq_tokenizer_open(model_dir, &tokenizer, err));
  GPTVQ_TRY_GOTO(gptvq_tokenizer_encode(tokenizer, text, size, 0, &ids, &count, err));
  if (count < out->length) {
    status = gptvq_fail(err, GPTVQ_ERROR_DATA,
                        "calibration text %s is too short: %zu tokens, one window needs %zu (`calib_length`)",
                        path, count, out->length);
    goto done;
  }
  for (size_t i = 0; i < count; i++)
    if (ids[i] < 0 || (size_t)ids[i] >= model->config.vocab) {
      status =
          gptvq_fail(err, GPTVQ_ERROR_DATA,
                     "calibration text %s: the tokenizer's id %d is outside the model's vocabulary of %zu",
                     path, (int)ids[i], model->config.vocab);
      goto done;
    }
  if (!warned) gptvq_text_warn(callbacks, path, NULL, 0, ids, count);
  status = cut_windows(ids, count, seed, callbacks, out, err);
done:
  gptvq_free(ids);
  gptvq_tokenizer_close(tokenizer);
  free(text);
  return status;
}
