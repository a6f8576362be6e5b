/* How fast all threads together read from memory: the ceiling of everything that goes through weights once. */
#define _GNU_SOURCE
#include "base/memory.h"
#include "base/threads.h"

#include <gptvq/bench.h>
#include <string.h>
#include <time.h>

enum { CHUNK = 1 << 13, LANES = 32 }; /* words of a task's step */
static const size_t pool_words = (size_t)1 << 25;

typedef struct reading {
  const uint64_t *words;
  uint64_t sums[256]; /* keeps the loads alive */
} reading;

static void read_chunks(void *context, size_t begin, size_t end, size_t thread) {
  reading *job = context;
  uint64_t lanes[LANES] = {0};
  for (size_t i = begin * CHUNK; i < end * CHUNK; i += LANES)
    for (size_t j = 0; j < LANES; j++) lanes[j] ^= job->words[i + j];
  for (size_t j = 0; j < LANES; j++) job->sums[thread % 256] ^= lanes[j];
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double gptvq_measure_bandwidth(size_t rounds) {
  enum { PIECES = 16 };
  uint64_t *words = gptvq_alloc(pool_words, sizeof *words);
  double best = 0.0;
  if (words == NULL) return 0.0;
  memset(words, 1, pool_words * sizeof *words);
  reading job = {.words = words};
  size_t piece = pool_words / PIECES;
  for (size_t i = 0; i < rounds * PIECES; i++) {
    job.words = words + i % PIECES * piece;
    double start = now();
    gptvq_parallel_for(piece / CHUNK, 8, read_chunks, &job);
    double rate = (double)(piece * sizeof *words) / (now() - start);
    if (rate > best) best = rate;
  }
  volatile uint64_t sink = job.sums[0];
  (void)sink;
  free(words);
  return best;
}
