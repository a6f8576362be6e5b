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
      size_t last = gptvq_min_size(q->rows, (stripe + 1) * q->shape.group_rows);
      for (size_t row = stripe * q->shape.group_rows; row < last; row++)
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
static void gather_left(const gptvq_cg *s, size_t stripe, size_t slot, double *out) {
  (void)slot;
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
static void gather_right(const gptvq_cg *s, size_t system, size_t slot, double *out) {
  (void)system, (void)slot;
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

/* Minimises over one factor. Before: q->error = E (H + ridge) at the present ones, row_loss[rows] its terms.
 */
static gptvq_status solve_factor(fit *f, bool left, const double *row_loss, gptvq_error *err) {
  gptvq_vq *q = f->q;
  size_t k = q->k, rank = f->rank;
  gptvq_cg s = {.systems = left ? q->stripes : 1,
                .values = (left ? q->groups : k) * rank,
                .block = rank,
                .gather = left ? gather_left : gather_right,
                .context = f};
  gptvq_status status = gptvq_cg_allocate(&s, err);
  if (status != GPTVQ_OK) goto done;
  gptvq_parallel_for(q->stripes, 1, gather_stripes, f);
  for (size_t system = 0; system < s.systems; system++)
    s.gather(&s, system, system, s.residual + system * s.values);
  memset(s.enough, 0, s.systems * sizeof *s.enough);
  for (size_t row = 0; row < q->rows; row++)
    s.enough[left ? row / q->shape.group_rows : 0] += REMAINING * row_loss[row];
  fill_blocks(f, left, s.blocks);
  for (size_t i = 0; i < s.systems * s.values; i++)
    s.solution[i] = left ? f->left[i] : f->right[i % rank * k + i / rank];
  gptvq_cg_begin(&s);
  for (unsigned step = 0; step < MAX_STEPS && s.active_count > 0; step++) {
    multiply(f, left ? s.direction : NULL, left ? NULL : s.direction, f->change);
    gptvq_vq_decode(q, f->change, q->work);
    gptvq_vq_times_hessian(q, q->rows, q->work, q->error);
    gptvq_parallel_for(q->stripes, 1, gather_stripes, f);
    gptvq_cg_step(&s);
  }
  if (left) memcpy(f->left, s.solution, f->tiles * rank * sizeof *f->left);
  else
    for (size_t i = 0; i < k * rank; i++) f->right[i % rank * k + i / rank] = s.solution[i];
done:
  gptvq_cg_release(&s);
  return status;
}

static gptvq_status fit_create(fit *f, gptvq_vq *q, double *left, double *right, gptvq_error *err) {
  *f =
      (fit){.q = q, .rank = q->shape.svd_rank, .tiles = q->stripes * q->groups, .left = left, .right = right};
  size_t n = f->tiles * q->k;
  f->gradient = gptvq_alloc(n, 2 * sizeof *f->gradient);
  f->change = gptvq_alloc(n, sizeof *f->change);
  if (f->gradient == NULL || f->change == NULL)
    return gptvq_fail_memory(err, "the factors of the codebooks", gptvq_saturated_size(n, 20));
  f->curvature = f->gradient + n;
  gptvq_parallel_for(q->stripes, 1, curvature_stripes, f);
  return GPTVQ_OK;
}

static void fit_release(fit *f) {
  free(f->gradient);
  free(f->change);
}

/* The loss of the present factors, unrounded; q->error for solve_factor. */
static double fit_loss(const fit *f, double *row_loss) {
  multiply(f, NULL, NULL, f->q->centroids);
  return gptvq_vq_loss(f->q, row_loss);
}

/* One factor, if that is better; *gained tells. */
static gptvq_status improve(fit *f, bool left, double *saved, double *row_loss, double *loss, bool *gained,
                            gptvq_error *err) {
  double *factor = left ? f->left : f->right;
  size_t n = (left ? f->tiles : f->q->k) * f->rank;
  memcpy(saved, factor, n * sizeof *saved);
  GPTVQ_TRY(solve_factor(f, left, row_loss, err));
  double after = fit_loss(f, row_loss);
  *gained = after < *loss;
  if (*gained) *loss = after;
  else memcpy(factor, saved, n * sizeof *saved);
  return GPTVQ_OK;
}

gptvq_status gptvq_vq_fit_factors(gptvq_vq *q, double *left, double *right, unsigned rounds, double *trace,
                                  gptvq_error *err) {
  fit f;
  gptvq_status status = fit_create(&f, q, left, right, err);
  double *row_loss = gptvq_alloc(q->rows, sizeof *row_loss),
         *saved = gptvq_alloc(f.tiles + q->k, f.rank * sizeof *saved);
  if (status == GPTVQ_OK && (row_loss == NULL || saved == NULL))
    status = gptvq_fail_memory(err, "the factors of the codebooks",
                               gptvq_saturated_size(f.tiles + q->k, f.rank * sizeof *saved));
  if (status != GPTVQ_OK) goto done;
  for (size_t i = 0; trace != NULL && i <= 2 * (size_t)rounds; i++) trace[i] = NAN;
  double loss = fit_loss(&f, row_loss);
  if (trace != NULL) trace[0] = loss;
  for (unsigned round = 0; round < rounds; round++) {
    double before = loss;
    for (unsigned side = 0; side < 2; side++) {
      bool gained;
      GPTVQ_TRY_GOTO(improve(&f, side == 0, saved, row_loss, &loss, &gained, err));
      if (!gained) goto done;
      if (trace != NULL) trace[2 * round + side + 1] = loss;
    }
    if (before - loss < ROUND_GAIN * loss) break;
  }
done:
  free(row_loss);
  free(saved);
  fit_release(&f);
  return status;
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
}

/* Rounds the factors and makes q's codebooks of them: first brought to the form of a singular value
 * decomposition, in which the first component carries most and the steps of the others are fine; then the
 * right one, then the left one, fitted again to the rounded right one (refit). */
static gptvq_status store_factors(gptvq_vq *q, double *left, double *right, bool refit, gptvq_error *err) {
  size_t rank = q->shape.svd_rank, k = q->k, tiles = q->stripes * q->groups;
  fit f = {.q = q, .rank = rank, .tiles = tiles, .left = left, .right = right};
  double *whole = gptvq_alloc(tiles, k * sizeof *whole), *row_loss = NULL, *saved = NULL;
  if (whole == NULL)
    return gptvq_fail_memory(err, "the factors of the codebooks",
                             gptvq_saturated_size(tiles, k * sizeof *whole));
  for (size_t tile = 0; tile < tiles; tile++)
    for (size_t m = 0; m < k; m++) {
      whole[tile * k + m] = 0.0;
      for (size_t r = 0; r < rank; r++) whole[tile * k + m] += left[tile * rank + r] * right[r * k + m];
    }
  gptvq_status status;
  GPTVQ_TRY_GOTO(gptvq_svd(tiles, k, rank, whole, left, right, err));
  for (size_t r = 0; r < rank; r++) {
    double step = round_column(k, 1, right + r * k, q->right + r * k);
    for (size_t m = 0; m < k; m++) right[r * k + m] = (double)q->right[r * k + m];
    for (size_t tile = 0; tile < tiles; tile++) left[tile * rank + r] *= step;
  }
  if (refit) {
    GPTVQ_TRY_GOTO(fit_create(&f, q, left, right, err));
    row_loss = gptvq_alloc(q->rows, sizeof *row_loss);
    saved = gptvq_alloc(tiles, rank * sizeof *saved);
    if (row_loss == NULL || saved == NULL) {
      status = gptvq_fail_memory(err, "the factors of the codebooks",
                                 gptvq_saturated_size(tiles, rank * sizeof *saved));
      goto done;
    }
    double loss = fit_loss(&f, row_loss);
    bool gained;
    GPTVQ_TRY_GOTO(improve(&f, true, saved, row_loss, &loss, &gained, err));
  }
  for (size_t r = 0; r < rank; r++)
    q->factor_scales[r] = (float)round_column(tiles, rank, left + r, q->left + r);
  q->rank = rank;
  expand_factors(q);
done:
  free(whole);
  free(row_loss);
  free(saved);
  fit_release(&f);
  return status;
}

gptvq_status gptvq_vq_compress(gptvq_vq *q, gptvq_error *err) {
  size_t rank = q->shape.svd_rank, tiles = q->stripes * q->groups, n = tiles * q->k;
  GPTVQ_TRY(gptvq_vq_sort(q, err));
  double *whole = gptvq_alloc(n, sizeof *whole), *left = gptvq_alloc(tiles + q->k, rank * sizeof *left);
  gptvq_status status = GPTVQ_OK;
  if (whole == NULL || left == NULL) {
    status = gptvq_fail_memory(err, "the factors of the codebooks", gptvq_saturated_size(n, sizeof *whole));
    goto done;
  }
  double *right = left + tiles * rank;
  for (size_t i = 0; i < n; i++) whole[i] = (double)q->centroids[i];
  GPTVQ_TRY_GOTO(gptvq_svd(tiles, q->k, rank, whole, left, right, err));
  status = store_factors(q, left, right, false, err);
done:
  free(whole);
  free(left);
  return status;
}

gptvq_status gptvq_vq_update_factors(gptvq_vq *q, double *loss, gptvq_error *err) {
  size_t rank = q->rank, k = q->k, tiles = q->stripes * q->groups, codes = tiles * rank,
         all = codes + rank * k;
  double *left = gptvq_alloc(tiles + k, rank * sizeof *left);
  double *row_loss = gptvq_alloc(q->rows, sizeof *row_loss);
  int8_t *saved = gptvq_alloc(all, 1);
  float *saved_scales = gptvq_alloc(rank, sizeof *saved_scales);
  gptvq_status status = GPTVQ_OK;
  if (left == NULL || row_loss == NULL || saved == NULL || saved_scales == NULL) {
    status = gptvq_fail_memory(err, "the factors of the codebooks",
                               gptvq_saturated_size(tiles + k, rank * sizeof *left));
    goto done;
  }
  double *right = left + tiles * rank;
  memcpy(saved, q->left, codes);
  memcpy(saved + codes, q->right, rank * k);
  memcpy(saved_scales, q->factor_scales, rank * sizeof *saved_scales);
  for (size_t i = 0; i < codes; i++) left[i] = (double)q->left[i];
  for (size_t i = 0; i < rank * k; i++) right[i] = (double)q->right[i] * (double)q->factor_scales[i / k];
  *loss = gptvq_vq_loss(q, row_loss);
  GPTVQ_TRY_GOTO(gptvq_vq_fit_factors(q, left, right, ROUNDS, NULL, err));
  GPTVQ_TRY_GOTO(store_factors(q, left, right, true, err));
  double after = gptvq_vq_loss(q, row_loss);
  if (after < *loss) {
    *loss = after;
    goto done;
  }
  memcpy(q->left, saved, codes);
  memcpy(q->right, saved + codes, rank * k);
  memcpy(q->factor_scales, saved_scales, rank * sizeof *saved_scales);
  expand_factors(q);
done:
  free(left);
  free(row_loss);
  free(saved);
  free(saved_scales);
  return status;
}
