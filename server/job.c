#define _GNU_SOURCE /* POLLRDHUP */
#include "server/job.h"

#include "base/memory.h"
#include "base/status.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

gptvq_status gptvq_request_create(size_t count, gptvq_request **out, gptvq_error *err) {
  *out = NULL;
  gptvq_request *request = calloc(1, sizeof *request);
  gptvq_job *jobs = calloc(count, sizeof *jobs);
  int event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (request == NULL || jobs == NULL || event < 0) {
    int why = errno;
    free(request);
    free(jobs);
    if (event >= 0) (void)close(event);
    if (event < 0) return gptvq_fail(err, GPTVQ_ERROR_IO, "a request: %s", strerror(why));
    return gptvq_fail_memory(err, "a request", sizeof *request + count * sizeof *jobs);
  }
  request->jobs = jobs;
  request->count = request->left = count;
  request->event = event;
  (void)pthread_mutex_init(&request->lock, NULL);
  gptvq_sampler_init(&request->options.sampler, 0);
  request->options.end_of_turn = -1;
  for (size_t i = 0; i < count; i++) jobs[i].request = request;
  *out = request;
  return GPTVQ_OK;
}

void gptvq_request_destroy(gptvq_request *request) {
  if (request == NULL) return;
  for (size_t i = 0; i < request->count; i++) {
    gptvq_job *job = &request->jobs[i];
    gptvq_text_stream_destroy(job->stream);
    gptvq_scores_release(&job->prompt_scores);
    gptvq_scores_release(&job->scores);
    free(job->ids);
    free(job->text);
    free(job->begins);
  }
  free(request->options.bias);
  free(request->jobs);
  (void)pthread_mutex_destroy(&request->lock);
  (void)close(request->event);
  free(request);
}

void gptvq_request_wake(gptvq_request *request) {
  const uint64_t one = 1;
  ssize_t written = write(request->event, &one, sizeof one); /* fails only when there is a signal already */
  (void)written;
}

bool gptvq_request_wait(gptvq_request *request, int fd) {
  struct pollfd what[2] = {{.fd = request->event, .events = POLLIN}, {.fd = fd, .events = POLLRDHUP}};
  uint64_t events;
  (void)poll(what, 2, 1000);
  if (what[1].revents != 0) return false;
  if (what[0].revents != 0) {
    ssize_t got = read(request->event, &events, sizeof events);
    (void)got;
  }
  return true;
}

void gptvq_job_end(gptvq_job *job, gptvq_finish finish) {
  gptvq_request *request = job->request;
  gptvq_text_stream_destroy(job->stream);
  job->stream = NULL;
  (void)pthread_mutex_lock(&request->lock);
  job->ready = job->text_size;
  job->ready_tokens = job->generated;
  job->finish = finish;
  request->left--;
  gptvq_request_wake(request);
  (void)pthread_mutex_unlock(&request->lock); /* from here on it may be gone */
}

void gptvq_job_fail(gptvq_job *job, const gptvq_error *error) {
  (void)pthread_mutex_lock(&job->request->lock);
  job->error = *error;
  (void)pthread_mutex_unlock(&job->request->lock);
  gptvq_job_end(job, GPTVQ_FINISH_FAILED);
}
