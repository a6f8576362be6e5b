/* Attention of few tokens: queries that share keys and values read them once, and threads share a long
 * context. */
#include "base/memory.h"
#include "base/threads.h"
#include "model/layer/attend.h"
#include "model/layer/vector.h"

#include <math.h>
#include <string.h>

/* PART positions make up one task's share of a context. A query's running maximum is looked at after TILE
 * keys; STRIP of them are fp32 at a time, in the first-level cache. TASK_WORK multiplications or more make a
 * task: a short context is not worth waking others for. */
enum { PART = 512, TILE = 64, STRIP = 16, QUERIES = 32 /* at once */, TASK_WORK = 1 << 17 };

typedef struct few {
  const gptvq_attention_rows *rows;
  size_t most_parts; /* of a text */
  size_t queries;    /* of a task, at most */
} few;

/* Some of the queries of a text that share a kv head (the heads of a row follow each other), and positions
 * [begin, end) of its context. */
typedef struct task {
  const few *job;
  const gptvq_attention_text *text;
  size_t kv_head, count, begin, end;
  const float *q[QUERIES];
  float *out[QUERIES];
  gptvq_softmax run[QUERIES];
  size_t low[QUERIES], high[QUERIES]; /* the keys among [begin, end) that it sees */
  float scores[QUERIES][TILE];
} task;

static size_t parts_of(const gptvq_attention_text *text) {
  return gptvq_ceil_div(text->position + text->n, PART);
}

static size_t longest_parts(const gptvq_attention_rows *rows) {
  size_t most = 1;
  for (size_t i = 0; i < rows->count; i++) most = gptvq_max_size(most, parts_of(&rows->texts[i]));
  return most;
}

/* What a query keeps of a part: dim sums, then its softmax. */
static size_t part_floats(size_t dim) { return gptvq_round_up(dim + 2, 16); }

size_t gptvq_attention_part_bytes(size_t queries, size_t dim, size_t positions) {
  size_t parts = gptvq_ceil_div(positions, PART), bytes;
  if (parts <= 1) return 0;
  return gptvq_mul(parts, queries, &bytes) && gptvq_mul(bytes, part_floats(dim) * sizeof(float), &bytes)
             ? bytes
             : SIZE_MAX;
}

static float *part_sums(const few *job, size_t row, size_t head, size_t part) {
  const gptvq_attention_rows *rows = job->rows;
  return rows->parts + ((row * rows->heads + head) * job->most_parts + part) * part_floats(rows->head_dim);
}

static float *result_of(const few *job, size_t row, size_t head) {
  return job->rows->out + (row * job->rows->heads + head) * job->rows->head_dim;
}

/* Query i of the task is query `number` of those that share its kv head. */
static void set_query(task *t, size_t i, size_t number, size_t part) {
  const gptvq_attention_rows *rows = t->job->rows;
  size_t share = rows->heads / rows->kv_heads, row = t->text->first + number / share;
  size_t head = t->kv_head * share + number % share, position = t->text->position + number / share;
  t->q[i] = rows->qkv + row * rows->ldq + head * rows->head_dim;
  t->out[i] = t->job->most_parts > 1 ? part_sums(t->job, row, head, part) : result_of(t->job, row, head);
  t->run[i] = part == 0 ? gptvq_attend_start(rows, head) : (gptvq_softmax){-INFINITY, 0.0f};
  t->low[i] = gptvq_max_size(gptvq_attend_first(rows, position), t->begin);
  t->high[i] = gptvq_min_size(position + 1, t->end);
  memset(t->out[i], 0, rows->head_dim * sizeof(float));
}

/* Keys or values on their way to the first-level cache: a context is not read often enough to be in any
 * other, and what is read next lies elsewhere than what was read before. As a function that is not inlined it
 * would have no effect that compilers see. */
