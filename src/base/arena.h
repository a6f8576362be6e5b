/* base/arena.h: the scratch memory of one piece of work in one allocation: what is taken last is given back
 * first. Sizes are not written down a second time: what takes from an arena takes from one without memory,
 * too, which only counts. So each such function has a `_bytes` beside it, which runs it on a counting arena,
 * and sums of these are what an arena is made for and what estimates of memory add up. */
#ifndef GPTVQ_BASE_ARENA_H
#define GPTVQ_BASE_ARENA_H

#include "base/status.h"

#include <stdbool.h>

typedef struct gptvq_arena {
  char *memory; /* NULL: it only counts, in `used` and `peak` (SIZE_MAX after an overflow) */
  size_t size, used, peak;
  bool exceeded; /* something did not fit */
} gptvq_arena;

/* GPTVQ_ERROR_MEMORY naming `context`, also for SIZE_MAX bytes. On success the caller destroys it. */
gptvq_status gptvq_arena_create(gptvq_arena *arena, size_t bytes, const char *context, gptvq_error *err);
void gptvq_arena_destroy(gptvq_arena *arena); /* a zeroed struct is fine */

/* One in memory that is there, 64-byte aligned, such as a thread's share of a larger piece; not to be
 * destroyed.
 */
static inline gptvq_arena gptvq_arena_over(void *memory, size_t bytes) {
  return (gptvq_arena){.memory = memory, .size = bytes};
}

/* count × size bytes, 64-byte aligned, not initialised / zeroed; never NULL for 0. NULL when they do not fit,
 * which gptvq_arena_check reports after several, and when the arena only counts. */
void *gptvq_arena_take(gptvq_arena *arena, size_t count, size_t size);
void *gptvq_arena_take_zero(gptvq_arena *arena, size_t count, size_t size);
/* GPTVQ_ERROR_INTERNAL when anything taken so far did not fit: more than was planned for. */
gptvq_status gptvq_arena_check(const gptvq_arena *arena, const char *context, gptvq_error *err);
/* All that was taken since `used` was `mark` is given back. */
void gptvq_arena_return(gptvq_arena *arena, size_t mark);

#endif
