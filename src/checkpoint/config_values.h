/* checkpoint/config_values.h: typed, range-checked values out of a JSON object. An absent key and null are
 * the same. */
#ifndef GPTVQ_CHECKPOINT_CONFIG_VALUES_H
#define GPTVQ_CHECKPOINT_CONFIG_VALUES_H

#include "base/status.h"

#include <jansson.h>
#include <stdbool.h>

/* Where values come from, for messages: "FOLDER/FILE: PREFIXkey …". */
typedef struct gptvq_config_source {
  const char *folder, *file, *prefix;
  const json_t *object;
} gptvq_config_source;

/* The value, NULL when absent or null. */
const json_t *gptvq_config_value(const gptvq_config_source *source, const char *key);

/* Each leaves *out as it is when the key is absent; GPTVQ_ERROR_FORMAT for another type or a value outside
 * [low, high]. */
gptvq_status gptvq_config_size(const gptvq_config_source *source, const char *key, size_t low, size_t high,
                               size_t *out, gptvq_error *err);
gptvq_status gptvq_config_number(const gptvq_config_source *source, const char *key, double low, double high,
                                 double *out, gptvq_error *err);
gptvq_status gptvq_config_bool(const gptvq_config_source *source, const char *key, bool *out,
                               gptvq_error *err);
/* text of at most size − 1 bytes */
gptvq_status gptvq_config_text(const gptvq_config_source *source, const char *key, char *out, size_t size,
                               gptvq_error *err);

/* "… FOLDER/FILE: PREFIXkey is missing" when the key is absent, else GPTVQ_OK. */
gptvq_status gptvq_config_need(const gptvq_config_source *source, const char *key, gptvq_error *err);

#endif
