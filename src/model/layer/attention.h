/* model/layer/attention.h: causal (sliding) grouped-query attention over a cache of keys and values. Its
 * backward pass: train/attention.c. */
#ifndef GPTVQ_MODEL_LAYER_ATTENTION_H
#define GPTVQ_MODEL_LAYER_ATTENTION_H

#include <stdbool.h>
#include <stddef.h>

/* Heads of at most so many dimensions may keep fp16 caches. */
enum { GPTVQ_HALF_DIM = 128 };

/* How queries meet keys: numbers of the block's description, both directions go by them. */
typedef struct gptvq_attention {
  size_t window; /* keys that a query sees, itself included; SIZE_MAX: all up to itself */
  float scale;   /* of the products of queries and keys */
  float cap;     /* scores s become cap · tanh(s / cap); 0: they stay */
} gptvq_attention;

/* Rows [first, first + n) of a call: tokens of one text from `position` on, and its cache of the layer. */
typedef struct gptvq_attention_text {
  char *keys, *values; /* [kv_heads][max_positions][head_dim] */
  size_t max_positions;
  const float *cosines, *sines; /* [max_positions × rotary_half] */
  size_t position, first, n;
  const float *state; /* where the layer is a delta net (delta.h), else NULL, as are keys and values there */
  float *next_state;
} gptvq_attention_text;

/* One call: n rows q | k | v of so many heads of head_dim values, and the texts that they are of, in order.
 */
typedef struct gptvq_attention_rows {
  size_t heads, kv_heads, head_dim;
  gptvq_attention how;
  const float *q_norm, *k_norm; /* [head_dim] gains of RMS norms of each head, or NULL */
  bool wide_norms;              /* they are norms of all heads together, [heads · head_dim] gains */
  float eps;
  size_t rotary_half; /* rotated dimensions, halved */
  bool half;          /* caches are fp16, else fp32 */
  const gptvq_attention_text *texts;
  size_t count, n;
  float *qkv; /* [n × ldq]: normalised and rotated in place; keys and values go to the caches */
  size_t ldq;
  float *out; /* [n × heads · head_dim] */
} gptvq_attention_rows;

void gptvq_attend_rows(const gptvq_attention_rows *rows);

#endif
