/* Codebook update, the systems of small codebooks: the normal equations of a stripe, N = Σ over its rows of
 * Dᵀ (H + ridge) D with D the row's decoding (columns × centroids, one entry per column), formed and
 * factorised. Rows of H are added up by centroid, which is one addition per entry of H and row, then columns.
 * What a change x of the codebooks gains follows from the system: x (2 slope − N x).
 */
#include "base/memory.h"
#include "base/threads.h"
#include "linalg/solve/cholesky.h"
#include "quant/layer/layer.h"
#include "quant/layer/normal.h"

#include <string.h>

/* COLUMNS of H that are added up at a time: sums stay in the first-level cache, that part of H in the second.
 * TOGETHER: stripes that meet them there. MATRICES: of those that are worked on at a time. */
enum { COLUMNS = 128, TOGETHER = 8, MOST_STRIPES = 64, MOST_VALUES = 4096 };
static const size_t matrices_bytes = (size_t)128 << 20;

typedef struct direct {
  gptvq_vq *q;
  size_t values, widest, batch; /* unknowns of a stripe, of a group; stripes worked on together */
  size_t first, count;          /* stripes at work */
  double *row_loss;             /* [rows] before */
  double *matrices;             /* [batch][values²], lower triangles */
  char *scratch;                /* per thread */
  size_t thread_bytes;
} direct;

typedef struct tile_scratch {
  float *sums, *block, *scale; /* [widest × COLUMNS], [widest²], [columns of a group] */
} tile_scratch;

typedef struct stripe_scratch {
  double *slope, *step;        /* [values] minus half the gradient of the loss; of the codebooks */
  float *found;                /* [values] the least loss's codebooks */
  gptvq_saved_codebooks saved; /* those before */
} stripe_scratch;

static void take_stripe(gptvq_arena *arena, const direct *d, stripe_scratch *s) {
  s->slope = gptvq_arena_take(arena, d->values, sizeof *s->slope);
  s->step = gptvq_arena_take(arena, d->values, sizeof *s->step);
  s->found = gptvq_arena_take(arena, d->values, sizeof *s->found);
  gptvq_saved_codebooks_take(arena, d->q, 1, &s->saved);
}

static void take_tile(gptvq_arena *arena, const direct *d, tile_scratch *t) {
  t->sums = gptvq_arena_take(arena, d->widest, COLUMNS * sizeof *t->sums);
  t->block = gptvq_arena_take(arena, d->widest, d->widest * sizeof *t->block);
  t->scale = gptvq_arena_take(arena, d->q->padded, sizeof *t->scale);
}

static direct direct_of(const gptvq_vq *q) {
  direct d = {.q = (gptvq_vq *)(uintptr_t)q, .widest = q->k * q->dim};
  d.values = q->groups * d.widest;
  size_t one = gptvq_saturated_size(d.values, gptvq_saturated_size(d.values, sizeof *d.matrices));
  d.batch = gptvq_min_size(q->stripes, gptvq_max_size(1, gptvq_min_size(MOST_STRIPES, matrices_bytes / one)));
  gptvq_arena tile = {0}, stripe = {0};
  take_tile(&tile, &d, &(tile_scratch){0});
  take_stripe(&stripe, &d, &(stripe_scratch){0});
  d.thread_bytes = gptvq_max_size(tile.peak, stripe.peak);
  return d;
}

bool gptvq_vq_is_direct(const gptvq_vq *q) {
  const double values = (double)(q->groups * q->k * q->dim), columns = (double)q->padded,
               rows = (double)gptvq_min_size(q->all_rows, q->shape.group_rows);
  /* two thirds of values³ in double for the factor, against some twenty products of the stripe with H */
  return q->has_factor && q->groups * q->k * q->dim <= MOST_VALUES &&
         values * values * values <= 24.0 * rows * columns * columns;
}

static void take(gptvq_arena *arena, direct *d) {
  d->row_loss = gptvq_arena_take(arena, d->q->rows, sizeof *d->row_loss);
  d->matrices = gptvq_arena_take(arena, d->batch, d->values * d->values * sizeof *d->matrices);
  d->scratch = gptvq_arena_take(arena, gptvq_thread_count(), d->thread_bytes);
}

