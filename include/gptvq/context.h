/* gptvq/context.h: threads, the CPUs they are bound to and the CPU level of their kernels, together.
 *
 * A process has a default context and may create others, to be used at the same time from different threads:
 * two models of a server, say, each with threads of its own. A call runs in the context of the thread that
 * makes it, which is the default one until gptvq_context_use says otherwise. A model belongs to the context
 * that it was opened in: its sessions run there, and evaluations of it (comparisons: of the first model),
 * whichever thread calls. Results do not depend on threads or CPUs; CPU levels agree as far as
 * docs/KERNELS.md says. Concurrent calls in one context take turns at its threads.
 *
 * Of the whole process, whatever the context:
 * - OpenBLAS is told to use one thread (openblas_set_num_threads(1)) before its first product, since the
 *   library shares products out itself, and OpenMP's number of threads is 1 while a thread is inside oneDNN.
 *   A program that wants threaded BLAS for itself sets them again, and not while a call runs.
 * - jansson's allocation functions are wrapped when the first JSON text is read. The wrappers call those set
 *   before, so a program that has its own sets them (json_set_alloc_funcs) before its first call and leaves
 *   them.
 * - Linux is asked once for the use of AMX tiles (arch_prctl), where there are any.
 * - The environment variable GPTVQ_CPU is read once.
 * - Peak memory and CPU seconds of reports are those of the process. */
#ifndef GPTVQ_CONTEXT_H
#define GPTVQ_CONTEXT_H

#include <gptvq/status.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct gptvq_context gptvq_context;

/* With a thread per available core, not bound, and the best CPU level (or that of GPTVQ_CPU). On success the
 * caller owns *out; on failure it is NULL. Threads are started when they are first needed. */
GPTVQ_API gptvq_status gptvq_context_create(gptvq_context **out, gptvq_error *err);
/* When models opened in it are closed and no other thread uses it; NULL is fine. The calling thread goes back
 * to the default context if it is in this one. */
GPTVQ_API void gptvq_context_destroy(gptvq_context *context);
/* The calling thread's context from now on; NULL: the default one. Returns the one before it. A thread is
 * bound to the first CPU of its context's list while it is in it. */
GPTVQ_API gptvq_context *gptvq_context_use(gptvq_context *context);

/* As the functions without a context (gptvq/status.h), which are these with the default one, NULL. Not to be
 * called while another call runs in the context. Affinity: the calling thread is bound at once if it is in
 * the context, other threads that are in it when they next enter it. */
GPTVQ_API void gptvq_context_set_threads(gptvq_context *context, int threads);
GPTVQ_API int gptvq_context_get_threads(gptvq_context *context);
GPTVQ_API gptvq_status gptvq_context_set_affinity(gptvq_context *context, const char *cpus, gptvq_error *err);
GPTVQ_API gptvq_status gptvq_context_set_cpu(gptvq_context *context, const char *level, gptvq_error *err);
GPTVQ_API const char *gptvq_context_get_cpu(gptvq_context *context);

#ifdef __cplusplus
}
#endif
#endif
