/* cuda/backend.h: the layer solver's functions on a device.
 *
 * How results compare with the CPU's. Kernels do the CPU's operations in the CPU's order, without fused
 * multiply-adds: from the same inputs they give the same bits, on the shim and on a card. Products are the
 * device's: an element that is a sum of n terms differs from the CPU's by at most 2 γ Σ |terms|, γ = n ε / (1
 * − n ε), ε = 2^-24 for GPTVQ_PRODUCT_FP32, so that an assignment differs only where two centroids are as
 * near as what that does to their distances. On the shim the solver's products are the CPU's, also of
 * rows in pieces. The codebook update is by conjugate gradients, also where the CPU solves small systems
 * directly, until what an update can still gain is put at 3e-4 of the loss (quant/layer/update.c); other
 * assignments may follow from there. Of a trellis tables and row scales are made as on the CPU. */
#ifndef GPTVQ_CUDA_BACKEND_H
#define GPTVQ_CUDA_BACKEND_H

#include "cuda/linalg.h"
#include "quant/layer/backend.h"

typedef struct gptvq_cuda gptvq_cuda;

/* Device memory that a trellis takes beside its layer's arrays, at most: tails of kernel `path`. */
enum { GPTVQ_CUDA_TAIL_BYTES = 256 << 20 };

/* Makes a backend of a device, which stays the caller's and has to live longer. linalg: the device's, whose
 * map goes where memory is short; it has to live as long as the backend works; or NULL. GPTVQ_ERROR_MEMORY of
 * the host. On success the caller destroys *out. */
gptvq_status gptvq_cuda_create(gptvq_device *device, gptvq_cuda_linalg *linalg, gptvq_cuda **out,
                               gptvq_error *err);
/* Gives all of its device memory back. */
void gptvq_cuda_destroy(gptvq_cuda *cuda); /* NULL: nothing */
/* The table, the backend's; entries that the device has no kernels for are the CPU's. It may be copied. */
const gptvq_backend *gptvq_cuda_backend(const gptvq_cuda *cuda);
/* Names of the entries that are the CPU's, and of the cases that others leave to it, for reports: one line.
 */
const char *gptvq_cuda_left_to_cpu(const gptvq_cuda *cuda);

#endif
