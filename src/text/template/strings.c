#include "text/template/strings.h"

#include "text/utf8.h"

#include <utf8proc.h>

size_t gptvq_tpl_count_chars(gptvq_tpl *t, gptvq_string s) {
  size_t count = 0;
  gptvq_tpl_work(t, s.size);
  for (size_t i = 0; i < s.size; i++) count += ((unsigned char)s.data[i] & 0xc0) != 0x80;
  return count;
}

size_t gptvq_tpl_char_offset(gptvq_tpl *t, gptvq_string s, size_t position) {
  size_t at = 0;
  gptvq_tpl_work(t, position);
  while (position-- > 0 && at < s.size) at += gptvq_char_size(s.data[at]);
  return at;
}

bool gptvq_tpl_begins(gptvq_tpl *t, const char *at, gptvq_string what) {
  enum { PIECE = 512 };
  for (size_t done = 0; done < what.size; done += PIECE) {
    size_t size = gptvq_min_size(PIECE, what.size - done);
    if (memcmp(at + done, what.data + done, size) != 0) return false;
    gptvq_tpl_work(t, size);
  }
  return true;
}

size_t gptvq_tpl_find(gptvq_tpl *t, gptvq_string s, gptvq_string what, size_t from) {
  if (from > s.size || what.size > s.size - from) return SIZE_MAX;
  if (what.size == 0) return from;
  for (size_t at = from; at <= s.size - what.size; at++) {
    const char *first = memchr(s.data + at, what.data[0], s.size - what.size - at + 1);
    if (first == NULL) break;
    gptvq_tpl_work(t, (size_t)(first - s.data) - at);
    at = (size_t)(first - s.data);
    if (gptvq_tpl_begins(t, first, what)) return at;
  }
  return SIZE_MAX;
}

bool gptvq_tpl_is_python_space(uint32_t c) { return gptvq_is_space(c) || (c >= 0x1c && c <= 0x1f); }

