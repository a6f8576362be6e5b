/* The thread pool: every item exactly once, for any number of threads, sleeping or awake workers and
 * concurrent callers; and bound to the CPUs that were asked for. */
#define _GNU_SOURCE
#include "base/threads.h"

#include <gptvq/status.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

enum { MOST = 5000, THREADS = 5 };

typedef struct job {
  _Atomic int visits[MOST], inside[THREADS];
  _Atomic int clashes;
  size_t count, grain;
} job;

static void visit(void *context, size_t begin, size_t end, size_t thread) {
  job *j = context;
  if (thread >= THREADS || atomic_fetch_add(&j->inside[thread], 1) != 0) atomic_fetch_add(&j->clashes, 1);
  if (begin >= end || end > j->count || end - begin > (j->grain > 0 ? j->grain : 1))
    atomic_fetch_add(&j->clashes, 1);
  for (size_t i = begin; i < end && i < MOST; i++) atomic_fetch_add(&j->visits[i], 1);
  if (thread < THREADS) atomic_fetch_sub(&j->inside[thread], 1);
}

static void check(job *j, size_t count, size_t grain) {
  memset(j, 0, sizeof *j);
  j->count = count;
  j->grain = grain;
  gptvq_parallel_for(count, grain, visit, j);
  assert_int_equal(atomic_load(&j->clashes), 0);
  for (size_t i = 0; i < MOST; i++) assert_int_equal(atomic_load(&j->visits[i]), i < count);
}

static void every_item_once(void **state) {
  (void)state;
  static job j;
  for (int threads = 1; threads <= THREADS; threads++) {
    gptvq_set_threads(threads);
    for (size_t count = 0; count <= MOST; count = count * 3 + 1)
      for (size_t grain = 0; grain <= 100; grain = grain * 4 + 1) check(&j, count, grain);
  }
}

static void add_one(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  atomic_fetch_add((_Atomic size_t *)context, end - begin);
}

/* Short jobs in a row: workers that come late must neither miss a job that waits for them nor enter one that
 * is over. */
static void many_short_jobs(void **state) {
  (void)state;
  const struct timespec nap = {0, 3000000}; /* long enough to fall asleep */
  gptvq_set_threads(3);
  _Atomic size_t sum = 0;
  size_t expected = 0;
  for (size_t i = 0; i < 20000; i++) {
    gptvq_parallel_for(2 + i % 7, 1, add_one, &sum);
    expected += 2 + i % 7;
    if (atomic_load(&sum) != expected)
      fail_msg("after job %zu: %zu items, not %zu", i, atomic_load(&sum), expected);
    if (i % 1000 == 0) nanosleep(&nap, NULL);
    if (i % 5000 == 0) gptvq_set_threads(2 + (int)(i / 5000));
  }
}

/* A pool that is taken down while its workers still look at the last job: none may sleep through it. Hangs
 * when one does; it takes many tries to meet that moment (once in some 50,000 pools when the end was asked
 * for too early), more of them with -fsanitize=thread. */
static void short_lived_pools(void **state) {
  (void)state;
  enum { POOLS = 10000, JOBS = 10 };
  _Atomic size_t sum = 0;
  for (size_t i = 0; i < POOLS; i++) {
    gptvq_set_threads(4);
    for (size_t repeat = 0; repeat < JOBS; repeat++) gptvq_parallel_for(4, 1, add_one, &sum);
  }
  assert_int_equal(atomic_load(&sum), (size_t)POOLS * JOBS * 4);
}

enum { CHUNKS = 4096 };
typedef struct division {
  _Atomic size_t done, threads_in, order[THREADS][CHUNKS], counts[THREADS];
  _Atomic int waited_in_vain;
  size_t blocked; /* chunk that waits for all others, or CHUNKS */
} division;

static bool wait_until(const _Atomic size_t *value, size_t least) { /* ten seconds at most */
  const struct timespec nap = {0, 1000000};
  for (int i = 0; i < 10000 && atomic_load(value) < least; i++) nanosleep(&nap, NULL);
  return atomic_load(value) >= least;
}

