#include "train/train.h"

#include "base/memory.h"
#include "base/random.h"

#include <string.h>

gptvq_status gptvq_ft_windows_create(size_t windows, const gptvq_finetune_options *options,
                                     gptvq_ft_windows *out, gptvq_error *err) {
  size_t held = gptvq_min_size(options->holdout, windows / 2);
  memset(out, 0, sizeof *out);
  out->random = options->seed;
  if (windows == 0)
    return gptvq_fail(err, GPTVQ_ERROR_DATA, "fine-tuning needs at least one calibration window");
  out->training = gptvq_alloc(windows, sizeof(size_t));
  out->held = gptvq_alloc(windows, sizeof(size_t));
  if (out->training == NULL || out->held == NULL) {
    gptvq_ft_windows_release(out);
    return gptvq_fail_memory(err, "fine-tuning: window lists",
                             gptvq_saturated_size(windows, 2 * sizeof(size_t)));
  }
  for (size_t w = 0; w < windows; w++) {
    if (w + held >= windows) out->held[out->held_count++] = w;
    else out->training[out->training_count++] = w;
  }
  out->at = out->training_count;
  return GPTVQ_OK;
}

void gptvq_ft_windows_release(gptvq_ft_windows *windows) {
  free(windows->training);
  free(windows->held);
  memset(windows, 0, sizeof *windows);
}

const size_t *gptvq_ft_windows_next(gptvq_ft_windows *windows, size_t batch) {
  if (windows->at + batch > windows->training_count) {
    for (size_t i = windows->training_count; i > 1; i--) {
      size_t j = gptvq_random_below(&windows->random, i), swap = windows->training[i - 1];
      windows->training[i - 1] = windows->training[j];
      windows->training[j] = swap;
    }
    windows->at = 0;
  }
  windows->at += batch;
  return windows->training + windows->at - batch;
}
