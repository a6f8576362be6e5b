/* gptvq_quantize_plan: what a run would make and take, from the headers of the model's files alone. */
#include "quant/run/pipeline.h"
#include "base/memory.h"
#include "base/sized.h"
#include "linalg/gemm.h"
#include "linalg/gemm_bf16.h"
#include "quant/options/options.h"
#include "quant/run/budget.h"
#include "quant/plan/memory.h"
#include "quant/plan/time.h"

gptvq_status gptvq_plan_sizes(const gptvq_model *model, const gptvq_tensor_plan *tensors,
                              const gptvq_resolved *options, gptvq_quantize_plan *out, gptvq_error *err) {
  const gptvq_quantize_options *o = &options->options;
  const gptvq_outside_bits *bits = &tensors->bits;
  uint64_t bytes;
  GPTVQ_TRY(gptvq_estimate_layers(model, options, &bytes, err));
  out->format = gptvq_format_name(o);
  out->allocates = gptvq_allocates(o);
  out->bits = 8.0 * (double)bytes / (double)model->info.linear_values;
  out->embedding_bits = bits->embedding;
  out->head_bits = gptvq_outside_packs_head(model, bits) && bits->head == 16 ? bits->embedding : bits->head;
  return GPTVQ_OK;
}

static gptvq_status plan_model(const gptvq_model *model, const gptvq_callbacks *callbacks,
                               gptvq_resolved *options, gptvq_quantize_plan *out, gptvq_error *err) {
  gptvq_quantize_options *o = &options->options;
  GPTVQ_TRY(gptvq_budget_settle(model, callbacks, options, err));
  gptvq_tensor_plan tensors;
  gptvq_memory_plan memory;
  gptvq_stage_sum sums[GPTVQ_STAGES];
  gptvq_backend backend = gptvq_cpu_backend;
  uint64_t bytes;
  if (gptvq_run_keeps_half(options)) backend.linalg = &gptvq_cpu_linalg_bf16;
  if (gptvq_run_uses_data(options)) GPTVQ_TRY(gptvq_calibration_length(model, o, &o->calib_length, err));
  GPTVQ_TRY(gptvq_plan_create(model, options, &tensors, err));
  gptvq_status status = gptvq_plan_sizes(model, &tensors, options, out, err);
  if (status == GPTVQ_OK) status = gptvq_estimate_bytes(model, &tensors, options, &bytes, err);
  gptvq_plan_release(&tensors);
  GPTVQ_TRY(status);
  GPTVQ_TRY(gptvq_blas_init(err));
  gptvq_model_rest(model); /* pages of what was looked at */
  const double resident = (double)gptvq_resident_memory(), available = (double)gptvq_available_memory(),
               limit = o->memory_limit > 0 ? (double)o->memory_limit
                       : available > 0.0   ? available + resident
                                           : 0.0;
  gptvq_memory_plan_make(model, options, o->calib_samples, resident, limit, o->memory_limit > 0, &memory);
  GPTVQ_TRY(gptvq_time_plan_make(model, options, &backend, &memory, sums, err));
  out->linear_values = model->info.linear_values;
  out->output_bytes = bytes;
  out->limit_bytes = (uint64_t)limit;
  out->peak_bytes = (uint64_t)memory.peak;
  out->least_bytes = (uint64_t)memory.least;
  out->scratch_bytes = (uint64_t)memory.scratch_bytes;
  for (size_t i = 0; i < GPTVQ_MEMORY_PHASES; i++)
    out->phases[out->phase_count++] =
        (gptvq_plan_phase){gptvq_memory_phase_name((gptvq_memory_phase)i), (uint64_t)memory.phases[i]};
  for (size_t i = 0; i < GPTVQ_STAGES; i++) {
    out->stages[out->stage_count++] =
        (gptvq_stage_time){gptvq_stage_name((gptvq_stage)i), sums[i].seconds, 0.0, sums[i].flop};
    out->seconds += sums[i].seconds;
  }
  return GPTVQ_OK;
}

gptvq_status gptvq_quantize_plan_make(const char *model_dir, const gptvq_quantize_options *options,
                                      const gptvq_callbacks *callbacks, gptvq_quantize_plan *plan,
                                      gptvq_error *err) {
  if (model_dir == NULL || options == NULL)
    return gptvq_fail(err, GPTVQ_ERROR_ARGUMENT, "gptvq_quantize_plan_make needs a model folder and options");
  gptvq_callbacks own_callbacks = {.size = sizeof own_callbacks};
  gptvq_quantize_options own;
  gptvq_resolved resolved;
  gptvq_quantize_plan result = {0};
  gptvq_model *model;
  GPTVQ_TRY(gptvq_options_take(options, &own, err));
  GPTVQ_TRY(GPTVQ_TAKE(gptvq_callbacks, callbacks, &own_callbacks, err));
  GPTVQ_TRY(gptvq_check_result("gptvq_quantize_plan", plan, err));
  GPTVQ_TRY(gptvq_resolve(&own, &resolved, err));
  GPTVQ_TRY(gptvq_pipeline_settle_options(&resolved, err));
  gptvq_device_choice device;
  GPTVQ_TRY(gptvq_device_parse(own.device, &device, err));
  if (device.kind == GPTVQ_ON_CUDA || device.kind == GPTVQ_ON_SHIM)
    return gptvq_fail(
        err, GPTVQ_ERROR_UNSUPPORTED,
        "a plan measures the CPU only: leave `device` %s out (docs/GPU.md has what a card takes)",
        own.device);
  const gptvq_model_options open = {
      .size = sizeof open, .compute = GPTVQ_COMPUTE_FP32, .callbacks = &own_callbacks};
  GPTVQ_TRY(gptvq_model_open(model_dir, &open, &model, err));
  gptvq_status status = gptvq_pipeline_check_original(model, model_dir, err);
  if (status == GPTVQ_OK) status = plan_model(model, &own_callbacks, &resolved, &result, err);
  gptvq_model_close(model);
  if (status == GPTVQ_OK) gptvq_give_struct(&result, sizeof result, plan);
  return status;
}
