#define _GNU_SOURCE /* MAP_ANONYMOUS */
#include "base/memory.h"
#include "base/status.h"
#include "base/threads.h"
#include "linalg/gemm.h"

#include <cblas.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/mman.h>

/* OpenBLAS maps a buffer for every product that runs at the same time as others, and tries again for ever
 * when it cannot: so they are taken here, where there is an answer to that. Its own threads, made when it is
 * loaded, take one each when they come to run, at any time from then on: they are ended first, and their
 * buffers are among those taken. These functions are in the library but not in its header. */
__attribute__((weak)) void *blas_memory_alloc(int position);
__attribute__((weak)) void blas_memory_free(void *buffer);
__attribute__((weak)) int blas_thread_shutdown_(void);

enum { MOST_BUFFERS = 48 };                           /* any OpenBLAS has room for 50 without a warning */
static const size_t buffer_bytes = (size_t)128 << 20; /* of address space; the largest of its targets */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static size_t ready; /* buffers that are there */
static void *known[MOST_BUFFERS];

/* One mapping a buffer, as OpenBLAS makes them. */
static bool fits(size_t count) {
  void *probes[MOST_BUFFERS];
  size_t made = 0;
  while (made < count && (probes[made] = mmap(NULL, buffer_bytes, PROT_READ | PROT_WRITE,
                                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) != MAP_FAILED)
    made++;
  for (size_t i = 0; i < made; i++) (void)munmap(probes[i], buffer_bytes);
  return made == count;
}

/* Where its threads' buffers may not fit they would be waited for as long as they try. */
static void use_one_thread(void) {
  int own = openblas_get_num_threads();
  openblas_set_num_threads(1);
  if (blas_thread_shutdown_ != NULL && own > 1 && fits(gptvq_min_size((size_t)own, MOST_BUFFERS)))
    (void)blas_thread_shutdown_();
}
void gptvq_blas_one_thread(void) { (void)pthread_once(&once, use_one_thread); }

static bool is_known(const void *buffer) {
  size_t i = 0;
  while (i < ready && known[i] != buffer) i++;
  return i < ready;
}

/* Until `wanted` are there. Of those known another context may be using some: they are not given out, and
 * need not be made once more. */
static void take(size_t wanted) {
  void *buffers[MOST_BUFFERS];
  size_t count = 0;
  while (ready < wanted && count < MOST_BUFFERS) {
    void *buffer = blas_memory_alloc(0);
    if (!is_known(buffer)) known[ready++] = buffer;
    buffers[count++] = buffer;
  }
  for (size_t i = 0; i < count; i++) blas_memory_free(buffers[i]);
}

gptvq_status gptvq_blas_init(gptvq_error *err) {
  gptvq_status status = GPTVQ_OK;
  size_t wanted = gptvq_min_size(gptvq_thread_count_everywhere(), MOST_BUFFERS);
  gptvq_blas_one_thread();
  pthread_mutex_lock(&mutex);
  if (wanted > ready && fits(wanted - ready)) {
    if (blas_memory_alloc != NULL && blas_memory_free != NULL) take(wanted);
    ready = wanted;
  } else if (wanted > ready) {
    status = gptvq_fail(err, GPTVQ_ERROR_MEMORY,
                        "out of memory: matrix products on %zu threads need %zu MB of address space", wanted,
                        (wanted * buffer_bytes) >> 20);
  }
  pthread_mutex_unlock(&mutex);
  return status;
}

const char *gptvq_blas_core(void) { return openblas_get_corename(); }
