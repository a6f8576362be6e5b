#include "calib/mismatch.h"

#include "base/arena.h"
#include "base/memory.h"
#include "base/threads.h"
#include "linalg/gemm.h"
#include "model/layer/vector.h"
#include "linalg/solve/cholesky.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Products of CHUNK tokens are summed in fp32, the sums in double (as calib/hessian.c). TOKENS: that are
 * worked on together. SLAB: rows of a map that are divided together, a multiple of the tiles of
 * linalg/gemm.c. */
enum { CHUNK = 256, TOKENS = 2048, SLAB = 2048, DOUBLE_SLAB = 256, ATTEMPTS = 6 };

/* doubles of the two sums; floats of the differences */
static bool sizes(size_t cols, size_t rows, size_t *sums, size_t *differences) {
  size_t height = rows > 0 ? rows : cols;
  return gptvq_mul(height, cols, sums) && gptvq_mul(height, TOKENS, differences) && *sums <= SIZE_MAX / 32 &&
         *differences <= SIZE_MAX / 32;
}

size_t gptvq_mismatch_bytes(size_t cols, size_t rows) {
  size_t sums, differences;
  if (!sizes(cols, rows, &sums, &differences)) return SIZE_MAX;
  return 2 * sums * sizeof(double) + differences * sizeof(float);
}

static gptvq_status out_of_memory(const char *name, size_t bytes, gptvq_error *err) {
  char context[256];
  (void)snprintf(context, sizeof context, "the mismatch of %s", name);
  return gptvq_fail_memory(err, context, bytes);
}

gptvq_status gptvq_mismatch_init(gptvq_mismatch *mismatch, const gptvq_linalg *linalg, size_t cols,
                                 size_t rows, double inputs_share, double stream_share, const char *name,
                                 gptvq_error *err) {
  size_t sums, differences;
  *mismatch = (gptvq_mismatch){.linalg = linalg,
                               .cols = cols,
                               .rows = rows,
                               .inputs_share = inputs_share,
                               .stream_share = stream_share};
  if (sizes(cols, rows, &sums, &differences)) {
    mismatch->sums = gptvq_alloc_zero(sums, sizeof *mismatch->sums);
    mismatch->part = gptvq_alloc_zero(sums, sizeof *mismatch->part);
    mismatch->difference = gptvq_alloc(differences, sizeof *mismatch->difference);
  }
  if (mismatch->sums == NULL || mismatch->part == NULL || mismatch->difference == NULL) {
    gptvq_mismatch_release(mismatch);
    return out_of_memory(name, gptvq_mismatch_bytes(cols, rows), err);
  }
  return GPTVQ_OK;
}

void gptvq_mismatch_release(gptvq_mismatch *mismatch) {
  if (mismatch->part != NULL) mismatch->linalg->forget(mismatch->linalg, mismatch->part);
  free(mismatch->sums);
  free(mismatch->part);
  free(mismatch->difference);
  free(mismatch->map);
  *mismatch = (gptvq_mismatch){0};
}

typedef struct difference_job {
  const gptvq_mismatch *m;
  const gptvq_deviation *tokens;
  size_t first; /* of the tokens */
} difference_job;

/* w (x_o − x), or w (α W x_o + β r) */
static void subtract(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const difference_job *job = context;
  const gptvq_mismatch *m = job->m;
  const gptvq_deviation *tokens = job->tokens;
  size_t width = m->rows > 0 ? m->rows : m->cols;
  float inputs_share = (float)m->inputs_share, stream_share = (float)m->stream_share;
  for (size_t t = begin; t < end; t++) {
    size_t token = job->first + t;
    float weight = tokens->weight != NULL ? tokens->weight[token] : 1.0f, *out = m->difference + t * width;
    if (m->rows == 0) {
      const float *original = tokens->x_original + token * width, *x = tokens->x + token * tokens->ldx;
      for (size_t i = 0; i < width; i++) out[i] = (original[i] - x[i]) * weight;
      continue;
    }
    const float *before = tokens->stream_original + token * width,
                *after = tokens->stream_after + token * width, *stream = tokens->stream + token * width;
    for (size_t i = 0; i < width; i++) {
      float product =
          (after[i] - before[i]) / tokens->scale - (tokens->bias != NULL ? tokens->bias[i] : 0.0f);
      out[i] = (inputs_share * product + stream_share * ((before[i] - stream[i]) / tokens->scale)) * weight;
    }
  }
}

