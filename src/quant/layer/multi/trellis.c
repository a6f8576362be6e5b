/* Paths through a trellis: plain loops over states or rows, which every level's compiler turns into vectors.
 */
#include "quant/layer/trellis.h"
#include "base/memory.h"
#include "base/vector.h"
#include "quant/layer/beam.h"

#include <math.h>
#include <string.h>

enum { STATES = GPTVQ_TRELLIS_STATES, ROWS = GPTVQ_TRELLIS_ROWS, MOST = STATES / 4 };

/* Paths that are kept, [width][prefixes], the cheaper ones of a prefix first. */
typedef struct survivors {
  float x[GPTVQ_PATHS_MAX * STATES], cost[GPTVQ_PATHS_MAX * STATES]; /* of a state's predecessor, per state */
  float candidate[GPTVQ_PATHS_MAX * STATES], best[GPTVQ_PATHS_MAX * MOST], carried[MOST];
  int32_t from[GPTVQ_PATHS_MAX * MOST], carried_from[MOST]; /* predecessor's rank · 2^k + upper k bits */
  const float *segment[GPTVQ_PATHS_MAX * MOST], *old[GPTVQ_PATHS_MAX * MOST];
} survivors;

typedef struct memory {
  survivors *s;
  float *segments[2]; /* [width][prefixes][GPTVQ_BATCH] */
  float *error;       /* [columns][width][prefixes] */
  uint8_t *state;     /* [columns][width][prefixes] */
  uint8_t *rank;      /* [columns][width][prefixes] of the predecessor */
  size_t bytes;
} memory;

static memory place(unsigned step_bits, unsigned state_bits, size_t width, char *scratch) {
  const size_t each = (width << (state_bits - step_bits)) * GPTVQ_BATCH;
  memory m = {.bytes = gptvq_round_up(sizeof(survivors), 64)};
  if (scratch != NULL) {
    m.s = (survivors *)(void *)scratch;
    m.segments[0] = (float *)(void *)(scratch + m.bytes);
    m.segments[1] = m.segments[0] + each;
    m.error = m.segments[1] + each;
    m.state = (uint8_t *)(m.error + each);
    m.rank = m.state + each;
  }
  m.bytes += each * (3 * sizeof(float) + 2);
  return m;
}

size_t GPTVQ_MULTI(gptvq_path_scratch)(unsigned step_bits, unsigned state_bits, size_t width) {
  return place(step_bits, state_bits, width, NULL).bytes;
}

/* Of all candidates with the same prefix the `width` cheapest, in order. */
static inline void choose(survivors *s, size_t prefixes, size_t symbols, size_t width) {
  for (size_t i = 0; i < width * prefixes; i++) {
    s->best[i] = INFINITY;
    s->from[i] = 0;
  }
  for (size_t i = 0; i < width * symbols; i++) {
    const float *candidate = s->candidate + i * prefixes;
    for (size_t p = 0; p < prefixes; p++) {
      s->carried[p] = candidate[p];
      s->carried_from[p] = (int32_t)i;
    }
    for (size_t rank = 0; rank < width; rank++) {
      float *best = s->best + rank * prefixes;
      int32_t *from = s->from + rank * prefixes;
      for (size_t p = 0; p < prefixes; p++) {
        const float c = s->carried[p], b = best[p];
        const int32_t cf = s->carried_from[p], bf = from[p];
        best[p] = c < b ? c : b;
        from[p] = c < b ? cf : bf;
        s->carried[p] = c < b ? b : c;
        s->carried_from[p] = c < b ? bf : cf;
      }
    }
  }
}

/* to[i] = from[i] − e u[i], i < n */
static inline void feed_back(size_t n, float e, const float *u, const float *from, float *to) {
  size_t i = 0;
  for (; i + V <= n; i += V) *(vfloat *)(void *)(to + i) = LOAD(from + i) - e * LOAD(u + i);
  for (; i < n; i++) to[i] = from[i] - e * u[i];
}

