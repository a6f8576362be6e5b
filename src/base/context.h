/* base/context.h: what a gptvq_context holds, and the one that the calling thread is in. Workers are in the
 * context of their pool: whatever asks for threads or the CPU level finds its own without being told. */
#ifndef GPTVQ_BASE_CONTEXT_H
#define GPTVQ_BASE_CONTEXT_H

#include <gptvq/context.h>

#include "base/cpu.h"
#include "base/threads.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

enum { GPTVQ_MAX_THREADS = 256, GPTVQ_MAX_CPUS = 1024 };

/* Chunks [low, high) that a thread has before it: high << 32 | low. A line each, so that taking one's own
 * chunks disturbs nobody. */
typedef struct gptvq_share {
  _Alignas(64) _Atomic uint64_t range;
} gptvq_share;

typedef struct gptvq_worker {
  gptvq_context *context;
  pthread_t id;
  size_t thread;
  uint32_t seen; /* generation when it was started */
} gptvq_worker;

/* threads.c */
typedef struct gptvq_pool {
  pthread_mutex_t call;  /* held by the one running gptvq_parallel_for */
  pthread_mutex_t mutex; /* guards sleeping */
  pthread_cond_t wake;
  gptvq_worker workers[GPTVQ_MAX_THREADS];
  size_t worker_count; /* running workers: wanted threads - 1 */
  _Atomic int wanted;  /* 0: not decided yet */
  _Atomic uint64_t state;
  _Atomic size_t sleeping;
  _Atomic bool stop;
  /* the current job */
  gptvq_task task;
  void *argument;
  size_t count, grain, share_count;
  gptvq_share shares[GPTVQ_MAX_THREADS];
} gptvq_pool;

#define GPTVQ_POOL_INIT \
  { \
    .call = PTHREAD_MUTEX_INITIALIZER, .mutex = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER, \
    .state = (uint64_t)1 << 31 \
  }

/* affinity.c: the CPU of each thread; count 0: threads are not bound. */
typedef struct gptvq_affinity {
  int cpus[GPTVQ_MAX_CPUS];
  size_t count;
} gptvq_affinity;

struct gptvq_context {
  gptvq_pool pool;
  gptvq_affinity affinity;
  gptvq_cpu_features cpu; /* cpu.c: what is in force */
};

/* Of the calling thread; never NULL. */
gptvq_context *gptvq_context_current(void);
/* `context`, or the default one for NULL. */
gptvq_context *gptvq_context_of(gptvq_context *context);

/* Of a context that goes away. */
void gptvq_pool_release(gptvq_pool *pool);
/* The features that a context begins with. */
gptvq_cpu_features gptvq_cpu_initial(void);

#endif
