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

static uint64_t number_in(const char *path, const char *format) {
  uint64_t number = 0;
  char line[128];
  FILE *file = fopen(path, "re");
  if (file == NULL) return 0;
  while (fgets(line, sizeof line, file) != NULL)
    if (sscanf(line, format, &number) == 1) break;
  (void)fclose(file);
  return number;
}

uint64_t gptvq_available_memory(void) {
  uint64_t available = 1024u * number_in("/proc/meminfo", "MemAvailable: %" SCNu64 " kB");
  uint64_t limit = number_in("/sys/fs/cgroup/memory.max", "%" SCNu64); /* of a container; "max": none */
  return limit > 0 && (available == 0 || limit < available) ? limit : available;
}

void gptvq_free(void *memory) { free(memory); }
