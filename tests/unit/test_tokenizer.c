/* The tokenizer against the `tokenizers` package, id for id (tests/golden/text/make_fixtures.py says what the
 * files hold); streams, bad files, damaged files, long texts. */
#include "copy_file.h"
#include "base/memory.h"
#include "base/random.h"

#include <gptvq/tokenizer.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define GOLDEN TEST_SOURCE_DIR "/tests/golden/text/"

static const char *const names[] = {"stories", "llama3", "qwen2", "gpt2",  "o200k", "llama2",
                                    "mistral", "phi3",   "mixed", "words", "nul",   "gemma"};
enum { NAMES = sizeof names / sizeof *names };

static uint32_t crc32_of(const void *data, size_t size) {
  const unsigned char *p = data;
  uint32_t crc = 0xffffffffu;
  for (size_t i = 0; i < size; i++) {
    crc ^= p[i];
    for (int k = 0; k < 8; k++) crc = crc & 1 ? crc >> 1 ^ 0xedb88320u : crc >> 1;
  }
  return ~crc;
}

/* A fixture file, read from the front. */
typedef struct reader {
  gptvq_mapping map;
  size_t at;
} reader;

static reader reader_open(const char *name) {
  char path[512];
  reader r = {0};
  gptvq_error err = {0};
  (void)snprintf(path, sizeof path, GOLDEN "%s.bin", name);
  if (gptvq_map_file(path, &r.map, &err) != GPTVQ_OK) fail_msg("%s", err.message);
  return r;
}
static const uint8_t *take(reader *r, size_t size) {
  assert_true(size <= r->map.size - r->at);
  r->at += size;
  return r->map.data + r->at - size;
}
static uint32_t take_u32(reader *r) {
  uint32_t value;
  memcpy(&value, take(r, 4), 4);
  return value;
}
static uint16_t take_u16(reader *r) {
  uint16_t value;
  memcpy(&value, take(r, 2), 2);
  return value;
}

static gptvq_tokenizer *open_tokenizer(const char *name) {
  char path[512];
  gptvq_tokenizer *t;
  gptvq_error err = {0};
  if (strcmp(name, "stories") == 0) (void)snprintf(path, sizeof path, TEST_SOURCE_DIR "/examples/stories-4m");
  else (void)snprintf(path, sizeof path, GOLDEN "%s.json", name);
  if (gptvq_tokenizer_open(path, &t, &err) != GPTVQ_OK) fail_msg("%s", err.message);
  return t;
}

static int32_t *encode(const gptvq_tokenizer *t, const void *text, size_t size, int special, size_t *count) {
  int32_t *ids;
  gptvq_error err = {0};
  if (gptvq_tokenizer_encode(t, text, size, special, &ids, count, &err) != GPTVQ_OK)
    fail_msg("%s", err.message);
  assert_non_null(ids);
  return ids;
}

static size_t failures;

static void compare_ids(const char *name, size_t line, const int32_t *got, size_t got_count,
                        const int32_t *want, size_t want_count) {
  size_t i = 0;
  while (i < got_count && i < want_count && got[i] == want[i]) i++;
  if (i == got_count && i == want_count) return;
  if (failures++ < 20)
    print_error("%s: line %zu: id %zu: got %d of %zu ids, want %d of %zu\n", name, line, i,
                i < got_count ? (int)got[i] : -1, got_count, i < want_count ? (int)want[i] : -1, want_count);
}

/* Decoding at once and through a stream, whose pieces are well-formed on their own. */
static void compare_text(const char *name, size_t line, const gptvq_tokenizer *t, const int32_t *ids,
                         size_t count, int skip, uint32_t crc) {
  char *text;
  size_t size, at = 0, piece_size;
  const char *piece;
  gptvq_error err;
  gptvq_text_stream *stream;
  assert_int_equal(gptvq_tokenizer_decode(t, ids, count, skip, &text, &size, &err), GPTVQ_OK);
  assert_int_equal(text[size], 0);
  if (crc32_of(text, size) != crc && failures++ < 20)
    print_error("%s: line %zu: decoded (skip %d) to \"%s\", not what is expected\n", name, line, skip, text);
  assert_int_equal(gptvq_text_stream_create(t, skip, &stream, &err), GPTVQ_OK);
  for (size_t i = 0; i <= count; i++) {
    if (i < count)
      assert_int_equal(gptvq_text_stream_push(stream, ids[i], &piece, &piece_size, &err), GPTVQ_OK);
    else assert_int_equal(gptvq_text_stream_flush(stream, &piece, &piece_size, &err), GPTVQ_OK);
    assert_true(piece_size <= size - at);
    assert_memory_equal(piece, text + at, piece_size);
    at += piece_size;
    assert_true(at == size || ((unsigned char)text[at] & 0xc0) != 0x80); /* never inside a character */
  }
  assert_int_equal(at, size);
  gptvq_text_stream_destroy(stream);
  gptvq_free(text);
}

