#include "model/layer/latent.h"
#include "base/memory.h"
#include "base/threads.h"

#include <string.h>

typedef struct rows_job {
  const gptvq_latent *latent;
  size_t heads, ld, ldr;
  const float *from, *rotated;
  float *rows;
} rows_job;

static size_t head_size(const gptvq_latent *l) { return l->rotated + l->plain; }

static void place_rotated(const gptvq_latent *l, const float *from, float *to) {
  const size_t half = l->rotated / 2;
  for (size_t i = 0; i < half; i++) {
    to[i] = from[l->halves ? i : 2 * i];
    to[half + i] = from[l->halves ? half + i : 2 * i + 1];
  }
}

static void queries_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const rows_job *job = context;
  const gptvq_latent *l = job->latent;
  for (size_t t = begin; t < end; t++)
    for (size_t h = 0; h < job->heads; h++) {
      const float *from = job->from + t * job->ld + h * head_size(l);
      float *to = job->rows + t * job->ldr + h * head_size(l);
      place_rotated(l, from + l->plain, to);
      memcpy(to + l->rotated, from, l->plain * sizeof *to);
    }
}

void gptvq_latent_queries(const gptvq_latent *latent, size_t heads, size_t n, const float *queries,
                          size_t ldq, float *rows, size_t ldr) {
  rows_job job = {latent, heads, ldq, ldr, queries, NULL, rows};
  gptvq_parallel_for(n, 4, queries_task, &job);
}

static void keys_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const rows_job *job = context;
  const gptvq_latent *l = job->latent;
  const size_t dim = head_size(l), width = l->plain + l->values;
  for (size_t t = begin; t < end; t++)
    for (size_t h = 0; h < job->heads; h++) {
      const float *from = job->from + (t * job->heads + h) * width;
      float *key = job->rows + t * job->ldr + (job->heads + h) * dim, *value = key + job->heads * dim;
      place_rotated(l, job->rotated + t * job->ld, key);
      memcpy(key + l->rotated, from, l->plain * sizeof *key);
      memcpy(value, from + l->plain, l->values * sizeof *value);
      memset(value + l->values, 0, (dim - l->values) * sizeof *value);
    }
}

void gptvq_latent_keys(const gptvq_latent *latent, size_t heads, size_t n, const float *expanded,
                       const float *rotated, size_t ld, float *rows, size_t ldr) {
  rows_job job = {latent, heads, ld, ldr, expanded, rotated, rows};
  gptvq_parallel_for(n, 4, keys_task, &job);
}

void gptvq_latent_outputs(const gptvq_latent *latent, size_t heads, size_t n, float *x) {
  for (size_t head = 1; head < n * heads; head++)
    memmove(x + head * latent->values, x + head * head_size(latent), latent->values * sizeof *x);
}
