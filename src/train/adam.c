#include "train/train.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

static const double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8;

gptvq_status gptvq_ft_adam_create(size_t count, gptvq_ft_adam *adam, gptvq_error *err) {
  adam->count = count;
  adam->step = 0;
  adam->mean = gptvq_alloc_zero(count, sizeof(float));
  adam->square = gptvq_alloc_zero(count, sizeof(float));
  if (adam->mean != NULL && adam->square != NULL) return GPTVQ_OK;
  gptvq_ft_adam_release(adam);
  return gptvq_fail_memory(err, "fine-tuning: optimizer state",
                           gptvq_saturated_size(count, 2 * sizeof(float)));
}

void gptvq_ft_adam_restart(gptvq_ft_adam *adam) {
  memset(adam->mean, 0, adam->count * sizeof *adam->mean);
  memset(adam->square, 0, adam->count * sizeof *adam->square);
  adam->step = 0;
}

void gptvq_ft_adam_release(gptvq_ft_adam *adam) {
  free(adam->mean);
  free(adam->square);
  memset(adam, 0, sizeof *adam);
}

void gptvq_ft_adam_update(gptvq_ft_adam *adam, size_t tables, double table_rate, double vector_rate,
                          const float *unit, const float *gradient, float *theta) {
  adam->step++;
  /* gradients carry the units' inverse; scaled by the unit they are comparable, and so is epsilon */
  double bias1 = 1.0 - pow(beta1, (double)adam->step), bias2 = 1.0 - pow(beta2, (double)adam->step);
  for (size_t i = 0; i < adam->count; i++) {
    double g = (double)gradient[i] * (double)unit[i];
    double mean = beta1 * (double)adam->mean[i] + (1.0 - beta1) * g;
    double square = beta2 * (double)adam->square[i] + (1.0 - beta2) * g * g;
    adam->mean[i] = (float)mean;
    adam->square[i] = (float)square;
    double rate = i < tables ? table_rate : vector_rate;
    theta[i] -= (float)(rate * (double)unit[i] * (mean / bias1) / (sqrt(square / bias2) + epsilon));
  }
}

gptvq_ft_look gptvq_ft_judge(gptvq_ft_looks *looks, const gptvq_finetune_options *options, double error,
                             gptvq_finetune_result *result) {
  if (error < result->after) {
    result->after = error;
    result->best_step = result->steps;
    looks->stale = 0;
    return GPTVQ_FT_BETTER;
  }
  looks->slower *= 0.5; /* the rates were too high */
  return ++looks->stale >= options->patience ? GPTVQ_FT_OVER : GPTVQ_FT_WORSE;
}

double gptvq_ft_schedule(size_t step, size_t steps) {
  const double pi = 3.14159265358979323846;
  size_t warm = steps / 20 + 1;
  if (step < warm) return (double)(step + 1) / (double)warm;
  return 0.5 * (1.0 + cos(pi * (double)(step - warm) / (double)(steps - warm)));
}
