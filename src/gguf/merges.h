/* gguf/merges.h: the merges that a SentencePiece vocabulary with scores amounts to. */
#ifndef GPTVQ_GGUF_MERGES_H
#define GPTVQ_GGUF_MERGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct gptvq_piece_text {
  const char *text; /* UTF-8 */
  size_t size;
  float score;
  bool merges; /* made by merging; others are neither made nor parts of one */
} gptvq_piece_text;

typedef struct gptvq_piece_merge {
  uint32_t left, right; /* pieces; their texts in a row are a piece */
  uint32_t lengths[2];  /* of their texts, in code points */
  float score;
} gptvq_piece_merge;

/* Every way in which a piece is two others, in the order in which they are to be merged: by the score of what
 * is made, then by the lengths of the left and right part, the highest first (as transformers makes a
 * tokenizer.json of a SentencePiece model); `*out` to be released with free(). false: out of memory. */
bool gptvq_piece_merges(const gptvq_piece_text *pieces, size_t count, gptvq_piece_merge **out,
                        size_t *merges);

#endif
