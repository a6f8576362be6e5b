#include "base/json.h"
#include "base/memory.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

/* While a text is read, jansson never sees an allocation fail: the first one that does ends the reading with
 * a jump, and all that was made for it is released. Until the end nothing is, so that a list is enough. */
typedef struct pointers {
  void **items;
  size_t count, room;
} pointers;

typedef struct reading {
  jmp_buf no_memory;
  pointers made, dropped;
} reading;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static json_malloc_t usual_malloc;
static json_free_t usual_free;
static _Thread_local reading *current; /* of this thread; NULL: jansson's memory is as usual */

/* The lists themselves come from the C library: jansson's memory may be the host's own. */
static void push(reading *r, pointers *list, void *pointer) {
  if (list->count == list->room) {
    size_t room = 2 * list->room + 64, bytes;
    void **items = gptvq_mul(room, sizeof *items, &bytes) ? realloc(list->items, bytes) : NULL;
    if (items == NULL) {
      if (list == &r->made) usual_free(pointer);
      longjmp(r->no_memory, 1);
    }
    list->items = items;
    list->room = room;
  }
  list->items[list->count++] = pointer;
}

static void *allocate(size_t size) {
  void *memory = usual_malloc(size);
  if (current == NULL) return memory;
  if (memory == NULL) longjmp(current->no_memory, 1);
  push(current, &current->made, memory);
  return memory;
}

static void release(void *memory) {
  if (current != NULL) push(current, &current->dropped, memory);
  else usual_free(memory);
}

static void install(void) {
  json_get_alloc_funcs(&usual_malloc, &usual_free);
  json_set_alloc_funcs(allocate, release);
}

static json_t *load(reading *r, const char *text, size_t size, size_t flags, json_error_t *where) {
  if (setjmp(r->no_memory) == 0) return json_loadb(text, size, flags, where);
  current = NULL;
  for (size_t i = 0; i < r->made.count; i++) usual_free(r->made.items[i]);
  r->dropped.count = 0; /* they are among those made */
  (void)snprintf(where->text, sizeof where->text, "out of memory");
  where->text[sizeof where->text - 1] = (char)json_error_out_of_memory;
  return NULL;
}

json_t *gptvq_json_parse(const char *text, size_t size, size_t flags, json_error_t *where) {
  reading r = {.made = {NULL, 0, 0}};
  (void)pthread_once(&once, install);
  current = &r;
  json_t *json = load(&r, text, size, flags, where);
  current = NULL;
  for (size_t i = 0; i < r.dropped.count; i++) usual_free(r.dropped.items[i]);
  free(r.made.items);
  free(r.dropped.items);
  return json;
}

bool gptvq_json_no_memory(const json_error_t *where) {
  return json_error_code(where) == json_error_out_of_memory;
}

typedef struct dump {
  char *text;
  size_t size, room;
  bool failed; /* for good: a later piece may fit again, but one is missing */
} dump;

static int append(const char *piece, size_t size, void *context) {
  dump *d = context;
  size_t needed;
  if (d->failed || !gptvq_add(d->size + 1, size, &needed)) return -1;
  if (needed > d->room) {
    size_t room = gptvq_max_size(needed, gptvq_max_size(d->room * 2, 256));
    char *larger = realloc(d->text, room);
    if (larger == NULL) {
      d->failed = true;
      return -1;
    }
    d->text = larger;
    d->room = room;
  }
  memcpy(d->text + d->size, piece, size);
  d->size += size;
  d->text[d->size] = '\0';
  return 0;
}

char *gptvq_json_dump(const json_t *json, size_t flags) {
  dump d = {NULL, 0, 0, false};
  if (json_dump_callback(json, append, &d, flags) == 0 && !d.failed) return d.text;
  free(d.text);
  return NULL;
}
