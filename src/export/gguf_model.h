/* export/gguf_model.h: a model as llama.cpp knows it: the architecture's keys, and every tensor by its name.
 */
#ifndef GPTVQ_EXPORT_GGUF_MODEL_H
#define GPTVQ_EXPORT_GGUF_MODEL_H

#include "export/gguf_file.h"
#include "model/model_internal.h"

/* One tensor of the file: a linear (of every expert, one after another), or fp32 values. */
typedef struct gptvq_gguf_tensor {
  char name[64];
  const gptvq_linear *linear; /* NULL: values, or those of the experts */
  const float *values;        /* [cols] */
  const gptvq_block *block;   /* experts: linear `part` of that input, of each */
  gptvq_block_input input;
  size_t part, experts; /* experts 0: there is one linear */
  size_t rows, cols;    /* rows 0: a vector */
  size_t head_dim;      /* not 0: values of a head pair by pair, not half by half */
} gptvq_gguf_tensor;

typedef struct gptvq_gguf_tensors {
  gptvq_gguf_tensor *items;
  size_t count;
  float *rope_factors; /* owned */
} gptvq_gguf_tensors;

/* GPTVQ_ERROR_UNSUPPORTED: llama.cpp cannot run this model, or has other numbers built in. Before the rest.
 */
gptvq_status gptvq_gguf_check(const gptvq_model *model, gptvq_error *err);
/* The keys of model->config; name: general.name. */
void gptvq_gguf_config(gptvq_gguf *file, const gptvq_model *model, const char *name);
/* All tensors of the model, which owns what they point to. */
gptvq_status gptvq_gguf_list(const gptvq_model *model, gptvq_gguf_tensors *out, gptvq_error *err);
void gptvq_gguf_tensors_release(gptvq_gguf_tensors *tensors);
/* linear number `expert` of an item that is no fp32 values */
const gptvq_linear *gptvq_gguf_linear(const gptvq_gguf_tensor *tensor, size_t expert);

#endif
