/* cuda/backend.h: the layer solver's functions on a device. */
#ifndef GPTVQ_CUDA_BACKEND_H
#define GPTVQ_CUDA_BACKEND_H

#include "cuda/device.h"
#include "quant/layer/backend.h"

typedef struct gptvq_cuda gptvq_cuda;

/* Makes a backend of a device, which stays the caller's and has to live longer. GPTVQ_ERROR_MEMORY of the
 * host. On success the caller destroys *out. */
gptvq_status gptvq_cuda_create(gptvq_device *device, gptvq_cuda **out, gptvq_error *err);
/* Gives all of its device memory back. */
void gptvq_cuda_destroy(gptvq_cuda *cuda); /* NULL: nothing */
/* The table, the backend's; entries that the device has no kernels for are the CPU's. It may be copied. */
const gptvq_backend *gptvq_cuda_backend(const gptvq_cuda *cuda);
/* Names of the entries that are the CPU's, and of the cases that others leave to it, for reports: one line.
 */
const char *gptvq_cuda_left_to_cpu(const gptvq_cuda *cuda);

#endif
