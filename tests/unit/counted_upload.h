/* Bytes that go to a device: counted_upload takes the place of the device's function, which is kept in
 * `upload`. */
#ifndef COUNTED_UPLOAD_H
#define COUNTED_UPLOAD_H

#include "cuda/device.h"

static gptvq_status (*upload)(gptvq_device *, const gptvq_device_rows *, void *, const void *, gptvq_error *);
static size_t uploaded;
static gptvq_status counted_upload(gptvq_device *device, const gptvq_device_rows *shape, void *to,
                                   const void *from, gptvq_error *err) {
  uploaded += shape->rows * shape->row_bytes;
  return upload(device, shape, to, from, err);
}

#endif
