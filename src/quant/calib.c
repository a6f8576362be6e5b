#include "quant/calib.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/threads.h"

#include <gptvq/tokenizer.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { DEFAULT_LENGTH = 2048 };
static const size_t max_text_bytes = (size_t)1 << 32;
static const size_t max_tokens = (size_t)1 << 40; /* absurd beyond; keeps every product below in range */

uint64_t gptvq_hash(uint64_t hash, const void *data, size_t size) {
  const uint8_t *bytes = data;
  for (size_t i = 0; i < size; i++) hash = (hash ^ bytes[i]) * 0x100000001b3u;
  return hash;
}

uint64_t gptvq_calibration_hash(size_t samples, size_t length, const int32_t *tokens) {
  uint64_t sizes[2] = {samples, length};
  return gptvq_hash(gptvq_hash(GPTVQ_HASH_START, sizes, sizeof sizes), tokens, samples * length * sizeof *tokens);
}

gptvq_status gptvq_calibration_length(const gptvq_model *model, const gptvq_quantize_options *options, size_t *length,
                                      gptvq_error *err) {
  size_t context = model->config.max_positions, tokens;
  *length = options->calib_length != 0 ? options->calib_length : gptvq_min_size(DEFAULT_LENGTH, context);
  if (options->calib_samples == 0)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "0 calibration windows: give at least 1 (--calib-samples)");
  if (*length > context)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "calibration windows of %zu tokens exceed the model's context of %zu (--calib-length)", *length,
                      context);
  if (!gptvq_mul(options->calib_samples, *length, &tokens) || tokens > max_tokens)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "%zu calibration windows of %zu tokens are too many (--calib-samples)",
                      options->calib_samples, *length);
  return GPTVQ_OK;
}

void gptvq_calibration_offsets(size_t count, size_t samples, size_t length, uint64_t seed, size_t *offsets) {
  size_t starts = count - length + 1;
  uint64_t state = seed;
  (void)gptvq_random(&state); /* neighbouring seeds give unrelated streams from the second number on */
  for (size_t i = 0; i < samples; i++) {
    size_t begin = (size_t)((unsigned __int128)starts * i / samples);
    size_t end = (size_t)((unsigned __int128)starts * (i + 1) / samples);
    uint64_t own = gptvq_random(&state);
    offsets[i] = begin + (end > begin ? gptvq_random_below(&own, end - begin) : 0);
  }
}

static gptvq_status cut_text(const gptvq_model *model, const char *model_dir, const gptvq_quantize_options *options,
                             const gptvq_callbacks *callbacks, gptvq_calibration *out, gptvq_error *err) {
  gptvq_status status;
  gptvq_tokenizer *tokenizer = NULL;
  char *text = NULL;
  int32_t *ids = NULL;
  size_t size = 0, count = 0, *offsets = NULL;
  GPTVQ_TRY_GOTO(gptvq_read_file(options->calib, max_text_bytes, &text, &size, err));
  if (size == 0) {
    status = gptvq_fail(err, GPTVQ_ERROR_DATA, "calibration text %s is empty: 0 tokens, at least %zu are needed",
                        options->calib, out->length);
    goto done;
  }
  GPTVQ_TRY_GOTO(gptvq_tokenizer_open(model_dir, &tokenizer, err));
  GPTVQ_TRY_GOTO(gptvq_tokenizer_encode(tokenizer, text, size, 0, &ids, &count, err));
  if (count < out->length) {
    status = gptvq_fail(err, GPTVQ_ERROR_DATA,
                        "calibration text %s is too short: %zu tokens, one window needs %zu (--calib-length)",
                        options->calib, count, out->length);
    goto done;
  }
  for (size_t i = 0; i < count; i++)
    if (ids[i] < 0 || (size_t)ids[i] >= model->config.vocab) {
      status = gptvq_fail(err, GPTVQ_ERROR_DATA,
                          "calibration text %s: the tokenizer's id %d is outside the model's vocabulary of %zu",
                          options->calib, (int)ids[i], model->config.vocab);
      goto done;
    }
  if (count < out->samples * out->length)
    gptvq_log(callbacks, GPTVQ_LOG_WARNING,
              "calibration text %s has %zu tokens, fewer than %zu windows of %zu: the windows overlap", out->source,
              count, out->samples, out->length);
  offsets = gptvq_alloc(out->samples, sizeof *offsets);
  if (offsets == NULL) {
    status = gptvq_fail_memory(err, "calibration windows", gptvq_saturated_size(out->samples, sizeof *offsets));
    goto done;
  }
  gptvq_calibration_offsets(count, out->samples, out->length, options->seed, offsets);
  for (size_t i = 0; i < out->samples; i++)
    memcpy(out->tokens + i * out->length, ids + offsets[i], out->length * sizeof *ids);
done:
  free(offsets);
  gptvq_free(ids);
  gptvq_tokenizer_close(tokenizer);
  free(text);
  return status;
}

/* ---- sampling from the model itself ---- */
typedef struct sampling_thread {
  gptvq_session *session;
  float *logits;
  size_t failed; /* first window that failed, SIZE_MAX: none */
  gptvq_error error;
} sampling_thread;

