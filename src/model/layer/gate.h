/* model/layer/gate.h: what an MLP does between its linears. Its backward pass: train/gate.c. */
#ifndef GPTVQ_MODEL_LAYER_GATE_H
#define GPTVQ_MODEL_LAYER_GATE_H

#include <stddef.h>

/* Rows gate | up of `width` values in all: gate becomes silu(gate) · up. */
void gptvq_gate_rows(size_t n, size_t width, float *wide);

#endif
