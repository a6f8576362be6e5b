/* model/arch/gemma.h: keys that Gemma's families share. */
#ifndef GPTVQ_MODEL_ARCH_GEMMA_H
#define GPTVQ_MODEL_ARCH_GEMMA_H

#include "model/arch/arch.h"

/* The activation, the scale of the embedding; GPTVQ_ERROR_UNSUPPORTED for attention in both directions. */
gptvq_status gptvq_gemma_keys(const gptvq_config_source *source, gptvq_config *config, gptvq_error *err);
/* A cap of 1e-3 … 1e6: null means none, a key that is not there `initial`. */
gptvq_status gptvq_gemma_cap(const gptvq_config_source *source, const char *key, double initial, double *cap,
                             gptvq_error *err);

#endif
