/* Codebook update, the systems of small codebooks: the normal equations of a stripe, N = Σ over its rows of
 * Dᵀ (H + ridge) D with D the row's decoding (columns × centroids, one entry per column), formed, and solved
 * by conjugate gradients, whose steps take values² each instead of a product of the stripe with H. Rows of H
 * are added up by centroid, which is one addition per entry of H and row, then columns. What a change x of
 * the codebooks gains follows from the system: x (2 slope − N x).
 */
#include "base/memory.h"
#include "base/threads.h"
#include "linalg/solve/cg.h"
#include "quant/layer/normal.h"
#include "quant/layer/system.h"

#include <string.h>

/* COLUMNS of H that are added up at a time: with the rows of a group they stay in the first-level cache, or
 * near. TOGETHER: stripes that meet them there. MOST_STRIPES, matrices_bytes: that are worked on
 * at a time. */
enum { COLUMNS = GPTVQ_NORMAL_COLUMNS, TOGETHER = 16, MOST_STRIPES = 64, MOST_VALUES = 8192 };
static const size_t matrices_bytes = (size_t)128 << 20;

typedef struct direct {
  gptvq_vq *q;
  size_t values, widest, batch; /* unknowns of a stripe, of a group; stripes worked on together */
  size_t widest_group;          /* columns */
  size_t floats;                /* of a matrix */
  size_t first, count;          /* stripes at work */
  double *row_loss;             /* [rows] before */
  float *matrices;              /* [batch][floats] of those that are not kept, or NULL: all are */
  float **matrix;               /* [batch] */
  bool *followed;               /* [batch] it is there; the others are formed */
  uint32_t *formed;             /* [formed_count] places of these in the batch */
  size_t formed_count;
  uint32_t *order; /* [rows of the batch][sub-vectors] of a group by centroid */
  uint32_t *start; /* [rows of the batch][groups][k + 1] where those of a centroid begin there */
  char *scratch;   /* per thread */
  size_t thread_bytes;
} direct;

typedef struct tile_scratch {
  float *h, *sums, *scale; /* [columns of a group][COLUMNS], [widest][COLUMNS], [sub-vectors of a group] */
} tile_scratch;

typedef struct stripe_scratch {
  gptvq_cg cg;                 /* one system: the step from the present codebooks */
  float *found;                /* [values] the least loss's codebooks; a change of them */
  float *product;              /* [parts × values] N x in fp32, and what its parts give */
  double *slope;               /* [values] minus half the gradient of the loss */
  gptvq_saved_codebooks saved; /* codebooks before */
} stripe_scratch;

/* A product with a large system is made in so many parts, which threads share where stripes are few; by shape
 * alone, as the order of sums depends on it. */
static size_t parts_of(const direct *d) { return d->values > 2048 ? 8 : 1; }

static void take_stripe(gptvq_arena *arena, const direct *d, stripe_scratch *s) {
  s->cg = (gptvq_cg){.systems = 1, .values = d->values, .block = d->q->dim};
  gptvq_cg_take(&s->cg, arena);
  s->slope = gptvq_arena_take(arena, d->values, sizeof *s->slope);
  s->found = gptvq_arena_take(arena, d->values, sizeof *s->found);
  s->product = gptvq_arena_take(arena, parts_of(d) * d->values, sizeof *s->product);
  gptvq_saved_codebooks_take(arena, d->q, 1, &s->saved);
}

static void take_tile(gptvq_arena *arena, const direct *d, tile_scratch *t) {
  t->h = gptvq_arena_take(arena, d->widest_group, COLUMNS * sizeof *t->h);
  t->sums = gptvq_arena_take(arena, d->widest, COLUMNS * sizeof *t->sums);
  t->scale = gptvq_arena_take(arena, d->widest_group, sizeof *t->scale);
}

static direct direct_of(const gptvq_vq *q) {
  direct d = {.q = (gptvq_vq *)(uintptr_t)q, .widest = q->k * q->dim};
  d.values = q->groups * d.widest;
  d.widest_group = gptvq_min_size(gptvq_round_up(q->shape.group_cols, q->dim), q->padded);
  d.floats = gptvq_system_floats(q);
  size_t one = gptvq_saturated_size(d.floats, sizeof *d.matrices);
  d.batch = gptvq_min_size(q->stripes, gptvq_max_size(1, gptvq_min_size(MOST_STRIPES, matrices_bytes / one)));
  gptvq_arena tile = {0}, stripe = {0}, follow = {0};
  take_tile(&tile, &d, &(tile_scratch){0});
  take_stripe(&stripe, &d, &(stripe_scratch){0});
  (void)gptvq_arena_take(&follow, gptvq_follow_floats(q), sizeof(float));
  d.thread_bytes = gptvq_max_size(gptvq_max_size(tile.peak, stripe.peak), follow.peak);
  return d;
}

