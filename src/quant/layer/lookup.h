/* quant/layer/lookup.h: the hot loops of the solver, one build per CPU level, the same bits from each
 * (multi/lookup.c). */
#ifndef GPTVQ_QUANT_LAYER_LOOKUP_H
#define GPTVQ_QUANT_LAYER_LOOKUP_H

#include "base/multi.h"

#include <stddef.h>
#include <stdint.h>

/* Lanes that every array is padded to. */
enum { GPTVQ_LOOKUP_LANES = 16 };

/* E-step over rows × lanes points (lanes a multiple of 16), each lane with its own upper triangular T:
 *   index[row][lane] = argmin_m ‖(x − c_m) T‖², the lowest m among equals; distance[row][lane] = that
 * minimum. xt[row][j][lane] = x T; t[i·dim + j][lane]; centroids[m][j]; table: scratch of k · dim · 16
 * floats. */
GPTVQ_MULTI_DECLARE(void, gptvq_em_assign, unsigned dim, size_t rows, size_t lanes, size_t k, const float *xt,
                    const float *t, const float *centroids, float *table, uint16_t *index, float *distance);

/* argmin_m Σ_j (x_j − table[j][m])² over m < k, the lowest among equals. table[dim][padded], padded a
 * multiple of 16, entries from k on infinite. */
GPTVQ_MULTI_DECLARE(size_t, gptvq_nearest, unsigned dim, size_t padded, const float *table, const float *x);

/* to[i] = from[i] − Σ_j e[j] · u[j · stride + i] for i < n; from = to is allowed */
GPTVQ_MULTI_DECLARE(void, gptvq_feedback, unsigned dim, size_t n, const float *e, const float *u,
                    size_t stride, const float *from, float *to);

#endif
