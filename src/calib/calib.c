#include "calib/calib.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/threads.h"
#include "model/workspace.h"
#include "text/judge.h"

#include <gptvq/tokenizer.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { DEFAULT_LENGTH = 2048 };
static const size_t max_text_bytes = (size_t)1 << 32;
static const size_t max_tokens = (size_t)1 << 40; /* absurd beyond; keeps every product below in range */

uint64_t gptvq_calibration_hash(size_t samples, size_t length, const int32_t *tokens) {
  uint64_t sizes[2] = {samples, length};
  return gptvq_hash(gptvq_hash(0, sizes, sizeof sizes), tokens, samples * length * sizeof *tokens);
}

gptvq_status gptvq_calibration_length(const gptvq_model *model, const gptvq_quantize_options *options,
                                      size_t *length, gptvq_error *err) {
  size_t context = model->config.max_positions, tokens;
  *length = options->calib_length != 0 ? options->calib_length : gptvq_min_size(DEFAULT_LENGTH, context);
  if (options->calib_samples == 0)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "0 calibration windows: give at least 1 (`calib_samples`)");
  if (*length > context)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "calibration windows of %zu tokens exceed the model's context of %zu (`calib_length`)",
                      *length, context);
  if (!gptvq_mul(options->calib_samples, *length, &tokens) || tokens > max_tokens)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "%zu calibration windows of %zu tokens are too many (`calib_samples`)",
                      options->calib_samples, *length);
  return GPTVQ_OK;
}

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

/* The windows out of ids[count]. */
static gptvq_status cut_windows(const int32_t *ids, size_t count, uint64_t seed,
                                const gptvq_callbacks *callbacks, gptvq_calibration *out, gptvq_error *err) {
  size_t wanted = out->block_held + out->held, length = out->length;
  if (count < (out->samples + out->held) * length)
    gptvq_log(callbacks, GPTVQ_LOG_WARNING,
              "calibration text %s has %zu tokens, fewer than %zu windows of %zu: the windows overlap",
              out->source, count, out->samples + out->held, length);
  size_t held = gptvq_calibration_room(count, out->samples - out->block_held, wanted, length);
  if (held < wanted) {
    gptvq_log(callbacks, GPTVQ_LOG_WARNING,
              "calibration text %s has room for only %zu of the %zu windows to hold out of fine-tuning%s",
              out->source, held, wanted, held > 0 ? "" : ": it is judged by the windows it is trained on");
    out->held = gptvq_ceil_div(held * out->held, wanted);
    out->block_held = held - out->held;
  }
  size_t training = out->samples - out->block_held, next_block = training, next = out->samples;
  size_t *offsets = gptvq_alloc(training + held, sizeof *offsets);
  if (offsets == NULL)
    return gptvq_fail_memory(err, "calibration windows",
                             gptvq_saturated_size(training + held, sizeof *offsets));
  gptvq_calibration_offsets(count, training, held, length, seed, offsets);
  for (size_t i = 0; i < training + held; i++) {
    size_t window = i;
    if (i >= training) { /* both kinds of held-out windows from all over the text */
      size_t k = i - training;
      window = (k + 1) * out->held / held > k * out->held / held ? next++ : next_block++;
    }
    memcpy(out->tokens + window * length, ids + offsets[i], length * sizeof *ids);
  }
  free(offsets);
  return GPTVQ_OK;
}

static gptvq_status cut_text(const gptvq_model *model, const char *model_dir,
                             const gptvq_quantize_options *options, const gptvq_callbacks *callbacks,
                             gptvq_calibration *out, gptvq_error *err) {
  gptvq_status status;
  gptvq_tokenizer *tokenizer = NULL;
  char *text = NULL;
  int32_t *ids = NULL;
  size_t size = 0, count = 0;
  GPTVQ_TRY_GOTO(gptvq_read_file(options->calib, max_text_bytes, &text, &size, err));
  if (size == 0) {
    status =
        gptvq_fail(err, GPTVQ_ERROR_DATA, "calibration text %s is empty: 0 tokens, at least %zu are needed",
                   options->calib, out->length);
    goto done;
  }
  bool warned = gptvq_text_warn(callbacks, options->calib, text, size, NULL, 0); /* even if it is too short */
  GPTVQ_TRY_GOTO(gptvq_tokenizer_open(model_dir, &tokenizer, err));
  GPTVQ_TRY_GOTO(gptvq_tokenizer_encode(tokenizer, text, size, 0, &ids, &count, err));
  if (count < out->length) {
    status = gptvq_fail(err, GPTVQ_ERROR_DATA,
                        "calibration text %s is too short: %zu tokens, one window needs %zu (`calib_length`)",
                        options->calib, count, out->length);
    goto done;
  }
  for (size_t i = 0; i < count; i++)
    if (ids[i] < 0 || (size_t)ids[i] >= model->config.vocab) {
      status =
          gptvq_fail(err, GPTVQ_ERROR_DATA,
                     "calibration text %s: the tokenizer's id %d is outside the model's vocabulary of %zu",
                     options->calib, (int)ids[i], model->config.vocab);
      goto done;
    }
  if (!warned) gptvq_text_warn(callbacks, options->calib, NULL, 0, ids, count);
  status = cut_windows(ids, count, options->seed, callbacks, out, err);
done:
  gptvq_free(ids);
  gptvq_tokenizer_close(tokenizer);
  free(text);
  return status;
}

