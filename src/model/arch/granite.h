/* model/arch/granite.h: what the Granite families share: multipliers. */
#ifndef GPTVQ_MODEL_ARCH_GRANITE_H
#define GPTVQ_MODEL_ARCH_GRANITE_H

#include "model/arch/arch.h"

#define GPTVQ_GRANITE_KEYS \
  "attention_multiplier", "embedding_multiplier", "logits_scaling", "residual_multiplier"

gptvq_status gptvq_granite_keys(const gptvq_config_source *source, gptvq_config *config, gptvq_error *err);

#endif
