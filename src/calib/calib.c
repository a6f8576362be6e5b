/* The calibration tokens: windows of one source or of several. */
#include "calib/parts.h"
#include "base/hash.h"
#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { DEFAULT_LENGTH = 2048 };
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

/* What of the path a report shows. */
static const char *last_part(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash != NULL ? slash + 1 : path;
}

/* "calib.txt", or "calib.txt: 64, self: 64". shares: of the samples, [count] twice. */
static void name_sources(const gptvq_calibration_sources *sources, const size_t *shares,
                         gptvq_calibration *out) {
  size_t used = 0, size = sizeof out->source, count = sources->count;
  for (size_t s = 0; s < count && used < size; s++) {
    int written = snprintf(out->source + used, size - used, "%s%s", s > 0 ? ", " : "",
                           last_part(sources->items[s].path));
    used += written > 0 ? (size_t)written : 0;
    if (count == 1 || used >= size) continue;
    written = snprintf(out->source + used, size - used, ": %zu", shares[s] + shares[count + s]);
    used += written > 0 ? (size_t)written : 0;
  }
}

/* shares[3][sources->count]: windows to train on, for block_held and for held. */
static gptvq_status set_numbers(const gptvq_model *model, const gptvq_quantize_options *options,
                                const gptvq_calibration_sources *sources, size_t *shares,
                                gptvq_calibration *out, gptvq_error *err) {
  bool tunes = gptvq_model_trains(model);
  size_t samples = options->calib_samples, eighth = gptvq_ceil_div(samples, 8);
  *out = (gptvq_calibration){.samples = samples};
  GPTVQ_TRY(gptvq_calibration_length(model, options, &out->length, err));
  if (tunes && options->finetune_block_steps > 0) out->block_held = gptvq_min_size(eighth, samples / 2);
  if (tunes && options->finetune_steps > 0) out->held = eighth;
  gptvq_calibration_share(sources, samples - out->block_held, shares);
  gptvq_calibration_share(sources, out->block_held, shares + sources->count);
  gptvq_calibration_share(sources, out->held, shares + 2 * sources->count);
  name_sources(sources, shares, out);
  size_t tokens = (samples + out->held) * out->length;
  out->tokens = gptvq_alloc(tokens, sizeof *out->tokens);
  if (out->tokens == NULL) return gptvq_fail_memory(err, "calibration windows", tokens * sizeof *out->tokens);
  return GPTVQ_OK;
}

static size_t *allocate_shares(const gptvq_calibration_sources *sources, gptvq_error *err) {
  size_t *shares = gptvq_alloc(sources->count, 3 * sizeof *shares);
  if (shares == NULL)
    (void)gptvq_fail_memory(err, "the list of calibration texts",
                            gptvq_saturated_size(sources->count, 3 * sizeof *shares));
  return shares;
}

gptvq_status gptvq_calibration_init(const gptvq_model *model, const gptvq_quantize_options *options,
                                    gptvq_calibration *out, gptvq_error *err) {
  gptvq_calibration_sources sources;
  *out = (gptvq_calibration){0};
  GPTVQ_TRY(gptvq_calibration_sources_parse(options->calib, &sources, err));
  size_t *shares = allocate_shares(&sources, err);
  gptvq_status status =
      shares == NULL ? GPTVQ_ERROR_MEMORY : set_numbers(model, options, &sources, shares, out, err);
  free(shares);
  gptvq_calibration_sources_release(&sources);
  return status;
}

bool gptvq_calibration_is_sampled(const char *calib) {
  gptvq_calibration_sources sources;
  gptvq_error ignored;
  bool sampled = false;
  if (gptvq_calibration_sources_parse(calib, &sources, &ignored) != GPTVQ_OK) return false;
  for (size_t s = 0; s < sources.count; s++) sampled = sampled || sources.items[s].self;
  gptvq_calibration_sources_release(&sources);
  return sampled;
}

/* Windows of each source, in the order in which they are handed out. */
typedef struct mixture {
  gptvq_calibration_sources sources;
  gptvq_calibration *parts; /* [sources.count] */
  size_t *shares;           /* [3][sources.count]: to train on, for block_held and for held */
} mixture;

