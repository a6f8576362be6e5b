#include "text/template/lexer.h"

#include "base/json.h"
#include "text/template/strings.h"
#include "text/utf8.h"

#include <stdio.h>

typedef struct lexer {
  gptvq_tpl *t;
  gptvq_string source; /* line ends are \n */
  size_t at;
  gptvq_token *tokens;
  size_t count, room;
  char open[GPTVQ_TPL_MAX_NESTING]; /* brackets that wait for their partner */
  size_t opened;
} lexer;

static void push(lexer *l, gptvq_token_kind kind, gptvq_string text) {
  if (l->count == l->room) {
    size_t room = gptvq_max_size(64, 2 * l->room);
    gptvq_token *tokens = gptvq_tpl_alloc(l->t, room, sizeof *tokens);
    if (l->count > 0) memcpy(tokens, l->tokens, l->count * sizeof *tokens);
    l->tokens = tokens;
    l->room = room;
  }
  l->tokens[l->count++] = (gptvq_token){.kind = kind, .line = l->t->line, .text = text};
}

_Noreturn static void bad(lexer *l, const char *what) {
  gptvq_tpl_fail(l->t, GPTVQ_ERROR_FORMAT, "%s", what);
}

static bool looking_at(const lexer *l, size_t at, const char *what) {
  size_t size = strlen(what);
  return at <= l->source.size && l->source.size - at >= size && memcmp(l->source.data + at, what, size) == 0;
}

static size_t skip_spaces(const lexer *l, size_t at) {
  size_t size;
  while (at < l->source.size && gptvq_tpl_is_python_space(gptvq_utf8_get(l->source.data + at, &size)))
    at += size;
  return at;
}

/* Moves on to `to`, counting lines. */
static void advance(lexer *l, size_t to) {
  for (; l->at < to; l->at++) l->t->line += l->source.data[l->at] == '\n';
}

/* Line ends as \n, without the last one. */
static gptvq_string normalize(gptvq_tpl *t, gptvq_string source) {
  char *out = gptvq_tpl_alloc(t, source.size, 1);
  size_t size = 0;
  for (size_t i = 0; i < source.size; i++) {
    if (source.data[i] == '\n' && i > 0 && source.data[i - 1] == '\r') continue;
    out[size++] = source.data[i] == '\r' ? '\n' : source.data[i];
  }
  return (gptvq_string){out, size - (size > 0 && out[size - 1] == '\n')};
}

/* ---- the end of a tag ---- */

/* Length of a tag's end at `at` (with the white space that goes with it), or 0. */
static size_t tag_end(const lexer *l, size_t at, const char *close, bool trims) {
  char minus[4], plus[4];
  (void)snprintf(minus, sizeof minus, "-%s", close);
  (void)snprintf(plus, sizeof plus, "+%s", close);
  if (trims && looking_at(l, at, plus)) return 3;
  if (looking_at(l, at, minus)) return skip_spaces(l, at + 3) - at;
  if (!looking_at(l, at, close)) return 0;
  return trims && looking_at(l, at + 2, "\n") ? 3 : 2;
}

/* ---- text before a tag ---- */

/* Pushes source[from … to), less what the tag behind it takes: `sign` stands behind the tag's begin. */
static void push_data(lexer *l, size_t from, size_t to, char sign, bool strips, bool line_start) {
  gptvq_string text = gptvq_part(l->source, from, to);
  if (sign == '-') {
    text = gptvq_tpl_strip(l->t, text, GPTVQ_STRING(""), false, true);
  } else if (sign != '+' && strips) {
    size_t begin = text.size;
    while (begin > 0 && text.data[begin - 1] != '\n') begin--;
    gptvq_string last = gptvq_part(text, begin, text.size);
    if ((begin > 0 || line_start) && last.size > 0 &&
        gptvq_tpl_strip(l->t, last, GPTVQ_STRING(""), true, false).size == 0)
      text.size = begin;
  }
  if (text.size > 0) push(l, GPTVQ_TOKEN_DATA, text);
  advance(l, to);
}