/* Reads count and ids of an entry, malloc'd. */
static int32_t *take_ids(reader *r, size_t *count) {
  *count = take_u16(r);
  int32_t *ids = malloc((*count + 1) * sizeof *ids);
  assert_non_null(ids);
  for (size_t i = 0; i < *count; i++) ids[i] = take_u16(r);
  return ids;
}

static void compare_decoding(const char *name, size_t line, const gptvq_tokenizer *t, const int32_t *ids,
                             size_t count, reader *r) {
  uint32_t keep = take_u32(r), skip = take_u32(r);
  compare_text(name, line, t, ids, count, 0, keep);
  compare_text(name, line, t, ids, count, 1, skip);
}

static void equal_to_the_package(const char *name) {
  reader lines = reader_open("lines"), want = reader_open(name);
  gptvq_tokenizer *t = open_tokenizer(name);
  char *all = malloc(lines.map.size);
  size_t all_size = 0, count, got_count;
  assert_non_null(all);
  assert_int_equal(take_u32(&want), 0x314b5447);
  size_t before = take_u16(&want), after = take_u16(&want), line_count = take_u32(&want);
  assert_int_equal(take_u32(&lines), line_count);
  assert_true(line_count >= 2000);
  failures = 0;
  for (size_t i = 0; i < line_count; i++) {
    size_t size = take_u32(&lines);
    const uint8_t *line = take(&lines, size);
    int32_t *ids = take_ids(&want, &count), *got = encode(t, line, size, 1, &got_count);
    compare_ids(name, i, got, got_count, ids, count);
    gptvq_free(got);
    got = encode(t, line, size, 0, &got_count);
    compare_ids(name, i, got, got_count, ids + before, count - before - after);
    gptvq_free(got);
    compare_decoding(name, i, t, ids, count, &want);
    free(ids);
    if (i > 0) all[all_size++] = '\n';
    memcpy(all + all_size, line, size);
    all_size += size;
  }
  /* all lines at once */
  int32_t *got = encode(t, all, all_size, 0, &got_count);
  uint16_t *narrow = malloc(got_count * sizeof *narrow);
  assert_non_null(narrow);
  for (size_t i = 0; i < got_count; i++) narrow[i] = (uint16_t)got[i];
  assert_int_equal(got_count, take_u32(&want));
  assert_int_equal(crc32_of(narrow, got_count * sizeof *narrow), take_u32(&want));
  free(narrow);
  gptvq_free(got);
  free(all);
  /* ids in any order */
  size_t sequences = take_u32(&want);
  for (size_t i = 0; i < sequences; i++) {
    int32_t *ids = take_ids(&want, &count);
    compare_decoding(name, line_count + i, t, ids, count, &want);
    free(ids);
  }
  assert_int_equal(want.at, want.map.size);
  assert_int_equal(failures, 0);
  gptvq_tokenizer_close(t);
  gptvq_unmap_file(&lines.map);
  gptvq_unmap_file(&want.map);
}

static void every_fixture_is_equal_to_the_package(void **state) {
  (void)state;
  for (size_t i = 0; i < NAMES; i++) equal_to_the_package(names[i]);
}

