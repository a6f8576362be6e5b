/* model/layer/rope.h: rotary position embedding (arXiv 2104.09864), mostly in the rotate-half convention of
 * Hugging Face checkpoints. */
#ifndef GPTVQ_MODEL_LAYER_ROPE_H
#define GPTVQ_MODEL_LAYER_ROPE_H

#include "model/arch/config.h"

/* Rotated dimensions of a head, halved: pairs (i, i + half), or neighbours (2i, 2i + 1). `rope` is one of the
 * config's. */
size_t gptvq_rope_half(const gptvq_config *config, const gptvq_rope *rope);

/* Radians per position of pair i in a context of `positions`, which LongRoPE and dynamic NTK scaling look at.
 */
double gptvq_rope_frequency(const gptvq_config *config, const gptvq_rope *rope, size_t i, size_t positions);
/* What cosines and sines are multiplied by. */
double gptvq_rope_magnitude(const gptvq_rope *rope);

/* cosines, sines [positions × half]; angles and functions in double, rounded once. LongRoPE takes its long
 * factors, and dynamic NTK scaling goes by `positions`, when that exceeds the original context, for all
 * positions: the choice cannot change while a cache is in use. */
void gptvq_rope_tables(const gptvq_config *config, const gptvq_rope *rope, size_t positions, float *cosines,
                       float *sines);

/* `heads` heads of `dim` values side by side in x, in place, by one position's cosines and sines [half];
 * backward: the transposed map, which is the inverse rotation but for the tables' magnitude. */
void gptvq_rotate_heads(size_t half, bool neighbours, const float *cosines, const float *sines, size_t heads,
                        size_t dim, float *x, bool backward);

/* GPTVQ_ERROR_FORMAT for impossible numbers. */
gptvq_status gptvq_rope_check(const gptvq_config *config, const char *folder, gptvq_error *err);

#endif
