/* model/loader.h: turning tensors of a checkpoint into the parts of a model; keeps account of what was used.
 */
#ifndef GPTVQ_MODEL_LOADER_H
#define GPTVQ_MODEL_LOADER_H

#include "model/model_internal.h"

/* Allocations that live as long as the model, newest first. */
typedef struct gptvq_owned gptvq_owned;
struct gptvq_owned {
  gptvq_owned *next;
  void *memory;
};

/* What is known of a block linear beside its weights; [layers × per block] in the order of the blocks. */
typedef struct gptvq_stored {
  const gptvq_linear *linear;
  uint64_t bytes;
  char method[16];
  double error;
} gptvq_stored;

/* model->owned points to this. */
typedef struct gptvq_model_parts {
  gptvq_owned *owned;
  gptvq_stored *stored;
  size_t stored_count, stored_room;
  gptvq_other_info *others; /* [other_room], the first other_count are filled */
  size_t other_count, other_room;
  char *quantization;               /* JSON text or NULL */
  bool inside;                      /* the folder's model holds this one beside a vision tower */
  bool *used;                       /* by tensor number, while loading */
  const gptvq_callbacks *callbacks; /* for warnings while loading, else NULL */
} gptvq_model_parts;

/* count × size zeroed bytes owned by the model; NULL when out of memory. */
void *gptvq_model_alloc(gptvq_model *model, size_t count, size_t size);
/* A copy owned by the model; NULL when out of memory. */
const char *gptvq_model_name(gptvq_model *model, const char *name);

/* A tensor of finite numbers as fp32, owned by the model. */
gptvq_status gptvq_load_values(gptvq_model *model, const char *name, size_t rank, const size_t *dims,
                               const float **out, gptvq_error *err);
/* A vector tensor of n finite numbers as fp32, owned by the model. */
gptvq_status gptvq_load_vector(gptvq_model *model, const char *name, size_t n, const float **out,
                               gptvq_error *err);
/* A norm's gain: the same of its weight, plus the family's offset. */
gptvq_status gptvq_load_norm(gptvq_model *model, const char *name, size_t n, const float **out,
                             gptvq_error *err);
/* NAME.weight [rows × cols], dense; small ones are checked for NaN and infinity. It goes into the account of
 * what is not quantized, with `why`, a constant. */
gptvq_status gptvq_load_dense(gptvq_model *model, const char *name, size_t rows, size_t cols, const char *why,
                              gptvq_linear *out, gptvq_error *err);
/* One more line of that account, of a tensor or of so many as one; why: a constant. */
gptvq_status gptvq_note_tensors(gptvq_model *model, const gptvq_tensor *tensor, size_t tensors, bool used,
                                const char *why, gptvq_error *err);
/* NAME, dense or packed, with NAME.bias when `bias`; recorded in parts->stored. `out` must stay where it is.
 */
gptvq_status gptvq_load_linear(gptvq_model *model, const char *name, size_t rows, size_t cols, bool bias,
                               gptvq_linear *out, gptvq_error *err);
/* model.embed_tokens.weight. GPTVQ_ERROR_UNSUPPORTED when it is there under another prefix. */
gptvq_status gptvq_load_embedding(gptvq_model *model, gptvq_error *err);
/* The embedding's matrix again, or lm_head.weight, or the packed layer lm_head: where config.json ties them,
 * a head with other values than the embedding is one of its own all the same, and config.tie_embeddings
 * becomes false. */
gptvq_status gptvq_load_head(gptvq_model *model, gptvq_error *err);
/* Gives model->head int8 codes, owned by the model; the embedding stays as it is. GPTVQ_ERROR_MEMORY;
 * _NUMERIC naming a row. */
gptvq_status gptvq_quantize_head(gptvq_model *model, gptvq_error *err);
/* After all else: the checkpoint forgets the tensors that no part of the model uses, with one warning, if the
 * model is the same function of text without them. GPTVQ_ERROR_FORMAT naming another. Ends the use of
 * parts->used. */
gptvq_status gptvq_drop_extra(gptvq_model *model, gptvq_error *err);

#endif