gptvq_status gptvq_mismatch_add(gptvq_mismatch *m, const gptvq_deviation *tokens, gptvq_error *err) {
  size_t width = m->rows > 0 ? m->rows : m->cols;
  for (size_t t = 0; t < tokens->n; t += TOKENS) {
    size_t count = gptvq_min_size(TOKENS, tokens->n - t);
    difference_job job = {m, tokens, t};
    gptvq_parallel_for(count, 16, subtract, &job);
    GPTVQ_TRY(m->linalg->cross(m->linalg, width, m->cols, count, CHUNK, m->difference, width,
                               tokens->x + t * tokens->ldx, tokens->ldx, m->part, err));
  }
  m->tokens += tokens->n;
  return GPTVQ_OK;
}

bool gptvq_mismatch_remembers(const gptvq_mismatch *m) { return m->rows == 0 && m->linalg->remember != NULL; }

gptvq_status gptvq_mismatch_add_change(gptvq_mismatch *m, size_t n, const float *x, size_t ldx,
                                       gptvq_error *err) {
  GPTVQ_TRY(m->linalg->cross_change(m->linalg, m->cols, n, CHUNK, x, ldx, m->part, err));
  m->tokens += n;
  return GPTVQ_OK;
}

static gptvq_sum sum_of(const gptvq_mismatch *m) {
  return (gptvq_sum){
      .rows = m->rows > 0 ? m->rows : m->cols, .cols = m->cols, .part = m->part, .total = m->sums};
}

gptvq_status gptvq_mismatch_add_group(gptvq_mismatch *m, gptvq_dist *dist, const gptvq_deal *deal,
                                      size_t round, gptvq_error *err) {
  const gptvq_sum sum = sum_of(m);
  return gptvq_sum_add(&sum, m->linalg, dist, deal, round, err);
}

gptvq_status gptvq_mismatch_gather(gptvq_mismatch *m, gptvq_dist *dist, gptvq_error *err) {
  const gptvq_sum sum = sum_of(m);
  uint64_t tokens = m->tokens;
  GPTVQ_TRY(m->linalg->settle(m->linalg, m->part, err));
  free(m->part);
  m->part = NULL;
  GPTVQ_TRY(gptvq_dist_total(dist, &tokens, 1, err));
  m->tokens = (size_t)tokens;
  return gptvq_sum_gather(&sum, dist, err);
}

/* Columns of a row's diagonal block of the factorisation, right of the diagonal: it does not spare them. */
static size_t block_end(size_t n, size_t row) {
  return gptvq_min_size(n, gptvq_round_up(row + 1, GPTVQ_CHOLESKY_BLOCK));
}

typedef struct triangle_job {
  size_t n;
  double *hessian;
  const double *saved; /* [n × GPTVQ_CHOLESKY_BLOCK] diagonal and what stands right of it in its block */
} triangle_job;

/* Lower triangle from the upper one. Tiles, for the caches' sake. */
static void mirror(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const triangle_job *job = context;
  enum { TILE = 32 };
  size_t n = job->n;
  for (size_t i = begin * TILE; i < gptvq_min_size(end * TILE, n); i += TILE)
    for (size_t j = 0; j <= i; j += TILE)
      for (size_t r = i; r < gptvq_min_size(i + TILE, n); r++)
        for (size_t c = j; c < gptvq_min_size(j + TILE, r); c++)
          job->hessian[r * n + c] = job->hessian[c * n + r];
}

static void restore(const triangle_job *job) {
  for (size_t r = 0; r < job->n; r++)
    memcpy(job->hessian + r * job->n + r, job->saved + r * GPTVQ_CHOLESKY_BLOCK,
           (block_end(job->n, r) - r) * sizeof *job->saved);
  gptvq_parallel_for(gptvq_ceil_div(job->n, 32), 1, mirror, (void *)(uintptr_t)job);
}

