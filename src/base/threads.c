#include "base/affinity.h"
#include "base/context.h"
#include "base/memory.h"

#include <sched.h>

/* SPINS: some hundred microseconds, longer than the serial work between two tokens: a token loop never
 * sleeps. */
enum { SPINS = 16000 };

/* Everything that workers have to agree on is one word: generation of the job << 32 | closed | workers
 * inside. A worker enters a job that is not closed; the caller closes it when no chunk is left and waits for
 * those inside, not for those that are still asleep. */
static const uint64_t closed = (uint64_t)1 << 31, inside_mask = ((uint64_t)1 << 31) - 1;

static _Thread_local bool inside_task;
static _Atomic size_t everywhere; /* threads of all contexts together */

static inline void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static uint64_t make_range(uint64_t low, uint64_t high) { return high << 32 | low; }
static uint64_t range_size(uint64_t range) { return (range >> 32) - (uint32_t)range; }

static bool take_first(gptvq_share *from, size_t *chunk) {
  uint64_t range = atomic_load_explicit(&from->range, memory_order_relaxed);
  while (range_size(range) > 0)
    if (atomic_compare_exchange_weak_explicit(&from->range, &range, range + 1, memory_order_relaxed,
                                              memory_order_relaxed)) {
      *chunk = (uint32_t)range;
      return true;
    }
  return false;
}

/* Takes the second half of the largest share: its first chunk, and the others to `to`, which is empty; false
 * when nothing is left. */
static bool steal_half(gptvq_pool *pool, gptvq_share *to, size_t *chunk) {
  for (;;) {
    gptvq_share *victim = NULL;
    uint64_t range = 0;
    for (size_t i = 0; i < pool->share_count; i++) {
      uint64_t other = atomic_load_explicit(&pool->shares[i].range, memory_order_relaxed);
      if (range_size(other) > range_size(range)) range = other, victim = &pool->shares[i];
    }
    if (victim == NULL) return false;
    uint64_t low = (uint32_t)range, high = range >> 32, middle = low + (high - low) / 2;
    if (!atomic_compare_exchange_strong_explicit(&victim->range, &range, make_range(low, middle),
                                                 memory_order_relaxed, memory_order_relaxed))
      continue;
    *chunk = middle;
    atomic_store_explicit(&to->range, make_range(middle + 1, high), memory_order_relaxed);
    return true;
  }
}

static void run_chunks(gptvq_pool *pool, size_t thread) {
  gptvq_share *own = &pool->shares[thread];
  for (size_t chunk; take_first(own, &chunk) || steal_half(pool, own, &chunk);) {
    size_t begin = chunk * pool->grain;
    pool->task(pool->argument, begin, gptvq_min_size(begin + pool->grain, pool->count), thread);
  }
}

/* The state once its generation is no longer `seen`; spins, then sleeps. */
static uint64_t wait_for_job(gptvq_pool *pool, uint32_t seen) {
  uint64_t state;
  for (size_t spins = 0; spins < SPINS; spins++) {
    state = atomic_load_explicit(&pool->state, memory_order_acquire);
    if ((uint32_t)(state >> 32) != seen) return state;
    relax();
  }
  pthread_mutex_lock(&pool->mutex);
  atomic_fetch_add(&pool->sleeping,
                   1); /* before the state is looked at again: publish does it the other way round */
  while ((uint32_t)((state = atomic_load(&pool->state)) >> 32) == seen)
    pthread_cond_wait(&pool->wake, &pool->mutex);
  atomic_fetch_sub(&pool->sleeping, 1);
  pthread_mutex_unlock(&pool->mutex);
  return state;
}

static void *worker(void *argument) {
  const gptvq_worker *self = argument;
  gptvq_pool *pool = &self->context->pool;
  uint32_t seen = self->seen;
  inside_task = true;
  (void)gptvq_context_use(self->context);
  gptvq_affinity_bind(&self->context->affinity, self->thread);
  for (;;) {
    uint64_t state = wait_for_job(pool, seen);
    while (!(state & closed) &&
           !atomic_compare_exchange_weak_explicit(&pool->state, &state, state + 1, memory_order_acq_rel,
                                                  memory_order_acquire))
      continue;
    seen = (uint32_t)(state >> 32);
    if (state &
        closed) { /* asked only now: a failed exchange may have brought the generation that says stop */
      if (atomic_load_explicit(&pool->stop, memory_order_acquire)) return NULL;
      continue;
    }
    run_chunks(pool, self->thread);
    atomic_fetch_sub_explicit(&pool->state, 1, memory_order_release);
  }
}

/* Starts the next generation; nobody is inside the last one. */
static void publish(gptvq_pool *pool, uint64_t flags) {
  uint32_t generation = (uint32_t)(atomic_load_explicit(&pool->state, memory_order_relaxed) >> 32) + 1;
  atomic_store(&pool->state, (uint64_t)generation << 32 | flags);
  if (atomic_load(&pool->sleeping) == 0) return;
  pthread_mutex_lock(&pool->mutex);
  pthread_cond_broadcast(&pool->wake);
  pthread_mutex_unlock(&pool->mutex);
}

