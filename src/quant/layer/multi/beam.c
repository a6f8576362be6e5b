/* Assignment of a batch of columns of some rows. Columns pass in blocks of 16: a partial assignment carries
 * the weights of the block at hand alone, and its errors so far. Subtractions from a weight come in the order
 * of the sub-vectors all the same. */
#include "quant/layer/beam.h"
#include "base/memory.h"
#include "base/vector.h"
#include "quant/layer/lookup.h"
#include "quant/options/options.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define INLINE inline __attribute__((always_inline))
enum { BLOCK = GPTVQ_BATCH_BLOCK, LANES = GPTVQ_LOOKUP_LANES, PARTS = LANES / V, STRIPS = 4, SPARE = 16 };

static INLINE void put(float *to, vfloat value) { *(vfloat *)(void *)to = value; }

/* d: a constant */
static INLINE void prepare(size_t d, const gptvq_batch *a) {
  for (size_t m = 0; m < a->padded; m += V) {
    float lanes[4][V] = {{0}};
    for (size_t l = 0; l < V && m + l < a->k; l++)
      for (size_t i = 0; i < d; i++) lanes[i][l] = a->book[(m + l) * d + i];
    for (size_t b = 0; b < a->blocks; b++) {
      const float *t = a->lookup + b * d * d;
      float *to = a->table + b * d * a->padded + m;
      for (size_t j = 0; j < d; j++, to += a->padded) {
        vfloat sum = LOAD(lanes[0]) * t[j];
        for (size_t i = 1; i <= j; i++) sum += LOAD(lanes[i]) * t[i * d + j];
        put(to, sum);
        for (size_t l = V; l > 0 && m + l > a->k; l--) to[l - 1] = INFINITY;
      }
    }
  }
}

void GPTVQ_MULTI(gptvq_batch_prepare)(const gptvq_batch *a) {
  if (a->dim == 1) prepare(1, a);
  else if (a->dim == 2) prepare(2, a);
  else prepare(4, a);
}

/* xT in the same order of operations as the table's c T: a point on a centroid is at distance 0 */
static INLINE void transform(size_t d, const float *t, const float *w, float scale, float *x) {
  float v[4];
  for (size_t j = 0; j < d; j++) v[j] = w[j];
  if (scale != 1.0f)
    for (size_t j = 0; j < d; j++) v[j] /= scale;
  for (size_t j = 0; j < d; j++) {
    x[j] = v[0] * t[j];
    for (size_t i = 1; i <= j; i++) x[j] += v[i] * t[i * d + j];
  }
}

/* e′ = (w − c · scale) T */
static INLINE void scaled_error(size_t d, const float *t, const float *w, const float *c, float scale,
                                float *e) {
  float delta[4];
  for (size_t j = 0; j < d; j++) delta[j] = w[j] - c[j] * scale;
  for (size_t j = 0; j < d; j++) {
    e[j] = delta[0] * t[j];
    for (size_t i = 1; i <= j; i++) e[j] += delta[i] * t[i * d + j];
  }
}

/* to[BLOCK] = from − e U of n columns, a sub-vector at a time */
static INLINE void feed(size_t d, size_t n, const float *e, const float *u, const float *from, float *to) {
  vfloat sum[PARTS];
  for (size_t p = 0; p < PARTS; p++) sum[p] = LOAD(from + p * V);
  for (size_t s = 0; s < n; s += d)
    for (size_t p = 0; p < PARTS; p++) {
      vfloat product = e[s] * LOAD(u + s * BLOCK + p * V);
      for (size_t j = 1; j < d; j++) product += e[s + j] * LOAD(u + (s + j) * BLOCK + p * V);
      sum[p] -= product;
    }
  for (size_t p = 0; p < PARTS; p++) put(to + p * V, sum[p]);
}

/* The panel of feedback to a block's columns */
static INLINE const float *panel(const gptvq_batch *a, size_t block) {
  return a->feedback + BLOCK / 2 * BLOCK * block * (block + 1);
}

static INLINE void load_block(const gptvq_batch *a, const float *w, size_t column, float *to) {
  const size_t left = a->blocks * a->dim - column;
  memset(to, 0, BLOCK * sizeof *to);
  memcpy(to, w + column, (left < BLOCK ? left : BLOCK) * sizeof *to);
}

