/* Codebook compression for dim 1: the sorted codebooks of a layer, one row each, as the product of two thin
 * int8 matrices. */
#include "linalg/solve/svd.h"
#include "base/memory.h"
#include "base/threads.h"
#include "linalg/solve/cg.h"
#include "quant/layer/layer.h"
#include "base/keyed.h"

#include <math.h>
#include <string.h>

enum { MAX_K = 256, ROUNDS = 8, MAX_STEPS = 30 };
#define REMAINING 3e-4  /* of the loss: where conjugate gradients stop, as for whole codebooks */
#define ROUND_GAIN 1e-3 /* a round that gains less than this fraction of the loss is the last */
#define RIDGE \
  1e-6 /* of the preconditioner's blocks, which unused centroids make singular; the solution does not depend \
          on it */

static const char factors_name[] = "the fit of the codebooks' factors";

/* ---- sorting ---- */

static void sort_stripes(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  gptvq_vq *q = context;
  size_t k = q->k, size = q->shape.codebook_bits / 8;
  gptvq_keyed order[MAX_K];
  uint16_t codes[MAX_K], label[MAX_K];
  for (size_t stripe = begin; stripe < end; stripe++)
    for (size_t g = 0; g < q->groups; g++) {
      float *book = gptvq_vq_codebook(q, stripe, g);
      char *stored = (char *)q->codes + (stripe * q->groups + g) * k * size;
      for (size_t m = 0; m < k; m++)
        order[m] = (gptvq_keyed){-(double)book[m], (uint32_t)m}; /* ascending values */
      gptvq_sort_descending(order, k);
      memcpy(codes, stored, k * size);
      for (size_t m = 0; m < k; m++) {
        book[m] = (float)-order[m].key;
        memcpy(stored + m * size, (const char *)codes + order[m].at * size, size);
        label[order[m].at] = (uint16_t)m;
      }
      size_t last = gptvq_stripe_end(q, stripe);
      for (size_t row = gptvq_stripe_begin(q, stripe); row < last; row++)
        for (size_t b = q->group[g].start; b < q->group[g].start + q->group[g].width; b++) {
          uint16_t *index = &q->index[row * q->blocks + b];
          *index = label[*index];
        }
    }
}

gptvq_status gptvq_vq_sort(gptvq_vq *q, gptvq_error *err) {
  if (q->dim != 1 || q->k > MAX_K)
    return gptvq_fail(err, GPTVQ_ERROR_INTERNAL, "%s: codebooks that cannot be sorted", q->name);
  gptvq_parallel_for(q->stripes, 16, sort_stripes, q);
  return GPTVQ_OK;
}

/* ---- fitting the factors to the layer loss ---- */

typedef struct fit {
  gptvq_vq *q;
  size_t rank, tiles;
  double *left, *right;
  double *gradient, *curvature; /* [tiles × k] of the loss by the centroids */
  float *change;                /* [tiles × k] what a direction changes in the centroids */
  double *row_loss;             /* [rows] terms of the loss */
  double *saved;                /* either factor */
} fit;

typedef struct product {
  size_t k, rank;
  const double *left, *right; /* [tiles × rank], [rank × k] */
  const float *left_step,
      *right_step; /* one of them in the place of the one above: [tiles × rank], [k × rank] */
  float *out;      /* [tiles × k] */
} product;

static void multiply_tiles(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const product *p = context;
  size_t k = p->k, rank = p->rank;
  for (size_t tile = begin; tile < end; tile++)
    for (size_t m = 0; m < k; m++) {
      double sum = 0.0;
      for (size_t r = 0; r < rank; r++)
        sum += (p->left_step != NULL ? (double)p->left_step[tile * rank + r] : p->left[tile * rank + r]) *
               (p->right_step != NULL ? (double)p->right_step[m * rank + r] : p->right[r * k + m]);
      p->out[tile * k + m] = (float)sum;
    }
}

static void multiply(const fit *f, const float *left_step, const float *right_step, float *out) {
  product p = {f->q->k, f->rank, f->left, f->right, left_step, right_step, out};
  gptvq_parallel_for(f->tiles, 64, multiply_tiles, &p);
}