size_t gptvq_vq_direct_bytes(const gptvq_vq *q) {
  gptvq_arena counting = {0};
  direct d = direct_of(q);
  take(&counting, &d);
  return counting.peak;
}

static void row_scales(const gptvq_vq *q, size_t row, size_t first, size_t blocks, float *scale) {
  for (size_t b = 0; b < blocks; b++) scale[b] = gptvq_vq_scale(q, row, first + b);
}

/* The part of one stripe's matrix that groups g (rows) and f (columns) make, columns [begin, end) of H. */
static void add_tile(const direct *d, size_t stripe, size_t g, size_t f, size_t begin, size_t end,
                     const tile_scratch *t) {
  const gptvq_vq *q = d->q;
  const size_t dim = q->dim, n = q->padded, width = end - begin;
  const gptvq_group *rows = &q->group[g];
  memset(t->block, 0, d->widest * d->widest * sizeof *t->block);
  for (size_t row = gptvq_stripe_begin(q, stripe); row < gptvq_stripe_end(q, stripe); row++) {
    const uint16_t *index = q->index + row * q->blocks;
    memset(t->sums, 0, d->widest * width * sizeof *t->sums);
    row_scales(q, row, rows->start / dim, rows->width / dim, t->scale);
    GPTVQ_MULTI_PICK(gptvq_normal_rows)
    (dim, rows->width / dim, index + rows->start / dim, t->scale, width,
     q->factor->h + rows->start * n + begin, n, t->sums);
    row_scales(q, row, begin / dim, width / dim, t->scale);
    GPTVQ_MULTI_PICK(gptvq_normal_columns)
    (dim, width / dim, index + begin / dim, t->scale, d->widest, t->sums, width, t->block, d->widest);
  }
  double *out = d->matrices + (stripe - d->first) * d->values * d->values;
  for (size_t v = 0; v < d->widest; v++)
    for (size_t w = 0; w < d->widest; w++)
      out[(g * d->widest + v) * d->values + f * d->widest + w] += (double)t->block[w * d->widest + v];
}

/* Items are (pair of groups, some stripes). */
static void add_pairs(void *context, size_t first, size_t last, size_t thread) {
  const direct *d = context;
  const gptvq_vq *q = d->q;
  gptvq_arena own = gptvq_arena_over(d->scratch + thread * d->thread_bytes, d->thread_bytes);
  tile_scratch t;
  take_tile(&own, d, &t);
  const size_t parts = gptvq_ceil_div(d->count, TOGETHER);
  for (size_t item = first; item < last; item++) {
    size_t pair = item / parts, g = 0;
    while (pair > g) pair -= ++g; /* pairs of group g: f = 0 … g */
    const size_t begin = d->first + item % parts * TOGETHER,
                 end = gptvq_min_size(begin + TOGETHER, d->first + d->count),
                 stop = q->group[pair].start + q->group[pair].width;
    for (size_t c = q->group[pair].start; c < stop; c += COLUMNS)
      for (size_t stripe = begin; stripe < end; stripe++)
        add_tile(d, stripe, g, pair, c, gptvq_min_size(stop, c + COLUMNS), &t);
  }
}

/* A centroid that nothing uses has an empty row, and stays: it gets a weight next to nothing. */
static void add_ridge(const direct *d, size_t stripe, double *matrix) {
  const gptvq_vq *q = d->q;
  const size_t dim = q->dim;
  for (size_t row = gptvq_stripe_begin(q, stripe); row < gptvq_stripe_end(q, stripe); row++)
    for (size_t g = 0; g < q->groups; g++)
      for (size_t b = q->group[g].start / dim; b < (q->group[g].start + q->group[g].width) / dim; b++)
        for (size_t i = 0; i < dim; i++) {
          const double scale = (double)gptvq_vq_scale(q, row, b);
          const size_t v = g * d->widest + q->index[row * q->blocks + b] * dim + i;
          matrix[v * d->values + v] += scale * scale * gptvq_factor_ridge(q->factor, b * dim + i);
        }
  for (size_t v = 0; v < d->values; v++)
    if (matrix[v * d->values + v] == 0.0) matrix[v * d->values + v] = 0x1p-500;
}

