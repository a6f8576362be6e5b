/* Any bytes as config.json: what is accepted is within the ranges that the model relies on. */
#include "fuzz.h"

#include "model/arch/config.h"

#include <math.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  json_t *json = json_loadb((const char *)data, size, 0, NULL);
  if (json == NULL) return 0;
  gptvq_config c;
  gptvq_error err = {GPTVQ_OK, ""};
  if (gptvq_config_parse("folder", json, json, &c, &err) == GPTVQ_OK) {
    size_t rotated = (size_t)((double)c.head_dim * c.rope.partial_rotary_factor), slides = 0;
    if (c.hidden == 0 || c.layers == 0 || c.vocab == 0 || c.head_dim == 0 || c.kv_heads == 0 ||
        c.heads % c.kv_heads != 0 || c.intermediate == 0 || c.max_positions == 0 ||
        (c.eos_count > 0 && c.eos == NULL) || c.experts_per_token > c.experts)
      abort();
    if (!(c.rms_norm_eps > 0.0) || !(c.rope.theta > 0.0) || !isfinite(c.rope.factor) || rotated == 0 ||
        rotated % 2 != 0 || rotated > c.head_dim)
      abort();
    if ((c.rope.type == GPTVQ_ROPE_LONGROPE) != (c.rope.short_factor != NULL && c.rope.long_factor != NULL))
      abort();
    for (size_t i = 0; i < c.layers; i++) slides += c.layer_slides[i];
    if ((slides > 0) != (c.sliding_window > 0)) abort();
    gptvq_config_release(&c);
  } else if (err.status == GPTVQ_OK || err.message[0] == '\0') {
    abort();
  }
  json_decref(json);
  return 0;
}
