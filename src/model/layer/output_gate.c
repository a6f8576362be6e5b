#include "model/layer/output_gate.h"
#include "base/threads.h"
#include "model/layer/vector.h"

#include <stdint.h>
#include <string.h>

enum { GRAIN = 4 };

typedef struct gate_job {
  size_t heads, dim, ld;
  float *rows, *other; /* other: queries on their way, or outputs */
} gate_job;

static void split_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const gate_job *job = context;
  size_t dim = job->dim, width = job->heads * dim;
  for (size_t i = begin; i < end; i++) {
    float *row = job->rows + i * job->ld, *queries = job->other + i * width;
    for (size_t h = 0; h < job->heads; h++) {
      memcpy(queries + h * dim, row + 2 * h * dim, dim * sizeof *row);
      memmove(row + h * dim, row + (2 * h + 1) * dim, dim * sizeof *row);
    }
    memcpy(row + width, queries, width * sizeof *row);
  }
}

void gptvq_split_gates(size_t n, size_t heads, size_t dim, size_t ld, float *rows, float *spare) {
  gate_job job = {heads, dim, ld, rows, spare};
  gptvq_parallel_for(n, GRAIN, split_task, &job);
}

static void apply_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const gate_job *job = context;
  for (size_t i = begin; i < end; i++) GPTVQ_MULTI_PICK(gptvq_sigmoid_mul)
  (job->dim, job->rows + i * job->ld, job->other + i * job->dim);
}

void gptvq_apply_gates(size_t n, size_t width, size_t ld, const float *rows, float *out) {
  gate_job job = {.dim = width, .ld = ld, .rows = (float *)(uintptr_t)rows, .other = out};
  gptvq_parallel_for(n, GRAIN, apply_task, &job);
}
