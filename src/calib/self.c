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

/* TEXT: tokens of a text, at most: shorter ones would cost less, and are worth less (docs/METHOD.md). */
enum { TEXT = 2048, TOGETHER = 128, REPORT_EVERY = 64 };
/* Memory for each byte of a text that is tokenized: measured. */
static const double bytes_of_text = 10.0;

/* Windows are cut into texts of equal length, which begin anew; that of a window's last one may go beyond its
 * end. They are written side by side, token by token, so that the weights are read once for all of them. */
typedef struct texts {
  size_t of_window, length, count; /* length: of a text */
  size_t together;
} texts;

/* As many side by side as fit into the budget with their caches and logits, in groups of the same size. What
 * is written depends on it in the last digits of the logits. */
static texts divide(const gptvq_model *sampling_model, size_t windows, size_t length, size_t budget) {
  texts t = {.length = gptvq_ceil_div(length, gptvq_ceil_div(length, TEXT))};
  t.of_window = gptvq_ceil_div(length, t.length);
  t.count = windows * t.of_window;
  const size_t own = gptvq_saturated_sum(gptvq_workspace_text_bytes(sampling_model, t.length),
                                         sampling_model->config.vocab * sizeof(float));
  const size_t most = gptvq_min_size(gptvq_max_size(1, budget / gptvq_max_size(1, own)), TOGETHER);
  t.together = gptvq_ceil_div(t.count, gptvq_ceil_div(t.count, most));
  return t;
}

/* Bytes of matrices as they are mapped. */
static size_t pages_of(const gptvq_block *block) {
  size_t bytes = 0;
  for (size_t i = 0; i < block->linear_count; i++) {
    const gptvq_linear *linear = &block->linears[i];
    if (!linear->is_packed) bytes += linear->rows * linear->cols * gptvq_dtype_size(linear->dtype);
  }
  return bytes;
}

static size_t block_pages(const gptvq_model *model) {
  size_t bytes = 0;
  for (size_t b = 0; b < model->config.layers; b++) bytes += pages_of(&model->blocks[b]);
  return bytes;
}

/* Caches, and what a step works with. */
static size_t workspace_bytes(const gptvq_model *sampling_model, const texts *all) {
  return gptvq_workspace_bytes(sampling_model, sampling_model->config.layers * all->together, all->together,
                               all->length);
}

typedef struct sampling {
  gptvq_model model; /* with inputs in bf16 and caches in fp16 where it may: the text need not be exact */
  bool keeps_pages;
  gptvq_workspace *workspace;
  size_t length, count, position, first; /* first: number of the first text */
  int32_t *tokens;                       /* [count × length] */
  uint64_t state[TOGETHER];
  gptvq_sampler sampler[TOGETHER];
  gptvq_error error[TOGETHER];
  gptvq_attention_text texts[TOGETHER];
  int32_t *last;     /* [count] */
  float *x, *logits; /* [count × hidden], [count × vocab] */
} sampling;

/* Every other text starts with any token at all: what a model writes from its BOS alone is narrow, a chat
 * model's little but chat. */
static int32_t start_token(const gptvq_model *model, size_t text, uint64_t *state) {
  int32_t bos = model->info.bos;
  if (text % 2 == 0 && bos >= 0 && (size_t)bos < model->config.vocab) return bos;
  return (int32_t)gptvq_random_below(state, model->config.vocab);
}

static bool ends_text(const gptvq_model *model, int32_t token) {
  for (size_t i = 0; i < model->info.eos_count; i++)
    if (model->info.eos[i] == token) return true;
  return false;
}

/* Token position + 1 of each text. */
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
    if (!job->keeps_pages) gptvq_block_rest(&model->blocks[b]);
  }
  GPTVQ_TRY(gptvq_head(model, job->workspace, job->count, job->x, job->logits, err));
  gptvq_parallel_for(job->count, 1, choose, job);
  for (size_t i = 0; i < job->count; i++)
    if (job->error[i].status != GPTVQ_OK)
      return gptvq_fail(err, job->error[i].status, "%s", job->error[i].message);
  return GPTVQ_OK;
}

/* Texts [first, first + count) */
static gptvq_status sample_texts(sampling *job, size_t first, const texts *all, size_t windows, uint64_t seed,
                                 const gptvq_callbacks *callbacks, gptvq_error *err) {
  job->first = first;
  for (size_t i = 0; i < job->count; i++) {
    job->state[i] = seed ^ (first + i + 1) * 0xd1342543de82ef95u; /* odd multiplier: distinct for all texts */
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
                                      (first + job->count * job->position / job->length) / all->of_window,
                                      windows, NAN, err));
  }
  return GPTVQ_OK;
}

/* The texts of the job, each in its place of its window. */
static void put_down(const sampling *job, const texts *all, gptvq_calibration *out) {
  for (size_t i = 0; i < job->count; i++) {
    const size_t text = job->first + i, at = text % all->of_window * all->length;
    memcpy(out->tokens + text / all->of_window * out->length + at, job->tokens + i * job->length,
           gptvq_min_size(job->length, out->length - at) * sizeof *out->tokens);
  }
}

