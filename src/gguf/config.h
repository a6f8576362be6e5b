/* gguf/config.h: the metadata of a model as the config.json of a Hugging Face folder. */
#ifndef GPTVQ_GGUF_CONFIG_H
#define GPTVQ_GGUF_CONFIG_H

#include "gguf/reader.h"

#include <jansson.h>

/* What general.architecture says of how tensors lie. */
typedef struct gptvq_gguf_family {
  const char *name, *model_type, *architecture; /* architecture: in config.json */
  bool interleaved;                             /* rows of q and k pair by pair in a head, not half by half */
  bool norms_around; /* ffn_norm stands behind one that the attention's output has */
  float norm_offset; /* what norms hold more than in a Hugging Face folder */
} gptvq_gguf_family;

/* GPTVQ_ERROR_UNSUPPORTED naming those that are read. *out is static. */
gptvq_status gptvq_gguf_family_of(const gptvq_gguf_reader *reader, const gptvq_gguf_family **out,
                                  gptvq_error *err);

/* The caller owns *out. GPTVQ_ERROR_FORMAT: a key that is needed is missing or wrong;
 * GPTVQ_ERROR_UNSUPPORTED. */
gptvq_status gptvq_gguf_config_json(const gptvq_gguf_reader *reader, json_t **out, gptvq_error *err);

#endif
