/* Stored codebooks, decoding in processing order, loss of a layer. */
#include "base/memory.h"
#include "base/threads.h"
#include "linalg/rows_product.h"
#include "quant/layer/layer.h"
#include "quant/layer/lookup.h"

#include <string.h>

void gptvq_vq_store_codebook(gptvq_vq *q, size_t tile, const float *centroids) {
  size_t n = q->k * q->dim;
  unsigned bits = q->shape.codebook_bits;
  void *codes = (char *)q->codes + tile * n * (bits / 8);
  if (q->step_bits > 0) gptvq_round_trellis_tables(centroids, codes, &q->codebook_scales[tile]);
  else gptvq_round_codebook(centroids, n, bits, codes, &q->codebook_scales[tile]);
  gptvq_expand_codebook(codes, n, bits, q->codebook_scales[tile], q->centroids + tile * n);
  if (q->step_bits > 0) gptvq_trellis_expand(q, tile);
}

static size_t stripe_values(const gptvq_vq *q) { return q->groups * q->k * q->dim; }
static size_t code_bytes(const gptvq_vq *q) { return stripe_values(q) * (q->shape.codebook_bits / 8); }

void gptvq_saved_codebooks_take(gptvq_arena *arena, const gptvq_vq *q, size_t stripes,
                                gptvq_saved_codebooks *out) {
  out->centroids = gptvq_arena_take(arena, stripes, stripe_values(q) * sizeof *out->centroids);
  out->codes = gptvq_arena_take(arena, stripes, code_bytes(q));
  out->scales = gptvq_arena_take(arena, stripes, q->groups * sizeof *out->scales);
}

void gptvq_vq_save_codebooks(const gptvq_vq *q, size_t stripe, const gptvq_saved_codebooks *to,
                             size_t place) {
  const size_t n = stripe_values(q), bytes = code_bytes(q), groups = q->groups;
  memcpy(to->centroids + place * n, q->centroids + stripe * n, n * sizeof *q->centroids);
  memcpy(to->codes + place * bytes, (const char *)q->codes + stripe * bytes, bytes);
  memcpy(to->scales + place * groups, q->codebook_scales + stripe * groups, groups * sizeof *to->scales);
}

void gptvq_vq_restore_codebooks(gptvq_vq *q, size_t stripe, const gptvq_saved_codebooks *from, size_t place) {
  const size_t n = stripe_values(q), bytes = code_bytes(q), groups = q->groups;
  memcpy(q->centroids + stripe * n, from->centroids + place * n, n * sizeof *q->centroids);
  memcpy((char *)q->codes + stripe * bytes, from->codes + place * bytes, bytes);
  memcpy(q->codebook_scales + stripe * groups, from->scales + place * groups, groups * sizeof *from->scales);
}

typedef struct decode_job {
  const gptvq_vq *q;
  const float *centroids;
  float *out;
} decode_job;

static void decode_paths(const gptvq_vq *q, size_t begin, size_t end, float *out) {
  for (size_t row = begin; row < end; row++, out += q->padded) {
    const uint16_t *state = q->index + row * q->blocks;
    for (size_t g = 0; g < q->groups; g++) {
      const float *values = gptvq_vq_state_values(q, g), scale = gptvq_vq_scale(q, row, q->group[g].start);
      for (size_t c = q->group[g].start; c < q->group[g].start + q->group[g].width; c++)
        out[c] = values[state[c]] * scale;
    }
  }
}

void gptvq_vq_decode_rows(const gptvq_vq *q, const float *centroids, size_t begin, size_t end, float *out) {
  size_t d = q->dim;
  if (q->step_bits > 0) {
    decode_paths(q, begin, end, out);
    return;
  }
  for (size_t row = begin; row < end; row++, out += q->padded) {
    const float *books = centroids + row / q->shape.group_rows * q->groups * q->k * d;
    for (size_t g = 0; g < q->groups; g++, books += q->k * d)
      for (size_t b = q->group[g].start / d; b < (q->group[g].start + q->group[g].width) / d; b++) {
        float scale = gptvq_vq_scale(q, row, b);
        const float *c = books + q->index[row * q->blocks + b] * d;
        for (size_t i = 0; i < d; i++) out[b * d + i] = c[i] * scale;
      }
  }
}

