#include "model/arch/arch.h"

/* no_rope_layers: 0 for a layer whose queries and keys are not rotated, else 1; without the list that is
 * every no_rope_layer_interval-th. */
static gptvq_status read_rotated_layers(const gptvq_config_source *source, gptvq_config *c,
                                        gptvq_error *err) {
  static const char key[] = "no_rope_layers";
  const json_t *list = gptvq_config_value(source, key);
  size_t every = 4;
  GPTVQ_TRY(gptvq_config_size(source, "no_rope_layer_interval", 1, SIZE_MAX, &every, err));
  if (list != NULL && (!json_is_array(list) || json_array_size(list) < c->layers))
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                      "%s/%s: %s is not a list of num_hidden_layers = %zu numbers, 1 (rotated) or 0",
                      source->folder, source->file, key, c->layers);
  for (size_t i = 0; i < c->layers; i++) {
    const json_t *item = json_array_get(list, i);
    const json_int_t rotates = list == NULL ? (i + 1) % every != 0 : json_integer_value(item);
    if (list != NULL && (!json_is_integer(item) || rotates < 0 || rotates > 1))
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s/%s: %s[%zu] is neither 1 (rotated) nor 0",
                        source->folder, source->file, key, i);
    if (rotates == 0) c->layer_rope[i] = GPTVQ_USE_NO_ROPE;
  }
  return GPTVQ_OK;
}

static gptvq_status read_own(const gptvq_config_source *source, gptvq_config *c, gptvq_error *err) {
  bool window = false;
  GPTVQ_TRY(read_rotated_layers(source, c, err));
  GPTVQ_TRY(gptvq_config_bool(source, "use_sliding_window", &window, err));
  const bool listed = gptvq_config_value(source, "layer_types") != NULL;
  for (size_t i = 0; i < c->layers; i++) {
    if (!listed) /* the window is for layers without rotation */
      c->layer_slides[i] = window && c->sliding_window > 0 && c->layer_rope[i] == GPTVQ_USE_NO_ROPE;
    else if (c->layer_slides[i] && !window)
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT,
                        "%s/%s: layer_types[%zu] is sliding_attention, but use_sliding_window is not true",
                        source->folder, source->file, i);
  }
  return GPTVQ_OK;
}

static const char *const own_keys[] = {"no_rope_layer_interval", "no_rope_layers", NULL};

const gptvq_arch gptvq_arch_smollm3 = {
    .name = "SmolLM3",
    .model_type = "smollm3",
    .config = {.rms_norm_eps = 1e-6,
               .rope_theta = 2e6,
               .max_positions = 32768,
               .tie_embeddings = true,
               .layer_types = true,
               .own_keys = own_keys,
               .read_own = read_own},
    .norms = {GPTVQ_PRE_NORMS},
    .linears = {GPTVQ_SPLIT_LINEARS(GPTVQ_BIAS_CONFIG, GPTVQ_BIAS_CONFIG)},
    .slides = true,
};
