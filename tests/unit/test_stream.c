/* Streams of activations: what is read is what was written, rounded or not, wherever it lies. */
#include "base/half.h"
#include "base/memory.h"
#include "calib/stream.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <cmocka.h>

enum { WINDOWS = 5, ROWS = 6, COLS = 7, VALUES = ROWS * COLS };

static float value(size_t window, size_t i) { return 1.0f + (float)(window * 1000 + i * i) / 777.0f; }

static void what_is_written_is_read(void **state) {
  (void)state;
  gptvq_error err = {0};
  for (int kind = 0; kind < 4; kind++) {
    const gptvq_stream_place place = {kind % 2 != 0, kind / 2 != 0 ? "." : NULL};
    gptvq_stream s, copy;
    float in[VALUES], wide[ROWS * (COLS + 3)], out[VALUES];
    assert_int_equal(gptvq_stream_create(WINDOWS, VALUES, place, "a test", &s, &err), GPTVQ_OK);
    assert_int_equal(gptvq_stream_create(WINDOWS, VALUES, place, "a test", &copy, &err), GPTVQ_OK);
    for (size_t w = WINDOWS; w-- > 0;) { /* in any order; every other window from rows that lie apart */
      for (size_t i = 0; i < VALUES; i++) in[i] = value(w, i);
      memset(wide, 0, sizeof wide);
      for (size_t r = 0; r < ROWS; r++) memcpy(wide + r * (COLS + 3), in + r * COLS, COLS * sizeof *in);
      assert_int_equal(w % 2 != 0 ? gptvq_stream_write(&s, w, in, &err)
                                  : gptvq_stream_write_rows(&s, w, COLS, wide, COLS + 3, &err),
                       GPTVQ_OK);
    }
    assert_int_equal(gptvq_stream_copy(&s, &copy, &err), GPTVQ_OK);
    for (size_t w = 0; w < WINDOWS; w++) {
      for (size_t i = 0; i < VALUES; i++) in[i] = value(w, i);
      for (size_t i = 0; i < VALUES && place.half; i++)
        in[i] = gptvq_bf16_to_float(gptvq_float_to_bf16(in[i]));
      assert_int_equal(gptvq_stream_read(&s, w, out, &err), GPTVQ_OK);
      assert_memory_equal(out, in, sizeof in);
      assert_int_equal(gptvq_stream_read(&copy, w, out, &err), GPTVQ_OK);
      assert_memory_equal(out, in, sizeof in);
      gptvq_stream_round(&s, out);
      assert_memory_equal(out, in, sizeof in);
    }
    gptvq_stream_release(&s);
    gptvq_stream_release(&s);
    gptvq_stream_release(&copy);
  }
}

/* Nothing is left in the folder, not even while the file is in use. */
static void no_room_is_said(void **state) {
  (void)state;
  gptvq_error err = {0};
  gptvq_stream s;
  struct rlimit before, limit;
  assert_int_equal(gptvq_stream_create(1, 8, (gptvq_stream_place){false, "absent"}, "a test", &s, &err),
                   GPTVQ_ERROR_IO);
  assert_non_null(strstr(err.message, "in absent (0.0 GB): No such file or directory"));
  assert_int_equal(gptvq_stream_create((size_t)1 << 40, (size_t)1 << 18, (gptvq_stream_place){false, "."},
                                       "a test", &s, &err),
                   GPTVQ_ERROR_IO);
  assert_non_null(strstr(err.message, "No space left on device: make room there"));
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
  limit = before;
  limit.rlim_cur = 4096;
  (void)signal(SIGXFSZ, SIG_IGN);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
  assert_int_equal(gptvq_stream_create(1000, 1000, (gptvq_stream_place){false, "."}, "a test", &s, &err),
                   GPTVQ_ERROR_IO);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
  assert_non_null(strstr(err.message, "File too large: make room there, give more memory (`memory_limit`)"));
  assert_int_equal(gptvq_stream_create(SIZE_MAX / 2, 8, (gptvq_stream_place){0}, "a test", &s, &err),
                   GPTVQ_ERROR_MEMORY);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_written_is_read),
                                     cmocka_unit_test(no_room_is_said)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
