#include "quant/layer/half_scales.h"

#include <math.h>

enum { STEPS = 3 }; /* of 2-bit codes */

void gptvq_add_group(gptvq_row_energy *row, size_t n, const float *weights, float range, float stored,
                     unsigned top) {
  double sum = 0.0;
  for (size_t i = 0; i < n; i++) sum += (double)weights[i] * (double)weights[i];
  bool holds = isfinite(range) && fabsf(stored * (float)top - range) <= range / (2.0f * STEPS);
  row->all += sum;
  if (!holds) row->lost += sum;
}

gptvq_status gptvq_check_half_scales(const char *name, size_t rows, const gptvq_row_energy *energy,
                                     const char *instead, gptvq_error *err) {
  double all = 0.0, lost = 0.0;
  for (size_t r = 0; r < rows; r++) all += energy[r].all, lost += energy[r].lost;
  if (lost * STEPS * STEPS <= all) return GPTVQ_OK; /* false for NaN */
  return gptvq_fail(err, GPTVQ_ERROR_NUMERIC,
                    "%s: the weights are too small or too large for uniform codes with fp16 scales (2^-24 to "
                    "65504): %s",
                    name, instead);
}
