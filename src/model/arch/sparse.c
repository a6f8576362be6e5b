/* Keys of families whose layers have experts or one MLP each. */
#include "model/arch/arch.h"

enum { MAX_INTERMEDIATE = 1 << 22, MAX_STEP = 1 << 20 };

/* A layer has experts if its number, counted from one, is a multiple of the step and no list excludes it. */
static gptvq_status read_dense_layers(const gptvq_config_source *source, gptvq_config *c, gptvq_error *err) {
  size_t step = 1;
  GPTVQ_TRY(gptvq_config_size(source, "decoder_sparse_step", 1, MAX_STEP, &step, err));
  for (size_t i = 0; i < c->layers; i++) c->layer_dense[i] = c->experts == 0 || (i + 1) % step != 0;
  const json_t *list = gptvq_config_value(source, "mlp_only_layers");
  if (list != NULL && !json_is_array(list))
    return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s/%s: mlp_only_layers is not a list of layers",
                      source->folder, source->file);
  for (size_t i = 0; i < json_array_size(list); i++) {
    const json_t *item = json_array_get(list, i);
    const json_int_t layer = json_integer_value(item);
    if (!json_is_integer(item) || layer < 0)
      return gptvq_fail(err, GPTVQ_ERROR_FORMAT, "%s/%s: mlp_only_layers[%zu] is not a layer", source->folder,
                        source->file, i);
    if ((size_t)layer < c->layers) c->layer_dense[layer] = true;
  }
  return GPTVQ_OK;
}

gptvq_status gptvq_config_read_sparse(const gptvq_config_source *source, gptvq_config *c, gptvq_error *err) {
  bool normalised = false, slides = false;
  GPTVQ_TRY(gptvq_config_need(source, "moe_intermediate_size", err));
  GPTVQ_TRY(
      gptvq_config_size(source, "moe_intermediate_size", 1, MAX_INTERMEDIATE, &c->expert_intermediate, err));
  GPTVQ_TRY(gptvq_config_bool(source, "norm_topk_prob", &normalised, err));
  c->router.keeps_sum = !normalised;
  GPTVQ_TRY(gptvq_config_bool(source, "use_sliding_window", &slides, err));
  if (slides)
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "%s/%s: use_sliding_window is not supported in a mixture of experts", source->folder,
                      source->file);
  return read_dense_layers(source, c, err);
}
