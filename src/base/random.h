/* base/random.h: splitmix64; the same stream on every machine. */
#ifndef GPTVQ_BASE_RANDOM_H
#define GPTVQ_BASE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

static inline uint64_t gptvq_random(uint64_t *state) {
  uint64_t z = (*state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}
/* uniform in [0, 1) with 53 bits */
static inline double gptvq_random_unit(uint64_t *state) {
  return (double)(gptvq_random(state) >> 11) * 0x1p-53;
}
/* uniform in [0, bound), bound > 0; the bias of bound / 2^64 is below anything measurable */
static inline size_t gptvq_random_below(uint64_t *state, size_t bound) {
  return (size_t)(((unsigned __int128)gptvq_random(state) * bound) >> 64);
}
#endif
