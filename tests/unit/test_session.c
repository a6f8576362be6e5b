/* Sessions that go back, fork and are stopped from another thread. */
#include <gptvq/model.h>

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { N = 24, AT = 9 };

typedef struct fixture {
  gptvq_model *model;
  gptvq_session *session;
  size_t vocab;
  int32_t ids[N];
  float *whole, *part; /* [N × vocab] */
} fixture;

static gptvq_error err;
#define ok(expression) \
  do { \
    if ((expression) != GPTVQ_OK) fail_msg("%s", err.message); \
  } while (0)

static fixture open_fixture(const char *folder, gptvq_compute compute) {
  fixture f;
  gptvq_model_info info = {.size = sizeof info};
  ok(gptvq_model_open(folder, &(gptvq_model_options){.size = sizeof(gptvq_model_options), .compute = compute},
                      &f.model, &err));
  gptvq_model_get_info(f.model, &info);
  f.vocab = info.vocab;
  for (size_t i = 0; i < N; i++) f.ids[i] = (int32_t)((i * 29 + 5) % f.vocab);
  f.whole = malloc(N * f.vocab * sizeof(float));
  f.part = malloc(N * f.vocab * sizeof(float));
  ok(gptvq_session_create(f.model, N, &f.session, &err));
  /* in the steps that the tests take: results of other cuts differ in rounding */
  ok(gptvq_session_forward(f.session, f.ids, AT, f.whole, 1, &err));
  ok(gptvq_session_forward(f.session, f.ids + AT, N - AT, f.whole + AT * f.vocab, 1, &err));
  return f;
}

static void close_fixture(fixture *f) {
  free(f->whole);
  free(f->part);
  gptvq_session_destroy(f->session);
  gptvq_model_close(f->model);
}

static void assert_rest(const fixture *f, gptvq_session *session) {
  assert_int_equal(gptvq_session_position(session), AT);
  ok(gptvq_session_forward(session, f->ids + AT, N - AT, f->part, 1, &err));
  assert_memory_equal(f->part, f->whole + AT * f->vocab, (N - AT) * f->vocab * sizeof(float));
}

static const char *const folders[] = {
    TEST_SOURCE_DIR "/tests/golden/model/llama",   TEST_SOURCE_DIR "/tests/golden/model/qwen2-window",
    TEST_SOURCE_DIR "/tests/golden/model/mixtral", TEST_SOURCE_DIR "/tests/golden/model/phi3-longrope",
    TEST_SOURCE_DIR "/tests/golden/model/gemma2",  TEST_SOURCE_DIR "/tests/golden/model/smollm3",
    TEST_SOURCE_DIR "/tests/golden/model/gemma3",  TEST_SOURCE_DIR "/tests/golden/model/olmo3",
    TEST_SOURCE_DIR "/tests/golden/model/gpt-oss", TEST_SOURCE_DIR "/tests/golden/model/deepseek-v3"};
enum { FOLDERS = sizeof folders / sizeof folders[0] };

static void the_end_is_taken_back(void **state) {
  (void)state;
  for (size_t i = 0; i < 2 * FOLDERS; i++) { /* INT8: keys and values in fp16 */
    fixture f = open_fixture(folders[i / 2], i % 2 ? GPTVQ_COMPUTE_INT8 : GPTVQ_COMPUTE_FP32);
    ok(gptvq_session_truncate(f.session, AT + 3, &err));
    for (size_t k = 0; k < N - AT - 3; k++) { /* another text in place of the rest */
      const int32_t other = (f.ids[k] + 1) % (int32_t)f.vocab;
      ok(gptvq_session_forward(f.session, &other, 1, NULL, 0, &err));
    }
    ok(gptvq_session_truncate(f.session, AT, &err));
    assert_int_equal(gptvq_session_truncate(f.session, AT + 1, &err), GPTVQ_ERROR_ARGUMENT);
    assert_rest(&f, f.session);
    close_fixture(&f);
  }
}

