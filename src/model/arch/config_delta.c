/* Keys of gated delta nets: which layers are such, and their sizes. */
#include "base/memory.h"
#include "model/arch/config.h"

#include <string.h>

enum { MAX_DELTA_HEADS = 1 << 12, MAX_INTERVAL = 1 << 12 };

gptvq_status gptvq_config_parse_delta(const gptvq_config_source *source, gptvq_config *c, gptvq_error *err) {
  gptvq_delta_sizes *d = &c->delta;
  *d = (gptvq_delta_sizes){.key_heads = 16, .value_heads = 32, .key_dim = 128, .value_dim = 128, .kernel = 4};
  GPTVQ_TRY(gptvq_config_size(source, "linear_num_key_heads", 1, MAX_DELTA_HEADS, &d->key_heads, err));
  GPTVQ_TRY(gptvq_config_size(source, "linear_num_value_heads", 1, MAX_DELTA_HEADS, &d->value_heads, err));
  GPTVQ_TRY(gptvq_config_size(source, "linear_key_head_dim", 1, GPTVQ_DELTA_DIM, &d->key_dim, err));
  GPTVQ_TRY(gptvq_config_size(source, "linear_value_head_dim", 1, GPTVQ_DELTA_DIM, &d->value_dim, err));
  GPTVQ_TRY(gptvq_config_size(source, "linear_conv_kernel_dim", 1, GPTVQ_DELTA_KERNEL, &d->kernel, err));
  if (d->value_heads % d->key_heads != 0)
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                      "%s/%s: linear_num_value_heads %zu is not a multiple of linear_num_key_heads %zu",
                      source->folder, source->file, d->value_heads, d->key_heads);
  c->layer_is_delta = calloc(c->layers, sizeof *c->layer_is_delta);
  if (c->layer_is_delta == NULL) return gptvq_fail_memory(err, "layer_types", c->layers);
  const json_t *types = gptvq_config_value(source, "layer_types");
  if (types != NULL)
    return gptvq_config_layer_types(source, types, "linear_attention", c->layers, c->layer_is_delta, err);
  size_t interval = 4;
  GPTVQ_TRY(gptvq_config_size(source, "full_attention_interval", 1, MAX_INTERVAL, &interval, err));
  for (size_t i = 0; i < c->layers; i++) c->layer_is_delta[i] = (i + 1) % interval != 0;
  return GPTVQ_OK;
}
