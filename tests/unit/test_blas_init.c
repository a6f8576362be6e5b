/* OpenBLAS's buffers: a context that comes later takes its own, not those that another one is using. */
#define _GNU_SOURCE
#include "base/memory.h"
#include "linalg/gemm.h"

#include <gptvq/context.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

__attribute__((weak)) void *blas_memory_alloc(int position);
__attribute__((weak)) void blas_memory_free(void *buffer);

enum { FIRST = 2, LATER = 3 };
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 }; /* they map memory of their own as they go */
#else
enum { SANITIZED = 0 };
#endif

static size_t address_space(void) {
  size_t pages = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  assert_non_null(file);
  assert_int_equal(fscanf(file, "%zu", &pages), 1);
  (void)fclose(file);
  return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* With room for the later context's buffers alone: whoever asks for more waits for ever. */
static void buffers_in_use_are_not_made_again(void **state) {
  (void)state;
  gptvq_error err;
  gptvq_context *later;
  void *used[FIRST];
  if (SANITIZED || blas_memory_alloc == NULL || blas_memory_free == NULL) skip();
  gptvq_set_threads(FIRST);
  assert_int_equal(gptvq_blas_init(&err), GPTVQ_OK);
  for (size_t i = 0; i < FIRST; i++) used[i] = blas_memory_alloc(0);
  assert_int_equal(gptvq_context_create(&later, &err), GPTVQ_OK);
  gptvq_context_set_threads(later, LATER);
  (void)gptvq_context_use(later);
  struct rlimit before, tight;
  assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
  tight = before;
  tight.rlim_cur = address_space() + LATER * ((size_t)128 << 20) + ((size_t)32 << 20);
  assert_int_equal(setrlimit(RLIMIT_AS, &tight), 0);
  (void)alarm(20);
  gptvq_status status = gptvq_blas_init(&err);
  (void)alarm(0);
  assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
  assert_int_equal(status, GPTVQ_OK);
  for (size_t i = 0; i < FIRST; i++) blas_memory_free(used[i]);
  gptvq_context_destroy(later);
  gptvq_set_threads(0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(buffers_in_use_are_not_made_again)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
