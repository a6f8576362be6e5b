/* base/keyed.h: sorting of places by a number. */
#ifndef GPTVQ_BASE_KEYED_H
#define GPTVQ_BASE_KEYED_H

#include <stddef.h>
#include <stdint.h>

typedef struct gptvq_keyed {
  double key;
  uint32_t at;
} gptvq_keyed;

/* By descending key; equal keys by ascending place, so that the order is the same everywhere. No key is NaN.
 */
void gptvq_sort_descending(gptvq_keyed *items, size_t count);

#endif
