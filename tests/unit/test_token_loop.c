/* Generating a token allocates nothing: every malloc of the process is counted. */
#include "base/file.h"
#include "base/memory.h"
#include "tools/bench.h"

#include <gptvq/gptvq.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
enum { COUNTS = 1 };
static _Atomic size_t allocations;
/* what glibc calls its own functions, so that these can stand in front of them */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void *malloc(size_t size) { return atomic_fetch_add(&allocations, 1), __libc_malloc(size); }
void *calloc(size_t count, size_t size) {
  return atomic_fetch_add(&allocations, 1), __libc_calloc(count, size);
}
void *realloc(void *memory, size_t size) {
  return atomic_fetch_add(&allocations, 1), __libc_realloc(memory, size);
}
void *aligned_alloc(size_t alignment, size_t size) {
  return atomic_fetch_add(&allocations, 1), __libc_memalign(alignment, size);
}
#else
enum { COUNTS = 0 };
static _Atomic size_t allocations;
#endif

static void check(const char *folder, gptvq_compute compute, unsigned head_bits) {
  gptvq_model_options options = {.size = sizeof options, .compute = compute, .head_bits = head_bits};
  gptvq_error err = {GPTVQ_OK, ""};
  gptvq_model *model;
  gptvq_session *session;
  int32_t ids[20];
  static float logits[1024];
  gptvq_sampler sampler = {.size = sizeof sampler, .temperature = 0.8f, .top_p = 0.95f, .state = 1};
  for (size_t i = 0; i < 20; i++) ids[i] = (int32_t)(i * 37 % 1024);
  if (gptvq_model_open(folder, &options, &model, &err) != GPTVQ_OK) fail_msg("%s", err.message);
  assert_int_equal(gptvq_session_create(model, 64, &session, &err), GPTVQ_OK);
  size_t before_prompt = atomic_load(&allocations);
  assert_int_equal(gptvq_session_forward(session, ids, 20, logits, 0, &err), GPTVQ_OK);
  int32_t id = 5;
  for (size_t i = 0; i < 2; i++)
    assert_int_equal(gptvq_session_forward(session, &id, 1, logits, 0, &err), GPTVQ_OK);
  size_t before = atomic_load(&allocations);
  for (size_t i = 0; i < 20; i++)
    assert_int_equal(gptvq_session_forward(session, &id, 1, logits, 0, &err), GPTVQ_OK);
  if (atomic_load(&allocations) != before)
    fail_msg("compute %d: %zu allocations in 20 tokens", (int)compute, atomic_load(&allocations) - before);
  assert_int_equal(gptvq_sample(&sampler, logits, 1024, &id, &err), GPTVQ_OK);
  assert_true(!COUNTS || before_prompt > 0); /* they are counted */
  gptvq_session_destroy(session);
  gptvq_model_close(model);
}

static void no_allocation(void **state) {
  (void)state;
  char folder[64];
  gptvq_error err = {GPTVQ_OK, ""};
  gptvq_random_model model;
  gptvq_random_model_init(&model);
  model.shape = "stories";
  model.layers = 2;
  (void)snprintf(folder, sizeof folder, "test_token_loop.%ld", (long)getpid());
  if (gptvq_write_random_model(&model, folder, &err) != GPTVQ_OK) fail_msg("%s", err.message);
  gptvq_set_threads(2);
  check(folder, GPTVQ_COMPUTE_FP32, 0);
  check(folder, GPTVQ_COMPUTE_BF16, 0);
  check(folder, GPTVQ_COMPUTE_INT8, 0);
  check(folder, GPTVQ_COMPUTE_INT8, 16);
  assert_int_equal(gptvq_remove_tree(folder, &err), GPTVQ_OK);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(no_allocation)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