typedef struct sampling {
  const gptvq_model *model;
  sampling_thread *threads;
  int32_t *tokens;
  size_t length, first; /* first window of this batch */
  uint64_t seed;
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

static gptvq_status sample_window(const sampling *job, sampling_thread *thread, size_t window) {
  const gptvq_model *model = job->model;
  int32_t *tokens = job->tokens + window * job->length;
  uint64_t state = job->seed ^ (window + 1) * 0xd1342543de82ef95u; /* odd multiplier: distinct for all windows */
  gptvq_sampler sampler = {.temperature = 1.0f, .top_p = 1.0f, .top_k = 0, .state = gptvq_random(&state)};
  gptvq_session_reset(thread->session);
  tokens[0] = start_token(model, &state);
  for (size_t i = 1; i < job->length; i++) {
    if (ends_text(model, tokens[i - 1])) { /* a new text; its start token still has to be appended to the cache */
      GPTVQ_TRY(gptvq_session_forward(thread->session, tokens + i - 1, 1, NULL, 0, &thread->error));
      tokens[i] = start_token(model, &state);
      continue;
    }
    GPTVQ_TRY(gptvq_session_forward(thread->session, tokens + i - 1, 1, thread->logits, 0, &thread->error));
    GPTVQ_TRY(gptvq_sample(&sampler, thread->logits, model->config.vocab, &tokens[i], &thread->error));
  }
  return GPTVQ_OK;
}

static void sample_task(void *context, size_t begin, size_t end, size_t thread_index) {
  const sampling *job = context;
  sampling_thread *thread = &job->threads[thread_index];
  for (size_t i = begin; i < end; i++) {
    if (thread->failed != SIZE_MAX) return;
    if (sample_window(job, thread, job->first + i) != GPTVQ_OK) thread->failed = job->first + i;
  }
}

static gptvq_status sample_self(const gptvq_model *model, const gptvq_quantize_options *options,
                                const gptvq_callbacks *callbacks, gptvq_calibration *out, gptvq_error *err) {
  gptvq_status status = GPTVQ_OK;
  size_t threads = gptvq_min_size((size_t)gptvq_get_threads(), out->samples);
  sampling job = {model, NULL, out->tokens, out->length, 0, options->seed};
  /* every thread index that the pool may hand out has a slot; with fewer windows than threads the extra ones stay unused */
  size_t slots = (size_t)gptvq_get_threads();
  job.threads = calloc(slots, sizeof *job.threads);
  if (job.threads == NULL) return gptvq_fail_memory(err, "sampling", slots * sizeof *job.threads);
  for (size_t i = 0; i < slots; i++) {
    job.threads[i].failed = SIZE_MAX;
    GPTVQ_TRY_GOTO(gptvq_session_create(model, out->length, &job.threads[i].session, err));
    job.threads[i].logits = gptvq_alloc(model->config.vocab, sizeof(float));
    if (job.threads[i].logits == NULL) {
      status = gptvq_fail_memory(err, "sampling", model->config.vocab * sizeof(float));
      goto done;
    }
  }
  for (size_t batch; job.first < out->samples; job.first += batch) {
    batch = gptvq_min_size(2 * threads, out->samples - job.first);
    gptvq_parallel_for(batch, 1, sample_task, &job);
    const sampling_thread *failed = NULL; /* of the first window that failed */
    for (size_t i = 0; i < slots; i++)
      if (job.threads[i].failed != SIZE_MAX && (failed == NULL || job.threads[i].failed < failed->failed))
        failed = &job.threads[i];
    if (failed != NULL) {
      status = gptvq_fail(err, failed->error.status, "sampling calibration text from the model: %s",
                          failed->error.message);
      goto done;
    }
    GPTVQ_TRY_GOTO(
        gptvq_report_progress(callbacks, "sample", "", job.first + batch, out->samples, NAN, err));
  }
done:
  for (size_t i = 0; i < slots; i++) {
    gptvq_session_destroy(job.threads[i].session);
    free(job.threads[i].logits);
  }
  free(job.threads);
  return status;
}

gptvq_status gptvq_calibration_create(const gptvq_model *model, const char *model_dir,
                                      const gptvq_quantize_options *options, const gptvq_callbacks *callbacks,
                                      gptvq_calibration *out, gptvq_error *err) {
  *out = (gptvq_calibration){.samples = options->calib_samples};
  if (options->calib == NULL || options->calib[0] == '\0')
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "this method needs calibration text: give a text file, or \"self\" to sample it from the model "
                      "(--calib FILE|self)");
  GPTVQ_TRY(gptvq_calibration_length(model, options, &out->length, err));
  out->tokens = gptvq_alloc(out->samples * out->length, sizeof *out->tokens);
  if (out->tokens == NULL)
    return gptvq_fail_memory(err, "calibration windows", out->samples * out->length * sizeof *out->tokens);
  const char *slash = strrchr(options->calib, '/');
  (void)snprintf(out->source, sizeof out->source, "%s", slash != NULL ? slash + 1 : options->calib);
  gptvq_status status = strcmp(options->calib, "self") == 0
                            ? sample_self(model, options, callbacks, out, err)
                            : cut_text(model, model_dir, options, callbacks, out, err);
  if (status == GPTVQ_OK) out->hash = gptvq_calibration_hash(out->samples, out->length, out->tokens);
  else gptvq_calibration_release(out);
  return status;
}

void gptvq_calibration_release(gptvq_calibration *calibration) {
  free(calibration->tokens);
  calibration->tokens = NULL;
}
