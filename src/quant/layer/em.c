/* Data-aware k-means of one codebook: init, then EM with a d × d metric per block of columns. */
#include "base/memory.h"
#include "base/random.h"
#include "quant/layer/layer.h"
#include "quant/layer/lookup.h"

#include <math.h>
#include <string.h>

typedef struct em {
  const gptvq_em_points *p;
  size_t k;
  float *xt;                  /* [rows][dim][lanes] x T */
  float *distance;            /* [rows][lanes] */
  float *table;               /* kernel's scratch */
  uint16_t *index, *previous; /* [rows][lanes] */
  double *sums;               /* [k][dim² + dim] Σ M and Σ M x, weighted */
  uint32_t *sorted, *spare;   /* [rows · blocks] */
  double *keys;               /* [rows · blocks] */
} em;

static void take(gptvq_arena *arena, const gptvq_em_points *p, em *s) {
  size_t n = p->rows * p->lanes, d = p->dim;
  s->xt = gptvq_arena_take(arena, n, d * sizeof *s->xt);
  s->distance = gptvq_arena_take(arena, n, sizeof *s->distance);
  s->table = gptvq_arena_take(arena, s->k, d * GPTVQ_LOOKUP_LANES * sizeof *s->table);
  s->index = gptvq_arena_take(arena, n, sizeof *s->index);
  s->previous = gptvq_arena_take(arena, n, sizeof *s->previous);
  s->sums = gptvq_arena_take(arena, s->k, (d * d + d) * sizeof *s->sums);
  s->sorted = gptvq_arena_take(arena, n, sizeof *s->sorted);
  s->spare = gptvq_arena_take(arena, n, sizeof *s->spare);
  s->keys = gptvq_arena_take(arena, n, sizeof *s->keys);
}

size_t gptvq_em_bytes(const gptvq_em_points *points, size_t k) {
  gptvq_arena counting = {0};
  em s = {.k = k};
  take(&counting, points, &s);
  return counting.peak;
}

static float point(const gptvq_em_points *p, size_t row, size_t block, size_t j) {
  return p->x[(row * p->dim + j) * p->lanes + block];
}
static double point_weight(const gptvq_em_points *p, size_t row, size_t block) {
  return p->weight == NULL ? 1.0 : (double)p->weight[row * p->lanes + block];
}
static void copy_point(const gptvq_em_points *p, size_t at, float *out) {
  for (size_t j = 0; j < p->dim; j++) out[j] = point(p, at / p->blocks, at % p->blocks, j);
}

/* x T in the same order of operations as the kernel's c T: a point that equals a centroid has distance 0 */
static void transform(em *s) {
  const gptvq_em_points *p = s->p;
  for (size_t row = 0; row < p->rows; row++)
    for (size_t j = 0; j < p->dim; j++)
      for (size_t l = 0; l < p->lanes; l++) {
        float sum = p->x[row * p->dim * p->lanes + l] * p->t[j * p->lanes + l];
        for (size_t i = 1; i <= j; i++)
          sum += p->x[(row * p->dim + i) * p->lanes + l] * p->t[(i * p->dim + j) * p->lanes + l];
        s->xt[(row * p->dim + j) * p->lanes + l] = sum;
      }
}

/* Assigns all points; returns the objective Σ weight ‖(x − c) T‖². */
static double assign(em *s, const float *centroids) {
  const gptvq_em_points *p = s->p;
  GPTVQ_MULTI_PICK(gptvq_em_assign)
  (p->dim, p->rows, p->lanes, s->k, s->xt, p->t, centroids, s->table, s->index, s->distance);
  double sum = 0.0;
  for (size_t row = 0; row < p->rows; row++)
    for (size_t b = 0; b < p->blocks; b++)
      sum += point_weight(p, row, b) * (double)s->distance[row * p->lanes + b];
  return sum;
}

/* Sorts sorted[0 … n) by keys, ties by position, merging ever longer runs without branches on keys. */
static void sort_points(em *s, size_t n) {
  uint32_t *from = s->sorted, *to = s->spare;
  for (size_t i = 0; i < n; i++) from[i] = (uint32_t)i;
  for (size_t run = 1; run < n; run *= 2) {
    for (size_t begin = 0; begin < n; begin += 2 * run) {
      const size_t middle = gptvq_min_size(begin + run, n), end = gptvq_min_size(begin + 2 * run, n);
      size_t a = begin, b = middle, at = begin;
      while (a < middle && b < end) {
        const uint32_t left = from[a], right = from[b];
        const bool later = s->keys[right] < s->keys[left];
        to[at++] = later ? right : left;
        a += !later;
        b += later;
      }
      memcpy(to + at, from + a, (middle - a) * sizeof *to);
      at += middle - a;
      memcpy(to + at, from + b, (end - b) * sizeof *to);
    }
    uint32_t *swap = from;
    from = to;
    to = swap;
  }
  s->sorted = from;
  s->spare = to;
}

