/* Paths through a trellis: vectors of prefixes, or of rows. */
#include "quant/layer/trellis.h"
#include "base/memory.h"
#include "base/vector.h"
#include "quant/layer/beam.h"

#include <math.h>
#include <string.h>

enum { STATES = GPTVQ_TRELLIS_STATES, ROWS = GPTVQ_TRELLIS_ROWS, MOST = STATES / 4, BLOCK = 16 };

/* Paths that are kept, [width][prefixes], the cheaper ones of a prefix first. */
typedef struct survivors {
  float x[GPTVQ_PATHS_MAX * STATES];    /* [width][symbols][prefixes]: of the path to a state */
  float apart[STATES];                  /* so that cost is not a multiple of 4 KiB from x */
  float cost[GPTVQ_PATHS_MAX * STATES]; /* as x */
  float best[GPTVQ_PATHS_MAX * MOST];
  /* Its state, and the path that it goes on from. */
  int32_t at[GPTVQ_PATHS_MAX * MOST], before[GPTVQ_PATHS_MAX * MOST];
  /* Of this column and the next one: the path at the end of the block before that a path goes back to; of
   * this block and the next one: which of `tails` that path has. */
  uint8_t root[2][GPTVQ_PATHS_MAX * MOST], tail[2][GPTVQ_PATHS_MAX * MOST];
  int16_t given[GPTVQ_PATHS_MAX * MOST]; /* the new tail of a root, −1: none yet */
  float u[BLOCK][BLOCK], masked[BLOCK];  /* of the block at hand to the next one; of a column to later ones */
} survivors;

/* The columns of a row pass in blocks. A path carries the weights of the block at hand alone, and its errors
 * there. Before that paths have few ancestors in common: later columns take up the errors of a block when the
 * next one is done, for these ancestors. Subtractions come in the order of the columns all the same. */
typedef struct memory {
  survivors *s;
  float *now, *next; /* [width][prefixes][BLOCK]: errors of the block's columns up to the present one, then
                        weights; of the next column */
  float *errors;     /* likewise, at the end of the block before */
  float *tails[2];   /* [width · prefixes][GPTVQ_BATCH]: weights, compensated for the blocks before that */
  int32_t *from;     /* [columns][width][prefixes]: predecessor's rank · 2^k + upper k bits of the state */
  size_t bytes;
} memory;

typedef struct sizes {
  unsigned k, prefix_bits;
  size_t symbols, prefixes, width;
} sizes;

static inline sizes sizes_of(unsigned step_bits, size_t width) {
  return (sizes){.k = step_bits,
                 .prefix_bits = GPTVQ_TRELLIS_STATE_BITS - step_bits,
                 .symbols = (size_t)1 << step_bits,
                 .prefixes = (size_t)STATES >> step_bits, /* a multiple of V */
                 .width = width};
}

static memory place(const sizes *z, char *scratch) {
  const size_t all = z->width * z->prefixes;
  memory m = {.bytes = gptvq_round_up(sizeof(survivors), 64)};
  if (scratch != NULL) {
    m.s = (survivors *)(void *)scratch;
    m.now = (float *)(void *)(scratch + m.bytes);
    m.next = m.now + all * BLOCK;
    m.errors = m.next + all * BLOCK;
    m.tails[0] = m.errors + all * BLOCK;
    m.tails[1] = m.tails[0] + all * GPTVQ_BATCH;
    m.from = (int32_t *)(void *)(m.tails[1] + all * GPTVQ_BATCH);
  }
  m.bytes += all * (3 * BLOCK + 2 * GPTVQ_BATCH) * sizeof(float) + all * GPTVQ_BATCH * sizeof(int32_t);
  return m;
}

size_t GPTVQ_MULTI(gptvq_path_scratch)(unsigned step_bits, size_t width) {
  const sizes z = sizes_of(step_bits, width);
  return place(&z, NULL).bytes;
}

static inline void put(void *to, vfloat value) { *(vfloat *)to = value; }

/* Weight and cost of each path to the states that it leads to; `symbols`: a constant */
static inline __attribute__((always_inline)) void spread(survivors *s, const sizes *z, const float *now,
                                                         float inverse, size_t symbols) {
  const size_t all = z->width * z->prefixes; /* states of a rank follow those of the one before */
  for (size_t p = 0; p < all; p++) {
    const float here = now[p * BLOCK] * inverse, carried = s->best[p];
    for (size_t i = 0; i < symbols; i++) s->x[p * symbols + i] = here;
    for (size_t i = 0; i < symbols; i++) s->cost[p * symbols + i] = carried;
  }
}