static INLINE void greedy(size_t d, const gptvq_batch *a, gptvq_batch_row *r) {
  float now[BLOCK];
  r->loss = 0.0;
  for (size_t b = 0; b < a->blocks; b++) {
    const size_t column = b * d, at = column % BLOCK;
    if (at == 0) {
      load_block(a, r->w, column, now);
      if (a->feedback != NULL) feed(d, column, r->error, panel(a, column / BLOCK), now, now);
    }
    float x[4];
    transform(d, a->lookup + b * d * d, now + at, r->scale[b], x);
    const size_t m = GPTVQ_MULTI(gptvq_nearest)(a->dim, a->padded, a->table + b * d * a->padded, x);
    r->index[b] = (uint16_t)m;
    if (a->feedback == NULL) continue;
    float *e = r->error + column;
    scaled_error(d, a->metric + b * d * d, now + at, a->book + m * d, r->scale[b], e);
    double squared = 0.0;
    for (size_t j = 0; j < d; j++) squared += (double)e[j] * (double)e[j];
    r->loss += squared;
    feed(d, d, e, panel(a, column / BLOCK) + column * BLOCK, now, now);
  }
}

/* ---- the least of many values, as the integers that their bits are: these are not negative ---- */

typedef int32_t eight __attribute__((vector_size(32)));
typedef int32_t four __attribute__((vector_size(16)));
#if defined(__clang__)
#define PICK(a, ...) __builtin_shufflevector(a, a, __VA_ARGS__)
#else
#define PICK(a, ...) __builtin_shuffle(a, (four){__VA_ARGS__})
#endif

#if defined(__AVX512F__)
#define LESS_V(a, b) (vint) _mm512_min_epi32((__m512i)(a), (__m512i)(b))
#define MORE_V(a, b) (vint) _mm512_max_epi32((__m512i)(a), (__m512i)(b))
#elif defined(__AVX2__)
#define LESS_V LESS_8
#define MORE_V MORE_8
#else
#define LESS_V LESS_4
#define MORE_V MORE_4
#endif
#if defined(__AVX2__)
#define LESS_8(a, b) (eight) _mm256_min_epi32((__m256i)(a), (__m256i)(b))
#define MORE_8(a, b) (eight) _mm256_max_epi32((__m256i)(a), (__m256i)(b))
#define LESS_4(a, b) (four) _mm_min_epi32((__m128i)(a), (__m128i)(b))
#define MORE_4(a, b) (four) _mm_max_epi32((__m128i)(a), (__m128i)(b))
#else
#define LESS_8(a, b) BLEND((a) < (b), a, b)
#define MORE_8(a, b) BLEND((a) < (b), b, a)
#if defined(__aarch64__)
#define LESS_4(a, b) (four) vminq_s32((int32x4_t)(a), (int32x4_t)(b))
#define MORE_4(a, b) (four) vmaxq_s32((int32x4_t)(a), (int32x4_t)(b))
#else
#define LESS_4 LESS_8
#define MORE_4 MORE_8
#endif
#endif

/* Lanes have lists of their four least values, in order. merge: of two lists the least ones into the first */
#define LISTS(type, suffix, LESS, MORE) \
  static INLINE void order_##suffix(type *a, type *b) { \
    const type less = LESS(*a, *b); \
    *b = MORE(*a, *b); \
    *a = less; \
  } \
  static INLINE void merge_##suffix(type *a, const type *b) { \
    for (size_t i = 0; i < 4; i++) a[i] = LESS(a[i], b[3 - i]); \
    order_##suffix(a, a + 2); \
    order_##suffix(a + 1, a + 3); \
    order_##suffix(a, a + 1); \
    order_##suffix(a + 2, a + 3); \
  }
LISTS(vint, v, LESS_V, MORE_V)
LISTS(eight, 8, LESS_8, MORE_8)
LISTS(four, 4, LESS_4, MORE_4)

