/* text/normalize.h: the normalizers of tokenizer.json, in order. */
#ifndef GPTVQ_TEXT_NORMALIZE_H
#define GPTVQ_TEXT_NORMALIZE_H

#include "text/regex.h"

typedef enum gptvq_normalizer_kind {
  GPTVQ_NORMALIZE_PREPEND, /* content in front of non-empty text */
  GPTVQ_NORMALIZE_REPLACE, /* matches of regex by content */
  GPTVQ_NORMALIZE_NFC,
  GPTVQ_NORMALIZE_NFD,
  GPTVQ_NORMALIZE_NFKC,
  GPTVQ_NORMALIZE_NFKD,
  GPTVQ_NORMALIZE_LOWERCASE,
  GPTVQ_NORMALIZE_STRIP, /* white space, left and/or right */
  GPTVQ_NORMALIZE_STRIP_ACCENTS,
  GPTVQ_NORMALIZE_BYTE_LEVEL
} gptvq_normalizer_kind;

typedef struct gptvq_normalizer {
  gptvq_normalizer_kind kind;
  gptvq_bytes content;
  gptvq_regex *regex;
  bool left, right;
} gptvq_normalizer;

void gptvq_normalizer_free(gptvq_normalizer *normalizer);

/* Replaces *text (well-formed UTF-8) by its normalized form. *origin is cleared when the first byte no longer
 * comes from the start of the text. */
gptvq_status gptvq_normalize(const gptvq_normalizer *normalizers, size_t count, gptvq_bytes *text,
                             bool *origin, gptvq_error *err);

/* The matches of `regex` in text replaced by content, appended to out. *kept_start: the first match was not
 * an emptied start. */
gptvq_status gptvq_replace(const gptvq_regex *regex, const gptvq_bytes *content, const char *text,
                           size_t size, gptvq_bytes *out, bool *kept_start, gptvq_error *err);

/* Appends every byte of text as its GPT-2 stand-in. */
void gptvq_byte_level_append(gptvq_bytes *out, const char *text, size_t size);

#endif