static gptvq_status fill_parts(mixture *m, const gptvq_model *model, const char *model_dir, uint64_t seed,
                               const gptvq_callbacks *callbacks, const gptvq_calibration *whole,
                               gptvq_error *err) {
  size_t count = m->sources.count;
  for (size_t s = 0; s < count; s++) {
    const gptvq_calibration_source *source = &m->sources.items[s];
    gptvq_calibration *part = &m->parts[s];
    *part = (gptvq_calibration){.samples = m->shares[s] + m->shares[count + s],
                                .length = whole->length,
                                .block_held = m->shares[count + s],
                                .held = m->shares[2 * count + s]};
    (void)snprintf(part->source, sizeof part->source, "%s", last_part(source->path));
    if (m->shares[s] == 0)
      return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                        "%s gets none of %zu calibration windows: give more windows or fewer texts "
                        "(`calib_samples`, `calib`)",
                        part->source, whole->samples);
    size_t tokens = (part->samples + part->held) * part->length;
    part->tokens = gptvq_alloc(tokens, sizeof *part->tokens);
    if (part->tokens == NULL)
      return gptvq_fail_memory(err, "calibration windows",
                               gptvq_saturated_size(tokens, sizeof *part->tokens));
    GPTVQ_TRY(source->self
                  ? gptvq_calibration_sample(model, seed, callbacks, part, err)
                  : gptvq_calibration_cut(model, model_dir, source->path, seed, callbacks, part, err));
  }
  return GPTVQ_OK;
}

/* The windows of all parts, each part's spread evenly among the others': training, block_held, held. */
static void merge_parts(const mixture *m, gptvq_calibration *out) {
  size_t count = m->sources.count, window = 0;
  size_t *total = m->shares, *taken = m->shares + count, *first = m->shares + 2 * count;
  out->samples = out->block_held = out->held = 0;
  for (size_t s = 0; s < count; s++) {
    out->samples += m->parts[s].samples;
    out->block_held += m->parts[s].block_held;
    out->held += m->parts[s].held;
    first[s] = 0;
  }
  for (size_t kind = 0; kind < 3; kind++) {
    for (size_t s = 0; s < count; s++) {
      const gptvq_calibration *p = &m->parts[s];
      total[s] = kind == 0 ? p->samples - p->block_held : kind == 1 ? p->block_held : p->held;
      taken[s] = 0;
    }
    for (;;) {
      size_t next = SIZE_MAX;
      double least = INFINITY;
      for (size_t s = 0; s < count; s++) {
        double place = taken[s] < total[s] ? ((double)taken[s] + 0.5) / (double)total[s] : INFINITY;
        if (place < least) {
          least = place;
          next = s;
        }
      }
      if (next == SIZE_MAX) break;
      memcpy(out->tokens + window++ * out->length, m->parts[next].tokens + first[next] * out->length,
             out->length * sizeof *out->tokens);
      first[next]++;
      taken[next]++;
    }
  }
}

gptvq_status gptvq_calibration_create(const gptvq_model *model, const char *model_dir,
                                      const gptvq_quantize_options *options, const gptvq_callbacks *callbacks,
                                      gptvq_calibration *out, gptvq_error *err) {
  mixture m = {0};
  *out = (gptvq_calibration){0};
  GPTVQ_TRY(gptvq_calibration_sources_parse(options->calib, &m.sources, err));
  size_t count = m.sources.count;
  m.parts = gptvq_alloc_zero(count, sizeof *m.parts);
  m.shares = allocate_shares(&m.sources, err);
  gptvq_status status = GPTVQ_ERROR_MEMORY;
  if (m.parts == NULL)
    status =
        gptvq_fail_memory(err, "the list of calibration texts", gptvq_saturated_size(count, sizeof *m.parts));
  else if (m.shares != NULL) status = set_numbers(model, options, &m.sources, m.shares, out, err);
  if (status == GPTVQ_OK) status = fill_parts(&m, model, model_dir, options->seed, callbacks, out, err);
  if (status == GPTVQ_OK) {
    merge_parts(&m, out);
    out->hash = gptvq_calibration_hash(out->samples + out->held, out->length, out->tokens);
  } else {
    gptvq_calibration_release(out);
  }
  for (size_t s = 0; m.parts != NULL && s < count; s++) gptvq_calibration_release(&m.parts[s]);
  free(m.parts);
  free(m.shares);
  gptvq_calibration_sources_release(&m.sources);
  return status;
}

void gptvq_calibration_release(gptvq_calibration *calibration) {
  free(calibration->tokens);
  calibration->tokens = NULL;
}
