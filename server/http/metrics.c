#include "server/http/metrics.h"

#include "base/memory.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static const unsigned codes[GPTVQ_METRICS_CODES] = {200, 204, 400, 401, 403, 404, 405, 408,
                                                    413, 415, 499, 500, 503, 504, 0};
static const double limits[GPTVQ_METRICS_BUCKETS] = {0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120};

const char *gptvq_endpoint_path(gptvq_endpoint endpoint) {
  static const char *const paths[GPTVQ_ENDPOINTS] = {"other",
                                                     "/",
                                                     "/health",
                                                     "/metrics",
                                                     "/v1/models",
                                                     "/v1/completions",
                                                     "/v1/chat/completions",
                                                     "/tokenize",
                                                     "/detokenize"};
  return paths[endpoint];
}

void gptvq_metrics_count(gptvq_metrics *metrics, gptvq_endpoint endpoint, unsigned code, double seconds) {
  size_t at = 0;
  while (codes[at] != code && codes[at] != 0) at++;
  atomic_fetch_add(&metrics->requests[endpoint][at], 1);
  if (endpoint != GPTVQ_ENDPOINT_COMPLETIONS && endpoint != GPTVQ_ENDPOINT_CHAT) return;
  for (at = 0; at < GPTVQ_METRICS_BUCKETS && seconds > limits[at];) at++;
  atomic_fetch_add(&metrics->buckets[at], 1);
  atomic_fetch_add(&metrics->microseconds, (uint64_t)(seconds * 1e6));
}

typedef struct page {
  char *text;
  size_t size, room;
  bool failed;
} page;

static void add(page *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(page *p, const char *format, ...) {
  char line[256];
  va_list args;
  va_start(args, format);
  int size = vsnprintf(line, sizeof line, format, args);
  va_end(args);
  if (p->room - p->size <= (size_t)size) {
    size_t room = 2 * p->room + 4096;
    char *larger = realloc(p->text, room);
    if (larger == NULL) p->failed = true;
    if (larger == NULL) return;
    p->text = larger;
    p->room = room;
  }
  for (int i = 0; i <= size; i++) p->text[p->size + (size_t)i] = line[i];
  p->size += (size_t)size;
}

static void add_value(page *p, const char *name, const char *kind, const char *help, uint64_t value) {
  add(p, "# HELP gptvq_%s %s\n# TYPE gptvq_%s %s\ngptvq_%s %llu\n", name, help, name, kind, name,
      (unsigned long long)value);
}

static void add_requests(page *p, gptvq_metrics *metrics) {
  add(p, "# HELP gptvq_requests_total Requests answered, by path and status; 499: the client went away.\n"
         "# TYPE gptvq_requests_total counter\n");
  for (size_t e = 0; e < GPTVQ_ENDPOINTS; e++) {
    for (size_t c = 0; c < GPTVQ_METRICS_CODES; c++) {
      uint64_t count = atomic_load(&metrics->requests[e][c]);
      if (count > 0)
        add(p, "gptvq_requests_total{path=\"%s\",code=\"%u\"} %llu\n", gptvq_endpoint_path((gptvq_endpoint)e),
            codes[c], (unsigned long long)count);
    }
  }
}

static void add_seconds(page *p, gptvq_metrics *metrics) {
  uint64_t sum = 0;
  add(p, "# HELP gptvq_request_seconds From a completion's or chat's arrival to its end.\n"
         "# TYPE gptvq_request_seconds histogram\n");
  for (size_t i = 0; i < GPTVQ_METRICS_BUCKETS; i++) {
    sum += atomic_load(&metrics->buckets[i]);
    add(p, "gptvq_request_seconds_bucket{le=\"%g\"} %llu\n", limits[i], (unsigned long long)sum);
  }
  sum += atomic_load(&metrics->buckets[GPTVQ_METRICS_BUCKETS]);
  add(p, "gptvq_request_seconds_bucket{le=\"+Inf\"} %llu\n", (unsigned long long)sum);
  add(p, "gptvq_request_seconds_sum %.6f\n", 1e-6 * (double)atomic_load(&metrics->microseconds));
  add(p, "gptvq_request_seconds_count %llu\n", (unsigned long long)sum);
}

char *gptvq_metrics_text(gptvq_metrics *metrics, const gptvq_scheduler_stats *s) {
  page p = {NULL, 0, 0, false};
  add_requests(&p, metrics);
  add_seconds(&p, metrics);
  add_value(&p, "slots", "gauge", "Texts that can be written at a time.", s->slots);
  add_value(&p, "slots_busy", "gauge", "Texts that are being written.", s->busy);
  add_value(&p, "queue", "gauge", "Texts that wait for a slot.", s->queued);
  add_value(&p, "prompt_tokens_total", "counter", "Tokens of prompts computed.", s->prompt_tokens);
  add_value(&p, "prompt_tokens_cached_total", "counter", "Tokens of prompts found in the cache.",
            s->cached_tokens);
  add_value(&p, "generated_tokens_total", "counter", "Tokens generated.", s->generated_tokens);
  add_value(&p, "steps_total", "counter", "Passes over the weights for texts' next tokens.", s->steps);
  add_value(&p, "step_texts_total", "counter", "Texts in those passes, all together.", s->step_texts);
  add_value(&p, "prompt_passes_total", "counter", "Passes over the weights for pieces of prompts.",
            s->prompt_passes);
  add_value(&p, "prompt_texts_total", "counter", "Pieces of prompts in those passes, all together.",
            s->prompt_texts);
  add_value(&p, "cancelled_total", "counter", "Texts ended because their client went away or time was up.",
            s->cancelled);
  add_value(&p, "peak_memory_bytes", "gauge", "Peak resident memory of the process.", gptvq_peak_memory());
  if (!p.failed) return p.text;
  free(p.text);
  return NULL;
}
