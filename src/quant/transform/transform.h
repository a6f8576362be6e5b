/* quant/transform/transform.h: changes of the original model that keep its function and make it easier to
 * quantize, written as a model folder of its own that the pipeline then reads in the original's place.
 *
 * Rotation (options->rotate, bits of gptvq_rotate): the residual stream x becomes x Q with Q a randomised
 * Hadamard matrix. An RMS norm without gain commutes with Q, so gains move into the linears behind the norm
 * (W diag(g) Q) and become 1; what writes to the stream becomes Qᵀ W, Qᵀ b; the embedding E Q, the head W
 * diag(g) Q, as a matrix of its own where it was tied. A norm between o or down and the stream has gains that
 * would have to be taken up behind it, where nothing is: such models keep their stream. Inside attention each
 * head's values v become v R: rows of v_proj, columns of o_proj, the same R for a key-value head and all its
 * query heads.
 *
 * Order (act_order 3): columns of down_proj by their weight in the loss on the original model's activations,
 * with the rows of gate and up in the same order; columns of o_proj inside each head, by the sum over the
 * query heads of a key-value head, with the rows of v_proj. Left out for o_proj when heads are rotated, which
 * evens its columns out. For uniform methods and d = 1 that is descending H_ii. For sub-vectors of d > 1
 * columns, H_ii · ‖W_:i‖², and sub-vector i has the i-th column of each of d equal parts: all of them then
 * are uneven in the same way, and a shared codebook can give the weightier column the finer steps. */
#ifndef GPTVQ_QUANT_TRANSFORM_TRANSFORM_H
#define GPTVQ_QUANT_TRANSFORM_TRANSFORM_H

#include "calib/sweep.h"
#include "linalg/hadamard.h"
#include "quant/options/options.h"

typedef struct gptvq_transform {
  const gptvq_model *model;
  int rotate;
  gptvq_rotation residual; /* n 0: none */
  gptvq_rotation *heads;   /* [layers], or NULL */
  /* new position → old one, [layers] arrays in one; NULL: as they are */
  uint32_t *value_order; /* [layers][kv_heads · head_dim]: rows of v */
  uint32_t *mlp_order;   /* [layers][most MLPs][widest MLP] */
} gptvq_transform;

/* Do these options ask for any? */
bool gptvq_transform_wanted(const gptvq_resolved *options);

/* GPTVQ_ERROR_UNSUPPORTED: the options ask for one that this model's blocks do not allow. */
gptvq_status gptvq_transform_check(const gptvq_model *model, const gptvq_resolved *options, gptvq_error *err);

/* Rotations from the options' seed, orders from the activations of the windows (only with act_order 3: one
 * forward pass over all of them; none: no orders; columns of experts that no token reaches stay where they
 * are). place: of their activations. Reports progress. The same for any number of threads.
 * GPTVQ_ERROR_UNSUPPORTED: a size that cannot be rotated; _NUMERIC: activations that are not finite, naming
 * the layer; _MEMORY. The caller releases *out, also after a failure. */
gptvq_status gptvq_transform_create(const gptvq_model *model, const gptvq_resolved *options,
                                    const gptvq_token_windows *windows, gptvq_stream_place place,
                                    const gptvq_callbacks *callbacks, gptvq_transform *out, gptvq_error *err);
void gptvq_transform_release(gptvq_transform *transform);

/* The transformed model as `folder` (which exists): config.json, generation_config.json if there is one, and
 * at last model.safetensors. Only reordered tensors keep their type; with a rotation, linears and biases are
 * fp32, embedding and head of the original type (rounded once). *bytes, if not NULL, receives the bytes of
 * all tensors. GPTVQ_ERROR_NUMERIC: a changed tensor leaves the range of its type, by name. The
 * model's tensors are finite. */
gptvq_status gptvq_transform_write(const gptvq_transform *transform, const char *folder,
                                   const gptvq_callbacks *callbacks, gptvq_error *err);
/* Bytes of the tensors that gptvq_transform_write writes. */
gptvq_status gptvq_transform_bytes(const gptvq_transform *transform, uint64_t *bytes, gptvq_error *err);

#endif
