/* kernels/trellis_streams.h: what kernels read of a trellis' streams. A step takes `vector` bytes of a
 * stream, or with 3 bits per weight twelve of its bytes, and needs some before it; steps beyond a group's
 * last column are multiplied by activations of 0, so that only memory's end matters. */
#ifndef GPTVQ_KERNELS_TRELLIS_STREAMS_H
#define GPTVQ_KERNELS_TRELLIS_STREAMS_H

#include "kernels/trellis.h"

#include <stdbool.h>
#include <string.h>

/* Bytes that a step ends, bytes before them that it needs, and its columns. */
static inline size_t gptvq_step_bytes(unsigned k, size_t vector) { return k == 3 ? 12 : vector; }
static inline size_t gptvq_step_before(unsigned k) { return k == 3 ? 4 : 1; }
static inline size_t gptvq_step_columns(unsigned k, size_t vector) { return k == 3 ? 32 : vector * (8 / k); }

/* Steps of a group, the bytes of its columns in a row, and what is read of them. */
typedef struct gptvq_extent {
  size_t steps, bytes, before, read;
} gptvq_extent;

/* `first`: nothing before the group is read, since it is the first one. */
static inline gptvq_extent gptvq_extent_of(unsigned k, size_t width, int first, size_t vector) {
  const size_t columns = gptvq_step_columns(k, vector), steps = (width + columns - 1) / columns;
  return (gptvq_extent){.steps = steps,
                        .bytes = (width * k + 7) / 8,
                        .before = first ? 0 : gptvq_step_before(k),
                        .read = steps * gptvq_step_bytes(k, vector) + (k == 3 && first ? 4 : 0)};
}

static inline bool gptvq_can_read(const gptvq_trellis_rows *job, const uint8_t *at, const gptvq_extent *e) {
  return (size_t)(at - job->streams) >= e->before && (size_t)(job->end - at) >= e->read;
}

/* Room for the bytes of a group with others around them, for groups that cannot be read where they are. */
typedef struct gptvq_padded {
  uint8_t bytes[8 + GPTVQ_I8_MAX_WIDTH / 2 + 32];
} gptvq_padded;

/* The `bytes` bytes at `at`, of columns from `begin` on, with those before them, or zeros, and zeros behind.
 */
static inline const uint8_t *gptvq_pad(const uint8_t *at, size_t begin, unsigned k, size_t bytes,
                                       gptvq_padded *room) {
  const size_t there = begin * k / 8, before = there < gptvq_step_before(k) ? there : gptvq_step_before(k);
  memset(room->bytes, 0, 8 + bytes + 32);
  memcpy(room->bytes + 8 - before, at - before, before + bytes);
  return room->bytes + 8;
}

#endif