/* ---- sampling from the model itself ---- */
/* Windows that are written side by side, token by token, so that the weights are read once for all of them:
 * as many as their caches fit into CACHE_BYTES, by the model and the length alone, as the text depends on it
 * in the last digits of the logits. */
enum { TOGETHER = 32, REPORT_EVERY = 64 };
static const size_t cache_bytes = (size_t)4 << 30;

typedef struct sampling {
  gptvq_model model; /* with inputs in bf16 and caches in fp16 where it may: the text need not be exact */
  gptvq_workspace *workspace;
  int32_t *tokens; /* [count × length] */
  size_t length, count, position;
  uint64_t state[TOGETHER];
  gptvq_sampler sampler[TOGETHER];
  gptvq_error error[TOGETHER];
  gptvq_attention_text texts[TOGETHER];
  int32_t *last;     /* [count] */
  float *x, *logits; /* [count × hidden], [count × vocab] */
} sampling;

static int32_t start_token(const gptvq_model *model, uint64_t *state) {
  int32_t bos = model->info.bos;
  if (bos >= 0 && (size_t)bos < model->config.vocab) return bos;
  return (int32_t)gptvq_random_below(state, model->config.vocab);
}

static bool ends_text(const gptvq_model *model, int32_t token) {
  for (size_t i = 0; i < model->info.eos_count; i++)
    if (model->info.eos[i] == token) return true;
  return false;
}

/* Token position + 1 of each window. */
static void choose(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  sampling *job = context;
  size_t vocab = job->model.config.vocab;
  for (size_t i = begin; i < end; i++) {
    int32_t *token = job->tokens + i * job->length + job->position;
    if (ends_text(&job->model, token[0]))
      token[1] = start_token(&job->model, &job->state[i]); /* a new text */
    else (void)gptvq_sample(&job->sampler[i], job->logits + i * vocab, vocab, &token[1], &job->error[i]);
  }
}

static gptvq_status sample_step(sampling *job, gptvq_error *err) {
  const gptvq_model *model = &job->model;
  for (size_t i = 0; i < job->count; i++) job->last[i] = job->tokens[i * job->length + job->position];
  GPTVQ_TRY(gptvq_embed(model, job->last, job->count, job->x, err));
  for (size_t b = 0; b < model->config.layers; b++) {
    for (size_t i = 0; i < job->count; i++)
      GPTVQ_TRY(gptvq_workspace_text(model, &model->blocks[b], job->workspace, b * job->count + i,
                                     job->position, i, 1, &job->texts[i], err));
    GPTVQ_TRY(gptvq_block_attention_step(model, &model->blocks[b], job->workspace, job->texts, job->count,
                                         job->count, job->x, err));
    GPTVQ_TRY(gptvq_block_mlp(model, &model->blocks[b], job->workspace, job->count, job->x, GPTVQ_RUN_ALL,
                              NULL, NULL, err));
  }
  GPTVQ_TRY(gptvq_head(model, job->workspace, job->count, job->x, job->logits, err));
  gptvq_parallel_for(job->count, 1, choose, job);
  for (size_t i = 0; i < job->count; i++)
    if (job->error[i].status != GPTVQ_OK)
      return gptvq_fail(err, job->error[i].status, "%s", job->error[i].message);
  return GPTVQ_OK;
}

/* Windows [first, first + count) */
static gptvq_status sample_windows(sampling *job, size_t first, size_t samples, uint64_t seed,
                                   const gptvq_callbacks *callbacks, gptvq_error *err) {
  for (size_t i = 0; i < job->count; i++) {
    job->state[i] =
        seed ^ (first + i + 1) * 0xd1342543de82ef95u; /* odd multiplier: distinct for all windows */
    job->sampler[i] = (gptvq_sampler){.size = sizeof(gptvq_sampler),
                                      .temperature = 1.0f,
                                      .top_p = 1.0f,
                                      .state = gptvq_random(&job->state[i])};
    job->error[i] = (gptvq_error){.status = GPTVQ_OK};
    job->tokens[i * job->length] = start_token(&job->model, &job->state[i]);
  }
  for (job->position = 0; job->position + 1 < job->length; job->position++) {
    gptvq_error inner = {.status = GPTVQ_OK};
    if (sample_step(job, &inner) != GPTVQ_OK)
      return gptvq_fail(err, inner.status, "sampling calibration text from the model: %s", inner.message);
    if (job->position % REPORT_EVERY == 0) /* the caller may stop it */
      GPTVQ_TRY(gptvq_report_progress(callbacks, "sample", "", first, samples, NAN, err));
  }
  return GPTVQ_OK;
}