/* |Lᵀ x|² = x N x; sums: scratch */
static double square(size_t n, const double *factor, const float *to, const float *from, double *sums) {
  double total = 0.0;
  memset(sums, 0, n * sizeof *sums);
  for (size_t v = 0; v < n; v++) {
    const double x = (double)to[v] - (double)from[v];
    for (size_t w = 0; w <= v; w++) sums[w] += factor[v * n + w] * x;
  }
  for (size_t v = 0; v < n; v++) total += sums[v] * sums[v];
  return total;
}

/* The codebooks of the least loss, rounded; a stripe that is not better keeps what it had, as does one whose
 * system is not positive definite in double. */
static void solve(void *context, size_t begin, size_t end, size_t thread) {
  const direct *d = context;
  gptvq_vq *q = d->q;
  const size_t n = d->values;
  gptvq_arena own = gptvq_arena_over(d->scratch + thread * d->thread_bytes, d->thread_bytes);
  stripe_scratch s;
  take_stripe(&own, d, &s);
  for (size_t i = begin; i < end; i++) {
    const size_t stripe = d->first + i;
    double *matrix = d->matrices + i * n * n, *loss = q->unit_values + stripe;
    const float *book = q->centroids + stripe * n, *before = s.saved.centroids;
    add_ridge(d, stripe, matrix);
    *loss = 0.0;
    for (size_t row = gptvq_stripe_begin(q, stripe); row < gptvq_stripe_end(q, stripe); row++)
      *loss += d->row_loss[row];
    gptvq_vq_gather(q, stripe, q->error + gptvq_stripe_begin(q, stripe) * q->padded, s.slope);
    memcpy(s.step, s.slope, n * sizeof *s.step);
    if (!gptvq_solve_positive(n, matrix, s.step)) continue;
    gptvq_vq_save_codebooks(q, stripe, &s.saved, 0);
    for (size_t v = 0; v < n; v++) s.found[v] = (float)((double)book[v] + s.step[v]);
    for (size_t g = 0; g < q->groups; g++)
      gptvq_vq_store_codebook(q, stripe * q->groups + g, s.found + g * d->widest);
    double gain = -square(n, matrix, book, before, s.step);
    for (size_t v = 0; v < n; v++) gain += 2.0 * ((double)book[v] - (double)before[v]) * s.slope[v];
    if (gain > 0.0) *loss -= gain;
    else gptvq_vq_restore_codebooks(q, stripe, &s.saved, 0);
  }
}

gptvq_status gptvq_vq_update_direct(gptvq_vq *q, double *loss, gptvq_error *err) {
  direct d = direct_of(q);
  const size_t mark = q->arena->used;
  take(q->arena, &d);
  GPTVQ_TRY(gptvq_arena_check(q->arena, "the codebook update", err));
  GPTVQ_TRY(gptvq_vq_loss(q, d.row_loss, NULL, err));
  for (d.first = 0; d.first < q->stripes; d.first += d.count) {
    d.count = gptvq_min_size(d.batch, q->stripes - d.first);
    memset(d.matrices, 0, d.count * d.values * d.values * sizeof *d.matrices);
    gptvq_parallel_for(q->groups * (q->groups + 1) / 2 * gptvq_ceil_div(d.count, TOGETHER), 1, add_pairs, &d);
    gptvq_parallel_for(d.count, 1, solve, &d);
    gptvq_stage_count(q->stages, GPTVQ_IN_FP32,
                      (double)d.count * (double)d.values *
                          ((double)d.values * (double)d.values / 3.0 + 2.0 * (double)d.values));
  }
  gptvq_arena_return(q->arena, mark);
  return gptvq_vq_total(q, q->unit_values, loss, err);
}
