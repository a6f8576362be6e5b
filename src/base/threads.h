/* base/threads.h: the worker threads of the calling thread's context.
 *
 * gptvq_parallel_for cuts [0, count) into chunks of `grain` items. Each thread begins with an equal share of
 * consecutive chunks and takes half of the largest share left when it has done its own: memory is read in a
 * few long streams, and nobody waits for a slow thread. Which thread runs a chunk is not determined, so a
 * task must depend only on its own range: then results do not depend on the number of threads. Calls from
 * inside a task run serially. Concurrent callers in one context are serialised. Workers spin briefly, then
 * sleep; there is no allocation in a call. */
#ifndef GPTVQ_BASE_THREADS_H
#define GPTVQ_BASE_THREADS_H

#include <stddef.h>

/* `thread` is in [0, gptvq_thread_count()), unique among concurrently running chunks: an index for scratch
 * memory. */
typedef void (*gptvq_task)(void *context, size_t begin, size_t end, size_t thread);

void gptvq_parallel_for(size_t count, size_t grain, gptvq_task task, void *context);

/* Rows of so many values that make a task worth waking others for, where a value takes about a nanosecond: a
 * grain for element-wise work on the rows of few tokens. */
static inline size_t gptvq_rows_per_task(size_t values) {
  enum { TASK_VALUES = 8192 };
  return values < TASK_VALUES ? TASK_VALUES / (values > 0 ? values : 1) : 1;
}

/* Threads of the calling thread's context, at least 1. */
size_t gptvq_thread_count(void);
/* Those of all contexts that have been used, this one's included. */
size_t gptvq_thread_count_everywhere(void);

#endif
