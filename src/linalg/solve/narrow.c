#include "linalg/solve/narrow.h"
#include "base/memory.h"
#include "base/threads.h"

#include <string.h>

typedef struct narrow_job {
  char *bytes;
  size_t first;
  double scale;
} narrow_job;

/* memcpy: the memory changes its type. */
static void narrow_values(void *context, size_t begin, size_t end, size_t thread) {
  (void)thread;
  const narrow_job *job = context;
  for (size_t i = job->first + begin; i < job->first + end; i++) {
    double value;
    memcpy(&value, job->bytes + i * sizeof value, sizeof value);
    const float narrow = (float)(value * job->scale);
    memcpy(job->bytes + i * sizeof narrow, &narrow, sizeof narrow);
  }
}

float *gptvq_narrow(double *values, size_t count, double scale) {
  enum { SERIAL = 4096 };
  narrow_job job = {(char *)values, 0, scale};
  narrow_values(&job, 0, gptvq_min_size(SERIAL, count), 0);
  /* values [first, 2 first) go to where those before them were, which are read already */
  for (job.first = SERIAL; job.first < count; job.first *= 2)
    gptvq_parallel_for(gptvq_min_size(job.first, count - job.first), SERIAL, narrow_values, &job);
  float *shrunk = realloc(values, count * sizeof *shrunk);
  return shrunk != NULL ? shrunk : (float *)(void *)values;
}