static void gather_stripes(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const fit *f = context;
  for (size_t stripe = begin; stripe < end; stripe++)
    gptvq_vq_gather(f->q, stripe, f->q->error + stripe * f->q->shape.group_rows * f->q->padded,
                    f->gradient + stripe * f->q->groups * f->q->k);
}

static void curvature_stripes(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const fit *f = context;
  for (size_t stripe = begin; stripe < end; stripe++)
    gptvq_vq_curvature(f->q, stripe, f->curvature + stripe * f->q->groups * f->q->k);
}

/* The unknowns of a stripe: its rows of the left factor */
static void gather_left(const gptvq_cg *s, size_t stripe, double *out) {
  const fit *f = s->context;
  size_t k = f->q->k, groups = f->q->groups;
  for (size_t g = 0; g < groups; g++)
    for (size_t r = 0; r < f->rank; r++) {
      const double *gradient = f->gradient + (stripe * groups + g) * k, *right = f->right + r * k;
      double sum = 0.0;
      for (size_t m = 0; m < k; m++) sum += gradient[m] * right[m];
      out[g * f->rank + r] = sum;
    }
}

/* One system: the right factor, transposed to [k × rank] */
static void gather_right(const gptvq_cg *s, size_t system, double *out) {
  (void)system;
  const fit *f = s->context;
  size_t k = f->q->k, rank = f->rank;
  memset(out, 0, k * rank * sizeof *out);
  for (size_t tile = 0; tile < f->tiles; tile++)
    for (size_t m = 0; m < k; m++)
      for (size_t r = 0; r < rank; r++)
        out[m * rank + r] += f->gradient[tile * k + m] * f->left[tile * rank + r];
}

/* The preconditioner's blocks: for a row of the left factor Σ_m h_m b_m b_mᵀ, for a column of the right one
 * Σ_tiles h a aᵀ. */
static void fill_blocks(const fit *f, bool left, double *blocks) {
  size_t k = f->q->k, rank = f->rank, count = left ? f->tiles : k;
  memset(blocks, 0, count * rank * rank * sizeof *blocks);
  for (size_t tile = 0; tile < f->tiles; tile++)
    for (size_t m = 0; m < k; m++) {
      double h = f->curvature[tile * k + m], *block = blocks + (left ? tile : m) * rank * rank;
      for (size_t i = 0; i < rank; i++)
        for (size_t j = 0; j <= i; j++)
          block[i * rank + j] += left ? h * f->right[i * k + m] * f->right[j * k + m]
                                      : h * f->left[tile * rank + i] * f->left[tile * rank + j];
    }
  for (size_t c = 0; c < count; c++) {
    double *block = blocks + c * rank * rank, trace = 0.0;
    for (size_t i = 0; i < rank; i++) trace += block[i * rank + i];
    for (size_t i = 0; i < rank; i++) block[i * rank + i] += RIDGE * trace / (double)rank;
  }
}

/* ---- memory ---- */

static fit fit_of(const gptvq_vq *q, double *left, double *right) {
  return (fit){.q = (gptvq_vq *)(uintptr_t)q,
               .rank = q->shape.svd_rank,
               .tiles = q->stripes * q->groups,
               .left = left,
               .right = right};
}

static void take_fit(gptvq_arena *arena, fit *f) {
  size_t n = f->tiles * f->q->k;
  f->gradient = gptvq_arena_take(arena, n, sizeof *f->gradient);
  f->curvature = gptvq_arena_take(arena, n, sizeof *f->curvature);
  f->change = gptvq_arena_take(arena, n, sizeof *f->change);
  f->row_loss = gptvq_arena_take(arena, f->q->rows, sizeof *f->row_loss);
  f->saved = gptvq_arena_take(arena, gptvq_max_size(f->tiles, f->q->k), f->rank * sizeof *f->saved);
}

static void take_system(gptvq_arena *arena, fit *f, bool left, gptvq_cg *s) {
  *s = (gptvq_cg){.systems = left ? f->q->stripes : 1,
                  .values = (left ? f->q->groups : f->q->k) * f->rank,
                  .block = f->rank,
                  .gather = left ? gather_left : gather_right,
                  .context = f};
  gptvq_cg_take(s, arena);
}

