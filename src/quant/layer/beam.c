#include "quant/layer/beam.h"
#include "base/memory.h"
#include "quant/layer/lookup.h"
#include "quant/options/options.h"

#include <math.h>
#include <string.h>

typedef struct choice {
  double loss;
  uint32_t parent, index;
} choice;

/* One kept partial assignment after one step: how it came about */
typedef struct step {
  uint32_t parent, index;
  float error[4];
} step;

/* xT in the same order of operations as the table's c T: a point on a centroid is at distance 0 */
static void transform(size_t d, const float *t, const float *w, float scale, float *x) {
  for (size_t j = 0; j < d; j++) {
    x[j] = w[0] / scale * t[j];
    for (size_t i = 1; i <= j; i++) x[j] += w[i] / scale * t[i * d + j];
  }
}

/* e′ = (w − c · scale) T */
static double scaled_error(size_t d, const float *t, const float *w, const float *c, float scale, float *e) {
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

size_t gptvq_batch_table_floats(unsigned dim, size_t padded) { return GPTVQ_BATCH / dim * dim * padded; }

void gptvq_batch_prepare(const gptvq_batch *a) {
  size_t d = a->dim;
  for (size_t b = 0; b < a->blocks; b++) {
    const float *t = a->lookup + b * d * d;
    float *table = a->table + b * d * a->padded;
    for (size_t j = 0; j < d; j++) {
      for (size_t m = 0; m < a->k; m++) {
        float sum = a->book[m * d] * t[j];
        for (size_t i = 1; i <= j; i++) sum += a->book[m * d + i] * t[i * d + j];
        table[j * a->padded + m] = sum;
      }
      for (size_t m = a->k; m < a->padded; m++) table[j * a->padded + m] = INFINITY;
    }
  }
}

static double greedy(const gptvq_batch *a, float *w, const float *scale, uint16_t *index, float *error) {
  size_t d = a->dim, columns = a->blocks * d;
  double loss = 0.0;
  for (size_t b = 0; b < a->blocks; b++) {
    float x[4], *here = w + b * d;
    transform(d, a->lookup + b * d * d, here, scale[b], x);
    size_t m = GPTVQ_MULTI_PICK(gptvq_nearest)(a->dim, a->padded, a->table + b * d * a->padded, x);
    index[b] = (uint16_t)m;
    if (a->u == NULL) continue;
    loss += scaled_error(d, a->metric + b * d * d, here, a->book + m * d, scale[b], error + b * d);
    size_t next = (b + 1) * d;
    GPTVQ_MULTI_PICK(gptvq_feedback)
    (a->dim, columns - next, error + b * d, a->u + b * d * a->u_stride + next, a->u_stride, w + next,
     w + next);
  }
  return loss;
}

/* Keeps the `width` choices of least loss in order; among equals the earlier stays in front. Returns how many
 * there are. */
static size_t insert(choice *best, size_t count, size_t width, choice c) {
  if (count == width && !(c.loss < best[count - 1].loss)) return count;
  size_t at = count < width ? count++ : count - 1;
  for (; at > 0 && c.loss < best[at - 1].loss; at--) best[at] = best[at - 1];
  best[at] = c;
  return count;
}

size_t gptvq_beam_scratch(size_t padded, size_t width) {
  return gptvq_round_up(padded * sizeof(float), 64) + 2 * width * GPTVQ_BATCH * sizeof(float) +
         gptvq_round_up(width * GPTVQ_BATCH * sizeof(step), 64);
}

double gptvq_batch_assign(const gptvq_batch *a, float *w, const float *scale, uint16_t *index, float *error) {
  if (a->width <= 1 || a->u == NULL) return greedy(a, w, scale, index, error);
  size_t d = a->dim, width = a->width, columns = a->blocks * d, live = 1;
  char *scratch = a->scratch;
  float *distance = (float *)(void *)scratch;
  float *now = (float *)(void *)(scratch + gptvq_round_up(a->padded * sizeof(float), 64)),
        *next = now + width * GPTVQ_BATCH;
  step *steps = (step *)(void *)(next + width * GPTVQ_BATCH);
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
      GPTVQ_MULTI_PICK(gptvq_distances)(a->dim, a->padded, a->table + b * d * a->padded, x, distance);
      for (size_t m = 0; m < a->padded; m += GPTVQ_LOOKUP_LANES) { /* most strips hold nothing good enough */
        float limit =
            found < width ? INFINITY : (float)((best[found - 1].loss - loss[c]) / squared) * 1.000001f;
        int any = 0;
        for (size_t l = 0; l < GPTVQ_LOOKUP_LANES; l++) any |= distance[m + l] <= limit;
        if (!any) continue;
        for (size_t l = m; l < gptvq_min_size(a->k, m + GPTVQ_LOOKUP_LANES); l++)
          found = insert(best, found, width,
                         (choice){loss[c] + squared * (double)distance[l], (uint32_t)c, (uint32_t)l});
      }
    }
    size_t after = (b + 1) * d;
    for (size_t c = 0; c < found; c++) {
      const float *from = now + best[c].parent * GPTVQ_BATCH;
      step *s = steps + b * width + c;
      s->parent = best[c].parent;
      s->index = best[c].index;
      loss[c] = best[c].loss;
      (void)scaled_error(d, t, from + b * d, a->book + s->index * d, scale[b], s->error);
      GPTVQ_MULTI_PICK(gptvq_feedback)
      (a->dim, columns - after, s->error, a->u + b * d * a->u_stride + after, a->u_stride, from + after,
       next + c * GPTVQ_BATCH + after);
    }
    live = found;
    float *swap = now;
    now = next;
    next = swap;
  }
  for (size_t b = a->blocks, c = 0; b-- > 0;) {
    const step *s = steps + b * width + c;
    index[b] = (uint16_t)s->index;
    memcpy(error + b * d, s->error, d * sizeof *error);
    c = s->parent;
  }
  return loss[0];
}
