/* The device that kernels are tested on: the shim, or with GPTVQ_TEST_DEVICE=cuda (cuda:1) a card. */
#ifndef DEVICE_FIXTURE_H
#define DEVICE_FIXTURE_H

#include "cuda/card.h"
#include "quant/options/options.h"

#include <stdlib.h>

static inline gptvq_status open_test_device(gptvq_device **out, gptvq_error *err) {
  gptvq_device_choice choice;
  const gptvq_card_need need = {.image = gptvq_cuda_image}; /* what stands for a card takes an empty one */
  GPTVQ_TRY(gptvq_device_parse(getenv("GPTVQ_TEST_DEVICE"), &choice, err));
  return choice.kind == GPTVQ_ON_CUDA ? gptvq_card_open(choice.card, &need, out, err)
                                      : gptvq_device_open_shim(out, err);
}

static inline bool on_test_card(void) {
  gptvq_device_choice choice;
  return gptvq_device_parse(getenv("GPTVQ_TEST_DEVICE"), &choice, NULL) == GPTVQ_OK &&
         choice.kind == GPTVQ_ON_CUDA;
}

#endif