static void note_chunk(void *context, size_t begin, size_t end, size_t thread) {
  (void)end;
  division *d = context;
  size_t at = atomic_fetch_add(&d->counts[thread], 1);
  atomic_store(&d->order[thread][at], begin);
  if (at == 0) { /* nobody goes on before both are there */
    atomic_fetch_add(&d->threads_in, 1);
    if (!wait_until(&d->threads_in, 2)) atomic_fetch_add(&d->waited_in_vain, 1);
  }
  if (begin == d->blocked && !wait_until(&d->done, CHUNKS - 1)) atomic_fetch_add(&d->waited_in_vain, 1);
  atomic_fetch_add(&d->done, 1);
}

/* Two threads go through long runs of consecutive chunks: a run ends only where half of a share is taken. A
 * share of n chunks can be halved log2 n = 12 times, and each thread may take each half: 4 · 12 runs are more
 * than enough, dealing out in turns would make thousands. */
static void long_runs(void **state) {
  (void)state;
  static division d;
  memset(&d, 0, sizeof d);
  d.blocked = CHUNKS;
  gptvq_set_threads(2);
  gptvq_parallel_for(CHUNKS, 1, note_chunk, &d);
  assert_int_equal(atomic_load(&d.waited_in_vain), 0);
  size_t runs = 0, chunks = 0;
  for (size_t t = 0; t < 2; t++) {
    size_t count = atomic_load(&d.counts[t]);
    chunks += count;
    for (size_t i = 0; i < count; i++)
      runs += i == 0 || atomic_load(&d.order[t][i]) != atomic_load(&d.order[t][i - 1]) + 1;
  }
  assert_int_equal(chunks, CHUNKS);
  if (runs > 4 * 12) fail_msg("%zu chunks in %zu runs", chunks, runs);
}

/* A thread that does not come on keeps nothing but the chunk it is at. */
static void nobody_waits_for_the_slow(void **state) {
  (void)state;
  static division d;
  const size_t blocked[] = {0, CHUNKS / 2, CHUNKS / 2 - 1, CHUNKS - 1};
  gptvq_set_threads(2);
  for (size_t i = 0; i < sizeof blocked / sizeof blocked[0]; i++) {
    memset(&d, 0, sizeof d);
    d.blocked = blocked[i];
    gptvq_parallel_for(CHUNKS, 1, note_chunk, &d);
    assert_int_equal(atomic_load(&d.waited_in_vain), 0);
    assert_int_equal(atomic_load(&d.done), CHUNKS);
  }
}

static void *caller(void *context) {
  _Atomic size_t *sum = context;
  for (size_t i = 0; i < 3000; i++) {
    size_t before = atomic_load(sum);
    gptvq_parallel_for(5, 1, add_one, sum);
    if (atomic_load(sum) != before + 5) return context;
  }
  return NULL;
}

static void concurrent_callers(void **state) {
  (void)state;
  enum { CALLERS = 3 };
  _Atomic size_t sums[CALLERS] = {0};
  pthread_t threads[CALLERS];
  gptvq_set_threads(2);
  for (size_t i = 0; i < CALLERS; i++)
    assert_int_equal(pthread_create(&threads[i], NULL, caller, &sums[i]), 0);
  for (size_t i = 0; i < CALLERS; i++) {
    void *result;
    pthread_join(threads[i], &result);
    assert_null(result);
  }
}

/* ---- CPUs ---- */

static cpu_set_t allowed; /* of the process when the test began */

static int nth_cpu(int n) {
  for (int i = 0; i < CPU_SETSIZE; i++)
    if (CPU_ISSET(i, &allowed) && n-- == 0) return i;
  return -1;
}

static _Atomic int seen_cpus[CPU_SETSIZE];
static _Atomic size_t misplaced, naps;

static bool all_seen(const int *wanted, int count) {
  for (int i = 0; i < count; i++)
    if (!atomic_load(&seen_cpus[wanted[i]])) return false;
  return true;
}