static void special_ids(void **state) {
  (void)state;
  gptvq_tokenizer *t = open_tokenizer("stories");
  assert_int_equal(gptvq_tokenizer_vocab_size(t), 1024);
  assert_int_equal(gptvq_tokenizer_bos(t), 0); /* from tokenizer_config.json: the template has none */
  assert_int_equal(gptvq_tokenizer_eos(t), 1);
  assert_int_equal(gptvq_tokenizer_token_to_id(t, "<|end_of_text|>"), 1);
  assert_int_equal(gptvq_tokenizer_token_to_id(t, "!"), 2);
  assert_int_equal(gptvq_tokenizer_token_to_id(t, "no such token"), -1);
  gptvq_tokenizer_close(t);
  t = open_tokenizer("mistral");
  assert_int_equal(gptvq_tokenizer_bos(t), 1);
  assert_int_equal(gptvq_tokenizer_eos(t), -1);
  size_t count;
  int32_t *ids = encode(t, "", 0, 1, &count);
  assert_int_equal(count, 2);
  assert_int_equal(ids[0], 1);
  assert_int_equal(ids[1], 2);
  gptvq_free(ids);
  ids = encode(t, NULL, 0, 0, &count);
  assert_int_equal(count, 0);
  gptvq_free(ids);
  gptvq_tokenizer_close(t);
}

/* `size` bytes or a little more of one unit again and again; the ids decode to the text where the tokenizer
 * is lossless. */
static void long_run(const gptvq_tokenizer *t, const char *unit, size_t size, bool lossless) {
  size_t length = strlen(unit), filled = 0, count, back_size;
  char *text = malloc(size + length), *back;
  assert_non_null(text);
  for (; filled < size; filled += length) memcpy(text + filled, unit, length);
  int32_t *ids = encode(t, text, filled, 0, &count);
  if (lossless) {
    assert_int_equal(gptvq_tokenizer_decode(t, ids, count, 0, &back, &back_size, NULL), GPTVQ_OK);
    assert_int_equal(back_size, filled);
    assert_memory_equal(back, text, filled);
    gptvq_free(back);
  }
  gptvq_free(ids);
  free(text);
}

/* Long runs of one kind: no deep recursion, no quadratic time, and the way back. */
static void long_texts_come_back(void **state) {
  (void)state;
  static const char *const units[] = {"a", " ", "\n", "\xc3\xa9",         "ab ",
                                      "1", ".", "'s", "\xf0\x9f\x98\x80", "\xe2\x96\x81"};
  for (size_t n = 0; n < NAMES; n++) {
    gptvq_tokenizer *t = open_tokenizer(names[n]);
    bool lossless = n < 5 && strcmp(names[n], "gpt2") != 0; /* byte-level without a prefix */
    for (size_t u = 0; u < sizeof units / sizeof *units; u++)
      long_run(t, units[u], (size_t)1 << 14, lossless);
    if (strcmp(names[n], "llama3") == 0 || strcmp(names[n], "llama2") == 0) {
      long_run(t, "a", (size_t)1 << 20, lossless);
      long_run(t, " ", (size_t)1 << 20, lossless);
    }
    gptvq_tokenizer_close(t);
  }
  /* marks in an order that canonical ordering must reverse: 300,000 of them in one run */
  gptvq_tokenizer *t = open_tokenizer("qwen2");
  long_run(t, "\xcc\x81\xcc\xa3\xcc\xa7", 600000, false);
  gptvq_tokenizer_close(t);
}

/* ---- bad files ---- */

static gptvq_status open_text(const char *text, size_t size, gptvq_error *err) {
  gptvq_tokenizer *t = (gptvq_tokenizer *)(uintptr_t)1;
  assert_int_equal(gptvq_write_file("bad-tokenizer.json", text, size, err), GPTVQ_OK);
  gptvq_status status = gptvq_tokenizer_open("bad-tokenizer.json", &t, err);
  if (status == GPTVQ_OK) {
    size_t count, back_size; /* it must be usable */
    static const char sample[] = "Hello <s> w\xc3\xb6rld\xff 123  x</s>\n";
    int32_t *ids;
    char *back;
    if (gptvq_tokenizer_encode(t, sample, sizeof sample - 1, 1, &ids, &count, err) == GPTVQ_OK) {
      if (gptvq_tokenizer_decode(t, ids, count, 1, &back, &back_size, err) == GPTVQ_OK) gptvq_free(back);
      gptvq_free(ids);
    }
    gptvq_tokenizer_close(t);
  } else {
    assert_null(t);
    assert_true(strlen(err->message) > 0);
  }
  return status;
}

