/* The calibration tokens: windows of one source or of several. */
#include "calib/parts.h"
#include "base/hash.h"
#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Tokens of a window where nothing is said: of a narrow model, with fewer columns to know, fewer do. */
enum { DEFAULT_LENGTH = 2048, NARROW_LENGTH = 1024, NARROW_COLUMNS = 2048 };

static size_t widest_input(const gptvq_model *model) {
  size_t widest = 0;
  for (size_t b = 0; b < model->config.layers; b++)
    for (size_t i = 0; i < model->blocks[b].linear_count; i++)
      widest = gptvq_max_size(widest, model->blocks[b].linears[i].cols);
  return widest;
}
static const size_t max_tokens = (size_t)1 << 40; /* absurd beyond; keeps every product below in range */

uint64_t gptvq_calibration_hash(size_t samples, size_t length, const int32_t *tokens) {
  uint64_t sizes[2] = {samples, length};
  return gptvq_hash(gptvq_hash(0, sizes, sizeof sizes), tokens, samples * length * sizeof *tokens);
}

gptvq_status gptvq_calibration_length(const gptvq_model *model, const gptvq_quantize_options *options,
                                      size_t *length, gptvq_error *err) {
  const size_t context = model->config.max_positions,
               usual = widest_input(model) <= NARROW_COLUMNS ? NARROW_LENGTH : DEFAULT_LENGTH;
  size_t tokens;
  *length = options->calib_length != 0 ? options->calib_length : gptvq_min_size(usual, context);
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

/* to train on, block_held, held, judged_text, judged_self */
enum { TRAINING, BLOCK_HELD, HELD, JUDGED_TEXT, JUDGED_SELF, KINDS };

static size_t count_of(const gptvq_calibration *c, size_t kind) {
  const size_t counts[KINDS] = {c->samples - c->block_held, c->block_held, c->held, c->judged_text,
                                c->judged_self};
  return counts[kind];
}

static size_t window_count(const gptvq_calibration *c) {
  return c->samples + c->held + c->judged_text + c->judged_self;
}

static gptvq_status allocate_tokens(gptvq_calibration *c, gptvq_error *err) {
  size_t tokens = window_count(c) * c->length;
  c->tokens = gptvq_alloc(tokens, sizeof *c->tokens);
  if (c->tokens != NULL) return GPTVQ_OK;
  return gptvq_fail_memory(err, "calibration windows", gptvq_saturated_size(tokens, sizeof *c->tokens));
}

/* The windows of each source, before they are put together. */
typedef struct mixture {
  gptvq_calibration_sources sources;
  gptvq_calibration *parts; /* [sources.count + 1]: behind those of the sources what the model writes only to
                               be judged by, where it is none of them */
  size_t *shares;           /* [sources.count + 1]; while they are put together: windows taken of a kind */
  size_t *at;               /* [sources.count + 1]: the next window of each part */
  size_t count;             /* of parts in use */
} mixture;

static void release(mixture *m) {
  for (size_t i = 0; i < m->count; i++) gptvq_calibration_release(&m->parts[i]);
  free(m->parts);
  free(m->shares);
  free(m->at);
  gptvq_calibration_sources_release(&m->sources);
}

static gptvq_status create_mixture(const gptvq_quantize_options *options, mixture *m, gptvq_error *err) {
  *m = (mixture){0};
  GPTVQ_TRY(gptvq_calibration_sources_parse(options->calib, options->calib_self, &m->sources, err));
  size_t count = m->sources.count;
  m->parts = gptvq_alloc_zero(count + 1, sizeof *m->parts);
  m->shares = gptvq_alloc_zero(count + 1, sizeof *m->shares);
  m->at = gptvq_alloc_zero(count + 1, sizeof *m->at);
  if (m->parts != NULL && m->shares != NULL && m->at != NULL) return GPTVQ_OK;
  release(m);
  return gptvq_fail_memory(err, "the list of calibration texts",
                           gptvq_saturated_size(count, sizeof *m->parts));
}

/* What of a path a report shows. */
static const char *last_part(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash != NULL ? slash + 1 : path;
}

/* "calib.txt", or "calib.txt: 64, self: 64" */
static void name_sources(const mixture *m, char *name, size_t size) {
  size_t used = 0;
  for (size_t s = 0; s < m->sources.count && used < size; s++) { /* what does not fit is cut */
    if (m->parts[s].samples == 0) continue;
    int written = snprintf(name + used, size - used, "%s%s", s > 0 ? ", " : "", m->parts[s].source);
    used += written > 0 ? (size_t)written : 0;
    if (m->sources.count == 1 || used >= size) continue;
    written = snprintf(name + used, size - used, ": %zu", m->parts[s].samples);
    used += written > 0 ? (size_t)written : 0;
  }
}

/* How many windows the options ask for. Never more than a quarter of them again to be judged by. */
static gptvq_status set_numbers(const gptvq_model *model, const gptvq_quantize_options *options,
                                const mixture *m, gptvq_calibration *out, gptvq_error *err) {
  size_t samples = options->calib_samples, eighth = gptvq_ceil_div(samples, 8);
  out->samples = samples;
  GPTVQ_TRY(gptvq_calibration_length(model, options, &out->length, err));
  if (options->finetune_block_steps > 0) out->block_held = gptvq_min_size(eighth, samples / 2);
  if (options->finetune_steps > 0) out->held = eighth;
  out->judged_self =
      gptvq_min_size(gptvq_ceil_div(options->judge_tokens, out->length), gptvq_ceil_div(samples, 4));
  for (size_t s = 0; s < m->sources.count; s++)
    if (!m->sources.items[s].self) out->judged_text = out->judged_self;
  return GPTVQ_OK;
}

/* Who gives them. */
static gptvq_status share_out(const gptvq_calibration *whole, mixture *m, gptvq_error *err) {
  const gptvq_calibration_source *self = NULL;
  m->count = m->sources.count;
  for (size_t s = 0; s < m->count; s++) {
    m->parts[s].length = whole->length;
    (void)snprintf(m->parts[s].source, sizeof m->parts[s].source, "%s", last_part(m->sources.items[s].path));
    if (m->sources.items[s].self) self = &m->sources.items[s];
  }
  for (size_t kind = TRAINING; kind <= JUDGED_TEXT; kind++) {
    if (kind == JUDGED_TEXT && whole->judged_text == 0) break;
    if (kind == JUDGED_TEXT && self != NULL) m->sources.items[self - m->sources.items].weight = 0.0;
    gptvq_calibration_share(&m->sources, count_of(whole, kind), m->shares);
    for (size_t s = 0; s < m->count; s++) {
      gptvq_calibration *part = &m->parts[s];
      size_t share = m->shares[s];
      if (kind == TRAINING && share == 0 && !m->sources.items[s].implied)
        return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                          "%s gets none of %zu calibration windows: give more windows or fewer texts "
                          "(`calib_samples`, `calib`)",
                          part->source, whole->samples);
      if (kind <= BLOCK_HELD) part->samples += share;
      if (kind == BLOCK_HELD) part->block_held = share;
      if (kind == HELD) part->held = share;
      if (kind == JUDGED_TEXT) part->judged_text = share;
    }
  }
  if (whole->judged_self == 0) return GPTVQ_OK;
  size_t writer = self != NULL ? (size_t)(self - m->sources.items) : m->count++;
  m->parts[writer].length = whole->length;
  m->parts[writer].judged_self = whole->judged_self;
  return GPTVQ_OK;
}

