/* What a run reports: the finished folder, and what it took. */
#include "quant/run/pipeline.h"
#include "base/clock.h"
#include "base/memory.h"

#include <math.h>

gptvq_status gptvq_report_folder(const char *folder, gptvq_quantize_report *report, gptvq_error *err) {
  const gptvq_model_options open = {.size = sizeof open, .compute = GPTVQ_COMPUTE_FP32};
  gptvq_model *packed;
  GPTVQ_TRY(gptvq_model_open(folder, &open, &packed, err));
  double sum = 0;
  size_t layers = gptvq_model_layer_count(packed);
  for (size_t i = 0; i < layers; i++) {
    gptvq_layer_info info = {.size = sizeof info};
    gptvq_model_get_layer(packed, i, &info);
    sum += info.error;
  }
  report->linear_values = packed->info.linear_values;
  report->linear_bytes = packed->info.linear_bytes;
  report->bits_per_value = packed->info.bits_per_value;
  report->mean_error = layers > 0 ? sum / (double)layers : NAN;
  report->layers = layers;
  gptvq_model_close(packed);
  return GPTVQ_OK;
}

void gptvq_report_cost(gptvq_stages *stages, double start, double cpu_start, gptvq_quantize_report *report) {
  _Static_assert((int)GPTVQ_STAGES <= (int)GPTVQ_MAX_STAGES, "room in the report");
  (void)gptvq_stage_enter(stages, GPTVQ_STAGE_OTHER);
  report->stage_count = GPTVQ_STAGES;
  for (size_t i = 0; i < GPTVQ_STAGES; i++) {
    const gptvq_stage_sum *sum = &stages->sums[i];
    report->stages[i] =
        (gptvq_stage_time){gptvq_stage_name((gptvq_stage)i), sum->seconds, sum->cpu_seconds, sum->flop};
    report->stage_device_seconds[i] = sum->device_seconds;
    report->stage_bf16_flop[i] = sum->precise_flop[GPTVQ_IN_BF16];
    report->stage_double_flop[i] = sum->precise_flop[GPTVQ_IN_DOUBLE];
  }
  report->seconds = gptvq_clock() - start;
  report->cpu_seconds = gptvq_cpu_seconds() - cpu_start;
  report->peak_bytes = gptvq_peak_memory();
}
