/* model/forward.h: the halves of a block, and the output head, for whole windows of tokens, as a table that a
 * device may give. The CPU's (gptvq_block_attention, …_mlp, …_output, gptvq_head) are the definition, and do
 * what a table does not take. */
#ifndef GPTVQ_MODEL_FORWARD_H
#define GPTVQ_MODEL_FORWARD_H

#include "model/model_internal.h"

/* Who looks at inputs of linears. */
typedef struct gptvq_forward_watch {
  gptvq_capture capture;
  /* Are the inputs of the linears read? Where not, x is given to a gptvq_linalg alone, to which it may be an
   * address that stands for numbers elsewhere. */
  bool (*reads)(void *context, size_t linear);
  void *context;
} gptvq_forward_watch;

/* A half of a block, and how far (gptvq_stop). */
typedef struct gptvq_forward_half {
  const gptvq_model *model;
  const gptvq_block *block; /* may be a copy whose linears were replaced */
  bool mlp;
  gptvq_stop stop;
  gptvq_workspace *workspace; /* rotations; host memory for n rows of what is captured, where it is */
} gptvq_forward_half;

/* Each function is given the table that it was taken from; one thread at a time. x: [n × hidden] of the host.
 * Errors as the CPU's, GPTVQ_ERROR_MEMORY of the device, GPTVQ_ERROR_INTERNAL where it fails. */
typedef struct gptvq_forward gptvq_forward;
struct gptvq_forward {
  /* NULL: it takes that half of the block, or with block NULL the head; else what stands in the way
   * ("experts"). */
  const char *(*lacks)(const gptvq_model *model, const gptvq_block *block, bool mlp);
  /* gptvq_block_attention of a text of n tokens from its beginning, or gptvq_block_mlp; watch: or NULL */
  gptvq_status (*run)(const gptvq_forward *forward, const gptvq_forward_half *half, size_t n, float *x,
                      const gptvq_forward_watch *watch, gptvq_error *err);
  /* gptvq_block_output; input[n × cols] */
  gptvq_status (*output)(const gptvq_forward *forward, const gptvq_forward_half *half, size_t n,
                         const float *input, float *x, gptvq_error *err);
  /* logits[n × vocab] = the head's product with norm[n × hidden], which the final norm gave */
  gptvq_status (*head)(const gptvq_forward *forward, const gptvq_model *model, size_t n, const float *norm,
                       float *logits, gptvq_error *err);
  /* This memory of the host is what x, input and logits will be in until `rest`. */
  void (*prepare)(const gptvq_forward *forward, void *memory, size_t bytes);
  /* Copies of weights and all memory of the device go: other weights may come from here on. */
  void (*drop)(const gptvq_forward *forward);
  /* All that it keeps goes: weights may change, and memory be freed, from here on. */
  void (*rest)(const gptvq_forward *forward);
  void *context; /* its own */
};

/* Who runs that half, or with block NULL the head: the table, or NULL: the CPU. forward may be NULL. */
static inline const gptvq_forward *gptvq_forward_takes(const gptvq_forward *forward, const gptvq_model *model,
                                                       const gptvq_block *block, bool mlp) {
  return forward != NULL && forward->lacks(model, block, mlp) == NULL ? forward : NULL;
}

/* gptvq_head, with the product where the table takes it. */
gptvq_status gptvq_head_on(const gptvq_model *model, const gptvq_forward *forward, gptvq_workspace *workspace,
                           size_t n, const float *x, float *logits, gptvq_error *err);

#endif