static void decode_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const decode_job *j = context;
  gptvq_vq_decode_rows(j->q, j->centroids, begin, end, j->out + begin * j->q->padded);
}

void gptvq_vq_decode(const gptvq_vq *q, const float *centroids, float *out) {
  decode_job job = {q, centroids, out};
  gptvq_parallel_for(q->rows, 8, decode_rows, &job);
}

/* y = x (H + ridge), rows × padded each */
typedef struct ridge_job {
  const gptvq_factor *f;
  const float *x;
  float *y;
} ridge_job;

static void add_ridge(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const ridge_job *j = context;
  size_t n = j->f->padded;
  for (size_t row = begin; row < end; row++)
    for (size_t c = 0; c < n; c++)
      j->y[row * n + c] += (float)gptvq_factor_ridge(j->f, c) * j->x[row * n + c];
}

gptvq_status gptvq_vq_times_hessian(const gptvq_vq *q, size_t rows, const float *x, float *y,
                                    gptvq_error *err) {
  (void)err;
  size_t n = q->padded;
  if (q->factor == NULL) {
    memcpy(y, x, rows * n * sizeof *y);
    return GPTVQ_OK;
  }
  gptvq_rows_product(false, rows, n, n, x, n, q->factor->h, n, y, n);
  ridge_job job = {q->factor, x, y};
  gptvq_parallel_for(rows, 8, add_ridge, &job);
  return GPTVQ_OK;
}

typedef struct loss_job {
  gptvq_vq *q;
  double *rows;
} loss_job;

static void subtract_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const loss_job *j = context;
  size_t n = j->q->padded;
  for (size_t i = begin * n; i < end * n; i++) j->q->work[i] = j->q->target[i] - j->q->work[i];
}

static void dot_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const loss_job *j = context;
  size_t n = j->q->padded;
  for (size_t row = begin; row < end; row++) {
    double sum = 0.0;
    for (size_t i = row * n; i < (row + 1) * n; i++) sum += (double)j->q->work[i] * (double)j->q->error[i];
    j->rows[row] = sum;
  }
}

gptvq_status gptvq_vq_gradient(gptvq_vq *q, gptvq_error *err) {
  if (q->has_gradient) return GPTVQ_OK;
  gptvq_vq_decode(q, q->centroids, q->work);
  loss_job job = {q, NULL};
  gptvq_parallel_for(q->rows, 8, subtract_rows, &job);
  gptvq_stage_count(q->stages, GPTVQ_IN_FP32, 2.0 * (double)(q->rows * q->padded * q->padded));
  GPTVQ_TRY(q->backend->times_hessian(q, q->rows, q->work, q->error, err));
  q->has_gradient = true;
  return GPTVQ_OK;
}

void gptvq_vq_follow(const gptvq_vq *q, size_t row, gptvq_span columns, const float *change) {
  const size_t n = q->padded;
  float *work = q->work + row * n, *error = q->error + row * n;
  size_t together =
      q->dim; /* columns that one pass over the row makes up for; of a trellis more move at once */
  if (q->step_bits > 0) together = 4;
  for (size_t c = columns.begin; c < columns.end; c += together, change += together) {
    const size_t count = gptvq_min_size(together, columns.end - c);
    bool any = false;
    for (size_t i = 0; i < count; i++) {
      any = any || change[i] != 0.0f;
      work[c + i] -= change[i];
      error[c + i] -= (float)gptvq_factor_ridge(q->factor, c + i) * change[i];
    }
    if (any) GPTVQ_MULTI_PICK(gptvq_feedback)
    ((unsigned)count, n, change, q->factor->h + c * n, n, error, error);
  }
}

gptvq_status gptvq_vq_loss(gptvq_vq *q, double *row_loss, double *loss, gptvq_error *err) {
  GPTVQ_TRY(gptvq_vq_gradient(q, err));
  loss_job job = {q, row_loss};
  gptvq_parallel_for(q->rows, 8, dot_rows, &job);
  if (loss == NULL) return GPTVQ_OK;
  for (size_t unit = 0; unit < q->units; unit++) {
    const size_t first = unit * q->unit_rows;
    q->unit_values[unit] = 0.0;
    for (size_t row = first; row < gptvq_min_size(q->rows, first + q->unit_rows); row++)
      q->unit_values[unit] += row_loss[row];
  }
  return gptvq_vq_total(q, q->unit_values, loss, err);
}
