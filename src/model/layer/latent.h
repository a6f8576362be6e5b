/* model/layer/latent.h: multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): the moves between what
 * its linears give and the rows q | k | v of attention.h. In those a head has its rotated values first, in
 * the pairs of gptvq_rotate_heads, then the plain ones: an order that products of queries and keys do not
 * feel. Values have as many dimensions as keys, zeros at the end.
 *
 * Sessions keep of each position only what keys and values are made from: rotated | latent, the one key that
 * all heads then share, and the one value. Expanding key = K latent and value = V latent is left to the
 * queries, which become rotated | Kᵀ plain, and to the outputs: V of the sum of latent vectors. */
#ifndef GPTVQ_MODEL_LAYER_LATENT_H
#define GPTVQ_MODEL_LAYER_LATENT_H

#include "model/arch/config.h"

#include <stdbool.h>

/* queries[n × ldq], each head plain | rotated, to the rows' q. */
void gptvq_latent_queries(const gptvq_latent *latent, size_t heads, size_t n, const float *queries,
                          size_t ldq, float *rows, size_t ldr);
/* expanded[n × heads · (plain + values)], each head key | value, and the rotated values of all keys
 * [n × ld], to the rows' k and v. */
void gptvq_latent_keys(const gptvq_latent *latent, size_t heads, size_t n, const float *expanded,
                       const float *rotated, size_t ld, float *rows, size_t ldr);
/* Dimensions of such a key. */
static inline size_t gptvq_latent_key(const gptvq_latent *latent) {
  return latent->rotated + latent->kv_rank;
}
/* kv_b, [heads × (plain + values) × kv_rank] fp32, between the two forms. Rows are multiplied each by itself
 * (`alone`), with the same numbers for any n, or together. Queries as above to rows of heads ·
 * gptvq_latent_key values; latents[n × kv_rank] and the rotated values of keys to the key behind them; sums
 * [n × heads · gptvq_latent_key] to outputs[n × heads · values]. */
typedef struct gptvq_latent_rows {
  const gptvq_latent *latent;
  size_t heads, n;
  bool alone;
  const float *kv_b;
} gptvq_latent_rows;
void gptvq_latent_absorb(const gptvq_latent_rows *rows, const float *queries, size_t ldq, float *out,
                         size_t ldo);
void gptvq_latent_share(const gptvq_latent_rows *rows, const float *latents, const float *rotated, size_t ld,
                        float *out, size_t ldo);
void gptvq_latent_expand(const gptvq_latent_rows *rows, const float *sums, float *outputs);
/* x[n × heads · (rotated + plain)] becomes [n × heads · values] in place. */
void gptvq_latent_outputs(const gptvq_latent *latent, size_t heads, size_t n, float *x);

#endif
