/* eval/device/device.h: where models are evaluated beside the CPU. */
#ifndef GPTVQ_EVAL_DEVICE_DEVICE_H
#define GPTVQ_EVAL_DEVICE_DEVICE_H

#include "eval/eval.h"

/* Device bytes at most for evaluating the models together, b or NULL, in windows of ctx tokens. */
size_t gptvq_eval_device_bytes(const gptvq_model *a, const gptvq_model *b, size_t ctx);

#endif