/* A fit at work on either factor, or on the left one only. */
static size_t fit_bytes(const gptvq_vq *q, bool both) {
  size_t most = 0;
  for (int left = both ? 0 : 1; left < 2; left++) {
    gptvq_arena counting = {0};
    fit f = fit_of(q, NULL, NULL);
    gptvq_cg s;
    take_fit(&counting, &f);
    take_system(&counting, &f, left == 1, &s);
    most = gptvq_max_size(most, counting.peak);
  }
  return most;
}

/* ---- minimising ---- */

/* Minimises over one factor. Before: q->error = E (H + ridge) at the present ones, f->row_loss its terms. */
static gptvq_status solve_factor(fit *f, bool left, gptvq_error *err) {
  gptvq_vq *q = f->q;
  size_t k = q->k, rank = f->rank, mark = q->arena->used;
  gptvq_cg s;
  take_system(q->arena, f, left, &s);
  GPTVQ_TRY(gptvq_arena_check(q->arena, factors_name, err));
  gptvq_parallel_for(q->stripes, 1, gather_stripes, f);
  for (size_t system = 0; system < s.systems; system++) s.gather(&s, system, s.residual + system * s.values);
  memset(s.enough, 0, s.systems * sizeof *s.enough);
  for (size_t row = 0; row < q->rows; row++)
    s.enough[left ? row / q->shape.group_rows : 0] += REMAINING * f->row_loss[row];
  fill_blocks(f, left, s.blocks);
  for (size_t i = 0; i < s.systems * s.values; i++)
    s.solution[i] = left ? f->left[i] : f->right[i % rank * k + i / rank];
  q->has_gradient = false;
  gptvq_cg_begin(&s);
  for (unsigned step = 0; step < MAX_STEPS && s.active_count > 0; step++) {
    multiply(f, left ? s.direction : NULL, left ? NULL : s.direction, f->change);
    gptvq_vq_decode(q, f->change, q->work);
    gptvq_stage_count(q->stages, GPTVQ_IN_FP32, 2.0 * (double)(q->rows * q->padded * q->padded));
    GPTVQ_TRY(q->backend->times_hessian(q, q->rows, q->work, q->error, err));
    gptvq_parallel_for(q->stripes, 1, gather_stripes, f);
    gptvq_cg_step(&s);
  }
  if (left) memcpy(f->left, s.solution, f->tiles * rank * sizeof *f->left);
  else
    for (size_t i = 0; i < k * rank; i++) f->right[i % rank * k + i / rank] = s.solution[i];
  gptvq_arena_return(q->arena, mark);
  return GPTVQ_OK;
}

/* The loss of the present factors, unrounded; q->error and f->row_loss for solve_factor. */
static gptvq_status fit_loss(const fit *f, double *loss, gptvq_error *err) {
  multiply(f, NULL, NULL, f->q->centroids);
  f->q->has_gradient = false;
  return gptvq_vq_loss(f->q, f->row_loss, loss, err);
}

/* Ready for improve; the caller gives the memory back. */
static gptvq_status begin_fit(fit *f, double *loss, gptvq_error *err) {
  take_fit(f->q->arena, f);
  GPTVQ_TRY(gptvq_arena_check(f->q->arena, factors_name, err));
  gptvq_parallel_for(f->q->stripes, 1, curvature_stripes, f);
  return fit_loss(f, loss, err);
}

/* One factor, if that is better; *gained tells. */
static gptvq_status improve(fit *f, bool left, double *loss, bool *gained, gptvq_error *err) {
  double *factor = left ? f->left : f->right, after;
  size_t n = (left ? f->tiles : f->q->k) * f->rank;
  memcpy(f->saved, factor, n * sizeof *f->saved);
  GPTVQ_TRY(solve_factor(f, left, err));
  GPTVQ_TRY(fit_loss(f, &after, err));
  *gained = after < *loss;
  if (*gained) *loss = after;
  else memcpy(factor, f->saved, n * sizeof *f->saved);
  return GPTVQ_OK;
}