static char sign_at(const lexer *l, size_t at) {
  return looking_at(l, at, "-") || looking_at(l, at, "+") ? l->source.data[at] : '\0';
}

/* {% raw %} at `at`: the offset behind it, or 0. */
static size_t raw_begin(const lexer *l, size_t at) {
  at += 2;
  at = skip_spaces(l, at + (sign_at(l, at) != '\0'));
  if (!looking_at(l, at, "raw")) return 0;
  at = skip_spaces(l, at + 3);
  if (looking_at(l, at, "-%}")) return skip_spaces(l, at + 3);
  return looking_at(l, at, "%}") ? at + 2 : 0;
}

/* The text up to {% endraw %} and that tag. */
static void lex_raw(lexer *l) {
  for (size_t at = l->at; at < l->source.size; at++) {
    if (!looking_at(l, at, "{%")) continue;
    char sign = sign_at(l, at + 2);
    size_t end = skip_spaces(l, at + 2 + (sign != '\0'));
    if (!looking_at(l, end, "endraw")) continue;
    end = skip_spaces(l, end + 6);
    size_t size = tag_end(l, end, "%}", true);
    if (size == 0) continue;
    push_data(l, l->at, at, sign, true, l->source.data[l->at - 1] == '\n');
    advance(l, end + size);
    return;
  }
  bad(l, "{% raw %} without {% endraw %}");
}

static void lex_comment(lexer *l) {
  for (size_t at = l->at; at < l->source.size; at++) {
    size_t size = tag_end(l, at, "#}", true);
    if (size == 0) continue;
    advance(l, at + size);
    return;
  }
  bad(l, "{# without #}");
}

/* ---- inside of a tag ---- */

static int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c = (char)(c | 0x20);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* One escape of a string, behind the backslash at s[at]; returns what it took. */
static size_t lex_escape(lexer *l, gptvq_builder *b, gptvq_string s, size_t at) {
  static const char simple[] = "\\\\''\"\"a\ab\bf\fn\nr\rt\tv\v"; /* pairs: letter, character */
  char c = s.data[at];
  for (const char *pair = simple; *pair != '\0'; pair += 2) {
    if (*pair != c) continue;
    gptvq_tpl_build(l->t, b, pair + 1, 1);
    return 1;
  }
  if (c == '\n') return 1;
  size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
  uint32_t code = 0;
  if (digits > 0) {
    for (size_t i = 1; i <= digits; i++) {
      int digit = at + i < s.size ? hex_digit(s.data[at + i]) : -1;
      if (digit < 0) bad(l, "a string with a truncated \\x, \\u or \\U escape");
      code = code << 4 | (uint32_t)digit;
    }
    if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
      bad(l, "a string with an escape that is no character");
    gptvq_tpl_build_char(l->t, b, code);
    return digits + 1;
  }
  if (c == 'N') gptvq_tpl_fail(l->t, GPTVQ_ERROR_UNSUPPORTED, "\\N{…} in a string is not supported");
  size_t size = 0;
  while (size < 3 && at + size < s.size && s.data[at + size] >= '0' && s.data[at + size] <= '7')
    code = code << 3 | (uint32_t)(s.data[at + size++] - '0');
  if (size > 0) gptvq_tpl_build_char(l->t, b, code);
  else gptvq_tpl_build_text(l->t, b, "\\"); /* not an escape: both characters stay */
  return size;
}

