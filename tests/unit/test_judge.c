/* text: which files are called unusable as text, and which are not. */
#include "text/judge.h"
#include "base/file.h"
#include "base/random.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { MOST = 8 << 20 };
static char text[MOST], line[512];
static size_t size;
static gptvq_tokenizer *tokenizer;

#define ok(expression) \
  do { \
    gptvq_error err_ = {0}; \
    gptvq_error *err = &err_; \
    if ((expression) != GPTVQ_OK) fail_msg("%s", err_.message); \
  } while (0)

static int open_tokenizer(void **state) {
  (void)state;
  return gptvq_tokenizer_open(TEST_SOURCE_DIR "/examples/stories-4m", &tokenizer, NULL) != GPTVQ_OK;
}
static int close_tokenizer(void **state) {
  (void)state;
  gptvq_tokenizer_close(tokenizer);
  return 0;
}

static void add(const void *bytes, size_t count) {
  assert_true(size + count <= MOST);
  memcpy(text + size, bytes, count);
  size += count;
}
static void add_times(const char *piece, size_t times) {
  for (size_t i = 0; i < times; i++) add(piece, strlen(piece));
}
static void put(const char *piece, size_t times) {
  size = 0;
  add_times(piece, times);
}
static void put_file(const char *path, size_t most) {
  char *data, whole[512];
  size_t bytes;
  (void)snprintf(whole, sizeof whole, "%s/%s", TEST_SOURCE_DIR, path);
  ok(gptvq_read_file(whole, MOST, &data, &bytes, err));
  size = 0;
  add(data, bytes < most ? bytes : most);
  free(data);
}

/* By bytes, then by tokens, as the library does. */
static gptvq_text_kind judge(void) {
  gptvq_text_kind kind = gptvq_text_judge("x.txt", text, size, NULL, 0, line, sizeof line);
  if (kind != GPTVQ_TEXT_PLAIN) return kind;
  int32_t *ids;
  size_t count;
  ok(gptvq_tokenizer_encode(tokenizer, text, size, 0, &ids, &count, err));
  kind = gptvq_text_judge("x.txt", NULL, 0, ids, count, line, sizeof line);
  gptvq_free(ids);
  return kind;
}

#define expect(kind, words) \
  do { \
    gptvq_text_kind kind_ = judge(); \
    if (kind_ != (kind) || strncmp(line, "x.txt ", 6) != 0 || strstr(line, words) == NULL) \
      fail_msg("kind %d, \"%s\", not kind %d, \"%s\"", (int)kind_, line, (int)(kind), words); \
    assert_null(strchr(line, '\n')); \
  } while (0)
#define expect_plain(what) \
  do { \
    gptvq_text_kind kind_ = judge(); \
    if (kind_ != GPTVQ_TEXT_PLAIN || line[0] != '\0') fail_msg("%s: %s", what, line); \
  } while (0)

/* The text so far in units of `width` bytes per ASCII character. */
static void widen(size_t width, bool big) {
  static char wide[MOST];
  size_t count = size < MOST / width ? size : MOST / width;
  memset(wide, 0, count * width);
  for (size_t i = 0; i < count; i++) wide[i * width + (big ? width - 1 : 0)] = text[i];
  size = 0;
  add(wide, count * width);
}

