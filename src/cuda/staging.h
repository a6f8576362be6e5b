/* cuda/staging.h: copies between a card and memory of the host that is not pinned, by way of two buffers that
 * are: all threads fill one, or empty it, while the card copies the other. */
#ifndef GPTVQ_CUDA_STAGING_H
#define GPTVQ_CUDA_STAGING_H

#include "cuda/device.h"
#include "cuda/nvidia.h"

enum { GPTVQ_STAGING_BYTES = 16 << 20 /* of a buffer */, GPTVQ_STAGING_LEAST = 1 << 20 /* worth it */ };

typedef struct gptvq_staging {
  const gptvq_nvidia *nvidia; /* NULL: there is none */
  char *memory;               /* both buffers */
  CUevent copied[2];          /* the last copy of each; the stream's order is that of the calls */
  bool busy[2];               /* it may not be over */
  int next;
} gptvq_staging;

/* In the card's context, like all of these. Where memory cannot be pinned there is none: no error. */
void gptvq_staging_open(gptvq_staging *staging, const gptvq_nvidia *nvidia);
void gptvq_staging_close(gptvq_staging *staging); /* a zeroed one is fine */
/* Rows that it is for: enough of them, none longer than a buffer. */
bool gptvq_staging_takes(const gptvq_staging *staging, const gptvq_device_rows *shape);
/* As upload and download of cuda/device.h. An upload may return before the card has copied. */
gptvq_status gptvq_staging_upload(gptvq_staging *staging, const gptvq_device_rows *shape, CUdeviceptr to,
                                  const void *from, gptvq_error *err);
gptvq_status gptvq_staging_download(gptvq_staging *staging, const gptvq_device_rows *shape, void *to,
                                    CUdeviceptr from, gptvq_error *err);

#endif
