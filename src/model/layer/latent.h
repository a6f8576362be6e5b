/* model/layer/latent.h: multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): the moves between what
 * its linears give and the rows q | k | v of attention.h. In those a head has its rotated values first, in
 * the pairs of gptvq_rotate_heads, then the plain ones: an order that products of queries and keys do not
 * feel. Values have as many dimensions as keys, zeros at the end. */
#ifndef GPTVQ_MODEL_LAYER_LATENT_H
#define GPTVQ_MODEL_LAYER_LATENT_H

#include "model/arch/config.h"

/* queries[n × ldq], each head plain | rotated, to the rows' q. */
void gptvq_latent_queries(const gptvq_latent *latent, size_t heads, size_t n, const float *queries,
                          size_t ldq, float *rows, size_t ldr);
/* expanded[n × heads · (plain + values)], each head key | value, and the rotated values of all keys
 * [n × ld], to the rows' k and v. */
void gptvq_latent_keys(const gptvq_latent *latent, size_t heads, size_t n, const float *expanded,
                       const float *rotated, size_t ld, float *rows, size_t ldr);
/* x[n × heads · (rotated + plain)] becomes [n × heads · values] in place. */
void gptvq_latent_outputs(const gptvq_latent *latent, size_t heads, size_t n, float *x);

#endif
