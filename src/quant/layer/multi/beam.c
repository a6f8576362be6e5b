/* Assignment of a batch of columns of one row. Scalar code that is compiled for each CPU level: short loops
 * over the dimensions of a sub-vector, whose count is a constant in each of three builds. */
#include "quant/layer/beam.h"
#include "base/memory.h"
#include "quant/layer/lookup.h"
#include "quant/options/options.h"

#include <math.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

typedef struct choice {
  double loss;
  uint32_t parent, index;
} choice;

/* xT in the same order of operations as the table's c T: a point on a centroid is at distance 0 */
static inline void transform(size_t d, const float *t, const float *w, float scale, float *x) {
  for (size_t j = 0; j < d; j++) {
    x[j] = w[0] / scale * t[j];
    for (size_t i = 1; i <= j; i++) x[j] += w[i] / scale * t[i * d + j];
  }
}

/* e′ = (w − c · scale) T */
static inline double scaled_error(size_t d, const float *t, const float *w, const float *c, float scale,
                                  float *e) {
  float delta[4];
  double sum = 0.0;
  for (size_t j = 0; j < d; j++) delta[j] = w[j] - c[j] * scale;
  for (size_t j = 0; j < d; j++) {
    e[j] = delta[0] * t[j];
    for (size_t i = 1; i <= j; i++) e[j] += delta[i] * t[i * d + j];
    sum += (double)e[j] * (double)e[j];
  }
  return sum;
}

static inline __attribute__((always_inline)) double
greedy(size_t d, const gptvq_batch *a, float *w, const float *scale, uint16_t *index, float *error) {
  size_t columns = a->blocks * d;
  double loss = 0.0;
  for (size_t b = 0; b < a->blocks; b++) {
    float x[4], *here = w + b * d;
    transform(d, a->lookup + b * d * d, here, scale[b], x);
    size_t m = GPTVQ_MULTI(gptvq_nearest)(a->dim, a->padded, a->table + b * d * a->padded, x);
    index[b] = (uint16_t)m;
    if (a->u == NULL) continue;
    loss += scaled_error(d, a->metric + b * d * d, here, a->book + m * d, scale[b], error + b * d);
    size_t next = (b + 1) * d;
    GPTVQ_MULTI(gptvq_feedback)
    (a->dim, columns - next, error + b * d, a->u + b * d * a->u_stride + next, a->u_stride, w + next,
     w + next);
  }
  return loss;
}

/* Keeps the `width` choices of least loss in order; among equals the earlier stays in front. Returns how many
 * there are. */
static inline size_t insert(choice *best, size_t count, size_t width, choice c) {
  if (count == width && !(c.loss < best[count - 1].loss)) return count;
  size_t at = count < width ? count++ : count - 1;
  for (; at > 0 && c.loss < best[at - 1].loss; at--) best[at] = best[at - 1];
  best[at] = c;
  return count;
}

static inline float least(float a, float b) { return a < b ? a : b; }

/* Bit l: x[l] <= limit, l < GPTVQ_LOOKUP_LANES */
static inline uint32_t not_above(const float *x, float limit) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask(_mm512_loadu_ps(x), _mm512_set1_ps(limit), _CMP_LE_OQ);
#elif defined(__x86_64__)
  uint32_t lanes = 0;
  for (unsigned l = 0; l < GPTVQ_LOOKUP_LANES; l += 4)
    lanes |= (uint32_t)_mm_movemask_ps(_mm_cmple_ps(_mm_loadu_ps(x + l), _mm_set1_ps(limit))) << l;
  return lanes;
#else
  uint32_t lanes = 0;
  for (unsigned l = 0; l < GPTVQ_LOOKUP_LANES; l++) lanes |= (uint32_t)(x[l] <= limit) << l;
  return lanes;
#endif
}

