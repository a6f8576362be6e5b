/* cuda/card.h: an NVIDIA card as a device (cuda/device.h), through the driver, cuBLAS and cuSOLVER, which are
 * loaded when the first is asked for. */
#ifndef GPTVQ_CUDA_CARD_H
#define GPTVQ_CUDA_CARD_H

#include "cuda/device.h"

#include <limits.h>

/* The oldest compute capability that kernels are compiled for, as major · 10 + minor. */
enum { GPTVQ_CARD_CAPABILITY = 80 };

typedef struct gptvq_card_need {
  size_t bytes;      /* of free device memory at least */
  const void *image; /* kernels: gptvq_cuda_image; NULL: that one */
  unsigned first;    /* of any card: where to begin, counted round and round */
} gptvq_card_need;

#define GPTVQ_CARD_ANY UINT_MAX /* the first one that will do, from need->first on */

/* The card of this number, as the driver counts (CUDA_VISIBLE_DEVICES holds). GPTVQ_ERROR_UNSUPPORTED: no
 * driver, one that is too old, no such card, one that is too old, a library is missing, or the program has no
 * kernels for cards; GPTVQ_ERROR_MEMORY: the card's is too small or in use; each with a line that says so. On
 * success the caller closes *out. */
gptvq_status gptvq_card_open(unsigned number, const gptvq_card_need *need, gptvq_device **out,
                             gptvq_error *err);

/* What else is known of an open card, for reports. */
typedef struct gptvq_card_info {
  char name[256];
  unsigned number;
  int driver;            /* version: 1000 · major + 10 · minor */
  unsigned major, minor; /* compute capability */
  size_t memory;         /* bytes, all of it */
} gptvq_card_info;
void gptvq_card_describe(const gptvq_device *card, gptvq_card_info *info);

#endif
