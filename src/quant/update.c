/* Codebook update: with assignments fixed the layer loss is a quadratic in all centroids, one independent system per stripe.
 * Preconditioned conjugate gradients on the normal equations; the operator is decode, times H, gather. */
#include "base/memory.h"
#include "base/threads.h"
#include "quant/layer.h"

#include <math.h>
#include <string.h>

enum { MAX_STEPS = 60 };
/* What the preconditioned residual says can still be gained, as a fraction of the stripe's loss: from there on a stripe is finished. Each
 * further step costs a product with H, and storing the codebooks in 8 bits alone costs more. */
#define REMAINING 3e-4

typedef struct cg {
  gptvq_vq *q;
  size_t values;       /* numbers per stripe: groups · k · dim */
  const double *row_loss; /* [rows] at the start */
  double *solution, *residual, *product; /* [stripes × values] */
  float *direction;    /* [stripes × values] */
  double *block;       /* [stripes][groups][k][dim²] preconditioner: Cholesky factors of Σ s² H_BB, lower */
  double *rz, *enough; /* [stripes]; a stripe is finished when its rz, the gain still to be expected, is not above enough: then 0 */
  uint32_t *active;    /* [active_count] stripes that are not finished; their rows lie side by side in work and error */
  size_t active_count;
} cg;

static size_t first_row(const gptvq_vq *q, size_t stripe) { return stripe * q->shape.group_rows; }
static size_t last_row(const gptvq_vq *q, size_t stripe) {
  return gptvq_min_size(q->rows, (stripe + 1) * q->shape.group_rows);
}

/* out[stripe] = Σ over rows and blocks of scale · y at the centroid of that block: the transpose of decode; y[rows of the stripe × padded] */
static void gather(const cg *s, size_t stripe, const float *y, double *out) {
  const gptvq_vq *q = s->q;
  size_t d = q->dim;
  memset(out, 0, s->values * sizeof *out);
  for (size_t row = first_row(q, stripe); row < last_row(q, stripe); row++, y += q->padded)
    for (size_t g = 0; g < q->groups; g++)
      for (size_t b = q->group[g].start / d; b < (q->group[g].start + q->group[g].width) / d; b++) {
        double scale = (double)gptvq_vq_scale(q, row, b), *sum = out + (g * q->k + q->index[row * q->blocks + b]) * d;
        for (size_t i = 0; i < d; i++) sum[i] += scale * (double)y[b * d + i];
      }
}

/* in place: lower Cholesky factor of a d × d block; a pivot that is not positive becomes 0: that direction is left alone */
static void factor_block(size_t d, double *a) {
  for (size_t c = 0; c < d; c++)
    for (size_t r = c; r < d; r++) {
      double sum = a[r * d + c];
      for (size_t m = 0; m < c; m++) sum -= a[r * d + m] * a[c * d + m];
      if (r == c) a[r * d + c] = sum > 0.0 ? sqrt(sum) : 0.0;
      else a[r * d + c] = a[c * d + c] > 0.0 ? sum / a[c * d + c] : 0.0;
    }
}

static void solve_block(size_t d, const double *l, const double *b, double *z) {
  for (size_t r = 0; r < d; r++) {
    z[r] = b[r];
    for (size_t m = 0; m < r; m++) z[r] -= l[r * d + m] * z[m];
    z[r] = l[r * d + r] > 0.0 ? z[r] / l[r * d + r] : 0.0;
  }
  for (size_t r = d; r-- > 0;) {
    for (size_t m = r + 1; m < d; m++) z[r] -= l[m * d + r] * z[m];
    z[r] = l[r * d + r] > 0.0 ? z[r] / l[r * d + r] : 0.0;
  }
}