static inline __attribute__((always_inline)) void fetch(const task *t, const char *cache, size_t begin,
                                                        size_t end) {
  enum { LINE = 64 };
  const gptvq_attention_rows *rows = t->job->rows;
  const size_t size = rows->head_dim * gptvq_attend_number_bytes(rows);
  if (begin >= t->end) return;
  const char *at = cache + (t->kv_head * t->text->max_positions + begin) * size,
             *last = at + (gptvq_min_size(end, t->end) - begin) * size;
  for (; at < last; at += LINE) __builtin_prefetch(at);
}

/* Meanwhile the values of these keys are fetched. */
static void score_strip(task *t, size_t tile, size_t begin, size_t end) {
  const gptvq_attention_rows *rows = t->job->rows;
  float decoded[STRIP * GPTVQ_HALF_DIM];
  fetch(t, gptvq_attend_values_of(t->text), begin, end);
  const float *keys = gptvq_attend_numbers(rows, t->text, t->text->keys, t->kv_head, begin, end, decoded);
  const float *q[QUERIES];
  float *scores[QUERIES];
  size_t count = 0;
  for (size_t i = 0; i < t->count; i++) {
    if (t->low[i] >= end || t->high[i] <= begin) continue;
    q[count] = t->q[i];
    scores[count++] = t->scores[i] + (begin - tile);
  }
  GPTVQ_MULTI_PICK(gptvq_attend_scores)(count, end - begin, rows->head_dim, rows->how.scale, q, keys, scores);
}

/* Meanwhile the keys of the next tile are fetched. */
static void add_strip(task *t, size_t tile, size_t begin, size_t end) {
  const gptvq_attention_rows *rows = t->job->rows;
  size_t dim = rows->head_dim;
  float decoded[STRIP * GPTVQ_HALF_DIM];
  fetch(t, t->text->keys, begin + TILE, end + TILE);
  const float *values =
      gptvq_attend_numbers(rows, t->text, gptvq_attend_values_of(t->text), t->kv_head, begin, end, decoded);
  for (size_t i = 0, next; i < t->count; i = next) { /* those that see the same keys go together */
    const size_t low = gptvq_max_size(t->low[i], begin), high = gptvq_min_size(t->high[i], end);
    const float *weights[QUERIES];
    for (next = i; next < t->count && gptvq_max_size(t->low[next], begin) == low &&
                   gptvq_min_size(t->high[next], end) == high;
         next++)
      weights[next - i] = t->scores[next] + (low - tile);
    if (low < high) GPTVQ_MULTI_PICK(gptvq_attend_values)
    (next - i, high - low, dim, weights, values + (low - begin) * dim, t->out + i);
  }
}

static void attend_tile(task *t, size_t begin, size_t end) {
  const gptvq_attention_rows *rows = t->job->rows;
  for (size_t at = begin; at < end; at += STRIP) score_strip(t, begin, at, gptvq_min_size(at + STRIP, end));
  for (size_t i = 0; i < t->count; i++) {
    size_t low = gptvq_max_size(t->low[i], begin), high = gptvq_min_size(t->high[i], end);
    if (low < high) GPTVQ_MULTI_PICK(gptvq_attend_soften)
    (high - low, rows->how.cap, t->scores[i] + (low - begin), &t->run[i], rows->head_dim, t->out[i]);
  }
  for (size_t at = begin; at < end; at += STRIP) add_strip(t, begin, at, gptvq_min_size(at + STRIP, end));
}

static void divide(size_t dim, float sum, float *out) {
  float normalise = 1.0f / sum;
  for (size_t i = 0; i < dim; i++) out[i] *= normalise;
}

/* Queries from `first` on of a kv head of a text, over one part of its context. */
static void attend_part(const few *job, const gptvq_attention_text *text, size_t kv_head, size_t first,
                        size_t part) {
  const gptvq_attention_rows *rows = job->rows;
  size_t dim = rows->head_dim, of_head = text->n * (rows->heads / rows->kv_heads);
  task t = {.job = job, .text = text, .kv_head = kv_head, .begin = part * PART };
  t.count = gptvq_min_size(job->queries, of_head - first);
  t.end = gptvq_min_size(t.begin + PART, text->position + text->n);
  size_t lowest = t.end;
  for (size_t i = 0; i < t.count; i++) {
    set_query(&t, i, first + i, part);
    lowest = gptvq_min_size(lowest, t.low[i]);
  }
  lowest -= lowest % TILE;
  fetch(&t, text->keys, lowest, lowest + TILE);
  for (size_t tile = lowest; tile < t.end; tile += TILE)
    attend_tile(&t, tile, gptvq_min_size(tile + TILE, t.end));
  for (size_t i = 0; i < t.count; i++) {
    if (job->most_parts > 1) memcpy(t.out[i] + dim, &t.run[i], sizeof t.run[i]);
    else divide(dim, t.run[i].sum, t.out[i]);
  }
}

