#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/regex.h"

#include <pcre2.h>

/* Oniguruma's classes for UTF-8 text, spelt out: PCRE2's own differ by version and contain, for example,
 * U+180E in \s and no combining marks in \w. */
#define SPACE \
  "\\t-\\r \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define NOT_SPACE \
  "\\x{0}-\\x{8}\\x{e}-\\x{1f}!-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{" \
  "2027}" \
  "\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{d7ff}\\x{e000}-\\x{10ffff}"
#define WORD \
  "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}" \
  "-\\x{1f189}"
/* outside of classes Oniguruma counts these among \w, inside not */
#define WORD_ALONE WORD "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"
#define AT_WORD_EDGE "(?:(?<=[" WORD_ALONE "])(?![" WORD_ALONE "])|(?<![" WORD_ALONE "])(?=[" WORD_ALONE "]))"
#define NOT_AT_WORD_EDGE \
  "(?:(?<=[" WORD_ALONE "])(?=[" WORD_ALONE "])|(?<![" WORD_ALONE "])(?![" WORD_ALONE "]))"

enum { MAX_DEPTH = 100, MAX_PATTERN = 65536 };

typedef struct translation {
  const char *p;
  size_t size, i;
  gptvq_bytes *out;
  size_t atom; /* where the last atom starts in `out`; SIZE_MAX: none that a quantifier could follow */
  size_t groups[MAX_DEPTH], depth;
  gptvq_error *err;
} translation;

static void put(translation *t, const char *text) { gptvq_bytes_append(t->out, text, strlen(text)); }
static bool next_is(const translation *t, size_t offset, char c) {
  return t->i + offset < t->size && t->p[t->i + offset] == c;
}
static gptvq_status refuse(translation *t, const char *what) {
  return gptvq_fail(t->err, GPTVQ_ERROR_UNSUPPORTED, "regular expression: %s is not supported", what);
}

/* \p{name} or \P{name}, at t->i. A script means the script itself: PCRE2 10.40 and later would take its
 * extensions too. */
static gptvq_status property(translation *t) {
  static const char *const same[] = {
      "Any",         "Alphabetic", "Uppercase",          "Lowercase",
      "White_Space", "Emoji",      "Emoji_Presentation", "Extended_Pictographic",
      "Ideographic"};
  static const char *const long_names[][2] = {
      {"Letter", "L"},         {"Mark", "M"},          {"Number", "N"},       {"Punctuation", "P"},
      {"Symbol", "S"},         {"Separator", "Z"},     {"Other", "C"},        {"Digit", "Nd"},
      {"Alpha", "Alphabetic"}, {"Upper", "Uppercase"}, {"Lower", "Lowercase"}};
  size_t begin = t->i + 3, end = begin;
  while (end < t->size && t->p[end] != '}') end++;
  if (end >= t->size)
    return gptvq_fail(t->err, GPTVQ_ERROR_FORMAT, "regular expression: \\%c{ is not closed", t->p[t->i + 1]);
  gptvq_bytes_append(t->out, t->p + t->i, 3);
  t->i = end + 1;
  if (begin < end && t->p[begin] == '^') {
    put(t, "^");
    begin++;
  }
  size_t size = end - begin;
  const char *name = t->p + begin;
  bool script = size > 2;
  for (size_t i = 0; i < size; i++)
    if (!((name[i] | 0x20) >= 'a' && (name[i] | 0x20) <= 'z') && name[i] != '_') script = false;
  for (size_t i = 0; i < sizeof same / sizeof *same; i++)
    if (size == strlen(same[i]) && memcmp(name, same[i], size) == 0) script = false;
  for (size_t i = 0; i < sizeof long_names / sizeof *long_names; i++)
    if (size == strlen(long_names[i][0]) && memcmp(name, long_names[i][0], size) == 0) {
      name = long_names[i][1];
      size = strlen(name);
      script = false;
      break;
    }
#if PCRE2_MAJOR > 10 || (PCRE2_MAJOR == 10 && PCRE2_MINOR >= 40)
  if (script) put(t, "sc:");
#else
  (void)script;
#endif
  gptvq_bytes_append(t->out, name, size);
  put(t, "}");
  return GPTVQ_OK;
}