static void prepare(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const cg *s = context;
  const gptvq_vq *q = s->q;
  const gptvq_factor *f = q->factor;
  size_t d = q->dim;
  for (size_t stripe = begin; stripe < end; stripe++) {
    double *block = s->block + stripe * s->values * d;
    memset(block, 0, s->values * d * sizeof *block);
    for (size_t g = 0; g < q->groups; g++)
      for (size_t b = q->group[g].start / d; b < (q->group[g].start + q->group[g].width) / d; b++)
        for (size_t row = first_row(q, stripe); row < last_row(q, stripe); row++) {
          double scale = (double)gptvq_vq_scale(q, row, b);
          double *sum = block + (g * q->k + q->index[row * q->blocks + b]) * d * d;
          for (size_t i = 0; i < d; i++)
            for (size_t j = 0; j <= i; j++)
              sum[i * d + j] += scale * scale * ((double)f->h[(b * d + i) * q->padded + b * d + j] +
                                                 (i == j ? gptvq_factor_ridge(f, b * d + i) : 0.0));
        }
    for (size_t c = 0; c < q->groups * q->k; c++) factor_block(d, block + c * d * d);
    const float *centroids = q->centroids + stripe * s->values;
    for (size_t i = 0; i < s->values; i++) s->solution[stripe * s->values + i] = (double)centroids[i];
    gather(s, stripe, q->error + first_row(q, stripe) * q->padded, s->residual + stripe * s->values); /* E (H + ridge) */
    s->rz[stripe] = -1.0;
    s->enough[stripe] = 0.0;
    for (size_t row = first_row(q, stripe); row < last_row(q, stripe); row++) s->enough[stripe] += REMAINING * s->row_loss[row];
  }
}

/* z = M⁻¹ r; direction = z + beta direction; beginning with beta = 0 */
static void next_direction(const cg *s, size_t stripe) {
  size_t d = s->q->dim, at = stripe * s->values;
  double rz = 0.0, z[4];
  double *zs = s->product + at; /* free between products */
  for (size_t c = 0; c < s->values; c += d) {
    solve_block(d, s->block + (at + c) * d, s->residual + at + c, z);
    for (size_t i = 0; i < d; i++) {
      zs[c + i] = z[i];
      rz += z[i] * s->residual[at + c + i];
    }
  }
  bool first = s->rz[stripe] < 0.0;
  double beta = first || s->rz[stripe] == 0.0 ? 0.0 : rz / s->rz[stripe];
  if (!(rz > s->enough[stripe])) rz = 0.0;
  for (size_t i = 0; i < s->values; i++)
    s->direction[at + i] = rz == 0.0 ? 0.0f : (float)(zs[i] + beta * (double)s->direction[at + i]);
  s->rz[stripe] = rz;
}

static void begin_stripes(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  for (size_t stripe = begin; stripe < end; stripe++) next_direction(context, stripe);
}

static float *active_rows(const cg *s, float *rows, size_t i) { return rows + i * s->q->shape.group_rows * s->q->padded; }

/* work = what the directions of the active stripes give with their assignments */
static void decode_active(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const cg *s = context;
  const gptvq_vq *q = s->q;
  for (size_t i = begin; i < end; i++)
    gptvq_vq_decode_rows(q, s->direction, first_row(q, s->active[i]), last_row(q, s->active[i]), active_rows(s, q->work, i));
}

/* error holds direction · (H + ridge) of the active stripes */
static void step_stripes(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const cg *s = context;
  for (size_t slot = begin; slot < end; slot++) {
    size_t stripe = s->active[slot], at = stripe * s->values;
    gather(s, stripe, active_rows(s, s->q->error, slot), s->product + at);
    double curvature = 0.0, slope = 0.0;
    for (size_t i = 0; i < s->values; i++) {
      curvature += (double)s->direction[at + i] * s->product[at + i];
      slope += (double)s->direction[at + i] * s->residual[at + i];
    }
    if (!(curvature > 0.0)) {
      s->rz[stripe] = 0.0;
      memset(s->direction + at, 0, s->values * sizeof *s->direction);
      continue;
    }
    double alpha = slope / curvature;
    for (size_t i = 0; i < s->values; i++) {
      s->solution[at + i] += alpha * (double)s->direction[at + i];
      s->residual[at + i] -= alpha * s->product[at + i];
    }
    next_direction(s, stripe);
  }
}

/* Returns how many rows they have. Only the last stripe may be lower than the others. */
static size_t list_active(cg *s) {
  size_t rows = 0;
  s->active_count = 0;
  for (size_t stripe = 0; stripe < s->q->stripes; stripe++) {
    if (s->rz[stripe] == 0.0) continue;
    s->active[s->active_count++] = (uint32_t)stripe;
    rows += last_row(s->q, stripe) - first_row(s->q, stripe);
  }
  return rows;
}

