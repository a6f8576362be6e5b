/* model/layer/attend.h: what the two ways of attention share, once keys and values are in the caches. */
#ifndef GPTVQ_MODEL_LAYER_ATTEND_H
#define GPTVQ_MODEL_LAYER_ATTEND_H

#include "kernels/kernels.h"
#include "model/layer/attention.h"
#include "model/layer/vector.h"

#include <math.h>

#include <stdint.h>

static inline size_t gptvq_attend_number_bytes(const gptvq_attention_rows *rows) {
  return rows->half ? sizeof(uint16_t) : sizeof(float);
}

static inline const gptvq_attention_text *gptvq_attend_text(const gptvq_attention_rows *rows, size_t row) {
  const gptvq_attention_text *text = rows->texts;
  while (row >= text->first + text->n) text++;
  return text;
}

static inline const char *gptvq_attend_values_of(const gptvq_attention_text *text) {
  return text->values != NULL ? text->values : text->keys;
}

/* The first key that the query at `position` sees. */
static inline size_t gptvq_attend_first(const gptvq_attention_rows *rows, size_t position) {
  return position + 1 > rows->how.window ? position + 1 - rows->how.window : 0;
}

/* A head's softmax before its first key. */
static inline gptvq_softmax gptvq_attend_start(const gptvq_attention_rows *rows, size_t head) {
  const float *sinks = rows->how.sinks;
  return sinks != NULL ? (gptvq_softmax){sinks[head], 1.0f} : (gptvq_softmax){-INFINITY, 0.0f};
}

/* Positions [begin, end) of a kv head's keys or values as fp32: in place, or in decoded[(end − begin) × dim].
 */
static inline const float *gptvq_attend_numbers(const gptvq_attention_rows *rows,
                                                const gptvq_attention_text *text, const char *cache,
                                                size_t kv_head, size_t begin, size_t end, float *decoded) {
  size_t first = (kv_head * text->max_positions + begin) * rows->head_dim;
  const void *from = cache + first * gptvq_attend_number_bytes(rows);
  if (!rows->half) return from;
  gptvq_to_float(GPTVQ_F16, from, (end - begin) * rows->head_dim, decoded);
  return decoded;
}

/* few.c. Its parts of a context lie at fixed positions, so that no result depends on how threads share them,
 * and each row gets the numbers that it has alone. */
void gptvq_attend_few(const gptvq_attention_rows *rows);

/* attention_bf16.c: many rows of one text with products in bf16; heads of at most so many dimensions, fp32
 * caches, where there are bf16 instructions. */
enum { GPTVQ_ATTENTION_BF16_DIM = 256 };
bool gptvq_attends_bf16(const gptvq_attention_rows *rows);
void gptvq_attend_bf16(const gptvq_attention_rows *rows);

#endif
