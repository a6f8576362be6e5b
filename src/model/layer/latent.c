#include "model/layer/latent.h"
#include "base/memory.h"
#include "base/threads.h"
#include "linalg/gemm.h"

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

typedef struct absorb_job {
  const gptvq_latent_rows *rows;
  const float *from;
  size_t ld;
  float *out;
  size_t ldo;
} absorb_job;

/* Rows of the head's part of kv_b: those of keys, then those of values. */
static const float *head_weights(const gptvq_latent_rows *r, size_t head) {
  return r->kv_b + head * (r->latent->plain + r->latent->values) * r->latent->kv_rank;
}

/* Items are heads. */
static void absorb_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const absorb_job *job = context;
  const gptvq_latent_rows *r = job->rows;
  const gptvq_latent *l = r->latent;
  const size_t step = r->alone ? 1 : gptvq_max_size(r->n, 1);
  for (size_t h = begin; h < end; h++) {
    const float *from = job->from + h * head_size(l);
    float *to = job->out + h * gptvq_latent_key(l);
    for (size_t t = 0; t < r->n; t++) place_rotated(l, from + t * job->ld + l->plain, to + t * job->ldo);
    for (size_t t = 0; t < r->n; t += step)
      gptvq_gemm_serial_nn(step, l->kv_rank, l->plain, 1.0f, from + t * job->ld, job->ld, head_weights(r, h),
                           l->kv_rank, 0.0f, to + t * job->ldo + l->rotated, job->ldo);
  }
}

void gptvq_latent_absorb(const gptvq_latent_rows *rows, const float *queries, size_t ldq, float *out,
                         size_t ldo) {
  absorb_job job = {rows, queries, ldq, out, ldo};
  gptvq_parallel_for(rows->heads, 1, absorb_task, &job);
}

void gptvq_latent_share(const gptvq_latent_rows *rows, const float *latents, const float *rotated, size_t ld,
                        float *out, size_t ldo) {
  const gptvq_latent *l = rows->latent;
  for (size_t t = 0; t < rows->n; t++) {
    float *key = out + t * ldo + rows->heads * gptvq_latent_key(l);
    place_rotated(l, rotated + t * ld, key);
    memcpy(key + l->rotated, latents + t * l->kv_rank, l->kv_rank * sizeof *key);
  }
}

static void expand_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const absorb_job *job = context;
  const gptvq_latent_rows *r = job->rows;
  const gptvq_latent *l = r->latent;
  const size_t step = r->alone ? 1 : gptvq_max_size(r->n, 1);
  for (size_t h = begin; h < end; h++)
    for (size_t t = 0; t < r->n; t += step)
      gptvq_gemm_serial_nt(step, l->values, l->kv_rank, 1.0f,
                           job->from + t * job->ld + h * gptvq_latent_key(l) + l->rotated, job->ld,
                           head_weights(r, h) + l->plain * l->kv_rank, l->kv_rank, 0.0f,
                           job->out + t * job->ldo + h * l->values, job->ldo);
}

void gptvq_latent_expand(const gptvq_latent_rows *rows, const float *sums, float *outputs) {
  const size_t heads = rows->heads;
  absorb_job job = {rows, sums, heads * gptvq_latent_key(rows->latent), outputs,
                    heads * rows->latent->values};
  gptvq_parallel_for(heads, 1, expand_task, &job);
}
