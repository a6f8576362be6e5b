/* How fast all threads together read from memory: the ceiling of everything that goes through weights once.
 */
#define _GNU_SOURCE
#include "base/clock.h"
#include "base/memory.h"
#include "base/threads.h"
#include "tools/bench.h"

#include <string.h>

enum { CHUNK = 1 << 13, LANES = 32 }; /* words of a task's step */
static const size_t pool_words = (size_t)1 << 25;

static volatile uint64_t sink[256]; /* [thread] keeps the loads alive */

static void read_chunks(void *context, size_t begin, size_t end, size_t thread) {
  const uint64_t *words = context;
  uint64_t lanes[LANES] = {0};
  for (size_t i = begin * CHUNK; i < end * CHUNK; i += LANES)
    for (size_t j = 0; j < LANES; j++) lanes[j] ^= words[i + j];
  for (size_t j = 1; j < LANES; j++) lanes[0] ^= lanes[j];
  sink[thread] = lanes[0];
}

void gptvq_read_memory(void *memory, size_t bytes) {
  gptvq_parallel_for(bytes / (CHUNK * sizeof(uint64_t)), 4, read_chunks, memory);
}

double gptvq_measure_bandwidth(size_t rounds) {
  enum { PIECES = 16 };
  uint64_t *words = gptvq_alloc(pool_words, sizeof *words);
  double best = 0.0;
  if (words == NULL) return 0.0;
  memset(words, 1, pool_words * sizeof *words);
  const size_t piece = pool_words / PIECES, bytes = piece * sizeof *words;
  for (size_t i = 0; i < rounds * PIECES; i++) {
    double start = gptvq_clock();
    gptvq_read_memory(words + i % PIECES * piece, bytes);
    double rate = (double)bytes / (gptvq_clock() - start);
    if (rate > best) best = rate;
  }
  free(words);
  return best;
}