/* Of all paths to states with the same prefix the `width` (a constant) cheapest, in order. */
static inline __attribute__((always_inline)) void choose(survivors *s, const sizes *z, const float *table,
                                                         float weight, int32_t *chosen, size_t width) {
  const vfloat factor = (vfloat){0} + weight;
  vint lane = {0};
  for (int l = 0; l < V; l++) lane[l] = l;
  for (size_t p = 0; p < z->prefixes; p += V) {
    vfloat best[GPTVQ_PATHS_MAX];
    vint from[GPTVQ_PATHS_MAX];
    for (size_t i = 0; i < width; i++) {
      best[i] = (vfloat){0} + INFINITY;
      from[i] = (vint){0};
    }
    for (size_t i = 0, h = 0; i < width * z->symbols; i++, h = h + 1 == z->symbols ? 0 : h + 1) {
      const size_t at = i * z->prefixes + p;
      const vfloat delta = LOAD(s->x + at) - LOAD(table + h * z->prefixes + p);
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
      const size_t i = rank * z->prefixes + p;
      const vint at = ((from[rank] & (int32_t)(z->symbols - 1)) << (int)z->prefix_bits) + lane + (int32_t)p,
                 before = ((from[rank] >> (int)z->k) << (int)z->prefix_bits) + (at >> (int)z->k);
      put(s->best + i, best[rank]);
      *(vint *)(void *)(s->at + i) = at;
      *(vint *)(void *)(s->before + i) = before;
      *(vint *)(void *)(chosen + i) = from[rank];
    }
  }
}

/* to[i] = from[i] − Σ_s e[s] u[s][i] for i < BLOCK, s < BLOCK, in that order */
static inline void feed_block(const float *e, const float *u, const float *from, float *to) {
  vfloat sum[BLOCK / V];
  for (size_t v = 0; v < BLOCK / V; v++) sum[v] = LOAD(from + v * V);
  for (size_t s = 0; s < BLOCK; s++)
    for (size_t v = 0; v < BLOCK / V; v++) sum[v] -= e[s] * LOAD(u + s * BLOCK + v * V);
  for (size_t v = 0; v < BLOCK / V; v++) put(to + v * V, sum[v]);
}

/* The same for i < n, rows of u lying apart. */
static void feed_tail(size_t n, const float *e, const float *u, size_t stride, const float *from, float *to) {
  const size_t whole = n & ~(size_t)(V - 1);
  for (size_t i = 0; i < whole; i += V) {
    vfloat sum = LOAD(from + i);
    for (size_t s = 0; s < BLOCK; s++) sum -= e[s] * LOAD(u + s * stride + i);
    put(to + i, sum);
  }
  for (size_t i = whole; i < n; i++) {
    to[i] = from[i];
    for (size_t s = 0; s < BLOCK; s++) to[i] -= e[s] * u[s * stride + i];
  }
}

/* The weights of the block from column c on, which take up the errors of the block before; the errors of the
 * one before that go into the tails. */
static void enter_block(memory *m, const sizes *z, const gptvq_path *path, const float *w, size_t c,
                        unsigned block) {
  survivors *s = m->s;
  const size_t all = z->width * z->prefixes, n = path->columns, wide = gptvq_min_size(BLOCK, n - c);
  if (block == 0 || path->u == NULL) {
    for (size_t i = 0; i < all; i++) memcpy(m->now + i * BLOCK, w + c, wide * sizeof *w);
    if (path->u == NULL) return;
    memcpy(m->tails[0], w, n * sizeof *w);
    memset(s->tail[0], 0, all);
  } else {
    const uint8_t *tail = s->tail[~block & 1], *root = s->root[c & 1];
    const float *old = m->tails[~block & 1], *u = path->u + (c - BLOCK) * path->u_stride;
    float *made = m->tails[block & 1], *swap = m->errors;
    int16_t count = 0;
    memset(s->given, 0xff, sizeof s->given);
    for (size_t rank = 0; rank < z->width; rank++)
      for (size_t p = 0; p < z->prefixes; p++) {
        const size_t i = rank * z->prefixes + p, from = root[i];
        if (s->given[from] < 0) {
          const size_t at = (size_t)tail[from] * GPTVQ_BATCH + c;
          float *to = made + (size_t)count * GPTVQ_BATCH + c;
          if (block == 1) memcpy(to, old + at, (n - c) * sizeof *to);
          else
            feed_tail(n - c, m->errors + from * BLOCK, u - BLOCK * path->u_stride + c, path->u_stride,
                      old + at, to);
          s->given[from] = count++;
        }
        s->tail[block & 1][i] = (uint8_t)s->given[from];
      }
    for (size_t j = 0; j < BLOCK; j++) memcpy(s->u[j], u + j * path->u_stride + c, wide * sizeof *u);
    for (size_t rank = 0; rank < z->width; rank++)
      for (size_t p = 0; p < z->prefixes; p++) {
        const size_t i = rank * z->prefixes + p;
        feed_block(m->now + i * BLOCK, s->u[0], made + (size_t)s->tail[block & 1][i] * GPTVQ_BATCH + c,
                   m->next + i * BLOCK);
      }
    m->errors = m->now;
    m->now = m->next;
    m->next = swap;
  }
  for (size_t i = 0; i < all; i++) s->root[c & 1][i] = (uint8_t)i;
}