/* In additions of a product of dense matrices: forming the system runs at half its speed; each of some 25
 * steps reads it from a cache or, where it is large, from beyond; against some 20 products of the stripe with
 * H. */
bool gptvq_vq_is_direct(const gptvq_vq *q) {
  enum { CACHED_VALUES = 1024 };
  const size_t count = q->groups * q->k * q->dim;
  const double values = (double)count, columns = (double)q->padded,
               steps = count <= CACHED_VALUES ? 25.0 : 200.0,
               rows = (double)gptvq_min_size(q->all_rows, q->shape.group_rows);
  return q->has_factor && count <= MOST_VALUES &&
         rows * columns * (columns + values) + steps * values * values <= 20.0 * rows * columns * columns;
}

static void take(gptvq_arena *arena, direct *d) {
  d->row_loss = gptvq_arena_take(arena, d->q->rows, sizeof *d->row_loss);
  const bool all_kept = d->q->kept.count == gptvq_ceil_div(d->q->all_rows, d->q->shape.group_rows);
  d->matrices =
      gptvq_arena_take(arena, all_kept ? 0 : d->batch, gptvq_saturated_size(d->floats, sizeof *d->matrices));
  d->matrix = gptvq_arena_take(arena, d->batch, sizeof *d->matrix);
  d->followed = gptvq_arena_take(arena, d->batch, sizeof *d->followed);
  d->formed = gptvq_arena_take(arena, d->batch, sizeof *d->formed);
  const size_t rows = gptvq_min_size(d->q->rows, d->batch * d->q->shape.group_rows);
  d->order = gptvq_arena_take(arena, rows, d->q->blocks * sizeof *d->order);
  d->start = gptvq_arena_take(arena, rows, d->q->groups * (d->q->k + 1) * sizeof *d->start);
  d->scratch = gptvq_arena_take(arena, gptvq_thread_count(), d->thread_bytes);
}

size_t gptvq_vq_direct_bytes(const gptvq_vq *q) {
  gptvq_arena counting = {0};
  direct d = direct_of(q);
  take(&counting, &d);
  return counting.peak;
}

/* Where groups f <= g of a stripe's matrix stand: [values of f][values of g] */
static float *matrix_block(const direct *d, size_t stripe, size_t f, size_t g) {
  return gptvq_system_block(d->q, d->matrix[stripe - d->first], f, g);
}

static void row_scales(const gptvq_vq *q, size_t row, size_t first, size_t blocks, float *scale) {
  for (size_t b = 0; b < blocks; b++) scale[b] = gptvq_vq_scale(q, row, first + b);
}

static const uint32_t *row_order(const direct *d, size_t row, size_t g) {
  const gptvq_vq *q = d->q;
  return d->order + (row - gptvq_stripe_begin(q, d->first)) * q->blocks + q->group[g].start / q->dim;
}
static const uint32_t *row_start(const direct *d, size_t row, size_t g) {
  return d->start + ((row - gptvq_stripe_begin(d->q, d->first)) * d->q->groups + g) * (d->q->k + 1);
}

static void sort_row(const direct *d, size_t row) {
  const gptvq_vq *q = d->q;
  for (size_t g = 0; g < q->groups; g++) {
    const size_t first = q->group[g].start / q->dim, blocks = q->group[g].width / q->dim;
    const uint16_t *index = q->index + row * q->blocks + first;
    uint32_t *order = (uint32_t *)(uintptr_t)row_order(d, row, g),
             *start = (uint32_t *)(uintptr_t)row_start(d, row, g);
    memset(start, 0, (q->k + 1) * sizeof *start);
    for (size_t b = 0; b < blocks; b++) start[index[b] + 1]++;
    for (size_t m = 0; m < q->k; m++) start[m + 1] += start[m];
    /* filling moves each start to its end, which is the next one's start */
    for (size_t b = 0; b < blocks; b++) order[start[index[b]]++] = (uint32_t)b;
    memmove(start + 1, start, q->k * sizeof *start);
    start[0] = 0;
  }
}

static void add_ridge(const direct *d, size_t stripe) {
  const gptvq_vq *q = d->q;
  const size_t dim = q->dim;
  for (size_t g = 0; g < q->groups; g++) {
    float *block = matrix_block(d, stripe, g, g);
    const size_t first = q->group[g].start / dim, last = first + q->group[g].width / dim;
    for (size_t row = gptvq_stripe_begin(q, stripe); row < gptvq_stripe_end(q, stripe); row++)
      for (size_t b = first; b < last; b++) {
        const float scale = gptvq_vq_scale(q, row, b);
        float *at = block + q->index[row * q->blocks + b] * dim * (d->widest + 1);
        for (size_t i = 0; i < dim; i++, at += d->widest + 1)
          *at += scale * scale * (float)gptvq_factor_ridge(q->factor, b * dim + i);
      }
  }
}