typedef struct finish_scratch {
  double *saved, *scratch; /* [cols × block] */
  float *inverse, *half;   /* [cols × cols] L⁻¹ of H + λ = L Lᵀ; [SLAB × cols] */
  double *weights;         /* [DOUBLE_SLAB × cols], with rows */
} finish_scratch;

static void take_finish(gptvq_arena *arena, size_t n, size_t rows, finish_scratch *s) {
  s->saved = gptvq_arena_take(arena, n, GPTVQ_CHOLESKY_BLOCK * sizeof *s->saved);
  s->scratch = gptvq_arena_take(arena, gptvq_max_size(n, GPTVQ_CHOLESKY_BLOCK),
                                GPTVQ_CHOLESKY_BLOCK * sizeof *s->scratch);
  s->inverse = gptvq_arena_take(arena, n, gptvq_saturated_size(n, sizeof *s->inverse));
  s->half = gptvq_arena_take(arena, SLAB, gptvq_saturated_size(n, sizeof *s->half));
  s->weights =
      gptvq_arena_take(arena, gptvq_min_size(rows, DOUBLE_SLAB), gptvq_saturated_size(n, sizeof *s->weights));
}

size_t gptvq_mismatch_finish_bytes(size_t cols, size_t rows) {
  gptvq_arena counting = {0};
  finish_scratch s;
  take_finish(&counting, cols, rows, &s);
  return counting.peak;
}

/* Fills s->inverse; *done false: not positive definite at any λ. */
static gptvq_status invert_factor(const gptvq_mismatch *m, double *hessian, double damping,
                                  const finish_scratch *s, bool *done, gptvq_error *err) {
  size_t n = m->cols;
  double mean = 0.0;
  gptvq_status status = GPTVQ_OK;
  *done = false;
  for (size_t c = 0; c < n; c++) mean += hessian[c * n + c] / (double)n;
  if (!(mean > 0.0)) return GPTVQ_OK;
  for (size_t r = 0; r < n; r++)
    memcpy(s->saved + r * GPTVQ_CHOLESKY_BLOCK, hessian + r * n + r,
           (block_end(n, r) - r) * sizeof *s->saved);
  triangle_job job = {n, hessian, s->saved};
  double lambda = damping > 0.0 ? damping * mean : 1e-6 * mean;
  for (int attempt = 0; attempt < ATTEMPTS && !*done && status == GPTVQ_OK; attempt++, lambda *= 10.0) {
    if (attempt > 0) restore(&job);
    for (size_t c = 0; c < n; c++) hessian[c * n + c] += lambda;
    status = m->linalg->inverse_factor(m->linalg, n, hessian, s->scratch, done, err);
  }
  if (status == GPTVQ_OK && *done)
    for (size_t r = 0; r < n; r++)
      for (size_t c = 0; c < n; c++) s->inverse[r * n + c] = c <= r ? (float)hessian[r * n + c] : 0.0f;
  restore(&job);
  return status;
}

/* With rows the sums become those of α W A + β D: less α W H. In double, as little is left. */
static void subtract_present(gptvq_mismatch *m, const double *hessian, const float *weights,
                             double *scratch) {
  size_t n = m->cols;
  double factor = -m->inputs_share * (double)m->tokens;
  for (size_t r = 0; r < m->rows && factor != 0.0; r += DOUBLE_SLAB) {
    size_t count = gptvq_min_size(DOUBLE_SLAB, m->rows - r);
    for (size_t i = 0; i < count * n; i++) scratch[i] = (double)weights[r * n + i];
    gptvq_gemm_double_nn(count, n, n, factor, scratch, n, hessian, n, m->sums + r * n, n);
  }
}

/* The sums become fp32 means in the same memory. */
static void narrow_sums(gptvq_mismatch *m) {
  size_t values = (m->rows > 0 ? m->rows : m->cols) * m->cols;
  double scale = m->tokens > 0 ? 1.0 / (double)m->tokens : 0.0;
  char *bytes = (char *)m->sums;
  for (size_t i = 0; i < values; i++) {
    double value;
    memcpy(&value, bytes + i * sizeof value, sizeof value);
    float mean = (float)(value * scale);
    memcpy(bytes + i * sizeof mean, &mean, sizeof mean);
  }
  float *shrunk = realloc(m->sums, values * sizeof *shrunk);
  m->map = shrunk != NULL ? shrunk : (float *)(void *)m->sums;
  m->sums = NULL;
}

