#include "base/arena.h"
#include "base/memory.h"

#include <string.h>

/* With the address sanitizer what was not taken cannot be touched, and no two pieces lie side by side. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1 /* what gcc says */
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
enum { RED_ZONE = 64 };
#else
enum { RED_ZONE = 0 };
#define ASAN_POISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#endif

gptvq_status gptvq_arena_create(gptvq_arena *arena, size_t bytes, const char *context, gptvq_error *err) {
  *arena = (gptvq_arena){.memory = gptvq_alloc(bytes, 1), .size = bytes};
  if (arena->memory == NULL) return gptvq_fail_memory(err, context, bytes);
  ASAN_POISON_MEMORY_REGION(arena->memory, bytes);
  return GPTVQ_OK;
}

void gptvq_arena_destroy(gptvq_arena *arena) {
  if (arena->memory != NULL) ASAN_UNPOISON_MEMORY_REGION(arena->memory, arena->size);
  free(arena->memory);
  *arena = (gptvq_arena){0};
}

void *gptvq_arena_take(gptvq_arena *arena, size_t count, size_t size) {
  size_t bytes, padded, end;
  bool counted = gptvq_mul(count, size, &bytes) && gptvq_add(bytes, 63 + RED_ZONE, &padded) &&
                 gptvq_add(arena->used, padded / 64 * 64, &end);
  if (arena->memory == NULL) {
    arena->used = counted ? end : SIZE_MAX;
    arena->peak = gptvq_max_size(arena->peak, arena->used);
    return NULL;
  }
  if (!counted || end > arena->size) {
    arena->exceeded = true;
    return NULL;
  }
  char *piece = arena->memory + arena->used;
  ASAN_UNPOISON_MEMORY_REGION(piece, bytes);
  arena->used = end;
  arena->peak = gptvq_max_size(arena->peak, end);
  return piece;
}

void *gptvq_arena_take_zero(gptvq_arena *arena, size_t count, size_t size) {
  void *piece = gptvq_arena_take(arena, count, size);
  if (piece != NULL) memset(piece, 0, count * size);
  return piece;
}

gptvq_status gptvq_arena_check(const gptvq_arena *arena, const char *context, gptvq_error *err) {
  if (!arena->exceeded) return GPTVQ_OK;
  return gptvq_fail(err, GPTVQ_ERROR_INTERNAL, "%s takes more scratch memory than was planned", context);
}

void gptvq_arena_return(gptvq_arena *arena, size_t mark) {
  if (arena->memory != NULL) ASAN_POISON_MEMORY_REGION(arena->memory + mark, arena->used - mark);
  arena->used = mark;
}
