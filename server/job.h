/* server/job.h: texts that the scheduler is to go on with, and what has become of them so far.
 *
 * A request is one or more jobs with the same options. Who asks fills it and hands it to the scheduler; from
 * then on the scheduler's thread adds to the answers and wakes who waits. Everything that is marked "answer"
 * is read under the request's lock. */
#ifndef GPTVQ_SERVER_JOB_H
#define GPTVQ_SERVER_JOB_H

#include "server/scores.h"

#include <gptvq/gptvq.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

enum { GPTVQ_JOB_STOPS = 16 };

typedef enum gptvq_finish {
  GPTVQ_FINISH_NONE = 0, /* not finished */
  GPTVQ_FINISH_STOP,     /* EOS or a stop text */
  GPTVQ_FINISH_LENGTH,   /* max_tokens, or the context is full */
  GPTVQ_FINISH_FAILED    /* `error` says why */
} gptvq_finish;

typedef struct gptvq_bias {
  int32_t id;
  float value;
} gptvq_bias;

typedef struct gptvq_job_options {
  gptvq_sampler sampler; /* without state and history */
  size_t max_tokens;
  bool scores, prompt_scores; /* log probabilities of what is generated, and of the prompt */
  unsigned alternatives;      /* most likely tokens at each place, up to GPTVQ_SCORES_WIDTH */
  bool ignore_eos;
  bool no_cache;             /* the prompt is computed from its beginning, whatever is there already */
  int32_t end_of_turn;       /* ends a text as EOS does; -1: nothing more does */
  float presence, frequency; /* taken from logits of tokens generated before: once, and for each time */
  gptvq_bias *bias;          /* [bias_count], owned; added to logits */
  size_t bias_count;
  const char *stops[GPTVQ_JOB_STOPS]; /* texts that end the answer, not part of it; live as long as it */
  size_t stop_sizes[GPTVQ_JOB_STOPS]; /* bytes, at least 1 */
  size_t stop_count;
} gptvq_job_options;

typedef struct gptvq_request gptvq_request;

typedef struct gptvq_job {
  gptvq_request *request;
  uint64_t seed;
  int32_t *ids;        /* [prompt_count], owned; then (answer) what was generated */
  size_t prompt_count; /* at least 1 */
  /* answer */
  size_t sampled, generated; /* tokens that the model made, and those of them that the answer has */
  size_t cached;             /* tokens of the prompt that were there already */
  char *text;                /* owned */
  size_t text_size, text_room;
  size_t *begins;             /* [generated], owned: where in the text each token begins */
  size_t ready, ready_tokens; /* bytes and tokens that will not be taken back */
  gptvq_scores prompt_scores, scores;
  gptvq_finish finish;
  gptvq_error error;
  /* the scheduler's */
  gptvq_sampler sampler;
  gptvq_text_stream *stream;
  size_t limit;             /* tokens to generate at most */
  struct gptvq_job *behind; /* in the queue */
} gptvq_job;

struct gptvq_request {
  gptvq_job_options options;
  gptvq_job *jobs; /* [count], owned */
  size_t count;
  double deadline; /* gptvq_clock(); 0: none */
  pthread_mutex_t lock;
  int event; /* readable when an answer has grown: an eventfd */
  atomic_bool cancelled;
  /* answer */
  size_t left; /* jobs that are not finished */
  /* the scheduler's */
  size_t held; /* jobs that it has not let go of */
};

/* An empty request of `count` jobs, whose ids the caller allocates (malloc). */
gptvq_status gptvq_request_create(size_t count, gptvq_request **out, gptvq_error *err);
/* NULL is fine; not while the scheduler has it (gptvq_scheduler_end). */
void gptvq_request_destroy(gptvq_request *request);
/* Waits until an answer grows, `fd` (-1: none) is hung up at its other end, or a second has passed; false:
 * hung up. */
bool gptvq_request_wait(gptvq_request *request, int fd);

/* ---- the scheduler's ---- */

/* An answer has grown. */
void gptvq_request_wake(gptvq_request *request);
void gptvq_job_end(gptvq_job *job, gptvq_finish finish); /* once */
void gptvq_job_fail(gptvq_job *job, const gptvq_error *error);

#endif
