/* Attention of single queries. Vector types of the level's width keep sums in registers; the numbers are
 * those of 16 fixed lanes at every level. */
#include "model/layer/vector.h"
#include "base/vector.h"

#include <math.h>
#include <string.h>

enum { LANES = 16, PARTS = LANES / V, KEYS = 4 /* whose lanes are added up together */ };
typedef float eight __attribute__((vector_size(32)));
typedef float four __attribute__((vector_size(16)));
typedef int select __attribute__((vector_size(16)));

#define STORE(p, v) (*(vfloat *)(void *)(p) = (v))
#if defined(__clang__)
#define PICK(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define PICK(a, b, i, j, k, l) __builtin_shuffle(a, b, (select){i, j, k, l})
#endif

/* The lanes of one key */
typedef struct lanes {
  vfloat part[PARTS];
} lanes;

/* 16 -> 8 -> 4, upper half onto lower half */
static inline four fold_lanes(const lanes *sums) {
  eight low, high;
  memcpy(&low, sums, sizeof low);
  memcpy(&high, (const char *)sums + sizeof low, sizeof high);
  low += high;
  four left, right;
  memcpy(&left, &low, sizeof left);
  memcpy(&right, (const char *)&low + sizeof left, sizeof right);
  return left + right;
}

/* Lane i of the result: key i's four sums added, in the same way. */
static inline four fold_keys(const lanes sums[KEYS]) {
  const four a = fold_lanes(sums), b = fold_lanes(sums + 1), c = fold_lanes(sums + 2),
             d = fold_lanes(sums + 3);
  const four ab = PICK(a, b, 0, 1, 4, 5) + PICK(a, b, 2, 3, 6, 7),
             cd = PICK(c, d, 0, 1, 4, 5) + PICK(c, d, 2, 3, 6, 7);
  return PICK(ab, cd, 0, 2, 4, 6) + PICK(ab, cd, 1, 3, 5, 7);
}

static inline void add_products(const float *q, const float *const keys[KEYS], size_t at, lanes sums[KEYS]) {
#pragma GCC unroll 4
  for (size_t p = 0; p < PARTS; p++) {
    const vfloat x = LOAD(q + at + p * V);
#pragma GCC unroll 4
    for (size_t k = 0; k < KEYS; k++) sums[k].part[p] += x * LOAD(keys[k] + at + p * V);
  }
}

/* Dimensions beyond a multiple of 16, filled up with zeros: what they add changes no lane. */
static inline void add_rest(const float *q, const float *const keys[KEYS], size_t at, size_t n,
                            lanes sums[KEYS]) {
  float filled[1 + KEYS][LANES] = {{0}};
  const float *rest[KEYS];
  memcpy(filled[KEYS], q + at, n * sizeof *q);
  for (size_t k = 0; k < KEYS; k++) rest[k] = memcpy(filled[k], keys[k] + at, n * sizeof *q);
  add_products(filled[KEYS], rest, 0, sums);
}

void GPTVQ_MULTI(gptvq_attend_scores)(size_t count, size_t dim, float scale, const float *q,
                                      const float *keys, float *scores) {
  for (size_t first = 0; first < count; first += KEYS) {
    const size_t some = count - first < KEYS ? count - first : KEYS;
    const float *key[KEYS];
    for (size_t k = 0; k < KEYS; k++) key[k] = keys + (first + (k < some ? k : 0)) * dim;
    lanes sums[KEYS] = {{{{0}}}};
    size_t i = 0;
    for (; i + LANES <= dim; i += LANES) add_products(q, key, i, sums);
    if (i < dim) add_rest(q, key, i, dim - i, sums);
    const four result = scale * fold_keys(sums);
    if (some == KEYS) memcpy(scores + first, &result, sizeof result);
    else memcpy(scores + first, &result, some * sizeof *scores);
  }
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

/* Four rows at a time; of dimensions [first, last). */
static inline void add_columns(size_t count, size_t dim, const float *weights, const float *values,
                               size_t first, size_t last, float *restrict out) {
  size_t j = 0;
  for (; j + 4 <= count; j += 4) {
    const float *a = values + j * dim, *b = a + dim, *c = b + dim, *d = c + dim;
    for (size_t i = first; i < last; i++)
      out[i] += (weights[j] * a[i] + weights[j + 1] * b[i]) + (weights[j + 2] * c[i] + weights[j + 3] * d[i]);
  }
  for (; j < count; j++)
    for (size_t i = first; i < last; i++) out[i] += weights[j] * values[j * dim + i];
}

/* The same for BLOCK vectors of dimensions, whose sums stay in registers. */
enum { BLOCK = 4 };
static inline void add_block(size_t count, size_t dim, const float *weights, const float *values,
                             float *out) {
  vfloat sum[BLOCK];
  size_t j = 0;
#pragma GCC unroll 4
  for (size_t v = 0; v < BLOCK; v++) sum[v] = LOAD(out + v * V);
  for (; j + 4 <= count; j += 4) {
    const float *a = values + j * dim, *b = a + dim, *c = b + dim, *d = c + dim;
#pragma GCC unroll 4
    for (size_t v = 0; v < BLOCK; v++)
      sum[v] += (weights[j] * LOAD(a + v * V) + weights[j + 1] * LOAD(b + v * V)) +
                (weights[j + 2] * LOAD(c + v * V) + weights[j + 3] * LOAD(d + v * V));
  }
  for (; j < count; j++)
#pragma GCC unroll 4
    for (size_t v = 0; v < BLOCK; v++) sum[v] += weights[j] * LOAD(values + j * dim + v * V);
#pragma GCC unroll 4
  for (size_t v = 0; v < BLOCK; v++) STORE(out + v * V, sum[v]);
}

void GPTVQ_MULTI(gptvq_attend_values)(size_t count, size_t dim, const float *weights, const float *values,
                                      float *out) {
  size_t i = 0;
  for (; i + BLOCK * V <= dim; i += BLOCK * V) add_block(count, dim, weights, values + i, out + i);
  if (i < dim) add_columns(count, dim, weights, values, i, dim, out);
}
