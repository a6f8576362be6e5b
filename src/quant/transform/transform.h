/* quant/transform/transform.h: changes of the original model that keep its function and make it easier to
 * quantize, written as a model folder of its own that the pipeline then reads in the original's place.
 *
 * Rotation (options->rotate, bits of gptvq_rotate): the residual stream x becomes x Q with Q a randomised
 * Hadamard matrix. An RMS norm without gain commutes with Q, so gains move into the linears behind the norm
 * (W diag(g) Q) and become 1; what writes to the stream becomes Qᵀ W, Qᵀ b; the embedding E Q, the head W
 * diag(g) Q, as a matrix of its own where it was tied. A norm between o or down and the stream has gains that
 * would have to be taken up behind it, where nothing is: such models keep their stream. Inside attention each
 * head's values v become v R: rows of v_proj, columns of o_proj, the same R for a key-value head and all its
 * query heads. */
#ifndef GPTVQ_QUANT_TRANSFORM_TRANSFORM_H
#define GPTVQ_QUANT_TRANSFORM_TRANSFORM_H

#include "linalg/hadamard.h"
#include "model/model_internal.h"
#include "quant/options/options.h"

typedef struct gptvq_transform {
  const gptvq_model *model;
  int rotate;
  gptvq_rotation residual; /* n 0: none */
  gptvq_rotation *heads;   /* [layers], or NULL */
} gptvq_transform;

/* Do these options ask for any? */
bool gptvq_transform_wanted(const gptvq_resolved *options);

/* GPTVQ_ERROR_UNSUPPORTED: the options ask for one that this model's blocks do not allow. */
gptvq_status gptvq_transform_check(const gptvq_model *model, const gptvq_resolved *options, gptvq_error *err);

/* Rotations from the options' seed. GPTVQ_ERROR_UNSUPPORTED: a size that cannot be rotated; _MEMORY. The
 * caller releases *out, also after a failure. */
gptvq_status gptvq_transform_create(const gptvq_model *model, const gptvq_resolved *options,
                                    gptvq_transform *out, gptvq_error *err);
void gptvq_transform_release(gptvq_transform *transform);

/* The transformed model as `folder` (which exists): config.json, generation_config.json if there is one, and
 * at last model.safetensors. Changed linears and biases are fp32, embedding and head of the original type
 * (rounded once). GPTVQ_ERROR_NUMERIC: a changed tensor leaves the range of its type, by name. The model's
 * tensors are finite. */
gptvq_status gptvq_transform_write(const gptvq_transform *transform, const char *folder,
                                   const gptvq_callbacks *callbacks, gptvq_error *err);
/* Bytes of the tensors that gptvq_transform_write writes. */
gptvq_status gptvq_transform_bytes(const gptvq_transform *transform, uint64_t *bytes, gptvq_error *err);

#endif
