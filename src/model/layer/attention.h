/* model/layer/attention.h: causal (sliding) grouped-query attention over a cache of keys and values. Its
 * backward pass: train/attention.c. */
#ifndef GPTVQ_MODEL_LAYER_ATTENTION_H
#define GPTVQ_MODEL_LAYER_ATTENTION_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

/* Heads of at most so many dimensions may keep fp16 caches. */
enum { GPTVQ_HALF_DIM = 128 };

/* Up to so many rows of a text go the way of few, as do those of several texts; of several texts either all
 * have more or none. */
enum { GPTVQ_ATTENTION_FEW = 7 };

/* How queries meet keys: numbers of the block's description, both directions go by them. */
typedef struct gptvq_attention {
  size_t window;       /* keys that a query sees, itself included; SIZE_MAX: all up to itself */
  float scale;         /* of the products of queries and keys */
  float cap;           /* scores s become cap · tanh(s / cap); 0: they stay */
  bool neighbours;     /* rotated pairs are (2i, 2i + 1), not (i, i + half) */
  float query_growth;  /* queries grow by this times the logarithm of 1 + whole query_periods before them */
  size_t query_period; /* positions */
  bool wide_norms;     /* the norms of queries and keys are over the values of all heads together */
  const float *sinks;  /* [heads]: the score of one more key of each head, whose value is zero; NULL: none */
} gptvq_attention;

/* What rotated queries at that position are multiplied by. */
static inline float gptvq_query_scale(const gptvq_attention *how, size_t position) {
  if (!(how->query_growth > 0.0f) || position < how->query_period) return 1.0f;
  return 1.0f + how->query_growth * logf((float)(1 + position / how->query_period));
}

/* Rows [first, first + n) of a call: tokens of one text from `position` on, and its cache of the layer. */
typedef struct gptvq_attention_text {
  char *keys, *values; /* [kv_heads][max_positions][head_dim]; values NULL: keys are values too */
  bool latent;         /* they hold latent vectors (latent.h) */
  size_t max_positions;
  const float *cosines, *sines; /* [max_positions × rotary_half]; NULL where that is 0 */
  size_t position, first, n;
  const float *state; /* where the layer is a delta net (delta.h), else NULL, as are keys and values there */
  float *next_state;
} gptvq_attention_text;

/* One call: n rows q | k | v of so many heads of head_dim values, and the texts that they are of, in order.
 */
typedef struct gptvq_attention_rows {
  size_t heads, kv_heads, head_dim;
  gptvq_attention how;
  const float *q_norm, *k_norm; /* gains of RMS norms, [head_dim] of each head or of all; or NULL */
  float eps;
  size_t rotary_half; /* rotated dimensions, halved; 0: none */
  bool half;          /* caches are fp16, else fp32 */
  bool rounds;        /* many rows of one text: products in bf16 where the machine has them */
  const gptvq_attention_text *texts;
  size_t count, n;
  float *qkv; /* [n × ldq], without v where keys are values too: normalised and rotated in place; keys and
                 values go to the caches */
  size_t ldq;
  float *out;   /* [n × heads · head_dim] */
  float *parts; /* gptvq_attention_part_bytes of n · heads queries and the longest context, where few */
} gptvq_attention_rows;

/* Memory for what so many queries, of few rows, keep of each part of a context; 0: it is short. SIZE_MAX on
 * overflow. */
size_t gptvq_attention_part_bytes(size_t queries, size_t head_dim, size_t positions);

void gptvq_attend_rows(const gptvq_attention_rows *rows);

#endif