static bool writes(const mixture *m, size_t part) {
  return part >= m->sources.count || m->sources.items[part].self;
}

void gptvq_calibration_count(const gptvq_model *model, const gptvq_quantize_options *options, size_t *written,
                             size_t *windows, size_t *judged) {
  mixture m;
  gptvq_calibration whole = {0};
  gptvq_error unused = {.status = GPTVQ_OK};
  *written = *windows = *judged = 0;
  if (create_mixture(options, &m, &unused) != GPTVQ_OK) return;
  if (set_numbers(model, options, &m, &whole, &unused) == GPTVQ_OK &&
      share_out(&whole, &m, &unused) == GPTVQ_OK) {
    *windows = window_count(&whole);
    *judged = whole.judged_text + whole.judged_self;
    for (size_t i = 0; i < m.count; i++)
      if (writes(&m, i)) *written += window_count(&m.parts[i]);
  }
  release(&m);
}

/* Are they windows that the model can have written? They come from a file. */
static bool fits(const gptvq_token_windows *before, const gptvq_model *model, size_t windows, size_t length) {
  if (before == NULL || before->count != windows || before->length != length) return false;
  for (size_t i = 0; i < windows * length; i++)
    if (before->tokens[i] < 0 || (size_t)before->tokens[i] >= model->config.vocab) return false;
  return true;
}

