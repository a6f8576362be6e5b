/* cuda/linalg.h: linalg/solve/backend.h on a device: Gram and cross products, whose sums stay on the device
 * until they are settled, and the factorisation of Hessians. Inputs may be the device's own. */
#ifndef GPTVQ_CUDA_LINALG_H
#define GPTVQ_CUDA_LINALG_H

#include "cuda/device.h"
#include "linalg/solve/backend.h"

typedef struct gptvq_cuda_linalg gptvq_cuda_linalg;

/* rounds: inputs of products are rounded to bf16, as gptvq_cpu_linalg_bf16's. The device stays the caller's
 * and has to live longer. GPTVQ_ERROR_MEMORY of the host. On success the caller destroys *out. */
gptvq_status gptvq_cuda_linalg_create(gptvq_device *device, bool rounds, gptvq_cuda_linalg **out,
                                      gptvq_error *err);
const gptvq_linalg *gptvq_cuda_linalg_table(const gptvq_cuda_linalg *linalg); /* its own */
/* Gives all of its device memory back. NULL: nothing. */
void gptvq_cuda_linalg_destroy(gptvq_cuda_linalg *linalg);

/* The device has the rows x[n × ld] at an address of its own, too: until they are taken back, that address of
 * the host stands for them in calls of the table, which do not read there. One array at a time. */
void gptvq_cuda_linalg_lend(gptvq_cuda_linalg *linalg, const float *x, size_t n, size_t ld,
                            const float *device);
void gptvq_cuda_linalg_take_back(gptvq_cuda_linalg *linalg);
/* A sweep is over: what was remembered goes, and all memory but the sums'. */
void gptvq_cuda_linalg_rest(gptvq_cuda_linalg *linalg);

/* Something of it goes back to the host, for others' sake. *done false: there is nothing. Not while it adds.
 */
gptvq_status gptvq_cuda_linalg_make_room(gptvq_cuda_linalg *linalg, bool *done, gptvq_error *err);
/* The map goes, for others' sake. false: there is none. linalg NULL: so, too. */
bool gptvq_cuda_linalg_drop_map(gptvq_cuda_linalg *linalg);

/* Device bytes without which nothing goes: for the sums of m × c numbers, or of c × c and to factorise them,
 * where as much as possible was given back. */
size_t gptvq_cuda_linalg_bytes(size_t m, size_t c);

#endif
