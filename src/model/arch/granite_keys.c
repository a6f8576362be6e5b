#include "model/arch/granite.h"

gptvq_status gptvq_granite_keys(const gptvq_config_source *source, gptvq_config *c, gptvq_error *err) {
  double attention = 1.0, logits = 1.0;
  GPTVQ_TRY(gptvq_config_number(source, "attention_multiplier", 1e-6, 1e6, &attention, err));
  GPTVQ_TRY(gptvq_config_number(source, "embedding_multiplier", 1e-6, 1e6, &c->embedding_scale, err));
  GPTVQ_TRY(gptvq_config_number(source, "residual_multiplier", 1e-6, 1e6, &c->residual_scale, err));
  GPTVQ_TRY(gptvq_config_number(source, "logits_scaling", 1e-6, 1e6, &logits, err));
  c->query_scalar = 1.0 / (attention * attention);
  c->logit_scale = 1.0 / logits;
  return GPTVQ_OK;
}
