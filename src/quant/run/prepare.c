/* The model that is quantized in the original's place: the original, changed without changing its function.
 */
#include "quant/run/pipeline.h"
#include "base/file.h"
#include "checkpoint/output_files.h"
#include "quant/transform/transform.h"

static const char folder_name[] = GPTVQ_TRANSFORMED_NAME,
                  config_name[] = GPTVQ_TRANSFORMED_NAME "/config.json",
                  tensors_name[] = GPTVQ_TRANSFORMED_NAME "/model.safetensors";

static gptvq_status write_folder(const gptvq_model *model, const gptvq_output *out, const char *folder,
                                 const gptvq_resolved *options, uint64_t output_bytes,
                                 const gptvq_callbacks *callbacks, gptvq_error *err) {
  gptvq_transform transform;
  uint64_t bytes;
  gptvq_status status = gptvq_transform_create(model, options, &transform, err);
  if (status != GPTVQ_OK) goto done;
  GPTVQ_TRY_GOTO(gptvq_transform_bytes(&transform, &bytes, err));
  GPTVQ_TRY_GOTO(gptvq_output_check_space(out, bytes + output_bytes, err));
  GPTVQ_TRY_GOTO(gptvq_remove_subfolder(folder, err)); /* what an interrupted run left */
  GPTVQ_TRY_GOTO(gptvq_make_folder(folder, err));
  GPTVQ_TRY_GOTO(gptvq_transform_write(&transform, folder, callbacks, err));
  if (model->config.tie_embeddings && (options->options.rotate & GPTVQ_ROTATE_RESIDUAL) != 0)
    gptvq_log(callbacks, GPTVQ_LOG_INFO,
              "embedding and output head were one matrix and become two: a rotated model has its last norm's "
              "gain in the head "
              "(%llu bytes more)",
              (unsigned long long)(model->config.vocab * model->config.hidden *
                                   gptvq_dtype_size(model->embedding.dtype)));
done:
  gptvq_transform_release(&transform);
  return status;
}

/* The folder's path, and whether it is whole: the tensors appear last; the configuration may be gone before
 * them. */
static gptvq_status look(const gptvq_output *out, char folder[GPTVQ_PATH_MAX], bool *whole,
                         gptvq_error *err) {
  char config[GPTVQ_PATH_MAX], tensors[GPTVQ_PATH_MAX];
  GPTVQ_TRY(gptvq_output_path(out, folder_name, folder, err));
  GPTVQ_TRY(gptvq_output_path(out, config_name, config, err));
  GPTVQ_TRY(gptvq_output_path(out, tensors_name, tensors, err));
  *whole = gptvq_path_exists(tensors) && gptvq_path_exists(config);
  return GPTVQ_OK;
}

static gptvq_status open_folder(const char *folder, gptvq_model **prepared, gptvq_error *err) {
  const gptvq_model_options open = {.size = sizeof open, .compute = GPTVQ_COMPUTE_FP32};
  return gptvq_model_open(folder, &open, prepared, err);
}

gptvq_status gptvq_pipeline_prepare(const gptvq_model *model, const gptvq_output *out,
                                    const gptvq_resolved *options, uint64_t output_bytes,
                                    const gptvq_callbacks *callbacks, gptvq_model **prepared,
                                    gptvq_error *err) {
  char folder[GPTVQ_PATH_MAX];
  bool whole;
  *prepared = NULL;
  if (!gptvq_transform_wanted(options)) return GPTVQ_OK;
  GPTVQ_TRY(look(out, folder, &whole, err));
  if (!whole) GPTVQ_TRY(write_folder(model, out, folder, options, output_bytes, callbacks, err));
  return open_folder(folder, prepared, err);
}

gptvq_status gptvq_pipeline_take_prepared(const gptvq_output *out, const gptvq_resolved *options,
                                          gptvq_model **prepared, gptvq_error *err) {
  char folder[GPTVQ_PATH_MAX];
  bool whole;
  *prepared = NULL;
  if (!gptvq_transform_wanted(options)) return GPTVQ_OK;
  GPTVQ_TRY(look(out, folder, &whole, err));
  if (whole) return open_folder(folder, prepared, err);
  return gptvq_fail(err, GPTVQ_ERROR_IO,
                    "the transformed model, %s, is not there on this machine: give an output folder that all "
                    "machines share",
                    folder);
}

gptvq_status gptvq_pipeline_drop_prepared(const gptvq_output *out, gptvq_error *err) {
  char folder[GPTVQ_PATH_MAX];
  GPTVQ_TRY(gptvq_output_path(out, folder_name, folder, err));
  return gptvq_remove_subfolder(folder, err);
}
