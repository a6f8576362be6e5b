/* GGUF files as originals: blocks, the merges of scored vocabularies. Whole files: tests/cli/gguf_in.sh. */
#include "base/memory.h"
#include "gguf/ggml.h"
#include "gguf/merges.h"
#include "gguf/reader.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static uint32_t next_u32(const uint8_t **at) {
  *at += 4;
  return gptvq_gguf_u32_at(*at - 4);
}

static void blocks(void **state) {
  (void)state;
  gptvq_mapping file;
  gptvq_error err;
  assert_int_equal(gptvq_map_file(TEST_SOURCE_DIR "/tests/golden/gguf/blocks.bin", &file, &err), GPTVQ_OK);
  assert_memory_equal(file.data, "GPTVQGB1", 8);
  const uint8_t *at = file.data + 8;
  const uint32_t count = next_u32(&at);
  assert_int_equal(count, 15);
  for (uint32_t i = 0; i < count; i++) {
    const uint32_t type = next_u32(&at), n = next_u32(&at), bytes = next_u32(&at);
    size_t values, block;
    float *got = gptvq_alloc(n, sizeof *got);
    assert_non_null(got);
    assert_true(gptvq_ggml_block(type, &values, &block));
    assert_int_equal(gptvq_ggml_row_bytes((gptvq_ggml_type)type, n), bytes);
    gptvq_ggml_decode((gptvq_ggml_type)type, at, n, got);
    for (uint32_t v = 0; v < n; v++) {
      float want;
      memcpy(&want, at + bytes + 4 * v, sizeof want);
      if (memcmp(&got[v], &want, sizeof want) != 0 && (got[v] != 0.0f || want != 0.0f))
        fail_msg("%s: value %u is %.9g, not %.9g", gptvq_ggml_name(type), v, (double)got[v], (double)want);
    }
    at += bytes + 4 * n;
    free(got);
  }
  assert_ptr_equal(at, file.data + file.size);
  gptvq_unmap_file(&file);
}

static void types(void **state) {
  (void)state;
  size_t values, bytes;
  assert_false(gptvq_ggml_block(9, &values, &bytes)); /* Q8_1: of products, never in files */
  assert_string_equal(gptvq_ggml_name(21), "IQ3_S");
  assert_null(gptvq_ggml_name(4));
  assert_null(gptvq_ggml_name(UINT32_MAX));
  assert_false(gptvq_ggml_block(UINT32_MAX, &values, &bytes));
}

static gptvq_piece_text piece(const char *text, float score) {
  return (gptvq_piece_text){text, strlen(text), score, true};
}

/* Higher scores first; of one score the longest left part, then the longest right one. */
static void merges(void **state) {
  (void)state;
  gptvq_piece_text pieces[] = {piece("a", -9),   piece("\xc3\xa4", -9),  piece("aa", -2),
                               piece("aaa", -1), piece("a\xc3\xa4", -2), piece("<x>", 0)};
  pieces[5].merges = false;
  gptvq_piece_merge *got;
  size_t count;
  assert_true(gptvq_piece_merges(pieces, 6, &got, &count));
  static const uint32_t want[][2] = {{2, 0}, {0, 2}, {0, 0}, {0, 1}};
  assert_int_equal(count, 4);
  for (size_t i = 0; i < count; i++) {
    assert_int_equal(got[i].left, want[i][0]);
    assert_int_equal(got[i].right, want[i][1]);
  }
  free(got);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(blocks), cmocka_unit_test(types),
                                     cmocka_unit_test(merges)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
