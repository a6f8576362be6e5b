/* cuda/meter.h: a device that notes how long the calls to another one take: what a stage spends there. */
#ifndef GPTVQ_CUDA_METER_H
#define GPTVQ_CUDA_METER_H

#include "base/stages.h"
#include "cuda/device.h"

/* The time that the host spends in calls of `inner`, which are its work and the waiting for it, counts for
 * the stage at work. stages: may be NULL. *out closes `inner` with itself; on failure (GPTVQ_ERROR_MEMORY)
 * that stays open. */
gptvq_status gptvq_device_meter(gptvq_device *inner, gptvq_stages *stages, gptvq_device **out,
                                gptvq_error *err);

#endif
