/* model/layer/gate.h: what an MLP does between its linears. Its backward pass: train/gate.c. */
#ifndef GPTVQ_MODEL_LAYER_GATE_H
#define GPTVQ_MODEL_LAYER_GATE_H

#include <stddef.h>

typedef enum gptvq_activation {
  GPTVQ_SILU,
  GPTVQ_GELU_TANH,
  GPTVQ_SWIGLU_CLAMPED /* gpt-oss: gptvq_clamped_mul */
} gptvq_activation;

/* Rows gate | up of `width` values in all: gate becomes activation(gate) · up, or what gptvq_clamped_mul
 * makes of both. */
void gptvq_gate_rows(gptvq_activation activation, size_t n, size_t width, float *wide);

#endif
