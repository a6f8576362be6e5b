#include "server/scheduler.h"

#include "base/clock.h"
#include "base/status.h"
#include "server/engine.h"

#include <stdlib.h>
#include <string.h>

struct gptvq_scheduler {
  gptvq_engine *engine;
  size_t queue_room;
  pthread_t thread;
  bool started;
  pthread_mutex_t lock;
  pthread_cond_t work, released; /* there is something to do; a job was let go of */
  /* under the lock */
  gptvq_job *first, *last; /* the queue */
  size_t queued;
  gptvq_slot **prompts; /* [slots], the thread's: whose prompts are being computed */
  uint64_t cancelled;
  bool draining, stopping;
};

/* ---- the queue; under the lock ---- */

static void let_go(gptvq_scheduler *s, gptvq_job *job) {
  job->request->held--;
  (void)pthread_cond_broadcast(&s->released);
}

static void end_early(gptvq_scheduler *s, gptvq_job *job) {
  gptvq_error err;
  bool cancelled = atomic_load(&job->request->cancelled);
  (void)gptvq_fail(&err, GPTVQ_ERROR_CANCELLED, "%s",
                   cancelled ? "cancelled" : "it took longer than the server allows (--timeout)");
  s->cancelled++;
  gptvq_job_fail(job, &err);
}

static bool is_over(const gptvq_job *job, double now) {
  const gptvq_request *request = job->request;
  return atomic_load(&request->cancelled) || (request->deadline > 0 && now > request->deadline);
}

/* Jobs of the queue that nobody waits for any more. */
static void sweep_queue(gptvq_scheduler *s, double now) {
  gptvq_job **at = &s->first, *before = NULL;
  while (*at != NULL) {
    gptvq_job *job = *at;
    if (!is_over(job, now)) {
      before = job;
      at = &job->behind;
      continue;
    }
    *at = job->behind;
    if (s->last == job) s->last = before;
    s->queued--;
    end_early(s, job);
    let_go(s, job);
  }
}

static void sweep_slots(gptvq_scheduler *s, double now) {
  for (size_t i = 0; i < s->engine->slots.count; i++) {
    gptvq_slot *slot = &s->engine->slots.items[i];
    gptvq_job *job = slot->job;
    if (job == NULL) continue;
    if (job->finish == GPTVQ_FINISH_NONE && is_over(job, now)) end_early(s, job);
    if (job->finish == GPTVQ_FINISH_NONE) continue;
    gptvq_slot_free(slot);
    let_go(s, job);
  }
}

static size_t busy(const gptvq_scheduler *s) {
  size_t count = 0;
  for (size_t i = 0; i < s->engine->slots.count; i++) count += s->engine->slots.items[i].job != NULL;
  return count;
}

static void admit(gptvq_scheduler *s) {
  while (s->first != NULL) {
    gptvq_job *job = s->first;
    gptvq_slot *slot = gptvq_slots_take(&s->engine->slots, job);
    if (slot == NULL) return;
    s->first = job->behind;
    if (s->first == NULL) s->last = NULL;
    s->queued--;
    gptvq_engine_start(s->engine, slot);
  }
}

/* ---- the thread ---- */

static void *run(void *context) {
  gptvq_scheduler *s = context;
  (void)pthread_mutex_lock(&s->lock);
  for (;;) {
    double now = gptvq_clock();
    sweep_queue(s, now);
    sweep_slots(s, now);
    admit(s);
    if (busy(s) == 0) {
      if (s->stopping) break;
      (void)pthread_cond_wait(&s->work, &s->lock);
      continue;
    }
    const size_t prompts = gptvq_engine_next_prompts(s->engine, s->prompts);
    for (size_t i = 0; i < prompts; i++) s->prompts[i]->prompting = true;
    (void)pthread_mutex_unlock(&s->lock);
    gptvq_engine_prompts(s->engine, s->prompts, prompts);
    (void)pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < prompts; i++) s->prompts[i]->prompting = false;
    (void)pthread_mutex_unlock(&s->lock);
    gptvq_engine_step(s->engine);
    (void)pthread_mutex_lock(&s->lock);
  }
  (void)pthread_mutex_unlock(&s->lock);
  return NULL;
}

/* ---- who asks ---- */

