/* Paths through a trellis: plain loops over states or rows, which every level's compiler turns into vectors. */
#include "quant/layer/trellis.h"
#include "base/memory.h"
#include "quant/layer/beam.h"

#include <math.h>
#include <string.h>

enum { STATES = GPTVQ_TRELLIS_STATES, ROWS = GPTVQ_TRELLIS_ROWS, MOST = STATES / 4 };

#if defined(__AVX512F__)
enum { V = 16 };
#elif defined(__AVX2__)
enum { V = 8 };
#else
enum { V = 4 };
#endif
typedef float vfloat __attribute__((vector_size(4 * V), aligned(4), may_alias));
typedef int32_t vint __attribute__((vector_size(4 * V), aligned(4), may_alias));
#define LOAD(p) (*(const vfloat *)(const void *)(p))
#define BLEND(mask, yes, no) (((mask) & (yes)) | (~(mask) & (no)))

typedef struct survivors {
  float x[STATES], cost[STATES]; /* of a state's predecessor, per state */
  float candidate[STATES], best[MOST];
  int32_t from[MOST];
  const float *segment[MOST];
} survivors;

typedef struct memory {
  survivors *s;
  float *segments[2]; /* [prefixes][GPTVQ_BATCH] */
  float *error;       /* [columns][prefixes] */
  uint8_t *state;     /* [columns][prefixes] */
  size_t bytes;
} memory;

static memory place(unsigned step_bits, unsigned state_bits, char *scratch) {
  const size_t prefixes = (size_t)1 << (state_bits - step_bits), each = prefixes * GPTVQ_BATCH;
  memory m = {.bytes = gptvq_round_up(sizeof(survivors), 64)};
  if (scratch != NULL) {
    m.s = (survivors *)(void *)scratch;
    for (int i = 0; i < 2; i++)
      m.segments[i] = (float *)(void *)(scratch + m.bytes) + (size_t)i * each;
    m.error = m.segments[0] + 2 * each;
    m.state = (uint8_t *)(m.error + each);
  }
  m.bytes += each * (3 * sizeof(float) + 1);
  return m;
}

size_t GPTVQ_MULTI(gptvq_path_scratch)(unsigned step_bits, unsigned state_bits) {
  return place(step_bits, state_bits, NULL).bytes;
}

/* Of all states with the same prefix the cheapest: best, and from = its upper k bits. */
static inline void choose(survivors *s, size_t prefixes, size_t symbols) {
  for (size_t p = 0; p < prefixes; p++) {
    s->best[p] = s->candidate[p];
    s->from[p] = 0;
  }
  for (size_t h = 1; h < symbols; h++) {
    const float *candidate = s->candidate + h * prefixes;
    for (size_t p = 0; p < prefixes; p++) {
      int32_t less = candidate[p] < s->best[p];
      s->from[p] = less ? (int32_t)h : s->from[p];
      s->best[p] = less ? candidate[p] : s->best[p];
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
               prefixes = states >> k;
  memory m = place(k, path->state_bits, scratch);
  survivors *s = m.s;
  for (size_t p = 0; p < prefixes; p++) {
    s->segment[p] = w;
    s->best[p] = path->start < 0 || (size_t)path->start == p ? 0.0f : INFINITY;
  }
  for (size_t c = 0; c < n; c++) {
    const float *table = path->table[c];
    const float scale = path->scale[c], inverse = scale > 0.0f ? 1.0f / scale : 0.0f,
                weight = path->lookup[c] * scale * path->lookup[c] * scale;
    for (size_t p = 0; p < prefixes; p++) {
      const float x = s->segment[p][c] * inverse;
      for (size_t i = 0; i < symbols; i++) {
        s->x[p * symbols + i] = x;
        s->cost[p * symbols + i] = s->best[p];
      }
    }
    for (size_t i = 0; i < states; i++) {
      const float delta = s->x[i] - table[i];
      s->candidate[i] = s->cost[i] + delta * delta * weight;
    }
    choose(s, prefixes, symbols);
    uint8_t *chosen = m.state + c * prefixes;
    float *errors = m.error + c * prefixes, *segments = m.segments[c & 1];
    const float *old[MOST];
    memcpy(old, s->segment, prefixes * sizeof *old);
    for (size_t p = 0; p < prefixes; p++) {
      const size_t at = (size_t)s->from[p] * prefixes + p;
      const float *from = old[at >> k];
      chosen[p] = (uint8_t)at;
      errors[p] = (from[c] - table[at] * scale) * path->metric[c];
      if (path->u == NULL) continue;
      float *to = segments + p * GPTVQ_BATCH;
      feed_back(n - c - 1, errors[p], path->u + c * path->u_stride + c + 1, from + c + 1, to + c + 1);
      s->segment[p] = to;
    }
  }
  size_t last = path->end < 0 ? 0 : (size_t)path->end;
  for (size_t p = 0; path->end < 0 && p < prefixes; p++)
    if (s->best[p] < s->best[last]) last = p;
  if (!(s->best[last] < INFINITY)) return INFINITY;
  double sum = 0.0;
  for (size_t c = n; c-- > 0;) {
    state[c] = m.state[c * prefixes + last];
    error[c] = m.error[c * prefixes + last];
    sum += (double)error[c] * (double)error[c];
    last = (size_t)state[c] >> k;
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
