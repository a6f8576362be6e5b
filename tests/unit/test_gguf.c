/* GGUF files as originals: blocks, the merges of scored vocabularies. Whole files: tests/cli/gguf_in.sh. */
#include "base/memory.h"
#include "copy_file.h"
#include "gguf/ggml.h"
#include "gguf/merges.h"
#include "gguf/reader.h"
#include "export/gguf_tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <gptvq/tokenizer.h>

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

/* ---- tokenizers: what export makes of a folder's, read again ---- */

static void write_tokenizer(const char *folder, const char *path) {
  gptvq_gguf *file;
  gptvq_error err;
  const size_t dims[2] = {1, 1};
  const float one = 1.0f;
  assert_int_equal(gptvq_gguf_create(path, &file, &err), GPTVQ_OK);
  gptvq_gguf_text(file, "general.architecture", "llama", 5);
  if (gptvq_gguf_tokenizer(file, folder, 4096, -1, &err) != GPTVQ_OK) fail_msg("%s", err.message);
  gptvq_gguf_declare(file, "token_embd.weight", GPTVQ_GGML_F32, 2, dims);
  assert_int_equal(gptvq_gguf_write(file, &one, sizeof one, &err), GPTVQ_OK);
  assert_int_equal(gptvq_gguf_commit(file, &err), GPTVQ_OK);
}

/* What GGUF cannot say: added tokens that take the space beside them or are whole words; Mistral's BPE puts
 * no space behind an added token or before a space, llama.cpp does; Gemma's rows of spaces are such tokens.
 */
static bool is_plain(const char *text, size_t size) {
  if (size == 0 || (unsigned char)text[0] <= ' ' || (unsigned char)text[0] >= 0x80) return false;
  for (size_t i = 0; i < size; i++)
    if (text[i] == '<' || text[i] == '[' || text[i] == 'W' ||
        (text[i] == ' ' && (i == 0 || text[i - 1] == ' ')))
      return false;
  return true;
}

static size_t compare(const gptvq_tokenizer *a, const gptvq_tokenizer *b) {
  gptvq_mapping lines;
  gptvq_error err;
  size_t plain = 0;
  assert_int_equal(gptvq_map_file(TEST_SOURCE_DIR "/tests/golden/text/lines.bin", &lines, &err), GPTVQ_OK);
  const uint8_t *at = lines.data;
  for (uint32_t count = next_u32(&at); count > 0; count--) {
    const uint32_t size = next_u32(&at);
    const char *text = (const char *)at;
    int32_t *ids[2];
    size_t n[2];
    at += size;
    if (!is_plain(text, size)) continue;
    plain++;
    assert_int_equal(gptvq_tokenizer_encode(a, text, size, 0, &ids[0], &n[0], &err), GPTVQ_OK);
    assert_int_equal(gptvq_tokenizer_encode(b, text, size, 0, &ids[1], &n[1], &err), GPTVQ_OK);
    if (n[0] != n[1] || memcmp(ids[0], ids[1], n[0] * sizeof **ids) != 0)
      fail_msg("other ids: %.*s", (int)size, text);
    char *decoded[2];
    for (int i = 0; i < 2; i++)
      assert_int_equal(gptvq_tokenizer_decode(i == 0 ? a : b, ids[i], n[i], 1, &decoded[i], &n[i], &err),
                       GPTVQ_OK);
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(decoded[0], decoded[1], n[0]);
    for (int i = 0; i < 2; i++) {
      free(ids[i]);
      free(decoded[i]);
    }
  }
  gptvq_unmap_file(&lines);
  return plain;
}

static void tokenizers(void **state) {
  (void)state;
  static const char *const names[] = {"llama2", "mistral", "gemma", "phi3", "llama3", "qwen2", "o200k"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char folder[] = "gptvq-gguf-XXXXXX", from[4096], to[64], path[64];
    gptvq_tokenizer *a, *b;
    gptvq_error err;
    assert_non_null(mkdtemp(folder));
    (void)snprintf(from, sizeof from, TEST_SOURCE_DIR "/tests/golden/text/%s.json", names[i]);
    (void)snprintf(to, sizeof to, "%s/tokenizer.json", folder);
    (void)snprintf(path, sizeof path, "%s/x.gguf", folder);
    assert_int_equal(copy_file(from, to, &err), GPTVQ_OK);
    write_tokenizer(folder, path);
    assert_int_equal(gptvq_tokenizer_open(folder, &a, &err), GPTVQ_OK);
    if (gptvq_tokenizer_open(path, &b, &err) != GPTVQ_OK) fail_msg("%s: %s", names[i], err.message);
    printf("%s: %zu lines\n", names[i], compare(a, b));
    gptvq_tokenizer_close(a);
    gptvq_tokenizer_close(b);
    assert_int_equal(gptvq_remove_tree(folder, &err), GPTVQ_OK);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(blocks), cmocka_unit_test(types),
                                     cmocka_unit_test(merges), cmocka_unit_test(tokenizers)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
