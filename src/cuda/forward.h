/* cuda/forward.h: model/forward.h on a device: dense blocks with norms, rotary grouped-query attention and
 * MLPs gated by SiLU.
 *
 * How results compare with the CPU's. What stands between products gives its bits; products and attention sum
 * in another order, in fp32. With bf16 their inputs are rounded as the CPU's, but for those of the attention,
 * which stay fp32: nearer to the model than the CPU's. */
#ifndef GPTVQ_CUDA_FORWARD_H
#define GPTVQ_CUDA_FORWARD_H

#include "model/forward.h"
#include "cuda/linalg.h"

typedef struct gptvq_cuda_forward gptvq_cuda_forward;

/* linalg: of the same device, is lent what is captured; NULL: none. Both stay the caller's and have to live
 * longer. GPTVQ_ERROR_MEMORY of the host. On success the caller destroys *out. */
gptvq_status gptvq_cuda_forward_create(gptvq_device *device, gptvq_cuda_linalg *linalg,
                                       gptvq_cuda_forward **out, gptvq_error *err);
const gptvq_forward *gptvq_cuda_forward_table(const gptvq_cuda_forward *forward); /* its own */
/* Gives all of its device memory back. NULL: nothing. */
void gptvq_cuda_forward_destroy(gptvq_cuda_forward *forward);

/* The table's `lacks`. */
const char *gptvq_cuda_forward_lacks(const gptvq_model *model, const gptvq_block *block, bool mlp);
/* Device bytes at most for windows of n tokens through the block, mlp_n of them at a time through its MLP, in
 * `ways` versions of the block, with what the linalg may remember. */
size_t gptvq_cuda_forward_bytes(const gptvq_model *model, const gptvq_block *block, size_t n, size_t mlp_n,
                                size_t ways);
/* The same for n rows of logits. */
size_t gptvq_cuda_head_bytes(const gptvq_model *model, size_t n);

#endif
