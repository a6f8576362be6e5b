/* A list that a signal handler may walk at any moment: entries are never freed, only used again, and one that
 * has no data is being changed. Whoever reads from a mapping keeps it, so its entry holds still. */
#include "base/mappings.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

typedef struct entry {
  _Atomic(const uint8_t *) data; /* NULL: free */
  size_t size;
  char *path;
  struct entry *next;
} entry;

static _Atomic(entry *) first;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* held by those that change the list */

gptvq_status gptvq_mapping_register(const gptvq_mapping *mapping, const char *path, gptvq_error *err) {
  char *copy = strdup(path);
  pthread_mutex_lock(&lock);
  entry *e = atomic_load(&first);
  while (e != NULL && atomic_load(&e->data) != NULL) e = e->next;
  bool fresh = e == NULL;
  if (fresh && copy != NULL) e = calloc(1, sizeof *e);
  if (copy != NULL && e != NULL) {
    e->path = copy;
    e->size = mapping->size;
    if (fresh) e->next = atomic_load(&first);
    atomic_store(&e->data, mapping->data);
    if (fresh) atomic_store(&first, e);
  }
  pthread_mutex_unlock(&lock);
  if (copy != NULL && e != NULL) return GPTVQ_OK;
  free(copy);
  return gptvq_fail_memory(err, path, strlen(path) + sizeof *e);
}

void gptvq_mapping_forget(const gptvq_mapping *mapping) {
  pthread_mutex_lock(&lock);
  entry *e = atomic_load(&first);
  while (e != NULL && atomic_load(&e->data) != mapping->data) e = e->next;
  if (e != NULL) {
    atomic_store(&e->data, NULL);
    free(e->path);
    e->path = NULL;
  }
  pthread_mutex_unlock(&lock);
}

const char *gptvq_mapped_file(const void *address) {
  uintptr_t at = (uintptr_t)address;
  for (const entry *e = atomic_load(&first); e != NULL; e = e->next) {
    uintptr_t data = (uintptr_t)atomic_load(&e->data);
    if (data != 0 && at >= data && at - data < e->size) return e->path;
  }
  return NULL;
}
