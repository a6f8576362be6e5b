#include "quant/calib.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/threads.h"
#include "model/workspace.h"

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
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "0 calibration windows: give at least 1 (--calib-samples)");
  if (*length > context)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "calibration windows of %zu tokens exceed the model's context of %zu (--calib-length)",
                      *length, context);
  if (!gptvq_mul(options->calib_samples, *length, &tokens) || tokens > max_tokens)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "%zu calibration windows of %zu tokens are too many (--calib-samples)",
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

static gptvq_status cut_text(const gptvq_model *model, const char *model_dir,
                             const gptvq_quantize_options *options, const gptvq_callbacks *callbacks,
                             gptvq_calibration *out, gptvq_error *err) {
  gptvq_status status;
  gptvq_tokenizer *tokenizer = NULL;
  char *text = NULL;
  int32_t *ids = NULL;
  size_t size = 0, count = 0, *offsets = NULL;
  GPTVQ_TRY_GOTO(gptvq_read_file(options->calib, max_text_bytes, &text, &size, err));
  if (size == 0) {
    status =
        gptvq_fail(err, GPTVQ_ERROR_DATA, "calibration text %s is empty: 0 tokens, at least %zu are needed",
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
      status =
          gptvq_fail(err, GPTVQ_ERROR_DATA,
                     "calibration text %s: the tokenizer's id %d is outside the model's vocabulary of %zu",
                     options->calib, (int)ids[i], model->config.vocab);
      goto done;
    }
  if (count < out->samples * out->length)
    gptvq_log(callbacks, GPTVQ_LOG_WARNING,
              "calibration text %s has %zu tokens, fewer than %zu windows of %zu: the windows overlap",
              out->source, count, out->samples, out->length);
  offsets = gptvq_alloc(out->samples, sizeof *offsets);
  if (offsets == NULL) {
    status =
        gptvq_fail_memory(err, "calibration windows", gptvq_saturated_size(out->samples, sizeof *offsets));
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
/* Windows that are written side by side, token by token, so that the weights are read once for all of them:
 * as many as their caches fit into CACHE_BYTES, by the model and the length alone, as the text depends on it
 * in the last digits of the logits. */
enum { TOGETHER = 32, REPORT_EVERY = 64 };
static const size_t cache_bytes = (size_t)4 << 30;

typedef struct sampling {
  gptvq_model model; /* with inputs in bf16 and caches in fp16: the text need not be exact */
  gptvq_workspace *workspace;
  int32_t *tokens; /* [count × length] */
  size_t length, count, position;
  uint64_t state[TOGETHER];
  gptvq_sampler sampler[TOGETHER];
  gptvq_error error[TOGETHER];
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
    GPTVQ_TRY(gptvq_block_attention_step(model, &model->blocks[b], job->workspace, b, job->position,
                                         job->count, job->x, err));
    GPTVQ_TRY(gptvq_block_mlp(model, &model->blocks[b], job->workspace, job->count, job->x, GPTVQ_RUN_ALL,
                              NULL, NULL, err));
  }
  for (size_t i = 0; i < job->count * model->config.hidden; i++)
    if (!isfinite(job->x[i]))
      return gptvq_fail(err, GPTVQ_ERROR_NUMERIC,
                        "NaN or infinity in the activations: the weights are damaged or too large");
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
    job->sampler[i] = (gptvq_sampler){
        .temperature = 1.0f, .top_p = 1.0f, .top_k = 0, .state = gptvq_random(&job->state[i])};
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
  size_t window = gptvq_saturated_size(2 * c->layers * c->kv_heads * c->head_dim,
                                       gptvq_saturated_size(out->length, sizeof(uint16_t)));
  size_t together = gptvq_min_size(gptvq_max_size(1, cache_bytes / gptvq_max_size(1, window)),
                                   gptvq_min_size(TOGETHER, out->samples));
  sampling *job = calloc(1, sizeof *job);
  gptvq_status status = GPTVQ_OK;
  if (job == NULL) return gptvq_fail_memory(err, "sampling", sizeof *job);
  job->model = *model;
  job->model.compute = GPTVQ_COMPUTE_INT8;
  job->length = out->length;
  job->last = gptvq_alloc(together, sizeof *job->last);
  job->x = gptvq_alloc(together, c->hidden * sizeof *job->x);
  job->logits = gptvq_alloc(together, c->vocab * sizeof *job->logits);
  if (job->last == NULL || job->x == NULL || job->logits == NULL) {
    status = gptvq_fail_memory(err, "sampling",
                               gptvq_saturated_size(together, (c->hidden + c->vocab) * sizeof(float)));
    goto done;
  }
  for (size_t first = 0; first < out->samples; first += job->count) {
    size_t count = gptvq_min_size(together, out->samples - first);
    if (count != job->count) { /* caches lie closer in the last, smaller batch */
      gptvq_workspace_destroy(job->workspace);
      job->workspace = NULL;
      GPTVQ_TRY_GOTO(
          gptvq_workspace_create(&job->model, c->layers * count, count, out->length, &job->workspace, err));
    }
    job->count = count;
    job->tokens = out->tokens + first * out->length;
    GPTVQ_TRY_GOTO(sample_windows(job, first, out->samples, options->seed, callbacks, err));
    GPTVQ_TRY_GOTO(gptvq_report_progress(callbacks, "sample", "", first + count, out->samples, NAN, err));
  }
done:
  gptvq_workspace_destroy(job->workspace);
  free(job->last);
  free(job->x);
  free(job->logits);
  free(job);
  return status;
}

gptvq_status gptvq_calibration_create(const gptvq_model *model, const char *model_dir,
                                      const gptvq_quantize_options *options, const gptvq_callbacks *callbacks,
                                      gptvq_calibration *out, gptvq_error *err) {
  *out = (gptvq_calibration){.samples = options->calib_samples};
  if (options->calib == NULL || options->calib[0] == '\0')
    return gptvq_fail(
        err, GPTVQ_ERROR_ARGUMENT,
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
