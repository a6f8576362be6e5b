/* base: threads, halves, files. */
#include "base/file.h"
#include "base/half.h"
#include "base/memory.h"
#include "base/threads.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static void count_task(void *context, size_t begin, size_t end, size_t thread) {
  assert_in_range(thread, 0, (size_t)gptvq_get_threads() - 1);
  unsigned *hits = context;
  for (size_t i = begin; i < end; i++) hits[i]++;
}

static void every_item_runs_once(void **state) {
  (void)state;
  enum { N = 1000 };
  for (int threads = 1; threads <= 4; threads++) {
    gptvq_set_threads(threads);
    for (size_t grain = 1; grain < 40; grain += 7) {
      unsigned hits[N] = {0};
      gptvq_parallel_for(N, grain, count_task, hits);
      for (size_t i = 0; i < N; i++) assert_int_equal(hits[i], 1);
    }
  }
  gptvq_set_threads(0);
}

/* bf16 and fp16: every value survives the round trip; rounding goes to the nearest of the two neighbours. */
static void halves_round_trip(void **state) {
  (void)state;
  for (unsigned i = 0; i < 0x10000u; i++) {
    uint16_t h = (uint16_t)i;
    float b = gptvq_bf16_to_float(h), f = gptvq_fp16_to_float(h);
    if (!isnan(b)) assert_int_equal(gptvq_float_to_bf16(b), h);
    else assert_true(isnan(gptvq_bf16_to_float(gptvq_float_to_bf16(b))));
    if (!isnan(f)) assert_int_equal(gptvq_float_to_fp16(f), h);
    else assert_true(isnan(gptvq_fp16_to_float(gptvq_float_to_fp16(f))));
  }
  for (unsigned i = 0; i < 0x7bffu; i++) {
    float low = gptvq_fp16_to_float((uint16_t)i), high = gptvq_fp16_to_float((uint16_t)(i + 1));
    float middle = 0.5f * (low + high);
    assert_int_equal(gptvq_float_to_fp16(middle), i % 2 == 0 ? i : i + 1);
    assert_int_equal(gptvq_float_to_fp16(nextafterf(middle, 0.0f)), i);
    assert_int_equal(gptvq_float_to_fp16(nextafterf(middle, 1e6f)), i + 1);
  }
}

static void files_appear_whole(void **state) {
  (void)state;
  char folder[] = "gptvq-test-XXXXXX";
  assert_non_null(mkdtemp(folder));
  char *path = gptvq_join_path(folder, "data");
  gptvq_error err;
  gptvq_writer *writer;
  assert_int_equal(gptvq_writer_open(path, &writer, &err), GPTVQ_OK);
  assert_int_equal(gptvq_writer_write(writer, "abc", 3, &err), GPTVQ_OK);
  assert_false(gptvq_path_exists(path));
  gptvq_writer_abort(writer);
  assert_false(gptvq_path_exists(path));
  assert_int_equal(gptvq_write_file(path, "abcdef", 6, &err), GPTVQ_OK);
  char *data;
  size_t size;
  assert_int_equal(gptvq_read_file(path, 100, &data, &size, &err), GPTVQ_OK);
  assert_int_equal(size, 6);
  assert_string_equal(data, "abcdef");
  free(data);
  assert_int_equal(gptvq_read_file(path, 5, &data, &size, &err), GPTVQ_ERROR_FORMAT);
  assert_int_equal(gptvq_remove_tree(folder, &err), GPTVQ_OK);
  assert_int_equal(gptvq_read_file(path, 5, &data, &size, &err), GPTVQ_ERROR_IO);
  assert_non_null(strstr(err.message, path));
  free(path);
}

/* /proc and /sys of machines that are not there. */
static void write_text(const char *folder, const char *name, const char *text) {
  char path[512];
  (void)snprintf(path, sizeof path, "%s/%s", folder, name);
  for (char *slash = strchr(path + strlen(folder) + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
    *slash = '\0';
    assert_int_equal(gptvq_make_folder(path, NULL), GPTVQ_OK);
    *slash = '/';
  }
  assert_int_equal(gptvq_write_file(path, text, strlen(text), NULL), GPTVQ_OK);
}

static void containers_limit_memory(void **state) {
  (void)state;
  char root[] = "gptvq-test-XXXXXX";
  assert_non_null(mkdtemp(root));
  assert_int_equal(gptvq_available_memory_in(root), 0);
  write_text(root, "proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    8000 kB\n");
  assert_int_equal(gptvq_available_memory_in(root), 8000 * 1024);
  /* version 2: the tightest of the groups around us; files in their cache do not count */
  write_text(root, "proc/self/cgroup", "0::/a/b\n");
  write_text(root, "sys/fs/cgroup/memory.max", "max\n");
  assert_int_equal(gptvq_available_memory_in(root), 8000 * 1024);
  write_text(root, "sys/fs/cgroup/a/memory.max", "5000000\n");
  write_text(root, "sys/fs/cgroup/a/memory.current", "3000000\n");
  write_text(root, "sys/fs/cgroup/a/memory.stat", "anon 2000000\nfile 1000000\n");
  write_text(root, "sys/fs/cgroup/a/b/memory.max", "max\n");
  assert_int_equal(gptvq_available_memory_in(root), 3000000);
  /* in a container the mount is the group's own, whatever its name outside */
  write_text(root, "proc/self/cgroup", "0::/elsewhere\n");
  write_text(root, "sys/fs/cgroup/memory.max", "4000000\n");
  assert_int_equal(gptvq_available_memory_in(root), 4000000);
  /* version 1: a huge number is no limit */
  write_text(root, "proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/c\n");
  write_text(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  assert_int_equal(gptvq_available_memory_in(root), 8000 * 1024);
  write_text(root, "sys/fs/cgroup/memory/c/memory.limit_in_bytes", "6000000\n");
  write_text(root, "sys/fs/cgroup/memory/c/memory.usage_in_bytes", "2500000\n");
  write_text(root, "sys/fs/cgroup/memory/c/memory.stat", "cache 1\ntotal_cache 500000\n");
  assert_int_equal(gptvq_available_memory_in(root), 4000000);
  /* all of it is used: little, but known */
  write_text(root, "sys/fs/cgroup/memory/c/memory.usage_in_bytes", "99000000\n");
  assert_int_equal(gptvq_available_memory_in(root), 1);
  assert_int_equal(gptvq_remove_tree(root, NULL), GPTVQ_OK);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_item_runs_once), cmocka_unit_test(halves_round_trip),
      cmocka_unit_test(files_appear_whole), cmocka_unit_test(containers_limit_memory)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
