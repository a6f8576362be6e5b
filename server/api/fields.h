/* server/api/fields.h: members of a request's JSON, by their types. What is absent or null leaves the value
 * as it is. Functions are false with an error that names the member. */
#ifndef GPTVQ_SERVER_API_FIELDS_H
#define GPTVQ_SERVER_API_FIELDS_H

#include "server/api/error.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

/* The member, or NULL when it is absent or null. */
const json_t *gptvq_member(const json_t *object, const char *name);
bool gptvq_member_number(const json_t *object, const char *name, double min, double max, double *value,
                         gptvq_api_error *error);
bool gptvq_member_float(const json_t *object, const char *name, double min, double max, float *value,
                        gptvq_api_error *error);
bool gptvq_member_size(const json_t *object, const char *name, size_t min, size_t max, size_t *value,
                       gptvq_api_error *error);
bool gptvq_member_bool(const json_t *object, const char *name, bool *value, gptvq_api_error *error);
/* A token id within the vocabulary. */
bool gptvq_member_id(const json_t *value, const char *name, size_t vocab, int32_t *id,
                     gptvq_api_error *error);
/* A body as an object, which the caller owns. */
bool gptvq_member_parse(const char *body, size_t size, json_t **object, gptvq_api_error *error);

#endif
