/* Sub-vectors of a row one after the other, each to the centroid that is best while all others stay. Few
 * move: whether another centroid is as near as the present one takes a comparison, which is nearest takes
 * more. */
#include "quant/layer/sweep.h"
#include "base/vector.h"
#include "quant/layer/lookup.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#define INLINE inline __attribute__((always_inline))

/* d: a constant */
static INLINE void prepare(size_t d, const gptvq_sweep_batch *s) {
  for (size_t m = 0; m < s->padded; m += V) {
    double lanes[4][V] = {{0}};
    for (size_t l = 0; l < V && m + l < s->k; l++)
      for (size_t i = 0; i < d; i++) lanes[i][l] = (double)s->book[(m + l) * d + i];
    for (size_t b = 0; b < s->blocks; b++) {
      const double *r = s->metric + b * d * d;
      float *to = s->table + b * d * s->padded + m;
      for (size_t j = 0; j < d; j++, to += s->padded) {
        double sum[V];
        for (size_t l = 0; l < V; l++) sum[l] = lanes[0][l] * r[j];
        for (size_t i = 1; i <= j; i++)
          for (size_t l = 0; l < V; l++) sum[l] += lanes[i][l] * r[i * d + j];
        for (size_t l = 0; l < V; l++) to[l] = (float)sum[l];
        for (size_t l = V; l > 0 && m + l > s->k; l--) to[l - 1] = INFINITY;
      }
    }
  }
}

void GPTVQ_MULTI(gptvq_sweep_prepare)(const gptvq_sweep_batch *s) {
  if (s->dim == 1) prepare(1, s);
  else if (s->dim == 2) prepare(2, s);
  else prepare(4, s);
}

/* z with z Rᵀ = g */
static INLINE void solve_transposed(size_t d, const double *r, const float *g, double *z) {
  for (size_t i = d; i-- > 0;) {
    z[i] = (double)g[i];
    for (size_t j = i + 1; j < d; j++) z[i] -= z[j] * r[i * d + j];
    z[i] /= r[i * d + i];
  }
}

static INLINE double distance(size_t d, size_t padded, const float *table, size_t m, const float *x) {
  double sum = 0.0;
  for (size_t j = 0; j < d; j++) {
    double delta = (double)x[j] - (double)table[j * padded + m];
    sum += delta * delta;
  }
  return sum;
}

/* How many centroids are no farther than centroid m */
static INLINE size_t as_near(size_t d, size_t padded, const float *table, size_t m, const float *x) {
  float own = 0.0f;
  for (size_t j = 0; j < d; j++) {
    const float delta = x[j] - table[j * padded + m];
    own = j == 0 ? delta * delta : own + delta * delta;
  }
#if defined(__AVX512F__)
  size_t count = 0;
#else
  vint count = {0};
#endif
  for (size_t i = 0; i < padded; i += V) {
    vfloat delta = x[0] - LOAD(table + i), sum = delta * delta;
    for (size_t j = 1; j < d; j++) {
      delta = x[j] - LOAD(table + j * padded + i);
      sum += delta * delta;
    }
#if defined(__AVX512F__)
    count += (size_t)__builtin_popcount(_mm512_cmp_ps_mask((__m512)sum, _mm512_set1_ps(own), _CMP_LE_OQ));
#else
    count -= sum <= own - (vfloat){0};
#endif
  }
#if defined(__AVX512F__)
  return count;
#else
  size_t all = 0;
  for (size_t l = 0; l < V; l++) all += (size_t)count[l];
  return all;
#endif
}

/* d: a constant */
static INLINE double sweep(size_t d, const gptvq_sweep_batch *s, float *gradient, const float *scale,
                           uint16_t *index, float *change) {
  const size_t padded = s->padded, columns = s->blocks * d;
  const float *table = s->table;
  double gained = 0.0;
  memset(change, 0, columns * sizeof *change);
  for (size_t b = 0; b < s->blocks; b++, table += d * padded) {
    float *g = gradient + b * d, *delta = change + b * d, x[4];
    const size_t now = index[b], next = (b + 1) * d;
    double z[4];
    solve_transposed(d, s->metric + b * d * d, g, z);
    for (size_t j = 0; j < d; j++)
      x[j] = table[j * padded + now] + (scale[b] == 1.0f ? (float)z[j] : (float)z[j] / scale[b]);
    if (as_near(d, padded, table, now, x) == 1) continue;
    const size_t m = GPTVQ_MULTI(gptvq_nearest)(s->dim, padded, table, x);
    if (m == now) continue;
    const double gain = distance(d, padded, table, now, x) - distance(d, padded, table, m, x);
    if (!(gain > 0.0)) continue;
    gained += gain * (double)scale[b] * (double)scale[b];
    for (size_t j = 0; j < d; j++) delta[j] = (s->book[m * d + j] - s->book[now * d + j]) * scale[b];
    index[b] = (uint16_t)m;
    GPTVQ_MULTI(gptvq_feedback)
    (s->dim, columns - next, delta, s->h + b * d * s->stride + next, s->stride, g + d, g + d);
  }
  return gained;
}

double GPTVQ_MULTI(gptvq_sweep_row)(const gptvq_sweep_batch *s, float *gradient, const float *scale,
                                    uint16_t *index, float *change) {
  if (s->dim == 1) return sweep(1, s, gradient, scale, index, change);
  if (s->dim == 2) return sweep(2, s, gradient, scale, index, change);
  return sweep(4, s, gradient, scale, index, change);
}
