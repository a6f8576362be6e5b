/* quant/layer/system.h: the matrices of the codebook update where they are formed (direct.c), N = Σ over a
 * stripe's rows of Dᵀ (H + ridge) D with D the row's decoding: symmetric, [pairs of groups f <= g][values of
 * f][values of g], by f; values: those of a group's codebook, k · dim. Some are kept from one update of a
 * layer to the next, which follows what moved in between (kept.c). */
#ifndef GPTVQ_QUANT_LAYER_SYSTEM_H
#define GPTVQ_QUANT_LAYER_SYSTEM_H

#include "quant/layer/layer.h"

/* Numbers of a matrix. */
size_t gptvq_system_floats(const gptvq_vq *q);
static inline float *gptvq_system_block(const gptvq_vq *q, float *matrix, size_t f, size_t g) {
  const size_t values = q->k * q->dim;
  return matrix + (f * q->groups - f * (f + 1) / 2 + g) * values * values;
}

/* Where the matrix of a stripe is kept, of q->kept; NULL: it is not. */
float *gptvq_kept_system(const gptvq_vq *q, size_t stripe);
/* A kept matrix that was made for this stripe before becomes that of the present assignment. false: it has to
 * be formed anew, because that takes less or rounding would show. scratch: gptvq_follow_floats of them. */
bool gptvq_system_follow(const gptvq_vq *q, size_t stripe, float *scratch);
size_t gptvq_follow_floats(const gptvq_vq *q);
/* A kept matrix was formed with the present assignment. */
void gptvq_system_formed(const gptvq_vq *q, size_t stripe);

#endif