/* Symmetric positive semidefinite d × d systems a z = b, with a ridge that keeps them regular, by Gaussian
 * elimination: the pivots of a positive definite matrix are positive. `a` becomes its upper triangle, with
 * the factors below. false: a is zero, and so is not solved. */
static bool eliminate(size_t d, double *a) {
  double trace = 0.0;
  for (size_t i = 0; i < d; i++) trace += a[i * d + i];
  if (!(trace > 0.0)) return false;
  for (size_t i = 0; i < d; i++) a[i * d + i] += 1e-12 * trace;
  for (size_t i = 0; i < d; i++)
    for (size_t r = i + 1; r < d; r++) {
      const double f = a[r * d + i] / a[i * d + i];
      for (size_t c = i + 1; c < d; c++) a[r * d + c] -= f * a[i * d + c];
      a[r * d + i] = f;
    }
  return true;
}
static void solve_eliminated(size_t d, const double *a, double *b) {
  for (size_t i = 0; i < d; i++)
    for (size_t r = i + 1; r < d; r++) b[r] -= a[r * d + i] * b[i];
  for (size_t i = d; i-- > 0;) {
    for (size_t c = i + 1; c < d; c++) b[i] -= a[i * d + c] * b[c];
    b[i] /= a[i * d + i];
  }
}

static void init_mahalanobis(em *s, float *centroids) {
  const gptvq_em_points *p = s->p;
  size_t n = p->rows * p->blocks, d = p->dim;
  double mean[4] = {0}, covariance[16] = {0};
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < d; j++) mean[j] += (double)point(p, i / p->blocks, i % p->blocks, j) / (double)n;
  for (size_t i = 0; i < n; i++)
    for (size_t a = 0; a < d; a++)
      for (size_t b = 0; b < d; b++)
        covariance[a * d + b] += ((double)point(p, i / p->blocks, i % p->blocks, a) - mean[a]) *
                                 ((double)point(p, i / p->blocks, i % p->blocks, b) - mean[b]);
  const bool regular = eliminate(d, covariance);
  for (size_t i = 0; i < n; i++) {
    double delta[4], solved[4];
    for (size_t j = 0; j < d; j++)
      solved[j] = delta[j] = (double)point(p, i / p->blocks, i % p->blocks, j) - mean[j];
    if (regular) solve_eliminated(d, covariance, solved);
    s->keys[i] = 0.0;
    for (size_t j = 0; j < d; j++) s->keys[i] += delta[j] * solved[j];
  }
  sort_points(s, n);
  for (size_t m = 0; m < s->k; m++) {
    size_t at = s->k > 1 ? m * (n - 1) / (s->k - 1) : n / 2;
    copy_point(p, s->sorted[at], centroids + m * d);
  }
}

/* Product of the quantiles of each coordinate; the coordinates share the bits of the index. */
static void init_cdf(em *s, float *centroids) {
  const gptvq_em_points *p = s->p;
  size_t n = p->rows * p->blocks, d = p->dim, bits = 0, stride = 1;
  while ((size_t)1 << bits < s->k) bits++;
  for (size_t j = 0; j < d; j++) {
    size_t levels = (size_t)1 << (bits / d + (j < bits % d));
    for (size_t i = 0; i < n; i++) s->keys[i] = (double)point(p, i / p->blocks, i % p->blocks, j);
    sort_points(s, n);
    for (size_t m = 0; m < s->k; m++) {
      size_t level = m / stride % levels;
      centroids[m * d + j] =
          (float)s->keys[s->sorted[gptvq_min_size(n - 1, (2 * level + 1) * n / (2 * levels))]];
    }
    stride *= levels;
  }
}

/* Each next centroid is a point drawn with probability proportional to its weighted distance to the nearest
 * one so far. */