static INLINE float most(size_t lanes, const void *list) {
  int32_t all[LANES], result = INT32_MIN;
  memcpy(all, list, lanes * sizeof *all);
  for (size_t l = 0; l < lanes; l++) result = all[l] > result ? all[l] : result;
  float value;
  memcpy(&value, &result, sizeof value);
  return value;
}

/* What no fewer than `width` of these values do not exceed, of a width of 4 or less the least such
 * value. As long as `width` have room in half as many lists lanes are put together. count: a multiple of
 * STRIPS · LANES */
static INLINE float bound(size_t count, size_t width, const float *values) {
  _Alignas(64) vint all[STRIPS][PARTS];
  for (size_t p = 0; p < PARTS; p++) {
    vint least[STRIPS] = {{0}}, list[STRIPS];
    for (size_t m = 0; m < count; m += STRIPS * LANES) {
      for (size_t s = 0; s < STRIPS; s++) list[s] = (vint)LOAD(values + m + s * LANES + p * V);
      order_v(list, list + 1);
      order_v(list + 2, list + 3);
      order_v(list, list + 2);
      order_v(list + 1, list + 3);
      order_v(list + 1, list + 2);
      if (m > 0) merge_v(list, least);
      for (size_t s = 0; s < STRIPS; s++) least[s] = list[s];
    }
    for (size_t s = 0; s < STRIPS; s++) all[s][p] = least[s];
  }
#define STOP(lanes, lists) \
  if (width > 2 * (lanes)) return most(lanes, (lists) + (width + (lanes)-1) / (lanes)-1)
  STOP(16, all);
  eight low[4], high[4];
  for (size_t i = 0; i < 4; i++) {
    memcpy(low + i, all[i], sizeof *low);
    memcpy(high + i, (const char *)all[i] + sizeof *low, sizeof *high);
  }
  merge_8(low, high);
  STOP(8, low);
  four left[4], right[4];
  for (size_t i = 0; i < 4; i++) {
    memcpy(left + i, low + i, sizeof *left);
    memcpy(right + i, (const char *)(low + i) + sizeof *left, sizeof *right);
  }
  merge_4(left, right);
  STOP(4, left);
  for (size_t i = 0; i < 4; i++) right[i] = PICK(left[i], 2, 3, 0, 1);
  merge_4(left, right);
  STOP(2, left);
#undef STOP
  for (size_t i = 0; i < 4; i++) right[i] = PICK(left[i], 1, 0, 3, 2);
  merge_4(left, right);
  float least;
  memcpy(&least, left + width - 1, sizeof least);
  return least;
}

/* Bit i: values[i] <= limit, i < 64 */
static INLINE uint64_t not_above(const float *values, float limit) {
  uint64_t mask = 0;
  for (size_t i = 0; i < 64; i += V) {
#if defined(__AVX512F__)
    const uint64_t part = _mm512_cmp_ps_mask(_mm512_loadu_ps(values + i), _mm512_set1_ps(limit), _CMP_LE_OQ);
#elif defined(__AVX2__)
    const uint64_t part = (uint32_t)_mm256_movemask_ps(
        _mm256_cmp_ps(_mm256_loadu_ps(values + i), _mm256_set1_ps(limit), _CMP_LE_OQ));
#else
    const vint less = LOAD(values + i) <= limit - (vfloat){0};
    const uint64_t part = (less[0] & 1) | (less[1] & 2) | (less[2] & 4) | (less[3] & 8);
#endif
    mask |= part << i;
  }
  return mask;
}

/* ---- partial assignments ---- */

/* Ways to go on, from the survivor at >> shift with the centroid of the lower bits: bits of the loss, which
 * order losses. */
typedef struct ways {
  int64_t loss[GPTVQ_BEAM_MAX + SPARE];
  uint32_t at[GPTVQ_BEAM_MAX + SPARE];
} ways;

/* Those that are kept of a row */
typedef struct survivors {
  size_t count;
  float *now, *next; /* [width][BLOCK]: errors of the block's columns up to the present one, then weights */
  float *before, *made; /* [width][GPTVQ_BATCH]: errors before the block, of the survivors at its begin */
  uint8_t *root, *next_root; /* [width] which of these a survivor goes back to */
  uint8_t *parent;           /* [blocks][width] */
  uint16_t *index;           /* [blocks][width] */
  double *loss;              /* [width] best first */
  float *distance, *value;   /* [width][padded], and up to the next multiple of 64: to each centroid; loss in
                                excess of the least one */
  float *base;               /* [width][BLOCK]: a block's weights for the errors before */
} survivors;

