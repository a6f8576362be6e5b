/* docs/MODELS.md says what the code does: a row for every family and a family for every row, and what it
 * names as tested is there. */
#include "base/file.h"
#include "model/arch/arch.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define PAGE TEST_SOURCE_DIR "/docs/MODELS.md"
#define GOLDEN TEST_SOURCE_DIR "/tests/golden/model/"

#define ADDRESS_OF(family) &gptvq_arch_##family,
static const gptvq_arch *const families[] = {GPTVQ_FAMILIES(ADDRESS_OF)};
enum { FAMILIES = sizeof families / sizeof families[0], NAMES = 256, LENGTH = 64 };

typedef struct list {
  char names[NAMES][LENGTH];
  size_t count;
} list;

static size_t count_of(const list *l, const char *name) {
  size_t count = 0;
  for (size_t i = 0; i < l->count; i++) count += strcmp(l->names[i], name) == 0;
  return count;
}

/* The names in backquotes of text[0, end). */
static void add_quoted(const char *text, const char *end, list *l) {
  while (text < end && (text = memchr(text, '`', (size_t)(end - text))) != NULL) {
    const char *close = memchr(text + 1, '`', (size_t)(end - text - 1));
    assert_non_null(close);
    size_t length = (size_t)(close - text - 1);
    assert_true(l->count < NAMES && length < LENGTH);
    memcpy(l->names[l->count], text + 1, length);
    l->names[l->count++][length] = '\0';
    text = close + 1;
  }
}

/* First and third column of the page's first table. */
static void read_page(list *rows, list *tested) {
  char *text;
  size_t size;
  assert_int_equal(gptvq_read_file(PAGE, 1 << 20, &text, &size, NULL), GPTVQ_OK);
  const char *line = strstr(text, "| --- | --- | --- | --- |\n");
  assert_non_null(line);
  for (line = strchr(line, '\n') + 1; *line == '|'; line = strchr(line, '\n') + 1) {
    const char *bars[5] = {line};
    for (size_t i = 1; i < 5; i++) assert_non_null(bars[i] = strchr(bars[i - 1] + 1, '|'));
    assert_true(bars[4] < strchr(line, '\n'));
    size_t rows_before = rows->count, tested_before = tested->count;
    add_quoted(bars[0], bars[1], rows);
    add_quoted(bars[2], bars[3], tested);
    assert_int_equal(rows->count, rows_before + 1);
    if (tested->count == tested_before) fail_msg("%s: nothing is tested", rows->names[rows_before]);
  }
  free(text);
}

static void every_family_has_a_row(void **state) {
  (void)state;
  static list rows, tested;
  rows.count = tested.count = 0;
  read_page(&rows, &tested);
  for (size_t i = 0; i < FAMILIES; i++)
    if (count_of(&rows, families[i]->name) != 1)
      fail_msg("%s has no row of its own in docs/MODELS.md", families[i]->name);
  for (size_t i = 0; i < rows.count; i++) {
    char architecture[LENGTH + 16];
    (void)snprintf(architecture, sizeof architecture, "%sForCausalLM", rows.names[i]);
    if (gptvq_find_arch(architecture) == NULL) fail_msg("%s is a row, but no family", rows.names[i]);
  }
}

static void every_variant_is_a_folder(void **state) {
  (void)state;
  static list rows, tested;
  rows.count = tested.count = 0;
  read_page(&rows, &tested);
  for (size_t i = 0; i < tested.count; i++) {
    char path[512];
    (void)snprintf(path, sizeof path, GOLDEN "%s/config.json", tested.names[i]);
    if (access(path, R_OK) != 0) fail_msg("%s is not there", path);
  }
  DIR *dir = opendir(GOLDEN);
  assert_non_null(dir);
  for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
    char path[512];
    (void)snprintf(path, sizeof path, GOLDEN "%.200s/config.json", entry->d_name);
    if (entry->d_name[0] == '.' || access(path, R_OK) != 0) continue;
    if (count_of(&tested, entry->d_name) != 1) fail_msg("%s is in no row of docs/MODELS.md", entry->d_name);
  }
  closedir(dir);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_family_has_a_row),
      cmocka_unit_test(every_variant_is_a_folder),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
