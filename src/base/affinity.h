/* base/affinity.h: which processors the threads of the pool are bound to. */
#ifndef GPTVQ_BASE_AFFINITY_H
#define GPTVQ_BASE_AFFINITY_H

#include "base/status.h"

/* Reads LIST ("0-3,6": numbers and ranges, each CPU once) and remembers it; NULL forgets it and gives the
 * calling thread back the CPUs it began with. GPTVQ_ERROR_ARGUMENT for what is not a list or names a CPU that
 * this process may not use: nothing changes. */
gptvq_status gptvq_affinity_set(const char *list, gptvq_error *err);
/* CPUs of the list; 0: threads are not bound. */
size_t gptvq_affinity_count(void);
/* Binds the calling thread, thread number `thread` of the pool, to its CPU (number modulo the list's length);
 * nothing without a list. */
void gptvq_affinity_bind(size_t thread);
/* CPUs that the process may use, before anything was bound; at least 1. */
size_t gptvq_affinity_available(void);

#endif
