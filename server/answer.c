#define _GNU_SOURCE /* memmem */
#include "server/answer.h"

#include "base/memory.h"
#include "base/status.h"

#include <string.h>

gptvq_status gptvq_answer_begin(gptvq_job *job, const gptvq_tokenizer *tokenizer, gptvq_error *err) {
  const char *piece;
  size_t size;
  GPTVQ_TRY(gptvq_text_stream_create(tokenizer, 1, &job->stream, err));
  for (size_t i = 0; i < job->prompt_count; i++)
    GPTVQ_TRY(gptvq_text_stream_push(job->stream, job->ids[i], &piece, &size, err));
  return GPTVQ_OK;
}

/* Where the first stop text in text[begin … size) begins; SIZE_MAX: there is none. */
static size_t find_stop(const gptvq_job *job, size_t begin) {
  const gptvq_job_options *o = &job->request->options;
  size_t first = SIZE_MAX;
  for (size_t i = 0; i < o->stop_count; i++) {
    const char *found = memmem(job->text + begin, job->text_size - begin, o->stops[i], o->stop_sizes[i]);
    if (found != NULL && (size_t)(found - job->text) < first) first = (size_t)(found - job->text);
  }
  return first;
}

/* Bytes at the end that a stop text could begin with. */
static size_t held_back(const gptvq_job *job) {
  const gptvq_job_options *o = &job->request->options;
  size_t longest = 0, fresh = job->text_size - job->ready;
  for (size_t i = 0; i < o->stop_count; i++) {
    size_t most = gptvq_min_size(o->stop_sizes[i] - 1, fresh);
    for (size_t n = most; n > longest; n--)
      if (memcmp(job->text + job->text_size - n, o->stops[i], n) == 0) longest = n;
  }
  return longest;
}

static gptvq_status reserve(gptvq_job *job, size_t more, gptvq_error *err) {
  if (job->text_room - job->text_size >= more) return GPTVQ_OK;
  size_t room = 2 * (job->text_room + more) + 64;
  char *text = realloc(job->text, room);
  if (text == NULL) return gptvq_fail_memory(err, "the answer", room);
  job->text = text;
  job->text_room = room;
  return GPTVQ_OK;
}

/* Under the lock. */
static gptvq_status append(gptvq_job *job, const char *piece, size_t size, bool *stopped, gptvq_error *err) {
  if (size > 0) {
    GPTVQ_TRY(reserve(job, size, err));
    memcpy(job->text + job->text_size, piece, size);
    job->text_size += size;
  }
  size_t stop = job->text_size > job->ready ? find_stop(job, job->ready) : SIZE_MAX;
  *stopped = stop != SIZE_MAX;
  if (*stopped) job->text_size = stop;
  job->ready = *stopped ? stop : job->text_size - held_back(job);
  /* a token whose text begins behind a stop is none of the answer's */
  while (*stopped && job->generated > job->ready_tokens && job->begins[job->generated - 1] >= stop)
    job->generated--;
  while (job->ready_tokens < job->generated &&
         (job->ready_tokens + 1 < job->generated ? job->begins[job->ready_tokens + 1] : job->text_size) <=
             job->ready)
    job->ready_tokens++;
  return GPTVQ_OK;
}

gptvq_status gptvq_answer_add(gptvq_job *job, int32_t id, bool *stopped, gptvq_error *err) {
  const char *piece;
  size_t size;
  *stopped = false;
  GPTVQ_TRY(gptvq_text_stream_push(job->stream, id, &piece, &size, err));
  (void)pthread_mutex_lock(&job->request->lock);
  job->begins[job->generated] = job->text_size;
  job->ids[job->prompt_count + job->generated++] = id;
  job->sampled++;
  gptvq_status status = append(job, piece, size, stopped, err);
  (void)pthread_mutex_unlock(&job->request->lock);
  return status;
}

gptvq_status gptvq_answer_flush(gptvq_job *job, bool *stopped, gptvq_error *err) {
  const char *piece;
  size_t size;
  GPTVQ_TRY(gptvq_text_stream_flush(job->stream, &piece, &size, err));
  (void)pthread_mutex_lock(&job->request->lock);
  gptvq_status status = append(job, piece, size, stopped, err);
  (void)pthread_mutex_unlock(&job->request->lock);
  return status;
}
