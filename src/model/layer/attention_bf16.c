/* Attention of many rows of one text with products in bf16, sums and softmax in fp32. The rows of a chunk of
 * tokens lie one below the other for all query heads that share a key head: it meets them as one matrix. */
#include "base/memory.h"
#include "base/threads.h"
#include "linalg/gemm_bf16.h"
#include "model/layer/attend.h"
#include "model/layer/x86/soften.h"

#include <string.h>

/* STACK: heads that are stacked at most; ROWS: rows of a chunk, about that many; KEYS: that they meet at a
 * time, a multiple of the kernel's columns. Scores, keys and values stay in the second-level cache. */
enum {
  STACK = 8,
  ROWS = 192,
  LEAST_TOKENS = 32,
  MOST_TOKENS = 128,
  MOST_ROWS = 256,
  KEYS = 192,
  DIM = GPTVQ_ATTENTION_BF16_DIM
};

typedef struct chunks {
  const gptvq_attention_rows *rows;
  size_t tokens, count; /* of a chunk; chunks */
} chunks;

/* One chunk at work: rows `head · tokens + token` of some heads. */
typedef struct chunk {
  size_t token, tokens, head, heads; /* the first, and how many */
  uint16_t queries[MOST_ROWS * DIM]; /* [rows × dim], scaled */
  float out[MOST_ROWS * DIM];        /* [rows × dim] */
  gptvq_softmax run[MOST_ROWS];
  float scores[MOST_ROWS * KEYS]; /* [rows × KEYS]; as weights in bf16 in the first half of each row */
  uint16_t numbers[KEYS * DIM];   /* keys, values */
} chunk;

static void take_queries(const gptvq_attention_rows *job, chunk *c) {
  const size_t dim = job->head_dim;
  float scaled[DIM];
  for (size_t h = 0; h < c->heads; h++)
    for (size_t t = 0; t < c->tokens; t++) {
      const float *q = job->qkv + (c->token + t) * job->ldq + (c->head + h) * dim;
      const size_t row = h * c->tokens + t;
      for (size_t i = 0; i < dim; i++) scaled[i] = q[i] * job->how.scale;
      gptvq_to_bf16(dim, scaled, c->queries + row * dim);
      c->run[row] = gptvq_attend_start(job, c->head + h);
    }
  memset(c->out, 0, c->heads * c->tokens * dim * sizeof *c->out);
}

static void round_numbers(const gptvq_attention_rows *job, const char *cache, size_t kv_head, size_t begin,
                          size_t end, uint16_t *out) {
  const size_t dim = job->head_dim;
  const float *from =
      (const float *)(const void *)cache + (kv_head * job->texts->max_positions + begin) * dim;
  gptvq_to_bf16((end - begin) * dim, from, out);
}

#if defined(__x86_64__)
static void soften_row(const gptvq_attention_rows *job, size_t count, float *scores, gptvq_softmax *run,
                       float *out, uint16_t *weights) {
  if (job->how.cap > 0.0f) GPTVQ_MULTI_PICK(gptvq_soft_cap)(count, job->how.cap, scores);
  gptvq_soften_bf16_avx512(count, scores, run, job->head_dim, out, weights);
}
#else
static void soften_row(const gptvq_attention_rows *job, size_t count, float *scores, gptvq_softmax *run,
                       float *out, uint16_t *weights) {
  GPTVQ_MULTI_PICK(gptvq_attend_soften)(count, job->how.cap, scores, run, job->head_dim, out);
  gptvq_to_bf16(count, scores, weights);
}
#endif

/* Scores of keys [begin, end) become weights; what a row does not see weighs nothing. */
static void soften(const gptvq_attention_rows *job, chunk *c, size_t begin, size_t end) {
  for (size_t row = 0; row < c->heads * c->tokens; row++) {
    float *scores = c->scores + row * KEYS;
    uint16_t *weights = (uint16_t *)(void *)scores;
    const size_t position = job->texts->position + c->token + row % c->tokens;
    const size_t low = gptvq_max_size(gptvq_attend_first(job, position), begin) - begin;
    size_t high = gptvq_min_size(position + 1, end);
    high = high > begin + low ? high - begin : 0;
    if (high == 0) {
      memset(weights, 0, (end - begin) * sizeof *weights);
      continue;
    }
    soften_row(job, high - low, scores + low, &c->run[row], c->out + row * job->head_dim, weights + low);
    memset(weights, 0, low * sizeof *weights);
    memset(weights + high, 0, (end - begin - high) * sizeof *weights);
  }
}

static void attend_chunk(const gptvq_attention_rows *job, size_t kv_head, chunk *c) {
  const gptvq_attention_text *text = job->texts;
  const size_t dim = job->head_dim, rows = c->heads * c->tokens, ldo = job->heads * dim;
  const size_t limit = text->position + c->token + c->tokens;
  take_queries(job, c);
  for (size_t begin = gptvq_attend_first(job, text->position + c->token), end; begin < limit; begin = end) {
    end = gptvq_min_size(begin + KEYS, limit);
    round_numbers(job, text->keys, kv_head, begin, end, c->numbers);
    gptvq_gemm_bf16_nt(rows, end - begin, dim, c->queries, dim, c->numbers, dim, c->scores, KEYS);
    soften(job, c, begin, end);
    round_numbers(job, text->values, kv_head, begin, end, c->numbers);
    gptvq_gemm_bf16_nn(rows, dim, end - begin, (const uint16_t *)(const void *)c->scores, 2 * KEYS,
                       c->numbers, dim, c->out, dim);
  }
  for (size_t row = 0; row < rows; row++) {
    float *out = job->out + (c->token + row % c->tokens) * ldo + (c->head + row / c->tokens) * dim;
    for (size_t i = 0; i < dim; i++) out[i] = c->out[row * dim + i] / c->run[row].sum;
  }
}

/* Items are (chunk of tokens, key head), the longest chunks first. */
static void attend_chunks(void *context, size_t first, size_t last, size_t thread) {
  (void)thread;
  static _Thread_local chunk work;
  const chunks *job = context;
  const gptvq_attention_rows *rows = job->rows;
  const size_t share = rows->heads / rows->kv_heads;
  for (size_t item = first; item < last; item++) {
    const size_t kv_head = item % rows->kv_heads;
    work.token = (job->count - 1 - item / rows->kv_heads) * job->tokens;
    work.tokens = gptvq_min_size(job->tokens, rows->n - work.token);
    for (size_t h = 0; h < share; h += STACK) {
      work.head = kv_head * share + h;
      work.heads = gptvq_min_size(STACK, share - h);
      attend_chunk(rows, kv_head, &work);
    }
  }
}

bool gptvq_attends_bf16(const gptvq_attention_rows *rows) {
  return !rows->half && rows->head_dim <= DIM && gptvq_gemm_bf16_available();
}

void gptvq_attend_bf16(const gptvq_attention_rows *rows) {
  chunks job = {.rows = rows};
  job.tokens = ROWS / gptvq_min_size(STACK, rows->heads / rows->kv_heads) / 16 * 16;
  job.tokens = gptvq_max_size(LEAST_TOKENS, gptvq_min_size(MOST_TOKENS, job.tokens));
  job.count = gptvq_ceil_div(rows->n, job.tokens);
  gptvq_parallel_for(job.count * rows->kv_heads, 1, attend_chunks, &job);
}