typedef struct memory {
  survivors row[GPTVQ_BATCH_ROWS];
  size_t bytes;
} memory;

static void *place(char *scratch, size_t *used, size_t bytes) {
  void *at = scratch == NULL ? NULL : scratch + *used;
  *used += gptvq_round_up(bytes, 64);
  return at;
}

static memory lay_out(size_t padded, size_t width, char *scratch) {
  enum { FLOAT = sizeof(float) };
  const size_t values = gptvq_round_up(width * padded, STRIPS * LANES);
  memory m = {0};
  for (size_t i = 0; i < GPTVQ_BATCH_ROWS; i++) {
    survivors *s = m.row + i;
    s->now = place(scratch, &m.bytes, width * BLOCK * FLOAT);
    s->next = place(scratch, &m.bytes, width * BLOCK * FLOAT);
    s->before = place(scratch, &m.bytes, width * GPTVQ_BATCH * FLOAT);
    s->made = place(scratch, &m.bytes, width * GPTVQ_BATCH * FLOAT);
    s->root = place(scratch, &m.bytes, width);
    s->next_root = place(scratch, &m.bytes, width);
    s->parent = place(scratch, &m.bytes, width * GPTVQ_BATCH);
    s->index = place(scratch, &m.bytes, width * GPTVQ_BATCH * sizeof(uint16_t));
    s->distance = place(scratch, &m.bytes, values * FLOAT);
    s->value = place(scratch, &m.bytes, values * FLOAT);
    s->base = place(scratch, &m.bytes, width * BLOCK * FLOAT);
    s->loss = place(scratch, &m.bytes, width * sizeof(double));
  }
  return m;
}

size_t GPTVQ_MULTI(gptvq_beam_scratch)(size_t padded, size_t width) {
  return lay_out(padded, width, NULL).bytes;
}

static INLINE void swap(void *a, void *b) {
  void *keep;
  memcpy(&keep, a, sizeof keep);
  memcpy(a, b, sizeof keep);
  memcpy(b, &keep, sizeof keep);
}

/* Puts n ways in order, of which the first `sorted` are; among equals the earlier stays in front. */
static __attribute__((noinline)) void sort(size_t sorted, size_t n, ways *w) {
  for (size_t i = sorted; i < n; i++) {
    const int64_t loss = w->loss[i];
    const uint32_t at = w->at[i];
    size_t j = i;
    for (; j > 0 && loss < w->loss[j - 1]; j--) {
      w->loss[j] = w->loss[j - 1];
      w->at[j] = w->at[j - 1];
    }
    w->loss[j] = loss;
    w->at[j] = at;
  }
}

/* The same of four without branches. */
static INLINE void sort_four(const ways *w, ways *to) {
  uint32_t rank[4] = {0, 1, 2, 3};
  for (size_t i = 1; i < 4; i++)
    for (size_t j = 0; j < i; j++) {
      const uint32_t less = w->loss[i] < w->loss[j];
      rank[j] += less;
      rank[i] -= less;
    }
  for (size_t i = 0; i < 4; i++) {
    to->loss[rank[i]] = w->loss[i];
    to->at[rank[i]] = w->at[i];
  }
}

