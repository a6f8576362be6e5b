#define _GNU_SOURCE /* clock_gettime */
#include "base/stages.h"
#include "base/clock.h"
#include "base/memory.h"

#include <string.h>

void gptvq_stages_start(gptvq_stages *stages) {
  if (stages == NULL) return;
  memset(stages, 0, sizeof *stages);
  stages->since = gptvq_clock();
  stages->cpu_since = gptvq_cpu_seconds();
}

gptvq_stage gptvq_stage_enter(gptvq_stages *stages, gptvq_stage stage) {
  if (stages == NULL) return GPTVQ_STAGE_OTHER;
  gptvq_stage before = stages->now;
  double now = gptvq_clock(), cpu = gptvq_cpu_seconds();
  stages->sums[before].seconds += now - stages->since;
  stages->sums[before].cpu_seconds += cpu - stages->cpu_since;
  stages->since = now;
  stages->cpu_since = cpu;
  stages->now = stage;
  return before;
}

void gptvq_stage_count(gptvq_stages *stages, gptvq_precision precision, double flop) {
  if (stages == NULL) return;
  gptvq_stage_sum *sum = &stages->sums[stages->now];
  sum->flop += flop;
  sum->precise_flop[precision] += flop;
}

void gptvq_stage_device(gptvq_stages *stages, double seconds) {
  if (stages != NULL) stages->sums[stages->now].device_seconds += seconds;
}

const char *gptvq_stage_name(gptvq_stage stage) {
  static const char *const names[GPTVQ_STAGES] = {[GPTVQ_STAGE_OTHER] = "other",
                                                  [GPTVQ_STAGE_SAMPLE] = "calibration text",
                                                  [GPTVQ_STAGE_GRADIENT] = "gradients",
                                                  [GPTVQ_STAGE_SENSITIVITY] = "sensitivities",
                                                  [GPTVQ_STAGE_FORWARD_ORIGINAL] = "forward, original",
                                                  [GPTVQ_STAGE_FORWARD] = "forward, quantized",
                                                  [GPTVQ_STAGE_HESSIAN] = "Hessians",
                                                  [GPTVQ_STAGE_MISMATCH] = "mismatch",
                                                  [GPTVQ_STAGE_FACTOR] = "factorisation",
                                                  [GPTVQ_STAGE_KMEANS] = "k-means",
                                                  [GPTVQ_STAGE_LOOP] = "loop",
                                                  [GPTVQ_STAGE_UPDATE] = "codebook update",
                                                  [GPTVQ_STAGE_REASSIGN] = "re-assignment",
                                                  [GPTVQ_STAGE_WRITE] = "writing",
                                                  [GPTVQ_STAGE_JUDGE] = "losses at the end"};
  return (unsigned)stage < GPTVQ_STAGES ? names[stage] : "";
}
