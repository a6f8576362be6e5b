/* linalg/solve/narrow.h: large arrays of doubles that become fp32 where they are, in all threads. */
#ifndef GPTVQ_LINALG_SOLVE_NARROW_H
#define GPTVQ_LINALG_SOLVE_NARROW_H

#include <stddef.h>

/* The first half of the memory of values[count] becomes fp32 numbers, scale · value each. Returns it, made
 * smaller: what takes the place of `values` for free(). */
float *gptvq_narrow(double *values, size_t count, double scale);

#endif
