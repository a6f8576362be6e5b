/* cuda/shim/shim.h: what only tests ask of the shim. Other devices are left as they are. */
#ifndef GPTVQ_CUDA_SHIM_SHIM_H
#define GPTVQ_CUDA_SHIM_SHIM_H

#include "cuda/device.h"

/* Threads of a block take their turns in descending instead of ascending order: a result that changes shows
 * a missing barrier. */
void gptvq_shim_reverse(gptvq_device *device, bool reverse);
/* What its memory is said to be in all, in bytes; more is refused. */
void gptvq_shim_limit(gptvq_device *device, size_t bytes);
/* Calls of pin that are still to be followed by unpin. */
size_t gptvq_shim_pinned(gptvq_device *device);
/* Runs a kernel that is not in the table. */
gptvq_status gptvq_shim_launch_other(gptvq_device *device, const char *name, void (*kernel)(const void *),
                                     const gptvq_device_grid *grid, const void *arguments, gptvq_error *err);

#endif
