#include "base/keyed.h"

#include <stdlib.h>

static int by_key_descending(const void *a, const void *b) {
  const gptvq_keyed *x = a, *y = b;
  if (x->key != y->key) return x->key > y->key ? -1 : 1;
  return x->at < y->at ? -1 : x->at > y->at;
}

void gptvq_sort_descending(gptvq_keyed *items, size_t count) {
  if (count > 0) qsort(items, count, sizeof *items, by_key_descending);
}
