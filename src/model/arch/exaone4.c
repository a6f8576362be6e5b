#include "model/arch/arch.h"

/* In models with a window only the layers that have it are rotated, else all of them. */
static gptvq_status read_own(const gptvq_config_source *source, gptvq_config *c, gptvq_error *err) {
  static const char pattern[] = "sliding_window_pattern";
  const bool window = !json_is_null(json_object_get(source->object, "sliding_window"));
  size_t every = 4;
  if (gptvq_config_value(source, "layer_types") == NULL && window) {
    if (json_is_string(gptvq_config_value(source, pattern)))
      return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                        "%s/%s: %s as text is supported beside layer_types only", source->folder,
                        source->file, pattern);
    GPTVQ_TRY(gptvq_config_size(source, pattern, 1, SIZE_MAX, &every, err));
  }
  gptvq_config_full_every(source, every, c);
  for (size_t i = 0; i < c->layers; i++)
    if (window && !c->layer_slides[i]) c->layer_rope[i] = GPTVQ_USE_NO_ROPE;
  return GPTVQ_OK;
}

static const char *const own_keys[] = {"sliding_window_pattern", NULL};

const gptvq_arch gptvq_arch_exaone4 = {
    .name = "Exaone4",
    .model_type = "exaone4",
    .config = {.rms_norm_eps = 1e-5,
               .rope_theta = 1e4,
               .max_positions = 2048,
               .sliding_window = 4096,
               .layer_types = true,
               .own_keys = own_keys,
               .read_own = read_own},
    .norms = {GPTVQ_POST_NORMS, GPTVQ_QK_NORMS},
    .linears = {GPTVQ_SPLIT_LINEARS(GPTVQ_BIAS_NEVER, GPTVQ_BIAS_NEVER)},
    .slides = true,
};
