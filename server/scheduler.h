/* server/scheduler.h: requests wait in a queue for slots; a thread of the scheduler's goes on with all of
 * them together. Functions are for any thread. */
#ifndef GPTVQ_SERVER_SCHEDULER_H
#define GPTVQ_SERVER_SCHEDULER_H

#include "server/job.h"

typedef struct gptvq_scheduler gptvq_scheduler;

typedef struct gptvq_scheduler_options {
  size_t slots, ctx; /* texts at a time, tokens of each at most, its prompt included */
  size_t queue;      /* jobs that wait at most */
} gptvq_scheduler_options;

typedef struct gptvq_scheduler_stats {
  size_t slots, busy, queued;
  uint64_t prompt_tokens, cached_tokens, generated_tokens; /* as gptvq_engine_counts, since the beginning */
  uint64_t steps, step_texts, prompt_passes, prompt_texts;
  uint64_t cancelled; /* jobs of requests that ended early */
} gptvq_scheduler_stats;

typedef enum gptvq_admission {
  GPTVQ_ADMITTED = 0,
  GPTVQ_QUEUE_FULL, /* there are too many before it */
  GPTVQ_DRAINING    /* the server stops */
} gptvq_admission;

/* Model and tokenizer have to outlive it. On success the caller owns *out. */
gptvq_status gptvq_scheduler_create(const gptvq_model *model, const gptvq_tokenizer *tokenizer,
                                    const gptvq_scheduler_options *options, gptvq_scheduler **out,
                                    gptvq_error *err);
/* Ends what is still there. Requests have to be ended before. NULL is fine. */
void gptvq_scheduler_destroy(gptvq_scheduler *scheduler);

/* All jobs of a request or none. Prompts fit the context, ids are within the vocabulary. What is admitted has
 * to be ended. */
gptvq_admission gptvq_scheduler_submit(gptvq_scheduler *scheduler, gptvq_request *request);
/* Stops what is not finished, at once, and returns when the scheduler knows the request no more. */
void gptvq_scheduler_end(gptvq_scheduler *scheduler, gptvq_request *request);
/* Admits nothing any more. */
void gptvq_scheduler_drain(gptvq_scheduler *scheduler);
gptvq_scheduler_stats gptvq_scheduler_get_stats(gptvq_scheduler *scheduler);

#endif
