#include "text/bytes.h"

/* Grown capacity for `size` + `more` elements of `width` bytes; 0 when that overflows. */
static size_t grown(size_t size, size_t more, size_t capacity, size_t width) {
  size_t needed, bytes;
  if (!gptvq_add(size, more, &needed)) return 0;
  size_t wanted = gptvq_max_size(needed, gptvq_max_size(capacity + capacity / 2, 64));
  return gptvq_mul(wanted, width, &bytes) ? wanted : 0;
}

bool gptvq_bytes_reserve(gptvq_bytes *bytes, size_t more) {
  if (bytes->failed) return false;
  if (bytes->capacity - bytes->size >= more && bytes->data != NULL) return true;
  size_t capacity = grown(bytes->size, more, bytes->capacity, 1);
  char *data = capacity == 0 ? NULL : realloc(bytes->data, capacity);
  if (data == NULL) {
    bytes->failed = true;
    return false;
  }
  bytes->data = data;
  bytes->capacity = capacity;
  return true;
}

void gptvq_bytes_free(gptvq_bytes *bytes) {
  free(bytes->data);
  *bytes = (gptvq_bytes){0};
}

bool gptvq_ids_reserve(gptvq_ids *ids, size_t more) {
  if (ids->failed) return false;
  if (ids->capacity - ids->size >= more && ids->data != NULL) return true;
  size_t capacity = grown(ids->size, more, ids->capacity, sizeof *ids->data);
  int32_t *data = capacity == 0 ? NULL : realloc(ids->data, capacity * sizeof *data);
  if (data == NULL) {
    ids->failed = true;
    return false;
  }
  ids->data = data;
  ids->capacity = capacity;
  return true;
}

void gptvq_ids_free(gptvq_ids *ids) {
  free(ids->data);
  *ids = (gptvq_ids){0};
}

void gptvq_pieces_push(gptvq_pieces *pieces, size_t begin, size_t end, int32_t id, bool origin) {
  if (pieces->failed) return;
  if (pieces->count == pieces->capacity) {
    size_t capacity = grown(pieces->count, 1, pieces->capacity, sizeof *pieces->items);
    gptvq_piece *items = capacity == 0 ? NULL : realloc(pieces->items, capacity * sizeof *items);
    if (items == NULL) {
      pieces->failed = true;
      return;
    }
    pieces->items = items;
    pieces->capacity = capacity;
  }
  /* offsets beyond 32 bits are refused by gptvq_pieces_check before anyone uses them */
  pieces->items[pieces->count++] = (gptvq_piece){(uint32_t)begin, (uint32_t)end, id, origin};
}

void gptvq_pieces_free(gptvq_pieces *pieces) {
  gptvq_bytes_free(&pieces->text);
  free(pieces->items);
  *pieces = (gptvq_pieces){0};
}

gptvq_status gptvq_pieces_check(const gptvq_pieces *pieces, gptvq_error *err) {
  if (pieces->failed || pieces->text.failed)
    return gptvq_fail(err, GPTVQ_ERROR_MEMORY, "out of memory while tokenizing a text of %zu bytes",
                      pieces->text.size);
  if (pieces->text.size > UINT32_MAX)
    return gptvq_fail(err, GPTVQ_ERROR_DATA,
                      "the text is too large to tokenize at once (%zu bytes): cut it into parts",
                      pieces->text.size);
  return GPTVQ_OK;
}
