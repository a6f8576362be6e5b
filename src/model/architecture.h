/* model/architecture.h: the table of supported architectures, and blocks made from it. */
#ifndef GPTVQ_MODEL_ARCHITECTURE_H
#define GPTVQ_MODEL_ARCHITECTURE_H

#include "model/model_internal.h"

typedef enum gptvq_bias_rule { GPTVQ_BIAS_NEVER, GPTVQ_BIAS_ALWAYS, GPTVQ_BIAS_CONFIG } gptvq_bias_rule;

/* One row. Names are relative to "model.layers.N."; NULL ends a list. */
typedef struct gptvq_architecture {
  const char *name;                     /* config.json: architectures[0] */
  const char *qkv[GPTVQ_MAX_PARTS + 1]; /* one name: q, k and v fused in this order */
  const char *o;
  const char *router;     /* NULL: no mixture of experts */
  const char *experts;    /* "…%zu." before the names below, or "" */
  const char *gate_up[3]; /* one name: gate and up fused in this order */
  const char *down;
  gptvq_bias_rule qkv_bias, o_bias, mlp_bias;
  bool qk_norm; /* RMS norms of each query and key head */
  bool slides;  /* honours sliding_window */
} gptvq_architecture;

/* GPTVQ_ERROR_UNSUPPORTED with the list of supported ones. */
gptvq_status gptvq_find_architecture(const char *folder, const char *name, const gptvq_architecture **out,
                                     gptvq_error *err);

#endif
