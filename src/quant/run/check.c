/* What a run could not store is found before its first block, not when the layer's turn comes. */
#include "quant/run/pipeline.h"
#include "base/memory.h"
#include "base/threads.h"
#include "linalg/gemm_bf16.h"
#include "quant/layer/half_scales.h"
#include "quant/plan/memory.h"

/* Has what multiplies in calibration products in bf16: the CPU, or the device that is asked for? Not `auto`,
 * which may end on the CPU. */
static bool multiplies_bf16(const gptvq_quantize_options *o) {
  gptvq_device_choice choice;
  return gptvq_gemm_bf16_available() || (gptvq_device_parse(o->device, &choice, NULL) == GPTVQ_OK &&
                                         (choice.kind == GPTVQ_ON_CUDA || choice.kind == GPTVQ_ON_SHIM));
}

gptvq_status gptvq_pipeline_settle_options(gptvq_resolved *options, gptvq_error *err) {
  gptvq_quantize_options *o = &options->options;
  const bool data = gptvq_run_uses_data(options), rounds = multiplies_bf16(o);
  if ((o->finetune_steps > 0 || o->finetune_block_steps > 0) && !data)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT,
                      "fine-tuning needs calibration data: `method` gptvq or gptq, not %s",
                      gptvq_method_name(o->method));
  if (o->calib_compute == GPTVQ_COMPUTE_BF16 && !rounds)
    return gptvq_fail(
        err, GPTVQ_ERROR_UNSUPPORTED,
        "`calib_compute` bf16 needs a processor with AVX512-BF16, or `device` cuda: choose auto or fp32");
  /* what auto means here is part of the run: it is not resumed where that is something else */
  if (data && o->calib_compute == GPTVQ_COMPUTE_AUTO && rounds) o->calib_compute = GPTVQ_COMPUTE_BF16;
  return GPTVQ_OK;
}

gptvq_status gptvq_pipeline_check_original(const gptvq_model *model, const char *model_dir,
                                           gptvq_error *err) {
  const json_t *said = json_object_get(gptvq_checkpoint_config(model->checkpoint), "quantization_config");
  if (gptvq_model_quantization_json(model) != NULL) {
    const char *method = json_string_value(json_object_get(said, "quant_method"));
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED, "%s is already quantized (%s): give the original model",
                      model_dir, method != NULL ? method : "quantization_config in config.json");
  }
  if (model->info.packed) /* a folder whose config.json has lost it */
    return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                      "%s is already quantized (it has packed layers): give the original model", model_dir);
  return GPTVQ_OK;
}

enum { ROWS = 16 };

typedef struct check {
  const gptvq_linear *linear;
  gptvq_packed_shape shape;
  float *rows;              /* [threads][cols] */
  gptvq_row_energy *energy; /* [rows] */
} check;

static void check_rows(void *context, size_t begin, size_t end, size_t thread) {
  const check *c = context;
  const gptvq_linear *linear = c->linear;
  size_t cols = linear->cols;
  float *row = c->rows + thread * cols;
  for (size_t r = begin; r < end; r++) {
    const char *stored = (const char *)linear->weights + r * cols * gptvq_dtype_size(linear->dtype);
    gptvq_to_float(linear->dtype, stored, cols, row);
    gptvq_add_uniform_row(&c->shape, row, &c->energy[r]);
  }
}

gptvq_status gptvq_check_linear(const gptvq_linear *linear, const gptvq_packed_shape *shape,
                                const char *instead, gptvq_error *err) {
  check c = {.linear = linear, .shape = *shape};
  c.rows = gptvq_alloc(gptvq_thread_count(), linear->cols * sizeof *c.rows);
  c.energy = gptvq_alloc_zero(linear->rows, sizeof *c.energy);
  gptvq_status status = GPTVQ_OK;
  if (c.rows == NULL || c.energy == NULL) {
    status = gptvq_fail_memory(err, linear->name, gptvq_saturated_size(linear->rows, sizeof *c.energy));
  } else {
    gptvq_parallel_for(linear->rows, ROWS, check_rows, &c);
    gptvq_linear_rest(linear);
    status = instead != NULL ? gptvq_check_half_scales(linear->name, linear->rows, c.energy, instead, err)
                             : gptvq_check_uniform_rows(linear->name, linear->rows, c.energy, err);
  }
  free(c.rows);
  free(c.energy);
  return status;
}

gptvq_status gptvq_pipeline_check_layers(const gptvq_model *model, const gptvq_resolved *options,
                                         gptvq_error *err) {
  if (!gptvq_is_uniform(&options->options)) return GPTVQ_OK;
  for (size_t b = 0; b < model->config.layers; b++)
    for (size_t i = 0; i < model->blocks[b].linear_count; i++) {
      const gptvq_linear *linear = &model->blocks[b].linears[i];
      gptvq_packed_shape shape;
      GPTVQ_TRY(gptvq_layer_shape(linear->rows, linear->cols, options, &shape, err));
      GPTVQ_TRY(gptvq_check_linear(linear, &shape, NULL, err));
    }
  return GPTVQ_OK;
}