bool gptvq_tpl_is_line_end(uint32_t c) {
  return (c >= '\n' && c <= '\r') || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

static bool stripped(gptvq_tpl *t, gptvq_string chars, const char *p, size_t size) {
  size_t length;
  gptvq_tpl_work(t, 64 * chars.size); /* a step each: they are compared one by one */
  if (chars.size == 0) return gptvq_tpl_is_python_space(gptvq_utf8_get(p, &length));
  for (size_t at = 0; at < chars.size; at += gptvq_char_size(chars.data[at]))
    if (gptvq_char_size(chars.data[at]) == size && memcmp(chars.data + at, p, size) == 0) return true;
  return false;
}

gptvq_string gptvq_tpl_strip(gptvq_tpl *t, gptvq_string s, gptvq_string chars, bool left, bool right) {
  size_t begin = 0, end = s.size;
  gptvq_tpl_work(t, s.size);
  while (left && begin < end) {
    size_t size = gptvq_char_size(s.data[begin]);
    if (!stripped(t, chars, s.data + begin, size)) break;
    begin += size;
  }
  while (right && end > begin) {
    size_t last = gptvq_utf8_previous(s.data, end);
    if (!stripped(t, chars, s.data + last, end - last)) break;
    end = last;
  }
  return gptvq_part(s, begin, end);
}

gptvq_string gptvq_tpl_replace(gptvq_tpl *t, gptvq_string s, gptvq_string old, gptvq_string by,
                               int64_t most) {
  gptvq_builder b = {0};
  size_t at = 0;
  for (; most != 0; most -= most > 0) {
    size_t found = gptvq_tpl_find(t, s, old, at);
    if (found == SIZE_MAX) break;
    gptvq_tpl_build(t, &b, s.data + at, found - at);
    gptvq_tpl_build(t, &b, by.data, by.size);
    at = found + old.size;
    if (old.size > 0) continue;
    if (at == s.size)
      return gptvq_tpl_built(&b); /* nothing is found between any two characters, and at the end */
    size_t size = gptvq_char_size(s.data[at]);
    gptvq_tpl_build(t, &b, s.data + at, size);
    at += size;
  }
  gptvq_tpl_build(t, &b, s.data + at, s.size - at);
  return gptvq_tpl_built(&b);
}

/* ---- splitting ---- */

typedef struct parts {
  gptvq_string *items;
  size_t count, room;
} parts;

static void add_part(gptvq_tpl *t, parts *p, gptvq_string part) {
  if (p->count == p->room) {
    size_t room = gptvq_max_size(8, 2 * p->room);
    gptvq_string *items = gptvq_tpl_alloc(t, room, sizeof *items);
    if (p->count > 0) memcpy(items, p->items, p->count * sizeof *items);
    p->items = items;
    p->room = room;
  }
  p->items[p->count++] = part;
}

static gptvq_value parts_list(gptvq_tpl *t, const parts *p, bool reversed) {
  gptvq_value out = gptvq_tpl_sequence(t, GPTVQ_LIST, p->count);
  for (size_t i = 0; i < p->count; i++)
    out.as.list->items[i] = gptvq_text(p->items[reversed ? p->count - 1 - i : i]);
  return out;
}

static size_t find_last(gptvq_tpl *t, gptvq_string s, gptvq_string what, size_t end) {
  for (size_t at = end; at >= what.size; at--) {
    gptvq_tpl_work(t, 1);
    if (gptvq_tpl_begins(t, s.data + at - what.size, what)) return at - what.size;
  }
  return SIZE_MAX;
}

static void split_at(gptvq_tpl *t, parts *p, gptvq_string s, gptvq_string sep, int64_t most,
                     bool from_right) {
  size_t begin = 0, end = s.size;
  for (; most != 0; most -= most > 0) {
    size_t found = from_right ? find_last(t, s, sep, end) : gptvq_tpl_find(t, s, sep, begin);
    if (found == SIZE_MAX) break;
    add_part(t, p, from_right ? gptvq_part(s, found + sep.size, end) : gptvq_part(s, begin, found));
    if (from_right) end = found;
    else begin = found + sep.size;
  }
  add_part(t, p, gptvq_part(s, begin, end));
}

/* Length of the run of characters of `s` at the front (or the end), white space or not. */
static size_t run_length(gptvq_string s, bool space, bool at_end) {
  size_t length = 0, size;
  while (length < s.size) {
    size_t at = at_end ? gptvq_utf8_previous(s.data, s.size - length) : length;
    if (gptvq_tpl_is_python_space(gptvq_utf8_get(s.data + at, &size)) != space) break;
    length += size;
  }
  return length;
}

static void split_spaces(gptvq_tpl *t, parts *p, gptvq_string s, int64_t most, bool from_right) {
  gptvq_tpl_work(t, s.size);
  for (;; most -= most > 0) {
    size_t gap = run_length(s, true, from_right);
    s = from_right ? gptvq_part(s, 0, s.size - gap) : gptvq_part(s, gap, s.size);
    if (s.size == 0) return;
    if (most == 0) break;
    size_t word = run_length(s, false, from_right);
    add_part(t, p, from_right ? gptvq_part(s, s.size - word, s.size) : gptvq_part(s, 0, word));
    s = from_right ? gptvq_part(s, 0, s.size - word) : gptvq_part(s, word, s.size);
  }
  add_part(t, p, s); /* the rest keeps its spaces */
}

gptvq_value gptvq_tpl_split(gptvq_tpl *t, gptvq_string s, gptvq_string sep, int64_t most, bool from_right) {
  parts p = {0};
  if (sep.size > 0) split_at(t, &p, s, sep, most, from_right);
  else split_spaces(t, &p, s, most, from_right);
  return parts_list(t, &p, from_right);
}

gptvq_value gptvq_tpl_split_lines(gptvq_tpl *t, gptvq_string s, bool keep_ends) {
  parts p = {0};
  gptvq_tpl_work(t, s.size);
  for (size_t begin = 0, at = 0, size; begin < s.size;) {
    while (at < s.size && !gptvq_tpl_is_line_end(gptvq_utf8_get(s.data + at, &size))) at += size;
    size_t end = at;
    if (at < s.size) {
      bool crlf = s.data[at] == '\r' && at + 1 < s.size && s.data[at + 1] == '\n';
      at += crlf ? 2 : gptvq_char_size(s.data[at]);
    }
    add_part(t, &p, gptvq_part(s, begin, keep_ends ? at : end));
    begin = at;
  }
  return parts_list(t, &p, false);
}

/* ---- properties ---- */

static bool is_letter(utf8proc_category_t c) {
  return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}
static bool is_numeral(utf8proc_category_t c) {
  return c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO;
}

bool gptvq_tpl_all_chars(gptvq_tpl *t, gptvq_string s, gptvq_property property) {
  gptvq_tpl_work(t, s.size);
  for (size_t at = 0, size; at < s.size; at += size) {
    uint32_t c = gptvq_utf8_get(s.data + at, &size);
    utf8proc_category_t category = utf8proc_category((int32_t)c);
    bool has = property == GPTVQ_SPACE   ? gptvq_tpl_is_python_space(c)
               : property == GPTVQ_ALPHA ? is_letter(category)
               : property == GPTVQ_DIGIT ? category == UTF8PROC_CATEGORY_ND
                                         : is_letter(category) || is_numeral(category);
    if (!has) return false;
  }
  return s.size > 0;
}

bool gptvq_tpl_is_printable(uint32_t c) {
  if (c < 0x7f) return c >= 0x20;
  utf8proc_category_t category = utf8proc_category((int32_t)c);
  return category != UTF8PROC_CATEGORY_CN && category < UTF8PROC_CATEGORY_ZS;
}
