/* Windows of calibration tokens that the model writes itself. */
#include "calib/parts.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/threads.h"
#include "model/workspace.h"
#include "text/judge.h"

#include <math.h>
#include <string.h>

enum { TOGETHER = 32, REPORT_EVERY = 64 };

/* Windows that are written side by side, token by token, so that the weights are read once for all of them:
 * as many as their caches fit into the budget. The text depends on it in the last digits of the logits. */
static size_t windows_together(const gptvq_model *sampling_model, size_t windows, size_t length,
                               size_t budget) {
  const size_t window = gptvq_max_size(1, gptvq_workspace_text_bytes(sampling_model, length));
  return gptvq_min_size(gptvq_max_size(1, budget / window), gptvq_min_size(TOGETHER, windows));
}

typedef struct sampling {
  gptvq_model model; /* with inputs in bf16 and caches in fp16 where it may: the text need not be exact */
  gptvq_workspace *workspace;
  int32_t *tokens;                       /* [count × length] */
  size_t length, count, position, first; /* first: number of the first window */
  uint64_t state[TOGETHER];
  gptvq_sampler sampler[TOGETHER];
  gptvq_error error[TOGETHER];
  gptvq_attention_text texts[TOGETHER];
  int32_t *last;     /* [count] */
  float *x, *logits; /* [count × hidden], [count × vocab] */
} sampling;

/* Every other window starts its texts with any token at all: what a model writes from its BOS alone is
 * narrow, a chat model's little but chat. */
static int32_t start_token(const gptvq_model *model, size_t window, uint64_t *state) {
  int32_t bos = model->info.bos;
  if (window % 2 == 0 && bos >= 0 && (size_t)bos < model->config.vocab) return bos;
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
      token[1] = start_token(&job->model, job->first + i, &job->state[i]); /* a new text */
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
  job->first = first;
  for (size_t i = 0; i < job->count; i++) {
    job->state[i] =
        seed ^ (first + i + 1) * 0xd1342543de82ef95u; /* odd multiplier: distinct for all windows */
    job->sampler[i] = (gptvq_sampler){.size = sizeof(gptvq_sampler),
                                      .temperature = 1.0f,
                                      .top_p = 1.0f,
                                      .state = gptvq_random(&job->state[i])};
    job->error[i] = (gptvq_error){.status = GPTVQ_OK};
    job->tokens[i * job->length] = start_token(&job->model, first + i, &job->state[i]);
  }
  for (job->position = 0; job->position + 1 < job->length; job->position++) {
    gptvq_error inner = {.status = GPTVQ_OK};
    if (sample_step(job, &inner) != GPTVQ_OK)
      return gptvq_fail(err, inner.status, "sampling calibration text from the model: %s", inner.message);
    if (job->position % REPORT_EVERY == 0) /* the caller may stop it */
      GPTVQ_TRY(gptvq_report_progress(callbacks, "sample", "",
                                      first + job->count * job->position / job->length, samples, NAN, err));
  }
  return GPTVQ_OK;
}

gptvq_status gptvq_calibration_sample(const gptvq_model *model, uint64_t seed, size_t cache_budget,
                                      const gptvq_callbacks *callbacks, gptvq_calibration *out,
                                      gptvq_error *err) {
  const gptvq_config *c = &model->config;
  sampling *job = calloc(1, sizeof *job);
  gptvq_status status = GPTVQ_OK;
  if (job == NULL) return gptvq_fail_memory(err, "sampling", sizeof *job);
  job->model = *model;
  job->model.compute = GPTVQ_COMPUTE_INT8;
  size_t windows = out->samples + out->held + out->judged_self;
  size_t together = windows_together(&job->model, windows, out->length, cache_budget);
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
    GPTVQ_TRY_GOTO(sample_windows(job, first, windows, seed, callbacks, err));
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

/* Does the model write, and how large is the largest text file? A list that cannot be read fails later. */
static void look_at_sources(const gptvq_quantize_options *options, bool *writes, double *largest) {
  gptvq_calibration_sources sources;
  gptvq_error unused = {.status = GPTVQ_OK};
  *writes = options->judge_tokens > 0;
  *largest = 0.0;
  if (gptvq_calibration_sources_parse(options->calib, options->calib_self, &sources, &unused) != GPTVQ_OK)
    return;
  for (size_t s = 0; s < sources.count; s++)
    if (sources.items[s].self) *writes = true;
    else *largest = fmax(*largest, (double)gptvq_file_size(sources.items[s].path));
  gptvq_calibration_sources_release(&sources);
}

double gptvq_calibration_peak(const gptvq_model *model, const gptvq_quantize_options *options,
                              size_t cache_budget) {
  const size_t length = options->calib_length, windows = 2 * options->calib_samples; /* with those held out */
  bool writes;
  double largest, writing = 0.0;
  look_at_sources(options, &writes, &largest);
  if (writes) {
    gptvq_model own = *model;
    own.compute = GPTVQ_COMPUTE_INT8;
    const size_t together = windows_together(&own, windows, length, cache_budget);
    writing = (double)gptvq_workspace_bytes(&own, model->config.layers * together, together, length) +
              sizeof(float) * (double)together * (double)(model->config.hidden + model->config.vocab);
  }
  /* of a text its bytes, and its tokens: some two bytes of text each */
  return sizeof(int32_t) * (double)windows * (double)length + fmax(writing, 3.0 * largest);
}