/* Errors and weights of all paths for the column behind c. */
static inline __attribute__((always_inline)) void go_on(memory *m, const sizes *z, const gptvq_path *path,
                                                        const float *table, size_t c) {
  survivors *s = m->s;
  const size_t j = c % BLOCK, wide = gptvq_min_size(BLOCK, path->columns - (c - j));
  const float scale = path->scale[c], metric = path->metric[c];
  const uint8_t *root = s->root[c & 1];
  uint8_t *next_root = s->root[~c & 1];
  memset(s->masked, 0, sizeof s->masked);
  memcpy(s->masked + j + 1, path->u + c * path->u_stride + c + 1, (wide - j - 1) * sizeof *s->masked);
  vfloat u[BLOCK / V];
  for (size_t v = 0; v < BLOCK / V; v++) u[v] = LOAD(s->masked + v * V);
  for (size_t rank = 0; rank < z->width; rank++)
    for (size_t p = 0; p < z->prefixes; p++) {
      const size_t i = rank * z->prefixes + p, before = (size_t)s->before[i];
      const float *from = m->now + before * BLOCK, e = (from[j] - table[s->at[i]] * scale) * metric;
      float *to = m->next + i * BLOCK;
      for (size_t v = 0; v < BLOCK / V; v++) put(to + v * V, LOAD(from + v * V) - e * u[v]);
      to[j] = e;
      next_root[i] = root[before];
    }
  float *swap = m->now;
  m->now = m->next;
  m->next = swap;
}

/* Everything that a first step reads. */
static void begin(const memory *m, const sizes *z, const gptvq_path *path) {
  survivors *s = m->s;
  for (size_t i = 0; i < z->width * z->prefixes; i++)
    s->best[i] = i < z->prefixes && (path->start < 0 || (size_t)path->start == i) ? 0.0f : INFINITY;
  memset(m->now, 0, 3 * z->width * z->prefixes * BLOCK * sizeof *m->now);
  memset(s->u, 0, sizeof s->u);
}

/* Errors of a path that is known, and their squares. */
static double errors_of(const gptvq_path *path, const float *w, const uint16_t *state, float *error) {
  const size_t n = path->columns;
  float now[GPTVQ_BATCH];
  double sum = 0.0;
  memcpy(now, w, n * sizeof *w);
  for (size_t c = 0; c < n; c++) {
    error[c] = (now[c] - path->table[c][state[c]] * path->scale[c]) * path->metric[c];
    if (path->u == NULL) continue;
    const float *u = path->u + c * path->u_stride;
    for (size_t i = c + 1; i < n; i++) now[i] -= error[c] * u[i];
  }
  for (size_t c = n; c-- > 0;) sum += (double)error[c] * (double)error[c];
  return sum;
}

