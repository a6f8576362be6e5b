#include "model/layer/norm.h"
#include "base/threads.h"
#include "model/layer/vector.h"

#include <stdatomic.h>
#include <string.h>

typedef struct rows_job {
  size_t hidden;
  const float *x, *weight;
  float eps, scale, *y;
  atomic_bool bad; /* a row has no norm */
} rows_job;

static void norm_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  rows_job *job = context;
  for (size_t i = begin; i < end; i++)
    if (!GPTVQ_MULTI_PICK(gptvq_rms_norm)(job->hidden, job->x + i * job->hidden, job->weight, job->eps,
                                          job->y + i * job->hidden))
      atomic_store(&job->bad, true);
}

bool gptvq_norm_rows(size_t n, size_t hidden, const float *x, const float *weight, float eps, float *norm) {
  rows_job job = {.hidden = hidden, .x = x, .weight = weight, .eps = eps, .y = norm};
  gptvq_parallel_for(n, gptvq_rows_per_task(hidden), norm_task, &job);
  return !atomic_load(&job.bad);
}

static void copy_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  rows_job *job = context;
  const float *x = job->x + begin * job->hidden;
  const size_t count = (end - begin) * job->hidden;
  memcpy(job->y + begin * job->hidden, x, count * sizeof *x);
  if (!GPTVQ_MULTI_PICK(gptvq_all_finite)(count, x)) atomic_store(&job->bad, true);
}

bool gptvq_copy_rows(size_t n, size_t hidden, const float *x, float *out) {
  rows_job job = {.hidden = hidden, .x = x, .y = out};
  gptvq_parallel_for(n, 16, copy_task, &job);
  return !atomic_load(&job.bad);
}

static void add_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const rows_job *job = context;
  GPTVQ_MULTI_PICK(gptvq_add_scaled)
  ((end - begin) * job->hidden, job->scale, job->x + begin * job->hidden, job->y + begin * job->hidden);
}

void gptvq_add_rows(size_t n, size_t hidden, float scale, const float *sum, float *x) {
  rows_job job = {.hidden = hidden, .x = sum, .scale = scale, .y = x};
  gptvq_parallel_for(n, 2 * gptvq_rows_per_task(hidden), add_task, &job);
}

typedef struct values_job {
  float number, *x;
} values_job;

static void scale_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const values_job *job = context;
  for (size_t i = begin; i < end; i++) job->x[i] *= job->number;
}

void gptvq_scale_values(size_t n, float scale, float *x) {
  values_job job = {scale, x};
  if (scale != 1.0f) gptvq_parallel_for(n, 4096, scale_task, &job);
}

static void cap_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const values_job *job = context;
  GPTVQ_MULTI_PICK(gptvq_soft_cap)(end - begin, job->number, job->x + begin);
}

void gptvq_cap_values(size_t n, float cap, float *x) {
  values_job job = {cap, x};
  gptvq_parallel_for(n, 4096, cap_task, &job);
}
