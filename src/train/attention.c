/* Causal (sliding) grouped-query attention, forward and backward, one task a (window, key head).
 * Probabilities are made again in the backward pass from the saved log-sum-exp instead of being kept: they
 * would be the largest array by far. */
#include "model/layer/rope.h"
#include "model/layer/vector.h"
#include "train/pieces.h"

#include "base/memory.h"
#include "base/threads.h"
#include "linalg/gemm.h"

#include <math.h>
#include <string.h>

enum { QUERY_TILE = 128 };

typedef struct attention_job {
  const gptvq_ft_dims *dims;
  const float *qkv, *gradient_out;
  float *out; /* forward: written; backward: read */
  float *lse;
  float *gradient_qkv;
  float *scratch;
  size_t width; /* of a qkv row */
} attention_job;

static size_t scratch_floats(const gptvq_ft_dims *dims) {
  return 2 * QUERY_TILE * gptvq_round_up(dims->length, 16);
}

size_t gptvq_ft_attention_scratch(const gptvq_ft_dims *dims) {
  return scratch_floats(dims) * gptvq_thread_count();
}

/* first key that query `i` sees */
static size_t first_key(const gptvq_ft_dims *dims, size_t i) {
  return i + 1 > dims->attention.window ? i + 1 - dims->attention.window : 0;
}

static float row_max(const float *x, size_t n) {
  float lane[8], max;
  for (size_t j = 0; j < 8; j++) lane[j] = -INFINITY;
  size_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (size_t j = 0; j < 8; j++) lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
  max = lane[0];
  for (size_t j = 1; j < 8; j++) max = lane[j] > max ? lane[j] : max;
  for (; i < n; i++) max = x[i] > max ? x[i] : max;
  return max;
}

static float row_sum(const float *x, size_t n) {
  float lane[8] = {0}, sum = 0;
  size_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (size_t j = 0; j < 8; j++) lane[j] += x[i + j];
  for (size_t j = 0; j < 8; j++) sum += lane[j];
  for (; i < n; i++) sum += x[i];
  return sum;
}

static float row_dot(const float *x, const float *y, size_t n) {
  float lane[8] = {0}, sum = 0;
  size_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (size_t j = 0; j < 8; j++) lane[j] += x[i + j] * y[i + j];
  for (size_t j = 0; j < 8; j++) sum += lane[j];
  for (; i < n; i++) sum += x[i] * y[i];
  return sum;
}

/* Queries [first, first + count) of a window see keys [*begin, *end) at most. */
static void key_range(const gptvq_ft_dims *dims, size_t first, size_t count, size_t *begin, size_t *end) {
  *begin = first_key(dims, first);
  *end = first + count;
}

static void forward_task(void *context, size_t task_begin, size_t task_end, size_t thread) {
  const attention_job *job = context;
  const gptvq_ft_dims *d = job->dims;
  size_t hd = d->head_dim, group = d->heads / d->kv_heads, out_width = d->heads * hd;
  float *scores = job->scratch + thread * scratch_floats(d), scale = d->attention.scale;
  for (size_t task = task_begin; task < task_end; task++) {
    size_t window = task / d->kv_heads, kv = task % d->kv_heads, token = window * d->length;
    const float *k = job->qkv + token * job->width + (d->heads + kv) * hd, *v = k + d->kv_heads * hd;
    for (size_t h = kv * group; h < (kv + 1) * group; h++) {
      const float *q = job->qkv + token * job->width + h * hd;
      for (size_t first = 0; first < d->length; first += QUERY_TILE) {
        size_t count = gptvq_min_size(QUERY_TILE, d->length - first), begin, end;
        key_range(d, first, count, &begin, &end);
        size_t keys = end - begin;
        gptvq_gemm_nt(count, keys, hd, scale, q + first * job->width, job->width, k + begin * job->width,
                      job->width, 0.0f, scores, keys);
        for (size_t i = 0; i < count; i++) {
          float *row = scores + i * keys;
          size_t low = first_key(d, first + i) - begin, high = first + i + 1 - begin;
          if (d->attention.cap > 0.0f)
            GPTVQ_MULTI_PICK(gptvq_soft_cap)(high - low, d->attention.cap, row + low);
          float max = row_max(row + low, high - low), sink = 0.0f;
          if (d->attention.sinks != NULL) {
            max = fmaxf(max, d->attention.sinks[h]);
            sink = gptvq_ft_exp(d->attention.sinks[h] - max);
          }
          for (size_t j = low; j < high; j++) row[j] = gptvq_ft_exp(row[j] - max);
          float sum = row_sum(row + low, high - low) + sink, inverse = 1.0f / sum;
          job->lse[(token + first + i) * d->heads + h] = max + logf(sum);
          memset(row, 0, low * sizeof *row);
          for (size_t j = low; j < high; j++) row[j] *= inverse;
          memset(row + high, 0, (keys - high) * sizeof *row);
        }
        gptvq_gemm_nn(count, hd, keys, 1.0f, scores, keys, v + begin * job->width, job->width, 0.0f,
                      job->out + (token + first) * out_width + h * hd, out_width);
      }
    }
  }
}

void gptvq_ft_attention_forward(const gptvq_ft_dims *dims, size_t tokens, const float *qkv, float *out,
                                float *lse, float *scratch) {
  attention_job job = {dims, qkv, NULL, out, lse, NULL, scratch, gptvq_ft_core_width(dims)};
  gptvq_parallel_for(tokens / dims->length * dims->kv_heads, 1, forward_task, &job);
}

/* One row of the backward pass below where scores are capped, S = c tanh(U / c): dU = dS ∘ (1 − (S / c)²). p:
 * scores U, then probabilities. */