/* k: a constant */
static inline __attribute__((always_inline)) double
find_path(const gptvq_path *path, const float *w, uint16_t *state, float *error, void *scratch, unsigned k) {
  const sizes z = sizes_of(k, path->width);
  const size_t n = path->columns, all = z.width * z.prefixes;
  memory m = place(&z, scratch);
  survivors *s = m.s;
  begin(&m, &z, path);
  for (size_t c = 0; c < n; c++) {
    const float *table = path->table[c], scale = path->scale[c], inverse = scale > 0.0f ? 1.0f / scale : 0.0f,
                weight = path->lookup[c] * scale * path->lookup[c] * scale;
    int32_t *from = m.from + c * all;
    if (c % BLOCK == 0) enter_block(&m, &z, path, w, c, (unsigned)(c / BLOCK));
    spread(s, &z, m.now + c % BLOCK, inverse, (size_t)1 << k);
    if (z.width == 1) choose(s, &z, table, weight, from, 1);
    else if (z.width == 2) choose(s, &z, table, weight, from, 2);
    else if (z.width == 3) choose(s, &z, table, weight, from, 3);
    else choose(s, &z, table, weight, from, 4);
    if (path->u != NULL) go_on(&m, &z, path, table, c);
  }
  size_t last = path->end < 0 ? 0 : (size_t)path->end;
  for (size_t p = 0; path->end < 0 && p < z.prefixes; p++)
    if (s->best[p] < s->best[last]) last = p;
  if (!(s->best[last] < INFINITY)) return INFINITY;
  for (size_t c = n; c-- > 0;) {
    const size_t from = (size_t)m.from[c * all + last];
    state[c] = (uint16_t)((from & (z.symbols - 1)) * z.prefixes + last % z.prefixes);
    last = (from >> k) * z.prefixes + ((size_t)state[c] >> k);
  }
  return errors_of(path, w, state, error);
}

double GPTVQ_MULTI(gptvq_find_path)(const gptvq_path *path, const float *w, uint16_t *state, float *error,
                                    void *scratch) {
  if (path->step_bits == 2) return find_path(path, w, state, error, scratch, 2);
  if (path->step_bits == 3) return find_path(path, w, state, error, scratch, 3);
  return find_path(path, w, state, error, scratch, 4);
}

/* Cheapest ways to four prefixes from p on, of all rows. cost[prefixes][ROWS] before and after the column;
 * of a state t: add[2 t], and times x[ROWS] add[2 t + 1]. from[ROWS]: a byte for each prefix. k: a constant
 */
static inline __attribute__((always_inline)) void step(unsigned k, size_t prefixes, size_t p,
                                                       const float *add, const float *x, const float *before,
                                                       float *after, int32_t *from) {
  enum { PARTS = ROWS / V };
  vint words[PARTS];
  for (size_t i = 0; i < PARTS; i++) words[i] = (vint){0};
  for (size_t j = 0; j < 4; j++) {
    vfloat best[PARTS];
    vint ways[PARTS];
    for (size_t h = 0; h < (size_t)1 << k; h++) {
      const size_t s = h * prefixes + p + j;
      for (size_t i = 0; i < PARTS; i++) {
        const vfloat cost =
            LOAD(before + (s >> k) * ROWS + i * V) + (add[2 * s] + add[2 * s + 1] * LOAD(x + i * V));
        const vint less = cost < best[i];
        if (h > 0) {
          best[i] = (vfloat)BLEND(less, (vint)cost, (vint)best[i]);
          ways[i] = BLEND(less, (vint){0} + ((int32_t)h << 8 * j), ways[i]);
        } else {
          best[i] = cost;
          ways[i] = (vint){0};
        }
      }
    }
    for (size_t i = 0; i < PARTS; i++) {
      put(after + (p + j) * ROWS + i * V, best[i]);
      words[i] |= ways[i];
    }
  }
  for (size_t i = 0; i < PARTS; i++) *(vint *)(void *)(from + i * V) = words[i];
}

/* k: a constant */
static inline __attribute__((always_inline)) void viterbi(unsigned k, size_t columns, const float *table,
                                                          const float *x, const float *weight, uint8_t *state,
                                                          uint8_t *scratch) {
  const size_t prefixes = (size_t)STATES >> k;
  float costs[2][MOST * ROWS + 64] = {{0}}, add[2 * STATES];
  for (size_t c = 0; c < columns; c++) {
    const float w = weight[c];
    for (size_t s = 0; s < STATES; s++) { /* (x − t)² but for x², which all paths have in common */
      add[2 * s] = w * table[s] * table[s];
      add[2 * s + 1] = -2.0f * w * table[s];
    }
    for (size_t p = 0; p < prefixes; p += 4)
      step(k, prefixes, p, add, x + c * ROWS, costs[c & 1], costs[~c & 1],
           (int32_t *)(void *)(scratch + (c * prefixes + p) * ROWS));
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
      int32_t ways;
      memcpy(&ways, scratch + (c * prefixes + (last[row] & ~(size_t)3)) * ROWS + row * sizeof ways,
             sizeof ways);
      const size_t s = ((size_t)ways >> (last[row] & 3) * 8 & 15) * prefixes + last[row];
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