static void lex_string(lexer *l) {
  char quote = l->source.data[l->at];
  size_t end = l->at + 1;
  bool escapes = false;
  while (end < l->source.size && l->source.data[end] != quote) {
    if (l->source.data[end] == '\\') {
      escapes = true;
      end++;
    }
    end++;
  }
  if (end >= l->source.size) bad(l, "a string without its end");
  gptvq_string s = gptvq_part(l->source, l->at + 1, end);
  gptvq_builder b = {0};
  for (size_t at = 0; escapes && at < s.size;) {
    const char *backslash = memchr(s.data + at, '\\', s.size - at);
    size_t plain = backslash == NULL ? s.size - at : (size_t)(backslash - s.data) - at;
    gptvq_tpl_build(l->t, &b, s.data + at, plain);
    at += plain;
    if (at < s.size) at += 1 + lex_escape(l, &b, s, at + 1);
  }
  push(l, GPTVQ_TOKEN_STRING, escapes ? gptvq_tpl_built(&b) : s);
  advance(l, end + 1);
}

static bool is_digit(const lexer *l, size_t at) {
  return at < l->source.size && l->source.data[at] >= '0' && l->source.data[at] <= '9';
}

/* (digits_)*digits from `at`; returns the end */
static size_t lex_digits(const lexer *l, size_t at) {
  while (is_digit(l, at) || (looking_at(l, at, "_") && is_digit(l, at + 1))) at++;
  return at;
}

static void lex_number(lexer *l) {
  char text[64];
  size_t begin = l->at, end = lex_digits(l, begin), size = 0, fraction = 0;
  bool real = false, decimal = true;
  if (begin == 0 || l->source.data[begin - 1] != '.') {
    fraction = looking_at(l, end, ".") && is_digit(l, end + 1) ? lex_digits(l, end + 1) : end;
    size_t exponent = fraction;
    if (looking_at(l, fraction, "e") || looking_at(l, fraction, "E")) {
      exponent += 1 + (sign_at(l, fraction + 1) != '\0');
      exponent = is_digit(l, exponent) ? lex_digits(l, exponent) : fraction;
    }
    real = exponent > end;
    if (real) end = exponent;
  }
  if (!real && looking_at(l, begin, "0") && end == begin + 1 && end + 1 < l->source.size) {
    char base = (char)(l->source.data[end] | 0x20);
    size_t digits = end + 1;
    while (digits < l->source.size && (hex_digit(l->source.data[digits]) >= 0 || looking_at(l, digits, "_")))
      digits++;
    if ((base == 'x' || base == 'o' || base == 'b') && digits > end + 1) {
      decimal = false;
      end = digits;
    }
  }
  if (!real && decimal && looking_at(l, begin, "0")) /* zeros are a number of their own */
    for (end = begin; looking_at(l, end, "0") || looking_at(l, end, "_0"); end++) continue;
  if (end - begin >= sizeof text) bad(l, "a number of too many digits");
  for (size_t i = begin; i < end; i++)
    if (l->source.data[i] != '_') text[size++] = l->source.data[i];
  text[size] = '\0';
  if (!decimal)
    gptvq_tpl_fail(l->t, GPTVQ_ERROR_UNSUPPORTED, "numbers that are not decimal (%s) are not supported",
                   text);
  push(l, GPTVQ_TOKEN_NUMBER, gptvq_part(l->source, begin, end));
  char *from = text + strspn(text, "0"); /* JSON has no leading zeros, and no locale either */
  if (*from < '0' || *from > '9') from--;
  json_error_t why;
  json_t *json = gptvq_json_parse(from, strlen(from), JSON_DECODE_ANY, &why);
  if (json == NULL && gptvq_json_no_memory(&why)) gptvq_tpl_fail(l->t, GPTVQ_ERROR_MEMORY, "out of memory");
  if (json == NULL) gptvq_tpl_fail(l->t, GPTVQ_ERROR_UNSUPPORTED, "the number %s is too large", text);
  l->tokens[l->count - 1].number =
      real ? gptvq_float(json_number_value(json)) : gptvq_int((int64_t)json_integer_value(json));
  json_decref(json);
  advance(l, end);
}

static bool name_char(char c, bool first) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (unsigned char)c >= 0x80 ||
         (!first && c >= '0' && c <= '9');
}

