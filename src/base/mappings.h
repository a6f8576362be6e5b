/* base/mappings.h: which file is mapped where, for handlers of SIGBUS (gptvq_mapped_file). */
#ifndef GPTVQ_BASE_MAPPINGS_H
#define GPTVQ_BASE_MAPPINGS_H

#include "base/file.h"

/* Between mapping and unmapping. GPTVQ_ERROR_MEMORY. */
gptvq_status gptvq_mapping_register(const gptvq_mapping *mapping, const char *path, gptvq_error *err);
void gptvq_mapping_forget(const gptvq_mapping *mapping);

#endif
