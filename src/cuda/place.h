/* cuda/place.h: where a run's products, solver and forward passes are at work: the CPU, a card, the shim. */
#ifndef GPTVQ_CUDA_PLACE_H
#define GPTVQ_CUDA_PLACE_H

#include "base/stages.h"
#include "cuda/backend.h"
#include "cuda/forward.h"
#include "cuda/linalg.h"
#include "quant/options/options.h"

typedef struct gptvq_place {
  char name[32];         /* "cpu", "shim", "cuda:0" */
  char kind[320];        /* places of one kind round alike: "cpu", "shim", the card and its driver */
  gptvq_backend backend; /* to be used */
  gptvq_device *device;  /* NULL: the CPU */
  gptvq_cuda *cuda;
  gptvq_cuda_linalg *linalg;
  gptvq_cuda_forward *forward;
  bool said_crowded;
} gptvq_place;

typedef struct gptvq_place_need {
  size_t bytes;      /* of device memory, at least */
  bool rounds;       /* inputs of products of calibration are rounded to bf16 */
  bool forward_only; /* no solver */
  /* So many processes on this machine, or 0, take a card each if they are not told which: the one of their
   * number, counted round and round, or the next one that will do. */
  size_t neighbours, neighbour;
  gptvq_stages *stages; /* that device time is counted in; or NULL */
} gptvq_place_need;

/* What `choice` asks for; says which in the log, and with ON_ANY why not a card. Errors of cuda/card.h, which
 * ON_ANY does not have. On success the caller closes *out. */
gptvq_status gptvq_place_open(const gptvq_device_choice *choice, const gptvq_place_need *need,
                              const gptvq_callbacks *callbacks, gptvq_place *out, gptvq_error *err);
/* NULL: the CPU runs all. */
const gptvq_forward *gptvq_place_forward(const gptvq_place *place);
/* Logs which halves of which blocks stay on the CPU on a device, a line for each reason, and whether the head
 * does. beside: another model, whose lines are left out where they are the same; or NULL. */
void gptvq_place_say_forward(const gptvq_model *model, const gptvq_model *beside,
                             const gptvq_callbacks *callbacks);
/* Logs, once, that the device's memory was too short for the best way; between layers. */
void gptvq_place_say_crowded(gptvq_place *place, const gptvq_callbacks *callbacks);
/* A zeroed one is fine. What was kept on the device is lost. */
void gptvq_place_close(gptvq_place *place);

#endif