/* NUL as a token: keys of a JSON object that jansson does not take. The ids are those of tokenizers 0.23.3.
 */
static void nul_is_a_character(void **state) {
  (void)state;
  static const char text[] = "\0 a\0 \\u0000 \\\0\xef\xb7\x90\0 b\0c \0\n\0\0\0 \"\0\":";
  static const int32_t want[] = {1,   661, 317, 663, 317, 275, 294, 51,  51,  51,  51,  317, 666,
                                 668, 317, 671, 317, 672, 662, 661, 317, 259, 661, 259, 270};
  enum { WANT = sizeof want / sizeof *want };
  gptvq_error err = {0};
  gptvq_tokenizer *t = open_tokenizer("nul");
  size_t count;
  int32_t *ids = encode(t, text, sizeof text - 1, 1, &count);
  assert_int_equal(count, WANT);
  assert_memory_equal(ids, want, sizeof want);
  gptvq_free(ids);
  assert_int_equal(gptvq_tokenizer_token_to_id(t, "\xef\xb7\x90"), 667);
  assert_int_equal(gptvq_tokenizer_token_to_id(t, "\xef\xb7\x91"), -1); /* what stands for NUL is no token */
  gptvq_tokenizer_close(t);

  /* tokenizer_config.json is read the same way */
  assert_int_equal(gptvq_make_folder("nul-tokenizer", &err), GPTVQ_OK);
  assert_int_equal(copy_file(GOLDEN "nul.json", "nul-tokenizer/tokenizer.json", &err), GPTVQ_OK);
  static const char config[] =
      "{\"eos_token\": \"\\u0000\\u0000\", \"bos_token\": \"<s>\", \"extra\": {\"\\u0000\": 1}}";
  assert_int_equal(gptvq_write_file("nul-tokenizer/tokenizer_config.json", config, sizeof config - 1, &err),
                   GPTVQ_OK);
  if (gptvq_tokenizer_open("nul-tokenizer", &t, &err) != GPTVQ_OK) fail_msg("%s", err.message);
  assert_int_equal(gptvq_tokenizer_eos(t), 662);
  gptvq_tokenizer_close(t);
  assert_int_equal(gptvq_remove_tree("nul-tokenizer", &err), GPTVQ_OK);

  /* all noncharacters but one in use, in one way or the other; then that one too */
  for (unsigned used = 31; used <= 32; used++) {
    char all[1024] = "{\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{\"\\u0000\":0}},\"x\":\"";
    for (unsigned i = 0; i < used; i++) {
      char escape[16];
      if (i % 2 == 0) (void)snprintf(escape, sizeof escape, "\\u%s%02X", i % 4 == 0 ? "fd" : "FD", 0xd0 + i);
      else (void)snprintf(escape, sizeof escape, "\xef\xb7%c", (char)(0x90 + i));
      strcat(all, escape);
    }
    strcat(all, "\"}");
    gptvq_status status = open_text(all, strlen(all), &err);
    assert_int_equal(status, used < 32 ? GPTVQ_OK : GPTVQ_ERROR_UNSUPPORTED);
  }
  assert_non_null(strstr(err.message, "bad-tokenizer.json: NUL in a key"));
  assert_int_equal(unlink("bad-tokenizer.json"), 0);
}

