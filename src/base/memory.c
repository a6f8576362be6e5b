#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <gptvq/tokenizer.h>

void *gptvq_alloc(size_t count, size_t size) {
  size_t bytes;
  if (!gptvq_mul(count, size, &bytes) || bytes > SIZE_MAX - 64) return NULL;
  bytes = bytes == 0 ? 64 : gptvq_round_up(bytes, 64);
  return aligned_alloc(64, bytes);
}

void *gptvq_alloc_zero(size_t count, size_t size) {
  void *memory = gptvq_alloc(count, size);
  if (memory != NULL) memset(memory, 0, count * size);
  return memory;
}

size_t gptvq_saturated_size(size_t count, size_t size) {
  size_t bytes;
  return gptvq_mul(count, size, &bytes) ? bytes : SIZE_MAX;
}

uint64_t gptvq_peak_memory(void) {
  struct rusage usage;
  if (getrusage(RUSAGE_SELF, &usage) != 0) return 0;
  return (uint64_t)usage.ru_maxrss * 1024u; /* Linux reports KiB */
}

double gptvq_cpu_seconds(void) {
  struct rusage usage;
  if (getrusage(RUSAGE_SELF, &usage) != 0) return 0.0;
  return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

void gptvq_free(void *memory) { free(memory); }
