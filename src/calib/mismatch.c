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
 * worked on together. SLAB, STRIP: rows and columns of a map that are divided together, multiples of the
 * tiles of linalg/gemm.c. */
enum { CHUNK = 256, TOKENS = 2048, SLAB = 2048, STRIP = 2048, ATTEMPTS = 6 };

/* doubles of the two sums; floats of the differences */
static bool sizes(size_t cols, size_t rows, size_t *sums, size_t *differences) {
  size_t product;
  return gptvq_mul(cols, cols, sums) && gptvq_mul(rows, cols, &product) && gptvq_add(*sums, product, sums) &&
         gptvq_mul(gptvq_max_size(cols, rows), TOKENS, differences) && *sums <= SIZE_MAX / 32 &&
         *differences <= SIZE_MAX / 32;
}

size_t gptvq_mismatch_bytes(size_t cols, size_t rows) {
  size_t sums, differences;
  if (!sizes(cols, rows, &sums, &differences)) return SIZE_MAX;
  return sums * sizeof(double) + differences * sizeof(float);
}

static gptvq_status out_of_memory(const char *name, size_t bytes, gptvq_error *err) {
  char context[256];
  (void)snprintf(context, sizeof context, "the mismatch of %s", name);
  return gptvq_fail_memory(err, context, bytes);
}

gptvq_status gptvq_mismatch_init(gptvq_mismatch *mismatch, const gptvq_linalg *linalg, size_t cols,
                                 size_t rows, const char *name, gptvq_error *err) {
  size_t sums, differences;
  *mismatch = (gptvq_mismatch){.linalg = linalg, .cols = cols, .rows = rows};
  if (sizes(cols, rows, &sums, &differences)) {
    mismatch->inputs = gptvq_alloc_zero(sums, sizeof *mismatch->inputs);
    mismatch->difference = gptvq_alloc(differences, sizeof *mismatch->difference);
  }
  if (mismatch->inputs == NULL || mismatch->difference == NULL) {
    gptvq_mismatch_release(mismatch);
    return out_of_memory(name, gptvq_mismatch_bytes(cols, rows), err);
  }
  if (rows > 0) mismatch->stream = mismatch->inputs + cols * cols;
  return GPTVQ_OK;
}

void gptvq_mismatch_release(gptvq_mismatch *mismatch) {
  free(mismatch->inputs);
  free(mismatch->difference);
  free(mismatch->map);
  *mismatch = (gptvq_mismatch){0};
}

typedef struct difference_job {
  size_t width, ldb;
  const float *a, *b, *weight;
  float *out;
} difference_job;

/* w (a − b) */
static void subtract(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const difference_job *job = context;
  for (size_t t = begin; t < end; t++) {
    float weight = job->weight != NULL ? job->weight[t] : 1.0f;
    for (size_t i = 0; i < job->width; i++)
      job->out[t * job->width + i] = (job->a[t * job->width + i] - job->b[t * job->ldb + i]) * weight;
  }
}

/* sum[width × cols] += Σ w (a − b) xᵀ over n <= TOKENS tokens */
static gptvq_status add_products(const gptvq_mismatch *m, size_t n, const difference_job *job, const float *x,
                                 size_t ldx, double *sum, gptvq_error *err) {
  gptvq_parallel_for(n, 16, subtract, (void *)(uintptr_t)job);
  return m->linalg->cross(job->width, m->cols, n, CHUNK, job->out, job->width, x, ldx, sum, err);
}

gptvq_status gptvq_mismatch_add(gptvq_mismatch *m, const gptvq_deviation *tokens, gptvq_error *err) {
  for (size_t t = 0; t < tokens->n; t += TOKENS) {
    size_t count = gptvq_min_size(TOKENS, tokens->n - t);
    const float *weight = tokens->weight != NULL ? tokens->weight + t : NULL,
                *x = tokens->x + t * tokens->ldx;
    difference_job job = {m->cols, tokens->ldx, tokens->x_original + t * m->cols, x, weight, m->difference};
    GPTVQ_TRY(add_products(m, count, &job, x, tokens->ldx, m->inputs, err));
    if (m->rows == 0) continue;
    job = (difference_job){.width = m->rows,
                           .ldb = m->rows,
                           .a = tokens->stream_original + t * m->rows,
                           .b = tokens->stream + t * m->rows,
                           .weight = weight,
                           .out = m->difference};
    GPTVQ_TRY(add_products(m, count, &job, x, tokens->ldx, m->stream, err));
  }
  m->tokens += tokens->n;
  return GPTVQ_OK;
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
} finish_scratch;

static void take_finish(gptvq_arena *arena, size_t n, finish_scratch *s) {
  s->saved = gptvq_arena_take(arena, n, GPTVQ_CHOLESKY_BLOCK * sizeof *s->saved);
  s->scratch = gptvq_arena_take(arena, gptvq_max_size(n, GPTVQ_CHOLESKY_BLOCK),
                                GPTVQ_CHOLESKY_BLOCK * sizeof *s->scratch);
  s->inverse = gptvq_arena_take(arena, n, gptvq_saturated_size(n, sizeof *s->inverse));
  s->half = gptvq_arena_take(arena, SLAB, gptvq_saturated_size(n, sizeof *s->half));
}

