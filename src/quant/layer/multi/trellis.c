/* Paths through a trellis: vectors of prefixes, or of rows. */
#include "quant/layer/trellis.h"
#include "base/memory.h"
#include "base/vector.h"
#include "quant/layer/beam.h"

#include <math.h>
#include <string.h>

enum { STATES = GPTVQ_TRELLIS_STATES, ROWS = GPTVQ_TRELLIS_ROWS, MOST = STATES / 4 };

/* Paths that are kept, [width][stride], the cheaper ones of a prefix first; prefixes are filled up to
 * `stride`, a multiple of V, with paths of infinite cost. */
typedef struct survivors {
  float x[GPTVQ_PATHS_MAX * STATES],
      cost[GPTVQ_PATHS_MAX * STATES]; /* [width][symbols][stride]: of the path to a
                                         state, which is h · prefixes + p */
  float table[STATES];                /* likewise, where stride > prefixes */
  float best[GPTVQ_PATHS_MAX * MOST], now[GPTVQ_PATHS_MAX * MOST]; /* now: weights of the present column */
  int32_t from[GPTVQ_PATHS_MAX * MOST]; /* predecessor's rank · 2^k + upper k bits */
} survivors;

typedef struct memory {
  survivors *s;
  float *segments[2]; /* [width][stride][GPTVQ_BATCH] */
  float *error;       /* [columns][width][stride] */
  uint8_t *state;     /* [columns][width][stride] */
  uint8_t *rank;      /* [columns][width][stride] of the predecessor */
  size_t bytes;
} memory;

typedef struct sizes {
  unsigned k;
  size_t symbols, prefixes, stride, width;
} sizes;

static inline sizes sizes_of(unsigned step_bits, size_t width) {
  const size_t prefixes = (size_t)STATES >> step_bits;
  return (sizes){step_bits, (size_t)1 << step_bits, prefixes, gptvq_max_size(V, prefixes), width};
}

