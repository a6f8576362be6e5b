/* base/hash.h against the xxhash package (tests/golden/base/make_hash.py); base/mappings.h, and what
 * base/file.h makes of it. */
#include "base/file.h"
#include "base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void hashes_are_those_of_the_reference(void **state) {
  (void)state;
  static const struct {
    size_t size;
    uint64_t plain, seeded;
  } expected[] = {
      {0, 0xef46db3751d8e999u, 0x7fef5b0c316777edu},   {1, 0xe934a84adb052768u, 0x0a9efd78b83ca7a4u},
      {3, 0xd7506c288cd49551u, 0x82de6ff193e95fb8u},   {4, 0xa9af56653e86c01cu, 0xeeadc99424821ff4u},
      {7, 0xeec54f473c926887u, 0x646300ce48a6778eu},   {8, 0xfad7a44e6e70f81fu, 0x344d6d62ab7ae1aau},
      {11, 0x639d20eba7feb077u, 0x2d4320daf9c40f6du},  {31, 0x1ebc1bcd7af11badu, 0x4fce5aba4f918e36u},
      {32, 0xf2a94d120cbffb78u, 0x5897e1a784979be7u},  {33, 0x8f6d91e7b4d6e408u, 0x3b6b7d7a8d6339ddu},
      {63, 0xcfaf1b5c3f85545cu, 0xf0d2715960ec9fd3u},  {64, 0xcefe6bf42869916fu, 0xc36fb5ca9e24b903u},
      {100, 0x0ae8ff5c6ccfcdebu, 0x45cb76e6301f984cu}, {255, 0x3fbec206646e7ce8u, 0x7f799e3725305287u},
      {300, 0xf6182dc528331daeu, 0x39b1e16f2e35d35bu},
  };
  uint8_t data[300], moved[301];
  for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)(i * i * 7 + i * 13 + (i >> 3));
  memcpy(moved + 1, data, sizeof data);
  for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
    assert_true(gptvq_hash(0, data, expected[i].size) == expected[i].plain);
    assert_true(gptvq_hash(0x123456789abcdef0u, data, expected[i].size) == expected[i].seeded);
    assert_true(gptvq_hash(0, moved + 1, expected[i].size) == expected[i].plain); /* wherever it lies */
  }
  for (size_t bit = 0; bit < 8 * sizeof data; bit++) { /* every bit counts */
    data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    assert_true(gptvq_hash(0, data, sizeof data) != expected[14].plain);
    data[bit / 8] ^= (uint8_t)(1u << bit % 8);
  }
}

static void mapped_addresses_know_their_files(void **state) {
  (void)state;
  char folder[] = "gptvq-hash-XXXXXX", path[3][64];
  gptvq_mapping maps[3];
  gptvq_error err;
  assert_non_null(mkdtemp(folder));
  for (size_t i = 0; i < 3; i++) {
    (void)snprintf(path[i], sizeof path[i], "%s/%zu", folder, i);
    assert_int_equal(gptvq_write_file(path[i], "0123456789", 10, &err), GPTVQ_OK);
    assert_int_equal(gptvq_map_file(path[i], &maps[i], &err), GPTVQ_OK);
  }
  for (size_t i = 0; i < 3; i++) {
    assert_string_equal(gptvq_mapped_file(maps[i].data), path[i]);
    assert_string_equal(gptvq_mapped_file(maps[i].data + 9), path[i]);
    assert_null(gptvq_mapped_file(maps[i].data + 10));
  }
  assert_null(gptvq_mapped_file(NULL));
  assert_null(gptvq_mapped_file(path));
  const uint8_t *gone = maps[1].data;
  gptvq_unmap_file(&maps[1]);
  assert_null(gptvq_mapped_file(gone));
  assert_string_equal(gptvq_mapped_file(maps[0].data), path[0]);
  assert_string_equal(gptvq_mapped_file(maps[2].data), path[2]);
  assert_int_equal(gptvq_map_file(path[1], &maps[1], &err), GPTVQ_OK);
  assert_string_equal(gptvq_mapped_file(maps[1].data), path[1]);
  for (size_t i = 0; i < 3; i++) gptvq_unmap_file(&maps[i]);
  assert_int_equal(gptvq_remove_tree(folder, &err), GPTVQ_OK);
}

/* What the kernel copies from a mapping into a file gives EFAULT, not SIGBUS. */
static void a_source_cut_short_is_named_by_the_writer(void **state) {
  (void)state;
  char folder[] = "gptvq-hash-XXXXXX", from[64], to[64];
  static const char zeros[1 << 18];
  gptvq_mapping mapping;
  gptvq_writer *writer;
  gptvq_error err;
  assert_non_null(mkdtemp(folder));
  (void)snprintf(from, sizeof from, "%s/from", folder);
  (void)snprintf(to, sizeof to, "%s/to", folder);
  assert_int_equal(gptvq_write_file(from, zeros, sizeof zeros, &err), GPTVQ_OK);
  assert_int_equal(gptvq_map_file(from, &mapping, &err), GPTVQ_OK);
  assert_int_equal(truncate(from, 1 << 16), 0);
  assert_int_equal(gptvq_writer_open(to, &writer, &err), GPTVQ_OK);
  assert_int_equal(gptvq_writer_write(writer, mapping.data, mapping.size, &err), GPTVQ_ERROR_IO);
  assert_non_null(strstr(err.message, "/from was cut short"));
  gptvq_writer_abort(writer);
  gptvq_unmap_file(&mapping);
  assert_int_equal(gptvq_remove_tree(folder, &err), GPTVQ_OK);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(hashes_are_those_of_the_reference),
      cmocka_unit_test(mapped_addresses_know_their_files),
      cmocka_unit_test(a_source_cut_short_is_named_by_the_writer),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
