/* quant/run/outside.h: the matrices outside of the blocks as packed layers. */
#ifndef GPTVQ_QUANT_RUN_OUTSIDE_H
#define GPTVQ_QUANT_RUN_OUTSIDE_H

#include "calib/hessian.h"
#include "quant/run/pipeline.h"

/* One that is packed: `packed` lies in `memory`, or in another's. */
typedef struct gptvq_outside_matrix {
  bool is_packed;
  gptvq_packed packed;
  void *memory;
  char method[16]; /* "gptq", "rtn" */
  double error;    /* relative, with a Hessian tr(E H Eᵀ) / tr(W H Wᵀ) */
} gptvq_outside_matrix;

typedef struct gptvq_outside {
  gptvq_outside_matrix embedding, head; /* a tied head is the embedding */
} gptvq_outside;

/* GPTVQ_ERROR_NUMERIC before any work: fp16 scales do not hold the weights of one that is to be packed. */
gptvq_status gptvq_outside_check(const gptvq_model *model, const gptvq_resolved *options,
                                 const gptvq_outside_bits *bits, gptvq_error *err);
/* The mean of x xᵀ over what the last norm of the original makes of a spread of the windows
 * (gptvq_outside_windows), which are taken through its blocks in pipeline->x. */
gptvq_status gptvq_outside_hessian(const gptvq_pipeline *pipeline, const gptvq_token_windows *windows,
                                   gptvq_hessian *hessian, gptvq_error *err);
/* hessian[hidden × hidden]: of the head, or NULL. Of a team member 0 packs, and the others get the embedding.
 * Released by the caller. The same for any number of threads. */
gptvq_status gptvq_outside_pack(const gptvq_model *model, const gptvq_solver *solver,
                                const gptvq_outside_bits *bits, const double *hessian, gptvq_outside *out,
                                gptvq_error *err);
/* What a finished folder has of them, as views of it and copies in `memory`. */
gptvq_status gptvq_outside_read(const gptvq_checkpoint *packed, gptvq_outside *out, gptvq_error *err);
void gptvq_outside_release(gptvq_outside *outside); /* a zeroed struct is fine */

/* The last shard (write.c): what is packed of them, then all tensors that are in no block's. */
gptvq_status gptvq_write_rest(const gptvq_output *out, const gptvq_model *model,
                              const gptvq_tensor_plan *plan, const gptvq_outside *outside,
                              const gptvq_tuned *tuned, gptvq_error *err);

/* `model` with the packed embedding: what the blocks will be given. Shares all else. */
gptvq_model gptvq_outside_embedded(const gptvq_model *model, const gptvq_outside *outside);

#endif