static gptvq_status allocate(cg *s, gptvq_error *err) {
  const gptvq_vq *q = s->q;
  size_t n = q->stripes * s->values, doubles = n * 3 + n * q->dim + 2 * q->stripes;
  double *memory = gptvq_alloc(doubles, sizeof *memory);
  s->direction = gptvq_alloc_zero(n, sizeof *s->direction);
  s->active = gptvq_alloc(q->stripes, sizeof *s->active);
  s->solution = memory;
  if (memory == NULL || s->direction == NULL || s->active == NULL) return gptvq_fail_memory(err, "the codebook update", gptvq_saturated_size(doubles, 8));
  s->residual = memory + n;
  s->product = memory + 2 * n;
  s->block = memory + 3 * n;
  s->rz = s->block + n * q->dim;
  s->enough = s->rz + q->stripes;
  return GPTVQ_OK;
}

/* Stores the solution; stripes that are not better afterwards get their codebooks back. */
static gptvq_status store(cg *s, const double *row_before, double *row_after, double *loss, gptvq_error *err) {
  gptvq_vq *q = s->q;
  size_t n = q->stripes * s->values, code_size = q->shape.codebook_bits / 8, tiles = q->stripes * q->groups;
  char *saved = gptvq_alloc(n, sizeof(float) + code_size);
  uint16_t *saved_scales = gptvq_alloc(tiles, sizeof *saved_scales);
  if (saved == NULL || saved_scales == NULL) {
    free(saved);
    free(saved_scales);
    return gptvq_fail_memory(err, "the codebook update", gptvq_saturated_size(n, sizeof(float) + code_size));
  }
  char *codes = q->codes, *saved_codes = saved + n * sizeof(float);
  memcpy(saved, q->centroids, n * sizeof(float));
  memcpy(saved_codes, codes, n * code_size);
  memcpy(saved_scales, q->codebook_scales, tiles * sizeof *saved_scales);
  for (size_t i = 0; i < n; i++) s->direction[i] = (float)s->solution[i];
  for (size_t tile = 0; tile < tiles; tile++) gptvq_vq_store_codebook(q, tile, s->direction + tile * q->k * q->dim);
  *loss = gptvq_vq_loss(q, row_after);
  for (size_t stripe = 0; stripe < q->stripes; stripe++) {
    double before = 0.0, after = 0.0;
    for (size_t row = first_row(q, stripe); row < last_row(q, stripe); row++) {
      before += row_before[row];
      after += row_after[row];
    }
    if (after < before) continue;
    size_t at = stripe * s->values;
    memcpy(q->centroids + at, saved + at * sizeof(float), s->values * sizeof(float));
    memcpy(codes + at * code_size, saved_codes + at * code_size, s->values * code_size);
    memcpy(q->codebook_scales + stripe * q->groups, saved_scales + stripe * q->groups, q->groups * sizeof *saved_scales);
    *loss += before - after;
  }
  free(saved);
  free(saved_scales);
  return GPTVQ_OK;
}

gptvq_status gptvq_vq_update(gptvq_vq *q, double *loss, gptvq_error *err) {
  cg s = {.q = q, .values = q->groups * q->k * q->dim};
  double *row_loss = gptvq_alloc(2 * q->rows, sizeof *row_loss);
  gptvq_status status = row_loss == NULL ? gptvq_fail_memory(err, "the codebook update", 2 * q->rows * sizeof *row_loss)
                                         : allocate(&s, err);
  if (status != GPTVQ_OK) goto done;
  *loss = gptvq_vq_loss(q, row_loss);
  s.row_loss = row_loss;
  gptvq_parallel_for(q->stripes, 1, prepare, &s);
  gptvq_parallel_for(q->stripes, 1, begin_stripes, &s);
  for (unsigned step = 0; step < MAX_STEPS; step++) {
    size_t rows = list_active(&s);
    if (rows == 0) break;
    gptvq_parallel_for(s.active_count, 1, decode_active, &s);
    gptvq_vq_times_hessian(q, rows, q->work, q->error);
    gptvq_parallel_for(s.active_count, 1, step_stripes, &s);
  }
  status = store(&s, row_loss, row_loss + q->rows, loss, err);
done:
  free(row_loss);
  free(s.solution);
  free(s.direction);
  free(s.active);
  return status;
}
