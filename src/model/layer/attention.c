#include "model/layer/attention.h"
#include "base/memory.h"
#include "base/threads.h"
#include "kernels/kernels.h"
#include "linalg/gemm.h"
#include "model/layer/rope.h"
#include "model/layer/vector.h"

#include <math.h>
#include <string.h>

/* Prompts: ROWS queries of one head against KEYS cached positions at a time, as matrix products. Fewer
 * queries than FEW_ROWS go one by one. */
enum { ROWS = 32, KEYS = 256, FEW_ROWS = 8, SHARED = 8 /* heads at once */ };

static void normalise_heads(const float *weight, float eps, size_t heads, size_t dim, float *x) {
  if (weight == NULL) return;
  for (size_t h = 0; h < heads; h++)
    GPTVQ_MULTI_PICK(gptvq_rms_norm)(dim, x + h * dim, weight, eps, x + h * dim);
}

static size_t number_bytes(const gptvq_attention_rows *job) {
  return job->half ? sizeof(uint16_t) : sizeof(float);
}

static const gptvq_attention_text *text_of(const gptvq_attention_rows *job, size_t row) {
  const gptvq_attention_text *text = job->texts;
  while (row >= text->first + text->n) text++;
  return text;
}

static void store_row(bool half, size_t dim, const float *x, void *to) {
  if (half) GPTVQ_MULTI_PICK(gptvq_to_half)(dim, x, to);
  else memcpy(to, x, dim * sizeof *x);
}

/* Rows [begin, end): q/k norms, rotation, keys and values to the cache. */
static void prepare_rows(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const gptvq_attention_rows *job = context;
  size_t dim = job->head_dim, half = job->rotary_half, size = number_bytes(job);
  for (size_t row = begin; row < end; row++) {
    float *q = job->qkv + row * job->ldq, *k = q + job->heads * dim, *v = k + job->kv_heads * dim;
    const gptvq_attention_text *text = text_of(job, row);
    size_t position = text->position + row - text->first;
    const bool wide = job->wide_norms;
    normalise_heads(job->q_norm, job->eps, wide ? 1 : job->heads, wide ? job->heads * dim : dim, q);
    normalise_heads(job->k_norm, job->eps, wide ? 1 : job->kv_heads, wide ? job->kv_heads * dim : dim, k);
    const float *cosines = text->cosines + position * half, *sines = text->sines + position * half;
    gptvq_rotate_heads(half, cosines, sines, job->heads + job->kv_heads, dim, q, false);
    for (size_t h = 0; h < job->kv_heads; h++) {
      size_t at = (h * text->max_positions + position) * dim * size;
      store_row(job->half, dim, k + h * dim, text->keys + at);
      store_row(job->half, dim, v + h * dim, text->values + at);
    }
  }
}

static size_t first_visible(const gptvq_attention_rows *job, size_t position) {
  return position + 1 > job->how.window ? position + 1 - job->how.window : 0;
}

/* Positions [begin, end) of a head's keys or values as fp32: in place, or in decoded[(end − begin) × dim].
 */
static const float *tile_numbers(const gptvq_attention_rows *job, const char *head, size_t begin, size_t end,
                                 float *decoded) {
  size_t dim = job->head_dim;
  const void *from = head + begin * dim * number_bytes(job);
  if (!job->half) return from;
  gptvq_to_float(GPTVQ_F16, from, (end - begin) * dim, decoded);
  return decoded;
}

/* Heads [head, head + count) of a row, which share keys and values: these are read once for all. */
static void attend_shared(const gptvq_attention_rows *job, size_t row, size_t head, size_t count) {
  const gptvq_attention_text *text = text_of(job, row);
  size_t dim = job->head_dim, limit = text->position + row - text->first + 1;
  size_t cache = head / (job->heads / job->kv_heads) * text->max_positions * dim * number_bytes(job);
  const float *q = job->qkv + row * job->ldq + head * dim;
  float *out = job->out + (row * job->heads + head) * dim;
  float decoded[2][GPTVQ_ATTEND_KEYS * GPTVQ_HALF_DIM]; /* stays in the first- and second-level caches */
  gptvq_softmax runs[SHARED];
  for (size_t h = 0; h < count; h++) runs[h] = (gptvq_softmax){-INFINITY, 0.0f};
  memset(out, 0, count * dim * sizeof *out);
  for (size_t begin = first_visible(job, limit - 1); begin < limit; begin += GPTVQ_ATTEND_KEYS) {
    size_t end = gptvq_min_size(begin + GPTVQ_ATTEND_KEYS, limit);
    const float *keys = tile_numbers(job, text->keys + cache, begin, end, decoded[0]);
    const float *values = tile_numbers(job, text->values + cache, begin, end, decoded[1]);
    for (size_t h = 0; h < count; h++) GPTVQ_MULTI_PICK(gptvq_attend)
    (end - begin, dim, job->how.scale, job->how.cap, q + h * dim, keys, values, &runs[h], out + h * dim);
  }
  for (size_t h = 0; h < count; h++) {
    float normalise = 1.0f / runs[h].sum;
    for (size_t i = 0; i < dim; i++) out[h * dim + i] *= normalise;
  }
}

