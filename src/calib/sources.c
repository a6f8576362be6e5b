/* The option `calib`: a list of sources with weights. */
#include "calib/parts.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double largest_weight = 1e6;

/* "PATH" or "PATH:WEIGHT"; a colon that no number follows belongs to the path. */
static gptvq_status parse_line(char *line, gptvq_calibration_source *out, gptvq_error *err) {
  char *colon = strrchr(line, ':'), *end;
  *out = (gptvq_calibration_source){.path = line, .weight = 1.0};
  if (colon != NULL && colon[1] != '\0') {
    double weight = strtod(colon + 1, &end);
    if (end != colon + 1 && *end == '\0') {
      if (!(weight > 0.0 && weight <= largest_weight))
        return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                          "%s: a text's weight is a number above 0 and at most %g (`calib` FILE:WEIGHT)",
                          line, largest_weight);
      *colon = '\0';
      out->weight = weight;
    }
  }
  out->self = strcmp(line, "self") == 0;
  return GPTVQ_OK;
}

/* items[count] is new: a text, or the model's own, is one source, however often it is named. */
static void add(gptvq_calibration_sources *sources) {
  const gptvq_calibration_source *item = &sources->items[sources->count];
  for (size_t s = 0; s < sources->count; s++)
    if (strcmp(sources->items[s].path, item->path) == 0) {
      sources->items[s].weight += item->weight;
      return;
    }
  sources->count++;
}

/* The model's own text beside those that are named, where it is not among them. */
static void add_self(gptvq_calibration_sources *sources, double share) {
  gptvq_calibration_source self = {.path = "self", .self = true, .implied = true, .weight = 1.0};
  double sum = 0.0;
  for (size_t s = 0; s < sources->count; s++) {
    if (sources->items[s].self) return;
    sum += sources->items[s].weight;
  }
  if (sources->count > 0) self.weight = sum * share / (1.0 - share);
  if (self.weight > 0.0) sources->items[sources->count++] = self;
}

gptvq_status gptvq_calibration_sources_parse(const char *calib, double self_share,
                                             gptvq_calibration_sources *out, gptvq_error *err) {
  size_t size = calib != NULL ? strlen(calib) : 0, most = 2;
  *out = (gptvq_calibration_sources){0};
  for (size_t i = 0; i < size; i++) most += calib[i] == '\n';
  out->items = gptvq_alloc(most, sizeof *out->items);
  out->memory = gptvq_alloc(size + 1, 1);
  gptvq_status status = GPTVQ_OK;
  if (out->items == NULL || out->memory == NULL)
    status = gptvq_fail_memory(err, "the list of calibration texts", size + most * sizeof *out->items);
  else if (size > 0) memcpy(out->memory, calib, size);
  char *line = out->memory, *next;
  if (status == GPTVQ_OK) line[size] = '\0';
  for (; status == GPTVQ_OK && line != NULL; line = next) {
    next = strchr(line, '\n');
    if (next != NULL) *next++ = '\0';
    if (line[0] == '\0') continue;
    status = parse_line(line, &out->items[out->count], err);
    if (status == GPTVQ_OK) add(out);
  }
  if (status == GPTVQ_OK) add_self(out, self_share);
  else gptvq_calibration_sources_release(out);
  return status;
}

void gptvq_calibration_sources_release(gptvq_calibration_sources *sources) {
  free(sources->items);
  free(sources->memory);
  *sources = (gptvq_calibration_sources){0};
}

void gptvq_calibration_share(const gptvq_calibration_sources *sources, size_t total, size_t *shares) {
  double sum = 0.0;
  size_t left = total;
  for (size_t s = 0; s < sources->count; s++) sum += sources->items[s].weight;
  for (size_t s = 0; s < sources->count; s++) {
    shares[s] = gptvq_min_size(left, (size_t)((double)total * (sources->items[s].weight / sum)));
    left -= shares[s];
  }
  for (; left > 0; left--) { /* to the one that is furthest below its share; the first of equals */
    size_t best = 0;
    double most = -INFINITY;
    for (size_t s = 0; s < sources->count; s++) {
      double below = (double)total * (sources->items[s].weight / sum) - (double)shares[s];
      if (below > most) {
        most = below;
        best = s;
      }
    }
    shares[best]++;
  }
}
