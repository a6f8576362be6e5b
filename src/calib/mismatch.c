#include "calib/mismatch.h"

#include "base/memory.h"
#include "base/threads.h"
#include "linalg/gemm.h"
#include "linalg/solve/narrow.h"
#include "model/layer/vector.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Products of CHUNK tokens are summed in fp32, the sums in double (as calib/hessian.c). TOKENS: that are
 * worked on together. SLAB: rows of a map that are divided together, a multiple of the tiles of
 * linalg/gemm.c. */
enum { CHUNK = 256, TOKENS = 2048, SLAB = 2048 };

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
  if (mismatch->map != NULL) mismatch->linalg->forget(mismatch->linalg, mismatch->map);
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

size_t gptvq_mismatch_map_bytes(size_t cols, size_t rows) {
  size_t sums, differences;
  return sizes(cols, rows, &sums, &differences) ? sums * sizeof(float) : SIZE_MAX;
}

gptvq_status gptvq_mismatch_end(gptvq_mismatch *m, gptvq_error *err) {
  free(m->difference);
  m->difference = NULL;
  if (m->part != NULL) { /* no group was ended: all tokens are one */
    const gptvq_sum sum = sum_of(m);
    GPTVQ_TRY(m->linalg->fold(m->linalg, &sum, err));
    GPTVQ_TRY(m->linalg->settle(m->linalg, m->part, err));
    free(m->part);
    m->part = NULL;
  }
  m->map = gptvq_narrow(m->sums, (m->rows > 0 ? m->rows : m->cols) * m->cols,
                        m->tokens > 0 ? 1.0 / (double)m->tokens : 0.0);
  m->sums = NULL;
  return GPTVQ_OK;
}

typedef struct slab_job {
  const gptvq_factored *f;
  float *rows, *reordered; /* [rows × cols], [rows × padded] */
  const float *weights;    /* [rows × cols] or NULL */
  float *weights_reordered;
} slab_job;

static void reorder(const gptvq_factored *f, const float *row, float *out) {
  for (size_t c = 0; c < f->padded; c++) out[c] = f->order[c] < f->cols ? row[f->order[c]] : 0.0f;
}

/* Items are rows. */
static void take_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const slab_job *s = context;
  const size_t cols = s->f->cols, padded = s->f->padded;
  for (size_t r = begin; r < end; r++) {
    reorder(s->f, s->rows + r * cols, s->reordered + r * padded);
    if (s->weights != NULL) reorder(s->f, s->weights + r * cols, s->weights_reordered + r * padded);
  }
}

static void give_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const slab_job *s = context;
  const gptvq_factored *f = s->f;
  for (size_t r = begin; r < end; r++)
    for (size_t c = 0; c < f->padded; c++)
      if (f->order[c] < f->cols)
        s->rows[r * f->cols + f->order[c]] = (float)((double)s->reordered[r * f->padded + c] * f->scale);
}

size_t gptvq_mismatch_divide_bytes(size_t padded, size_t rows) {
  return gptvq_saturated_size(gptvq_min_size(rows > 0 ? rows : padded, SLAB),
                              gptvq_saturated_size(padded, 2 * sizeof(float)));
}

gptvq_status gptvq_mismatch_divide(gptvq_mismatch *m, const gptvq_factored *f, const float *weights,
                                   const char *name, gptvq_error *err) {
  const size_t n = f->padded, height = m->rows > 0 ? m->rows : m->cols,
               bytes = gptvq_mismatch_divide_bytes(n, m->rows);
  if (m->tokens == 0 || f->diagonal) { /* nothing to go by */
    memset(m->map, 0, height * m->cols * sizeof *m->map);
    return GPTVQ_OK;
  }
  float *scratch = gptvq_alloc(bytes, 1);
  if (scratch == NULL) return out_of_memory(name, bytes, err);
  const size_t most = gptvq_min_size(height, SLAB);
  float *half = scratch + most * n;
  for (size_t r = 0; r < height; r += most) {
    const size_t count = gptvq_min_size(most, height - r);
    slab_job s = {.f = f, .rows = m->map + r * m->cols, .reordered = scratch, .weights_reordered = half};
    if (m->rows > 0 && m->inputs_share > 0.0) s.weights = weights + r * m->cols;
    gptvq_parallel_for(count, 16, take_rows, &s);
    if (s.weights != NULL)
      gptvq_gemm_nn(count, n, n, (float)(-m->inputs_share / f->scale), half, n, f->h, n, 1.0f, scratch, n);
    gptvq_gemm_nt_upper(count, n, scratch, n, f->u, n, half, n);
    gptvq_gemm_nn_upper(count, n, half, n, f->u, n, scratch, n);
    gptvq_parallel_for(count, 16, give_rows, &s);
  }
  free(scratch);
  return GPTVQ_OK;
}

size_t gptvq_mismatch_apply_bytes(size_t cols, size_t rows) {
  return gptvq_saturated_size(gptvq_min_size(rows, SLAB), gptvq_saturated_size(cols, sizeof(float)));
}

typedef struct change_job {
  float *weights;      /* [rows × cols] */
  const float *change; /* or NULL */
  size_t cols;
  atomic_bool bad;
} change_job;

static void change_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  change_job *job = context;
  float *w = job->weights + begin * job->cols;
  const size_t count = (end - begin) * job->cols;
  for (size_t i = 0; i < count && job->change != NULL; i++) w[i] += job->change[begin * job->cols + i];
  if (!GPTVQ_MULTI_PICK(gptvq_all_finite)(count, w)) atomic_store(&job->bad, true);
}

/* weights += change; whether they are finite then */
static bool change_weights(size_t rows, size_t cols, float *weights, const float *change) {
  change_job job = {.weights = weights, .change = change, .cols = cols};
  gptvq_parallel_for(rows, gptvq_rows_per_task(cols), change_rows, &job);
  return !atomic_load(&job.bad);
}

gptvq_status gptvq_mismatch_apply(const gptvq_mismatch *m, size_t rows, float *weights, const char *name,
                                  gptvq_error *err) {
  size_t slab = gptvq_min_size(rows, SLAB), cols = m->cols, bytes = gptvq_mismatch_apply_bytes(cols, rows);
  float *product = NULL;
  bool done = false, finite = true;
  if (m->rows == 0 && m->linalg->add_mapped != NULL)
    GPTVQ_TRY(m->linalg->add_mapped(m->linalg, rows, cols, m->inputs_share, m->map, weights, &done, err));
  if (m->rows == 0 && !done && (product = gptvq_alloc(bytes, 1)) == NULL)
    return out_of_memory(name, bytes, err);
  for (size_t r = 0; r < rows; r += slab) {
    size_t count = gptvq_min_size(slab, rows - r);
    float *w = weights + r * cols;
    const float *change = done ? NULL : m->rows > 0 ? m->map + r * cols : product;
    if (product != NULL)
      gptvq_gemm_nn(count, cols, cols, (float)m->inputs_share, w, cols, m->map, cols, 0.0f, product, cols);
    finite = change_weights(count, cols, w, change) && finite;
  }
  free(product);
  if (finite) return GPTVQ_OK;
  return gptvq_fail(
      err, GPTVQ_ERROR_NUMERIC,
      "%s: making up for the deviation of its inputs gives NaN or infinity: the original "
      "model's activations are too large here; do without (`mismatch` 0 and `mismatch_stream` 0)",
      name);
}
