/* Texts that are hardly what their user thinks: another encoding, a file that is no text, text wrapped in
 * JSON or HTML, the same few tokens over and over. They can all be tokenized, and give a worse model or a
 * meaningless perplexity without a word. */
#include "text/judge.h"
#include "base/json.h"
#include "base/memory.h"
#include "text/utf8.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* ---- files that say by their first bytes what they are ---- */

static const struct {
  const char *bytes;
  size_t size;
  const char *what, *remedy;
} signatures[] = {
#define UNPACK "unpack it"
#define EXPORT "export its text as UTF-8"
    {"\x1f\x8b", 2, "a gzip file", UNPACK},
    {"PK\3\4", 4, "a zip file", UNPACK},
    {"\x28\xb5\x2f\xfd", 4, "a zstd file", UNPACK},
    {"\xfd"
     "7zXZ",
     6, "an xz file", UNPACK},
    {"7z\xbc\xaf\x27\x1c", 6, "a 7z file", UNPACK},
    {"\x04\x22\x4d\x18", 4, "an lz4 file", UNPACK},
    {"PAR1", 4, "a Parquet file", EXPORT},
    {"ARROW1", 6, "an Arrow file", EXPORT},
    {"\x93NUMPY", 6, "a NumPy file", EXPORT},
    {"\x89HDF\r\n", 6, "an HDF5 file", EXPORT},
    {"SQLite format 3", 16, "an SQLite database", EXPORT},
    {"GGUF", 4, "a GGUF model", "give a text"},
    {"%PDF-", 5, "a PDF file", EXPORT},
    {"{\\rtf", 5, "an RTF document", EXPORT},
    {"\xff\xfe\0\0", 4, "UTF-32", "convert it (iconv -f UTF-32 -t UTF-8)"},
    {"\0\0\xfe\xff", 4, "UTF-32", "convert it (iconv -f UTF-32 -t UTF-8)"},
    {"\xff\xfe", 2, "UTF-16", "convert it (iconv -f UTF-16 -t UTF-8)"},
    {"\xfe\xff", 2, "UTF-16", "convert it (iconv -f UTF-16 -t UTF-8)"},
#undef UNPACK
#undef EXPORT
};

/* bzip2: level and the first digits of pi */
static bool is_bzip2(const char *text, size_t size) {
  return size >= 10 && memcmp(text, "BZh", 3) == 0 && memcmp(text + 4, "1AY&SY", 6) == 0;
}

static bool judge_signature(const char *name, const char *text, size_t size, char *line, size_t line_size) {
  for (size_t i = 0; i < sizeof signatures / sizeof signatures[0]; i++)
    if (size >= signatures[i].size && memcmp(text, signatures[i].bytes, signatures[i].size) == 0) {
      (void)snprintf(line, line_size, "%s looks like %s, not like UTF-8 text: %s", name, signatures[i].what,
                     signatures[i].remedy);
      return true;
    }
  if (!is_bzip2(text, size)) return false;
  (void)snprintf(line, line_size, "%s looks like a bzip2 file, not like UTF-8 text: unpack it", name);
  return true;
}

/* ---- files whose bytes are not those of UTF-8 text ---- */

enum { PIECES = 20, PIECE = 16384 }; /* what is looked at: 320 KiB from all over the text */

typedef struct byte_counts {
  size_t bytes, zeros[4], control, high; /* zeros by place in the text modulo 4 */
  size_t invalid;                        /* sequences that are not UTF-8 */
} byte_counts;

/* Characters that no text has; those that terminal logs have (backspace, escape) are let pass. */
static bool is_control(unsigned char c) {
  return (c < 0x20 && c != 0 && c != 0x1b && !(c >= '\b' && c <= '\r')) || c == 0x7f;
}

static void count_bytes(const char *text, size_t begin, size_t end, byte_counts *counts) {
  for (size_t i = begin; i < end; i++) {
    unsigned char c = (unsigned char)text[i];
    counts->zeros[i % 4] += c == 0;
    counts->control += is_control(c);
    counts->high += c >= 0x80;
  }
  counts->bytes += end - begin;
  size_t at = begin; /* the cut may have gone through a sequence, here and at the end */
  while (at < end && at < begin + 3 && ((unsigned char)text[at] & 0xc0) == 0x80) at++;
  while (at < end) {
    uint32_t c;
    at += gptvq_utf8_decode(text + at, end - at, &c);
    counts->invalid += c == GPTVQ_UTF8_BAD;
  }
}