/* An escape, at t->i = the backslash. */
static gptvq_status escape(translation *t, bool in_class) {
  if (t->i + 1 >= t->size)
    return gptvq_fail(t->err, GPTVQ_ERROR_FORMAT, "regular expression: ends in a backslash");
  char c = t->p[t->i + 1];
  const char *plain = NULL;
  switch (c) {
  case 's': plain = in_class ? SPACE : "[" SPACE "]"; break;
  case 'S': plain = in_class ? NOT_SPACE : "[^" SPACE "]"; break;
  case 'w': plain = in_class ? WORD : "[" WORD_ALONE "]"; break;
  case 'W':
    if (in_class) return refuse(t, "\\W inside a class");
    plain = "[^" WORD_ALONE "]";
    break;
  case 'd': plain = "\\p{Nd}"; break;
  case 'D': plain = "\\P{Nd}"; break;
  case 'h': plain = in_class ? "0-9a-fA-F" : "[0-9a-fA-F]"; break;
  case 'H':
    if (in_class) return refuse(t, "\\H inside a class");
    plain = "[^0-9a-fA-F]";
    break;
  case 'b': plain = in_class ? "\\x08" : AT_WORD_EDGE; break;
  case 'B': plain = in_class ? NULL : NOT_AT_WORD_EDGE; break;
  case 'v': plain = "\\x0b"; break;
  default: break;
  }
  if (plain != NULL) {
    put(t, plain);
    t->i += 2;
    return GPTVQ_OK;
  }
  if (c == 'u' && t->i + 5 < t->size) { /* \uHHHH */
    put(t, "\\x{");
    gptvq_bytes_append(t->out, t->p + t->i + 2, 4);
    put(t, "}");
    t->i += 6;
    return GPTVQ_OK;
  }
  size_t length = 2;
  if ((c == 'p' || c == 'P') && next_is(t, 2, '{')) return property(t);
  if (c == 'x' && next_is(t, 2, '{')) { /* copied with its braces */
    while (t->i + length < t->size && t->p[t->i + length] != '}') length++;
    if (t->i + length >= t->size)
      return gptvq_fail(t->err, GPTVQ_ERROR_FORMAT, "regular expression: \\%c{ is not closed", c);
    length++;
  } else if (c == 'k' || c == 'g' || c == 'K' || c == 'y' || c == 'Y') {
    return refuse(t, "\\k, \\g, \\K, \\y or \\Y");
  } else {
    while (t->i + length < t->size && ((unsigned char)t->p[t->i + length] & 0xc0) == 0x80) length++;
  }
  gptvq_bytes_append(t->out, t->p + t->i, length);
  t->i += length;
  return GPTVQ_OK;
}

/* "[:name:]" inside a class, at t->i. Oniguruma's sets by their Unicode properties. */
static gptvq_status posix_set(translation *t) {
  static const struct {
    const char *name, *set;
  } sets[] = {{"[:space:]", SPACE},
              {"[:word:]", WORD},
              {"[:digit:]", "\\p{Nd}"},
              {"[:punct:]", "\\p{P}\\p{S}"},
              {"[:alpha:]", "\\p{Alphabetic}"},
              {"[:alnum:]", "\\p{Alphabetic}\\p{Nd}"},
              {"[:upper:]", "\\p{Uppercase}"},
              {"[:lower:]", "\\p{Lowercase}"},
              {"[:blank:]", "\\t\\p{Zs}"},
              {"[:cntrl:]", "\\p{Cc}"},
              {"[:ascii:]", "\\x{0}-\\x{7f}"},
              {"[:xdigit:]", "0-9a-fA-F"}};
  for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
    size_t length = strlen(sets[i].name);
    if (t->size - t->i < length || memcmp(t->p + t->i, sets[i].name, length) != 0) continue;
    put(t, sets[i].set);
    t->i += length;
    return GPTVQ_OK;
  }
  return refuse(t, "this [:name:]");
}

/* The inside of a class, up to and including its closing bracket, which is not copied. Nested classes are
 * flattened. */
static gptvq_status class_items(translation *t, size_t depth) {
  if (depth > MAX_DEPTH) return refuse(t, "nesting this deep");
  bool first = true;
  for (;; first = false) {
    if (t->i >= t->size) return gptvq_fail(t->err, GPTVQ_ERROR_FORMAT, "regular expression: [ is not closed");
    char c = t->p[t->i];
    if (c == ']' && !first) {
      t->i++;
      return GPTVQ_OK;
    }
    if (c == '\\') {
      GPTVQ_TRY(escape(t, true));
    } else if (c == '[' && next_is(t, 1, ':')) {
      GPTVQ_TRY(posix_set(t));
    } else if (c == '[') {
      if (next_is(t, 1, '^')) return refuse(t, "a negated class inside a class");
      t->i++;
      GPTVQ_TRY(class_items(t, depth + 1));
    } else if (c == '&' && next_is(t, 1, '&')) {
      return refuse(t, "&& inside a class");
    } else {
      if (c == ']') put(t, "\\");
      gptvq_bytes_append(t->out, &c, 1);
      t->i++;
    }
  }
}