size_t gptvq_mismatch_finish_bytes(size_t cols) {
  gptvq_arena counting = {0};
  finish_scratch s;
  take_finish(&counting, cols, &s);
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
    status = m->linalg->inverse_factor(n, hessian, s->scratch, done, err);
  }
  if (status == GPTVQ_OK && *done)
    for (size_t r = 0; r < n; r++)
      for (size_t c = 0; c < n; c++) s->inverse[r * n + c] = c <= r ? (float)hessian[r * n + c] : 0.0f;
  restore(&job);
  return status;
}

/* The sums become fp32 means in the same memory. */
static void narrow_sums(gptvq_mismatch *m) {
  size_t values = (m->cols + m->rows) * m->cols;
  double scale = m->tokens > 0 ? 1.0 / (double)m->tokens : 0.0;
  char *bytes = (char *)m->inputs;
  for (size_t i = 0; i < values; i++) {
    double value;
    memcpy(&value, bytes + i * sizeof value, sizeof value);
    float mean = (float)(value * scale);
    memcpy(bytes + i * sizeof mean, &mean, sizeof mean);
  }
  float *shrunk = realloc(m->inputs, values * sizeof *shrunk);
  m->map = shrunk != NULL ? shrunk : (float *)(void *)m->inputs;
  if (m->rows > 0) m->shift = m->map + m->cols * m->cols;
  m->inputs = m->stream = NULL;
}

/* map[rows × n] · L⁻ᵀ L⁻¹ in place; half: [SLAB × n]. In strips of columns: of L⁻¹ only what is not zero is
 * used. */
static void divide(size_t n, size_t rows, const float *inverse, float *half, float *map) {
  for (size_t r = 0; r < rows; r += SLAB) {
    size_t count = gptvq_min_size(SLAB, rows - r);
    float *out = map + r * n;
    for (size_t c = 0, end; c < n; c = end) {
      end = gptvq_min_size(n, c + STRIP);
      gptvq_gemm_nt(count, end - c, end, 1.0f, out, n, inverse + c * n, n, 0.0f, half + c, n);
    }
    for (size_t c = 0, end; c < n; c = end) {
      end = gptvq_min_size(n, c + STRIP);
      gptvq_gemm_nn(count, end - c, n - c, 1.0f, half + c, n, inverse + c * n + c, n, 0.0f, out + c, n);
    }
  }
}

size_t gptvq_mismatch_map_bytes(size_t cols, size_t rows) {
  size_t sums, differences;
  return sizes(cols, rows, &sums, &differences) ? sums * sizeof(float) : SIZE_MAX;
}

gptvq_status gptvq_mismatch_finish(gptvq_mismatch *m, double *hessian, double damping, const char *name,
                                   gptvq_error *err) {
  size_t n = m->cols, rows = n + m->rows;
  gptvq_arena arena;
  finish_scratch s;
  bool done;
  free(m->difference);
  m->difference = NULL;
  narrow_sums(m);
  if (m->tokens == 0) return GPTVQ_OK;
  char context[256];
  (void)snprintf(context, sizeof context, "the mismatch of %s", name);
  GPTVQ_TRY(gptvq_arena_create(&arena, gptvq_mismatch_finish_bytes(n), context, err));
  take_finish(&arena, n, &s);
  gptvq_status status = gptvq_arena_check(&arena, context, err);
  if (status == GPTVQ_OK) status = invert_factor(m, hessian, damping, &s, &done, err);
  if (status == GPTVQ_OK && done) {
    divide(n, n, s.inverse, s.half, m->map);
    if (m->rows > 0) divide(n, m->rows, s.inverse, s.half, m->shift);
  } else if (status == GPTVQ_OK) {
    memset(m->map, 0, rows * n * sizeof *m->map);
  }
  gptvq_arena_destroy(&arena);
  return status;
}

size_t gptvq_mismatch_apply_bytes(size_t cols, size_t rows) {
  return gptvq_saturated_size(gptvq_min_size(rows, SLAB), gptvq_saturated_size(cols, sizeof(float)));
}

gptvq_status gptvq_mismatch_apply(const gptvq_mismatch *m, double inputs_share, double stream_share,
                                  size_t rows, float *weights, const char *name, gptvq_error *err) {
  size_t slab = gptvq_min_size(rows, SLAB), cols = m->cols;
  gptvq_status status = GPTVQ_OK;
  size_t bytes = gptvq_mismatch_apply_bytes(cols, rows);
  float *change = gptvq_alloc(bytes, 1);
  if (change == NULL) return out_of_memory(name, bytes, err);
  for (size_t r = 0; r < rows; r += slab) {
    size_t count = gptvq_min_size(slab, rows - r);
    float *w = weights + r * cols;
    gptvq_gemm_nn(count, cols, cols, (float)inputs_share, w, cols, m->map, cols, 0.0f, change, cols);
    for (size_t i = 0; i < count * cols; i++) w[i] += change[i];
    if (m->rows > 0)
      for (size_t i = 0; i < count * cols; i++) w[i] += (float)stream_share * m->shift[r * cols + i];
    if (!GPTVQ_MULTI_PICK(gptvq_all_finite)(count * cols, w)) {
      status = gptvq_fail(
          err, GPTVQ_ERROR_NUMERIC,
          "%s: making up for the deviation of its inputs gives NaN or infinity: the original "
          "model's activations are too large here; do without (`mismatch` 0 and `mismatch_stream` 0)",
          name);
      break;
    }
  }
  free(change);
  return status;
}
