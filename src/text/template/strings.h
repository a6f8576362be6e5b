/* text/template/strings.h: what Python's str can do. */
#ifndef GPTVQ_TEXT_TEMPLATE_STRINGS_H
#define GPTVQ_TEXT_TEMPLATE_STRINGS_H

#include "text/template/value.h"

/* Bytes of the code point that starts with this byte. */
static inline size_t gptvq_char_size(char first) {
  unsigned char c = (unsigned char)first;
  return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}
size_t gptvq_tpl_count_chars(gptvq_tpl *t, gptvq_string s);
/* Where character `position` (at most the count) begins. */
size_t gptvq_tpl_char_offset(gptvq_tpl *t, gptvq_string s, size_t position);
/* Is `what` at `at`, where there are at least as many bytes? Counts what it compares as work. */
bool gptvq_tpl_begins(gptvq_tpl *t, const char *at, gptvq_string what);
/* Offset of the first `what` at or behind `from`, or SIZE_MAX. */
size_t gptvq_tpl_find(gptvq_tpl *t, gptvq_string s, gptvq_string what, size_t from);
static inline gptvq_string gptvq_part(gptvq_string s, size_t begin, size_t end) {
  return (gptvq_string){s.data + begin, end - begin};
}

bool gptvq_tpl_is_python_space(uint32_t c); /* str.isspace() of one character */
bool gptvq_tpl_is_line_end(uint32_t c);     /* where str.splitlines() cuts */
/* chars.size 0: white space */
gptvq_string gptvq_tpl_strip(gptvq_tpl *t, gptvq_string s, gptvq_string chars, bool left, bool right);
gptvq_string gptvq_tpl_replace(gptvq_tpl *t, gptvq_string s, gptvq_string old, gptvq_string by, int64_t most);
/* sep.size 0: white space */
gptvq_value gptvq_tpl_split(gptvq_tpl *t, gptvq_string s, gptvq_string sep, int64_t most, bool from_right);
gptvq_value gptvq_tpl_split_lines(gptvq_tpl *t, gptvq_string s, bool keep_ends);

typedef enum gptvq_case {
  GPTVQ_CASE_UPPER,
  GPTVQ_CASE_LOWER,
  GPTVQ_CASE_TITLE,
  GPTVQ_CASE_CAPITAL,
  GPTVQ_CASE_SWAP
} gptvq_case;
gptvq_string gptvq_tpl_change_case(gptvq_tpl *t, gptvq_string s, gptvq_case how);
/* str.isupper(), str.islower() */
bool gptvq_tpl_has_case(gptvq_tpl *t, gptvq_string s, gptvq_case how);
/* All characters of s (there is one) have the property. */
typedef enum gptvq_property { GPTVQ_SPACE, GPTVQ_ALPHA, GPTVQ_DIGIT, GPTVQ_ALNUM } gptvq_property;
bool gptvq_tpl_all_chars(gptvq_tpl *t, gptvq_string s, gptvq_property property);
bool gptvq_tpl_is_printable(uint32_t c);

#endif
