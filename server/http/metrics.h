/* server/http/metrics.h: what the server has done, as Prometheus reads it. */
#ifndef GPTVQ_SERVER_HTTP_METRICS_H
#define GPTVQ_SERVER_HTTP_METRICS_H

#include "server/scheduler.h"

typedef enum gptvq_endpoint {
  GPTVQ_ENDPOINT_OTHER = 0, /* no such path */
  GPTVQ_ENDPOINT_PAGE,
  GPTVQ_ENDPOINT_HEALTH,
  GPTVQ_ENDPOINT_METRICS,
  GPTVQ_ENDPOINT_MODELS,
  GPTVQ_ENDPOINT_COMPLETIONS,
  GPTVQ_ENDPOINT_CHAT,
  GPTVQ_ENDPOINT_TOKENIZE,
  GPTVQ_ENDPOINT_DETOKENIZE,
  GPTVQ_ENDPOINTS
} gptvq_endpoint;
/* "/v1/completions"; "other" */
const char *gptvq_endpoint_path(gptvq_endpoint endpoint);

enum { GPTVQ_METRICS_CODES = 16, GPTVQ_METRICS_BUCKETS = 11 };

typedef struct gptvq_metrics {
  _Atomic uint64_t requests[GPTVQ_ENDPOINTS][GPTVQ_METRICS_CODES];
  _Atomic uint64_t buckets[GPTVQ_METRICS_BUCKETS + 1], microseconds; /* of completions and chats */
} gptvq_metrics;

/* A request has been answered, or its client has gone (code 499). */
void gptvq_metrics_count(gptvq_metrics *metrics, gptvq_endpoint endpoint, unsigned code, double seconds);
/* The text, to be released with free(); NULL: out of memory. */
char *gptvq_metrics_text(gptvq_metrics *metrics, const gptvq_scheduler_stats *stats);

#endif
