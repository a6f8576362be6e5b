#include "model/layer/gate.h"
#include "base/threads.h"
#include "model/layer/vector.h"

typedef struct gate_job {
  float *wide;
  size_t width;
  gptvq_activation activation;
} gate_job;

static void gate_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const gate_job *job = context;
  for (size_t i = begin; i < end; i++) {
    float *gate = job->wide + i * job->width;
    const float *up = gate + job->width / 2;
    switch (job->activation) {
    case GPTVQ_SILU: GPTVQ_MULTI_PICK(gptvq_silu_mul)(job->width / 2, gate, up); break;
    case GPTVQ_GELU_TANH: GPTVQ_MULTI_PICK(gptvq_gelu_mul)(job->width / 2, gate, up); break;
    case GPTVQ_SWIGLU_CLAMPED: GPTVQ_MULTI_PICK(gptvq_clamped_mul)(job->width / 2, gate, up); break;
    }
  }
}

void gptvq_gate_rows(gptvq_activation activation, size_t n, size_t width, float *wide) {
  gate_job job = {wide, width, activation};
  gptvq_parallel_for(n, gptvq_rows_per_task(width), gate_task, &job);
}