static void init_kmeanspp(em *s, uint64_t seed, float *centroids) {
  const gptvq_em_points *p = s->p;
  size_t n = p->rows * p->blocks, d = p->dim, k = s->k;
  uint64_t state = seed;
  copy_point(p, gptvq_random_below(&state, n), centroids);
  for (size_t i = 0; i < n; i++) s->keys[i] = INFINITY;
  for (size_t m = 1; m < k; m++) {
    s->k = 1; /* distances to the newest centroid only */
    (void)assign(s, centroids + (m - 1) * d);
    double total = 0.0;
    for (size_t i = 0; i < n; i++) {
      size_t row = i / p->blocks, b = i % p->blocks;
      double distance = point_weight(p, row, b) * (double)s->distance[row * p->lanes + b];
      if (distance < s->keys[i]) s->keys[i] = distance;
      total += s->keys[i];
    }
    double draw = gptvq_random_unit(&state) * total;
    size_t chosen = 0;
    for (size_t i = 0; i < n; i++) {
      if (s->keys[i] > 0.0) chosen = i;
      draw -= s->keys[i];
      if (draw < 0.0) break;
    }
    copy_point(p, chosen, centroids + m * d);
  }
  s->k = k;
}

/* d: a constant */
static inline __attribute__((always_inline)) void add_points(size_t d, em *s) {
  const gptvq_em_points *p = s->p;
  const size_t stride = d * d + d, lanes = p->lanes;
  memset(s->sums, 0, s->k * stride * sizeof *s->sums);
  for (size_t b = 0; b < p->blocks; b++) {
    double metric[16];
    for (size_t i = 0; i < d; i++)
      for (size_t j = 0; j < d; j++) {
        metric[i * d + j] = 0.0;
        for (size_t m = i > j ? i : j; m < d; m++)
          metric[i * d + j] += (double)p->t[(i * d + m) * lanes + b] * (double)p->t[(j * d + m) * lanes + b];
      }
    for (size_t row = 0; row < p->rows; row++) {
      double *sum = s->sums + s->index[row * lanes + b] * stride, w = point_weight(p, row, b);
      for (size_t i = 0; i < d; i++) {
        double product = 0.0;
        for (size_t j = 0; j < d; j++) {
          double m = w * metric[i * d + j];
          sum[i * d + j] += m;
          product += m * (double)p->x[(row * d + j) * lanes + b];
        }
        sum[d * d + i] += product;
      }
    }
  }
}

/* M-step, empty clusters to the worst-served points */
static void update(em *s, float *centroids) {
  const gptvq_em_points *p = s->p;
  size_t d = p->dim, stride = d * d + d, lanes = p->lanes;
  if (d == 1) add_points(1, s);
  else if (d == 2) add_points(2, s);
  else add_points(4, s);
  bool served = false; /* nothing is left that an empty cluster could improve */
  for (size_t m = 0; m < s->k; m++) {
    double *sum = s->sums + m * stride;
    bool empty = true; /* or irrelevant: zero metric */
    for (size_t i = 0; i < d; i++) empty = empty && !(sum[i * d + i] > 0.0);
    if (!empty) {
      if (eliminate(d, sum)) solve_eliminated(d, sum, sum + d * d);
      for (size_t j = 0; j < d; j++) centroids[m * d + j] = (float)sum[d * d + j];
      continue;
    }
    if (served) continue;
    size_t worst = 0;
    double most = 0.0;
    for (size_t row = 0; row < p->rows; row++)
      for (size_t b = 0; b < p->blocks; b++) {
        double distance = point_weight(p, row, b) * (double)s->distance[row * lanes + b];
        if (distance > most) {
          most = distance;
          worst = row * p->blocks + b;
        }
      }
    served = most == 0.0;
    if (served) continue;
    copy_point(p, worst, centroids + m * d);
    s->distance[worst / p->blocks * lanes + worst % p->blocks] =
        0.0f; /* the next empty one takes another point */
  }
}

void gptvq_em(const gptvq_em_points *points, size_t k, gptvq_em_init init, unsigned iterations, uint64_t seed,
              float *centroids, double *trace, gptvq_arena *arena) {
  size_t n = points->rows * points->lanes, mark = arena->used;
  em s = {.p = points, .k = k};
  take(arena, points, &s);
  transform(&s);
  if (init == GPTVQ_INIT_CDF) init_cdf(&s, centroids);
  else if (init == GPTVQ_INIT_KMEANSPP) init_kmeanspp(&s, seed, centroids);
  else init_mahalanobis(&s, centroids);
  if (trace != NULL)
    for (unsigned i = 0; i <= iterations; i++) trace[i] = NAN;
  for (unsigned i = 0; i < iterations; i++) {
    double objective = assign(&s, centroids);
    if (trace != NULL) trace[i] = objective;
    if (i > 0 && memcmp(s.index, s.previous, n * sizeof *s.index) == 0) goto done;
    uint16_t *swap = s.index;
    update(&s, centroids);
    s.index = s.previous;
    s.previous = swap;
  }
  if (trace != NULL) trace[iterations] = assign(&s, centroids);
done:
  gptvq_arena_return(arena, mark);
}
