#include "base/memory.h"
#include "base/threads.h"
#include "linalg/gemm.h"
#include "model/vector.h"
#include "model/workspace.h"

#include <math.h>
#include <string.h>

/* Prompts: ROWS queries of one head against KEYS cached positions at a time, as matrix products. Fewer
 * queries than FEW_ROWS go one by one. */
enum { ROWS = 32, KEYS = 256, FEW_ROWS = 8 };

typedef struct attention_job {
  const gptvq_config *config;
  const gptvq_block *block;
  gptvq_workspace *workspace;
  char *keys, *values; /* of this layer: fp16 or fp32 */
  size_t size;         /* bytes of a number there */
  size_t position, n, ldq;
  size_t cache_step; /* bytes from one row's cache to the next one's: 0, or rows are the tokens at `position`
                        of as many sequences */
  float *qkv;
  size_t window; /* keys that a query sees, itself included; SIZE_MAX = all */
} attention_job;

static void normalise_heads(const float *weight, float eps, size_t heads, size_t dim, float *x) {
  if (weight == NULL) return;
  for (size_t h = 0; h < heads; h++)
    GPTVQ_MULTI_PICK(gptvq_rms_norm)(dim, x + h * dim, weight, eps, x + h * dim);
}

static void rotate_heads(const gptvq_workspace *w, size_t position, size_t heads, size_t dim, float *x) {
  const float *cosines = w->cosines + position * w->rotary_half,
              *sines = w->sines + position * w->rotary_half;
  for (size_t h = 0; h < heads; h++)
    GPTVQ_MULTI_PICK(gptvq_rotate)(w->rotary_half, cosines, sines, x + h * dim);
}

static size_t position_of(const attention_job *job, size_t row) {
  return job->position + (job->cache_step == 0 ? row : 0);
}

static void store_row(bool half, size_t dim, const float *x, void *to) {
  if (half) GPTVQ_MULTI_PICK(gptvq_to_half)(dim, x, to);
  else memcpy(to, x, dim * sizeof *x);
}

/* Rows [begin, end): q/k norms, rotation, keys and values to the cache. */
static void prepare_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const attention_job *job = context;
  const gptvq_config *c = job->config;
  const gptvq_workspace *w = job->workspace;
  size_t dim = c->head_dim;
  for (size_t row = begin; row < end; row++) {
    float *q = job->qkv + row * job->ldq, *k = q + c->heads * dim, *v = k + c->kv_heads * dim;
    size_t position = position_of(job, row);
    normalise_heads(job->block->norms[GPTVQ_NORM_Q], (float)c->rms_norm_eps, c->heads, dim, q);
    normalise_heads(job->block->norms[GPTVQ_NORM_K], (float)c->rms_norm_eps, c->kv_heads, dim, k);
    rotate_heads(w, position, c->heads, dim, q);
    rotate_heads(w, position, c->kv_heads, dim, k);
    for (size_t h = 0; h < c->kv_heads; h++) {
      size_t at = row * job->cache_step + (h * w->max_positions + position) * dim * job->size;
      store_row(w->half, dim, k + h * dim, job->keys + at);
      store_row(w->half, dim, v + h * dim, job->values + at);
    }
  }
}

static size_t first_visible(const attention_job *job, size_t position) {
  return position + 1 > job->window ? position + 1 - job->window : 0;
}

/* Items are (row, head). */
static void attend_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const attention_job *job = context;
  const gptvq_config *c = job->config;
  size_t dim = c->head_dim, share = c->heads / c->kv_heads;
  for (size_t item = begin; item < end; item++) {
    size_t row = item / c->heads, head = item % c->heads, position = position_of(job, row);
    size_t first = first_visible(job, position);
    size_t at =
        row * job->cache_step + (head / share * job->workspace->max_positions + first) * dim * job->size;
    const void *keys = job->keys + at, *values = job->values + at;
    const float *q = job->qkv + row * job->ldq + head * dim;
    float *out = job->workspace->heads + (row * c->heads + head) * dim, scale = 1.0f / sqrtf((float)dim);
    if (job->workspace->half)
      GPTVQ_MULTI_PICK(gptvq_attend_half)(position + 1 - first, dim, scale, q, keys, values, out);
    else GPTVQ_MULTI_PICK(gptvq_attend)(position + 1 - first, dim, scale, q, keys, values, out);
  }
}

/* Scores of `rows` queries for keys [begin, end): exponentials relative to each row's running maximum;
 * earlier sums are shrunk. */
static void soften_tile(const attention_job *job, size_t row0, size_t rows, size_t begin, size_t end,
                        float *scores, float *maximum, float *sum, float *out, size_t ldo) {
  for (size_t r = 0; r < rows; r++) {
    float *score = scores + r * KEYS;
    size_t position = job->position + row0 + r;
    size_t low = gptvq_max_size(first_visible(job, position), begin) - begin;
    size_t high = gptvq_min_size(position + 1, end);
    high = high > begin ? high - begin : 0;
    if (low >= high) { /* this row sees none of the tile */
      memset(score, 0, (end - begin) * sizeof(float));
      continue;
    }
    memset(score, 0, low * sizeof(float));
    memset(score + high, 0, (end - begin - high) * sizeof(float));
    float top = GPTVQ_MULTI_PICK(gptvq_max)(high - low, score + low);
    if (top > maximum[r]) {
      float shrink = expf(maximum[r] - top);
      sum[r] *= shrink;
      for (size_t i = 0; i < job->config->head_dim; i++) out[r * ldo + i] *= shrink;
      maximum[r] = top;
    }
    sum[r] += GPTVQ_MULTI_PICK(gptvq_exp_sum)(high - low, maximum[r], score + low);
  }
}