gptvq_status gptvq_calibration_sample(const gptvq_model *model, uint64_t seed, gptvq_text_room room,
                                      const gptvq_callbacks *callbacks, gptvq_calibration *out,
                                      gptvq_error *err) {
  const gptvq_config *c = &model->config;
  sampling *job = calloc(1, sizeof *job);
  gptvq_status status = GPTVQ_OK;
  if (job == NULL) return gptvq_fail_memory(err, "sampling", sizeof *job);
  job->model = *model;
  job->model.compute = GPTVQ_COMPUTE_INT8;
  const size_t windows = out->samples + out->held + out->judged_self;
  const texts all = divide(&job->model, windows, out->length, room.caches);
  job->keeps_pages = room.pages;
  job->length = all.length;
  job->tokens = gptvq_alloc(all.together, all.length * sizeof *job->tokens);
  job->last = gptvq_alloc(all.together, sizeof *job->last);
  job->x = gptvq_alloc(all.together, c->hidden * sizeof *job->x);
  job->logits = gptvq_alloc(all.together, c->vocab * sizeof *job->logits);
  if (job->tokens == NULL || job->last == NULL || job->x == NULL || job->logits == NULL) {
    status = gptvq_fail_memory(err, "sampling",
                               gptvq_saturated_size(all.together, (c->hidden + c->vocab) * sizeof(float)));
    goto done;
  }
  for (size_t first = 0; first < all.count; first += job->count) {
    size_t count = gptvq_min_size(all.together, all.count - first);
    if (count != job->count) { /* caches lie closer in the last, smaller group */
      gptvq_workspace_destroy(job->workspace);
      job->workspace = NULL;
      GPTVQ_TRY_GOTO(
          gptvq_workspace_create(&job->model, c->layers * count, count, all.length, &job->workspace, err));
    }
    job->count = count;
    GPTVQ_TRY_GOTO(sample_texts(job, first, &all, windows, seed, callbacks, err));
    put_down(job, &all, out);
    GPTVQ_TRY_GOTO(
        gptvq_report_progress(callbacks, "sample", "", (first + count) / all.of_window, windows, NAN, err));
  }
  gptvq_workspace_destroy(job->workspace);
  job->workspace = NULL;
  gptvq_text_warn(callbacks, "the text sampled from the model", NULL, 0, out->tokens, windows * out->length);
done:
  for (size_t b = 0; b < c->layers; b++) gptvq_block_rest(&model->blocks[b]);
  gptvq_workspace_destroy(job->workspace);
  free(job->tokens);
  free(job->last);
  free(job->x);
  free(job->logits);
  free(job);
  return status;
}

static double largest_text(const gptvq_quantize_options *options) {
  gptvq_calibration_sources sources;
  gptvq_error unused = {.status = GPTVQ_OK};
  double largest = 0.0;
  if (gptvq_calibration_sources_parse(options->calib, options->calib_self, &sources, &unused) != GPTVQ_OK)
    return largest; /* a list that cannot be read fails later */
  for (size_t s = 0; s < sources.count; s++)
    if (!sources.items[s].self) largest = fmax(largest, (double)gptvq_file_size(sources.items[s].path));
  gptvq_calibration_sources_release(&sources);
  return largest;
}

/* Bytes while the model writes so many windows. */
static double writing_peak(const gptvq_model *model, size_t windows, size_t length, gptvq_text_room room) {
  gptvq_model own = *model;
  own.compute = GPTVQ_COMPUTE_INT8;
  const gptvq_config *c = &model->config;
  const texts all = divide(&own, windows, length, room.caches);
  size_t pages = 0;
  if (room.pages) pages = block_pages(&own);
  else
    for (size_t b = 0; b < c->layers; b++) pages = gptvq_max_size(pages, pages_of(&own.blocks[b]));
  return (double)pages + (double)workspace_bytes(&own, &all) +
         (double)all.together *
             (sizeof(int32_t) * (double)all.length + sizeof(float) * (double)(c->hidden + c->vocab));
}

gptvq_writing gptvq_calibration_writing(const gptvq_model *model, const gptvq_quantize_options *options,
                                        gptvq_text_room room) {
  gptvq_model own = *model;
  own.compute = GPTVQ_COMPUTE_INT8;
  size_t written, windows, judged;
  gptvq_calibration_count(model, options, &written, &windows, &judged);
  if (written == 0) return (gptvq_writing){0};
  const texts all = divide(&own, written, options->calib_length, room.caches);
  return (gptvq_writing){.tokens = (double)all.count * (double)all.length,
                         .together = all.together,
                         .caches = 0.5 * (double)gptvq_workspace_text_bytes(&own, all.length)};
}

double gptvq_calibration_peak(const gptvq_model *model, const gptvq_quantize_options *options,
                              gptvq_text_room room) {
  size_t written, windows, judged;
  gptvq_calibration_count(model, options, &written, &windows, &judged);
  const double writing = written > 0 ? writing_peak(model, written, options->calib_length, room) : 0.0;
  /* each source's windows, all of them, and those that the model wrote once more; of a text its bytes, pieces
   * and tokens, whose memory the process keeps */
  return sizeof(int32_t) * (double)(2 * windows + written) * (double)options->calib_length + writing +
         bytes_of_text * largest_text(options);
}
