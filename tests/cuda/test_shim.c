/* The shim: threads of a block, what they share, and mistakes that it has to find. */
#include "base/memory.h"
#include "cuda/shim/shim.h"
#include "probes.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static gptvq_device *open_shim(void) {
  gptvq_device *device;
  gptvq_error err;
  if (gptvq_device_open_shim(&device, &err) != GPTVQ_OK) fail_msg("%s", err.message);
  return device;
}

static gptvq_status run(gptvq_device *device, void (*kernel)(const void *), unsigned x, unsigned y,
                        unsigned threads, int *out, gptvq_error *err) {
  const probe arguments = {out};
  const gptvq_device_grid grid = {x, y, threads, threads * sizeof(int)};
  return gptvq_shim_launch_other(device, "probe", kernel, &grid, &arguments, err);
}

static void barriers_and_shared_memory(void **state) {
  (void)state;
  enum { X = 5, Y = 3, THREADS = 160 };
  gptvq_device *device = open_shim();
  gptvq_error err = {.message = ""};
  int *out = gptvq_alloc(X * Y * THREADS, sizeof *out);
  for (int reverse = 0; reverse < 2; reverse++) {
    memset(out, 0, X * Y * THREADS * sizeof *out);
    gptvq_shim_reverse(device, reverse);
    if (run(device, probe_barrier, X, Y, THREADS, out, &err) != GPTVQ_OK) fail_msg("%s", err.message);
    for (int i = 0; i < X * Y * THREADS; i++) {
      const int block = i / THREADS;
      assert_int_equal(out[i], THREADS * (THREADS - 1) / 2 + THREADS * (block % X + 10 * (block / X)));
    }
  }
  free(out);
  device->close(device);
}

/* What the reverse order is for. */
static void a_missing_barrier_shows_in_the_other_order(void **state) {
  (void)state;
  gptvq_device *device = open_shim();
  int out[2][64];
  for (int reverse = 0; reverse < 2; reverse++) {
    gptvq_shim_reverse(device, reverse);
    assert_int_equal(run(device, probe_no_barrier, 1, 1, 64, out[reverse], NULL), GPTVQ_OK);
  }
  assert_int_equal(out[1][0], 7);
  assert_memory_not_equal(out[0], out[1], sizeof out[0]);
  device->close(device);
}

static void exchanges_of_a_warp(void **state) {
  (void)state;
  enum { THREADS = 64 };
  gptvq_device *device = open_shim();
  int out[THREADS][PROBE_WARP_VALUES];
  assert_int_equal(run(device, probe_warp, 1, 1, THREADS, out[0], NULL), GPTVQ_OK);
  for (int i = 0; i < THREADS; i++) {
    const int lane = i % 32, warp = i - lane;
    const int expected[PROBE_WARP_VALUES] = {
        warp + 5, lane < 1 ? i : i - 1, lane > 28 ? i : i + 3, i ^ 16, 0x49249249, warp == 32, warp == 0, 1};
    assert_memory_equal(out[i], expected, sizeof expected);
  }
  device->close(device);
}