/* UTF-16 or UTF-32 of mostly Western text, without a mark: zeros, all of them at the same places. One byte in
 * a thousand must be zero (line ends alone give more) and nearly all of them (20 to 1) in the upper halves;
 * numbers and programs have them elsewhere too, and other control characters. */
static const char *wide_encoding(const byte_counts *c) {
  const size_t *z = c->zeros, units = c->bytes / 4;
  size_t even = z[0] + z[2], odd = z[1] + z[3];
  if (100 * c->control >= c->bytes) return NULL;
  if (z[3] >= units && 10 * z[2] >= 9 * units && 10 * z[0] < units) return "UTF-32LE";
  if (z[0] >= units && 10 * z[1] >= 9 * units && 10 * z[3] < units) return "UTF-32BE";
  if (odd >= 20 * even) return "UTF-16LE";
  return even >= 20 * odd ? "UTF-16BE" : NULL;
}

static bool judge_bytes(const char *name, const char *text, size_t size, char *line, size_t line_size) {
  byte_counts c = {0};
  if (size <= PIECES * PIECE) count_bytes(text, 0, size, &c);
  else
    for (size_t i = 0; i < PIECES; i++) {
      size_t begin = (size_t)((unsigned __int128)(size - PIECE) * i / (PIECES - 1));
      count_bytes(text, begin, begin + PIECE, &c);
    }
  bool zeros = 1000 * (c.zeros[0] + c.zeros[1] + c.zeros[2] + c.zeros[3]) >= c.bytes;
  const char *wide = zeros ? wide_encoding(&c) : NULL;
  if (wide != NULL) {
    (void)snprintf(line, line_size,
                   "%s looks like %s, not like UTF-8 text: convert it (iconv -f %s -t UTF-8)", name, wide,
                   wide);
    return true;
  }
  /* random bytes are control characters one time in nine, text has none */
  if (zeros || 100 * c.control >= c.bytes) {
    (void)snprintf(line, line_size,
                   "%s looks like a binary file, not like UTF-8 text: export its text as UTF-8", name);
    return true;
  }
  /* An invalid byte becomes U+FFFD, up to three tokens; at four bytes to a token, one byte in a thousand is a
   * token in a hundred. Fewer do no harm worth a word: a damaged place in a good text. */
  if (1000 * c.invalid < c.bytes) return false;
  bool western = 10 * c.high < 3 * c.bytes; /* accents among ASCII letters; else another script */
  (void)snprintf(
      line, line_size,
      "%s is not UTF-8 (of %zu bytes looked at, %zu are out of place)%s: convert it (iconv -f %s -t "
      "UTF-8)",
      name, c.bytes, c.invalid, western ? ", perhaps Latin-1" : "", western ? "ISO-8859-1" : "ENCODING");
  return true;
}

/* ---- text inside something else ---- */

enum { MOST_LINES = 16, FEWEST_LINES = 2, MOST_BYTES = 1 << 20 }; /* what is parsed to tell JSON lines */

static size_t skip_blank(const char *text, size_t size) {
  size_t at = size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
  while (at < size && (text[at] == ' ' || (text[at] >= '\t' && text[at] <= '\r'))) at++;
  return at;
}

/* Is each of the first lines a JSON object? One object, on one line or many, is a document like any other. */
static bool is_json_lines(const char *text, size_t size) {
  size_t lines = 0, bound = gptvq_min_size(size, MOST_BYTES);
  for (size_t at = 0; at < bound && lines < MOST_LINES;) {
    const char *end = memchr(text + at, '\n', bound - at);
    if (end == NULL && bound < size) break; /* the line goes on */
    size_t length = end != NULL ? (size_t)(end - text) - at : size - at;
    size_t blank = skip_blank(text + at, length);
    if (blank < length) {
      if (text[at + blank] != '{') return false;
      json_error_t where; /* out of memory: no judgement */
      json_t *value = gptvq_json_parse(text + at + blank, length - blank, 0, &where);
      bool object = json_is_object(value);
      json_decref(value);
      if (!object) return false;
      lines++;
    }
    at += length + 1;
  }
  return lines >= FEWEST_LINES;
}