static void a_fork_goes_its_own_way(void **state) {
  (void)state;
  for (size_t i = 0; i < 2 * FOLDERS; i++) {
    fixture f = open_fixture(folders[i / 2], i % 2 ? GPTVQ_COMPUTE_INT8 : GPTVQ_COMPUTE_FP32);
    gptvq_session *fork, *second;
    ok(gptvq_session_truncate(f.session, AT, &err));
    ok(gptvq_session_fork(f.session, &fork, &err));
    gptvq_session_reset(f.session); /* overwritten with another text, then gone */
    for (size_t k = 0; k < N; k++) {
      const int32_t other = (f.ids[k] + 1) % (int32_t)f.vocab;
      ok(gptvq_session_forward(f.session, &other, 1, NULL, 0, &err));
    }
    ok(gptvq_session_fork(fork, &second, &err));
    assert_rest(&f, fork);
    gptvq_session_destroy(fork);
    assert_rest(&f, second);
    gptvq_session_destroy(second);
    close_fixture(&f);
  }
}

/* The beginning of one text in the place of another. */
static void a_beginning_is_copied(void **state) {
  (void)state;
  for (size_t i = 0; i < 2 * FOLDERS; i++) {
    fixture f = open_fixture(folders[i / 2], i % 2 ? GPTVQ_COMPUTE_INT8 : GPTVQ_COMPUTE_FP32);
    gptvq_session *other, *smaller;
    ok(gptvq_session_fork(f.session, &other, &err));
    gptvq_session_reset(other);
    for (size_t k = 0; k < N; k++) {
      const int32_t id = (f.ids[k] + 1) % (int32_t)f.vocab;
      ok(gptvq_session_forward(other, &id, 1, NULL, 0, &err));
    }
    ok(gptvq_session_copy(f.session, AT, other, &err));
    assert_int_equal(gptvq_session_position(other), AT);
    assert_rest(&f, other);
    assert_int_equal(gptvq_session_copy(f.session, N + 1, other, &err), GPTVQ_ERROR_ARGUMENT);
    assert_int_equal(gptvq_session_copy(other, 1, other, &err), GPTVQ_ERROR_ARGUMENT);
    ok(gptvq_session_create(f.model, AT, &smaller, &err));
    assert_int_equal(gptvq_session_copy(f.session, 1, smaller, &err), GPTVQ_ERROR_ARGUMENT);
    gptvq_session_destroy(smaller);
    gptvq_session_destroy(other);
    close_fixture(&f);
  }
}

/* States of linear attention go back to where the last call began, once, to where the last prompt ended, and
 * to the beginning; rewinding goes to the nearest of these. */
