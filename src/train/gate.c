#include "train/pieces.h"

#include "base/threads.h"
#include "model/layer/vector.h"

#include <math.h>

typedef struct gate_job {
  gptvq_activation activation;
  size_t width;
  const float *gate_up, *d_product;
  float *out; /* the product, or the gradient of gate | up */
} gate_job;

/* gelu(x) = x · sigmoid(angle), the "tanh" form (model/layer/vector.h); and the angle's derivative */
static inline float gelu_angle(float x) { return 1.59576912f * (x + 0.044715f * (x * x * x)); }
static inline float gelu_angle_slope(float x) { return 1.59576912f * (1.0f + 0.134145f * (x * x)); }

/* gptvq_clamped_mul, and its derivatives: those of what is held are 0 */
static void clamped_forward(size_t n, const float *gate, const float *up, float *y) {
  const float limit = GPTVQ_SWIGLU_LIMIT;
  for (size_t i = 0; i < n; i++) {
    float g = fminf(gate[i], limit), u = fmaxf(fminf(up[i], limit), -limit);
    y[i] = g / (1.0f + gptvq_ft_exp(-GPTVQ_SWIGLU_ALPHA * g)) * (u + 1.0f);
  }
}

static void clamped_backward(size_t n, const float *gate, const float *up, const float *dy, float *d_gate,
                             float *d_up) {
  const float limit = GPTVQ_SWIGLU_LIMIT;
  for (size_t i = 0; i < n; i++) {
    float g = fminf(gate[i], limit), u = fmaxf(fminf(up[i], limit), -limit);
    float sigmoid = 1.0f / (1.0f + gptvq_ft_exp(-GPTVQ_SWIGLU_ALPHA * g)), product = g * sigmoid;
    float slope = sigmoid + GPTVQ_SWIGLU_ALPHA * product * (1.0f - sigmoid);
    d_gate[i] = gate[i] < limit ? dy[i] * (u + 1.0f) * slope : 0.0f;
    d_up[i] = fabsf(up[i]) < limit ? dy[i] * product : 0.0f;
  }
}

static void forward_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const gate_job *job = context;
  for (size_t t = begin; t < end; t++) {
    const float *gate = job->gate_up + t * 2 * job->width, *up = gate + job->width;
    float *y = job->out + t * job->width;
    if (job->activation == GPTVQ_SILU)
      for (size_t i = 0; i < job->width; i++) y[i] = gate[i] / (1.0f + gptvq_ft_exp(-gate[i])) * up[i];
    else if (job->activation == GPTVQ_SWIGLU_CLAMPED) clamped_forward(job->width, gate, up, y);
    else
      for (size_t i = 0; i < job->width; i++)
        y[i] = gate[i] / (1.0f + gptvq_ft_exp(-gelu_angle(gate[i]))) * up[i];
  }
}

void gptvq_ft_gate_forward(gptvq_activation activation, size_t tokens, size_t width, const float *gate_up,
                           float *product) {
  gate_job job = {activation, width, gate_up, NULL, product};
  gptvq_parallel_for(tokens, 16, forward_task, &job);
}

static void backward_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const gate_job *job = context;
  for (size_t t = begin; t < end; t++) {
    const float *gate = job->gate_up + t * 2 * job->width, *up = gate + job->width,
                *dy = job->d_product + t * job->width;
    float *d_gate = job->out + t * 2 * job->width, *d_up = d_gate + job->width;
    if (job->activation == GPTVQ_SWIGLU_CLAMPED) {
      clamped_backward(job->width, gate, up, dy, d_gate, d_up);
      continue;
    }
    if (job->activation == GPTVQ_GELU_TANH) {
      for (size_t i = 0; i < job->width; i++) {
        float sigmoid = 1.0f / (1.0f + gptvq_ft_exp(-gelu_angle(gate[i]))), gelu = gate[i] * sigmoid;
        d_up[i] = dy[i] * gelu;
        d_gate[i] = dy[i] * up[i] * (sigmoid + gelu * (1.0f - sigmoid) * gelu_angle_slope(gate[i]));
      }
      continue;
    }
    for (size_t i = 0; i < job->width; i++) {
      float sigmoid = 1.0f / (1.0f + gptvq_ft_exp(-gate[i])), silu = gate[i] * sigmoid;
      d_up[i] = dy[i] * silu;
      d_gate[i] = dy[i] * up[i] * (sigmoid + silu * (1.0f - sigmoid));
    }
  }
}

void gptvq_ft_gate_backward(gptvq_activation activation, size_t tokens, size_t width, const float *gate_up,
                            const float *d_product, float *d_gate_up) {
  gate_job job = {activation, width, gate_up, d_product, d_gate_up};
  gptvq_parallel_for(tokens, 16, backward_task, &job);
}
