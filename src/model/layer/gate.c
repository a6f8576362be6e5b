#include "model/layer/gate.h"
#include "base/threads.h"
#include "model/layer/vector.h"

typedef struct gate_job {
  float *wide;
  size_t width;
} gate_job;

static void gate_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const gate_job *job = context;
  for (size_t i = begin; i < end; i++) {
    float *gate = job->wide + i * job->width;
    GPTVQ_MULTI_PICK(gptvq_silu_mul)(job->width / 2, gate, gate + job->width / 2);
  }
}

void gptvq_gate_rows(size_t n, size_t width, float *wide) {
  gate_job job = {wide, width};
  gptvq_parallel_for(n, 4, gate_task, &job);
}