/* Items are (row, head). */
static void attend_each(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const gptvq_attention_rows *job = context;
  size_t share = job->heads / job->kv_heads, count;
  for (size_t item = begin; item < end; item += count) {
    count = gptvq_min_size(gptvq_min_size(share - item % share, SHARED), end - item);
    attend_shared(job, item / job->heads, item % job->heads, count);
  }
}

/* Scores of `rows` queries for keys [begin, end): exponentials relative to each row's running maximum;
 * earlier sums are shrunk. */
static void soften_tile(const gptvq_attention_rows *job, size_t row0, size_t rows, size_t begin, size_t end,
                        float *scores, float *maximum, float *sum, float *out, size_t ldo) {
  for (size_t r = 0; r < rows; r++) {
    float *score = scores + r * KEYS;
    size_t position = job->texts->position + row0 + r;
    size_t low = gptvq_max_size(first_visible(job, position), begin) - begin;
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
    size_t cache = head / share * text->max_positions * dim * number_bytes(job);
    for (size_t r = 0; r < rows; r++) {
      maximum[r] = -INFINITY;
      sum[r] = 0.0f;
      memset(out + r * ldo, 0, dim * sizeof(float));
    }
    size_t limit = text->position + row0 + rows;
    for (size_t begin = first_visible(job, text->position + row0); begin < limit; begin += KEYS) {
      size_t end = gptvq_min_size(begin + KEYS, limit);
      const float *keys = tile_numbers(job, text->keys + cache, begin, end, decoded);
      gptvq_gemm_serial_nt(rows, end - begin, dim, job->how.scale, q, job->ldq, keys, dim, 0.0f, scores,
                           KEYS);
      soften_tile(job, row0, rows, begin, end, scores, maximum, sum, out, ldo);
      const float *values = tile_numbers(job, text->values + cache, begin, end, decoded);
      gptvq_gemm_serial_nn(rows, dim, end - begin, 1.0f, scores, KEYS, values, dim, 1.0f, out, ldo);
    }
    for (size_t r = 0; r < rows; r++)
      for (size_t i = 0; i < dim; i++) out[r * ldo + i] /= sum[r];
  }
}

/* Of attend_each: TASK_WORK multiplications or more, since a short context is not worth waking others for;
 * and all heads that share keys, where every thread gets as many of them. No result depends on it. */
static size_t heads_per_task(const gptvq_attention_rows *job) {
  enum { TASK_WORK = 1 << 16 };
  size_t items = job->n * job->heads, share = job->heads / job->kv_heads, longest = 0;
  for (size_t i = 0; i < job->count; i++)
    longest = gptvq_max_size(longest, job->texts[i].position + job->texts[i].n);
  size_t head_work = 2 * gptvq_min_size(longest, job->how.window) * job->head_dim;
  size_t least = gptvq_ceil_div(TASK_WORK, head_work), tasks = gptvq_max_size(items / least, 1);
  size_t heads = gptvq_ceil_div(items, tasks);
  return items / share % gptvq_thread_count() == 0 ? gptvq_round_up(heads, share) : heads;
}

void gptvq_attend_rows(const gptvq_attention_rows *rows) {
  gptvq_attention_rows job = *rows;
  gptvq_parallel_for(job.n, 4, prepare_rows, &job);
  if (job.count > 1 || job.n < FEW_ROWS)
    gptvq_parallel_for(job.n * job.heads, heads_per_task(&job), attend_each, &job);
  else gptvq_parallel_for(gptvq_ceil_div(job.n, ROWS) * job.heads, 1, attend_tiles, &job);
}