static void lex_operator(lexer *l) {
  static const char *const operators[] = {"**", "//", "==", "!=", ">=", "<=", "+", "-", "/",
                                          "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                          ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
  for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
    if (!looking_at(l, l->at, operators[i])) continue;
    char c = operators[i][0];
    if (c == '(' || c == '[' || c == '{') {
      if (l->opened == GPTVQ_TPL_MAX_NESTING)
        gptvq_tpl_fail(l->t, GPTVQ_ERROR_UNSUPPORTED, "more than %d levels of brackets",
                       GPTVQ_TPL_MAX_NESTING);
      l->open[l->opened++] = (char)(c == '(' ? ')' : c + 2);
    } else if (c == ')' || c == ']' || c == '}') {
      if (l->opened == 0 || l->open[--l->opened] != c)
        gptvq_tpl_fail(l->t, GPTVQ_ERROR_FORMAT, "unexpected '%c'", c);
    }
    push(l, GPTVQ_TOKEN_OPERATOR, (gptvq_string){operators[i], strlen(operators[i])});
    l->at += strlen(operators[i]);
    return;
  }
  int size = (int)gptvq_char_size(l->source.data[l->at]);
  gptvq_tpl_fail(l->t, GPTVQ_ERROR_FORMAT, "unexpected character '%.*s'", size, l->source.data + l->at);
}

static void lex_tag(lexer *l, bool block) {
  int line = l->t->line;
  push(l, block ? GPTVQ_TOKEN_BLOCK_BEGIN : GPTVQ_TOKEN_PRINT_BEGIN, GPTVQ_STRING("begin of a tag"));
  while (l->at < l->source.size) {
    size_t end = l->opened == 0 ? tag_end(l, l->at, block ? "%}" : "}}", block) : 0;
    char c = l->source.data[l->at];
    size_t space = skip_spaces(l, l->at), name = l->at;
    if (end > 0) {
      push(l, block ? GPTVQ_TOKEN_BLOCK_END : GPTVQ_TOKEN_PRINT_END, GPTVQ_STRING("end of a tag"));
      advance(l, l->at + end);
      return;
    }
    if (space > l->at) {
      advance(l, space);
    } else if (is_digit(l, l->at)) {
      lex_number(l);
    } else if (name_char(c, true)) {
      while (name < l->source.size && name_char(l->source.data[name], false)) name++;
      push(l, GPTVQ_TOKEN_NAME, gptvq_part(l->source, l->at, name));
      l->at = name;
    } else if (c == '"' || c == '\'') {
      lex_string(l);
    } else {
      lex_operator(l);
    }
  }
  l->t->line = line;
  bad(l, block ? "{% without %}" : "{{ without }}");
}

gptvq_token *gptvq_tpl_lex(gptvq_tpl *t, gptvq_string source) {
  lexer l = {.t = t, .source = normalize(t, source)};
  t->line = 1;
  while (l.at < l.source.size) {
    bool line_start = l.at == 0 || l.source.data[l.at - 1] == '\n';
    size_t at = l.at;
    while (at < l.source.size && !looking_at(&l, at, "{%") && !looking_at(&l, at, "{{") &&
           !looking_at(&l, at, "{#"))
      at++;
    if (at == l.source.size) {
      push(&l, GPTVQ_TOKEN_DATA, gptvq_part(l.source, l.at, at));
      advance(&l, at);
      break;
    }
    char kind = l.source.data[at + 1], sign = sign_at(&l, at + 2);
    push_data(&l, l.at, at, sign, kind != '{', line_start);
    size_t raw = kind == '%' ? raw_begin(&l, at) : 0;
    advance(&l, raw > 0 ? raw : at + 2 + (sign != '\0'));
    if (raw > 0) lex_raw(&l);
    else if (kind == '#') lex_comment(&l);
    else lex_tag(&l, kind == '%');
  }
  push(&l, GPTVQ_TOKEN_END, GPTVQ_STRING("end of the template"));
  t->line = 0;
  return l.tokens;
}