static void bad_files_are_named(void **state) {
  (void)state;
  static const struct {
    gptvq_status status;
    const char *text, *says;
  } cases[] = {
      {GPTVQ_ERROR_FORMAT, "", "not valid JSON"},
      {GPTVQ_ERROR_FORMAT, "{", "not valid JSON"},
      {GPTVQ_ERROR_FORMAT, "[]", "object"},
      {GPTVQ_ERROR_FORMAT, "{}", "no \"model\""},
      {GPTVQ_ERROR_UNSUPPORTED, "{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}",
       "tokenizer model Unigram is not supported"},
      {GPTVQ_ERROR_UNSUPPORTED, "{\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}", "WordPiece"},
      {GPTVQ_ERROR_FORMAT, "{\"model\":{\"type\":\"BPE\",\"merges\":[]}}", "model.vocab"},
      {GPTVQ_ERROR_FORMAT, "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}", "model.merges"},
      {GPTVQ_ERROR_FORMAT, "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}",
       "id of token \"a\""},
      {GPTVQ_ERROR_FORMAT, "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1e9},\"merges\":[]}}",
       "id of token \"a\""},
      {GPTVQ_ERROR_FORMAT, "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0.5},\"merges\":[]}}",
       "id of token \"a\""},
      {GPTVQ_ERROR_FORMAT, "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[\"a b\"]}}",
       "names the token \"ab\""},
      {GPTVQ_ERROR_FORMAT,
       "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"ab\":1},\"merges\":[[\"a\",\"b\"]]}}",
       "names the token \"b\""},
      {GPTVQ_ERROR_FORMAT, "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a\"]}}",
       "merge 1"},
      {GPTVQ_ERROR_FORMAT, "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}",
       "merge 1"},
      {GPTVQ_ERROR_UNSUPPORTED,
       "{\"model\":{\"type\":\"BPE\",\"dropout\":0.1,\"vocab\":{\"a\":0},\"merges\":[]}}", "dropout"},
      {GPTVQ_ERROR_UNSUPPORTED,
       "{\"normalizer\":{\"type\":\"Precompiled\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},"
       "\"merges\":[]}}",
       "normalizer Precompiled is not supported"},
      {GPTVQ_ERROR_UNSUPPORTED,
       "{\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},"
       "\"merges\":[]}}",
       "pre_tokenizer UnicodeScripts is not supported"},
      {GPTVQ_ERROR_UNSUPPORTED,
       "{\"decoder\":{\"type\":\"CTC\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}",
       "decoder CTC is not supported"},
      {GPTVQ_ERROR_UNSUPPORTED,
       "{\"post_processor\":{\"type\":\"X\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}",
       "post_processor X is not supported"},
      {GPTVQ_ERROR_FORMAT,
       "{\"normalizer\":[1],\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}", "normalizer"},
      {GPTVQ_ERROR_UNSUPPORTED,
       "{\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":\"[a&&b]\"}},"
       "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}",
       "&&"},
      {GPTVQ_ERROR_UNSUPPORTED,
       "{\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":\"(a\"}},"
       "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}",
       "regular expression"},
      {GPTVQ_ERROR_UNSUPPORTED,
       "{\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"String\":\"\"}},"
       "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}",
       "empty pattern"},
      {GPTVQ_ERROR_FORMAT,
       "{\"added_tokens\":[{\"id\":1}],\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}",
       "content"},
  };
  gptvq_error err;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    gptvq_status status = open_text(cases[i].text, strlen(cases[i].text), &err);
    if (status != cases[i].status || strstr(err.message, cases[i].says) == NULL)
      fail_msg("case %zu: status %d, \"%s\"", i, (int)status, err.message);
    assert_non_null(strstr(err.message, "bad-tokenizer.json"));
  }
  gptvq_tokenizer *t;
  assert_int_equal(gptvq_tokenizer_open("no/such/folder", &t, &err), GPTVQ_ERROR_IO);
  assert_int_equal(gptvq_tokenizer_open(TEST_SOURCE_DIR "/tests", &t, &err), GPTVQ_ERROR_IO);
  assert_non_null(strstr(err.message, "no tokenizer.json"));
  (void)unlink("bad-tokenizer.json");
}

/* Twenty steps that each turn one character into ten: an error, not the machine's memory. */
static void explosive_normalizers_are_stopped(void **state) {
  (void)state;
  char text[4096] = "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},\"normalizer\":{"
                    "\"type\":\"Sequence\",\"normalizers\":[";
  for (int i = 0; i < 20; i++)
    (void)snprintf(text + strlen(text), sizeof text - strlen(text),
                   "%s{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"aaaaaaaaaa\"}",
                   i == 0 ? "" : ",");
  (void)snprintf(text + strlen(text), sizeof text - strlen(text), "]}}");
  gptvq_error err;
  gptvq_tokenizer *t;
  int32_t *ids = &(int32_t){0};
  size_t count;
  assert_int_equal(gptvq_write_file("bad-tokenizer.json", text, strlen(text), &err), GPTVQ_OK);
  assert_int_equal(gptvq_tokenizer_open("bad-tokenizer.json", &t, &err), GPTVQ_OK);
  assert_int_equal(gptvq_tokenizer_encode(t, "a", 1, 0, &ids, &count, &err), GPTVQ_ERROR_DATA);
  assert_null(ids);
  assert_non_null(strstr(err.message, "blows a text up"));
  gptvq_tokenizer_close(t);
  (void)unlink("bad-tokenizer.json");
}