static void other_encodings_are_named(void **state) {
  (void)state;
  static const char *const names[2][2] = {{"UTF-16LE", "UTF-16BE"}, {"UTF-32LE", "UTF-32BE"}};
  for (size_t width = 2; width <= 4; width += 2)
    for (int big = 0; big < 2; big++)
      for (size_t most = 20; most <= 1000000; most *= 50) {
        put_file("examples/text/calib.txt", most);
        widen(width, big);
        expect(GPTVQ_TEXT_FOREIGN, names[width / 2 - 1][big]);
      }
  /* with a mark: also scripts without zeros */
  size = 0;
  add("\xff\xfe\x2d\x4e\x87\x65", 6);
  expect(GPTVQ_TEXT_FOREIGN, "UTF-16");
  size = 0;
  add("\xfe\xff\x4e\x2d\x65\x87", 6);
  expect(GPTVQ_TEXT_FOREIGN, "UTF-16");
  size = 0;
  add("\xff\xfe\0\0\x41\0\0\0", 8);
  expect(GPTVQ_TEXT_FOREIGN, "UTF-32");

  put("Le gar\xe7on a mang\xe9 une p\xea"
      "che tr\xe8s m\xfbre pr\xe8s de la rivi\xe8re.\n",
      100);
  expect(GPTVQ_TEXT_FOREIGN, "perhaps Latin-1: convert it (iconv -f ISO-8859-1 -t UTF-8)");
  put("\xcf\xf0\xe8\xe2\xe5\xf2, \xec\xe8\xf0! ", 100); /* CP1251 */
  expect(GPTVQ_TEXT_FOREIGN, "iconv -f ENCODING");
  /* only the end of a long text */
  put_file("examples/text/calib.txt", 990000);
  add_times("\xfc"
            "ber die H\xe4user ",
            30000);
  expect(GPTVQ_TEXT_FOREIGN, "Latin-1");
}

static void files_that_are_no_text_are_named(void **state) {
  (void)state;
  static const struct {
    const char *bytes;
    size_t size;
    const char *words;
  } cases[] = {{"\x1f\x8b\x08\0\0\0", 6, "gzip"},
               {"PK\3\4\x14\0", 6, "zip"},
               {"\x28\xb5\x2f\xfd\x24", 5, "zstd"},
               {"\xfd"
                "7zXZ\0",
                6, "xz"},
               {"BZh91AY&SY\x11\x22", 12, "bzip2"},
               {"PAR1\x15\x04\x15", 7, "Parquet file"},
               {"ARROW1\0\0\xff", 9, "Arrow"},
               {"%PDF-1.7\n", 9, "PDF"},
               {"SQLite format 3\0\x10", 17, "SQLite"},
               {"{\\rtf1\\ansi text}", 17, "RTF"}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    size = 0;
    add(cases[i].bytes, cases[i].size);
    expect(GPTVQ_TEXT_FOREIGN, cases[i].words);
  }
  memset(text, 0, size = 100000);
  expect(GPTVQ_TEXT_FOREIGN, "binary");
  uint64_t random = 5;
  for (size = 0; size < 100000; size++) text[size] = (char)gptvq_random(&random);
  expect(GPTVQ_TEXT_FOREIGN, "binary");
  put_file("examples/stories-4m/model.safetensors", 2000000);
  expect(GPTVQ_TEXT_FOREIGN, "binary");
}

static void wrapped_text_is_named(void **state) {
  (void)state;
  put("{\"text\": \"Once upon a time\", \"id\": 1}\n{\"text\": \"The \\\"end\\\"\", \"id\": 2}\r\n\n", 50);
  expect(GPTVQ_TEXT_WRAPPED, "JSON lines");
  put("\xef\xbb\xbf\n{\"text\": \"a\"}\n{\"text\": \"b\"}", 1); /* no line end after the last one */
  expect(GPTVQ_TEXT_WRAPPED, "JSON lines");
  put("{\"text\": \"", 1); /* the second line is longer than what is looked at */
  add_times("Once upon a time ", 30000);
  add_times("\"}\n{\"text\": \"", 1);
  add_times("Once upon a time ", 100000);
  expect(GPTVQ_TEXT_REPEATED, "repeats itself"); /* one whole line is no evidence */
  put("\n<!DOCTYPE HTML>\n<title>404</title>", 1);
  expect(GPTVQ_TEXT_WRAPPED, "HTML");
  put("<html lang=\"en\"><body>Hello</body></html>", 1);
  expect(GPTVQ_TEXT_WRAPPED, "HTML");
}

