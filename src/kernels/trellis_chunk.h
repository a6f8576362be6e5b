/* kernels/trellis_chunk.h: chunks of 256 columns of a trellis' stream for kernels that read whole ones and
 * the byte before them. */
#ifndef GPTVQ_KERNELS_TRELLIS_CHUNK_H
#define GPTVQ_KERNELS_TRELLIS_CHUNK_H

#include "kernels/trellis.h"

#include <stdbool.h>
#include <string.h>

/* A chunk of `bytes` bytes with zeros around it; `before`: after others of its row. */
typedef struct gptvq_padded_chunk {
  uint8_t bytes[1 + GPTVQ_TRELLIS_CHUNK / 2 + 3];
} gptvq_padded_chunk;

static inline const uint8_t *gptvq_pad_chunk(const uint8_t *chunk, size_t bytes, bool before,
                                             gptvq_padded_chunk *room) {
  memset(room, 0, sizeof *room);
  if (before) room->bytes[0] = chunk[-1];
  memcpy(room->bytes + 1, chunk, bytes);
  return room->bytes + 1;
}

/* Can columns [c, c + 256) of a stream, of which `left` are left of what may be read, be read in place: are
 * the byte before them there, all of them, and, with 3 bits, three bytes behind them? */
static inline bool gptvq_chunk_in_place(unsigned k, size_t c, size_t left) {
  return c > 0 && left >= GPTVQ_TRELLIS_CHUNK + (k == 3 ? 8 : 0);
}

/* Where they lie, or else in *room. */
static inline const uint8_t *gptvq_find_chunk(const uint8_t *stream, unsigned k, size_t c, size_t left,
                                              gptvq_padded_chunk *room) {
  const uint8_t *chunk = stream + c * k / 8;
  const size_t columns = left < GPTVQ_TRELLIS_CHUNK ? left : GPTVQ_TRELLIS_CHUNK;
  if (gptvq_chunk_in_place(k, c, left)) return chunk;
  return gptvq_pad_chunk(chunk, (columns * k + 7) / 8, c > 0, room);
}

#endif
