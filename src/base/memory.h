/* base/memory.h: overflow-checked sizes and 64-byte aligned allocation. */
#ifndef GPTVQ_BASE_MEMORY_H
#define GPTVQ_BASE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* false when the result does not fit in size_t */
static inline bool gptvq_mul(size_t a, size_t b, size_t *out) { return !__builtin_mul_overflow(a, b, out); }
static inline bool gptvq_add(size_t a, size_t b, size_t *out) { return !__builtin_add_overflow(a, b, out); }
static inline size_t gptvq_ceil_div(size_t a, size_t b) { return a / b + (a % b != 0); }
static inline size_t gptvq_round_up(size_t a, size_t b) { return gptvq_ceil_div(a, b) * b; }
static inline size_t gptvq_min_size(size_t a, size_t b) { return a < b ? a : b; }
static inline size_t gptvq_max_size(size_t a, size_t b) { return a > b ? a : b; }

/* count × size bytes, 64-byte aligned, not initialised / zeroed; NULL on overflow or when out of memory;
 * never NULL for 0. Release with free(). */
void *gptvq_alloc(size_t count, size_t size);
void *gptvq_alloc_zero(size_t count, size_t size);
/* count × size with saturation at SIZE_MAX, for messages (gptvq_fail_memory). */
size_t gptvq_saturated_size(size_t count, size_t size);

static inline size_t gptvq_saturated_sum(size_t a, size_t b) {
  size_t sum;
  return gptvq_add(a, b, &sum) ? sum : SIZE_MAX;
}

/* Peak resident memory of this process in bytes (0 when unknown). */
uint64_t gptvq_peak_memory(void);
/* Resident memory of this process now, in bytes (0 when unknown). */
uint64_t gptvq_resident_memory(void);
/* Bytes that a program may still take: what the system says is available, or what is left of a container's
 * limit (control groups, versions 1 and 2) where that is less; 0: unknown. */
uint64_t gptvq_available_memory(void);
/* The same of a machine whose files lie below `root` instead of "/". */
uint64_t gptvq_available_memory_in(const char *root);
/* CPU seconds of this process so far, all threads (0 when unknown). */
double gptvq_cpu_seconds(void);

#endif