static gptvq_status sample_self(const gptvq_model *model, const gptvq_quantize_options *options,
                                const gptvq_callbacks *callbacks, gptvq_calibration *out, gptvq_error *err) {
  const gptvq_config *c = &model->config;
  sampling *job = calloc(1, sizeof *job);
  gptvq_status status = GPTVQ_OK;
  if (job == NULL) return gptvq_fail_memory(err, "sampling", sizeof *job);
  job->model = *model;
  job->model.compute = GPTVQ_COMPUTE_INT8;
  size_t window = gptvq_workspace_text_bytes(&job->model, out->length);
  size_t windows = out->samples + out->held;
  size_t together = gptvq_min_size(gptvq_max_size(1, cache_bytes / gptvq_max_size(1, window)),
                                   gptvq_min_size(TOGETHER, windows));
  job->length = out->length;
  job->last = gptvq_alloc(together, sizeof *job->last);
  job->x = gptvq_alloc(together, c->hidden * sizeof *job->x);
  job->logits = gptvq_alloc(together, c->vocab * sizeof *job->logits);
  if (job->last == NULL || job->x == NULL || job->logits == NULL) {
    status = gptvq_fail_memory(err, "sampling",
                               gptvq_saturated_size(together, (c->hidden + c->vocab) * sizeof(float)));
    goto done;
  }
  for (size_t first = 0; first < windows; first += job->count) {
    size_t count = gptvq_min_size(together, windows - first);
    if (count != job->count) { /* caches lie closer in the last, smaller batch */
      gptvq_workspace_destroy(job->workspace);
      job->workspace = NULL;
      GPTVQ_TRY_GOTO(
          gptvq_workspace_create(&job->model, c->layers * count, count, out->length, &job->workspace, err));
    }
    job->count = count;
    job->tokens = out->tokens + first * out->length;
    GPTVQ_TRY_GOTO(sample_windows(job, first, windows, options->seed, callbacks, err));
    GPTVQ_TRY_GOTO(gptvq_report_progress(callbacks, "sample", "", first + count, windows, NAN, err));
  }
  gptvq_text_warn(callbacks, "the text sampled from the model", NULL, 0, out->tokens, windows * out->length);
done:
  gptvq_workspace_destroy(job->workspace);
  free(job->last);
  free(job->x);
  free(job->logits);
  free(job);
  return status;
}

gptvq_status gptvq_calibration_init(const gptvq_model *model, const gptvq_quantize_options *options,
                                    gptvq_calibration *out, gptvq_error *err) {
  size_t samples = options->calib_samples, eighth = gptvq_ceil_div(samples, 8);
  *out = (gptvq_calibration){.samples = samples};
  GPTVQ_TRY(gptvq_calibration_length(model, options, &out->length, err));
  if (options->finetune_block_steps > 0) out->block_held = gptvq_min_size(eighth, samples / 2);
  if (options->finetune_steps > 0) out->held = eighth;
  size_t tokens = (samples + out->held) * out->length;
  out->tokens = gptvq_alloc(tokens, sizeof *out->tokens);
  if (out->tokens == NULL) return gptvq_fail_memory(err, "calibration windows", tokens * sizeof *out->tokens);
  return GPTVQ_OK;
}

gptvq_status gptvq_calibration_create(const gptvq_model *model, const char *model_dir,
                                      const gptvq_quantize_options *options, const gptvq_callbacks *callbacks,
                                      gptvq_calibration *out, gptvq_error *err) {
  *out = (gptvq_calibration){0};
  if (options->calib == NULL || options->calib[0] == '\0')
    return gptvq_fail(
        err, GPTVQ_ERROR_ARGUMENT,
        "this method needs calibration text: give a text file, or \"self\" to sample it from the model "
        "(`calib`: FILE or self)");
  gptvq_status status = gptvq_calibration_init(model, options, out, err);
  const char *slash = strrchr(options->calib, '/');
  (void)snprintf(out->source, sizeof out->source, "%s", slash != NULL ? slash + 1 : options->calib);
  if (status == GPTVQ_OK)
    status = strcmp(options->calib, "self") == 0 ? sample_self(model, options, callbacks, out, err)
                                                 : cut_text(model, model_dir, options, callbacks, out, err);
  if (status == GPTVQ_OK)
    out->hash = gptvq_calibration_hash(out->samples + out->held, out->length, out->tokens);
  else gptvq_calibration_release(out);
  return status;
}

void gptvq_calibration_release(gptvq_calibration *calibration) {
  free(calibration->tokens);
  calibration->tokens = NULL;
}
