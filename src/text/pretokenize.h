/* text/pretokenize.h: the pre-tokenizers of tokenizer.json: they cut the text into the pieces that BPE never
 * crosses, some of them rewriting it. */
#ifndef GPTVQ_TEXT_PRETOKENIZE_H
#define GPTVQ_TEXT_PRETOKENIZE_H

#include "text/regex.h"

typedef enum gptvq_pretokenizer_kind {
  GPTVQ_PRETOKENIZE_SPLIT,
  GPTVQ_PRETOKENIZE_BYTE_LEVEL,
  GPTVQ_PRETOKENIZE_METASPACE,
  GPTVQ_PRETOKENIZE_DIGITS,
  GPTVQ_PRETOKENIZE_PUNCTUATION,
  GPTVQ_PRETOKENIZE_WHITESPACE,
  GPTVQ_PRETOKENIZE_WHITESPACE_SPLIT
} gptvq_pretokenizer_kind;

/* What becomes of the delimiters that a pattern finds: "the-final--cut" at "-" gives */
typedef enum gptvq_split_behavior {
  GPTVQ_SPLIT_REMOVED,              /* the  final  cut */
  GPTVQ_SPLIT_ISOLATED,             /* the - final - - cut */
  GPTVQ_SPLIT_MERGED_WITH_PREVIOUS, /* the- final- - cut */
  GPTVQ_SPLIT_MERGED_WITH_NEXT,     /* the -final - -cut */
  GPTVQ_SPLIT_CONTIGUOUS            /* the - final -- cut */
} gptvq_split_behavior;

typedef enum gptvq_prepend_scheme {
  GPTVQ_PREPEND_ALWAYS,
  GPTVQ_PREPEND_FIRST, /* only where the text starts */
  GPTVQ_PREPEND_NEVER
} gptvq_prepend_scheme;

typedef struct gptvq_pretokenizer {
  gptvq_pretokenizer_kind kind;
  gptvq_split_behavior behavior; /* split, digits, punctuation */
  bool invert;                   /* split: the matches are the words, not the delimiters */
  gptvq_regex *regex;            /* split; byte level with use_regex: GPT-2's expression; else NULL */
  bool add_prefix_space;         /* byte level */
  char replacement[4];           /* metaspace: stands for a space */
  size_t replacement_size;
  gptvq_prepend_scheme prepend;
  bool split; /* metaspace: also cut in front of each replacement */
} gptvq_pretokenizer;

/* GPT-2's splitting expression. */
extern const char gptvq_gpt2_pattern[];

void gptvq_pretokenizer_free(gptvq_pretokenizer *pretokenizer);

/* Applies all of them to *pieces, in order. */
gptvq_status gptvq_pretokenize(const gptvq_pretokenizer *pretokenizers, size_t count, gptvq_pieces *pieces,
                               gptvq_error *err);

#endif