/* `out` keeps what the model writes; `before`: what it wrote in the same run before, or NULL. */
static gptvq_status write_part(const gptvq_model *model, uint64_t seed, const gptvq_token_windows *before,
                               gptvq_text_room room, const gptvq_callbacks *callbacks,
                               gptvq_calibration *part, gptvq_calibration *out, gptvq_error *err) {
  size_t windows = window_count(part), tokens = windows * part->length;
  out->written = gptvq_alloc(tokens, sizeof *out->written);
  if (out->written == NULL)
    return gptvq_fail_memory(err, "calibration windows", gptvq_saturated_size(tokens, sizeof *out->written));
  out->written_count = windows;
  if (fits(before, model, windows, part->length))
    memcpy(part->tokens, before->tokens, tokens * sizeof *part->tokens);
  else GPTVQ_TRY(gptvq_calibration_sample(model, seed, room, callbacks, part, err));
  memcpy(out->written, part->tokens, tokens * sizeof *part->tokens);
  return GPTVQ_OK;
}

static gptvq_status fill_parts(mixture *m, const gptvq_model *model, const char *model_dir, uint64_t seed,
                               const gptvq_token_windows *written, gptvq_text_room room,
                               const gptvq_callbacks *callbacks, gptvq_calibration *out, gptvq_error *err) {
  for (size_t i = 0; i < m->count; i++) {
    gptvq_calibration *part = &m->parts[i];
    GPTVQ_TRY(allocate_tokens(part, err));
    if (writes(m, i)) GPTVQ_TRY(write_part(model, seed, written, room, callbacks, part, out, err));
    else
      GPTVQ_TRY(
          gptvq_calibration_cut(model, model_dir, m->sources.items[i].path, seed, callbacks, part, err));
  }
  return GPTVQ_OK;
}

/* Kind after kind the windows of all parts, each part's spread evenly among the others'. */
static gptvq_status merge_parts(mixture *m, gptvq_calibration *out, gptvq_error *err) {
  size_t window = 0;
  out->samples = out->block_held = out->held = out->judged_text = out->judged_self = 0;
  for (size_t i = 0; i < m->count; i++) {
    const gptvq_calibration *part = &m->parts[i];
    out->samples += part->samples;
    out->block_held += part->block_held;
    out->held += part->held;
    out->judged_text += part->judged_text;
    out->judged_self += part->judged_self;
    out->seen = out->seen || part->seen;
  }
  GPTVQ_TRY(allocate_tokens(out, err));
  for (size_t kind = TRAINING; kind < KINDS; kind++) {
    memset(m->shares, 0, m->count * sizeof *m->shares);
    for (size_t left = count_of(out, kind); left > 0; left--) {
      size_t next = 0;
      double least = INFINITY;
      for (size_t i = 0; i < m->count; i++) {
        const gptvq_calibration *part = &m->parts[i];
        size_t taken = m->shares[i], count = count_of(part, kind);
        double place = taken < count ? ((double)taken + 0.5) / (double)count : INFINITY;
        if (place >= least) continue;
        least = place;
        next = i;
      }
      memcpy(out->tokens + window++ * out->length, m->parts[next].tokens + m->at[next] * out->length,
             out->length * sizeof *out->tokens);
      m->shares[next]++;
      m->at[next]++;
    }
  }
  return GPTVQ_OK;
}

gptvq_status gptvq_calibration_create(const gptvq_model *model, const char *model_dir,
                                      const gptvq_quantize_options *options,
                                      const gptvq_token_windows *written, gptvq_text_room room,
                                      const gptvq_callbacks *callbacks, gptvq_calibration *out,
                                      gptvq_error *err) {
  mixture m;
  *out = (gptvq_calibration){0};
  GPTVQ_TRY(create_mixture(options, &m, err));
  gptvq_status status = set_numbers(model, options, &m, out, err);
  if (status == GPTVQ_OK) status = share_out(out, &m, err);
  if (status == GPTVQ_OK) {
    name_sources(&m, out->source, sizeof out->source);
    status = fill_parts(&m, model, model_dir, options->seed, written, room, callbacks, out, err);
  }
  if (status == GPTVQ_OK) status = merge_parts(&m, out, err);
  if (status == GPTVQ_OK) out->hash = gptvq_calibration_hash(window_count(out), out->length, out->tokens);
  else gptvq_calibration_release(out);
  release(&m);
  return status;
}

void gptvq_calibration_release(gptvq_calibration *calibration) {
  free(calibration->tokens);
  free(calibration->written);
  calibration->tokens = calibration->written = NULL;
}