static void repetition_is_seen(void **state) {
  (void)state;
  put("the ", 100000);
  expect(GPTVQ_TEXT_REPEATED, "repeats itself");
  put("\n", 100000);
  expect(GPTVQ_TEXT_REPEATED, "ordinary text");
  put("0", 100000);
  expect(GPTVQ_TEXT_REPEATED, "ordinary text");
  put("The quick brown fox jumps over the lazy dog. ", 40);
  expect(GPTVQ_TEXT_REPEATED, "ordinary text");
  put_file("examples/text/calib.txt", 5000); /* about 1,500 tokens, forty times */
  char *page = strndup(text, size);
  assert_non_null(page);
  add_times(page, 39);
  free(page);
  expect(GPTVQ_TEXT_REPEATED, "ordinary text");
  uint64_t random = 5; /* two tokens by chance */
  for (size = 0; size < 100000; size += 2) memcpy(text + size, gptvq_random(&random) >> 63 ? " a" : " b", 2);
  expect(GPTVQ_TEXT_REPEATED, "ordinary text");
}

static void ordinary_texts_are_let_pass(void **state) {
  (void)state;
  const char *const files[] = {"examples/text/calib.txt",
                               "examples/text/eval.txt",
                               "README.md",
                               "src/text/bpe.c",
                               "CMakeLists.txt",
                               "examples/stories-4m/config.json",
                               "examples/stories-4m/tokenizer.json",
                               "bench/quality.csv",
                               "tests/golden/eval/reference.json"};
  for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
    put_file(files[i], MOST);
    expect_plain(files[i]);
    for (size_t most = 1; most < 3000; most = most * 3 / 2 + 1) { /* their beginnings, cut anywhere */
      put_file(files[i], most);
      expect_plain(files[i]);
    }
  }
  put("人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。\n", 1);
  expect_plain("Chinese");
  put("すべての人間は、生れながらにして自由であり、かつ、尊厳と権利とについて平等である。\r\n", 1);
  expect_plain("Japanese");
  put("يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق. وقد وهبوا عقلاً وضميرًا.\n", 1);
  expect_plain("Arabic");
  put("Все люди рождаются свободными и равными в своём достоинстве и правах.\n", 1);
  expect_plain("Russian");
  put("人人生而自由", 1);
  size -= 1; /* cut inside a character */
  expect_plain("cut Chinese");
  memmove(text, text + 1, --size);
  expect_plain("Chinese cut at its beginning");

  size = 0; /* a song of which two thirds are the refrain */
  for (int n = 99; n > 60; n--) {
    char verse[256];
    (void)snprintf(
        verse, sizeof verse,
        "%d bottles of beer on the wall, %d bottles of beer.\nTake one down and pass it around, %d bottles "
        "of beer on the wall.\n\n",
        n, n, n - 1);
    add(verse, strlen(verse));
  }
  expect_plain("a song");
  put("Row, row, row your boat,\nGently down the stream.\nMerrily, merrily, merrily, merrily,\nLife is but a "
      "dream.\n",
      4);
  expect_plain("a canon");
  put("ha ", 15);
  expect_plain("a short text");
  put("", 0);
  expect_plain("nothing");
  size = 0; /* a log */
  for (int i = 0; i < 2000; i++) {
    char entry[256];
    (void)snprintf(entry, sizeof entry,
                   "2024-05-%02d 12:%02d:%02d \x1b[32mINFO\x1b[0m request %d done in %d ms\r\n", 1 + i / 100,
                   i / 60 % 60, i % 60, i, i * 7919 % 400);
    add(entry, strlen(entry));
  }
  expect_plain("a log");
  put("{\n  \"text\": \"a document\",\n  \"lines\": [1, 2, 3]\n}\n", 1);
  expect_plain("a JSON document");
  put("{\"text\": \"a document on one line\"}\n", 1);
  expect_plain("one JSON object");
  put("{\"text\": \"an object\"}\n{ and then prose\n", 1);
  expect_plain("a brace");
  put("[{\"text\": \"a\"},\n{\"text\": \"b\"}]\n", 1);
  expect_plain("a JSON list");
  put_file("examples/text/eval.txt", 100000);
  memcpy(text + 50000, "\xe9\0\xff", 3); /* a damaged place */
  expect_plain("a damaged place");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(other_encodings_are_named), cmocka_unit_test(files_that_are_no_text_are_named),
      cmocka_unit_test(wrapped_text_is_named), cmocka_unit_test(repetition_is_seen),
      cmocka_unit_test(ordinary_texts_are_let_pass)};
  return cmocka_run_group_tests(tests, open_tokenizer, close_tokenizer);
}