/* map[rows × n] · L⁻ᵀ L⁻¹ in place; half: [SLAB × n] */
static void divide(size_t n, size_t rows, const float *inverse, float *half, float *map) {
  for (size_t r = 0; r < rows; r += SLAB) {
    size_t count = gptvq_min_size(SLAB, rows - r);
    gptvq_gemm_nt_lower(count, n, map + r * n, n, inverse, n, half, n);
    gptvq_gemm_nn_lower(count, n, half, n, inverse, n, map + r * n, n);
  }
}

size_t gptvq_mismatch_map_bytes(size_t cols, size_t rows) {
  size_t sums, differences;
  return sizes(cols, rows, &sums, &differences) ? sums * sizeof(float) : SIZE_MAX;
}

gptvq_status gptvq_mismatch_finish(gptvq_mismatch *m, double *hessian, const float *weights, double damping,
                                   const char *name, gptvq_error *err) {
  size_t n = m->cols, height = m->rows > 0 ? m->rows : n;
  gptvq_arena arena;
  finish_scratch s;
  bool done;
  free(m->difference);
  m->difference = NULL;
  if (m->part != NULL) { /* no group was ended: all tokens are one */
    const gptvq_sum sum = sum_of(m);
    GPTVQ_TRY(m->linalg->fold(m->linalg, &sum, err));
    GPTVQ_TRY(m->linalg->settle(m->linalg, m->part, err));
    free(m->part);
    m->part = NULL;
  }
  char context[256];
  (void)snprintf(context, sizeof context, "the mismatch of %s", name);
  GPTVQ_TRY(gptvq_arena_create(&arena, gptvq_mismatch_finish_bytes(n, m->rows), context, err));
  take_finish(&arena, n, m->rows, &s);
  gptvq_status status = gptvq_arena_check(&arena, context, err);
  if (status == GPTVQ_OK) {
    if (m->rows > 0) subtract_present(m, hessian, weights, s.weights);
    narrow_sums(m);
    status = invert_factor(m, hessian, damping, &s, &done, err);
  }
  if (status == GPTVQ_OK && done) divide(n, height, s.inverse, s.half, m->map);
  else if (status == GPTVQ_OK) memset(m->map, 0, height * n * sizeof *m->map);
  gptvq_arena_destroy(&arena);
  return status;
}

size_t gptvq_mismatch_apply_bytes(size_t cols, size_t rows) {
  return gptvq_saturated_size(gptvq_min_size(rows, SLAB), gptvq_saturated_size(cols, sizeof(float)));
}

gptvq_status gptvq_mismatch_apply(const gptvq_mismatch *m, size_t rows, float *weights, const char *name,
                                  gptvq_error *err) {
  size_t slab = gptvq_min_size(rows, SLAB), cols = m->cols, bytes = gptvq_mismatch_apply_bytes(cols, rows);
  float *product = m->rows == 0 ? gptvq_alloc(bytes, 1) : NULL;
  if (m->rows == 0 && product == NULL) return out_of_memory(name, bytes, err);
  for (size_t r = 0; r < rows; r += slab) {
    size_t count = gptvq_min_size(slab, rows - r);
    float *w = weights + r * cols;
    const float *change = product;
    if (m->rows > 0) change = m->map + r * cols;
    else gptvq_gemm_nn(count, cols, cols, (float)m->inputs_share, w, cols, m->map, cols, 0.0f, product, cols);
    for (size_t i = 0; i < count * cols; i++) w[i] += change[i];
  }
  free(product);
  if (GPTVQ_MULTI_PICK(gptvq_all_finite)(rows * cols, weights)) return GPTVQ_OK;
  return gptvq_fail(
      err, GPTVQ_ERROR_NUMERIC,
      "%s: making up for the deviation of its inputs gives NaN or infinity: the original "
      "model's activations are too large here; do without (`mismatch` 0 and `mismatch_stream` 0)",
      name);
}
