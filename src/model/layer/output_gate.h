/* model/layer/output_gate.h: heads whose outputs are gated, value by value, by what q_proj gives beside the
 * queries. */
#ifndef GPTVQ_MODEL_LAYER_OUTPUT_GATE_H
#define GPTVQ_MODEL_LAYER_OUTPUT_GATE_H

#include <stddef.h>

/* Rows of ld values that begin with q | gate of each head become all gates | all q; what follows stays.
 * spare: [n × heads · dim]. */
void gptvq_split_gates(size_t n, size_t heads, size_t dim, size_t ld, float *rows, float *spare);
/* out[n × width] *= sigmoid of the first `width` values of each row */
void gptvq_apply_gates(size_t n, size_t width, size_t ld, const float *rows, float *out);

#endif