static void threads_that_do_not_meet_are_found(void **state) {
  (void)state;
  gptvq_device *device = open_shim();
  const struct {
    void (*kernel)(const void *);
    const char *message;
  } cases[] = {
      {probe_divergent, "kernel probe, block 0: two barriers at once: thread 63 waits at"},
      {probe_missing, "kernel probe, block 2: threads do not meet: thread 0 waits at"},
      {probe_warp_divergent, "kernel probe, block 0: threads do not meet: thread 0 waits at"},
      {probe_some_lanes, "kernel probe, block 0: an exchange of some lanes only: thread 0 at"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    gptvq_error err = {.message = ""};
    int out[64];
    assert_int_equal(run(device, cases[i].kernel, 8, 1, 64, out, &err), GPTVQ_ERROR_INTERNAL);
    if (strncmp(err.message, cases[i].message, strlen(cases[i].message)) != 0)
      fail_msg("case %zu: %s", i, err.message);
  }
  /* the next kernel runs as if nothing had been */
  int out[64];
  assert_int_equal(run(device, probe_barrier, 1, 1, 64, out, NULL), GPTVQ_OK);
  assert_int_equal(out[0], 64 * 63 / 2);
  device->close(device);
}

static void wrong_launches_are_refused(void **state) {
  (void)state;
  gptvq_device *device = open_shim();
  gptvq_error err = {.message = ""};
  int out[1];
  assert_int_equal(run(device, probe_barrier, 1, 1, 40, out, &err), GPTVQ_ERROR_INTERNAL);
  assert_int_equal(run(device, probe_barrier, 1, 1, 2048, out, &err), GPTVQ_ERROR_INTERNAL);
  const gptvq_device_grid grid = {1, 1, 32, device->shared_bytes + 1};
  assert_int_equal(gptvq_shim_launch_other(device, "probe", probe_barrier, &grid, out, &err),
                   GPTVQ_ERROR_INTERNAL);
  assert_int_equal(run(device, probe_barrier, 0, 1, 32, NULL, &err), GPTVQ_OK); /* no blocks */
  device->close(device);
}

static void memory_is_limited_and_counted(void **state) {
  (void)state;
  gptvq_device *device = open_shim();
  gptvq_error err = {.message = ""};
  void *a, *b;
  size_t free_bytes, total;
  gptvq_shim_limit(device, 1000);
  assert_int_equal(device->alloc(device, 600, &a, &err), GPTVQ_OK);
  assert_int_equal(device->alloc(device, 401, &b, &err), GPTVQ_ERROR_MEMORY);
  assert_null(b);
  assert_string_equal(err.message, "device 'shim': 401 bytes do not fit, 400 are free");
  assert_int_equal(device->memory(device, &free_bytes, &total, &err), GPTVQ_OK);
  assert_int_equal(free_bytes, 400);
  assert_int_equal(total, 1000);
  device->free(device, a);
  device->free(device, NULL);
  assert_int_equal(device->alloc(device, 1000, &b, &err), GPTVQ_OK);
  device->close(device); /* gives b back */
}

static void copies_with_strides(void **state) {
  (void)state;
  gptvq_device *device = open_shim();
  float host[4][6], back[4][6];
  void *memory;
  for (int i = 0; i < 24; i++) host[i / 6][i % 6] = (float)i;
  memset(back, 0, sizeof back);
  assert_int_equal(device->alloc(device, 4 * 3 * sizeof(float), &memory, NULL), GPTVQ_OK);
  const gptvq_device_rows shape = {3 * sizeof(float), 4, 3 * sizeof(float), 6 * sizeof(float)};
  assert_int_equal(device->upload(device, &shape, memory, &host[0][2], NULL), GPTVQ_OK);
  assert_int_equal(device->download(device, &shape, &back[0][1], memory, NULL), GPTVQ_OK);
  for (int i = 0; i < 24; i++)
    assert_true(back[i / 6][i % 6] == (i % 6 >= 1 && i % 6 <= 3 ? host[i / 6][i % 6 + 1] : 0.0f));
  device->close(device);
}

/* A sanitizer ends the process, so another one runs the kernel. beyond: what its report has to say. */
static void expect_report(void (*kernel)(const void *), const char *beyond) {
#ifndef __SANITIZE_ADDRESS__
  (void)kernel;
  (void)beyond;
  skip();
#else
  int ends[2], status;
  char report[8192];
  size_t length = 0;
  ssize_t more;
  assert_int_equal(pipe(ends), 0);
  const pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    void *memory;
    (void)dup2(ends[1], STDERR_FILENO);
    gptvq_device *device = open_shim();
    if (device->alloc(device, 64 * sizeof(int), &memory, NULL) == GPTVQ_OK)
      (void)run(device, kernel, 1, 1, 64, memory, NULL);
    _exit(0);
  }
  (void)close(ends[1]);
  while ((more = read(ends[0], report + length, sizeof report - 1 - length)) > 0) length += (size_t)more;
  report[length] = '\0';
  (void)close(ends[0]);
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  if (strstr(report, "heap-buffer-overflow") == NULL || strstr(report, beyond) == NULL)
    fail_msg("%s", report);
#endif
}

static void access_beyond_memory_of_the_device_is_found(void **state) {
  (void)state;
  expect_report(probe_beyond, "256-byte region");
}

static void access_beyond_shared_memory_is_found(void **state) {
  (void)state;
  expect_report(probe_beyond_shared, "64-byte region");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(barriers_and_shared_memory),
      cmocka_unit_test(a_missing_barrier_shows_in_the_other_order),
      cmocka_unit_test(exchanges_of_a_warp),
      cmocka_unit_test(threads_that_do_not_meet_are_found),
      cmocka_unit_test(wrong_launches_are_refused),
      cmocka_unit_test(memory_is_limited_and_counted),
      cmocka_unit_test(copies_with_strides),
      cmocka_unit_test(access_beyond_memory_of_the_device_is_found),
      cmocka_unit_test(access_beyond_shared_memory_is_found),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
