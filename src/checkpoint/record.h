/* checkpoint/record.h: what a packed folder says of how it was made and judged, GPTVQ_RECORD_NAME
 * (docs/FORMAT.md, section 7). Nothing that runs a model reads it. */
#ifndef GPTVQ_CHECKPOINT_RECORD_H
#define GPTVQ_CHECKPOINT_RECORD_H

#include "base/status.h"
#include <jansson.h>

enum { GPTVQ_RECORD_FORMAT = 1 };

/* {"format": 1, "gptvq_version": …, "evaluations": []}; NULL: out of memory */
json_t *gptvq_record_new(void);
/* Of a folder, a new object; of one that has none: gptvq_record_new(). GPTVQ_ERROR_FORMAT: damaged;
 * GPTVQ_ERROR_UNSUPPORTED: of a later version. */
gptvq_status gptvq_record_load(const char *folder, json_t **record, gptvq_error *err);
gptvq_status gptvq_record_save(const char *folder, const json_t *record, gptvq_error *err);
/* Takes `evaluation` over, also on failure. One of the same text and windows that measured the same gives
 * way. */
gptvq_status gptvq_record_add(json_t *record, json_t *evaluation, gptvq_error *err);

#endif