gptvq_status gptvq_vq_fit_factors(gptvq_vq *q, double *left, double *right, unsigned rounds, double *trace,
                                  gptvq_error *err) {
  fit f = fit_of(q, left, right);
  size_t mark = q->arena->used;
  double loss;
  bool gained = true;
  GPTVQ_TRY(begin_fit(&f, &loss, err));
  for (size_t i = 0; trace != NULL && i <= 2 * (size_t)rounds; i++) trace[i] = i == 0 ? loss : NAN;
  for (unsigned round = 0; round < rounds && gained; round++) {
    double before = loss;
    for (unsigned side = 0; side < 2 && gained; side++) {
      GPTVQ_TRY(improve(&f, side == 0, &loss, &gained, err));
      if (gained && trace != NULL) trace[2 * round + side + 1] = loss;
    }
    if (before - loss < ROUND_GAIN * loss) break;
  }
  gptvq_arena_return(q->arena, mark);
  return GPTVQ_OK;
}

/* ---- storing ---- */

/* codes[count × stride apart] of one column of a factor: symmetric, the largest becomes 127; returns the
 * step. */
static double round_column(size_t count, size_t stride, const double *values, int8_t *codes) {
  double most = 0.0;
  for (size_t i = 0; i < count; i++) most = fmax(most, fabs(values[i * stride]));
  double step = most / 127.0;
  for (size_t i = 0; i < count; i++) {
    double code = step > 0.0 ? rint(values[i * stride] / step) : 0.0;
    codes[i * stride] = (int8_t)fmin(127.0, fmax(-127.0, code));
  }
  return step;
}

/* q's stored codebooks from its stored factors */
static void expand_factors(gptvq_vq *q) {
  size_t tiles = q->stripes * q->groups, k = q->k;
  unsigned bits = q->shape.codebook_bits;
  gptvq_codebooks_from_factors(tiles, k, q->rank, q->left, q->right, q->factor_scales, bits, q->codes,
                               q->codebook_scales);
  for (size_t tile = 0; tile < tiles; tile++)
    gptvq_expand_codebook((const char *)q->codes + tile * k * (bits / 8), k, bits, q->codebook_scales[tile],
                          q->centroids + tile * k);
  q->has_gradient = false;
}

/* Rounds the factors and makes q's codebooks of them: first brought to the form of a singular value
 * decomposition, in which the first component carries most and the steps of the others are fine; then the
 * right one, then the left one, fitted again to the rounded right one (refit). */
static gptvq_status store_factors(gptvq_vq *q, double *left, double *right, bool refit, gptvq_error *err) {
  size_t rank = q->shape.svd_rank, k = q->k, tiles = q->stripes * q->groups, mark = q->arena->used;
  double *whole = gptvq_arena_take(q->arena, tiles, k * sizeof *whole);
  GPTVQ_TRY(gptvq_arena_check(q->arena, factors_name, err));
  for (size_t tile = 0; tile < tiles; tile++)
    for (size_t m = 0; m < k; m++) {
      whole[tile * k + m] = 0.0;
      for (size_t r = 0; r < rank; r++) whole[tile * k + m] += left[tile * rank + r] * right[r * k + m];
    }
  GPTVQ_TRY(gptvq_svd(tiles, k, rank, whole, left, right, q->arena, err));
  gptvq_arena_return(q->arena, mark);
  for (size_t r = 0; r < rank; r++) {
    double step = round_column(k, 1, right + r * k, q->right + r * k);
    for (size_t m = 0; m < k; m++) right[r * k + m] = (double)q->right[r * k + m];
    for (size_t tile = 0; tile < tiles; tile++) left[tile * rank + r] *= step;
  }
  if (refit) {
    fit f = fit_of(q, left, right);
    double loss;
    bool gained;
    GPTVQ_TRY(begin_fit(&f, &loss, err));
    GPTVQ_TRY(improve(&f, true, &loss, &gained, err));
    gptvq_arena_return(q->arena, mark);
  }
  for (size_t r = 0; r < rank; r++)
    q->factor_scales[r] = (float)round_column(tiles, rank, left + r, q->left + r);
  q->rank = rank;
  expand_factors(q);
  return GPTVQ_OK;
}

static size_t store_bytes(const gptvq_vq *q, bool refit) {
  size_t tiles = q->stripes * q->groups;
  gptvq_arena counting = {0};
  (void)gptvq_arena_take(&counting, tiles, q->k * sizeof(double));
  size_t decomposing = gptvq_saturated_sum(counting.peak, gptvq_svd_bytes(tiles, q->k));
  return refit ? gptvq_max_size(decomposing, fit_bytes(q, false)) : decomposing;
}