/* Matrices that are followed; the others' ridge, and what forming needs of their rows. */
static void begin_matrices(void *context, size_t begin, size_t end, size_t thread) {
  const direct *d = context;
  const gptvq_vq *q = d->q;
  for (size_t i = begin; i < end; i++) {
    const size_t stripe = d->first + i;
    float *kept = gptvq_kept_system(q, stripe);
    d->matrix[i] = kept != NULL ? kept : d->matrices + i * d->floats;
    d->followed[i] = kept != NULL && q->kept.there &&
                     gptvq_system_follow(q, stripe, (float *)(void *)(d->scratch + thread * d->thread_bytes));
    if (d->followed[i]) continue;
    memset(d->matrix[i], 0, d->floats * sizeof *d->matrix[i]);
    add_ridge(d, stripe);
    for (size_t row = gptvq_stripe_begin(q, stripe); row < gptvq_stripe_end(q, stripe); row++)
      sort_row(d, row);
  }
}

/* The part of one stripe's matrix that groups g (rows of H) and f (columns) make, columns [begin, end): t->h.
 */
static void add_tile(const direct *d, size_t stripe, size_t g, size_t f, size_t begin, size_t end,
                     const tile_scratch *t) {
  const gptvq_vq *q = d->q;
  const size_t dim = q->dim, width = end - begin;
  const gptvq_group *rows = &q->group[g];
  float *block = matrix_block(d, stripe, f, g), own[COLUMNS];
  for (size_t row = gptvq_stripe_begin(q, stripe); row < gptvq_stripe_end(q, stripe); row++) {
    row_scales(q, row, rows->start / dim, rows->width / dim, t->scale);
    GPTVQ_MULTI_PICK(gptvq_normal_rows)
    (dim, q->k, row_start(d, row, g), row_order(d, row, g), t->scale, t->h, t->sums);
    row_scales(q, row, begin / dim, width / dim, own);
    GPTVQ_MULTI_PICK(gptvq_normal_columns)
    (dim, width / dim, q->index + row * q->blocks + begin / dim, own, d->widest, t->sums, COLUMNS, block,
     d->widest);
  }
}

/* t->h = rows of H of a group, columns [begin, end), zeros beyond */
static void copy_tile(const direct *d, size_t g, size_t begin, size_t end, const tile_scratch *t) {
  const size_t n = d->q->padded;
  const float *from = d->q->factor->h + d->q->group[g].start * n + begin;
  if (end - begin < COLUMNS) memset(t->h, 0, d->q->group[g].width * COLUMNS * sizeof *t->h);
  for (size_t c = 0; c < d->q->group[g].width; c++)
    memcpy(t->h + c * COLUMNS, from + c * n, (end - begin) * sizeof *from);
}

/* Items are (pair of groups, some of the stripes that are formed). */
static void add_pairs(void *context, size_t first, size_t last, size_t thread) {
  const direct *d = context;
  const gptvq_vq *q = d->q;
  gptvq_arena own = gptvq_arena_over(d->scratch + thread * d->thread_bytes, d->thread_bytes);
  tile_scratch t;
  take_tile(&own, d, &t);
  const size_t parts = gptvq_ceil_div(d->formed_count, TOGETHER);
  for (size_t item = first; item < last; item++) {
    size_t pair = item / parts, g = 0;
    while (pair > g) pair -= ++g; /* pairs of group g: f = 0 … g */
    const size_t begin = item % parts * TOGETHER, end = gptvq_min_size(begin + TOGETHER, d->formed_count),
                 stop = q->group[pair].start + q->group[pair].width;
    for (size_t c = q->group[pair].start, next; c < stop; c = next) {
      next = gptvq_min_size(stop, c + COLUMNS);
      copy_tile(d, g, c, next, &t);
      for (size_t i = begin; i < end; i++) add_tile(d, d->first + d->formed[i], g, pair, c, next, &t);
    }
  }
}

static void form(direct *d) {
  const size_t pairs = d->q->groups * (d->q->groups + 1) / 2;
  d->formed_count = 0;
  for (size_t i = 0; i < d->count; i++)
    if (!d->followed[i]) d->formed[d->formed_count++] = (uint32_t)i;
  gptvq_parallel_for(pairs * gptvq_ceil_div(d->formed_count, TOGETHER), 1, add_pairs, d);
  for (size_t i = 0; i < d->formed_count; i++)
    if (gptvq_kept_system(d->q, d->first + d->formed[i]) != NULL)
      gptvq_system_formed(d->q, d->first + d->formed[i]);
}

