/* text/utf8.h: UTF-8 and the few character classes that the tokenizers package takes from Rust's standard
 * library. */
#ifndef GPTVQ_TEXT_UTF8_H
#define GPTVQ_TEXT_UTF8_H

#include "text/bytes.h"

#define GPTVQ_UTF8_BAD UINT32_MAX /* ill-formed */
#define GPTVQ_UTF8_INCOMPLETE \
  (UINT32_MAX - 1) /* well-formed so far, but the text ends inside the sequence \
                    */

/* Looks at the sequence at p[0 … size), size > 0; stores its code point, GPTVQ_UTF8_BAD or
 * GPTVQ_UTF8_INCOMPLETE, and returns its length, for an ill-formed one that of its maximal subpart (Unicode
 * 15, section 3.9): each such part is what Python's errors="replace" and Rust's from_utf8_lossy turn into one
 * U+FFFD. */
size_t gptvq_utf8_decode(const char *p, size_t size, uint32_t *code_point);

/* The code point at p in text known to be well-formed; stores its length. */
static inline uint32_t gptvq_utf8_get(const char *p, size_t *length) {
  const unsigned char *s = (const unsigned char *)p;
  if (s[0] < 0x80) return *length = 1, s[0];
  if (s[0] < 0xe0) return *length = 2, (uint32_t)(s[0] & 0x1f) << 6 | (s[1] & 0x3fu);
  if (s[0] < 0xf0)
    return *length = 3, (uint32_t)(s[0] & 0x0f) << 12 | (uint32_t)(s[1] & 0x3f) << 6 | (s[2] & 0x3fu);
  return *length = 4, (uint32_t)(s[0] & 0x07) << 18 | (uint32_t)(s[1] & 0x3f) << 12 |
                          (uint32_t)(s[2] & 0x3f) << 6 | (s[3] & 0x3fu);
}

/* Writes a code point, returns its length. */
size_t gptvq_utf8_encode(uint32_t code_point, char out[4]);
void gptvq_utf8_append(gptvq_bytes *out, uint32_t code_point);

/* Appends p[0 … size) with every ill-formed part replaced by U+FFFD. */
void gptvq_utf8_append_lossy(gptvq_bytes *out, const char *p, size_t size);
bool gptvq_utf8_valid(const char *p, size_t size);

/* Start of the code point that ends at p[end), end > 0, in well-formed text. */
static inline size_t gptvq_utf8_previous(const char *p, size_t end) {
  do end--;
  while (end > 0 && ((unsigned char)p[end] & 0xc0) == 0x80);
  return end;
}

bool gptvq_is_space(uint32_t c);       /* White_Space */
bool gptvq_is_word(uint32_t c);        /* \w of Rust's regex: Alphabetic, M, Nd, Pc, Join_Control */
bool gptvq_is_numeric(uint32_t c);     /* N */
bool gptvq_is_punctuation(uint32_t c); /* ASCII punctuation or P */
bool gptvq_is_mark(uint32_t c);        /* M */

/* GPT-2's printable stand-in for a byte: code point of a byte; byte of a code point, or -1. */
uint32_t gptvq_byte_level_char(unsigned char byte);
int gptvq_byte_level_byte(uint32_t c);

#endif