gptvq_status gptvq_scheduler_create(const gptvq_model *model, const gptvq_tokenizer *tokenizer,
                                    const gptvq_scheduler_options *options, gptvq_scheduler **out,
                                    gptvq_error *err) {
  *out = NULL;
  gptvq_scheduler *s = calloc(1, sizeof *s);
  if (s == NULL) return gptvq_fail_memory(err, "the scheduler", sizeof *s);
  (void)pthread_mutex_init(&s->lock, NULL);
  (void)pthread_cond_init(&s->work, NULL);
  (void)pthread_cond_init(&s->released, NULL);
  s->queue_room = options->queue;
  gptvq_status status = gptvq_engine_create(model, tokenizer, options->slots, options->ctx, &s->engine, err);
  s->prompts = calloc(options->slots, sizeof(gptvq_slot *));
  if (status == GPTVQ_OK && s->prompts == NULL)
    status = gptvq_fail_memory(err, "the scheduler", options->slots * sizeof(gptvq_slot *));
  if (status == GPTVQ_OK) {
    int failed = pthread_create(&s->thread, NULL, run, s);
    s->started = failed == 0;
    if (failed != 0) status = gptvq_fail(err, GPTVQ_ERROR_MEMORY, "the scheduler: %s", strerror(failed));
  }
  if (status != GPTVQ_OK) gptvq_scheduler_destroy(s);
  else *out = s;
  return status;
}

void gptvq_scheduler_destroy(gptvq_scheduler *s) {
  if (s == NULL) return;
  (void)pthread_mutex_lock(&s->lock);
  s->draining = s->stopping = true;
  (void)pthread_cond_broadcast(&s->work);
  (void)pthread_mutex_unlock(&s->lock);
  if (s->started) (void)pthread_join(s->thread, NULL);
  gptvq_engine_destroy(s->engine);
  free(s->prompts);
  (void)pthread_cond_destroy(&s->work);
  (void)pthread_cond_destroy(&s->released);
  (void)pthread_mutex_destroy(&s->lock);
  free(s);
}

gptvq_admission gptvq_scheduler_submit(gptvq_scheduler *s, gptvq_request *request) {
  (void)pthread_mutex_lock(&s->lock);
  gptvq_admission answer = s->draining                                  ? GPTVQ_DRAINING
                           : request->count > s->queue_room - s->queued ? GPTVQ_QUEUE_FULL
                                                                        : GPTVQ_ADMITTED;
  for (size_t i = 0; answer == GPTVQ_ADMITTED && i < request->count; i++) {
    gptvq_job *job = &request->jobs[i];
    if (s->last != NULL) s->last->behind = job;
    else s->first = job;
    s->last = job;
    s->queued++;
    request->held++;
  }
  (void)pthread_cond_broadcast(&s->work);
  (void)pthread_mutex_unlock(&s->lock);
  return answer;
}

void gptvq_scheduler_end(gptvq_scheduler *s, gptvq_request *request) {
  (void)pthread_mutex_lock(&s->lock);
  if (request->held > 0) {
    atomic_store(&request->cancelled, true);
    sweep_queue(s, 0);
    for (size_t i = 0; i < s->engine->slots.count; i++) {
      gptvq_slot *slot = &s->engine->slots.items[i];
      if (slot->prompting && slot->job->request == request) gptvq_session_cancel(slot->session);
    }
    (void)pthread_cond_broadcast(&s->work);
  }
  while (request->held > 0) (void)pthread_cond_wait(&s->released, &s->lock);
  (void)pthread_mutex_unlock(&s->lock);
}

void gptvq_scheduler_drain(gptvq_scheduler *s) {
  (void)pthread_mutex_lock(&s->lock);
  s->draining = true;
  (void)pthread_mutex_unlock(&s->lock);
}

gptvq_scheduler_stats gptvq_scheduler_get_stats(gptvq_scheduler *s) {
  gptvq_engine_counts *c = &s->engine->counts;
  (void)pthread_mutex_lock(&s->lock);
  const gptvq_scheduler_stats stats = {.slots = s->engine->slots.count,
                                       .busy = busy(s),
                                       .queued = s->queued,
                                       .prompt_tokens = atomic_load(&c->prompt_tokens),
                                       .cached_tokens = atomic_load(&c->cached_tokens),
                                       .generated_tokens = atomic_load(&c->generated_tokens),
                                       .steps = atomic_load(&c->steps),
                                       .step_texts = atomic_load(&c->step_texts),
                                       .prompt_passes = atomic_load(&c->prompt_passes),
                                       .prompt_texts = atomic_load(&c->prompt_texts),
                                       .cancelled = s->cancelled};
  (void)pthread_mutex_unlock(&s->lock);
  return stats;
}