/* The blocks of the preconditioner: those of single centroids. One that nothing uses has zeros, and stays. */
static void set_blocks(const direct *d, size_t stripe, double *blocks) {
  const size_t dim = d->q->dim;
  for (size_t g = 0; g < d->q->groups; g++) {
    const float *block = matrix_block(d, stripe, g, g);
    for (size_t v = 0; v < d->widest; v++)
      for (size_t i = 0; i < dim; i++)
        blocks[(g * d->widest + v) * dim + i] = (double)block[v * d->widest + v / dim * dim + i];
  }
}

typedef struct multiplication {
  const direct *d;
  size_t stripe;
  const float *x;
  float *product;
} multiplication;

/* The first row of blocks of a part: all have about as many blocks. */
static size_t part_begin(const direct *d, size_t part) {
  const size_t groups = d->q->groups, all = groups * (groups + 1) / 2;
  size_t f = 0, blocks = 0;
  while (f < groups && blocks * parts_of(d) < part * all) blocks += groups - f++;
  return f;
}

static void multiply_parts(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const multiplication *m = context;
  const direct *d = m->d;
  for (size_t part = begin; part < end; part++) {
    const size_t first = part_begin(d, part);
    GPTVQ_MULTI_PICK(gptvq_normal_times)
    (d->q->groups, d->widest, first, part_begin(d, part + 1), matrix_block(d, m->stripe, first, first), m->x,
     m->product + part * d->values);
  }
}

/* product[values] = N x; the rest of it is scratch */
static void multiply(const direct *d, size_t stripe, const float *x, float *product) {
  multiplication m = {d, stripe, x, product};
  gptvq_parallel_for(parts_of(d), 1, multiply_parts, &m);
  for (size_t part = 1; part < parts_of(d); part++)
    for (size_t v = 0; v < d->values; v++) product[v] += product[part * d->values + v];
}

/* s->found = the step that takes the loss of a stripe near the least, from its slope */
static void find_step(const direct *d, size_t stripe, double loss, stripe_scratch *s) {
  gptvq_cg *cg = &s->cg;
  memset(cg->solution, 0, d->values * sizeof *cg->solution);
  memcpy(cg->residual, s->slope, d->values * sizeof *cg->residual);
  set_blocks(d, stripe, cg->blocks);
  cg->enough[0] = GPTVQ_UPDATE_REMAINING * loss;
  gptvq_cg_begin(cg);
  for (unsigned step = 0; step < GPTVQ_UPDATE_STEPS && cg->active_count > 0; step++) {
    multiply(d, stripe, cg->direction, s->product);
    for (size_t v = 0; v < d->values; v++) cg->product[v] = (double)s->product[v];
    gptvq_cg_step(cg);
  }
}

/* The codebooks of the least loss, rounded; a stripe that is not better keeps what it had. */
static void solve(void *context, size_t begin, size_t end, size_t thread) {
  const direct *d = context;
  gptvq_vq *q = d->q;
  const size_t n = d->values;
  gptvq_arena own = gptvq_arena_over(d->scratch + thread * d->thread_bytes, d->thread_bytes);
  stripe_scratch s;
  take_stripe(&own, d, &s);
  for (size_t stripe = d->first + begin; stripe < d->first + end; stripe++) {
    double *loss = q->unit_values + stripe, gain = 0.0;
    const float *book = q->centroids + stripe * n, *before = s.saved.centroids;
    *loss = 0.0;
    for (size_t row = gptvq_stripe_begin(q, stripe); row < gptvq_stripe_end(q, stripe); row++)
      *loss += d->row_loss[row];
    gptvq_vq_gather(q, stripe, q->error + gptvq_stripe_begin(q, stripe) * q->padded, s.slope);
    find_step(d, stripe, *loss, &s);
    gptvq_vq_save_codebooks(q, stripe, &s.saved, 0);
    for (size_t v = 0; v < n; v++) s.found[v] = (float)((double)book[v] + s.cg.solution[v]);
    for (size_t g = 0; g < q->groups; g++)
      gptvq_vq_store_codebook(q, stripe * q->groups + g, s.found + g * d->widest);
    for (size_t v = 0; v < n; v++) s.found[v] = book[v] - before[v];
    multiply(d, stripe, s.found, s.product);
    for (size_t v = 0; v < n; v++) gain += (double)s.found[v] * (2.0 * s.slope[v] - (double)s.product[v]);
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
    gptvq_parallel_for(d.count, 1, begin_matrices, &d);
    form(&d);
    if (parts_of(&d) > 1 && d.count < gptvq_thread_count()) solve(&d, 0, d.count, 0);
    else gptvq_parallel_for(d.count, 1, solve, &d);
  }
  q->has_gradient = false;
  q->kept.there = true;
  gptvq_arena_return(q->arena, mark);
  return gptvq_vq_total(q, q->unit_values, loss, err);
}
