/* cuda/shim/run.h: blocks of a kernel on the calling thread; C's view of what is written in C++. */
#ifndef GPTVQ_CUDA_SHIM_RUN_H
#define GPTVQ_CUDA_SHIM_RUN_H

#include <stddef.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef void (*gptvq_shim_kernel)(const void *arguments);

typedef struct gptvq_shim_launch {
  gptvq_shim_kernel kernel;
  const void *arguments;
  unsigned grid_x, grid_y, threads; /* threads: a multiple of 32 */
  size_t shared_bytes;
  bool reverse; /* threads take their turns in descending order: without missing barriers nothing changes */
} gptvq_shim_launch;

/* The kernels in the order of cuda/kernels.h, and their names. */
extern const gptvq_shim_kernel gptvq_shim_kernels[];
extern const char *const gptvq_shim_kernel_names[];

typedef enum gptvq_shim_end { GPTVQ_SHIM_DONE, GPTVQ_SHIM_FAILED, GPTVQ_SHIM_NO_MEMORY } gptvq_shim_end;

/* Blocks [begin, end) of the grid, row by row, one after the other. FAILED: message[size] says which block
 * and why (threads that do not meet at a barrier or in a warp's exchange), *block which; those after it did
 * not run. */
gptvq_shim_end gptvq_shim_run(const gptvq_shim_launch *launch, size_t begin, size_t end, size_t *block,
                              char *message, size_t size);

#ifdef __cplusplus
}
#endif

#endif