/* No less than the width-th smallest of x[padded]: the largest of the minima of as many classes or more. */
static inline float bound(size_t padded, size_t width, const float *x) {
  enum { LANES = GPTVQ_LOOKUP_LANES };
  float least_of[LANES];
  if (width > LANES) return INFINITY;
  for (size_t l = 0; l < LANES; l++) least_of[l] = x[l];
  for (size_t m = LANES; m < padded; m += LANES)
    for (size_t l = 0; l < LANES; l++) least_of[l] = least(x[m + l], least_of[l]);
  size_t classes = LANES;
  for (; classes >= 2 * width && classes > 4; classes /= 2)
    for (size_t l = 0; l < classes / 2; l++) least_of[l] = least(least_of[l], least_of[l + classes / 2]);
  float most = least_of[0];
  for (size_t l = 1; l < classes; l++) most = least_of[l] > most ? least_of[l] : most;
  return most;
}

static inline __attribute__((always_inline)) double beam(size_t d, const gptvq_batch *a, float *w,
                                                         const float *scale, uint16_t *index, float *error) {
  size_t width = a->width, columns = a->blocks * d, live = 1;
  char *scratch = a->scratch;
  float *distance = (float *)(void *)scratch;
  float *now = (float *)(void *)(scratch + gptvq_round_up(a->padded * sizeof(float), 64)),
        *next = now + width * GPTVQ_BATCH;
  gptvq_beam_step *steps = (gptvq_beam_step *)(void *)(next + width * GPTVQ_BATCH);
  choice best[GPTVQ_BEAM_MAX];
  double loss[GPTVQ_BEAM_MAX] = {0.0};
  memcpy(now, w, columns * sizeof *w);
  for (size_t b = 0; b < a->blocks; b++) {
    const float *t = a->metric + b * d * d;
    double squared = (double)scale[b] * (double)scale[b];
    size_t found = 0;
    for (size_t c = 0; c < live; c++) {
      float x[4];
      transform(d, t, now + c * GPTVQ_BATCH + b * d, scale[b], x);
      GPTVQ_MULTI(gptvq_distances)(a->dim, a->padded, a->table + b * d * a->padded, x, distance);
      float own = bound(a->padded, width, distance);
      for (size_t m = 0; m < a->padded; m += GPTVQ_LOOKUP_LANES) { /* most strips hold nothing good enough */
        float limit = own;
        if (found == width)
          limit = least(limit, (float)((best[found - 1].loss - loss[c]) / squared) * 1.000001f);
        for (uint32_t lanes = not_above(distance + m, limit); lanes != 0; lanes &= lanes - 1) {
          const uint32_t at = (uint32_t)m + (uint32_t)__builtin_ctz(lanes);
          if (at < a->k)
            found = insert(best, found, width,
                           (choice){loss[c] + squared * (double)distance[at], (uint32_t)c, at});
        }
      }
    }
    size_t after = (b + 1) * d;
    for (size_t c = 0; c < found; c++) {
      const float *from = now + best[c].parent * GPTVQ_BATCH;
      gptvq_beam_step *s = steps + b * width + c;
      s->parent = best[c].parent;
      s->index = best[c].index;
      loss[c] = best[c].loss;
      (void)scaled_error(d, t, from + b * d, a->book + s->index * d, scale[b], s->error);
      GPTVQ_MULTI(gptvq_feedback)
      (a->dim, columns - after, s->error, a->u + b * d * a->u_stride + after, a->u_stride, from + after,
       next + c * GPTVQ_BATCH + after);
    }
    live = found;
    float *swap = now;
    now = next;
    next = swap;
  }
  for (size_t b = a->blocks, c = 0; b-- > 0;) {
    const gptvq_beam_step *s = steps + b * width + c;
    index[b] = (uint16_t)s->index;
    memcpy(error + b * d, s->error, d * sizeof *error);
    c = s->parent;
  }
  return loss[0];
}

double GPTVQ_MULTI(gptvq_batch_assign)(const gptvq_batch *a, float *w, const float *scale, uint16_t *index,
                                       float *error) {
  const bool kept = a->width > 1 && a->u != NULL;
  if (a->dim == 1) return kept ? beam(1, a, w, scale, index, error) : greedy(1, a, w, scale, index, error);
  if (a->dim == 2) return kept ? beam(2, a, w, scale, index, error) : greedy(2, a, w, scale, index, error);
  return kept ? beam(4, a, w, scale, index, error) : greedy(4, a, w, scale, index, error);
}