static bool judge_wrapping(const char *name, const char *text, size_t size, char *line, size_t line_size) {
  size_t at = skip_blank(text, size);
  const char *start = text + at;
  if (at < size && *start == '{' && is_json_lines(text, size)) {
    (void)snprintf(
        line, line_size,
        "%s looks like JSON lines, and their braces and keys are read as text: export the text in them",
        name);
    return true;
  }
  const char *const pages[] = {"<!doctype html", "<html"};
  for (size_t i = 0; i < 2; i++)
    if (size - at >= strlen(pages[i]) && strncasecmp(start, pages[i], strlen(pages[i])) == 0) {
      (void)snprintf(line, line_size,
                     "%s looks like an HTML page, and its tags are read as text: export its text", name);
      return true;
    }
  return false;
}

/* ---- the same over and over ---- */

/* Runs of 8 tokens are looked at, 65,536 of them from all over the text. The share of different ones is 0.66
 * to 0.94 in prose, 0.6 to 0.8 in programs and tables, 0.12 in a log of packages, 0.05 in build files that a
 * program wrote; a page of 2,000 tokens, repeated, has 0.03. Below one in thirty the text is thirty copies of
 * less. */
enum { RUN = 8, RUN_PIECES = 16, RUN_PIECE = 4096, FEWEST_RUNS = 64, TABLE = 1 << 17, RARE = 30 };

/* Was it new? */
static bool insert(uint64_t *table, const int32_t *run) {
  uint64_t hash = 1;
  for (size_t i = 0; i < RUN; i++) {
    hash = (hash ^ (uint32_t)run[i]) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 32;
  }
  hash |= hash == 0; /* 0: a free place */
  size_t at = (size_t)(hash % TABLE);
  while (table[at] != 0 && table[at] != hash) at = (at + 1) % TABLE;
  bool fresh = table[at] == 0;
  table[at] = hash;
  return fresh;
}

static bool judge_tokens(const char *name, const int32_t *ids, size_t count, char *line, size_t line_size) {
  if (count < FEWEST_RUNS + RUN - 1) return false;
  size_t runs = count - RUN + 1, looked_at = 0, different = 0;
  uint64_t *table = gptvq_alloc_zero(TABLE, sizeof *table);
  if (table == NULL) return false; /* what follows needs more memory than this and will say so */
  bool all = runs <= RUN_PIECES * RUN_PIECE;
  for (size_t piece = 0; piece < (all ? 1 : RUN_PIECES); piece++) {
    size_t begin = all ? 0 : (size_t)((unsigned __int128)(runs - RUN_PIECE) * piece / (RUN_PIECES - 1));
    size_t length = all ? runs : RUN_PIECE;
    for (size_t i = begin; i < begin + length; i++) different += insert(table, ids + i);
    looked_at += length;
  }
  free(table);
  if (RARE * different >= looked_at) return false;
  (void)snprintf(line, line_size,
                 "%s repeats itself: of %zu runs of %d tokens only %zu are different; use ordinary text",
                 name, looked_at, RUN, different);
  return true;
}

const char *gptvq_text_kind_name(gptvq_text_kind kind) {
  static const char *const names[] = {"plain", "foreign", "wrapped", "repeated"};
  return (unsigned)kind < sizeof names / sizeof names[0] ? names[kind] : "unknown";
}

gptvq_text_kind gptvq_text_judge(const char *name, const char *text, size_t size, const int32_t *ids,
                                 size_t count, char *line, size_t line_size) {
  if (size > 0 &&
      (judge_signature(name, text, size, line, line_size) || judge_bytes(name, text, size, line, line_size)))
    return GPTVQ_TEXT_FOREIGN;
  if (size > 0 && judge_wrapping(name, text, size, line, line_size)) return GPTVQ_TEXT_WRAPPED;
  if (count > 0 && judge_tokens(name, ids, count, line, line_size)) return GPTVQ_TEXT_REPEATED;
  if (line_size > 0) line[0] = '\0';
  return GPTVQ_TEXT_PLAIN;
}

bool gptvq_text_warn(const gptvq_callbacks *callbacks, const char *name, const char *text, size_t size,
                     const int32_t *ids, size_t count) {
  char line[1024];
  if (gptvq_text_judge(name, text, size, ids, count, line, sizeof line) == GPTVQ_TEXT_PLAIN) return false;
  gptvq_log(callbacks, GPTVQ_LOG_WARNING, "%s", line);
  return true;
}
