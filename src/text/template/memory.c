#include "text/template/value.h"

#include "text/utf8.h"

#include <stdarg.h>
#include <stdio.h>

struct gptvq_tpl_chunk {
  gptvq_tpl_chunk *next;
  size_t used, room;
  _Alignas(max_align_t) char data[];
};

void gptvq_tpl_init(gptvq_tpl *t, const char *name, gptvq_error *err) {
  memset(t, 0, sizeof *t);
  t->name = name;
  t->err = err;
}

void gptvq_tpl_release(gptvq_tpl *t) {
  while (t->chunks != NULL) {
    gptvq_tpl_chunk *next = t->chunks->next;
    free(t->chunks);
    t->chunks = next;
  }
}

void gptvq_tpl_fail(gptvq_tpl *t, gptvq_status status, const char *format, ...) {
  char message[800];
  va_list args;
  va_start(args, format);
  (void)vsnprintf(message, sizeof message, format, args);
  va_end(args);
  t->status = t->line > 0 ? gptvq_fail(t->err, status, "%s: line %d: %s", t->name, t->line, message)
                          : gptvq_fail(t->err, status, "%s: %s", t->name, message);
  longjmp(t->failed, 1);
}

void *gptvq_tpl_alloc(gptvq_tpl *t, size_t count, size_t size) {
  enum { CHUNK = 1 << 16, ALIGN = _Alignof(max_align_t) };
  size_t bytes, room;
  if (!gptvq_mul(count, size, &bytes) || bytes > GPTVQ_TPL_MAX_MEMORY ||
      t->taken + bytes > GPTVQ_TPL_MAX_MEMORY)
    gptvq_tpl_fail(t, GPTVQ_ERROR_UNSUPPORTED, "the template takes more than %d MB of memory",
                   GPTVQ_TPL_MAX_MEMORY >> 20);
  gptvq_tpl_work(t, bytes);
  bytes = gptvq_round_up(gptvq_max_size(bytes, 1), ALIGN);
  t->taken += bytes;
  if (t->chunks == NULL || t->chunks->room - t->chunks->used < bytes) {
    room = gptvq_max_size(bytes, CHUNK);
    gptvq_tpl_chunk *chunk = malloc(sizeof *chunk + room);
    if (chunk == NULL)
      gptvq_tpl_fail(t, GPTVQ_ERROR_MEMORY, "out of memory: a template needs %zu bytes", room);
    *chunk = (gptvq_tpl_chunk){.next = t->chunks, .room = room};
    t->chunks = chunk;
  }
  char *memory = t->chunks->data + t->chunks->used;
  t->chunks->used += bytes;
  return memory;
}

void gptvq_tpl_work(gptvq_tpl *t, size_t bytes) {
  t->steps += bytes / 64 + 1;
  if (t->steps > GPTVQ_TPL_MAX_STEPS)
    gptvq_tpl_fail(t, GPTVQ_ERROR_UNSUPPORTED, "the template runs for more than %d steps: it seems to loop",
                   GPTVQ_TPL_MAX_STEPS);
}

void gptvq_tpl_deeper(gptvq_tpl *t) {
  if (++t->depth > GPTVQ_TPL_MAX_DEPTH)
    gptvq_tpl_fail(t, GPTVQ_ERROR_UNSUPPORTED, "more than %d levels of expressions, calls or data",
                   GPTVQ_TPL_MAX_DEPTH);
}

void gptvq_tpl_build(gptvq_tpl *t, gptvq_builder *b, const char *data, size_t size) {
  if (size > GPTVQ_TPL_MAX_OUTPUT - b->size)
    gptvq_tpl_fail(t, GPTVQ_ERROR_UNSUPPORTED, "the template makes a text of more than %d MB",
                   GPTVQ_TPL_MAX_OUTPUT >> 20);
  if (b->room - b->size < size) {
    size_t room =
        gptvq_max_size(b->size + size, gptvq_min_size(gptvq_max_size(64, 2 * b->room), GPTVQ_TPL_MAX_OUTPUT));
    char *larger = gptvq_tpl_alloc(t, room, 1);
    if (b->size > 0) memcpy(larger, b->data, b->size);
    b->data = larger;
    b->room = room;
  }
  if (size > 0) memcpy(b->data + b->size, data, size);
  b->size += size;
}

void gptvq_tpl_build_text(gptvq_tpl *t, gptvq_builder *b, const char *text) {
  gptvq_tpl_build(t, b, text, strlen(text));
}

void gptvq_tpl_build_char(gptvq_tpl *t, gptvq_builder *b, uint32_t code_point) {
  char bytes[4];
  gptvq_tpl_build(t, b, bytes, gptvq_utf8_encode(code_point, bytes));
}

gptvq_string gptvq_tpl_built(const gptvq_builder *b) {
  return (gptvq_string){b->data != NULL ? b->data : "", b->size};
}