/* Positions [begin, end) of a head's keys or values as fp32: in place, or in decoded[KEYS × GPTVQ_HALF_DIM].
 */
static const float *tile_numbers(const attention_job *job, const char *head, size_t begin, size_t end,
                                 float *decoded) {
  size_t dim = job->config->head_dim;
  const void *from = head + begin * dim * job->size;
  if (!job->workspace->half) return from;
  GPTVQ_MULTI_PICK(gptvq_from_half)((end - begin) * dim, from, decoded);
  return decoded;
}

/* Items are (chunk of rows, head), the longest chunks first. */
static void attend_tiles(void *context, size_t first, size_t last, size_t thread) {
  (void)thread;
  const attention_job *job = context;
  const gptvq_config *c = job->config;
  size_t dim = c->head_dim, share = c->heads / c->kv_heads, ldo = c->heads * dim;
  size_t chunks = gptvq_ceil_div(job->n, ROWS);
  float scores[ROWS * KEYS], maximum[ROWS], sum[ROWS], decoded[KEYS * GPTVQ_HALF_DIM];
  for (size_t item = first; item < last; item++) {
    size_t row0 = (chunks - 1 - item / c->heads) * ROWS, head = item % c->heads;
    size_t rows = gptvq_min_size(ROWS, job->n - row0);
    const float *q = job->qkv + row0 * job->ldq + head * dim;
    float *out = job->workspace->heads + row0 * ldo + head * dim;
    size_t cache = head / share * job->workspace->max_positions * dim * job->size;
    for (size_t r = 0; r < rows; r++) {
      maximum[r] = -INFINITY;
      sum[r] = 0.0f;
      memset(out + r * ldo, 0, dim * sizeof(float));
    }
    size_t limit = job->position + row0 + rows;
    for (size_t begin = first_visible(job, job->position + row0); begin < limit; begin += KEYS) {
      size_t end = gptvq_min_size(begin + KEYS, limit);
      const float *keys = tile_numbers(job, job->keys + cache, begin, end, decoded);
      gptvq_gemm_serial_nt(rows, end - begin, dim, 1.0f / sqrtf((float)dim), q, job->ldq, keys, dim, 0.0f,
                           scores, KEYS);
      soften_tile(job, row0, rows, begin, end, scores, maximum, sum, out, ldo);
      const float *values = tile_numbers(job, job->values + cache, begin, end, decoded);
      gptvq_gemm_serial_nn(rows, dim, end - begin, 1.0f, scores, KEYS, values, dim, 1.0f, out, ldo);
    }
    for (size_t r = 0; r < rows; r++)
      for (size_t i = 0; i < dim; i++) out[r * ldo + i] /= sum[r];
  }
}

static attention_job make_job(const gptvq_model *model, const gptvq_block *block, gptvq_workspace *workspace,
                              size_t slot, size_t position, size_t n, float *qkv, size_t ldq) {
  const gptvq_config *c = &model->config;
  size_t size = workspace->half ? sizeof(uint16_t) : sizeof(float);
  size_t cache = slot * c->kv_heads * workspace->max_positions * c->head_dim * size;
  return (attention_job){.config = c,
                         .block = block,
                         .workspace = workspace,
                         .keys = (char *)workspace->keys + cache,
                         .values = (char *)workspace->values + cache,
                         .size = size,
                         .position = position,
                         .n = n,
                         .ldq = ldq,
                         .qkv = qkv,
                         .window = block->slides && c->sliding_window != 0 ? c->sliding_window : SIZE_MAX};
}

void gptvq_attention_core(const gptvq_model *model, const gptvq_block *block, gptvq_workspace *workspace,
                          size_t layer, size_t position, size_t n, float *qkv, size_t ldq) {
  attention_job job = make_job(model, block, workspace, layer, position, n, qkv, ldq);
  gptvq_parallel_for(n, 4, prepare_rows, &job);
  if (n < FEW_ROWS) gptvq_parallel_for(n * model->config.heads, 1, attend_rows, &job);
  else gptvq_parallel_for(gptvq_ceil_div(n, ROWS) * model->config.heads, 1, attend_tiles, &job);
}

void gptvq_attention_step(const gptvq_model *model, const gptvq_block *block, gptvq_workspace *workspace,
                          size_t layer, size_t position, size_t sequences, float *qkv, size_t ldq) {
  attention_job job = make_job(model, block, workspace, layer * sequences, position, sequences, qkv, ldq);
  job.cache_step = model->config.kv_heads * workspace->max_positions * model->config.head_dim * job.size;
  gptvq_parallel_for(sequences, 4, prepare_rows, &job);
  gptvq_parallel_for(sequences * model->config.heads, 1, attend_rows, &job);
}