double GPTVQ_MULTI(gptvq_find_path)(const gptvq_path *path, const float *w, uint16_t *state, float *error,
                                    void *scratch) {
  const unsigned k = path->step_bits;
  const size_t n = path->columns, states = (size_t)1 << path->state_bits, symbols = (size_t)1 << k,
               prefixes = states >> k, width = path->width, all = width * prefixes;
  memory m = place(k, path->state_bits, width, scratch);
  survivors *s = m.s;
  for (size_t i = 0; i < all; i++) {
    s->segment[i] = w;
    s->best[i] = i < prefixes && (path->start < 0 || (size_t)path->start == i) ? 0.0f : INFINITY;
  }
  for (size_t c = 0; c < n; c++) {
    const float *table = path->table[c];
    const float scale = path->scale[c], inverse = scale > 0.0f ? 1.0f / scale : 0.0f,
                weight = path->lookup[c] * scale * path->lookup[c] * scale;
    for (size_t p = 0; p < all; p++) {
      const float x = s->segment[p][c] * inverse;
      for (size_t i = 0; i < symbols; i++) {
        s->x[p * symbols + i] = x;
        s->cost[p * symbols + i] = s->best[p];
      }
    }
    for (size_t rank = 0; rank < width; rank++)
      for (size_t i = 0; i < states; i++) {
        const float delta = s->x[rank * states + i] - table[i];
        s->candidate[rank * states + i] = s->cost[rank * states + i] + delta * delta * weight;
      }
    choose(s, prefixes, symbols, width);
    uint8_t *chosen = m.state + c * all, *ranks = m.rank + c * all;
    float *errors = m.error + c * all, *segments = m.segments[c & 1];
    memcpy(s->old, s->segment, all * sizeof *s->old);
    for (size_t i = 0; i < all; i++) {
      const size_t rank = (size_t)s->from[i] >> k, h = (size_t)s->from[i] & (symbols - 1),
                   at = h * prefixes + (i & (prefixes - 1));
      const float *from = s->old[rank * prefixes + (at >> k)];
      chosen[i] = (uint8_t)at;
      ranks[i] = (uint8_t)rank;
      errors[i] = (from[c] - table[at] * scale) * path->metric[c];
      if (path->u == NULL) continue;
      if (!(s->best[i] < INFINITY)) {
        s->segment[i] = w; /* anything finite */
        continue;
      }
      float *to = segments + i * GPTVQ_BATCH;
      feed_back(n - c - 1, errors[i], path->u + c * path->u_stride + c + 1, from + c + 1, to + c + 1);
      s->segment[i] = to;
    }
  }
  size_t last = path->end < 0 ? 0 : (size_t)path->end;
  for (size_t p = 0; path->end < 0 && p < prefixes; p++)
    if (s->best[p] < s->best[last]) last = p;
  if (!(s->best[last] < INFINITY)) return INFINITY;
  double sum = 0.0;
  for (size_t c = n; c-- > 0;) {
    state[c] = m.state[c * all + last];
    error[c] = m.error[c * all + last];
    sum += (double)error[c] * (double)error[c];
    last = m.rank[c * all + last] * prefixes + ((size_t)state[c] >> k);
  }
  return sum;
}

void GPTVQ_MULTI(gptvq_viterbi)(unsigned k, unsigned state_bits, size_t columns, const float *table,
                                const float *x, const float *weight, uint8_t *state, uint8_t *scratch) {
  enum { PARTS = ROWS / V };
  const size_t states = (size_t)1 << state_bits, prefixes = states >> k, symbols = (size_t)1 << k;
  float costs[2][MOST * ROWS];
  memset(costs[0], 0, sizeof costs[0]);
  for (size_t c = 0; c < columns; c++) {
    const float *before = costs[c & 1];
    float *after = costs[~c & 1];
    const vfloat w = (vfloat){0} + weight[c];
    for (size_t part = 0; part < PARTS; part++) {
      const vfloat point = LOAD(x + c * ROWS + part * V);
      for (size_t p = 0; p < prefixes; p++) {
        vfloat best = (vfloat){0} + INFINITY;
        vint from = {0};
        for (size_t h = 0; h < symbols; h++) {
          const size_t s = h * prefixes + p;
          const vfloat delta = point - table[s];
          const vfloat cost = LOAD(before + (s >> k) * ROWS + part * V) + delta * delta * w;
          const vint less = cost < best;
          best = (vfloat)BLEND(less, (vint)cost, (vint)best);
          from = BLEND(less, (vint){0} + (int32_t)h, from);
        }
        *(vfloat *)(void *)(after + p * ROWS + part * V) = best;
        uint8_t *to = scratch + (c * prefixes + p) * ROWS + part * V;
        for (size_t l = 0; l < V; l++) to[l] = (uint8_t)from[l];
      }
    }
  }
  const float *final = costs[columns & 1];
  for (size_t row = 0; row < ROWS; row++) {
    size_t p = 0;
    for (size_t i = 1; i < prefixes; i++)
      if (final[i * ROWS + row] < final[p * ROWS + row]) p = i;
    for (size_t c = columns; c-- > 0;) {
      const size_t s = scratch[(c * prefixes + p) * ROWS + row] * prefixes + p;
      state[c * ROWS + row] = (uint8_t)s;
      p = s >> k;
    }
  }
}
