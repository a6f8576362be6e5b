/* base/clock.h: how long things take. */
#ifndef GPTVQ_BASE_CLOCK_H
#define GPTVQ_BASE_CLOCK_H

#include <time.h>

/* Seconds from an arbitrary start. */
static inline double gptvq_clock(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#endif
