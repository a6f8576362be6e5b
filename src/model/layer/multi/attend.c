/* Attention of a few queries. Vector types of the level's width keep sums in registers; the numbers are
 * those of 16 fixed lanes at every level. */
#include "model/layer/vector.h"
#include "base/vector.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

/* KEYS: whose lanes are added up together. QUERIES: that go together where registers last for the sums of
 * all. */
enum { LANES = 16, PARTS = LANES / V, KEYS = 4, QUERIES = PARTS == 1 ? 3 : 1 };
#define INLINE inline __attribute__((always_inline))
typedef float eight __attribute__((vector_size(32)));
typedef float four __attribute__((vector_size(16)));
#if defined(__AVX512F__)
typedef vint select;
#else
typedef int select __attribute__((vector_size(16)));
#endif

#define STORE(p, v) (*(vfloat *)(void *)(p) = (v))
#if defined(__clang__)
#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PICK(a, b, ...) __builtin_shuffle(a, b, (select){__VA_ARGS__})
#endif

/* The lanes of one key */
typedef struct lanes {
  vfloat part[PARTS];
} lanes;

/* The lanes of a key are added up as 16 -> 8 -> 4, upper half onto lower half, and their four sums as (0 + 2)
 * + (1 + 3). Lane i of the result: key i's. */
#if defined(__AVX512F__)
#define FROM(i) 4 * (i), 4 * (i) + 1, 4 * (i) + 2, 4 * (i) + 3
#define QUADS(a, b, i, j, k, l) PICK(a, b, FROM(i), FROM(j), FROM(k), FROM(l))
#define ALL(i, j, k, l) \
  i, j, k, l, i + 4, j + 4, k + 4, l + 4, i + 8, j + 8, k + 8, l + 8, i + 12, j + 12, k + 12, l + 12