static void capped_row(float cap, size_t n, float *p, float *ds, float lse, float delta) {
  GPTVQ_MULTI_PICK(gptvq_soft_cap)(n, cap, p);
  for (size_t j = 0; j < n; j++) {
    float slope = gptvq_ft_cap_slope(cap, p[j]);
    p[j] = gptvq_ft_exp(p[j] - lse);
    ds[j] = p[j] * (ds[j] - delta) * slope;
  }
}

/* With P the probabilities, S the scaled scores and O = P V: dV = Pᵀ dO, dP = dO Vᵀ, dS = P ∘ (dP − rowsum(dO
 * ∘ O)), dQ = scale · dS K, dK = scale · dSᵀ Q. Key heads add up what their query heads give. */
static void backward_task(void *context, size_t task_begin, size_t task_end, size_t thread) {
  const attention_job *job = context;
  const gptvq_ft_dims *d = job->dims;
  size_t hd = d->head_dim, group = d->heads / d->kv_heads, out_width = d->heads * hd, width = job->width;
  float *p = job->scratch + thread * scratch_floats(d), *ds = p + scratch_floats(d) / 2;
  float scale = d->attention.scale;
  for (size_t task = task_begin; task < task_end; task++) {
    size_t window = task / d->kv_heads, kv = task % d->kv_heads, token = window * d->length;
    size_t key_column = (d->heads + kv) * hd, value_column = key_column + d->kv_heads * hd;
    const float *base = job->qkv + token * width, *k = base + key_column, *v = base + value_column;
    float *gradient = job->gradient_qkv + token * width, *dk = gradient + key_column,
          *dv = gradient + value_column;
    for (size_t t = 0; t < d->length; t++) {
      memset(dk + t * width, 0, hd * sizeof *dk);
      memset(dv + t * width, 0, hd * sizeof *dv);
    }
    for (size_t h = kv * group; h < (kv + 1) * group; h++) {
      for (size_t first = 0; first < d->length; first += QUERY_TILE) {
        size_t count = gptvq_min_size(QUERY_TILE, d->length - first), begin, end;
        key_range(d, first, count, &begin, &end);
        size_t keys = end - begin;
        const float *q = base + first * width + h * hd;
        const float *o = job->out + (token + first) * out_width + h * hd;
        const float *d_o = job->gradient_out + (token + first) * out_width + h * hd;
        gptvq_gemm_nt(count, keys, hd, scale, q, width, k + begin * width, width, 0.0f, p, keys);
        gptvq_gemm_nt(count, keys, hd, 1.0f, d_o, out_width, v + begin * width, width, 0.0f, ds, keys);
        for (size_t i = 0; i < count; i++) {
          float *row = p + i * keys, *ds_row = ds + i * keys;
          size_t low = first_key(d, first + i) - begin, high = first + i + 1 - begin;
          float lse = job->lse[(token + first + i) * d->heads + h];
          float delta = row_dot(o + i * out_width, d_o + i * out_width, hd);
          memset(row, 0, low * sizeof *row);
          memset(ds_row, 0, low * sizeof *ds_row);
          if (d->attention.cap > 0.0f)
            capped_row(d->attention.cap, high - low, row + low, ds_row + low, lse, delta);
          else
            for (size_t j = low; j < high; j++) {
              row[j] = gptvq_ft_exp(row[j] - lse);
              ds_row[j] = row[j] * (ds_row[j] - delta);
            }
          memset(row + high, 0, (keys - high) * sizeof *row);
          memset(ds_row + high, 0, (keys - high) * sizeof *ds_row);
        }
        gptvq_gemm_tn(keys, hd, count, 1.0f, p, keys, d_o, out_width, 1.0f, dv + begin * width, width);
        gptvq_gemm_tn(keys, hd, count, scale, ds, keys, q, width, 1.0f, dk + begin * width, width);
        gptvq_gemm_nn(count, hd, keys, scale, ds, keys, k + begin * width, width, 0.0f,
                      gradient + first * width + h * hd, width);
      }
    }
  }
}

void gptvq_ft_attention_backward(const gptvq_ft_dims *dims, size_t tokens, const float *qkv, const float *out,
                                 const float *lse, const float *gradient_out, float *gradient_qkv,
                                 float *scratch) {
  attention_job job = {dims,         qkv,          gradient_out, (float *)out,
                       (float *)lse, gradient_qkv, scratch,      gptvq_ft_core_width(dims)};
  gptvq_parallel_for(tokens / dims->length * dims->kv_heads, 1, backward_task, &job);
}

typedef struct rope_job {
  const gptvq_ft_dims *dims;
  size_t ldx;
  float *x;
  bool backward;
} rope_job;

static void rope_task(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const rope_job *job = context;
  const gptvq_ft_dims *d = job->dims;
  size_t half = d->rotary / 2;
  for (size_t t = begin; t < end; t++) {
    const float *cosine = d->cosine + t % d->length * half, *sine = d->sine + t % d->length * half;
    float *x = job->x + t * job->ldx;
    gptvq_rotate_heads(half, d->attention.neighbours, cosine, sine, d->heads + d->kv_heads, d->head_dim, x,
                       job->backward);
    const float scale = gptvq_query_scale(&d->attention, t % d->length);
    for (size_t i = 0; scale != 1.0f && i < d->heads * d->head_dim; i++) x[i] *= scale;
  }
}

void gptvq_ft_rope(const gptvq_ft_dims *dims, size_t tokens, float *x, size_t ldx, bool backward) {
  if (dims->rotary == 0) return;
  rope_job job = {dims, ldx, x, backward};
  gptvq_parallel_for(tokens, 16, rope_task, &job);
}