typedef struct factors {
  double *left, *right; /* [tiles × rank], [rank × k] */
  double *row_loss;     /* [rows] */
  int8_t *left_codes, *right_codes;
  float *scales; /* [rank] */
} factors;

static void take_factors(const gptvq_vq *q, gptvq_arena *arena, factors *f) {
  size_t rank = q->shape.svd_rank, tiles = q->stripes * q->groups;
  f->left = gptvq_arena_take(arena, tiles, rank * sizeof *f->left);
  f->right = gptvq_arena_take(arena, q->k, rank * sizeof *f->right);
  f->row_loss = gptvq_arena_take(arena, q->rows, sizeof *f->row_loss);
  f->left_codes = gptvq_arena_take(arena, tiles, rank);
  f->right_codes = gptvq_arena_take(arena, q->k, rank);
  f->scales = gptvq_arena_take(arena, rank, sizeof *f->scales);
}

size_t gptvq_vq_compress_bytes(const gptvq_vq *q) {
  gptvq_arena counting = {0};
  factors f;
  take_factors(q, &counting, &f);
  return gptvq_saturated_sum(counting.peak, store_bytes(q, false)); /* the first decomposition is as large */
}

gptvq_status gptvq_vq_compress(gptvq_vq *q, gptvq_error *err) {
  size_t rank = q->shape.svd_rank, tiles = q->stripes * q->groups, n = tiles * q->k, mark = q->arena->used;
  factors f;
  GPTVQ_TRY(gptvq_vq_sort(q, err));
  take_factors(q, q->arena, &f);
  size_t inner = q->arena->used;
  double *whole = gptvq_arena_take(q->arena, n, sizeof *whole);
  GPTVQ_TRY(gptvq_arena_check(q->arena, factors_name, err));
  for (size_t i = 0; i < n; i++) whole[i] = (double)q->centroids[i];
  GPTVQ_TRY(gptvq_svd(tiles, q->k, rank, whole, f.left, f.right, q->arena, err));
  gptvq_arena_return(q->arena, inner);
  GPTVQ_TRY(store_factors(q, f.left, f.right, false, err));
  gptvq_arena_return(q->arena, mark);
  return GPTVQ_OK;
}

size_t gptvq_vq_update_factors_bytes(const gptvq_vq *q) {
  gptvq_arena counting = {0};
  factors f;
  take_factors(q, &counting, &f);
  return gptvq_saturated_sum(counting.peak, gptvq_max_size(fit_bytes(q, true), store_bytes(q, true)));
}

gptvq_status gptvq_vq_update_factors(gptvq_vq *q, double *loss, gptvq_error *err) {
  size_t rank = q->rank, k = q->k, codes = q->stripes * q->groups * rank, mark = q->arena->used;
  factors f;
  double after;
  take_factors(q, q->arena, &f);
  GPTVQ_TRY(gptvq_arena_check(q->arena, factors_name, err));
  memcpy(f.left_codes, q->left, codes);
  memcpy(f.right_codes, q->right, rank * k);
  memcpy(f.scales, q->factor_scales, rank * sizeof *f.scales);
  for (size_t i = 0; i < codes; i++) f.left[i] = (double)q->left[i];
  for (size_t i = 0; i < rank * k; i++) f.right[i] = (double)q->right[i] * (double)q->factor_scales[i / k];
  GPTVQ_TRY(gptvq_vq_loss(q, f.row_loss, loss, err));
  GPTVQ_TRY(gptvq_vq_fit_factors(q, f.left, f.right, ROUNDS, NULL, err));
  GPTVQ_TRY(store_factors(q, f.left, f.right, true, err));
  GPTVQ_TRY(gptvq_vq_loss(q, f.row_loss, &after, err));
  if (after < *loss) {
    *loss = after;
  } else {
    memcpy(q->left, f.left_codes, codes);
    memcpy(q->right, f.right_codes, rank * k);
    memcpy(q->factor_scales, f.scales, rank * sizeof *f.scales);
    expand_factors(q);
  }
  gptvq_arena_return(q->arena, mark);
  return GPTVQ_OK;
}
