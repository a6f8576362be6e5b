/* cuda/shim/fiber.h: several stacks on one thread of the host. A fiber runs until it gives way to the
 * scheduler, which is the code that resumes fibers. On x86-64 and AArch64 by a few instructions, elsewhere
 * by ucontext. The sanitizers are told about each change of stacks. */
#ifndef GPTVQ_CUDA_SHIM_FIBER_H
#define GPTVQ_CUDA_SHIM_FIBER_H

#include <stddef.h>

#if defined(__SANITIZE_ADDRESS__)
#define GPTVQ_FIBER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define GPTVQ_FIBER_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define GPTVQ_FIBER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define GPTVQ_FIBER_TSAN 1
#endif
#endif

#if !defined(__x86_64__) && !defined(__aarch64__)
#include <ucontext.h>
#define GPTVQ_FIBER_UCONTEXT 1
#endif

enum { GPTVQ_FIBER_STACK = 64 << 10 }; /* bytes; reports of a sanitizer need that much, too */

struct gptvq_fiber_place { /* where a stack has stopped */
#ifdef GPTVQ_FIBER_UCONTEXT
  ucontext_t context;
#else
  void *stack_pointer;
#endif
  const void *bottom; /* for the sanitizers: lowest address and size of the stack */
  size_t size;
  void *fake, *tsan;
};

extern "C" {
/* Makes *fiber start at entry() on stack[GPTVQ_FIBER_STACK] when it is resumed; entry never returns. */
void gptvq_fiber_start(gptvq_fiber_place *fiber, char *stack, void (*entry)());
/* From `from`, the place that is running, to `to`; ended: `from` is never resumed. */
void gptvq_fiber_change(gptvq_fiber_place *from, gptvq_fiber_place *to, bool ended);
/* First thing in entry; `from`: the scheduler's place. */
void gptvq_fiber_entered(gptvq_fiber_place *from);
/* Of a fiber that has ended or will not be resumed. */
void gptvq_fiber_release(gptvq_fiber_place *fiber);
/* The scheduler's own place, before its first change. */
void gptvq_fiber_here(gptvq_fiber_place *scheduler);
}

#endif
