/* text/bytes.h: the growable arrays of the tokenizer. A failed allocation sets `failed`; later appends do
 * nothing, so that callers check once, at the end. Zero-initialise; release with the _free function. */
#ifndef GPTVQ_TEXT_BYTES_H
#define GPTVQ_TEXT_BYTES_H

#include "base/memory.h"
#include "base/status.h"

#include <string.h>

typedef struct gptvq_bytes {
  char *data;
  size_t size, capacity;
  bool failed;
} gptvq_bytes;

/* Room for `more` further bytes; false (and failed) when out of memory. */
bool gptvq_bytes_reserve(gptvq_bytes *bytes, size_t more);
void gptvq_bytes_free(gptvq_bytes *bytes);

static inline void gptvq_bytes_append(gptvq_bytes *bytes, const void *data, size_t size) {
  if (size == 0 || (bytes->capacity - bytes->size < size && !gptvq_bytes_reserve(bytes, size))) return;
  memcpy(bytes->data + bytes->size, data, size);
  bytes->size += size;
}

typedef struct gptvq_ids {
  int32_t *data;
  size_t size, capacity;
  bool failed;
} gptvq_ids;

bool gptvq_ids_reserve(gptvq_ids *ids, size_t more);
void gptvq_ids_free(gptvq_ids *ids);

static inline void gptvq_ids_push(gptvq_ids *ids, int32_t id) {
  if (ids->size == ids->capacity && !gptvq_ids_reserve(ids, 1)) return;
  ids->data[ids->size++] = id;
}

/* A part [begin, end) of the text being tokenized. */
typedef struct gptvq_piece {
  uint32_t begin, end;
  int32_t
      id; /* >= 0: this part is that added token, and nothing looks at its text any more; -1: plain text */
  bool origin; /* starts where the user's text starts (Metaspace's prepend scheme "first") */
} gptvq_piece;

/* The text and its parts, in order, not necessarily covering it. */
typedef struct gptvq_pieces {
  gptvq_bytes text; /* at most UINT32_MAX bytes */
  gptvq_piece *items;
  size_t count, capacity;
  bool failed;
} gptvq_pieces;

void gptvq_pieces_push(gptvq_pieces *pieces, size_t begin, size_t end, int32_t id, bool origin);
void gptvq_pieces_free(gptvq_pieces *pieces);
/* GPTVQ_OK; GPTVQ_ERROR_MEMORY after a failed allocation; GPTVQ_ERROR_DATA when the text outgrew 32-bit
 * offsets. */
gptvq_status gptvq_pieces_check(const gptvq_pieces *pieces, gptvq_error *err);

#endif
