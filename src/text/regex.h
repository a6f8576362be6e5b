/* text/regex.h: the regular expressions of tokenizer.json (Oniguruma, Ruby syntax) run by PCRE2. */
#ifndef GPTVQ_TEXT_REGEX_H
#define GPTVQ_TEXT_REGEX_H

#include "text/bytes.h"

/* Rewrites an Oniguruma pattern for PCRE2 (UTF, UCP, MULTILINE, newline = LF), appending to `out`. Where the
 * two differ: \s, \w, \d, \h and \b, (?m), the quantifiers {,n}, {n}? and {n,m}+, nested classes.
 * GPTVQ_ERROR_UNSUPPORTED for class intersections and other constructs that have no counterpart. */
gptvq_status gptvq_regex_translate(const char *pattern, size_t size, gptvq_bytes *out, gptvq_error *err);

typedef struct gptvq_regex gptvq_regex; /* immutable; shared between threads */

/* A regular expression, or with `literal` a plain, non-empty string. Owned by the caller on success. */
gptvq_status gptvq_regex_compile(const char *pattern, size_t size, bool literal, gptvq_regex **out,
                                 gptvq_error *err);
void gptvq_regex_free(gptvq_regex *regex); /* NULL is fine */

/* Walks the matches of one expression in one text, leftmost first, never overlapping. An empty match right
 * behind the match before it does not count. */
typedef struct gptvq_regex_walk {
  const gptvq_regex *regex;
  const char *text;
  size_t size, at, last_end;
  bool matched; /* last_end is set */
  void *match, *context, *stack;
} gptvq_regex_walk;

/* text[0 … size) is well-formed UTF-8. */
gptvq_status gptvq_regex_begin(gptvq_regex_walk *walk, const gptvq_regex *regex, gptvq_error *err);
void gptvq_regex_text(gptvq_regex_walk *walk, const char *text,
                      size_t size); /* starts anew on another text */
/* *found says whether there is a further match [*begin, *end). GPTVQ_ERROR_DATA when PCRE2 gives up. */
gptvq_status gptvq_regex_next(gptvq_regex_walk *walk, bool *found, size_t *begin, size_t *end,
                              gptvq_error *err);
void gptvq_regex_finish(gptvq_regex_walk *walk);

#endif
