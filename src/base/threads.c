#define _GNU_SOURCE
#include "base/threads.h"
#include "base/memory.h"

#include <gptvq/status.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

enum { MAX_THREADS = 256, SPINS = 4000 };

static struct {
  pthread_mutex_t call;   /* held by the one running gptvq_parallel_for */
  pthread_mutex_t mutex;  /* guards sleeping */
  pthread_cond_t wake;
  pthread_t workers[MAX_THREADS];
  size_t worker_count; /* running workers: wanted threads - 1 */
  int wanted;          /* 0: not decided yet */
  _Atomic size_t generation, next, finished;
  _Atomic bool stop;
  size_t sleeping;
  /* the current job */
  gptvq_task task;
  void *context;
  size_t count, grain;
} pool = {.call = PTHREAD_MUTEX_INITIALIZER, .mutex = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static _Thread_local bool inside_task;

static inline void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static void run_chunks(size_t thread) {
  for (;;) {
    size_t begin = atomic_fetch_add_explicit(&pool.next, pool.grain, memory_order_relaxed);
    if (begin >= pool.count) return;
    pool.task(pool.context, begin, gptvq_min_size(begin + pool.grain, pool.count), thread);
  }
}

static void *worker(void *argument) {
  size_t thread = (size_t)(uintptr_t)argument & 0xffff, seen = (size_t)(uintptr_t)argument >> 16;
  inside_task = true;
  for (;;) {
    size_t spins = 0;
    while (atomic_load_explicit(&pool.generation, memory_order_acquire) == seen) {
      if (++spins < SPINS) {
        relax();
        continue;
      }
      pthread_mutex_lock(&pool.mutex);
      pool.sleeping++;
      while (atomic_load_explicit(&pool.generation, memory_order_acquire) == seen)
        pthread_cond_wait(&pool.wake, &pool.mutex);
      pool.sleeping--;
      pthread_mutex_unlock(&pool.mutex);
    }
    seen++;
    if (atomic_load_explicit(&pool.stop, memory_order_acquire)) return NULL;
    run_chunks(thread);
    atomic_fetch_add_explicit(&pool.finished, 1, memory_order_release);
  }
}

static void publish(void) {
  atomic_fetch_add_explicit(&pool.generation, 1, memory_order_release);
  pthread_mutex_lock(&pool.mutex);
  if (pool.sleeping > 0) pthread_cond_broadcast(&pool.wake);
  pthread_mutex_unlock(&pool.mutex);
}

static void stop_workers(void) {
  if (pool.worker_count == 0) return;
  atomic_store_explicit(&pool.stop, true, memory_order_release);
  publish();
  for (size_t i = 0; i < pool.worker_count; i++) pthread_join(pool.workers[i], NULL);
  atomic_store_explicit(&pool.stop, false, memory_order_release);
  pool.worker_count = 0;
}

static void start_workers(void) {
  size_t wanted = (size_t)gptvq_get_threads() - 1;
  while (pool.worker_count < wanted) {
    uintptr_t argument = (uintptr_t)atomic_load(&pool.generation) << 16 | (pool.worker_count + 1);
    if (pthread_create(&pool.workers[pool.worker_count], NULL, worker, (void *)argument) != 0) return;
    pool.worker_count++;
  }
}

void gptvq_set_threads(int threads) {
  pthread_mutex_lock(&pool.call);
  stop_workers();
  if (threads <= 0) {
    cpu_set_t set;
    threads = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  }
  pool.wanted = threads > MAX_THREADS ? MAX_THREADS : threads;
  pthread_mutex_unlock(&pool.call);
}

int gptvq_get_threads(void) {
  if (pool.wanted == 0) gptvq_set_threads(0);
  return pool.wanted;
}

void gptvq_parallel_for(size_t count, size_t grain, gptvq_task task, void *context) {
  if (count == 0) return;
  if (grain == 0) grain = 1;
  if (inside_task || count <= grain || gptvq_get_threads() == 1) {
    for (size_t begin = 0; begin < count; begin += grain)
      task(context, begin, gptvq_min_size(begin + grain, count), 0);
    return;
  }
  pthread_mutex_lock(&pool.call);
  start_workers();
  pool.task = task;
  pool.context = context;
  pool.count = count;
  pool.grain = grain;
  atomic_store_explicit(&pool.next, 0, memory_order_relaxed);
  atomic_store_explicit(&pool.finished, 0, memory_order_relaxed);
  publish();
  inside_task = true;
  run_chunks(0);
  inside_task = false;
  for (size_t spins = 0; atomic_load_explicit(&pool.finished, memory_order_acquire) < pool.worker_count; spins++) {
    if (spins < SPINS) relax();
    else sched_yield(); /* more threads than cores: let the others finish */
  }
  pthread_mutex_unlock(&pool.call);
}