static void states_go_back_one_call(void **state) {
  (void)state;
  for (size_t i = 0; i < 2; i++) {
    fixture f = open_fixture(TEST_SOURCE_DIR "/tests/golden/model/qwen3_5",
                             i % 2 ? GPTVQ_COMPUTE_INT8 : GPTVQ_COMPUTE_FP32);
    assert_int_equal(gptvq_session_truncate(f.session, AT + 1, &err), GPTVQ_ERROR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "position 10"));
    ok(gptvq_session_truncate(f.session, AT, &err));
    assert_rest(&f, f.session);
    ok(gptvq_session_truncate(f.session, AT, &err));
    assert_int_equal(gptvq_session_truncate(f.session, AT - 1, &err), GPTVQ_ERROR_UNSUPPORTED);
    ok(gptvq_session_forward(f.session, NULL, 0, NULL, 0, &err)); /* moves nothing */
    gptvq_session *fork;
    ok(gptvq_session_fork(f.session, &fork, &err));
    assert_rest(&f, f.session);
    assert_int_equal(gptvq_session_truncate(fork, AT - 1, &err), GPTVQ_ERROR_UNSUPPORTED);
    assert_int_equal(gptvq_session_copy(f.session, AT, fork, &err), GPTVQ_ERROR_UNSUPPORTED);
    const int32_t bad = -1;
    assert_int_equal(gptvq_session_forward(fork, &bad, 1, NULL, 0, &err), GPTVQ_ERROR_DATA);
    assert_rest(&f, fork);
    ok(gptvq_session_truncate(fork, 0, &err));
    ok(gptvq_session_forward(fork, f.ids, AT, NULL, 0, &err));
    for (size_t round = 0; round < 2; round++) { /* single tokens behind a prompt, twice */
      size_t reached;
      for (size_t k = 0; k < 3; k++) ok(gptvq_session_forward(fork, f.ids + k, 1, NULL, 0, &err));
      assert_int_equal(gptvq_session_truncate(fork, AT + 1, &err), GPTVQ_ERROR_UNSUPPORTED);
      assert_int_equal(gptvq_session_rewind(fork, AT + 9, &reached, &err), GPTVQ_ERROR_ARGUMENT);
      gptvq_session *second;
      ok(gptvq_session_fork(fork, &second, &err));
      assert_int_equal(gptvq_session_copy(fork, AT + 1, second, &err), GPTVQ_ERROR_UNSUPPORTED);
      ok(gptvq_session_copy(fork, AT, second, &err)); /* the prompt alone */
      assert_rest(&f, second);
      ok(gptvq_session_copy(fork, AT + 3, second, &err));
      ok(gptvq_session_rewind(fork, AT + 2, &reached, &err)); /* where the last call began */
      assert_int_equal(reached, AT + 2);
      ok(gptvq_session_rewind(fork, AT + 1, &reached, &err)); /* where the prompt ended */
      assert_int_equal(reached, AT);
      ok(gptvq_session_truncate(second, AT, &err));
      assert_rest(&f, second);
      gptvq_session_destroy(second);
    }
    assert_rest(&f, fork);
    size_t reached;
    ok(gptvq_session_rewind(fork, AT - 1, &reached, &err));
    assert_int_equal(reached, 0);
    ok(gptvq_session_forward(fork, f.ids, AT, f.part, 1, &err));
    assert_memory_equal(f.part, f.whole, AT * f.vocab * sizeof(float));
    assert_rest(&f, fork);
    gptvq_session_destroy(fork);
    close_fixture(&f);
  }
}

static void *cancel(void *session) {
  gptvq_session_cancel(session);
  return NULL;
}

static void a_request_stops_one_call_of(const char *folder) {
  fixture f = open_fixture(folder, GPTVQ_COMPUTE_FP32);
  pthread_t thread;
  ok(gptvq_session_truncate(f.session, AT, &err));
  assert_int_equal(pthread_create(&thread, NULL, cancel, f.session), 0);
  gptvq_status status = GPTVQ_OK;
  size_t calls = 0;
  for (; status == GPTVQ_OK && calls < 1000000;
       calls++) { /* the request comes before or within one of them */
    ok(gptvq_session_truncate(f.session, AT, &err));
    status = gptvq_session_forward(f.session, f.ids + AT, N - AT, f.part, 1, &err);
  }
  assert_int_equal(pthread_join(thread, NULL), 0);
  assert_int_equal(status, GPTVQ_ERROR_CANCELLED);
  assert_int_equal(err.status, GPTVQ_ERROR_CANCELLED);
  assert_rest(&f, f.session); /* heard once, and the position is that before the call */
  gptvq_session_cancel(f.session);
  gptvq_session_reset(f.session);
  ok(gptvq_session_forward(f.session, f.ids, AT, NULL, 0, &err));
  close_fixture(&f);
}

static void a_request_stops_one_call(void **state) {
  (void)state;
  a_request_stops_one_call_of(folders[0]);
  a_request_stops_one_call_of(TEST_SOURCE_DIR "/tests/golden/model/qwen3_5");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_end_is_taken_back), cmocka_unit_test(a_fork_goes_its_own_way),
      cmocka_unit_test(a_beginning_is_copied), cmocka_unit_test(states_go_back_one_call),
      cmocka_unit_test(a_request_stops_one_call)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
