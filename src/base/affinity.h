/* base/affinity.h: which processors the threads of a context are bound to. */
#ifndef GPTVQ_BASE_AFFINITY_H
#define GPTVQ_BASE_AFFINITY_H

#include "base/context.h"
#include "base/status.h"

/* Reads LIST ("0-3,6": numbers and ranges, each CPU once) and remembers it; NULL forgets it.
 * GPTVQ_ERROR_ARGUMENT for what is not a list or names a CPU that this process may not use: nothing changes.
 */
gptvq_status gptvq_affinity_set(gptvq_affinity *affinity, const char *list, gptvq_error *err);
/* Binds the calling thread, thread number `thread` of the pool, to its CPU (number modulo the list's length);
 * nothing without a list. */
void gptvq_affinity_bind(const gptvq_affinity *affinity, size_t thread);
/* Binds the calling thread as number 0, or gives it back the CPUs that it had before it was first bound when
 * there is no list. */
void gptvq_affinity_enter(const gptvq_affinity *affinity);
/* CPUs that the process may use, before anything was bound; at least 1. */
size_t gptvq_affinity_available(void);

#endif