/* Nesting deeper than any parser's stack, as JSON, as Sequence and inside a regular expression. */
static void hostile_nesting_is_refused(void **state) {
  (void)state;
  enum { DEPTH = 100000 };
  static const struct {
    const char *front, *open, *middle, *close, *back;
    size_t depth;
  } cases[] = {
      {"{\"x\":", "[", "", "]", "}", DEPTH},
      {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},\"normalizer\":",
       "{\"type\":\"Sequence\",\"normalizers\":[", "", "]}", "}", 500},
      {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},\"pre_tokenizer\":{\"type\":"
       "\"Split\",\"pattern\":{\"Regex\":\"",
       "(", "a", ")", "\"}}}", 30000},
      {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},\"pre_tokenizer\":{\"type\":"
       "\"Split\",\"pattern\":{\"Regex\":\"",
       "[", "a", "]", "\"}}}", 30000},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    size_t size = 0;
    char *text = malloc(cases[i].depth * 48 + 512);
    assert_non_null(text);
    size += (size_t)sprintf(text, "%s", cases[i].front);
    for (size_t d = 0; d < cases[i].depth; d++) size += (size_t)sprintf(text + size, "%s", cases[i].open);
    size += (size_t)sprintf(text + size, "%s", cases[i].middle);
    for (size_t d = 0; d < cases[i].depth; d++) size += (size_t)sprintf(text + size, "%s", cases[i].close);
    size += (size_t)sprintf(text + size, "%s", cases[i].back);
    gptvq_error err;
    gptvq_status status = open_text(text, size, &err);
    assert_true(status == GPTVQ_ERROR_FORMAT || status == GPTVQ_ERROR_UNSUPPORTED);
    free(text);
  }
  (void)unlink("bad-tokenizer.json");
}

/* Cut and flipped files open or fail cleanly (the sanitizers watch). */
static void damaged_files_do_no_harm(void **state) {
  (void)state;
  uint64_t random = 1;
  size_t refused = 0, tried = 0;
  for (size_t n = 1; n < NAMES; n += 4) {
    char path[512], *data, *copy;
    size_t size;
    gptvq_error err;
    (void)snprintf(path, sizeof path, GOLDEN "%s.json", names[n]);
    assert_int_equal(gptvq_read_file(path, 1 << 20, &data, &size, &err), GPTVQ_OK);
    copy = malloc(size);
    assert_non_null(copy);
    for (int i = 0; i < 60; i++, tried++) {
      memcpy(copy, data, size);
      size_t cut = size;
      if (i % 4 == 0) cut = gptvq_random_below(&random, size);
      for (int k = 0; i % 4 != 0 && k < 1 + i % 3; k++) {
        size_t near = i % 2 == 0 ? 600 : size; /* often among the settings at the front */
        size_t at =
            i % 5 == 0 ? size - 1 - gptvq_random_below(&random, near) : gptvq_random_below(&random, near);
        copy[at] = "\"{}[],:0e-\\x \xff"[gptvq_random_below(&random, 14)];
      }
      if (open_text(copy, cut, &err) != GPTVQ_OK) refused++;
    }
    free(copy);
    free(data);
  }
  assert_true(refused > tried / 4); /* a cut never opens */
  (void)unlink("bad-tokenizer.json");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(every_fixture_is_equal_to_the_package),
                                     cmocka_unit_test(special_ids),
                                     cmocka_unit_test(long_texts_come_back),
                                     cmocka_unit_test(nul_is_a_character),
                                     cmocka_unit_test(bad_files_are_named),
                                     cmocka_unit_test(explosive_normalizers_are_stopped),
                                     cmocka_unit_test(hostile_nesting_is_refused),
                                     cmocka_unit_test(damaged_files_do_no_harm)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