/* Is this thread bound to exactly the CPU that its number says? */
static void look_where(void *context, size_t begin, size_t end, size_t thread) {
  (void)begin;
  (void)end;
  const int *wanted = context;
  cpu_set_t mine;
  if (sched_getaffinity(0, sizeof mine, &mine) != 0 || CPU_COUNT(&mine) != 1 ||
      !CPU_ISSET(wanted[thread], &mine))
    atomic_fetch_add(&misplaced, 1);
  else atomic_store(&seen_cpus[wanted[thread]], 1);
  const struct timespec nap = {0, 2000000}; /* lets the others in: ten seconds together on a busy machine */
  while (!all_seen(wanted, gptvq_get_threads()) && atomic_fetch_add(&naps, 1) < 5000) nanosleep(&nap, NULL);
}

static void one_thread_per_cpu(void **state) {
  (void)state;
  char list[64];
  gptvq_error err;
  int count = CPU_COUNT(&allowed) >= 2 ? 2 : 1, wanted[2];
  for (int i = 0; i < count; i++) wanted[i] = nth_cpu(count - 1 - i); /* not in ascending order */
  (void)snprintf(list, sizeof list, count == 2 ? "%d,%d" : "%d", wanted[0], wanted[1 % count]);
  assert_int_equal(gptvq_set_affinity(list, &err), GPTVQ_OK);
  assert_int_equal(gptvq_get_threads(), count);
  gptvq_parallel_for(64, 1, look_where, wanted);
  assert_int_equal(atomic_load(&misplaced), 0);
  for (int i = 0; i < count; i++)
    if (!atomic_load(&seen_cpus[wanted[i]])) fail_msg("no task ran on CPU %d", wanted[i]);
  gptvq_set_threads(0); /* still as many as CPUs were named */
  assert_int_equal(gptvq_get_threads(), count);
  assert_int_equal(gptvq_set_affinity(NULL, &err), GPTVQ_OK);
  cpu_set_t now;
  assert_int_equal(sched_getaffinity(0, sizeof now, &now), 0);
  assert_true(CPU_EQUAL(&now, &allowed));
  assert_int_equal(gptvq_get_threads(), CPU_COUNT(&allowed) < 256 ? CPU_COUNT(&allowed) : 256);
}

/* Lists that change while workers of the last job may not even have begun. */
static void lists_come_and_go(void **state) {
  (void)state;
  char list[32];
  _Atomic size_t done = 0;
  (void)snprintf(list, sizeof list, "%d", nth_cpu(0));
  for (size_t i = 0; i < 200; i++) {
    assert_int_equal(gptvq_set_affinity(i % 2 == 0 ? list : NULL, NULL), GPTVQ_OK);
    gptvq_set_threads(4);
    gptvq_parallel_for(8, 1, add_one, &done);
    assert_int_equal(atomic_load(&done), 8 * (i + 1));
  }
  gptvq_set_threads(0);
  assert_int_equal(gptvq_get_threads(), CPU_COUNT(&allowed) < 256 ? CPU_COUNT(&allowed) : 256);
}

static void wrong_lists(void **state) {
  (void)state;
  static const char *const lists[] = {
      "", "a", "-1", "0-", "0,", ",0", "1-0", "0 ", "0,,1", "0-x", "99999999999999999999", "1023-1024"};
  gptvq_error err;
  char list[32];
  int before = gptvq_get_threads();
  for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
    if (gptvq_set_affinity(lists[i], &err) != GPTVQ_ERROR_ARGUMENT)
      fail_msg("'%s' was taken for a list of CPUs", lists[i]);
  int first = nth_cpu(0);
  (void)snprintf(list, sizeof list, "%d,%d", first, first);
  assert_int_equal(gptvq_set_affinity(list, &err), GPTVQ_ERROR_ARGUMENT);
  assert_non_null(strstr(err.message, "twice"));
  assert_int_equal(gptvq_get_threads(), before);
  cpu_set_t now;
  assert_int_equal(sched_getaffinity(0, sizeof now, &now), 0);
  assert_true(CPU_EQUAL(&now, &allowed));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_item_once),    cmocka_unit_test(short_lived_pools),
      cmocka_unit_test(long_runs),          cmocka_unit_test(nobody_waits_for_the_slow),
      cmocka_unit_test(many_short_jobs),    cmocka_unit_test(concurrent_callers),
      cmocka_unit_test(one_thread_per_cpu), cmocka_unit_test(lists_come_and_go),
      cmocka_unit_test(wrong_lists)};
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return 1;
  return cmocka_run_group_tests(tests, NULL, NULL);
}