/* "(": remembers where the group starts, and turns Ruby's option m (dot matches newline) into PCRE's s. */
static gptvq_status open_group(translation *t) {
  if (t->depth == MAX_DEPTH) return refuse(t, "nesting this deep");
  size_t start = t->out->size, i = t->i + 1;
  put(t, "(");
  if (i < t->size && t->p[i] == '?') {
    put(t, "?");
    i++;
    if (i < t->size && (t->p[i] == '#' || t->p[i] == '~' || t->p[i] == '(' || t->p[i] == '@'))
      return refuse(t, "(?#, (?~, (?( or (?@");
    bool options = false; /* (?imx-imx) or (?imx-imx: */
    size_t k = i;
    while (k < t->size && (t->p[k] == 'i' || t->p[k] == 'm' || t->p[k] == 'x' || t->p[k] == '-')) k++;
    options = k > i && k < t->size && (t->p[k] == ')' || t->p[k] == ':');
    for (; options && i < k; i++) gptvq_bytes_append(t->out, t->p[i] == 'm' ? "s" : t->p + i, 1);
    if (i < t->size && t->p[i] == ')') { /* options for the rest of the group */
      put(t, ")");
      t->i = i + 1;
      t->atom = SIZE_MAX;
      return GPTVQ_OK;
    }
    while (i < t->size &&
           (t->p[i] == ':' || t->p[i] == '=' || t->p[i] == '!' || t->p[i] == '<' || t->p[i] == '>')) {
      gptvq_bytes_append(t->out, t->p + i, 1);
      i++;
    }
  }
  t->groups[t->depth++] = start;
  t->atom = SIZE_MAX;
  t->i = i;
  return GPTVQ_OK;
}

static void wrap_atom(translation *t) {
  gptvq_bytes_append(t->out, "(?:", 3);
  if (t->out->failed) return;
  memmove(t->out->data + t->atom + 3, t->out->data + t->atom, t->out->size - 3 - t->atom);
  memcpy(t->out->data + t->atom, "(?:", 3);
}

/* "{" at t->i: true when it begins an interval {n}, {n,}, {,m} or {n,m}; *end is behind the brace. */
static bool interval(const translation *t, size_t *end, bool *fixed, bool *no_low) {
  size_t i = t->i + 1, low = i;
  while (i < t->size && t->p[i] >= '0' && t->p[i] <= '9') i++;
  *no_low = i == low;
  *fixed = true;
  if (i < t->size && t->p[i] == ',') {
    *fixed = false;
    size_t high = ++i;
    while (i < t->size && t->p[i] >= '0' && t->p[i] <= '9') i++;
    if (*no_low && i == high) return false;
  } else if (*no_low) {
    return false;
  }
  if (i >= t->size || t->p[i] != '}') return false;
  *end = i + 1;
  return true;
}

static void quantifier_interval(translation *t, size_t end, bool fixed, bool no_low) {
  put(t, no_low ? "{0" : "{");
  gptvq_bytes_append(t->out, t->p + t->i + 1, end - t->i - 1);
  t->i = end;
  if (next_is(t, 0, '+')) { /* in Ruby a second, greedy repetition; in PCRE possessive */
    wrap_atom(t);
    put(t, ")+");
    t->i++;
  } else if (next_is(t, 0, '?')) {
    if (fixed) { /* in Ruby: all of it may be absent; in PCRE: lazy */
      wrap_atom(t);
      put(t, ")?");
    } else {
      put(t, "?");
    }
    t->i++;
  }
}

gptvq_status gptvq_regex_translate(const char *pattern, size_t size, gptvq_bytes *out, gptvq_error *err) {
  if (size > MAX_PATTERN)
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED, "regular expression: %zu bytes are too many", size);
  translation t = {.p = pattern, .size = size, .out = out, .atom = SIZE_MAX, .err = err};
  while (t.i < t.size) {
    char c = t.p[t.i];
    size_t end;
    bool fixed, no_low;
    if (c == '\\') {
      t.atom = out->size;
      GPTVQ_TRY(escape(&t, false));
    } else if (c == '[') {
      t.atom = out->size;
      put(&t, "[");
      t.i++;
      if (next_is(&t, 0, '^')) {
        put(&t, "^");
        t.i++;
      }
      GPTVQ_TRY(class_items(&t, 0));
      put(&t, "]");
    } else if (c == '(') {
      GPTVQ_TRY(open_group(&t));
    } else if (c == ')') {
      put(&t, ")");
      t.atom = t.depth > 0 ? t.groups[--t.depth] : SIZE_MAX;
      t.i++;
    } else if (c == '{' && t.atom != SIZE_MAX && interval(&t, &end, &fixed, &no_low)) {
      quantifier_interval(&t, end, fixed, no_low);
    } else if (c == '{') {
      t.atom = out->size;
      put(&t, "\\{");
      t.i++;
    } else {
      if (c == '|' || c == '^' || c == '$') t.atom = SIZE_MAX;
      else if (c != '*' && c != '+' && c != '?') t.atom = out->size;
      size_t length = 1;
      while (t.i + length < t.size && ((unsigned char)t.p[t.i + length] & 0xc0) == 0x80) length++;
      gptvq_bytes_append(out, t.p + t.i, length);
      t.i += length;
    }
  }
  return out->failed ? gptvq_fail_memory(err, "a regular expression", size) : GPTVQ_OK;
}
