#include "model/layer/attend.h"
#include "base/memory.h"
#include "base/threads.h"
#include "linalg/gemm.h"
#include "model/layer/rope.h"
#include "model/layer/vector.h"

#include <math.h>
#include <string.h>

/* Prompts: ROWS queries of one head against KEYS cached positions at a time, as matrix products. */
enum { ROWS = 32, KEYS = 256 };

static void normalise_heads(const gptvq_attention_rows *job, const float *gain, size_t heads, float *x) {
  const size_t norms = job->how.wide_norms ? 1 : heads, size = heads * job->head_dim / norms;
  for (size_t i = 0; gain != NULL && i < norms; i++)
    GPTVQ_MULTI_PICK(gptvq_rms_norm)(size, x + i * size, gain, job->eps, x + i * size);
}

static void store_row(bool half, size_t dim, const float *x, void *to) {
  if (half) GPTVQ_MULTI_PICK(gptvq_to_half)(dim, x, to);
  else memcpy(to, x, dim * sizeof *x);
}

/* Rows [begin, end): q/k norms, rotation, keys and values to the cache. */
static void prepare_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const gptvq_attention_rows *job = context;
  size_t dim = job->head_dim, half = job->rotary_half, size = gptvq_attend_number_bytes(job);
  for (size_t row = begin; row < end; row++) {
    float *q = job->qkv + row * job->ldq, *k = q + job->heads * dim, *v = k + job->kv_heads * dim;
    const gptvq_attention_text *text = gptvq_attend_text(job, row);
    size_t position = text->position + row - text->first;
    normalise_heads(job, job->q_norm, job->heads, q);
    normalise_heads(job, job->k_norm, job->kv_heads, k);
    if (half > 0)
      gptvq_rotate_heads(half, job->how.neighbours, text->cosines + position * half,
                         text->sines + position * half, job->heads + job->kv_heads, dim, q, false);
    const float scale = gptvq_query_scale(&job->how, position);
    for (size_t i = 0; scale != 1.0f && i < job->heads * dim; i++) q[i] *= scale;
    for (size_t h = 0; h < job->kv_heads; h++) {
      size_t at = (h * text->max_positions + position) * dim * size;
      store_row(job->half, dim, k + h * dim, text->keys + at);
      if (text->values != NULL) store_row(job->half, dim, v + h * dim, text->values + at);
    }
  }
}

/* Scores of `rows` queries for keys [begin, end): exponentials relative to each row's running maximum;
 * earlier sums are shrunk. */
static void soften_tile(const gptvq_attention_rows *job, size_t row0, size_t rows, size_t begin, size_t end,
                        float *scores, float *maximum, float *sum, float *out, size_t ldo) {
  for (size_t r = 0; r < rows; r++) {
    float *score = scores + r * KEYS;
    size_t position = job->texts->position + row0 + r;
    size_t low = gptvq_max_size(gptvq_attend_first(job, position), begin) - begin;
    size_t high = gptvq_min_size(position + 1, end);
    high = high > begin ? high - begin : 0;
    if (low >= high) { /* this row sees none of the tile */
      memset(score, 0, (end - begin) * sizeof(float));
      continue;
    }
    memset(score, 0, low * sizeof(float));
    memset(score + high, 0, (end - begin - high) * sizeof(float));
    if (job->how.cap > 0.0f) GPTVQ_MULTI_PICK(gptvq_soft_cap)(high - low, job->how.cap, score + low);
    float top = GPTVQ_MULTI_PICK(gptvq_max)(high - low, score + low);
    if (top > maximum[r]) {
      float shrink = expf(maximum[r] - top);
      sum[r] *= shrink;
      for (size_t i = 0; i < job->head_dim; i++) out[r * ldo + i] *= shrink;
      maximum[r] = top;
    }
    sum[r] += GPTVQ_MULTI_PICK(gptvq_exp_sum)(high - low, maximum[r], score + low);
  }
}

/* Items are (chunk of rows, head) of the only text, the longest chunks first. */
static void attend_tiles(void *context, size_t first, size_t last, size_t thread) {
  (void)thread;
  const gptvq_attention_rows *job = context;
  const gptvq_attention_text *text = job->texts;
  size_t dim = job->head_dim, share = job->heads / job->kv_heads, ldo = job->heads * dim;
  size_t chunks = gptvq_ceil_div(job->n, ROWS);
  float scores[ROWS * KEYS], maximum[ROWS], sum[ROWS], decoded[KEYS * GPTVQ_HALF_DIM];
  for (size_t item = first; item < last; item++) {
    size_t row0 = (chunks - 1 - item / job->heads) * ROWS, head = item % job->heads;
    size_t rows = gptvq_min_size(ROWS, job->n - row0);
    const float *q = job->qkv + row0 * job->ldq + head * dim;
    float *out = job->out + row0 * ldo + head * dim;
    const gptvq_softmax start = gptvq_attend_start(job, head);
    for (size_t r = 0; r < rows; r++) {
      maximum[r] = start.maximum;
      sum[r] = start.sum;
      memset(out + r * ldo, 0, dim * sizeof(float));
    }
    size_t limit = text->position + row0 + rows;
    for (size_t begin = gptvq_attend_first(job, text->position + row0); begin < limit; begin += KEYS) {
      size_t end = gptvq_min_size(begin + KEYS, limit);
      const float *keys = gptvq_attend_numbers(job, text, text->keys, head / share, begin, end, decoded);
      gptvq_gemm_serial_nt(rows, end - begin, dim, job->how.scale, q, job->ldq, keys, dim, 0.0f, scores,
                           KEYS);
      soften_tile(job, row0, rows, begin, end, scores, maximum, sum, out, ldo);
      const float *values =
          gptvq_attend_numbers(job, text, gptvq_attend_values_of(text), head / share, begin, end, decoded);
      gptvq_gemm_serial_nn(rows, dim, end - begin, 1.0f, scores, KEYS, values, dim, 1.0f, out, ldo);
    }
    for (size_t r = 0; r < rows; r++)
      for (size_t i = 0; i < dim; i++) out[r * ldo + i] /= sum[r];
  }
}

static void attend_many(gptvq_attention_rows *job) {
  if (job->rounds && gptvq_attends_bf16(job)) gptvq_attend_bf16(job);
  else gptvq_parallel_for(gptvq_ceil_div(job->n, ROWS) * job->heads, 1, attend_tiles, job);
}

/* Prompts, one after the other, as each goes by itself. */
static void attend_each(const gptvq_attention_rows *rows) {
  for (size_t i = 0; i < rows->count; i++) {
    gptvq_attention_text text = rows->texts[i];
    gptvq_attention_rows job = *rows;
    job.texts = &text;
    job.count = 1;
    job.n = text.n;
    job.qkv += text.first * job.ldq;
    job.out += text.first * job.heads * job.head_dim;
    text.first = 0;
    attend_many(&job);
  }
}

void gptvq_attend_rows(const gptvq_attention_rows *rows) {
  gptvq_attention_rows job = *rows;
  size_t values = (job.heads + 2 * job.kv_heads) * job.head_dim;
  gptvq_parallel_for(job.n, gptvq_rows_per_task(values), prepare_rows, &job);
  if (job.count > 1 && job.texts->n > GPTVQ_ATTENTION_FEW) attend_each(&job);
  else if (job.count > 1 || job.n <= GPTVQ_ATTENTION_FEW) gptvq_attend_few(&job);
  else attend_many(&job);
}