static size_t tasks_of(const few *job, const gptvq_attention_text *text) {
  size_t share = job->rows->heads / job->rows->kv_heads;
  return job->rows->kv_heads * parts_of(text) * gptvq_ceil_div(text->n * share, job->queries);
}

/* Items are (text, kv head, part, queries). */
static void attend_parts(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const few *job = context;
  for (size_t item = begin; item < end; item++) {
    const gptvq_attention_text *text = job->rows->texts;
    size_t at = item;
    while (at >= tasks_of(job, text)) at -= tasks_of(job, text++);
    size_t parts = parts_of(text), chunks = tasks_of(job, text) / job->rows->kv_heads / parts;
    attend_part(job, text, at / chunks / parts, at % chunks * job->queries, at / chunks % parts);
  }
}

/* Items are (row, head): its parts, each brought down to the largest maximum of all. */
static void join_parts(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const few *job = context;
  const gptvq_attention_rows *rows = job->rows;
  size_t dim = rows->head_dim, step = part_floats(dim);
  for (size_t item = begin; item < end; item++) {
    size_t row = item / rows->heads, head = item % rows->heads;
    const gptvq_attention_text *text = gptvq_attend_text(rows, row);
    const float *part = part_sums(job, row, head, 0);
    float *out = result_of(job, row, head), top = -INFINITY, sum = 0.0f;
    for (size_t p = 0; p < parts_of(text); p++) top = fmaxf(top, part[p * step + dim]);
    memset(out, 0, dim * sizeof *out);
    for (size_t p = 0; p < parts_of(text); p++, part += step) {
      float weight = part[dim];
      (void)GPTVQ_MULTI_PICK(gptvq_exp_sum)(1, top, &weight);
      GPTVQ_MULTI_PICK(gptvq_add_scaled)(dim, weight, part, out);
      sum += weight * part[dim + 1];
    }
    divide(dim, sum, out);
  }
}

static size_t all_tasks(const few *job) {
  size_t tasks = 0;
  for (size_t i = 0; i < job->rows->count; i++) tasks += tasks_of(job, &job->rows->texts[i]);
  return tasks;
}

void gptvq_attend_few(const gptvq_attention_rows *rows) {
  few job = {.rows = rows, .most_parts = longest_parts(rows), .queries = QUERIES};
  size_t threads = gptvq_thread_count(), longest = 0, share = rows->heads / rows->kv_heads, most = 0;
  for (size_t i = 0; i < rows->count; i++) {
    const gptvq_attention_text *text = &rows->texts[i];
    longest = gptvq_max_size(longest, gptvq_min_size(text->position + text->n, rows->how.window));
    most = gptvq_max_size(most, text->n * share);
  }
  /* few tasks are made smaller until every thread gets as many */
  job.queries = gptvq_min_size(job.queries, most);
  while (job.queries > 1 && all_tasks(&job) < 4 * threads && all_tasks(&job) % threads != 0)
    job.queries = gptvq_ceil_div(job.queries, 2);
  size_t work = 2 * gptvq_min_size(longest, PART) * rows->head_dim;
  gptvq_parallel_for(all_tasks(&job), gptvq_ceil_div(TASK_WORK, work * job.queries), attend_parts, &job);
  if (job.most_parts > 1)
    gptvq_parallel_for(rows->n * rows->heads, gptvq_ceil_div(TASK_WORK, job.most_parts * rows->head_dim),
                       join_parts, &job);
}
