/* tests/unit/copy_file.h */
#ifndef GPTVQ_TESTS_COPY_FILE_H
#define GPTVQ_TESTS_COPY_FILE_H

#include "base/file.h"

static inline gptvq_status copy_file(const char *from, const char *to, gptvq_error *err) {
  gptvq_mapping mapping;
  GPTVQ_TRY(gptvq_map_file(from, &mapping, err));
  gptvq_status status = gptvq_write_file(to, mapping.data, mapping.size, err);
  gptvq_unmap_file(&mapping);
  return status;
}

#endif
