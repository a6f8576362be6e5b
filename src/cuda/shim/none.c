/* The library was built without a C++ compiler. */
#include "cuda/device.h"

gptvq_status gptvq_device_open_shim(gptvq_device **out, gptvq_error *err) {
  *out = NULL;
  return gptvq_fail(err, GPTVQ_ERROR_UNSUPPORTED,
                    "this build has no device 'shim': it was made without a C++ compiler");
}
