#include "train/pieces.h"

#include "base/threads.h"

typedef struct gate_job {
  size_t width;
  const float *gate_up, *d_product;
  float *out; /* the product, or the gradient of gate | up */
} gate_job;

static void forward_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const gate_job *job = context;
  for (size_t t = begin; t < end; t++) {
    const float *gate = job->gate_up + t * 2 * job->width, *up = gate + job->width;
    float *y = job->out + t * job->width;
    for (size_t i = 0; i < job->width; i++) y[i] = gate[i] / (1.0f + gptvq_ft_exp(-gate[i])) * up[i];
  }
}

void gptvq_ft_gate_forward(size_t tokens, size_t width, const float *gate_up, float *product) {
  gate_job job = {width, gate_up, NULL, product};
  gptvq_parallel_for(tokens, 16, forward_task, &job);
}

static void backward_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const gate_job *job = context;
  for (size_t t = begin; t < end; t++) {
    const float *gate = job->gate_up + t * 2 * job->width, *up = gate + job->width,
                *dy = job->d_product + t * job->width;
    float *d_gate = job->out + t * 2 * job->width, *d_up = d_gate + job->width;
    for (size_t i = 0; i < job->width; i++) {
      float sigmoid = 1.0f / (1.0f + gptvq_ft_exp(-gate[i])), silu = gate[i] * sigmoid;
      d_up[i] = dy[i] * silu;
      d_gate[i] = dy[i] * up[i] * (sigmoid + silu * (1.0f - sigmoid));
    }
  }
}

void gptvq_ft_gate_backward(size_t tokens, size_t width, const float *gate_up, const float *d_product,
                            float *d_gate_up) {
  gate_job job = {width, gate_up, d_product, d_gate_up};
  gptvq_parallel_for(tokens, 16, backward_task, &job);
}