static memory place(const sizes *z, char *scratch) {
  const size_t each = z->width * z->stride * GPTVQ_BATCH;
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

size_t GPTVQ_MULTI(gptvq_path_scratch)(unsigned step_bits, size_t width) {
  const sizes z = sizes_of(step_bits, width);
  return place(&z, NULL).bytes;
}

/* Weight and cost of each path to the states that it leads to, `run` = min(symbols, prefixes) of which lie
 * side by side. */
static inline void spread(survivors *s, const sizes *z, float inverse, size_t run) {
  for (size_t rank = 0; rank < z->width; rank++)
    for (size_t p = 0; p < z->prefixes; p++) {
      const size_t state = p * z->symbols;
      const float x = s->now[rank * z->stride + p] * inverse, cost = s->best[rank * z->stride + p];
      size_t at = (rank * z->symbols + state / z->prefixes) * z->stride + state % z->prefixes;
      for (size_t j = 0; j < z->symbols / run; j++, at += z->stride)
        for (size_t i = 0; i < run; i++) {
          s->x[at + i] = x;
          s->cost[at + i] = cost;
        }
    }
}

/* Of all paths to states with the same prefix the `width` (a constant) cheapest, in order. */
static inline void choose(survivors *s, const sizes *z, const float *table, float weight, size_t width) {
  const vfloat factor = (vfloat){0} + weight;
  for (size_t p = 0; p < z->stride; p += V) {
    vfloat best[GPTVQ_PATHS_MAX];
    vint from[GPTVQ_PATHS_MAX];
    for (size_t i = 0; i < width; i++) {
      best[i] = (vfloat){0} + INFINITY;
      from[i] = (vint){0};
    }
    for (size_t i = 0, h = 0; i < width * z->symbols; i++, h = h + 1 == z->symbols ? 0 : h + 1) {
      const size_t at = i * z->stride + p;
      const vfloat delta = LOAD(s->x + at) - LOAD(table + h * z->stride + p);
      vfloat carried = LOAD(s->cost + at) + delta * delta * factor;
      vint carried_from = (vint){0} + (int32_t)i;
      for (size_t rank = 0; rank < width; rank++) {
        const vfloat b = best[rank];
        const vint less = carried < b, bf = from[rank];
        best[rank] = (vfloat)BLEND(less, (vint)carried, (vint)b);
        from[rank] = BLEND(less, carried_from, bf);
        carried = (vfloat)BLEND(less, (vint)b, (vint)carried);
        carried_from = BLEND(less, bf, carried_from);
      }
    }
    for (size_t rank = 0; rank < width; rank++) {
      *(vfloat *)(void *)(s->best + rank * z->stride + p) = best[rank];
      *(vint *)(void *)(s->from + rank * z->stride + p) = from[rank];
    }
  }
}

/* to[i] = from[i] − e u[i] for i = first … n − 1, and perhaps for some before `first`, which nobody reads */
static inline void feed_back(size_t first, size_t n, float e, const float *u, const float *from, float *to) {
  size_t i = first & ~(size_t)(V - 1);
  const vfloat each = (vfloat){0} + e;
  for (; i + V <= n; i += V) *(vfloat *)(void *)(to + i) = LOAD(from + i) - each * LOAD(u + i);
  for (; i < n; i++) to[i] = from[i] - e * u[i];
}

/* Everything that a first step reads. */
static void begin(const memory *m, const sizes *z, const gptvq_path *path, const float *w) {
  survivors *s = m->s;
  for (size_t i = 0; i < z->width * z->symbols * z->stride; i++) {
    s->x[i] = 0.0f;
    s->cost[i] = INFINITY;
  }
  for (size_t i = 0; i < z->width * z->stride; i++)
    s->best[i] = i < z->prefixes && (path->start < 0 || (size_t)path->start == i) ? 0.0f : INFINITY;
  for (size_t i = 0; path->u != NULL && i < z->width * z->stride; i++)
    for (int j = 0; j < 2; j++) memcpy(m->segments[j] + i * GPTVQ_BATCH, w, path->columns * sizeof *w);
}

/* A table as `choose` reads it. */
static const float *fill_up(survivors *s, const sizes *z, const float *table) {
  if (z->stride == z->prefixes) return table;
  memset(s->table, 0, sizeof s->table);
  for (size_t i = 0; i < z->symbols; i++)
    memcpy(s->table + i * z->stride, table + i * z->prefixes, z->prefixes * sizeof *table);
  return s->table;
}

/* k: a constant */
static inline double find_path(const gptvq_path *path, const float *w, uint16_t *state, float *error,
                               void *scratch, unsigned k) {
  const sizes z = sizes_of(k, path->width);
  const size_t n = path->columns, all = z.width * z.stride, run = gptvq_min_size(z.symbols, z.prefixes),
               apart = path->u != NULL ? GPTVQ_BATCH : 0;
  const float *ready = NULL, *made_of = NULL;
  memory m = place(&z, scratch);
  survivors *s = m.s;
  begin(&m, &z, path, w);
  for (size_t c = 0; c < n; c++) {
    const float *table = path->table[c], *u = path->u != NULL ? path->u + c * path->u_stride : NULL,
                *old = path->u != NULL ? m.segments[~c & 1] : w;
    const float scale = path->scale[c], inverse = scale > 0.0f ? 1.0f / scale : 0.0f,
                weight = path->lookup[c] * scale * path->lookup[c] * scale, metric = path->metric[c];
    float *errors = m.error + c * all, *segments = m.segments[c & 1];
    uint8_t *states = m.state + c * all, *ranks = m.rank + c * all;
    if (table != made_of) ready = fill_up(s, &z, made_of = table);
    for (size_t rank = 0; rank < z.width; rank++)
      for (size_t p = 0; p < z.prefixes; p++)
        s->now[rank * z.stride + p] = old[(rank * z.stride + p) * apart + c];
    if (run == 4) spread(s, &z, inverse, 4);
    else if (run == 8) spread(s, &z, inverse, 8);
    else spread(s, &z, inverse, 16);
    if (z.width == 1) choose(s, &z, ready, weight, 1);
    else if (z.width == 2) choose(s, &z, ready, weight, 2);
    else if (z.width == 3) choose(s, &z, ready, weight, 3);
    else choose(s, &z, ready, weight, 4);
    for (size_t rank = 0; rank < z.width; rank++)
      for (size_t p = 0; p < z.prefixes; p++) {
        const size_t i = rank * z.stride + p, from = (size_t)s->from[i],
                     at = (from & (z.symbols - 1)) * z.prefixes + p,
                     before = (from >> k) * z.stride + (at >> k);
        const float e = (s->now[before] - table[at] * scale) * metric;
        states[i] = (uint8_t)at;
        ranks[i] = (uint8_t)(from >> k);
        errors[i] = e;
        if (apart > 0 && s->best[i] < INFINITY)
          feed_back(c + 1, n, e, u, old + before * GPTVQ_BATCH, segments + i * GPTVQ_BATCH);
      }
  }
  size_t last = path->end < 0 ? 0 : (size_t)path->end;
  for (size_t p = 0; path->end < 0 && p < z.prefixes; p++)
    if (s->best[p] < s->best[last]) last = p;
  if (!(s->best[last] < INFINITY)) return INFINITY;
  double sum = 0.0;
  for (size_t c = n; c-- > 0;) {
    state[c] = m.state[c * all + last];
    error[c] = m.error[c * all + last];
    sum += (double)error[c] * (double)error[c];
    last = m.rank[c * all + last] * z.stride + ((size_t)state[c] >> k);
  }
  return sum;
}

double GPTVQ_MULTI(gptvq_find_path)(const gptvq_path *path, const float *w, uint16_t *state, float *error,
                                    void *scratch) {
  if (path->step_bits == 2) return find_path(path, w, state, error, scratch, 2);
  if (path->step_bits == 3) return find_path(path, w, state, error, scratch, 3);
  return find_path(path, w, state, error, scratch, 4);
}

/* k: a constant */
static inline void viterbi(unsigned k, size_t columns, const float *table, const float *x,
                           const float *weight, uint8_t *state, uint8_t *scratch) {
  enum { PARTS = ROWS / V };
  const size_t prefixes = (size_t)STATES >> k, symbols = (size_t)1 << k;
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
  size_t last[ROWS];
  for (size_t row = 0; row < ROWS; row++) {
    last[row] = 0;
    for (size_t i = 1; i < prefixes; i++)
      if (final[i * ROWS + row] < final[last[row] * ROWS + row]) last[row] = i;
  }
  for (size_t c = columns; c-- > 0;)
    for (size_t row = 0; row < ROWS; row++) { /* whose steps back do not wait for each other */
      const size_t s = scratch[(c * prefixes + last[row]) * ROWS + row] * prefixes + last[row];
      state[c * ROWS + row] = (uint8_t)s;
      last[row] = s >> k;
    }
}

void GPTVQ_MULTI(gptvq_viterbi)(unsigned k, size_t columns, const float *table, const float *x,
                                const float *weight, uint8_t *state, uint8_t *scratch) {
  if (k == 2) viterbi(2, columns, table, x, weight, state, scratch);
  else if (k == 3) viterbi(3, columns, table, x, weight, state, scratch);
  else viterbi(4, columns, table, x, weight, state, scratch);
}