static void stop_workers(gptvq_pool *pool) {
  if (pool->worker_count == 0) return;
  atomic_store_explicit(&pool->stop, true, memory_order_release);
  publish(pool, closed);
  for (size_t i = 0; i < pool->worker_count; i++) pthread_join(pool->workers[i].id, NULL);
  atomic_store_explicit(&pool->stop, false, memory_order_release);
  pool->worker_count = 0;
}

void gptvq_pool_release(gptvq_pool *pool) {
  stop_workers(pool);
  atomic_fetch_sub(&everywhere, (size_t)atomic_load(&pool->wanted));
  (void)pthread_cond_destroy(&pool->wake);
  (void)pthread_mutex_destroy(&pool->mutex);
  (void)pthread_mutex_destroy(&pool->call);
}

static void start_workers(gptvq_context *context) {
  gptvq_pool *pool = &context->pool;
  size_t wanted = (size_t)atomic_load(&pool->wanted) - 1;
  while (pool->worker_count < wanted) {
    gptvq_worker *next = &pool->workers[pool->worker_count];
    next->context = context;
    next->thread = pool->worker_count + 1;
    next->seen = (uint32_t)(atomic_load(&pool->state) >> 32);
    if (pthread_create(&next->id, NULL, worker, next) != 0) return;
    pool->worker_count++;
  }
}

static void choose_threads(gptvq_context *context, int threads) {
  size_t wanted = threads > 0 ? (size_t)threads : context->affinity.count;
  if (wanted == 0) wanted = gptvq_affinity_available();
  wanted = gptvq_min_size(wanted, GPTVQ_MAX_THREADS);
  int before = atomic_exchange(&context->pool.wanted, (int)wanted);
  atomic_fetch_add(&everywhere, wanted - (size_t)before);
}

void gptvq_context_set_threads(gptvq_context *context, int threads) {
  context = gptvq_context_of(context);
  pthread_mutex_lock(&context->pool.call);
  stop_workers(&context->pool);
  choose_threads(context, threads);
  pthread_mutex_unlock(&context->pool.call);
}

gptvq_status gptvq_context_set_affinity(gptvq_context *context, const char *cpus, gptvq_error *err) {
  context = gptvq_context_of(context);
  pthread_mutex_lock(&context->pool.call);
  stop_workers(&context->pool); /* one that has only just started may still be reading the list; those that
                                      start from now on bind themselves */
  gptvq_status status = gptvq_affinity_set(&context->affinity, cpus, err);
  if (status == GPTVQ_OK) {
    if (context == gptvq_context_current()) gptvq_affinity_enter(&context->affinity);
    choose_threads(context, 0);
  }
  pthread_mutex_unlock(&context->pool.call);
  return status;
}

int gptvq_context_get_threads(gptvq_context *context) {
  gptvq_pool *pool = &gptvq_context_of(context)->pool;
  int wanted = atomic_load_explicit(&pool->wanted, memory_order_relaxed);
  if (wanted != 0) return wanted;
  pthread_mutex_lock(&pool->call);
  if (atomic_load(&pool->wanted) == 0) choose_threads(gptvq_context_of(context), 0);
  pthread_mutex_unlock(&pool->call);
  return atomic_load(&pool->wanted);
}

void gptvq_set_threads(int threads) { gptvq_context_set_threads(NULL, threads); }
int gptvq_get_threads(void) { return gptvq_context_get_threads(NULL); }
gptvq_status gptvq_set_affinity(const char *cpus, gptvq_error *err) {
  return gptvq_context_set_affinity(NULL, cpus, err);
}

size_t gptvq_thread_count(void) { return (size_t)gptvq_context_get_threads(gptvq_context_current()); }
size_t gptvq_thread_count_everywhere(void) {
  (void)gptvq_thread_count();
  return atomic_load(&everywhere);
}

void gptvq_parallel_for(size_t count, size_t grain, gptvq_task task, void *argument) {
  gptvq_context *context = gptvq_context_current();
  gptvq_pool *pool = &context->pool;
  if (count == 0) return;
  if (grain == 0) grain = 1;
  const size_t chunks = gptvq_ceil_div(count, grain);
  if (inside_task || chunks == 1 || chunks > UINT32_MAX || gptvq_context_get_threads(context) == 1) {
    for (size_t begin = 0; begin < count; begin += grain)
      task(argument, begin, gptvq_min_size(begin + grain, count), 0);
    return;
  }
  pthread_mutex_lock(&pool->call);
  start_workers(context);
  pool->task = task;
  pool->argument = argument;
  pool->count = count;
  pool->grain = grain;
  pool->share_count = pool->worker_count + 1;
  for (size_t i = 0; i < pool->share_count; i++)
    atomic_store_explicit(&pool->shares[i].range,
                          make_range(chunks * i / pool->share_count, chunks * (i + 1) / pool->share_count),
                          memory_order_relaxed);
  publish(pool, 0);
  inside_task = true;
  run_chunks(pool, 0);
  inside_task = false;
  atomic_fetch_or_explicit(&pool->state, closed, memory_order_acq_rel);
  for (size_t spins = 0; (atomic_load_explicit(&pool->state, memory_order_acquire) & inside_mask) != 0;
       spins++) {
    if (spins < SPINS) relax();
    else sched_yield(); /* more threads than cores: let the others finish */
  }
  pthread_mutex_unlock(&pool->call);
}