static INLINE four fold_keys(const lanes sums[KEYS]) {
  const vfloat a = sums[0].part[0], b = sums[1].part[0], c = sums[2].part[0], d = sums[3].part[0];
  const vfloat ab = QUADS(a, b, 0, 1, 4, 5) + QUADS(a, b, 2, 3, 6, 7),
               cd = QUADS(c, d, 0, 1, 4, 5) + QUADS(c, d, 2, 3, 6, 7);
  vfloat all = QUADS(ab, cd, 0, 2, 4, 6) + QUADS(ab, cd, 1, 3, 5, 7); /* four sums of each key */
  all += PICK(all, all, ALL(2, 3, 0, 1));
  all += PICK(all, all, ALL(1, 0, 3, 2));
  all = PICK(all, all, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
  four result;
  memcpy(&result, &all, sizeof result);
  return result;
}
#else
static INLINE four fold_lanes(const lanes *sums) {
  eight low, high;
  memcpy(&low, sums, sizeof low);
  memcpy(&high, (const char *)sums + sizeof low, sizeof high);
  low += high;
  four left, right;
  memcpy(&left, &low, sizeof left);
  memcpy(&right, (const char *)&low + sizeof left, sizeof right);
  return left + right;
}

static INLINE four fold_keys(const lanes sums[KEYS]) {
  const four a = fold_lanes(sums), b = fold_lanes(sums + 1), c = fold_lanes(sums + 2),
             d = fold_lanes(sums + 3);
  const four ab = PICK(a, b, 0, 1, 4, 5) + PICK(a, b, 2, 3, 6, 7),
             cd = PICK(c, d, 0, 1, 4, 5) + PICK(c, d, 2, 3, 6, 7);
  return PICK(ab, cd, 0, 2, 4, 6) + PICK(ab, cd, 1, 3, 5, 7);
}
#endif

/* `queries` is a constant where it is inlined. */
static INLINE void add_products(size_t queries, const float *const *q, const float *const keys[KEYS],
                                size_t at, lanes sums[QUERIES][KEYS]) {
#pragma GCC unroll 4
  for (size_t p = 0; p < PARTS; p++) {
    vfloat key[KEYS];
#pragma GCC unroll 4
    for (size_t k = 0; k < KEYS; k++) key[k] = LOAD(keys[k] + at + p * V);
#pragma GCC unroll 4
    for (size_t i = 0; i < queries; i++) {
      const vfloat x = LOAD(q[i] + at + p * V);
#pragma GCC unroll 4
      for (size_t k = 0; k < KEYS; k++) sums[i][k].part[p] += x * key[k];
    }
  }
}

/* Dimensions beyond a multiple of 16, filled up with zeros: what they add changes no lane. */
static INLINE void add_rest(size_t queries, const float *const *q, const float *const keys[KEYS], size_t at,
                            size_t n, lanes sums[QUERIES][KEYS]) {
  float filled[QUERIES + KEYS][LANES] = {{0}};
  const float *x[QUERIES], *rest[KEYS];
  for (size_t i = 0; i < queries; i++) x[i] = memcpy(filled[KEYS + i], q[i] + at, n * sizeof(float));
  for (size_t k = 0; k < KEYS; k++) rest[k] = memcpy(filled[k], keys[k] + at, n * sizeof(float));
  add_products(queries, x, rest, 0, sums);
}

/* KEYS scores of each query, `some` of which are written. */
static INLINE void score_keys(size_t queries, bool whole, size_t dim, float scale, const float *const *q,
                              const float *const key[KEYS], size_t some, float *const *scores) {
  lanes sums[QUERIES][KEYS];
#pragma GCC unroll 4
  for (size_t i = 0; i < queries; i++)
#pragma GCC unroll 4
    for (size_t k = 0; k < KEYS; k++)
#pragma GCC unroll 4
      for (size_t p = 0; p < PARTS; p++) sums[i][k].part[p] = (vfloat){0};
  size_t at = 0;
  for (; at + LANES <= dim; at += LANES) add_products(queries, q, key, at, sums);
  if (!whole) add_rest(queries, q, key, at, dim - at, sums);
#pragma GCC unroll 4
  for (size_t i = 0; i < queries; i++) {
    const four result = scale * fold_keys(sums[i]);
    if (some == KEYS) memcpy(scores[i], &result, sizeof result);
    else memcpy(scores[i], &result, some * sizeof(float));
  }
}

static INLINE void score_all(size_t queries, bool whole, size_t count, size_t dim, float scale,
                             const float *const *q, const float *keys, float *const *scores) {
  for (size_t first = 0; first < count; first += KEYS) {
    const size_t some = count - first < KEYS ? count - first : KEYS;
    const float *key[KEYS];
    float *out[QUERIES];
    for (size_t k = 0; k < KEYS; k++) key[k] = keys + (first + (k < some ? k : 0)) * dim;
    for (size_t i = 0; i < queries; i++) out[i] = scores[i] + first;
    score_keys(queries, whole, dim, scale, q, key, some, out);
  }
}

void GPTVQ_MULTI(gptvq_attend_scores)(size_t queries, size_t count, size_t dim, float scale,
                                      const float *const *q, const float *keys, float *const *scores) {
  const bool whole = dim % LANES == 0;
  size_t i = 0;
  for (; whole && i + QUERIES <= queries; i += QUERIES)
    score_all(QUERIES, true, count, dim, scale, q + i, keys, scores + i);
  for (; whole && i < queries; i++) score_all(1, true, count, dim, scale, q + i, keys, scores + i);
  for (; i < queries; i++) score_all(1, false, count, dim, scale, q + i, keys, scores + i);
}

void GPTVQ_MULTI(gptvq_attend_soften)(size_t count, float cap, float *scores, gptvq_softmax *run, size_t dim,
                                      float *restrict out) {
  if (cap > 0.0f) GPTVQ_MULTI(gptvq_soft_cap)(count, cap, scores);
  float top = GPTVQ_MULTI(gptvq_max)(count, scores), shrink = run->maximum;
  if (top > run->maximum) {
    (void)GPTVQ_MULTI(gptvq_exp_sum)(1, top, &shrink);
    if (run->maximum == -INFINITY) shrink = 0.0f;
    run->sum *= shrink;
    for (size_t i = 0; i < dim; i++) out[i] *= shrink;
    run->maximum = top;
  }
  run->sum += GPTVQ_MULTI(gptvq_exp_sum)(count, run->maximum, scores);
}

/* Values of so many keys are added up before they go to the sums. */
static inline void add_columns(size_t count, size_t dim, const float *weights, const float *values,
                               size_t first, size_t last, float *restrict out) {
  size_t j = 0;
  for (; j + KEYS <= count; j += KEYS) {
    const float *a = values + j * dim, *b = a + dim, *c = b + dim, *d = c + dim;
    for (size_t i = first; i < last; i++)
      out[i] += (weights[j] * a[i] + weights[j + 1] * b[i]) + (weights[j + 2] * c[i] + weights[j + 3] * d[i]);
  }
  for (; j < count; j++)
    for (size_t i = first; i < last; i++) out[i] += weights[j] * values[j * dim + i];
}

/* The same for BLOCK vectors of dimensions of `queries` (a constant) queries, whose sums stay in registers.
 */
enum { BLOCK = 4 };
static INLINE void add_block(size_t queries, size_t count, size_t dim, const float *const *weights,
                             const float *values, size_t at, float *const *out) {
  vfloat sums[QUERIES][BLOCK];
  size_t j = 0;
#pragma GCC unroll 4
  for (size_t i = 0; i < queries; i++)
#pragma GCC unroll 4
    for (size_t v = 0; v < BLOCK; v++) sums[i][v] = LOAD(out[i] + at + v * V);
  for (; j + KEYS <= count; j += KEYS) {
    const float *a = values + j * dim + at, *b = a + dim, *c = b + dim, *d = c + dim;
#pragma GCC unroll 4
    for (size_t v = 0; v < BLOCK; v++) {
      const vfloat av = LOAD(a + v * V), bv = LOAD(b + v * V), cv = LOAD(c + v * V), dv = LOAD(d + v * V);
#pragma GCC unroll 4
      for (size_t i = 0; i < queries; i++) {
        const float *w = weights[i] + j;
        sums[i][v] += (w[0] * av + w[1] * bv) + (w[2] * cv + w[3] * dv);
      }
    }
  }
  for (; j < count; j++)
#pragma GCC unroll 4
    for (size_t v = 0; v < BLOCK; v++)
#pragma GCC unroll 4
      for (size_t i = 0; i < queries; i++) sums[i][v] += weights[i][j] * LOAD(values + j * dim + at + v * V);
#pragma GCC unroll 4
  for (size_t i = 0; i < queries; i++)
#pragma GCC unroll 4
    for (size_t v = 0; v < BLOCK; v++) STORE(out[i] + at + v * V, sums[i][v]);
}

static INLINE void add_all(size_t queries, size_t count, size_t dim, const float *const *weights,
                           const float *values, float *const *out) {
  size_t at = 0;
  for (; at + BLOCK * V <= dim; at += BLOCK * V) add_block(queries, count, dim, weights, values, at, out);
  for (size_t i = 0; at < dim && i < queries; i++)
    add_columns(count, dim, weights[i], values, at, dim, out[i]);
}

void GPTVQ_MULTI(gptvq_attend_values)(size_t queries, size_t count, size_t dim, const float *const *weights,
                                      const float *values, float *const *out) {
  size_t i = 0;
  for (; i + QUERIES <= queries; i += QUERIES) add_all(QUERIES, count, dim, weights + i, values, out + i);
  for (; i < queries; i++) add_all(1, count, dim, weights + i, values, out + i);
}