static INLINE int64_t bits_of(double x) {
  int64_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

/* distance and value of all ways on. */
static INLINE void measure(size_t d, const gptvq_batch *a, const survivors *s, size_t b, float scale) {
  const float *t = a->metric + b * d * d, *table = a->table + b * d * a->padded;
  const size_t count = s->count * a->padded;
  for (size_t c = 0; c < s->count; c++) {
    const float carried = (float)(s->loss[c] - s->loss[0]);
    float x[4];
    transform(d, t, s->now + c * BLOCK + b * d % BLOCK, scale, x);
    for (size_t i = 0; i < a->padded; i += V) {
      vfloat delta = x[0] - LOAD(table + i), sum = delta * delta;
      for (size_t j = 1; j < d; j++) {
        delta = x[j] - LOAD(table + j * a->padded + i);
        sum += delta * delta;
      }
      put(s->distance + c * a->padded + i, sum);
      put(s->value + c * a->padded + i, carried + scale * scale * sum);
    }
  }
  for (size_t i = count; i % (STRIPS * LANES) != 0; i += V) put(s->value + i, (vfloat){0} + INFINITY);
}

/* Beyond it none of the best ways on has its value: values are within 3.01 · 2⁻²⁴ of what they stand for,
 * losses within 2⁻⁵². Paddings are infinite. */
static INLINE float limit_of(const gptvq_batch *a, const survivors *s) {
  const size_t count = gptvq_round_up(s->count * a->padded, STRIPS * LANES);
  const float limit =
      bound(count, a->width, s->value) * (1.0f + 0x1p-20f) + ((float)s->loss[0] * 0x1p-48f + 1e-37f);
  return limit < FLT_MAX ? limit : FLT_MAX;
}

/* Where fp32 does not hold the values: the best way on, in double, or the first, with an infinite loss. */
static size_t choose_one(const gptvq_batch *a, const survivors *s, double squared, unsigned shift,
                         ways *best) {
  double least = INFINITY;
  best->at[0] = 0;
  for (uint32_t at = 0; at < s->count * a->padded; at++) {
    const double loss = s->loss[at >> shift] + squared * (double)s->distance[at];
    if (!(loss < least)) continue;
    least = loss;
    best->at[0] = at;
  }
  best->loss[0] = bits_of(least);
  return 1;
}

/* The best ways on, of those that are not beyond the limit */
static INLINE size_t choose(const gptvq_batch *a, const survivors *s, float limit, float scale,
                            unsigned shift, ways *best) {
  const double squared = (double)scale * (double)scale;
  const size_t count = gptvq_round_up(s->count * a->padded, STRIPS * LANES), width = a->width;
  int64_t worst = INT64_MAX;
  size_t n = 0, sorted = 0;
  ways all;
  for (size_t i = 0; i < count; i += 64)
    for (uint64_t mask = not_above(s->value + i, limit); mask != 0; mask &= mask - 1) {
      const uint32_t at = (uint32_t)i + (uint32_t)__builtin_ctzll(mask), c = at >> shift;
      const int64_t loss = bits_of(s->loss[c] + squared * (double)s->distance[at]);
      if (loss >= worst) continue;
      all.loss[n] = loss;
      all.at[n] = at;
      if (++n < width + SPARE) continue;
      sort(sorted, n, &all);
      n = sorted = width;
      worst = all.loss[n - 1];
    }
  if (n == 0 || squared < (double)FLT_MIN) return choose_one(a, s, squared, shift, best);
  if (n == 4 && sorted == 0) {
    sort_four(&all, best);
  } else {
    sort(sorted, n, &all);
    memcpy(best->loss, all.loss, n * sizeof *all.loss);
    memcpy(best->at, all.at, n * sizeof *all.at);
  }
  return n < width ? n : width;
}

/* Survivors become the best ways on. */
static INLINE void go_on(size_t d, const gptvq_batch *a, survivors *s, size_t b, float scale, unsigned shift,
                         size_t count, const ways *best) {
  const size_t column = b * d, at = column % BLOCK;
  const float *u = panel(a, column / BLOCK) + column * BLOCK;
  for (size_t i = 0; i < count; i++) {
    const size_t parent = best->at[i] >> shift, m = best->at[i] & ((1u << shift) - 1);
    const float *from = s->now + parent * BLOCK;
    float *to = s->next + i * BLOCK, e[4];
    scaled_error(d, a->metric + b * d * d, from + at, a->book + m * d, scale, e);
    feed(d, d, e, u, from, to);
    for (size_t j = 0; j < d; j++) to[at + j] = e[j];
    s->next_root[i] = s->root[parent];
    s->parent[b * a->width + i] = (uint8_t)parent;
    s->index[b * a->width + i] = (uint16_t)m;
    memcpy(s->loss + i, best->loss + i, sizeof *s->loss);
  }
  s->count = count;
  swap(&s->now, &s->next);
  swap(&s->root, &s->next_root);
}

/* The weights of the block from this column on: what survivors have in common before the block that ends here
 * is made up for once. */
static INLINE void enter_block(size_t d, const gptvq_batch *a, survivors *s, const float *w, size_t column) {
  if (column == 0) {
    load_block(a, w, 0, s->now);
    s->count = 1;
    s->loss[0] = 0.0;
    s->root[0] = 0;
    return;
  }
  const float *u = panel(a, column / BLOCK);
  const size_t early = column - BLOCK;
  float here[BLOCK];
  bool given[GPTVQ_BEAM_MAX] = {false};
  load_block(a, w, column, here);
  for (size_t i = 0; i < s->count; i++) {
    const size_t root = s->root[i];
    float *base = s->base + root * BLOCK, *errors = s->made + i * GPTVQ_BATCH;
    const float *now = s->now + i * BLOCK;
    if (!given[root]) feed(d, early, s->before + root * GPTVQ_BATCH, u, here, base);
    given[root] = true;
    memcpy(errors, s->before + root * GPTVQ_BATCH, early * sizeof *errors);
    memcpy(errors + early, now, BLOCK * sizeof *errors);
    feed(d, BLOCK, now, u + early * BLOCK, base, s->next + i * BLOCK);
    s->next_root[i] = (uint8_t)i;
  }
  swap(&s->now, &s->next);
  swap(&s->root, &s->next_root);
  swap(&s->before, &s->made);
}

/* The best one's */
static INLINE void take_best(size_t d, const gptvq_batch *a, const survivors *s, gptvq_batch_row *r) {
  const size_t columns = a->blocks * d, early = (columns - 1) / BLOCK * BLOCK;
  memcpy(r->error, s->before + s->root[0] * GPTVQ_BATCH, early * sizeof *r->error);
  memcpy(r->error + early, s->now, (columns - early) * sizeof *r->error);
  r->loss = s->loss[0];
  for (size_t b = a->blocks, i = 0; b-- > 0; i = s->parent[b * a->width + i])
    r->index[b] = s->index[b * a->width + i];
}

static INLINE void beam(size_t d, const gptvq_batch *shared, size_t width, size_t padded, size_t count,
                        gptvq_batch_row *rows) {
  gptvq_batch own = *shared, *a = &own;
  a->width = width;
  a->padded = padded;
  memory m = lay_out(a->padded, a->width, a->scratch);
  const unsigned shift = (unsigned)__builtin_ctzll(a->padded);
  ways best[GPTVQ_BATCH_ROWS];
  size_t found[GPTVQ_BATCH_ROWS];
  for (size_t b = 0; b < a->blocks; b++) {
    if (b * d % BLOCK == 0)
      for (size_t r = 0; r < count; r++) enter_block(d, a, m.row + r, rows[r].w, b * d);
    for (size_t r = 0; r < count; r++) measure(d, a, m.row + r, b, rows[r].scale[b]);
    float limit[GPTVQ_BATCH_ROWS];
    for (size_t r = 0; r < count; r++) limit[r] = limit_of(a, m.row + r);
    for (size_t r = 0; r < count; r++)
      found[r] = choose(a, m.row + r, limit[r], rows[r].scale[b], shift, best + r);
    for (size_t r = 0; r < count; r++) go_on(d, a, m.row + r, b, rows[r].scale[b], shift, found[r], best + r);
  }
  for (size_t r = 0; r < count; r++) take_best(d, a, m.row + r, rows + r);
}

static INLINE void assign(size_t d, const gptvq_batch *a, size_t count, gptvq_batch_row *rows) {
  if (a->width > 1 && a->feedback != NULL) {
    if (a->width == 4 && a->padded == 16) beam(d, a, 4, 16, count, rows);
    else beam(d, a, a->width, a->padded, count, rows);
  } else
    for (size_t r = 0; r < count; r++) greedy(d, a, rows + r);
}

void GPTVQ_MULTI(gptvq_batch_assign)(const gptvq_batch *a, size_t count, gptvq_batch_row *rows) {
  if (a->dim == 1) assign(1, a, count, rows);
  else if (a->dim == 2) assign(2, a, count, rows);
  else assign(4, a, count, rows);
}
